//! Nodes that the log here has not heard of. A laggard has to follow a leader
//! that is newer than its log, and catches up within a minute; whoever is still
//! unknown then is let in no more for a while: with a stolen issuing key anybody
//! is a node of a later admission, under any number of ids.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long unknown nodes are let in: for a log or a snapshot to come.
pub(crate) const CATCH_UP: Duration = Duration::from_secs(60);
/// After so long they may try again: this node may have been cut off meanwhile.
const AGAIN: Duration = Duration::from_secs(600);

/// See the module. Since when, all of them together.
#[derive(Debug, Default)]
pub(crate) struct Newcomers(Mutex<Option<Instant>>);

impl Newcomers {
    /// Whether an unknown node is let in now.
    pub(crate) fn let_in(&self, now: Instant) -> bool {
        let mut since = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if since.is_none_or(|since| now >= since + AGAIN) {
            *since = Some(now);
        }
        since.is_some_and(|since| now < since + CATCH_UP)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn newcomers_have_a_minute_and_another_one_later() {
        let (newcomers, start) = (Newcomers::default(), Instant::now());
        let let_in = |after| newcomers.let_in(start + after);
        assert!(let_in(Duration::ZERO));
        assert!(let_in(CATCH_UP - Duration::from_millis(1)));
        assert!(!let_in(CATCH_UP));
        assert!(!let_in(AGAIN - Duration::from_millis(1)));
        assert!(let_in(AGAIN));
        assert!(!let_in(AGAIN + CATCH_UP));
    }
}
