//! A server that goes up and down again and again is held down for a while: each change costs
//! its clients connections, and every node a table.
//!
//! Each time that it goes down it owes a [`MINUTE`], which it pays off by time. One that owes
//! [`HELD_FROM`] is held down for [`HELD_FOR`] after it went down last: so the fifth time within
//! a minute, or a time each fifteen seconds for some minutes. Where no other is up it is served
//! all the same: better one that comes and goes than none.

use serde::{Deserialize, Serialize};
use std::time::Duration;

/// What it costs to go down, ms.
const MINUTE: u64 = 60_000;
/// It is held down from here on.
const HELD_FROM: u64 = 4 * MINUTE;
/// It owes no more than this: who was ill for an hour need not be held down for one.
const MOST: u64 = 5 * MINUTE;
/// For so long.
pub(crate) const HELD_FOR: Duration = Duration::from_secs(180);

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
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fifth_time_in_a_minute_is_held() {
        let mut damping = Damping::default();
        let downs = [0, 10, 20, 30, 40].map(|s| damping.went_down(1_000_000 + s * 1000));
        assert_eq!(downs, [false, false, false, false, true]);
        assert_eq!(damping, Damping { free_ms: 1_300_000, held: true });
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
