//! `cargo xtask bench failover`: vipd beside keepalived, the same network, the
//! same probe, the same faults, one run.

mod keepalived;
mod vipd;

use crate::packages::{CC, IP, KEEPALIVED, install};
use crate::shell::{become_root, root, run as call};
use anyhow::{Context, Result};
use chaos_tests::{Lab, Mac, Probe, within};
use clap::ValueEnum;
use serde_json::{Value, json};
use std::net::Ipv4Addr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const VIP: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 100);
/// A VIP that nobody took over within this is counted as never.
const TAKEOVER: Duration = Duration::from_secs(15);
/// Watched before the fault and after the takeover.
const WATCH: Duration = Duration::from_millis(700);
/// Where finished runs are, so that an interrupted bench goes on.
const RESULTS: &str = "target/bench/failover.json";

/// What happens to the holder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Fault {
    /// It hands over: `vip move`, or SIGTERM for keepalived.
    Planned,
    /// No power.
    PowerOff,
    /// No network, but a link.
    Isolation,
    /// SIGSTOP to all its processes.
    Freeze,
    /// SIGKILL to the deciding process; the host lives.
    Killed,
}

/// Three hosts with a VIP, held by n1.
trait System {
    fn lab(&self) -> &Lab;
    fn hurt(&mut self, fault: Fault) -> Result<()>;
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Kind {
    Keepalived1s,
    Keepalived100ms,
    VipdLan,
    VipdFast,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Keepalived1s => "keepalived 1 s",
            Self::Keepalived100ms => "keepalived 0.1 s",
            Self::VipdLan => "vipd lan",
            Self::VipdFast => "vipd fast",
        }
    }

    fn make(self) -> Result<Box<dyn System>> {
        Ok(match self {
            Self::Keepalived1s => Box::new(keepalived::Trio::new("1")?),
            Self::Keepalived100ms => Box::new(keepalived::Trio::new("0.1")?),
            Self::VipdLan => Box::new(vipd::Trio::new("lan")?),
            Self::VipdFast => Box::new(vipd::Trio::new("fast")?),
        })
    }
}

/// One run: ms from the fault to the first answer of the next holder, ms
/// without an answer, and how often the answering host changed.
fn measure(kind: Kind, fault: Fault) -> Result<Value> {
    let mut system = kind.make()?;
    let probe = Probe::start(system.lab(), VIP)?;
    std::thread::sleep(WATCH);
    let at_ns = now_ns()?;
    system.hurt(fault)?;
    let old = system.lab().mac("n1")?;
    // A killed process may get its VIP back itself.
    let elsewhere = |lab: &Lab| {
        ["n2", "n3"].iter().any(|n| lab.has_address(n, "10.77.0.100").is_ok_and(|there| there))
    };
    let waited = if fault == Fault::Killed { Duration::from_secs(2) } else { TAKEOVER };
    let _ = within(waited, || elsewhere(system.lab()).then_some(()));
    std::thread::sleep(WATCH);
    let trace = probe.finish()?;
    let silent = trace.outages(Duration::from_millis(10));
    let first_new = trace.replies.iter().find(|r| r.at_ns > at_ns && r.from != old);
    let takeover = match first_new {
        Some(reply) => Some(ms(reply.at_ns - at_ns)),
        // Reclaimed: the end of the longest silence after the fault.
        None => silent.iter().map(|o| o.to_ns).filter(|t| *t > at_ns).max().map(|t| ms(t - at_ns)),
    };
    let outage = match trace.changes().first() {
        Some(change) => Some(change.ms()),
        None => silent.iter().map(chaos_tests::Outage::ms).reduce(f64::max),
    };
    let stretches: Vec<Mac> = trace.holders();
    Ok(json!({ "takeover_ms": takeover, "outage_ms": outage, "stretches": stretches.len() }))
}

fn ms(ns: u64) -> f64 {
    Duration::from_nanos(ns).as_secs_f64() * 1e3
}

fn now_ns() -> Result<u64> {
    Ok(u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos())?)
}

/// Runs what is missing of `runs` runs per cell, then prints the table.
pub(crate) fn failover(runs: usize) -> Result<()> {
    if cfg!(debug_assertions) {
        // Figures are those of a release build, the bench itself included.
        call("cargo", &["build", "--release", "-p", "vipd", "-p", "vipctl", "-p", "xtask"])?;
        let own = root().join("target/release/xtask").display().to_string();
        return call(&own, &["bench", "failover", "--runs", &runs.to_string()]);
    }
    become_root()?;
    install(&[CC, IP, KEEPALIVED])?;
    let path = root().join(RESULTS);
    std::fs::create_dir_all(path.parent().context("a directory")?)?;
    let mut results: Value = match std::fs::read(&path) {
        Ok(bytes) => serde_json::from_slice(&bytes)?,
        Err(_) => json!({}),
    };
    // Round by round, so that what disturbs the machine disturbs all alike.
    for round in 1..=runs {
        for fault in Fault::value_variants() {
            for kind in Kind::value_variants() {
                let cell = format!("{fault:?} / {}", kind.name());
                let done = results[&cell].as_array().map_or(0, Vec::len);
                if done >= round {
                    continue;
                }
                let run = measure(*kind, *fault).with_context(|| cell.clone())?;
                println!("{cell}: {run}");
                match results[&cell].as_array_mut() {
                    Some(all) => all.push(run),
                    None => results[&cell] = json!([run]),
                }
                std::fs::write(&path, serde_json::to_vec_pretty(&results)?)?;
            }
        }
    }
    print(&results)
}

fn print(results: &Value) -> Result<()> {
    let load = std::fs::read_to_string("/proc/loadavg")?;
    println!("\nload {}; ms, median (min - max) of n; * two hosts answered in turn", load.trim());
    for figure in ["outage_ms", "takeover_ms"] {
        println!(
            "\n| {figure} | {} |",
            Kind::value_variants().iter().map(|k| k.name()).collect::<Vec<_>>().join(" | ")
        );
        println!("|---|---|---|---|---|");
        for fault in Fault::value_variants() {
            let cells = Kind::value_variants().iter().map(|kind| {
                let runs = results[format!("{fault:?} / {}", kind.name())].as_array();
                cell(runs.map_or(&[], Vec::as_slice), figure)
            });
            println!("| {fault:?} | {} |", cells.collect::<Vec<_>>().join(" | "));
        }
    }
    Ok(())
}

fn cell(runs: &[Value], figure: &str) -> String {
    let mut all: Vec<f64> = runs.iter().filter_map(|run| run[figure].as_f64()).collect();
    all.sort_by(f64::total_cmp);
    let two = runs.iter().filter(|run| run["stretches"].as_u64() > Some(2)).count();
    let mark = if two > 0 { format!(" *{two}") } else { String::new() };
    match (all.first(), all.get(all.len() / 2), all.last()) {
        (Some(low), Some(middle), Some(high)) => {
            format!("{middle:.1} ({low:.1} - {high:.1}) of {}{mark}", runs.len())
        }
        _ => format!("never, of {}{mark}", runs.len()),
    }
}
