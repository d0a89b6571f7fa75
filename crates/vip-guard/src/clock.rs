//! The one clock of leases.

use nix::time::{ClockId, clock_gettime};
use vip_core::Mono;

/// `CLOCK_BOOTTIME`: monotonic, counts suspend, and the same that the gate
/// reads in the kernel. Works in every process of a host alike.
#[must_use]
pub fn boottime() -> Mono {
    let now = clock_gettime(ClockId::CLOCK_BOOTTIME)
        .expect("every Linux since 2.6.39 has CLOCK_BOOTTIME");
    let seconds = u64::try_from(now.tv_sec()).expect("the clock counts from boot");
    let nanos = u64::try_from(now.tv_nsec()).expect("a part of a second");
    Mono(seconds * 1_000_000_000 + nanos)
}
