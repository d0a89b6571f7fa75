//! A member of the cluster, as the log knows it.

use crate::{Mac, Name, NodeId, excerpt};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

/// What a node may do. Fixed by the token it joined with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Votes, stores the log, may hold VIPs.
    Voter,
    /// Stores the log and may hold VIPs, without a vote.
    Learner,
    /// Votes and stores the log, and never holds a VIP.
    Witness,
}

impl Role {
    /// As written on the command line and in output.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Voter => "voter",
            Self::Learner => "learner",
            Self::Witness => "witness",
        }
    }

    /// Whether the role has a vote.
    #[must_use]
    pub const fn votes(self) -> bool {
        matches!(self, Self::Voter | Self::Witness)
    }

    /// Whether the role may hold VIPs.
    #[must_use]
    pub const fn holds(self) -> bool {
        matches!(self, Self::Voter | Self::Learner)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Role {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        [Self::Voter, Self::Learner, Self::Witness]
            .into_iter()
            .find(|r| r.as_str() == text)
            .ok_or_else(|| format!("{:?} is no role: use voter, learner or witness", excerpt(text)))
    }
}

/// How far a node has come into the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NodeState {
    /// Admitted by a token; not yet caught up.
    Joining,
    /// A full member of its role.
    Active,
    /// Holds nothing until it is undrained.
    Drained,
    /// On its way out.
    Leaving,
}

impl NodeState {
    /// As written in output.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Joining => "joining",
            Self::Active => "active",
            Self::Drained => "drained",
            Self::Leaving => "leaving",
        }
    }
}

/// A member of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Its id.
    pub id: NodeId,
    /// Unique in the cluster.
    pub name: Name,
    /// Where peers reach it, `address:port`.
    pub advertise: String,
    /// Its role.
    pub role: Role,
    /// Its progress.
    pub state: NodeState,
    /// SHA-256 of its public key (SPKI), hex. The key that may speak for it.
    pub spki: String,
    /// Log time of its admission, ms since 1970.
    pub since_ms: u64,
    /// Who said that it is to go, while it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leaving_by: Option<String>,
    /// Ethernet addresses of its interfaces that have addresses.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub macs: BTreeSet<Mac>,
}

impl Node {
    /// Whether placement may give it VIPs.
    #[must_use]
    pub fn may_hold(&self) -> bool {
        self.role.holds() && self.state == NodeState::Active
    }
}
