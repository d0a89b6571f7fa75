//! Whether everything runs that this node should run.

use super::sight::Sight;
use crate::lease::GuardStatus;
use crate::node::Member;
use serde::Serialize;
use vip_core::Hindrance;
use vip_guard::GateReport;
use vip_raft::Ended;

/// One thing that should run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Check {
    name: &'static str,
    ok: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
}

impl Check {
    fn of(name: &'static str, wrong: Option<String>) -> Self {
        Self { name, ok: wrong.is_none(), why: wrong }
    }
}

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Checked {
    pub(super) ok: bool,
    checks: Vec<Check>,
}

impl Checked {
    fn of(checks: Vec<Check>) -> Self {
        Self { ok: checks.iter().all(|check| check.ok), checks }
    }
}

const NO_MEMBER: &str = "this node is in no cluster: `vipctl init` or `vipctl join`";

/// The process is alive. What it cannot do without ends it, so there is no more to ask.
pub(super) fn alive() -> Checked {
    Checked::of(vec![Check::of("agent", None)])
}

/// Whether it can take VIPs.
pub(super) fn ready(sight: &Sight) -> Checked {
    let Some(member) = sight.seat.member() else {
        return Checked::of(vec![Check::of("cluster", Some(NO_MEMBER.into()))]);
    };
    Checked::of(of_member(sight, &member))
}

/// Whether all that it should run does.
pub(super) fn health(sight: &Sight) -> Checked {
    let Some(member) = sight.seat.member() else { return ready(sight) };
    let mut checks = of_member(sight, &member);
    checks.push(Check::of("forwarder", forwarder(&member)));
    let deaf = sight.seat.not_listening.all();
    checks.push(Check::of("listeners", (!deaf.is_empty()).then(|| deaf.join("; "))));
    Checked::of(checks)
}

fn of_member(sight: &Sight, member: &Member) -> Vec<Check> {
    let leader = member.leases.leader().is_none().then(|| "no leader is known here".to_owned());
    let clock = member.leases.clock_trouble().map(|why| why.to_string());
    let guard = guard(member.leases.guard(), sight.seat.config.guard.gate == "optional");
    vec![
        Check::of("cluster", member.removal()),
        Check::of("leader", leader),
        Check::of("guard", guard),
        Check::of("clock", clock),
        Check::of("log", log(member)),
    ]
}

fn guard(guard: GuardStatus, optional: bool) -> Option<String> {
    match guard {
        GuardStatus::Present(GateReport::Enforced { .. }) => None,
        GuardStatus::Present(GateReport::Missing(_)) if optional => None,
        GuardStatus::Present(GateReport::Missing(why)) => Some(format!("no lease gate: {why}")),
        GuardStatus::Absent => Some("this node's guard is not there".into()),
    }
}

fn log(member: &Member) -> Option<String> {
    let ended = || match member.raft.ended()? {
        Ended::Newer(newer) => Some(newer.to_string()),
        Ended::Raft(why) => Some(why),
    };
    let slow = || {
        let slow = !member.leases.disk_is_well();
        slow.then(|| "the disk does not keep up with the log".to_owned())
    };
    member.raft.store.disk().failure().or_else(ended).or_else(slow)
}

/// What this node does not forward, as it told the log.
fn forwarder(member: &Member) -> Option<String> {
    let state = member.log.state();
    let mut refused = state.hindered_on(member.meta.node).filter_map(|(server, what)| {
        let name = &state.server(server)?.spec.name;
        let is_refused = matches!(what, Hindrance::Refused(_));
        is_refused.then(|| format!("virtual server {name} {what}"))
    });
    refused.next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gate_may_be_missing_only_where_that_was_said() {
        let missing = || GuardStatus::Present(GateReport::Missing("an old kernel".into()));
        assert_eq!(guard(missing(), true), None);
        assert_eq!(guard(missing(), false), Some("no lease gate: an old kernel".into()));
        let enforced = GateReport::Enforced { weakness: String::new() };
        assert_eq!(guard(GuardStatus::Present(enforced), false), None);
        assert!(guard(GuardStatus::Absent, true).is_some());
    }

    #[test]
    fn one_that_is_wrong_is_enough() {
        assert!(alive().ok);
        let all = Checked::of(vec![Check::of("one", None), Check::of("two", Some("off".into()))]);
        assert!(!all.ok);
        let json = serde_json::to_string(&all).expect("JSON");
        let expected = concat!(
            r#"{"ok":false,"checks":[{"name":"one","ok":true},"#,
            r#"{"name":"two","ok":false,"why":"off"}]}"#
        );
        assert_eq!(json, expected);
    }
}
