//! What happens next, to whom, and when.

use crate::agent::Input;
use crate::clock::Real;
use crate::guard::{Connection, FromGuard, GuardInput};
use crate::scenario::Fault;
use std::net::IpAddr;
use vip_core::{CallId, Epoch, Verb};

#[derive(Debug)]
pub(super) enum What {
    Agent { run: u64, input: Input },
    AgentTick { tick: u64 },
    Guard { run: u64, input: GuardInput },
    GuardTick { tick: u64 },
    FromGuard { run: u64, connection: Connection, message: FromGuard },
    StartAgent { run: u64 },
    StartGuard { run: u64 },
    Reconnect { run: u64 },
    Clients,
    Reals,
    Fault(Fault),
    Provider(Box<Reached>),
}

/// A call of an agent that reached whoever has to be told where VIPs are.
#[derive(Clone, Debug)]
pub(super) struct Reached {
    pub(super) run: u64,
    pub(super) id: CallId,
    pub(super) ip: IpAddr,
    pub(super) epoch: Epoch,
    pub(super) verb: Verb,
    pub(super) announced: Option<u64>,
    /// Nobody hears what comes of it.
    pub(super) lost: bool,
}

pub(super) struct Due {
    pub(super) at: Real,
    pub(super) order: u64,
    pub(super) host: usize,
    pub(super) what: What,
}

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.order) == (other.at, other.order)
    }
}
impl Eq for Due {}
impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Due {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}
