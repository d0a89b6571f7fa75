//! What a certificate says its holder is: one DNS name.
//!
//! `<id>.node.<cluster>` is a member, `<user>.<role>.admin.<cluster>` a person.

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
