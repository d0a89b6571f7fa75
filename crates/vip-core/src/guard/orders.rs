//! What a guard is told, what it does, what it says.

use crate::{Address, Cover, Epoch, Incarnation, Mac, Mono, Obstacle, VipUid};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

/// What the guard was started with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// G_max: no deadline reaches further ahead than this, whatever the agent
    /// says.
    pub longest_grant: Duration,
    /// eps: the longest time that a packet takes from the gate to the wire.
    pub gate_to_wire: Duration,
    /// Whether the kernel enforces the deadlines. Without it an address is
    /// added only when it may answer.
    pub gated: bool,
}

/// Whether others are asked if they have an address (RFC 5227 §2.1.1; for IPv6
/// as in RFC 4862 §5.4.2). What is to follow from an answer is the agent's
/// decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Probe {
    /// Nobody is asked.
    No,
    /// Before anything is done.
    Before,
    /// While there is nothing to do but wait; it delays nothing.
    Beside,
    /// Before, and again and again while it is held: somebody may come back who
    /// does not know that it is over.
    Always,
}

/// A deadline of the gate that addresses share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Slot(pub u32);

/// What the gate has of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum GateEntry {
    /// Its own deadline. [`Mono::ZERO`]: shut.
    Until(Mono),
    /// The deadline that it shares.
    With(Slot),
}

/// An order of the agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum VipOrder {
    /// Make ready to answer, without answering.
    Prepare {
        vip: VipUid,
        epoch: Epoch,
        addresses: Vec<Address>,
        /// Whether others are asked for them.
        probe: Probe,
        /// Ethernet addresses whose answers a decision may rest on.
        known: BTreeSet<Mac>,
    },
    /// Answer until the deadlines. A deadline may also be moved back.
    Extend {
        /// The session that the grants were asked for in.
        incarnation: Incarnation,
        /// VIP, epoch, absolute deadline.
        deadlines: Vec<(VipUid, Epoch, Mono)>,
    },
    /// Stop answering, and refuse this epoch and all before it from now on.
    Release { vip: VipUid, epoch: Epoch },
    /// Answer for all that is open until the deadline, if that is this set.
    /// Otherwise no deadline moves, and [`GuardNotice::OtherCover`] says so.
    ExtendAll {
        /// The session that the grant was asked for in.
        incarnation: Incarnation,
        /// The set.
        cover: Cover,
        /// Absolute.
        deadline: Mono,
    },
}

/// What happens to a guard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum GuardEvent {
    /// An agent connected.
    AgentCame {
        /// The number of this session.
        incarnation: Incarnation,
        /// The cluster that it speaks for; empty before it has one. Epochs are
        /// a cluster's own.
        cluster: String,
    },
    /// The agent's connection ended.
    AgentGone,
    /// The agent orders.
    Order(VipOrder),
    /// Time passed.
    Tick,
    /// Something else deleted one of our addresses.
    AddressGone(IpAddr),
    /// An address of ours is certainly not configured any more.
    AddressDeleted(IpAddr),
    /// An address cannot be here any more.
    AddressRefused(Obstacle),
    /// Somebody else claimed an address on the wire.
    ForeignClaim {
        /// The address.
        ip: IpAddr,
        mac: Mac,
    },
    /// Peers came back: some of them may believe what was true before.
    Confirmed,
    /// An interface came back.
    LinkBack,
    /// Addresses or routes of the host changed.
    HostChanged,
    /// Asked to stop.
    Stop,
}

/// Why the guard does not follow an order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum GuardRefusal {
    /// The epoch ended here, or a later one was seen.
    #[error("epoch {0} or a later one was seen already")]
    Ended(Epoch),
    /// The kernel or the allowlist refused the address.
    #[error("{0}")]
    Address(Obstacle),
    /// Another VIP of this guard has the address.
    #[error("{0} is still another VIP's here")]
    InUse(IpAddr),
}

/// What the guard tells its agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum GuardNotice {
    /// Ready: an extension takes effect at once.
    Prepared { vip: VipUid, epoch: Epoch },
    /// The gate opened and the VIP was announced.
    Opened { vip: VipUid, epoch: Epoch },
    /// The deadline passed; the address was deleted.
    Expired { vip: VipUid, epoch: Epoch },
    /// Gate shut, address deleted, epoch refused from now on.
    Released { vip: VipUid, epoch: Epoch },
    /// Not done.
    Refused { vip: VipUid, epoch: Epoch, why: GuardRefusal },
    /// Somebody else claims an address of a VIP that is held here, or was asked
    /// for it before it is.
    Conflict {
        vip: VipUid,
        /// Its epoch here.
        epoch: Epoch,
        /// The address.
        ip: IpAddr,
        mac: Mac,
    },
    /// What could not be claimed here may be possible now.
    TryAgain,
    /// An order was for all that is open, and named another set than that.
    OtherCover,
}

/// An action that the kernel did not carry out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum GuardFailure {
    /// The gate did not take an entry; the one before stands.
    Gate {
        /// The address.
        ip: IpAddr,
        /// Why.
        text: String,
    },
    /// The gate did not take a deadline that addresses share; the one before stands.
    Deadline {
        slot: Slot,
        /// Why.
        text: String,
    },
    /// The address was not added.
    Add(Obstacle),
    /// The address was not deleted.
    Delete {
        /// The address.
        ip: IpAddr,
    },
}

impl GuardNotice {
    /// Which VIP it is about, if it is about one.
    #[must_use]
    pub fn vip(&self) -> Option<VipUid> {
        match self {
            Self::Prepared { vip, .. }
            | Self::Opened { vip, .. }
            | Self::Expired { vip, .. }
            | Self::Released { vip, .. }
            | Self::Refused { vip, .. }
            | Self::Conflict { vip, .. } => Some(*vip),
            Self::TryAgain | Self::OtherCover => None,
        }
    }
}

/// What the guard does. In order; a failure is told to
/// [`crate::Guard::failed`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum GuardAction {
    /// Write the gate's entry of an address.
    Gate {
        /// The address.
        ip: IpAddr,
        /// Until when it may answer.
        entry: GateEntry,
    },
    /// Write a deadline that addresses share.
    Deadline {
        slot: Slot,
        /// Absolute.
        deadline: Mono,
    },
    /// Add the address.
    AddAddress(Address),
    /// Delete the address; [`GuardEvent::AddressDeleted`] follows at once.
    DeleteAddress(Address),
    /// Take the address out of the gate: it is nobody's here, and what is
    /// routed through this host to its holder elsewhere passes.
    Forget(IpAddr),
    /// Put off the kernel's own expiry.
    RefreshAddresses(Vec<Address>),
    /// Ask on the wire who has them.
    Probe(Vec<Address>),
    /// Announce, on the wire.
    Announce(Vec<Address>),
    /// Tell the agent.
    Notify(GuardNotice),
}
