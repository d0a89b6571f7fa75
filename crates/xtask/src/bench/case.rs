//! What is done to a VIP's holder, and what it costs.

use super::{keepalived, vipd};
use anyhow::Result;
use chaos_tests::{Lab, Probe, Trace, within};
use clap::ValueEnum;
use serde_json::{Value, json};
use std::net::Ipv4Addr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub(super) const VIP: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 100);
/// A VIP that nobody took over within this is counted as never.
const TAKEOVER: Duration = Duration::from_secs(6);
/// A killed process may get its VIP back itself.
const RECLAIM: Duration = Duration::from_secs(2);
/// Watched before the fault and after the takeover.
const WATCH: Duration = Duration::from_millis(700);
/// Watched after a heal: neighbour caches keep what is stale for seconds.
const AFTER_HEAL: Duration = Duration::from_secs(8);
/// Shorter silences are the probe's own.
const SILENCE: Duration = Duration::from_millis(10);

/// What happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Case {
    Planned,
    PowerOff,
    Isolation,
    Freeze,
    /// SIGKILL to the deciding process; the host lives.
    Killed,
    /// The holder does not lead.
    PowerOffElsewhere,
    /// The leader does not hold.
    LeaderLost,
    /// The leader and another holder at once, of five.
    LeaderAndHolder,
    /// All nodes at once; counted from their start.
    Restart,
    /// The holder hears nobody, but is heard.
    Deaf,
    /// The holder hears everybody, but is not heard.
    Mute,
    /// The holder was isolated and comes back.
    Heal,
}

impl Case {
    pub(super) fn title(self) -> &'static str {
        match self {
            Self::Planned => "planned move",
            Self::PowerOff => "power off",
            Self::Isolation => "isolation",
            Self::Freeze => "freeze",
            Self::Killed => "agent killed, host alive",
            Self::PowerOffElsewhere => "power off, holder does not lead",
            Self::LeaderLost => "leader lost, holder elsewhere",
            Self::LeaderAndHolder => "leader and holder at once, of 5",
            Self::Restart => "all restarted, from the start",
            Self::Deaf => "holder hears nobody",
            Self::Mute => "nobody hears the holder",
            Self::Heal => "heal of an isolated node",
        }
    }

    /// Whether it means anything without a leader.
    fn concerns(self, kind: Kind) -> bool {
        let leader = [Self::PowerOffElsewhere, Self::LeaderLost, Self::LeaderAndHolder];
        kind.profile().is_some() || !leader.contains(&self)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    Keepalived1s,
    Keepalived100ms,
    VipdLan,
    VipdFast,
}

impl Kind {
    pub(super) fn title(self) -> &'static str {
        match self {
            Self::Keepalived1s => "keepalived 1 s",
            Self::Keepalived100ms => "keepalived 0.1 s",
            Self::VipdLan => "vipd lan",
            Self::VipdFast => "vipd fast",
        }
    }

    pub(super) fn profile(self) -> Option<&'static str> {
        match self {
            Self::Keepalived1s | Self::Keepalived100ms => None,
            Self::VipdLan => Some("lan"),
            Self::VipdFast => Some("fast"),
        }
    }

    pub(super) fn make(self, case: Case) -> Result<Box<dyn System>> {
        Ok(match self {
            Self::Keepalived1s => Box::new(keepalived::Trio::new("1")?),
            Self::Keepalived100ms => Box::new(keepalived::Trio::new("0.1")?),
            Self::VipdLan => Box::new(vipd::Nodes::new("lan", case)?),
            Self::VipdFast => Box::new(vipd::Nodes::new("fast", case)?),
        })
    }
}

/// Every cell of the table.
pub(super) fn cells() -> impl Iterator<Item = (Case, Kind)> {
    let kinds = |case: &Case| {
        let case = *case;
        Kind::value_variants().iter().map(move |kind| (case, *kind))
    };
    Case::value_variants().iter().flat_map(kinds).filter(|(case, kind)| case.concerns(*kind))
}

/// Its name among the results.
pub(super) fn name(case: Case, kind: Kind) -> String {
    format!("{case:?} / {}", kind.title())
}

/// Hosts with a VIP that answers.
pub(super) trait System {
    fn lab(&self) -> &Lab;
    fn hosts(&self) -> Vec<String>;
    fn holder(&self) -> &'static str;
    /// What comes before the moment that counts.
    fn prepare(&mut self, case: Case) -> Result<()>;
    fn hurt(&mut self, case: Case) -> Result<()>;
    /// Loses so many per cent of what nodes tell each other.
    fn lose(&mut self, percent: u8) -> Result<()>;
}

/// One run: ms from the fault to the first answer of the next holder, ms
/// without an answer, and how many hosts answered, each as often as it took
/// over.
pub(super) fn measure(kind: Kind, case: Case) -> Result<Value> {
    let mut system = kind.make(case)?;
    let anywhere = |system: &dyn System, but: &str| {
        let there = |host: &String| system.lab().has_address(host, &VIP.to_string());
        let mut hosts = system.hosts().into_iter().filter(|host| host != but);
        hosts.any(|host| there(&host).is_ok_and(|there| there)).then_some(())
    };
    let elsewhere = |system: &dyn System| anywhere(system, system.holder());
    system.prepare(case)?;
    if case == Case::Heal {
        let _ = within(TAKEOVER, || elsewhere(system.as_ref()));
    }
    let probe = Probe::start(system.lab(), VIP)?;
    std::thread::sleep(WATCH);
    let at_ns = now_ns()?;
    system.hurt(case)?;
    match case {
        Case::Killed | Case::LeaderLost => {
            let _ = within(RECLAIM, || elsewhere(system.as_ref()));
        }
        Case::Heal => std::thread::sleep(AFTER_HEAL),
        Case::Restart => {
            let _ = within(TAKEOVER, || anywhere(system.as_ref(), ""));
        }
        _ => {
            let _ = within(TAKEOVER, || elsewhere(system.as_ref()));
        }
    }
    std::thread::sleep(WATCH);
    let trace = probe.finish()?;
    let old = system.lab().mac(system.holder())?;
    let first = |wanted: &dyn Fn(&chaos_tests::Reply) -> bool| {
        trace.replies.iter().find(|r| r.at_ns > at_ns && wanted(r)).map(|r| ms(r.at_ns - at_ns))
    };
    let (takeover, outage) = match case {
        Case::Restart => (first(&|_| true), None),
        Case::Heal | Case::LeaderLost => (None, Some(longest(&trace, at_ns))),
        _ => {
            let change = trace.changes().into_iter().find(|c| c.to_ns > at_ns);
            // Reclaimed by the same host: the longest silence is all there is.
            let silences = trace.outages(SILENCE).into_iter().filter(|o| o.to_ns > at_ns);
            let silence = silences.max_by_key(|o| o.to_ns - o.from_ns);
            let outage = change.or(silence);
            let reclaimed = silence.map(|o| ms(o.to_ns - at_ns));
            (first(&|r| r.from != old).or(reclaimed), outage.map(|o| o.ms()))
        }
    };
    let stretches = trace.holders().len();
    Ok(json!({ "takeover_ms": takeover, "outage_ms": outage, "stretches": stretches }))
}

/// The longest silence of a client after a moment, ms, that to the end included.
fn longest(trace: &Trace, at_ns: u64) -> f64 {
    let silences = trace.outages(SILENCE).into_iter().filter(|o| o.to_ns > at_ns);
    let between = silences.map(|o| o.ms()).fold(0.0, f64::max);
    let all = trace.replies.last().map_or(0, |r| r.at_ns);
    let last = trace.replies.iter().rfind(|r| !r.direct).map_or(at_ns, |r| r.at_ns);
    let rest = ms(all.saturating_sub(last));
    if rest > ms(u64::try_from(SILENCE.as_nanos()).unwrap_or(0)) {
        between.max(rest)
    } else {
        between
    }
}

fn ms(ns: u64) -> f64 {
    Duration::from_nanos(ns).as_secs_f64() * 1e3
}

fn now_ns() -> Result<u64> {
    Ok(u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos())?)
}
