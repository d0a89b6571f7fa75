//! How often somebody may do something, counted before it is done.

use governor::{DefaultDirectRateLimiter, DefaultKeyedRateLimiter, Quota, RateLimiter};
use std::net::IpAddr;
use vip_pki::origin;

/// Origins remembered at most; those that were quiet are forgotten then, and if
/// that does not help, all are: the rate of all together holds all the same.
const REMEMBERED: usize = 4096;

/// A rate for each origin, and one for all together.
pub(crate) struct Rate {
    each: DefaultKeyedRateLimiter<IpAddr>,
    all: DefaultDirectRateLimiter,
}

impl Rate {
    pub(crate) fn new(each: Quota, all: Quota) -> Self {
        Self { each: RateLimiter::keyed(each), all: RateLimiter::direct(all) }
    }

    /// Whether it may happen once more. If so, it counts.
    pub(crate) fn allows(&self, from: IpAddr) -> bool {
        if self.each.len() > REMEMBERED {
            self.each.retain_recent();
            self.each.shrink_to_fit();
        }
        // Its own first: who is over it uses nothing of all.
        let may = self.each.len() <= REMEMBERED && self.each.check_key(&origin(from)).is_ok();
        may && self.all.check().is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv6Addr;
    use std::num::NonZeroU32;

    fn hourly(times: u32) -> Quota {
        Quota::per_hour(NonZeroU32::new(times).expect("not zero"))
    }

    fn v6(network: u64, host: u64) -> IpAddr {
        Ipv6Addr::from_bits((u128::from(network) << 64) | u128::from(host)).into()
    }

    #[test]
    fn a_network_has_one_rate_and_takes_nothing_of_others() {
        let rate = Rate::new(hourly(3), hourly(1000));
        let passed = (0..100).filter(|host| rate.allows(v6(1, *host))).count();
        assert_eq!(passed, 3);
        assert!(rate.allows(v6(2, 0)));
    }

    #[test]
    fn all_together_have_a_rate_and_memory_a_bound() {
        let rate = Rate::new(hourly(3), hourly(50));
        let passed = (0..3 * REMEMBERED as u64).filter(|n| rate.allows(v6(*n, 0))).count();
        assert_eq!(passed, 50);
        assert!(rate.each.len() <= REMEMBERED + 1, "{}", rate.each.len());
    }
}
