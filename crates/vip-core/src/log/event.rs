//! What happened to the cluster, as `vipctl events` shows it.

use crate::{AdminRole, Conflict, Epoch, Name, NodeId, Obstacle, Role};
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

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum EventKind {
    /// `init`.
    ClusterCreated {
        /// Its name.
        name: Name,
    },
    /// A new cluster was made of what was left of another one.
    ClusterRefounded {
        /// The id of that one.
        from: String,
        /// The node that it was made of.
        node: NodeId,
    },
    /// A node was admitted by a token.
    NodeAdmitted {
        /// The node.
        node: NodeId,
        /// Its name.
        name: Name,
        /// Its role.
        role: Role,
    },
    /// A node finished joining.
    NodeActive {
        /// The node.
        node: NodeId,
    },
    /// A node was drained or undrained.
    NodeDrained {
        /// The node.
        node: NodeId,
        /// Drained, or back.
        drained: bool,
    },
    /// A node was removed, or left.
    NodeRemoved {
        /// The node.
        node: NodeId,
        /// Its name.
        name: Name,
    },
    /// A token was made.
    TokenCreated {
        /// Its id.
        token: String,
        /// What it admits.
        role: Role,
    },
    /// A token was revoked.
    TokenRevoked {
        /// Its id.
        token: String,
    },
    /// A person was given a certificate.
    LoginIssued {
        /// Who.
        user: Name,
        /// For what.
        role: AdminRole,
    },
    /// All certificates of a person ended.
    LoginRevoked {
        /// Who.
        user: Name,
    },
    /// A new CA signs; the one before is trusted for the moment.
    IssuerRotated,
    /// Only the new CA is trusted.
    IssuersRetired,
    /// A VIP was added.
    VipAdded {
        /// Its name.
        vip: Name,
    },
    /// A VIP is claimed although other hosts answer for it.
    VipUnprobed {
        /// Its name.
        vip: Name,
    },
    /// Somebody said where a VIP is to be, or that its placement decides again.
    VipPinned {
        /// Its name.
        vip: Name,
        /// The node.
        to: Option<NodeId>,
    },
    /// What is wanted of a VIP was changed.
    VipSet {
        /// Its name.
        vip: Name,
    },
    /// A VIP was removed.
    VipRemoved {
        /// Its name.
        vip: Name,
    },
    /// A VIP was given to a holder.
    VipAssigned {
        /// The VIP.
        vip: Name,
        /// The holder before.
        from: Option<NodeId>,
        /// The holder now.
        to: Option<NodeId>,
        /// The new epoch.
        epoch: Epoch,
        /// Why.
        cause: Cause,
    },
    /// A node could not hold a VIP.
    VipObstacle {
        /// The VIP.
        vip: Name,
        /// The node.
        node: NodeId,
        /// Why.
        why: Obstacle,
    },
    /// Another host claims an address of a VIP beside its holder.
    VipConflict {
        /// The VIP.
        vip: Name,
        /// The node that heard it.
        node: NodeId,
        /// The address, and who claims it.
        what: Conflict,
        /// The member that this is, if it is one.
        member: Option<NodeId>,
    },
    /// The holder of this epoch answers.
    VipAnswers {
        /// The VIP.
        vip: Name,
        /// The holder.
        node: NodeId,
        /// Its epoch.
        epoch: Epoch,
    },
    /// The holder of this epoch is silent for good.
    VipReleased {
        /// The VIP.
        vip: Name,
        /// The epoch.
        epoch: Epoch,
    },
}

/// An entry of the event list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Counts up by one.
    pub seq: u64,
    /// Log time, ms since 1970.
    pub time_ms: u64,
    /// Who caused it: `root@n1`, `leader`, …
    pub actor: String,
    /// What happened.
    #[serde(flatten)]
    pub what: EventKind,
}
