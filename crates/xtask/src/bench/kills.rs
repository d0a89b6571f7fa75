//! The holder loses its power, again and again: what the worst costs.

use super::case::VIP;
use super::{earlier, figures, load, results, spread};
use anyhow::{Context, Result};
use chaos_tests::{Cluster, Fault, Faults, Options, Probe};
use serde_json::{Value, json};
use std::path::Path;
use std::time::Duration;

/// The README shows so many, since the worst of few says little.
pub(super) const RUNS: usize = 300;
/// Before the fault and after the takeover.
const WATCH: Duration = Duration::from_millis(300);
/// A kill that takes this many times what is aimed at leaves its logs, as does
/// one that moved the VIP more than once.
const STRANGE: f64 = 1.5;

/// Goes on where an earlier run ended.
pub(super) fn run(profile: &str, runs: usize) -> Result<()> {
    let path = results(&format!("kills-{profile}.json"));
    let mut all: Vec<Value> = earlier(&path)?;
    let options = Options { profile: profile.into(), ..Options::default() };
    let mut cluster = Cluster::formed(&options)?;
    cluster.host("n1").ctl_ok(&["vip", "add", "web", "--address", &format!("{VIP}/24")])?;
    while all.len() < runs {
        let one = kill_holder(&mut cluster)?;
        println!("{}: {one}", all.len() + 1);
        let slow = one["outage_ms"].as_f64().is_some_and(|ms| ms > STRANGE * limit(profile));
        if slow || one["stretches"] != 2 {
            keep_logs(&cluster, &results(&format!("kills-{profile}-{}", all.len() + 1)))?;
        }
        all.push(one);
        std::fs::write(&path, serde_json::to_vec_pretty(&all)?)?;
    }
    let (low, middle, high) = spread(&all, "outage_ms").context("a run")?;
    let two = all.iter().filter(|run| run["stretches"] != 2).count();
    let told = format!(
        "- {} power cuts of the holder, {profile}: {middle:.0} ms ({low:.0} - {high:.0}); in {two} the \
         answering host changed more than once; files in {}, load {}.",
        all.len(),
        std::env::temp_dir().display(),
        load()?
    );
    println!("{told}");
    figures::show(&format!("kills-{profile}"), all.len() < RUNS, &told)
}

/// The aim of design.md for a holder that leads, ms.
fn limit(profile: &str) -> f64 {
    match profile {
        "fast" => 100.0,
        "lan" => 280.0,
        _ => f64::INFINITY,
    }
}

/// What led to it, for whoever wants to know why.
fn keep_logs(cluster: &Cluster, dir: &Path) -> Result<()> {
    std::fs::create_dir_all(dir)?;
    for host in &cluster.hosts {
        std::fs::write(dir.join(&host.name), host.log())?;
    }
    println!("its logs are in {}", dir.display());
    Ok(())
}

fn kill_holder(cluster: &mut Cluster) -> Result<Value> {
    let holder = cluster.wait_until_at_leader("n1")?;
    let other = if holder == "n1" { "n2" } else { "n1" };
    let probe = Probe::start(&cluster.lab, VIP)?;
    std::thread::sleep(WATCH);
    let mut faults = Faults::default();
    faults.inject(cluster, Fault::PowerOff(holder.clone()))?;
    cluster.wait_for_takeover(other, &holder)?;
    std::thread::sleep(WATCH);
    let trace = probe.finish()?;
    faults.heal(cluster)?;
    // Everybody is heard again, or the next kill would leave no quorum.
    cluster.wait_for_status(other, "all are heard", |status| {
        status.nodes.iter().all(|(_, state)| state == "active").then_some(())
    })?;
    let change = trace.changes().into_iter().next().context("a change of the answering host")?;
    let in_turn = cluster.holders(&trace)?;
    Ok(json!({ "outage_ms": change.ms(), "stretches": in_turn.len(), "in_turn": in_turn }))
}
