//! Why a VIP is where it is.

use crate::words::words;
use serde::{Deserialize, Serialize};

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

words!(@shown Cause {
    Created => "created",
    HolderLost => "holder-lost",
    HolderReleased => "holder-released",
    LeaderChanged => "leader-changed",
    Command => "command",
    Drain => "drain",
    HolderLeaving => "holder-leaving",
    HolderStopping => "holder-stopping",
    HolderRemoved => "holder-removed",
    Placement => "placement",
});
