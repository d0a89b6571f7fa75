//! What it costs to hold VIPs when nothing happens: with one, and with many, by the
//! leader and by another node.

use super::many::{add, has_all, routed};
use super::{figures, load, results};
use anyhow::{Context, Result};
use chaos_tests::{Cluster, Lab, Options, within};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

/// Until everything that follows a change is over.
const SETTLE: Duration = Duration::from_secs(5);
/// How long a node is watched.
const WATCHED: Duration = Duration::from_secs(30);
const TAKEOVER: Duration = Duration::from_secs(60);
/// The README shows what so many cost.
pub(super) const VIPS: u16 = 1000;
pub(super) const NODES: [&str; 3] = ["n1", "n2", "n3"];

/// Processor time of a host so far, by the names of its processes' threads.
pub(super) fn used(lab: &Lab, host: &str) -> Result<BTreeMap<String, Duration>> {
    let pids = chaos_tests::run("ip", &["netns", "pids", &lab.namespace(host)])?.ok()?;
    let mut all: BTreeMap<String, Duration> = BTreeMap::new();
    for pid in pids.lines() {
        for task in std::fs::read_dir(format!("/proc/{pid}/task"))? {
            let task = task?.path();
            // One that ended meanwhile did not cost much.
            let Ok(schedstat) = std::fs::read_to_string(task.join("schedstat")) else { continue };
            let ns = schedstat.split_whitespace().next().unwrap_or("0").parse()?;
            let command = std::fs::read_to_string(format!("/proc/{pid}/cmdline"))?;
            let role = command.split('\0').nth(1).unwrap_or_default().to_owned();
            let name = std::fs::read_to_string(task.join("comm")).unwrap_or_default();
            *all.entry(format!("{role}/{}", name.trim())).or_default() += Duration::from_nanos(ns);
        }
    }
    Ok(all)
}

/// Per node: per cent of a core, by thread and in all.
fn watch(cluster: &Cluster) -> Result<Value> {
    std::thread::sleep(SETTLE);
    let look = || -> Result<Vec<_>> { NODES.iter().map(|node| used(&cluster.lab, node)).collect() };
    let before = look()?;
    std::thread::sleep(WATCHED);
    let after = look()?;
    let mut nodes = json!({});
    for (node, (before, after)) in NODES.iter().zip(before.iter().zip(&after)) {
        let mut all = 0.0;
        for (thread, after) in after {
            let spent = after.saturating_sub(before.get(thread).copied().unwrap_or_default());
            let percent = spent.as_secs_f64() / WATCHED.as_secs_f64() * 100.0;
            nodes[node][thread] = json!((percent * 1000.0).round() / 1000.0);
            all += percent;
        }
        nodes[node]["all"] = json!((all * 1000.0).round() / 1000.0);
    }
    Ok(nodes)
}

/// Waits until a node has them all.
fn settled(cluster: &Cluster, vips: u16, node: &str) -> Result<()> {
    within(TAKEOVER, || has_all(cluster, vips, node).then_some(()))
        .with_context(|| format!("{node} has not all"))
}

/// For the README.
fn told(found: &Value, many: u16) -> Result<String> {
    let of = |vips: u16, case: &str, node: &str| {
        let found = &found[vips.to_string()][case][node]["all"];
        found.as_f64().with_context(|| format!("{case}: {node}"))
    };
    let (leader, other) = ("the leader holds", "n2 holds, n1 leads");
    let more = |case, node| anyhow::Ok(of(many, case, node)? - of(1, case, node)?);
    Ok(format!(
        "- Idle, of one core, {}, load {}: a leader that holds one VIP {:.2} %, {many} VIPs {:+.2}; \
         another node that holds one {:.2} %, {many} {:+.2}.",
        found["profile"].as_str().unwrap_or_default(),
        found["load"].as_str().unwrap_or_default(),
        of(1, leader, "n1")?,
        more(leader, "n1")?,
        of(1, other, "n2")?,
        more(other, "n2")?,
    ))
}

pub(super) fn run(profile: &str, many: u16) -> Result<()> {
    let mut found = json!({ "profile": profile, "seconds": WATCHED.as_secs() });
    for vips in [1, many] {
        let options = Options { profile: profile.into(), ..Options::default() };
        let cluster = Cluster::formed(&options)?;
        routed(&cluster)?;
        add(&cluster, vips)?;
        settled(&cluster, vips, "n1")?;
        found[vips.to_string()]["the leader holds"] = watch(&cluster)?;
        for number in 0..vips {
            let vip = format!("v{number}");
            cluster.host("n1").ctl_ok(&["vip", "move", &vip, "--to", "n2"])?;
        }
        settled(&cluster, vips, "n2")?;
        found[vips.to_string()]["n2 holds, n1 leads"] = watch(&cluster)?;
        println!("{vips}: {:#}", found[vips.to_string()]);
    }
    found["load"] = json!(load()?);
    std::fs::write(results(&format!("idle-{profile}.json")), serde_json::to_vec_pretty(&found)?)?;
    println!("{found:#}");
    figures::show(&format!("idle-{profile}"), many < VIPS, &told(&found, many)?)
}
