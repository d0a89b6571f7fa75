//! Once a quorum can talk, who is served is who is well, within a bound, though one node
//! stays dead, deaf or mute: nobody whom those who see call down is in a table, and nobody is
//! out of it whom all see up. The tables of hosts follow that ([`super::progress_after_heal`]).

use super::{Violation, progress_bound};
use crate::clock::Real;
use std::time::Duration;
use vip_core::{BLIND_AFTER, CheckTiming, Server, State, Timing};

/// By then who was held down is let go: the one that may be well and not be served.
const HELD: Duration = Duration::from_secs(1);
/// By then a node has its say again that sees as others do.
const BACK: Duration = Duration::from_secs(1);
/// How long a report may wait for its turn, be lost, and be told again; and until it is in
/// the log.
const TOLD: Duration = Duration::from_secs(1);

/// From the end of the faults: a leader, who forgets what silent nodes said; and by then the
/// others have called down whoever hangs.
pub(crate) fn health_bound(timing: &Timing, check: &CheckTiming) -> Duration {
    progress_bound(timing) + BLIND_AFTER.max(check.noticed_after(true)) + HELD + BACK + 2 * TOLD
}

/// At the end, as the leader's log has it.
pub(crate) fn check(
    at: Real,
    state: &State,
    is_well: impl Fn(&Server, std::net::IpAddr) -> bool,
) -> Result<(), Violation> {
    for server in state.all_servers().filter(|server| server.spec.check.is_some()) {
        for real in &server.reals {
            let well = is_well(server, real.spec.ip);
            let seen = !state.observers_of(server, real).is_empty();
            if seen && real.health.is_up != Some(well) {
                let (name, ip, health) = (&server.spec.name, real.spec.ip, &real.health);
                let what = format!("{ip} of {name} is well: {well}, and the log has {health:?}");
                return Err(Violation { rule: "health_after_heal", at, what });
            }
        }
    }
    Ok(())
}
