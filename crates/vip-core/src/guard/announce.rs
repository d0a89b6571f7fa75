//! When a claimed VIP is announced.

use crate::Mono;
use std::time::Duration;

/// Announcements after a claim. The first ones get lost while switches learn
/// and queues drain; those at 1 s and later are for neighbours that ignore
/// changes within their locktime (1 s on Linux).
pub const ANNOUNCE_OFFSETS: [Duration; 8] = [
    Duration::ZERO,
    Duration::from_millis(10),
    Duration::from_millis(30),
    Duration::from_millis(100),
    Duration::from_millis(300),
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(5),
];

/// Interval after those: below the 60 s and more for which neighbours and
/// switches remember.
pub const ANNOUNCE_REPEAT: Duration = Duration::from_secs(30);

/// Each VIP of a host makes the interval of all so much longer, because each of its
/// announcements costs whoever hears it; but no longer than neighbours and switches
/// remember.
const EACH: Duration = Duration::from_millis(50);
const LONGEST: Duration = Duration::from_secs(55);
/// Repeated announcements are made at whole ones of these, so that those of a thousand
/// VIPs are looked for once a second and not one by one.
const TOGETHER: Duration = Duration::from_secs(1);

/// The interval for each of so many VIPs.
pub(super) fn announce_repeat(vips: usize) -> Duration {
    let vips = u32::try_from(vips).unwrap_or(u32::MAX);
    EACH.saturating_mul(vips).clamp(ANNOUNCE_REPEAT, LONGEST)
}

/// The schedule of one VIP's announcements.
#[derive(Clone, Debug)]
pub struct Announcements {
    started: Mono,
    done: usize,
    next: Mono,
}

impl Announcements {
    /// Starts over, with the first one due at once.
    #[must_use]
    pub fn starting(now: Mono) -> Self {
        Self { started: now, done: 0, next: now }
    }

    /// Starts over, and the first one is made now.
    #[must_use]
    pub fn begun(now: Mono) -> Self {
        let mut begun = Self::starting(now);
        begun.take_due(now, ANNOUNCE_REPEAT);
        begun
    }

    /// When the next one is due.
    #[must_use]
    pub fn next(&self) -> Mono {
        self.next
    }

    /// Whether one is due, taking note that it is made. What was missed during
    /// a pause is not made up for. After the first ones they come every `repeat`.
    pub fn take_due(&mut self, now: Mono, repeat: Duration) -> bool {
        if now < self.next {
            return false;
        }
        let passed = |offset: &Duration| self.started + *offset <= now;
        self.done = ANNOUNCE_OFFSETS.iter().take_while(|o| passed(o)).count().max(self.done);
        self.next = match ANNOUNCE_OFFSETS.get(self.done) {
            Some(offset) => self.started + *offset,
            None => together(now + repeat),
        };
        true
    }
}

/// At once with those of others, a little later.
fn together(at: Mono) -> Mono {
    let step = u64::try_from(TOGETHER.as_nanos()).unwrap_or(u64::MAX);
    Mono(at.0.div_ceil(step).saturating_mul(step))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn announcements_come_at_their_offsets_then_every_thirty_seconds() {
        let start = Mono(5_000_000_000);
        let mut announcements = Announcements::starting(start);
        for offset in ANNOUNCE_OFFSETS {
            assert_eq!(announcements.next(), start + offset);
            assert!(announcements.take_due(start + offset, ANNOUNCE_REPEAT));
            assert!(!announcements.take_due(start + offset, ANNOUNCE_REPEAT));
        }
        let last = start + Duration::from_secs(5);
        assert_eq!(announcements.next(), last + ANNOUNCE_REPEAT);
    }

    /// Twenty a second at most, and none so late that it is forgotten meanwhile.
    #[test]
    fn many_vips_are_announced_less_often_each() {
        assert_eq!(announce_repeat(1), ANNOUNCE_REPEAT);
        assert_eq!(announce_repeat(1000), Duration::from_secs(50));
        assert_eq!(announce_repeat(usize::MAX), LONGEST);
    }

    /// Claimed at whatever moment, and never later than a neighbour remembers.
    #[test]
    fn repeated_announcements_of_many_vips_are_made_together() {
        let next = |offset_ms: u64| {
            let start = Mono(5_000_000_000) + Duration::from_millis(offset_ms);
            let mut announcements = Announcements::starting(start);
            let last = start + Duration::from_secs(5);
            assert!(announcements.take_due(last, LONGEST));
            let wait = announcements.next().since(last);
            assert!(wait >= LONGEST && wait < LONGEST + TOGETHER, "{wait:?}");
            announcements.next()
        };
        let all: std::collections::BTreeSet<_> = (1..=1000).map(next).collect();
        assert_eq!(all.len(), 1);
        assert_ne!(next(1001), next(1000));
    }

    #[test]
    fn a_pause_is_followed_by_one_announcement_not_by_all_that_were_missed() {
        let start = Mono(5_000_000_000);
        let mut announcements = Announcements::starting(start);
        let late = start + Duration::from_millis(500);
        assert!(announcements.take_due(late, ANNOUNCE_REPEAT));
        assert_eq!(announcements.next(), start + Duration::from_secs(1));
    }
}
