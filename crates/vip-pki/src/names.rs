//! What a certificate says its holder is: one DNS name.
//!
//! `<id>.node.<cluster>` is a member, `<user>.<role>.admin.<cluster>` a person.

use data_encoding::HEXLOWER;
use vip_core::{AdminRole, Name, NodeId};

/// Who is at the other end of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Identity {
    /// A member.
    Node(NodeId),
    /// A person with a certificate.
    User { name: Name, role: AdminRole },
    /// Nobody known: no certificate.
    Anonymous,
}

/// The id of a cluster, from random bytes: 16 hexadecimal digits. It is the last label
/// of every name here, and a number there would be taken for an IPv4 address (RFC 1123
/// section 2.1), as one id in some 1,800 would be: so the first digit is a letter.
#[must_use]
pub fn cluster_id(mut random: [u8; 8]) -> String {
    random[0] |= 0xa0;
    HEXLOWER.encode(&random)
}

/// The name in a node's certificate.
#[must_use]
pub fn node_server_name(node: NodeId, cluster: &str) -> String {
    format!("{node}.node.{cluster}")
}

/// The name in a person's certificate.
#[must_use]
pub fn user_server_name(user: &Name, role: AdminRole, cluster: &str) -> String {
    format!("{user}.{role}.admin.{cluster}")
}

/// Reads a name; `None` unless it is one of `cluster`.
pub(crate) fn parse(name: &str, cluster: &str) -> Option<Identity> {
    let labels = name.strip_suffix(cluster)?.strip_suffix('.')?;
    let labels: Vec<&str> = labels.split('.').collect();
    match labels[..] {
        [id, "node"] => {
            let node: u64 = id.parse().ok()?;
            (node.to_string() == id).then_some(Identity::Node(NodeId(node)))
        }
        [user, role, "admin"] => {
            Some(Identity::User { name: user.parse().ok()?, role: role.parse().ok()? })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls_pki_types::ServerName;

    /// Else nobody could ever connect to a member, and so nobody join.
    #[test]
    fn every_cluster_has_members_whose_name_can_be_asked_for() {
        let digits = [0x96, 0x87, 0x09, 0x05, 0x72, 0x29, 0x65, 0x53];
        for random in [digits, [0; 8], [0xff; 8], [0x5a; 8]] {
            let cluster = cluster_id(random);
            let name = node_server_name(NodeId(1), &cluster);
            assert!(ServerName::try_from(name.as_str()).is_ok(), "{name}");
            assert_eq!(parse(&name, &cluster), Some(Identity::Node(NodeId(1))));
            assert_eq!(cluster.len(), 16);
        }
        assert_ne!(
            cluster_id(digits),
            cluster_id([0x96, 0x87, 0x09, 0x05, 0x72, 0x29, 0x65, 0x54])
        );
    }

    #[test]
    fn names_are_read_back_and_others_refused() {
        assert_eq!(parse("7.node.abc", "abc"), Some(Identity::Node(NodeId(7))));
        let user = Identity::User { name: "eve".parse().expect("valid"), role: AdminRole::Viewer };
        assert_eq!(parse("eve.viewer.admin.abc", "abc"), Some(user));
        for bad in
            ["7.node.abd", "07.node.abc", "x.7.node.abc", "7.nodeabc", "eve.root.admin.abc", "abc"]
        {
            assert_eq!(parse(bad, "abc"), None, "{bad}");
        }
    }
}
