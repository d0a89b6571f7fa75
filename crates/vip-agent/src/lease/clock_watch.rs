//! How this host's clock is steered, as leases have to know.

use std::sync::{Mutex, PoisonError};
use vip_core::{Steering, TooFast};

/// Reads how the kernel steers the clock, and says so in the log when that
/// begins or ends to matter.
#[derive(Debug, Default)]
pub(super) struct ClockWatch(Mutex<Option<TooFast>>);

impl ClockWatch {
    /// Whether leases may rest on the clock now. One that cannot be asked is
    /// taken for true.
    pub(super) fn look(&self) -> bool {
        let found = vip_guard::clock_steering().ok().and_then(|s: Steering| s.check().err());
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match (&*known, &found) {
            (None, Some(why)) => tracing::error!("{why}"),
            (Some(_), None) => tracing::info!("this host's clock is true again"),
            _ => {}
        }
        *known = found;
        known.is_none()
    }

    /// What is wrong with it, as last seen.
    pub(super) fn trouble(&self) -> Option<TooFast> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
