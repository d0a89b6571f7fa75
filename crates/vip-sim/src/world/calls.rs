//! Whoever has to be told where a VIP is: slow, and its answers get lost until all is healed.

use super::{What, World, micros};
use crate::agent::Input;
use vip_core::{Epoch, VipUid};

/// One answer in so many is lost.
const LOST: u32 = 5;
/// Longest that it takes, in promises.
const SLOW: u32 = 2;

impl World {
    /// An agent tells it that a VIP is there.
    pub(super) fn call(&mut self, at: usize, vip: VipUid, epoch: Epoch) {
        let longest = u64::try_from((self.timing.promise * SLOW).as_micros()).unwrap_or(u64::MAX);
        let takes = micros(&mut self.rng, 100..longest);
        let lost = self.rng.u32(0..LOST) == 0 && self.now < self.scenario.healed_at;
        if !lost {
            let (run, input) = (self.hosts[at].agent_run, Input::Called(vip, epoch));
            self.after(takes, at, What::Agent { run, input });
        }
    }
}
