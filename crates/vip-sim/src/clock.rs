//! The clocks of hosts. Only the world knows real time.

use std::time::Duration;
use vip_core::Mono;

/// Real time since the world began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Real(pub u64);

impl Real {
    pub(crate) fn plus(self, span: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)))
    }
}

impl std::fmt::Display for Real {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.3} ms", Duration::from_nanos(self.0).as_secs_f64() * 1e3)
    }
}

/// `CLOCK_BOOTTIME` of one host: an offset and a rate.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    /// What it showed when the world began.
    pub(crate) offset: u64,
    /// How much faster than real time, in millionths.
    pub(crate) rate_ppm: i64,
}

impl Clock {
    pub(crate) fn local(self, real: Real) -> Mono {
        let scaled = i128::from(real.0) * i128::from(1_000_000 + self.rate_ppm) / 1_000_000;
        Mono(self.offset.saturating_add(u64::try_from(scaled).unwrap_or_default()))
    }

    /// When it shows `local`, rounded up.
    pub(crate) fn real(self, local: Mono) -> Real {
        let since = i128::from(local.0.saturating_sub(self.offset)) * 1_000_000;
        let rate = i128::from(1_000_000 + self.rate_ppm);
        Real(u64::try_from((since + rate - 1) / rate).unwrap_or(u64::MAX))
    }
}
