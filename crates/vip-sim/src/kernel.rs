//! The part of a host that acts without any process: the gate and the
//! addresses. It survives its guard, and ends with the host.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use vip_core::{GuardAction, Mono};

#[derive(Clone, Debug, Default)]
pub(crate) struct Kernel {
    gate: BTreeMap<IpAddr, Mono>,
    addresses: BTreeSet<IpAddr>,
}

impl Kernel {
    /// Carries out an action of the guard. Returns the address whose answering
    /// may have changed.
    pub(crate) fn act(&mut self, action: &GuardAction) -> Option<IpAddr> {
        match action {
            GuardAction::Gate { ip, deadline } => {
                self.gate.insert(*ip, *deadline);
                Some(*ip)
            }
            GuardAction::AddAddress(address) => {
                self.addresses.insert(address.ip);
                Some(address.ip)
            }
            GuardAction::DeleteAddress(address) => {
                self.addresses.remove(&address.ip);
                Some(address.ip)
            }
            GuardAction::RefreshAddresses(_)
            | GuardAction::Announce(_)
            | GuardAction::Notify(_) => None,
        }
    }

    /// What a guard does first: shuts every gate, deletes what an earlier run
    /// left.
    pub(crate) fn purge(&mut self) -> BTreeSet<IpAddr> {
        let known = self.gate.keys().copied().chain(std::mem::take(&mut self.addresses)).collect();
        self.gate.clear();
        known
    }

    /// Until when this host answers for an address.
    pub(crate) fn answers_until(&self, ip: IpAddr) -> Mono {
        let there = self.addresses.contains(&ip);
        self.gate.get(&ip).copied().filter(|_| there).unwrap_or(Mono::ZERO)
    }
}
