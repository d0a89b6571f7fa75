//! How long the kernel keeps an address of a guard that is gone.
//!
//! Behind a gate that falls silent by itself this is the second fence, and need not
//! be a near one: each renewal costs the kernel a message, so that many addresses
//! live as much longer, and cost little more than one.

use std::time::Duration;

/// Shortest life: several missed renewals, on a busy machine too.
const SHORTEST: Duration = Duration::from_secs(3);
/// Each address beyond some adds to the life of all: seventeen messages a second at
/// most, up to the longest life.
const EACH: Duration = Duration::from_millis(200);
/// However many: somebody may look for what a guard left behind.
const LONGEST: Duration = Duration::from_mins(5);
/// Renewals in a life.
const RENEWALS: f64 = 3.3;

/// The life of so many addresses, when they are renewed together. One that is added
/// has that of one alone, and is renewed in time for that.
#[must_use]
pub fn address_life(addresses: usize, gated: bool) -> Duration {
    let addresses = u32::try_from(addresses).unwrap_or(u32::MAX);
    if gated { EACH.saturating_mul(addresses).clamp(SHORTEST, LONGEST) } else { SHORTEST }
}

/// How long after a renewal the next one is due.
#[must_use]
pub fn renewal_interval(addresses: usize, gated: bool) -> Duration {
    address_life(addresses, gated).div_f64(RENEWALS)
}
