//! When real servers are probed, and how many answers count.

use serde::{Deserialize, Serialize};
use std::time::Duration;

/// The least time between the starts of two probes after a failure.
const LEAST_GAP: Duration = Duration::from_millis(100);
/// After a failure probes come so many times as often.
const FASTER: u32 = 4;
/// A probe each tenth of a second, of each observer, is a load that somebody means.
const LEAST_INTERVAL: Duration = Duration::from_millis(100);
/// What is looked at less often than that is not looked at.
const MOST_INTERVAL: Duration = Duration::from_secs(3600);
/// Answers in a row: more would take an hour at the usual interval.
const MOST_IN_A_ROW: u8 = 100;

/// How often is probed, and how many answers count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckTiming {
    /// From the start of a probe to that of the next.
    #[serde(rename = "interval_ms", with = "ms")]
    pub interval: Duration,
    /// A probe without an answer has failed after it.
    #[serde(rename = "timeout_ms", with = "ms")]
    pub timeout: Duration,
    /// Successes in a row that make a server up.
    pub rise: u8,
    /// Failures in a row that make it down.
    pub fall: u8,
    /// Who was never seen up is not called down before, from its first probe on.
    #[serde(rename = "grace_ms", with = "ms", default, skip_serializing_if = "Duration::is_zero")]
    pub grace: Duration,
}

/// Spans as the log has them.
pub(super) mod ms {
    use serde::{Deserialize, Deserializer, Serializer};
    use std::time::Duration;

    pub(in crate::spec) fn serialize<S: Serializer>(
        span: &Duration,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        to.serialize_u64(u64::try_from(span.as_millis()).unwrap_or(u64::MAX))
    }

    pub(in crate::spec) fn deserialize<'a, D: Deserializer<'a>>(
        from: D,
    ) -> Result<Duration, D::Error> {
        u64::deserialize(from).map(Duration::from_millis)
    }
}

impl Default for CheckTiming {
    fn default() -> Self {
        let (interval, timeout) = (Duration::from_secs(2), Duration::from_secs(1));
        Self { interval, timeout, rise: 1, fall: 3, grace: Duration::ZERO }
    }
}

/// A timing that cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TimingOutOfRange {
    /// Of probes.
    #[error("an interval of {0:?}: use {LEAST_INTERVAL:?} to {MOST_INTERVAL:?}")]
    Interval(Duration),
    /// Of an answer.
    #[error(
        "a timeout of {timeout:?}: use more than nothing, and at most the interval {interval:?}"
    )]
    Timeout { timeout: Duration, interval: Duration },
    /// Of the first probes.
    #[error("a grace of {0:?}: use at most {MOST_INTERVAL:?}")]
    Grace(Duration),
    /// Of rise or fall.
    #[error("{0} answers in a row: use 1 to {MOST_IN_A_ROW}")]
    InARow(u8),
}

impl CheckTiming {
    /// Whether it makes sense.
    ///
    /// # Errors
    /// [`TimingOutOfRange`].
    pub fn check(&self) -> Result<(), TimingOutOfRange> {
        let Self { interval, timeout, rise, fall, grace } = *self;
        if !(LEAST_INTERVAL..=MOST_INTERVAL).contains(&interval) {
            return Err(TimingOutOfRange::Interval(interval));
        }
        if timeout.is_zero() || timeout > interval {
            return Err(TimingOutOfRange::Timeout { timeout, interval });
        }
        if grace > MOST_INTERVAL {
            return Err(TimingOutOfRange::Grace(grace));
        }
        match [rise, fall].into_iter().find(|count| !(1..=MOST_IN_A_ROW).contains(count)) {
            Some(count) => Err(TimingOutOfRange::InARow(count)),
            None => Ok(()),
        }
    }

    /// From the start of a probe to that of the next, after a failure.
    #[must_use]
    pub fn gap(&self) -> Duration {
        (self.interval / FASTER).max(LEAST_GAP).min(self.interval)
    }

    /// Until it is known of a server whether it is up that is probed for the first time, at
    /// most, its grace not counted.
    #[must_use]
    pub fn first_answers(&self) -> Duration {
        let down = self.noticed_after(true).saturating_sub(self.interval);
        let up = self.interval * u32::from(self.rise - 1) + self.timeout;
        down.max(up)
    }

    /// From a server's end to the last answer that was needed to call it down, at most: of
    /// one that refuses, or one that `hangs`.
    #[must_use]
    pub fn noticed_after(&self, hangs: bool) -> Duration {
        let answers = self.interval + self.gap() * (u32::from(self.fall) - 1);
        answers + if hangs { self.timeout * u32::from(self.fall.min(2)) } else { Duration::ZERO }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn a_timing_is_read_as_it_was_written() {
        let usual = CheckTiming::default();
        let other = CheckTiming { interval: ms(700), timeout: ms(300), rise: 2, fall: 5, ..usual };
        for timing in [usual, other, CheckTiming { grace: ms(9000), ..other }] {
            let text = serde_json::to_string(&timing).expect("written");
            assert_eq!(serde_json::from_str::<CheckTiming>(&text).expect("read"), timing);
            assert_eq!(text.contains("grace_ms"), !timing.grace.is_zero(), "{text}");
        }
        let bad = CheckTiming { grace: MOST_INTERVAL + ms(1), ..usual };
        assert_eq!(bad.check(), Err(TimingOutOfRange::Grace(bad.grace)));
    }

    #[test]
    fn a_timing_that_makes_no_sense_is_refused() {
        let good = CheckTiming::default();
        assert_eq!(good.check(), Ok(()));
        let interval = |interval| CheckTiming { interval, ..good };
        for bad in [ms(0), ms(99), Duration::from_secs(3601)] {
            assert_eq!(interval(bad).check(), Err(TimingOutOfRange::Interval(bad)));
        }
        for bad in [ms(0), ms(2001)] {
            let error = CheckTiming { timeout: bad, ..good }.check().expect_err("refused");
            assert!(matches!(error, TimingOutOfRange::Timeout { .. }), "{error}");
        }
        for bad in [0, 101] {
            assert_eq!(
                CheckTiming { rise: bad, ..good }.check(),
                Err(TimingOutOfRange::InARow(bad))
            );
            assert_eq!(
                CheckTiming { fall: bad, ..good }.check(),
                Err(TimingOutOfRange::InARow(bad))
            );
        }
        assert_eq!((good.gap(), interval(ms(200)).gap()), (ms(500), ms(100)));
        assert_eq!((good.noticed_after(false), good.noticed_after(true)), (ms(3000), ms(5000)));
    }
}
