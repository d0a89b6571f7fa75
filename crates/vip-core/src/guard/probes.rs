//! The probes before a claim: is anybody there already?

use crate::Mono;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// RFC 5227 §2.1.1 has three as well, and takes up to seven seconds over them.
/// A machine on the same link answers within a millisecond; three of them are
/// for lost frames, not for slow hosts.
const PROBES: u32 = 3;
/// Between two, and after the last one.
const PROBE_INTERVAL: Duration = Duration::from_millis(10);

/// Between two probes for an address that answers here: for about so long two
/// hosts may answer when an old cluster comes back.
const WATCH_INTERVAL: Duration = Duration::from_millis(200);
/// Between two probes while a grant is waited for, after the first three.
const WAIT_INTERVAL: Duration = Duration::from_millis(50);
/// Claims that are probed for this often; more of them take turns, or their
/// broadcasts would be what the network does.
const PROBED_AT_FULL_RATE: usize = 16;

/// What is to be done for one claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ProbeStep {
    /// Nothing now.
    Wait,
    /// Send one.
    Send,
    /// The time to answer the last one is over.
    Over,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Probes {
    /// Not three, but again and again.
    every: Option<Duration>,
    sent: u32,
    /// `None`: over.
    next: Option<Mono>,
}

impl Probes {
    /// None are to be sent.
    pub(super) fn none() -> Self {
        Self { every: None, sent: 0, next: None }
    }

    /// The first one is due at once.
    pub(super) fn starting(now: Mono) -> Self {
        Self { next: Some(now), ..Self::none() }
    }

    /// The first of many is due at once. `others` claims are probed for as well.
    pub(super) fn watching(now: Mono, others: usize) -> Self {
        Self::again(now, WATCH_INTERVAL, others)
    }

    /// The same, until a grant comes: what was answered before the wait for it
    /// began says little at its end.
    pub(super) fn waiting(now: Mono, others: usize) -> Self {
        Self::again(now + WAIT_INTERVAL, WAIT_INTERVAL, others)
    }

    fn again(first: Mono, every: Duration, others: usize) -> Self {
        let share = u32::try_from(others / PROBED_AT_FULL_RATE).unwrap_or(u32::MAX);
        let every = every.saturating_mul(share.saturating_add(1));
        Self { every: Some(every), next: Some(first), ..Self::none() }
    }

    /// When [`Self::step`] has something to do.
    pub(super) fn next(&self) -> Option<Mono> {
        self.next
    }

    /// Whether [`Self::step`] would say that they are over.
    pub(super) fn end(&self, now: Mono) -> bool {
        self.sent == PROBES && self.next.is_some_and(|next| now >= next)
    }

    pub(super) fn step(&mut self, now: Mono) -> ProbeStep {
        if self.next.is_none_or(|next| now < next) {
            return ProbeStep::Wait;
        }
        if let Some(every) = self.every {
            self.next = Some(now + every);
            return ProbeStep::Send;
        }
        if self.sent == PROBES {
            self.next = None;
            return ProbeStep::Over;
        }
        self.sent += 1;
        self.next = Some(now + PROBE_INTERVAL);
        ProbeStep::Send
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Mono = Mono(5_000_000_000);

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn three_probes_go_out_within_thirty_milliseconds() {
        let mut probes = Probes::starting(START);
        let mut sent = vec![];
        for at in 0..40 {
            match probes.step(START + ms(at)) {
                ProbeStep::Send => sent.push(at),
                ProbeStep::Over => assert_eq!(at, 30),
                ProbeStep::Wait => {}
            }
        }
        assert_eq!(sent, [0, 10, 20]);
        assert_eq!(probes.next(), None);
    }

    #[test]
    fn a_thousand_watched_addresses_share_what_sixteen_have() {
        let per_second = |others: usize| {
            let mut probes = Probes::watching(START, others);
            let sent = (0..20_000).filter(|at| probes.step(START + ms(*at)) == ProbeStep::Send);
            sent.count() * (others + 1) / 20
        };
        assert_eq!(per_second(0), 5);
        assert!(per_second(999) <= 100, "{} frames a second", per_second(999));
    }
}
