//! Monotonic time that tests and replays can build.

use serde::{Deserialize, Serialize};
use std::ops::{Add, Sub};
use std::time::Duration;

/// Nanoseconds of `CLOCK_BOOTTIME`, which counts suspend: a lease must run out
/// while the machine sleeps. Only comparable on one host.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Mono(pub u64);

impl Mono {
    /// Before every other time; as a deadline: passed.
    pub const ZERO: Self = Self(0);

    /// Time from `earlier` to this, or zero if `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// A span as nanoseconds; spans beyond 584 years do not occur.
fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

impl Add<Duration> for Mono {
    type Output = Self;
    fn add(self, span: Duration) -> Self {
        Self(self.0.saturating_add(nanos(span)))
    }
}

impl Sub<Duration> for Mono {
    type Output = Self;
    fn sub(self, span: Duration) -> Self {
        Self(self.0.saturating_sub(nanos(span)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_is_counted_forth_and_back_and_never_below_the_beginning() {
        let (early, span) = (Mono(5), Duration::from_nanos(3));
        assert_eq!((early + span, early - span), (Mono(8), Mono(2)));
        assert_eq!((early + span).since(early), span);
        assert_eq!((early.since(early + span), Mono(1) - span), (Duration::ZERO, Mono::ZERO));
    }
}
