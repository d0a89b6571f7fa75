//! What is wrong with the dates of a certificate, in words for people. It stops
//! no failover (the key is known to the log), and it must be said all the same.

use crate::wall_clock::about;
use std::time::Duration;

/// Renewed after half of its life; with so little left, renewing failed for
/// days.
const SOON: Duration = Duration::from_secs(2 * 24 * 3600);

/// What a person should know of a certificate that is valid from and until then,
/// seconds since 1970, if that does not fit `now_ms`.
pub(crate) fn trouble(from: i64, until: i64, now_ms: u64) -> Option<String> {
    let now = i64::try_from(now_ms / 1000).unwrap_or(i64::MAX);
    let soon = i64::try_from(SOON.as_secs()).unwrap_or(0);
    if now < from {
        let early = about(from - now);
        return Some(format!(
            "this node's certificate is valid in {early} only: its clock is behind, or was ahead \
             when it was renewed. Members know its key and let it in; set the clock"
        ));
    }
    if now >= until {
        return Some(format!(
            "this node's certificate ended {} ago. Members know its key and let it in, others do \
             not; it is renewed as soon as there is a leader",
            about(now - until)
        ));
    }
    (until - now < soon).then(|| {
        format!(
            "this node's certificate ends in {} and was not renewed: see its log for why",
            about(until - now)
        )
    })
}

/// The same of another member's, as it was last shown here.
pub(crate) fn trouble_of_other(name: &str, until: i64, now_ms: u64) -> Option<String> {
    let now = i64::try_from(now_ms / 1000).unwrap_or(i64::MAX);
    let soon = i64::try_from(SOON.as_secs()).unwrap_or(0);
    (until - now < soon).then(|| {
        let when = if until > now {
            format!("ends in {}", about(until - now))
        } else {
            format!("ended {} ago", about(now - until))
        };
        format!("that of {name} {when}, as it was last shown here: see its log for why")
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn others_certificates_are_named_when_they_end() {
        let at = |days: i64| trouble_of_other("n2", days * 86_400, 0).unwrap_or_default();
        assert_eq!(at(3), "");
        assert!(at(1).contains("that of n2 ends in 24 h"), "{}", at(1));
        assert!(at(-3).contains("that of n2 ended 3 days ago"), "{}", at(-3));
    }

    use super::*;

    #[test]
    fn dates_that_do_not_fit_are_said_in_words() {
        const DAY: i64 = 86_400;
        let (from, until) = (DAY, 8 * DAY);
        let at = |after: i64| {
            let now = u64::try_from(from + after).expect("after 1970");
            trouble(from, until, now * 1000).unwrap_or_default()
        };
        assert_eq!(at(0), "");
        assert_eq!(at(5 * DAY), "");
        assert!(at(-7200).contains("valid in 2 h only"), "{}", at(-7200));
        assert!(at(5 * DAY + 1).contains("ends in 47 h"), "{}", at(5 * DAY + 1));
        assert!(at(9 * DAY).contains("ended 2 days ago"), "{}", at(9 * DAY));
    }
}
