//! What a node may do.

use crate::excerpt;
use serde::{Deserialize, Serialize};
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
