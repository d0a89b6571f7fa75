//! Once a quorum can talk, whoever has to know where a VIP is says that it is at the node that
//! answers for it, within a bound: what was asked for late is found and undone.

use super::Violation;
use crate::clock::Real;
use std::time::Duration;
use vip_core::{Name, Pace, Timing};

/// What it takes longer than for a VIP of which nobody is told: looks, a change and looks
/// again, each of which may fail once; the next look of a holder; and who was refused waits.
pub(crate) fn provider_bound(timing: &Timing, pace: &Pace, refuses: bool) -> Duration {
    let refused = if refuses { Duration::from_secs(12) } else { Duration::ZERO };
    timing.promise * 24 + pace.longest + pace.watch_max * 2 + refused
}

/// At the end: where a VIP answers, and where it is said to be.
pub(crate) fn check(
    at: Real,
    vip: &Name,
    answers: Option<usize>,
    said: Option<usize>,
) -> Result<(), Violation> {
    if answers == said {
        return Ok(());
    }
    let what = format!("VIP {vip} answers on {answers:?} and is said to be on {said:?}");
    Err(Violation { rule: "provider_agrees_after_heal", at, what })
}
