//! Once a quorum can talk, everything that can be held is held within a bound,
//! though one node stays dead, deaf or mute.

use super::Violation;
use crate::clock::Real;
use std::net::IpAddr;
use std::time::Duration;
use vip_core::Timing;

/// From the end of the faults to a VIP that answers. The longest way: a leader
/// that cannot hear lets its lease lapse and is silent (2P), a restarted node
/// is in quarantine (P), candidates find each other (P and some tries), T + W
/// passes, and a guard that was frozen is given up (G, grace).
pub(crate) fn progress_bound(timing: &Timing) -> Duration {
    timing.promise * 10 + timing.wait * 3 + Duration::from_millis(700)
}

/// At the end: `leads` with a lease, `answering` hosts per address, and a host that does
/// not forward what its agent wants.
pub(crate) fn check(
    at: Real,
    leads: Option<usize>,
    answering: &[(IpAddr, Option<usize>)],
    lags: Option<usize>,
) -> Result<(), Violation> {
    let rule = "progress_after_heal";
    if leads.is_none() {
        let what = "nobody leads with a lease".to_owned();
        return Err(Violation { rule, at, what });
    }
    match answering.iter().find(|(_, host)| host.is_none()) {
        Some((ip, _)) => {
            let what = format!("nobody answers for {ip}");
            Err(Violation { rule, at, what })
        }
        None => match lags {
            Some(host) => {
                let what = format!("host {host} does not forward what its agent wants");
                Err(Violation { rule, at, what })
            }
            None => Ok(()),
        },
    }
}
