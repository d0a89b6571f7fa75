//! `cargo xtask bench`: vipd beside keepalived, the same network, the same
//! probe, the same faults, one run.

mod balancers;
mod calm;
mod case;
mod disks;
mod felt;
mod figures;
mod forward;
mod health;
mod idle;
mod keepalived;
mod kills;
mod log;
mod many;
mod measure;
mod picture;
mod probes;
mod servers;
mod table;
mod vipd;

use crate::packages::{CC, DNSMASQ, IP, KEEPALIVED, NFT, NGINX, install, unpack};
use crate::shell::{become_root, root, run as call};
use anyhow::{Context, Result};
use case::{Case, Kind};
use clap::{Subcommand, ValueEnum};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What can be measured.
#[derive(Subcommand)]
pub(crate) enum Bench {
    /// How long a VIP is silent. Goes on where an earlier run ended.
    Failover {
        /// Runs per cell.
        #[arg(long, default_value_t = 10)]
        runs: usize,
        /// Two runs per cell: some minutes.
        #[arg(long, conflicts_with = "runs")]
        quick: bool,
        /// Only these cases.
        #[arg(long)]
        case: Vec<Case>,
        /// Only these systems.
        #[arg(long)]
        system: Vec<Kind>,
    },
    /// False failovers beside busy loops, processor time, memory, packets.
    Calm {
        /// How long, for each number of loops.
        #[arg(long, default_value_t = 10)]
        minutes: u64,
        /// Busy loops.
        #[arg(long, default_values_t = [0, 4, 8])]
        loops: Vec<u8>,
        /// Per cent of the packets between nodes that are lost.
        #[arg(long, default_value_t = 0)]
        loss: u8,
        /// Only these systems; else all at once, each a load to the others.
        #[arg(long)]
        system: Vec<Kind>,
    },
    /// Appends, syncs and opens on the log's disk and on others.
    Disks,
    /// The holder loses its power, again and again. Goes on where an earlier
    /// run ended. All nodes share the disk of TMPDIR, and an election waits for
    /// it: with TMPDIR on a RAM disk it has no part in the figures.
    Kills {
        /// How often.
        #[arg(long, default_value_t = kills::RUNS)]
        runs: usize,
        /// Timing profile.
        #[arg(long, default_value = "lan")]
        profile: String,
    },
    /// Requests, connections and downloads through virtual servers, beside nftables and
    /// plain routing.
    Forward {
        /// Rounds of 1 s for each way and kind.
        #[arg(long, default_value_t = forward::ROUNDS)]
        rounds: usize,
    },
    /// From a real server's end until clients are sent to others, beside keepalived's checkers.
    /// Those want IPVS: all of it is in a guest with a kernel that has it, as `xtask lab`.
    Health {
        /// Runs per cell.
        #[arg(long, default_value_t = health::RUNS)]
        runs: usize,
        /// In the guest.
        #[arg(long, hide = true)]
        inside: bool,
    },
    /// Processor time of a node that holds one VIP, and of one that holds many.
    Idle {
        /// Timing profile.
        #[arg(long, default_value = "lan")]
        profile: String,
        /// Many.
        #[arg(long, default_value_t = idle::VIPS)]
        vips: u16,
    },
    /// A log that is written to without pause, of what no lease depends on.
    Log {
        /// Timing profile.
        #[arg(long, default_value = "lan")]
        profile: String,
        /// Commands.
        #[arg(long, default_value_t = log::COMMANDS)]
        commands: u32,
        /// So many a second.
        #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
        per_second: u32,
    },
    /// What leases feel of load balancers that ask a holder without pause.
    Balancers {
        /// How long.
        #[arg(long, default_value_t = balancers::SECONDS)]
        seconds: u64,
    },
    /// What it costs to probe many real servers, by kind of check, and what leases feel when all
    /// of them end at once.
    Probes {
        /// Virtual servers, with ten real servers each.
        #[arg(long, default_value_t = probes::SERVERS)]
        servers: u16,
    },
    /// Failovers of a VIP with a thousand virtual servers, beside one with none.
    Servers {
        /// Virtual servers.
        #[arg(long, default_value_t = servers::SERVERS)]
        servers: u16,
        /// Runs per cell.
        #[arg(long, default_value_t = servers::RUNS)]
        runs: usize,
    },
    /// A thousand VIPs of one node that is drained, then loses its power.
    Many {
        /// Timing profile.
        #[arg(long, default_value = "lan")]
        profile: String,
        /// VIPs.
        #[arg(long, default_value_t = 1000)]
        vips: u16,
    },
}

/// Where results are, so that an interrupted bench goes on.
const RESULTS: &str = "target/bench";
/// So many runs a cell make a table for the README.
const RUNS_SHOWN: usize = 5;
/// The picture for the README.
const PICTURE: &str = "deploy/failover.svg";

pub(crate) fn run(what: &Bench) -> Result<()> {
    if cfg!(debug_assertions) {
        // Figures are those of a release build, the bench itself included.
        call("cargo", &["build", "--release", "-p", "vipd", "-p", "vipctl", "-p", "xtask"])?;
        let own = root().join("target/release/xtask").display().to_string();
        let args: Vec<String> = std::env::args().skip(1).collect();
        return call(&own, &args.iter().map(String::as_str).collect::<Vec<_>>());
    }
    become_root()?;
    install(&[CC, IP, KEEPALIVED, NFT, DNSMASQ])?;
    unpack(&NGINX)?;
    std::fs::create_dir_all(root().join(RESULTS))?;
    match what {
        Bench::Failover { runs, quick, case, system } => {
            failover(if *quick { 2 } else { *runs }, case, system)
        }
        Bench::Calm { minutes, loops, loss, system } => {
            let lasting = Duration::from_secs(minutes * 60);
            let all = || Kind::value_variants().to_vec();
            let systems = if system.is_empty() { all() } else { system.clone() };
            loops.iter().try_for_each(|n| calm::run(&systems, *n, *loss, lasting))
        }
        Bench::Kills { runs, profile } => kills::run(profile, *runs),
        Bench::Disks => disks::run(),
        Bench::Forward { rounds } => forward::run(*rounds),
        Bench::Health { runs, inside } => health::run(*runs, *inside),
        Bench::Idle { profile, vips } => idle::run(profile, *vips),
        Bench::Log { profile, commands, per_second } => log::run(profile, *commands, *per_second),
        Bench::Balancers { seconds } => balancers::run(*seconds),
        Bench::Probes { servers } => probes::run(*servers),
        Bench::Servers { servers, runs } => servers::run(*servers, *runs),
        Bench::Many { profile, vips } => many::run(profile, *vips),
    }
}

fn results(name: &str) -> PathBuf {
    root().join(RESULTS).join(name)
}

/// What an earlier run left in a file of results, if there was one.
fn earlier<T: DeserializeOwned + Default>(path: &Path) -> Result<T> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(serde_json::from_slice(&bytes)?),
        Err(_) => Ok(T::default()),
    }
}

/// The load of the machine at the moment.
fn load() -> Result<String> {
    let text = std::fs::read_to_string("/proc/loadavg")?;
    Ok(text.split_whitespace().take(3).collect::<Vec<_>>().join(" "))
}

/// Runs what is missing of `runs` runs per cell, then prints the table.
fn failover(runs: usize, only: &[Case], systems: &[Kind]) -> Result<()> {
    let path = results("failover.json");
    let mut results: Value = earlier(&path)?;
    // Round by round, so that what disturbs the machine disturbs all alike.
    for round in 1..=runs {
        let wanted = |(case, kind): &(Case, Kind)| {
            (only.is_empty() || only.contains(case))
                && (systems.is_empty() || systems.contains(kind))
        };
        for (case, kind) in case::cells().filter(wanted) {
            let cell = case::name(case, kind);
            let done = results[&cell].as_array().map_or(0, Vec::len);
            if done >= round {
                continue;
            }
            let run = measure::measure(kind, case, round).with_context(|| cell.clone())?;
            println!("{round}: {cell}: {run}");
            keep(&mut results[&cell], run);
            std::fs::write(&path, serde_json::to_vec_pretty(&results)?)?;
        }
    }
    let table = format!("{}\n(Load {}.)\n", table::markdown(&results), load()?);
    println!("\n{table}");
    println!("runs: {}", path.display());
    // Of a few cases alone, or of two runs, it would say less than what is there.
    let is_less = !(only.is_empty() && systems.is_empty()) || runs < RUNS_SHOWN;
    if !is_less {
        let picture = root().join(PICTURE);
        std::fs::write(&picture, picture::svg(&results))?;
        println!("picture: {}", picture.display());
    }
    figures::show("failover", is_less, &table)
}

/// One run more of a cell.
fn keep(cell: &mut Value, run: Value) {
    match cell.as_array_mut() {
        Some(all) => all.push(run),
        None => *cell = json!([run]),
    }
}

/// The runs of a cell.
fn runs(results: &Value, case: Case, kind: Kind) -> &[Value] {
    results[case::name(case, kind)].as_array().map_or(&[], Vec::as_slice)
}

/// Smallest, median and largest of a figure, ms; runs without it are left out.
fn spread(runs: &[Value], figure: &str) -> Option<(f64, f64, f64)> {
    let mut all: Vec<f64> = runs.iter().filter_map(|run| run[figure].as_f64()).collect();
    all.sort_by(f64::total_cmp);
    Some((*all.first()?, *all.get(all.len() / 2)?, *all.last()?))
}
