//! How long a disk takes.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Since when the disk has been asked for something it has not done.
#[derive(Clone, Debug, Default)]
pub(crate) struct DiskClock(Arc<Mutex<DiskState>>);

#[derive(Debug, Default)]
struct DiskState {
    waiting: usize,
    waiting_since: Option<Instant>,
    failed: Option<String>,
}

/// How the disk does under the log, and under the votes.
#[derive(Clone, Debug)]
pub struct Disk(pub(crate) [DiskClock; 2]);

impl Disk {
    /// For how long the oldest write has been waiting to become durable.
    #[must_use]
    pub fn oldest_wait(&self) -> Duration {
        self.0.iter().map(DiskClock::oldest_wait).max().unwrap_or_default()
    }

    /// The failure after which nothing is acknowledged any more.
    #[must_use]
    pub fn failure(&self) -> Option<String> {
        self.0.iter().find_map(DiskClock::failure)
    }
}

impl DiskClock {
    /// For how long the oldest write has been waiting to become durable.
    fn oldest_wait(&self) -> Duration {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.waiting_since.map(|since| since.elapsed()).unwrap_or_default()
    }

    /// The failure after which nothing is acknowledged any more.
    fn failure(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).failed.clone()
    }

    pub(crate) fn waiting(&self) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.waiting += 1;
        state.waiting_since.get_or_insert_with(Instant::now);
    }

    /// The disk has done, or failed to do, the oldest `writes`.
    pub(crate) fn done(&self, writes: usize) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.waiting = state.waiting.saturating_sub(writes);
        // The next ones have been waiting for this one rather than the disk.
        state.waiting_since = (state.waiting > 0).then(Instant::now);
    }

    pub(crate) fn failed(&self, error: &io::Error) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.failed.get_or_insert_with(|| error.to_string());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_that_came_while_another_was_synced_still_waits() {
        let clock = DiskClock::default();
        clock.waiting();
        clock.waiting();
        clock.done(1);
        assert!(clock.0.lock().is_ok_and(|state| state.waiting_since.is_some()));
        clock.done(1);
        assert_eq!(clock.oldest_wait(), Duration::ZERO);
    }
}
