//! What a case costs a system.

use super::case::{Case, Kind, System, VIP};
use super::{keepalived, vipd};
use anyhow::Result;
use chaos_tests::{Probe, Trace, within};
use serde_json::{Value, json};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A VIP that nobody took over within this is counted as never.
const TAKEOVER: Duration = Duration::from_secs(6);
/// The same where all are restarted: it is watched to its end.
const RESTARTED: Duration = Duration::from_secs(5);
/// A killed process may get its VIP back itself.
const RECLAIM: Duration = Duration::from_secs(2);
/// Watched before the fault and after the takeover.
const WATCH: Duration = Duration::from_millis(700);
/// Watched after a heal: neighbour caches keep what is stale for seconds.
const AFTER_HEAL: Duration = Duration::from_secs(8);
/// The longest interval of signs of life of any system.
const SIGN_OF_LIFE: Duration = Duration::from_secs(1);
/// Shorter silences are the probe's own.
const SILENCE: Duration = Duration::from_millis(10);

/// Starts it, with a VIP that answers.
pub(super) fn make(kind: Kind, case: Case) -> Result<Box<dyn System>> {
    Ok(match kind {
        Kind::Keepalived1s => Box::new(keepalived::Trio::new("1")?),
        Kind::Keepalived100ms => Box::new(keepalived::Trio::new("0.1")?),
        Kind::VipdLan => Box::new(vipd::Nodes::new("lan", case)?),
        Kind::VipdFast => Box::new(vipd::Nodes::new("fast", case)?),
    })
}

/// One run: ms from the fault to the first answer of the next holder, ms
/// without an answer, and how many hosts answered, each as often as it took
/// over.
pub(super) fn measure(kind: Kind, case: Case, round: usize) -> Result<Value> {
    observe(make(kind, case)?, case, round)
}

/// The same of a system that is there.
pub(super) fn observe(mut system: Box<dyn System>, case: Case, round: usize) -> Result<Value> {
    let elsewhere = |system: &dyn System| {
        let there = |host: &String| system.lab().has_address(host, &VIP.to_string());
        let mut hosts = system.hosts().into_iter().filter(|host| host != system.holder());
        hosts.any(|host| there(&host).is_ok_and(|there| there)).then_some(())
    };
    system.prepare(case)?;
    if case == Case::Heal {
        let _ = within(TAKEOVER, || elsewhere(system.as_ref()));
    }
    let probe = Probe::start(system.lab(), VIP)?;
    std::thread::sleep(WATCH + phase(round));
    let at_ns = now_ns()?;
    system.hurt(case)?;
    match case {
        Case::Killed | Case::LeaderLost => {
            let _ = within(RECLAIM, || elsewhere(system.as_ref()));
        }
        Case::Heal => std::thread::sleep(AFTER_HEAL),
        // What a killed process left on its host tells nothing of the one to come.
        Case::Restart => std::thread::sleep(RESTARTED),
        Case::Replaced => std::thread::sleep(WATCH),
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
        Case::Heal | Case::LeaderLost | Case::Replaced => (None, Some(longest(&trace, at_ns))),
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

/// How much later the fault of a round is: rounds lie anywhere between two signs of life, and
/// evenly (by the golden ratio), and systems alike. One that always comes as long after its
/// start measures one place between them.
fn phase(round: usize) -> Duration {
    let turns = f64::from(u32::try_from(round).unwrap_or(0)) * std::f64::consts::GOLDEN_RATIO;
    SIGN_OF_LIFE.mul_f64(turns.fract())
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
