//! A server that goes up and down again and again is held down for a while: each change costs
//! its clients connections, and every node a table.
//!
//! Each time that it goes down it owes a [`MINUTE`], which it pays off by time. One that owes
//! [`HELD_FROM`] is held down until it owes no more than [`HELD_TO`]: so the fifth time within
//! a minute, or a time each fifteen seconds for some minutes.

use serde::{Deserialize, Serialize};

/// What it costs to go down, ms.
const MINUTE: u64 = 60_000;
/// It is held down from here on.
pub const HELD_FROM: u64 = 4 * MINUTE;
/// To here.
pub const HELD_TO: u64 = MINUTE;
/// It owes no more than this: who was ill for an hour need not be held down for one.
const MOST: u64 = 5 * MINUTE;

/// What one server owes, by the log's time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Damping {
    /// When it owes nothing, ms since 1970.
    pub free_ms: u64,
    /// It is held down.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub held: bool,
}

impl Damping {
    /// It goes down. Whether it is held down from now on, and was not before.
    pub fn went_down(&mut self, now_ms: u64) -> bool {
        let free = self.free_ms.max(now_ms).saturating_add(MINUTE);
        self.free_ms = free.min(now_ms.saturating_add(MOST));
        let holds = self.free_ms.saturating_sub(now_ms) >= HELD_FROM;
        let is_news = holds && !self.held;
        self.held |= holds;
        is_news
    }

    /// When it is let go, if it goes down no more.
    #[must_use]
    pub const fn held_until_ms(&self) -> u64 {
        self.free_ms.saturating_sub(HELD_TO)
    }

    /// Whether it is held down, and has to be no longer.
    #[must_use]
    pub const fn is_over(&self, now_ms: u64) -> bool {
        self.held && now_ms >= self.held_until_ms()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fifth_time_in_a_minute_is_held_until_a_minute_is_owed() {
        let mut damping = Damping::default();
        let downs = [0, 10, 20, 30, 40].map(|s| damping.went_down(1_000_000 + s * 1000));
        assert_eq!(downs, [false, false, false, false, true]);
        let free = 1_000_000 + 300_000;
        assert_eq!((damping.free_ms, damping.held_until_ms()), (free, free - MINUTE));
        assert!(!damping.is_over(free - MINUTE - 1) && damping.is_over(free - MINUTE));
        // However often: an hour of it is paid off in five minutes.
        let mut often = Damping::default();
        for second in 0..3600 {
            often.went_down(second * 1000);
        }
        assert_eq!(often.free_ms, 3_599_000 + MOST);
    }

    #[test]
    fn one_that_goes_down_now_and_then_is_held_never() {
        let mut damping = Damping::default();
        assert!((0..1000).all(|times| !damping.went_down(times * MINUTE)), "{damping:?}");
    }
}
