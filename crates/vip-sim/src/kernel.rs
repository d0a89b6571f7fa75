//! The part of a host that acts without any process: the gate, the addresses,
//! the interfaces. It survives its guard, and ends with the host.

use crate::tables::Tables;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use vip_core::{GateEntry, GuardAction, GuardFailure, Mono, Obstacle, Slot, Why};

/// What the kernel refuses for a while.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Trouble {
    #[default]
    None,
    GateWrites,
    Deletions,
    GateWritesAndDeletions,
    Additions,
}

#[derive(Clone, Debug)]
pub(crate) struct Kernel {
    gate: BTreeMap<IpAddr, GateEntry>,
    shared: BTreeMap<Slot, Mono>,
    addresses: BTreeSet<IpAddr>,
    pub(crate) trouble: Trouble,
    /// Interfaces that the gate's program is not on, and will not be.
    pub(crate) ungated: u32,
    /// What holds without a program on an interface: the gate on IP, and no
    /// ARP for addresses of other interfaces.
    second_gate: bool,
    pub(crate) has_link: bool,
    pub(crate) tables: Tables,
}

/// For good.
const FOREVER: Mono = Mono(u64::MAX);

impl Kernel {
    pub(crate) fn new(second_gate: bool) -> Self {
        Self {
            gate: BTreeMap::new(),
            shared: BTreeMap::new(),
            addresses: BTreeSet::new(),
            trouble: Trouble::None,
            ungated: 0,
            second_gate,
            has_link: true,
            tables: Tables::default(),
        }
    }

    /// Carries out an action of the guard. Returns the addresses whose answering
    /// may have changed.
    pub(crate) fn act(&mut self, action: &GuardAction) -> Result<Vec<IpAddr>, GuardFailure> {
        use Trouble as T;
        let text = || "injected".to_owned();
        let both = T::GateWritesAndDeletions;
        let takes_no_writes = matches!(self.trouble, T::GateWrites | T::GateWritesAndDeletions);
        match action {
            GuardAction::Gate { ip, .. } if takes_no_writes => {
                Err(GuardFailure::Gate { ip: *ip, text: text() })
            }
            GuardAction::Deadline { slot, .. } if takes_no_writes => {
                Err(GuardFailure::Deadline { slot: *slot, text: text() })
            }
            GuardAction::Gate { ip, entry } => {
                self.gate.insert(*ip, *entry);
                Ok(vec![*ip])
            }
            GuardAction::Deadline { slot, deadline } => {
                self.shared.insert(*slot, *deadline);
                let shares = |(_, entry): &(&IpAddr, &GateEntry)| **entry == GateEntry::With(*slot);
                Ok(self.gate.iter().filter(shares).map(|(ip, _)| *ip).collect())
            }
            GuardAction::AddAddress(address) => {
                let exposed = self.ungated > 0 && !self.second_gate;
                if self.trouble == T::Additions || !self.has_link || exposed {
                    let why = Why::Kernel(text());
                    return Err(GuardFailure::Add(Obstacle { ip: address.ip, why }));
                }
                self.addresses.insert(address.ip);
                Ok(vec![address.ip])
            }
            GuardAction::DeleteAddress(address) => {
                let refuses = self.trouble == T::Deletions || self.trouble == both;
                if refuses && self.addresses.contains(&address.ip) {
                    return Err(GuardFailure::Delete { ip: address.ip });
                }
                self.addresses.remove(&address.ip);
                Ok(vec![address.ip])
            }
            GuardAction::Forget(ip) => {
                self.gate.remove(ip);
                Ok(vec![*ip])
            }
            GuardAction::RefreshAddresses(_)
            | GuardAction::Probe(_)
            | GuardAction::Announce(_)
            | GuardAction::Notify(_) => Ok(vec![]),
        }
    }

    /// Nothing of it outlives the host.
    pub(crate) fn rebooted(&self) -> Self {
        Self::new(self.second_gate)
    }

    pub(crate) fn heal(&mut self) {
        self.trouble = Trouble::None;
        self.has_link = true;
        // Somebody took away what took no gate.
        self.ungated = 0;
    }

    /// The guard put its gate on the new interface.
    pub(crate) fn gate_on(&mut self) {
        self.ungated = self.ungated.saturating_sub(1);
    }

    /// What a guard does first: shuts every gate, deletes what an earlier run
    /// left. `None`: the kernel refuses, and the guard does not start.
    pub(crate) fn purge(&mut self) -> Option<BTreeSet<IpAddr>> {
        if self.trouble != Trouble::None {
            return None;
        }
        let known = self.gate.keys().copied().chain(std::mem::take(&mut self.addresses)).collect();
        self.gate.clear();
        self.tables = Tables::default();
        self.shared.clear();
        Some(known)
    }

    pub(crate) fn addresses(&self) -> BTreeSet<IpAddr> {
        self.addresses.clone()
    }

    /// Something else deletes an address. Returns whether it was there.
    pub(crate) fn lose(&mut self, ip: IpAddr) -> bool {
        self.addresses.remove(&ip)
    }

    /// Whether addresses may answer by interfaces that no gate is on.
    pub(crate) fn is_exposed(&self) -> bool {
        self.ungated > 0 && !self.second_gate
    }

    /// Until when this host answers for an address.
    pub(crate) fn answers_until(&self, ip: IpAddr) -> Mono {
        if !self.addresses.contains(&ip) {
            return Mono::ZERO;
        }
        if self.is_exposed() {
            return FOREVER;
        }
        // The gate lets pass what it does not know.
        match self.gate.get(&ip) {
            None => FOREVER,
            Some(GateEntry::Until(deadline)) => *deadline,
            Some(GateEntry::With(slot)) => self.shared.get(slot).copied().unwrap_or_default(),
        }
    }
}
