//! What hinders addresses from being on this host.

use super::Host;
use crate::allow::objection;
use crate::protocol::GateReport;
use std::collections::BTreeMap;
use std::net::IpAddr;
use tracing::info;
use vip_core::{Address, Obstacle, VipUid, Why};

impl Host {
    /// The addresses of VIPs whose interface has no link.
    pub(crate) fn without_link(&self) -> Vec<IpAddr> {
        let lost = self.placed.iter().filter(|(_, (_, ifindex))| !self.has_link(*ifindex));
        lost.map(|(ip, _)| *ip).collect()
    }

    /// The addresses that could answer beyond their lease, and why: those on
    /// an interface that the gate is not on, and, if nothing but the gate keeps
    /// that one from it, all others.
    pub(crate) fn exposed(&self) -> Vec<Obstacle> {
        let why = |ifindex: &u32| {
            let own = self.ungated.get(ifindex).cloned();
            own.or_else(|| self.exposed_by_others())
        };
        let placed = self.placed.iter();
        let obstacle = |ip, text| Obstacle { ip, why: Why::NoGate(text) };
        placed.filter_map(|(ip, (_, ifindex))| Some(obstacle(*ip, why(ifindex)?))).collect()
    }

    pub(super) fn exposed_by_others(&self) -> Option<String> {
        let GateReport::Enforced { weakness } = &self.report else { return None };
        if weakness.is_empty() {
            return None;
        }
        // One that is down hears nobody.
        let up = |ifindex: &u32| self.has_link(*ifindex);
        let (_, text) = self.ungated.iter().find(|(ifindex, _)| up(ifindex))?;
        Some(format!("{text}, and nothing else keeps it from answering: {weakness}"))
    }

    pub(super) fn home_of(&self, address: &Address) -> Result<u32, Why> {
        self.view.network.home_of(address, self.homes.get(&address.ip).copied())
    }

    /// Where an address can be, as far as the host's network says.
    pub(super) fn place_for(&self, address: &Address) -> Result<u32, Why> {
        if let Some(why) = objection(&self.allow, &self.view, address.ip, address.prefix) {
            return Err(why);
        }
        let held_on = self.homes.get(&address.ip).copied();
        let ifindex = self.view.network.place_for(address, held_on)?;
        if self.has_link(ifindex) { Ok(ifindex) } else { Err(Why::NoLink) }
    }

    /// A session begins: what an earlier one could not have is forgotten.
    pub(crate) fn forget_refusals(&mut self) {
        self.refused.clear();
        self.considered.clear();
        self.hindered.clear();
        self.told_macs.clear();
    }

    /// These are all VIPs there are.
    pub(crate) fn consider(&mut self, all: Vec<(VipUid, Vec<Address>)>) {
        self.considered = all.into_iter().collect();
    }

    /// Which of them could not be here, as was found last.
    pub(crate) fn hindered(&self) -> BTreeMap<VipUid, Obstacle> {
        self.hindered.clone()
    }

    /// Which VIPs could not be here, if that is another answer than the last.
    pub(crate) fn newly_hindered(&mut self) -> Option<BTreeMap<VipUid, Obstacle>> {
        let now = self.find_hindered();
        for (vip, why) in now.iter().filter(|(vip, why)| self.hindered.get(vip) != Some(why)) {
            info!(%vip, %why, "this host could not hold a VIP");
        }
        (now != self.hindered).then(|| {
            self.hindered = now;
            self.hindered.clone()
        })
    }

    fn find_hindered(&self) -> BTreeMap<VipUid, Obstacle> {
        let obstacle = |address: &Address| {
            // What is here as it should be is looked at as such.
            if self.placed.get(&address.ip).is_some_and(|(placed, _)| placed == address) {
                return None;
            }
            let why = match self.place_for(address) {
                Ok(ifindex) => Why::NoGate(self.ungated.get(&ifindex)?.clone()),
                Err(why) => why,
            };
            Some(Obstacle { ip: address.ip, why })
        };
        let found = self
            .considered
            .iter()
            .filter_map(|(vip, addresses)| Some((*vip, addresses.iter().find_map(obstacle)?)));
        found.collect()
    }

    /// Whether an address that could not be here may be now. What else changes
    /// on a host, and how often, is no reason to try.
    pub(super) fn is_less_hindered(&self) -> bool {
        let is_other = |(address, why): &(Address, Why)| {
            let by_network = !matches!(why, Why::NoGate(_) | Why::Kernel(_));
            by_network && self.place_for(address).is_ok()
        };
        self.refused.values().any(is_other)
    }
}
