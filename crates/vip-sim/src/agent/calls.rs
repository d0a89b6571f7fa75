//! Who has to know where a VIP is, and is told by whoever takes it over.

use super::{Agent, Out};
use std::collections::BTreeMap;
use vip_core::{Epoch, LeaseEvent, Mono, VipUid};

/// Whoever does not answer for so many promises is told again.
const PATIENCE: u32 = 3;

/// What is under way, by VIP, with since when.
pub(super) type Calls = BTreeMap<VipUid, (Epoch, Mono)>;

impl Agent {
    /// Tells whoever was not told yet.
    pub(super) fn call(&mut self, now: Mono) {
        let taking = self.leases.claims().taking();
        self.calls.retain(|vip, (epoch, _)| taking.get(vip).is_some_and(|(of, _)| of == epoch));
        for (vip, (epoch, _)) in taking {
            let again = self.timing.promise * PATIENCE;
            if self.calls.get(&vip).is_none_or(|(_, at)| now >= *at + again) {
                self.calls.insert(vip, (epoch, now));
                self.out.push(Out::Call(vip, epoch));
            }
        }
    }

    /// They confirm. What comes after the lease is over is nobody's.
    pub(super) fn called(&mut self, now: Mono, vip: VipUid, epoch: Epoch) {
        let taking = self.leases.claims().taking();
        if taking.get(&vip).is_some_and(|(of, until)| *of == epoch && now < *until) {
            self.step(now, LeaseEvent::Taken(vip, epoch));
        }
    }
}
