//! Why a VIP is where it is.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Why a VIP was given to its holder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// The VIP is new.
    Created,
    /// Its holder stopped answering the leader.
    HolderLost,
    /// The holder's guard let go while its node lived.
    HolderReleased,
    /// The Raft leader changed and the VIP follows it.
    LeaderChanged,
    /// `vip move`.
    Command,
    /// The holder is drained.
    Drain,
    /// The holder is about to leave the cluster, or to be removed.
    HolderLeaving,
    /// The holder's daemon is about to stop, or to start anew.
    HolderStopping,
    /// The holder was removed from the cluster.
    HolderRemoved,
    /// Placement prefers another node.
    Placement,
}

impl Cause {
    /// As written in output.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::HolderLost => "holder-lost",
            Self::HolderReleased => "holder-released",
            Self::LeaderChanged => "leader-changed",
            Self::Command => "command",
            Self::Drain => "drain",
            Self::HolderLeaving => "holder-leaving",
            Self::HolderStopping => "holder-stopping",
            Self::HolderRemoved => "holder-removed",
            Self::Placement => "placement",
        }
    }

    /// Whether the holder before is well and only makes room.
    #[must_use]
    pub const fn is_planned(self) -> bool {
        match self {
            Self::LeaderChanged
            | Self::Command
            | Self::Drain
            | Self::HolderLeaving
            | Self::HolderStopping
            | Self::Placement => true,
            Self::Created | Self::HolderLost | Self::HolderReleased | Self::HolderRemoved => false,
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
