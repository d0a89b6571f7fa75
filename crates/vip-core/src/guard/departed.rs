//! Addresses that a guard let go of, until they are certainly gone.
//!
//! Shutting the gate and deleting the address each silence a VIP. If the kernel
//! refuses both, it answers on until the last deadline that the gate took; who
//! waits to hear that it is silent hears so then, and not before.

use super::GuardNotice;
use crate::{Address, Mono, VipUid};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::IpAddr;

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Leaving {
    vip: VipUid,
    /// The last deadline that the gate may hold, and the time to the wire.
    silent_at: Mono,
    /// The gate did not take the order to shut.
    unshut: bool,
    /// It may answer: since when nobody knows better, its deadline decides, or
    /// its deletion alone where there is no gate.
    lingers: Option<Enforcement>,
    /// To be told once it is silent, if it lingers.
    notices: Vec<GuardNotice>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Enforcement {
    ByGate,
    ByDeletion,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Departed(BTreeMap<IpAddr, Leaving>);

impl Departed {
    pub(super) fn add(
        &mut self,
        vip: VipUid,
        addresses: &[Address],
        silent_at: Mono,
        notice: Option<&GuardNotice>,
    ) {
        for address in addresses {
            // What another VIP left open with this address may be open still.
            let before = self.0.get(&address.ip).filter(|leaving| leaving.unshut);
            let (unshut, earlier) = (before.is_some(), before.map(|leaving| leaving.silent_at));
            let silent_at = earlier.map_or(silent_at, |earlier| earlier.max(silent_at));
            let notices = notice.cloned().into_iter().collect();
            let leaving = Leaving { vip, silent_at, unshut, lingers: None, notices };
            self.0.insert(address.ip, leaving);
        }
    }

    /// The gate did not shut for it.
    pub(super) fn unshut(&mut self, ip: IpAddr) {
        if let Some(leaving) = self.0.get_mut(&ip) {
            leaving.unshut = true;
        }
    }

    /// Whose it was.
    pub(super) fn vip_of(&self, ip: IpAddr) -> Option<VipUid> {
        self.0.get(&ip).map(|leaving| leaving.vip)
    }

    pub(super) fn is_unshut(&self, ip: IpAddr) -> bool {
        self.0.get(&ip).is_some_and(|leaving| leaving.unshut)
    }

    /// It is there and may answer.
    pub(super) fn lingers(&mut self, ip: IpAddr, gated: bool) {
        let how = if gated { Enforcement::ByGate } else { Enforcement::ByDeletion };
        if let Some(leaving) = self.0.get_mut(&ip) {
            leaving.lingers = Some(how);
        }
    }

    pub(super) fn has_lingering(&self, ip: IpAddr) -> bool {
        self.0.get(&ip).is_some_and(|leaving| leaving.lingers.is_some())
    }

    pub(super) fn none_lingers(&self) -> bool {
        self.0.values().all(|leaving| leaving.lingers.is_none())
    }

    pub(super) fn addresses(&self) -> Vec<IpAddr> {
        self.0.keys().copied().collect()
    }

    pub(super) fn forget_notices(&mut self) {
        self.0.values_mut().for_each(|leaving| leaving.notices.clear());
    }

    /// Tells that a VIP is silent once what lingers of it is. Whether anything
    /// does.
    pub(super) fn tell_later(&mut self, vip: VipUid, notice: &GuardNotice) -> bool {
        let mut waits = false;
        for leaving in self.0.values_mut().filter(|l| l.vip == vip && l.lingers.is_some()) {
            waits = true;
            if !leaving.notices.contains(notice) {
                leaving.notices.push(notice.clone());
            }
        }
        waits
    }

    /// Whether a notice waits for another address of its VIP.
    fn is_awaited(&self, notice: &GuardNotice) -> bool {
        self.0.values().any(|l| l.lingers.is_some() && l.notices.contains(notice))
    }

    /// The address is not configured any more. Returns what can be told now.
    pub(super) fn gone(&mut self, ip: IpAddr) -> Vec<GuardNotice> {
        let lingered = self.0.remove(&ip).filter(|leaving| leaving.lingers.is_some());
        let mut told = lingered.map(|leaving| leaving.notices).unwrap_or_default();
        told.retain(|notice| !self.is_awaited(notice));
        told
    }

    /// When a gate shuts by itself for an address that lingers.
    pub(super) fn next_silent(&self) -> Option<Mono> {
        let by_gate = self.0.values().filter(|l| l.lingers == Some(Enforcement::ByGate));
        by_gate.map(|leaving| leaving.silent_at).min()
    }

    /// What can be told now that time passed.
    pub(super) fn silent_by(&mut self, now: Mono) -> Vec<GuardNotice> {
        let mut told: Vec<GuardNotice> = vec![];
        for leaving in self.0.values_mut() {
            if leaving.lingers == Some(Enforcement::ByGate) && now >= leaving.silent_at {
                leaving.lingers = None;
                for notice in std::mem::take(&mut leaving.notices) {
                    if !told.contains(&notice) {
                        told.push(notice);
                    }
                }
            }
        }
        told.retain(|notice| !self.is_awaited(notice));
        told
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Epoch;

    #[test]
    fn a_notice_waits_for_what_lingers_of_its_own_vip_alone() {
        let address = |last| Address {
            ip: [10, 0, 0, last].into(),
            prefix: 24,
            interface: "eth0".to_owned(),
        };
        let opened = |vip| GuardNotice::Opened { vip, epoch: Epoch(1) };
        let mut departed = Departed::default();
        for (vip, last) in [(VipUid(1), 1), (VipUid(2), 2)] {
            departed.add(vip, &[address(last)], Mono::ZERO, None);
        }
        departed.lingers(address(2).ip, true);
        assert!(!departed.tell_later(VipUid(1), &opened(VipUid(1))), "nothing of it lingers");
        assert!(departed.tell_later(VipUid(2), &opened(VipUid(2))));
        assert!(departed.is_awaited(&opened(VipUid(2))));
        assert!(!departed.is_awaited(&opened(VipUid(1))));
    }
}
