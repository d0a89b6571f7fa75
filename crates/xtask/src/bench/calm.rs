//! What happens when nothing happens: false failovers on a busy machine, and
//! what an idle node costs.

use super::case::{Case, Kind, System, VIP};
use super::measure::make;
use super::{earlier, load, results};
use anyhow::{Context, Result};
use chaos_tests::{BusyLoops, Lab, Probe};
use serde_json::{Value, json};
use std::time::Duration;

/// Until everything that follows a start is over.
const SETTLE: Duration = Duration::from_secs(3);
/// How long an idle node is watched.
const IDLE: Duration = Duration::from_secs(20);
/// A client would notice a longer silence.
const SILENCE: Duration = Duration::from_millis(50);

/// What the processes of a host used so far.
struct Usage {
    cpu: Duration,
    resident_kib: u64,
    packets: u64,
}

impl Usage {
    fn of(lab: &Lab, host: &str) -> Result<Self> {
        let namespace = lab.namespace(host);
        let pids = chaos_tests::run("ip", &["netns", "pids", &namespace])?.ok()?;
        let ticks = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK)?.context("ticks")?;
        let (mut used, mut resident_kib) = (0.0, 0);
        for pid in pids.lines() {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
            // The name, in brackets, may have spaces.
            let rest = stat.rsplit(')').next().unwrap_or_default();
            let fields = rest.split_whitespace().skip(11).take(2);
            used += fields.filter_map(|n| n.parse::<f64>().ok()).sum::<f64>();
            let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
            let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
            let number = line.and_then(|line| line.split_whitespace().next());
            resident_kib += number.and_then(|n| n.parse::<u64>().ok()).unwrap_or(0);
        }
        let links = lab.ip(host, &["-s", "-j", "link", "show", "dev", "eth0"])?;
        let links: Value = serde_json::from_str(&links)?;
        let count = |way: &str| links[0]["stats64"][way]["packets"].as_u64().unwrap_or(0);
        let ticks = f64::from(i32::try_from(ticks)?);
        let cpu = Duration::from_secs_f64(used / ticks);
        Ok(Self { cpu, resident_kib, packets: count("rx") + count("tx") })
    }
}

/// Per node: share of a core in per cent, MiB resident, packets per second.
fn idle(system: &dyn System) -> Result<Value> {
    let look = || -> Result<Vec<Usage>> {
        system.hosts().iter().map(|host| Usage::of(system.lab(), host)).collect()
    };
    let before = look()?;
    std::thread::sleep(IDLE);
    let after = look()?;
    let seconds = IDLE.as_secs_f64();
    let nodes = before.iter().zip(&after).map(|(before, after)| {
        let cpu = (after.cpu - before.cpu).as_secs_f64() / seconds * 100.0;
        let packets = after.packets.saturating_sub(before.packets);
        let each = f64::from(u32::try_from(packets).unwrap_or(u32::MAX)) / seconds;
        json!({ "cpu_percent": cpu, "resident_mib": after.resident_kib / 1024, "packets_per_s": each })
    });
    Ok(nodes.collect())
}

/// These systems at once beside `loops` busy loops, with `loss` per cent of the
/// packets between nodes lost.
pub(super) fn run(kinds: &[Kind], loops: u8, loss: u8, lasting: Duration) -> Result<()> {
    let mut systems: Vec<_> =
        kinds.iter().map(|kind| make(*kind, Case::Planned)).collect::<Result<_>>()?;
    std::thread::sleep(SETTLE);
    let mut found = json!({ "loops": loops, "loss_percent": loss, "seconds": lasting.as_secs() });
    if loops == 0 && loss == 0 {
        for (kind, system) in kinds.iter().zip(&systems) {
            found[kind.title()]["nodes"] = idle(system.as_ref())?;
        }
    }
    if loss > 0 {
        systems.iter_mut().try_for_each(|system| system.lose(loss))?;
    }
    let busy = BusyLoops::start(loops)?;
    let probes: Vec<_> =
        systems.iter().map(|s| Probe::start(s.lab(), VIP)).collect::<Result<_>>()?;
    std::thread::sleep(lasting);
    let load = load()?;
    drop(busy);
    for (kind, probe) in kinds.iter().zip(probes) {
        let trace = probe.finish()?;
        let silences = trace.outages(SILENCE);
        let worst = silences.iter().map(chaos_tests::Outage::ms).fold(0.0, f64::max);
        let of = &mut found[kind.title()];
        of["changes"] = json!(trace.holders().len().saturating_sub(1));
        of["silences_over_50_ms"] = json!(silences.len());
        of["longest_silence_ms"] = json!(worst);
    }
    found["load"] = json!(load);
    // Beside what was measured of other systems before.
    let path = results(&format!("calm-{loops}-{loss}.json"));
    let mut all: Vec<Value> = earlier(&path)?;
    all.push(found.clone());
    std::fs::write(&path, serde_json::to_vec_pretty(&all)?)?;
    println!("{found:#}");
    Ok(())
}
