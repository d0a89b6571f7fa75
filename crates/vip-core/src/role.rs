//! What a node may do.

use crate::words::words;
use serde::{Deserialize, Serialize};

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

words!(Role, "role" { Voter => "voter", Learner => "learner", Witness => "witness" });
