//! How often those who have to know where VIPs are, are asked.

use super::CallId;
use crate::mix::mix_all;
use std::time::Duration;

/// How often they are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// After a call that failed, at first and at most: they may be throttling.
    pub pause: Duration,
    /// See [`Self::pause`].
    pub pause_max: Duration,
    /// How often a holder looks whether it is here yet, at first: what an earlier holder
    /// asked for may be done late. Each look doubles it.
    pub watch: Duration,
    /// And at most.
    pub watch_max: Duration,
    /// And at most where what is asked is on the same host, and this node alone knows what
    /// became of it.
    pub watch_near: Duration,
    /// For so long they may say something else after a change that they say is done: what was
    /// before, or what was in between.
    pub settles: Duration,
    /// Until a look, or a change, is given up, whatever the lease.
    pub longest: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            pause: Duration::from_millis(200),
            pause_max: Duration::from_secs(5),
            watch: Duration::from_secs(1),
            watch_max: Duration::from_secs(10),
            watch_near: Duration::from_secs(2),
            settles: Duration::from_secs(5),
            longest: Duration::from_secs(30),
        }
    }
}

/// Between three quarters of it and all: nodes that were told no at the same time do not come
/// back at the same time.
pub(super) fn jittered(seed: u64, wait: Duration, id: CallId) -> Duration {
    let share = mix_all(seed, [id.vip.0, id.number]) % 1000;
    wait * 3 / 4 + wait / 4 * u32::try_from(share).unwrap_or(0) / 1000
}
