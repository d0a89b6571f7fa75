//! What a certificate says its holder is: one DNS name.
//!
//! `<id>.node.<cluster>` is a member, `<user>.<role>.admin.<cluster>` a person.

use std::fmt;
use std::str::FromStr;
use vip_core::{Name, NodeId, excerpt};

/// What a person may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AdminRole {
    /// Look.
    Viewer,
    /// Move, add and remove VIPs; drain.
    Operator,
    /// Everything: members and tokens too.
    Admin,
}

impl AdminRole {
    /// As in certificates and on the command line.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for AdminRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for AdminRole {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        [Self::Viewer, Self::Operator, Self::Admin]
            .into_iter()
            .find(|r| r.as_str() == text)
            .ok_or_else(|| format!("{:?} is no role: use viewer, operator or admin", excerpt(text)))
    }
}

/// Who is at the other end of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Identity {
    /// A member.
    Node(NodeId),
    /// A person with a certificate.
    User {
        /// Name.
        name: Name,
        /// Role.
        role: AdminRole,
    },
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
