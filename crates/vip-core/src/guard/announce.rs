//! When a claimed VIP is announced.

use crate::Mono;
use serde::{Deserialize, Serialize};
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
const LAST_OFFSET: Duration = ANNOUNCE_OFFSETS[ANNOUNCE_OFFSETS.len() - 1];
/// What was claimed at once is spread over so many moments at most; less than their
/// number of seconds apart, some are the same.
const PLACES: u32 = 32;
/// Repeated announcements are made at whole ones of these, so that those of a thousand
/// VIPs are looked for once a second and not one by one.
const TOGETHER: Duration = Duration::from_secs(1);

/// The interval for each of so many VIPs.
pub(super) fn announce_repeat(vips: usize) -> Duration {
    let vips = u32::try_from(vips).unwrap_or(u32::MAX);
    EACH.saturating_mul(vips).clamp(ANNOUNCE_REPEAT, LONGEST)
}

/// The schedule of one VIP's announcements.
#[derive(Clone, Debug, Serialize, Deserialize)]
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
        begun.take_due(now, ANNOUNCE_REPEAT, 0);
        begun
    }

    /// When the next one is due.
    #[must_use]
    pub fn next(&self) -> Mono {
        self.next
    }

    /// Whether one is due, taking note that it is made. What was missed during
    /// a pause is not made up for. After the first ones they come every `repeat`; the
    /// first of these a little earlier, by `place`, so that what was claimed at once
    /// is not announced at once for good.
    pub fn take_due(&mut self, now: Mono, repeat: Duration, place: u64) -> bool {
        if now < self.next {
            return false;
        }
        let passed = |offset: &Duration| self.started + *offset <= now;
        self.done = ANNOUNCE_OFFSETS.iter().take_while(|o| passed(o)).count().max(self.done);
        self.next = match ANNOUNCE_OFFSETS.get(self.done) {
            Some(offset) => self.started + *offset,
            None if self.next <= self.started + LAST_OFFSET => {
                together(now + repeat - early(repeat, place))
            }
            None if now < self.next + TOGETHER => together(self.next + repeat),
            None => together(now + repeat),
        };
        true
    }
}

/// How much earlier the first repetition comes: by up to half of the interval.
fn early(repeat: Duration, place: u64) -> Duration {
    let place = u32::try_from(place % u64::from(PLACES)).unwrap_or_default();
    repeat / 2 * place / PLACES
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
            assert!(announcements.take_due(start + offset, ANNOUNCE_REPEAT, 0));
            assert!(!announcements.take_due(start + offset, ANNOUNCE_REPEAT, 0));
        }
        let last = start + LAST_OFFSET;
        for number in 1..5 {
            // However late a timer is: the interval is what it says.
            let due = last + ANNOUNCE_REPEAT * number;
            assert_eq!(announcements.next(), due);
            assert!(announcements.take_due(due + Duration::from_millis(7), ANNOUNCE_REPEAT, 0));
        }
        // A pause is not made up for, nor cut short.
        let late = last + ANNOUNCE_REPEAT * 5 + TOGETHER;
        assert!(announcements.take_due(late, ANNOUNCE_REPEAT, 0));
        assert_eq!(announcements.next(), late + ANNOUNCE_REPEAT);
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
            assert!(announcements.take_due(last, LONGEST, 0));
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
        assert!(announcements.take_due(late, ANNOUNCE_REPEAT, 0));
        assert_eq!(announcements.next(), start + Duration::from_secs(1));
    }

    /// A switch, or a host's own queue, would drop the same ones each time.
    #[test]
    fn what_was_claimed_at_once_is_announced_bit_by_bit_from_then_on() {
        let start = Mono(5_000_000_000);
        let repeat = announce_repeat(1000);
        let mut all: Vec<_> = (1..=1000_u64).map(|_| Announcements::starting(start)).collect();
        let mut bursts = std::collections::BTreeMap::new();
        let mut now = start;
        while now < start + LAST_OFFSET + repeat * 3 {
            now = now + Duration::from_millis(100);
            for (place, announcements) in (1..).zip(&mut all) {
                if announcements.take_due(now, repeat, place) && now > start + LAST_OFFSET {
                    *bursts.entry(now).or_insert(0) += 1;
                }
            }
        }
        assert_eq!(early(repeat, 0), Duration::ZERO);
        assert!(early(repeat, 1) < early(repeat, 2) && early(repeat, 31) < repeat / 2);
        assert_eq!(early(repeat, 33), early(repeat, 1));
        let most = bursts.values().max().copied().unwrap_or_default();
        assert!(most <= 70, "{most} of a thousand at once");
        assert!(bursts.len() >= 3 * 20, "{}", bursts.len());
        assert_eq!(bursts.values().sum::<u32>() / 1000, 3);
    }
}
