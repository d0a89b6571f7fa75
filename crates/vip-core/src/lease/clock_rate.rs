//! Whether a host's clock runs as fast as the safety argument assumes.
//!
//! C1 and C2 ([`crate::Timing`]) hold for rates within 1±rho. A time daemon may
//! steer a clock further: chrony by up to 8.3 % (`maxslewrate`, default 83,333
//! ppm), and then a holder's lease outlasts what others waited for. `adjtimex`
//! tells how the kernel steers CLOCK_MONOTONIC, and CLOCK_BOOTTIME with it.
//!
//! It is read at each heartbeat. A slew that begins right after one is noticed a
//! heartbeat later; what was granted before that runs to its end. So, at
//! chrony's limit, a leading holder may outlast its lease by 8.3 % of L (16 ms
//! in `lan`, 158 ms in `wan`), another one by 8.3 % of G (27 ms, 290 ms), once,
//! if it loses the VIP in that very lease. A voter's promise has a margin for
//! any slew ([`crate::Promise::clock`]).

use crate::profile::MAX_CLOCK_DRIFT;

/// What `adjtimex(2)` says, in its units.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Steering {
    /// Length of a tick, microseconds. `USER_HZ` of them are a second, unless
    /// somebody slews.
    pub tick_us: i64,
    pub ticks_per_second: i64,
    /// Frequency correction, ppm shifted left by 16.
    pub frequency: i64,
    /// What the kernel's phase-locked loop still has to make up, nanoseconds.
    pub offset_ns: i64,
    /// The loop's time constant.
    pub constant: i64,
}

/// The loop makes up, each second, the offset shifted right by this and its
/// constant (`SHIFT_PLL` of the kernel).
const SHIFT_PLL: i64 = 2;

/// A clock that is steered further than the safety argument allows.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[error(
    "this host's clock is steered by {ppm:.0} ppm, more than the {allowed:.0} that leases allow; \
     it leads and holds nothing until that is over. Set `maxslewrate {limit:.0}` in chrony.conf, or \
     let the time daemon step the clock instead of slewing it"
)]
pub struct TooFast {
    /// How far it is from real time, millionths.
    pub ppm: f64,
    /// rho, millionths.
    pub allowed: f64,
    /// What to set, millionths: half of what is allowed, as the clock itself
    /// is not exact either.
    pub limit: f64,
}

impl Steering {
    /// How far the clock's rate is from its own, millionths.
    #[must_use]
    pub fn ppm(&self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "these are small")]
        let [tick, hz, frequency, offset] =
            [self.tick_us, self.ticks_per_second, self.frequency, self.offset_ns]
                .map(|part| part as f64);
        let tick_ppm = tick * hz - 1e6;
        let shift = u32::try_from(SHIFT_PLL + self.constant.max(0)).unwrap_or(0).min(62);
        #[expect(clippy::cast_precision_loss, reason = "a power of two")]
        let loop_ppm = offset / 1e3 / (1_u64 << shift) as f64;
        tick_ppm + frequency / f64::from(1 << 16) + loop_ppm
    }

    /// Whether leases may rest on it.
    ///
    /// # Errors
    /// [`TooFast`], which is also said of one that is too slow.
    pub fn check(&self) -> Result<(), TooFast> {
        let (ppm, allowed) = (self.ppm(), MAX_CLOCK_DRIFT * 1e6);
        if ppm.abs() <= allowed {
            return Ok(());
        }
        Err(TooFast { ppm, allowed, limit: allowed / 2.0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STRAIGHT: Steering = Steering {
        tick_us: 10_000,
        ticks_per_second: 100,
        frequency: 0,
        offset_ns: 0,
        constant: 2,
    };

    #[test]
    fn a_clock_that_nobody_steers_is_exact() {
        assert!(STRAIGHT.ppm().abs() < 1e-9);
        assert_eq!(STRAIGHT.check(), Ok(()));
    }

    #[test]
    fn a_disciplined_clock_is_within_bounds() {
        let disciplined = Steering { frequency: -42 << 16, ..STRAIGHT };
        assert!((disciplined.ppm() + 42.0).abs() < 1e-6);
        assert_eq!(disciplined.check(), Ok(()));
    }

    #[test]
    fn chronys_fastest_slew_is_not() {
        let slewed = Steering { tick_us: 10_833, ..STRAIGHT };
        assert!(slewed.check().is_err_and(|e| (e.ppm - 83_300.0).abs() < 1.0));
        let slower = Steering { tick_us: 9_990, ..STRAIGHT };
        assert!(slower.check().is_ok(), "just rho");
        assert!(Steering { tick_us: 9_989, ..STRAIGHT }.check().is_err());
    }

    #[test]
    fn the_kernels_own_loop_counts() {
        // Half a second, made up at a sixteenth of it per second.
        let pulled = Steering { offset_ns: 500_000_000, ..STRAIGHT };
        assert!((pulled.ppm() - 31_250.0).abs() < 1.0);
        let slower = Steering { constant: 6, ..pulled };
        assert!((slower.ppm() - 31_250.0 / 16.0).abs() < 1.0);
    }

    #[test]
    fn the_error_names_what_to_set() {
        let text = Steering { tick_us: 10_833, ..STRAIGHT }.check().map_err(|e| e.to_string());
        assert!(text.is_err_and(|text| text.contains("maxslewrate 500")));
    }
}
