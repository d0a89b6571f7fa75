//! Moments for people.

use std::time::{Duration, UNIX_EPOCH};

/// The last second that four digits of a year can say.
const LATEST_MS: u64 = 253_402_300_799_000;

/// A moment, ms since 1970, in UTC (RFC 3339), to the second.
#[must_use]
pub fn moment(ms: u64) -> String {
    let at = UNIX_EPOCH + Duration::from_millis(ms.min(LATEST_MS));
    humantime::format_rfc3339_seconds(at).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_said_in_utc_and_no_number_is_too_large() {
        assert_eq!(moment(1_764_000_000_999), "2025-11-24T16:00:00Z");
        assert_eq!(moment(u64::MAX), "9999-12-31T23:59:59Z");
    }
}
