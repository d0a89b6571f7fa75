//! What the log says of requests that were refused: what it was, and how many
//! more there were, so that nobody fills a disk by being refused.

use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// Between two lines.
const PAUSE: Duration = Duration::from_secs(10);

/// See the module.
#[derive(Default)]
pub(crate) struct Refusals(Mutex<Counted>);

#[derive(Default)]
struct Counted {
    said: Option<Instant>,
    /// Refused since then, unsaid.
    unsaid: u64,
}

impl Refusals {
    /// Whether to say it, and how many were not said before.
    fn count(&self, now: Instant) -> Option<u64> {
        let mut counted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if counted.said.is_some_and(|said| now < said + PAUSE) {
            counted.unsaid += 1;
            return None;
        }
        counted.said = Some(now);
        Some(std::mem::take(&mut counted.unsaid))
    }

    /// Says it, if it is time, with how many others there were.
    pub(crate) fn say(&self, say: impl FnOnce(u64)) {
        if let Some(others) = self.count(Instant::now()) {
            say(others);
        }
    }

    /// A join was refused.
    pub(crate) fn join(&self, from: IpAddr, why: &str) {
        self.say(|others| tracing::warn!(%from, why, others, "a join was refused"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_said_and_the_rest_is_counted() {
        let (refusals, now) = (Refusals::default(), Instant::now());
        assert_eq!(refusals.count(now), Some(0));
        for _ in 0..1000 {
            assert_eq!(refusals.count(now + PAUSE / 2), None);
        }
        assert_eq!(refusals.count(now + PAUSE), Some(1000));
        assert_eq!(refusals.count(now + 2 * PAUSE), Some(0));
    }
}
