//! What a log that is written to without pause costs the leases that it says nothing
//! of: processor time of the lease threads, and the VIP.

use super::case::VIP;
use super::idle::{NODES, used};
use super::{figures, load, results};
use anyhow::{Context, Result, ensure};
use chaos_tests::{Cluster, Options, Outage, Probe, Trace, open_tokens};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// The README shows what so many cost.
pub(super) const COMMANDS: u32 = 10_000;
/// The thread that leases depend on.
const LEASE: &str = "agent/lease";
/// At the beginning and the end of a probe.
const ANSWERS_WITHIN: Duration = Duration::from_millis(500);
/// Until everything that follows a change is over.
const SETTLE: Duration = Duration::from_secs(3);

/// Processor time of each lease thread while `act` runs, ms a second.
pub(super) fn watched<T>(cluster: &Cluster, act: impl FnOnce() -> Result<T>) -> Result<(T, Value)> {
    let look = || -> Result<Vec<Duration>> {
        let lease = |node| Ok(used(&cluster.lab, node)?.get(LEASE).copied().unwrap_or_default());
        NODES.into_iter().map(lease).collect()
    };
    let (before, begun) = (look()?, Instant::now());
    let done = act()?;
    let (after, took) = (look()?, begun.elapsed());
    ensure!(after.iter().all(|spent| *spent > Duration::ZERO), "there is no thread {LEASE}");
    let mut per_second = json!({});
    for (node, (before, after)) in NODES.iter().zip(before.iter().zip(&after)) {
        let ms = after.saturating_sub(*before).as_secs_f64() * 1e3 / took.as_secs_f64();
        per_second[*node] = json!((ms * 100.0).round() / 100.0);
    }
    Ok((done, per_second))
}

/// The longest time between two answers, ms.
pub(super) fn longest(trace: &Trace) -> f64 {
    trace.outages(Duration::ZERO).iter().map(Outage::ms).fold(0.0, f64::max)
}

/// For the README.
fn told(found: &Value) -> String {
    let threads = |key: &str| {
        let of = |node| found[key][node].as_f64().unwrap_or(f64::NAN);
        format!("{:.1}, {:.1} and {:.1}", of("n1"), of("n2"), of("n3"))
    };
    let (with, without) = ("lease thread with, ms a second", "lease thread without, ms a second");
    let silence = |key: &str| found[key].as_f64().unwrap_or(f64::NAN);
    format!(
        "- {} commands of another subject, {:.0} a second, {}, load {}: the lease threads took {} ms a \
         second, without them {}; the VIP was silent for {:.0} ms at most, without them {:.0}; the \
         same leader, holder, term and epoch: {}. A command took {} ms, one in a hundred {}.",
        found["accepted"],
        found["a second"].as_f64().unwrap_or(f64::NAN),
        found["profile"].as_str().unwrap_or_default(),
        found["load"].as_str().unwrap_or_default(),
        threads(with),
        threads(without),
        silence("longest silence of the VIP with, ms"),
        silence("longest silence of the VIP without, ms"),
        found["same term, leader, holder and epoch"],
        found["a command, ms"]["p50"],
        found["a command, ms"]["p99"],
    )
}

pub(super) fn run(profile: &str, commands: u32, per_second: u32) -> Result<()> {
    let options = Options { profile: profile.into(), ..Options::default() };
    let cluster = Cluster::formed(&options)?;
    cluster.host("n1").ctl_ok(&["vip", "add", "web", "--address", &format!("{VIP}/24")])?;
    std::thread::sleep(SETTLE);
    let socket = cluster.host("n1").admin_socket();
    let lasting = Duration::from_secs(1) * commands / per_second;
    let standing = || {
        cluster
            .host("n1")
            .ctl_json(&["status"])
            .map(|status| ["leader", "term"].map(|key| status[key].clone()))
    };
    let (before, held) = (standing()?, cluster.status("n1")?.vips);

    let probe = Probe::start(&cluster.lab, VIP)?;
    let ((), idle) = watched(&cluster, || {
        std::thread::sleep(lasting);
        Ok(())
    })?;
    let quiet = probe.finish()?;
    let probe = Probe::start(&cluster.lab, VIP)?;
    let (given, busy) = watched(&cluster, || open_tokens(&socket, commands, per_second))?;
    let written = probe.finish()?;

    let same = standing()? == before && cluster.status("n1")?.vips == held;
    // Between two replies; and there are some at the end as at the beginning.
    for trace in [&quiet, &written] {
        let span = || Some(trace.replies.last()?.at_ns - trace.replies.first()?.at_ns);
        let span = Duration::from_nanos(span().context("no reply")?);
        ensure!(span + ANSWERS_WITHIN >= lasting, "the VIP answered for {span:?} only");
    }
    let at = |share: usize| {
        let place = given.accepted.len().saturating_sub(1) * share / 100;
        given.accepted.get(place).map(Duration::as_millis)
    };
    let found = json!({
        "profile": profile,
        "commands": commands,
        "wanted a second": per_second,
        "a second": f64::from(u32::try_from(given.accepted.len())?) / given.took.as_secs_f64(),
        "accepted": given.accepted.len(),
        "refused": given.refused.first(),
        "took, s": given.took.as_secs_f64(),
        "a command, ms": { "p50": at(50), "p99": at(99), "longest": at(100) },
        "lease thread without, ms a second": idle,
        "lease thread with, ms a second": busy,
        "longest silence of the VIP without, ms": longest(&quiet),
        "longest silence of the VIP with, ms": longest(&written),
        "same term, leader, holder and epoch": same,
        "load": load()?,
    });
    let path = results(&format!("log-{profile}.json"));
    std::fs::write(&path, serde_json::to_vec_pretty(&found)?).context("the result")?;
    println!("{found:#}");
    figures::show(&format!("log-{profile}"), commands < COMMANDS, &told(&found))
}
