//! Many VIPs of one node that loses its power.

use super::{load, results};
use anyhow::{Context, Result};
use chaos_tests::{Cluster, Options, Probe, within};
use serde_json::json;
use std::net::Ipv4Addr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const TAKEOVER: Duration = Duration::from_secs(30);
const WATCH: Duration = Duration::from_millis(700);

fn address(number: u16) -> Ipv4Addr {
    let [high, low] = number.to_be_bytes();
    Ipv4Addr::new(10, 78, high + 1, low)
}

pub(super) fn run(vips: u16) -> Result<()> {
    let mut cluster = Cluster::formed(&Options::default())?;
    cluster.lab.ip("client", &["route", "add", "10.78.0.0/16", "dev", "eth0"])?;
    let begin = std::time::Instant::now();
    for number in 0..vips {
        let (name, cidr) = (format!("v{number}"), format!("{}/32", address(number)));
        let add = ["vip", "add", &name, "--address", &cidr, "--interface", "eth0"];
        cluster.host("n1").ctl_ok(&add)?;
    }
    println!("{vips} VIPs added in {:.1?}", begin.elapsed());
    let sample = [0, vips / 2, vips - 1];
    let probes: Vec<_> = sample
        .iter()
        .map(|number| Probe::start(&cluster.lab, address(*number)))
        .collect::<Result<_>>()?;
    std::thread::sleep(WATCH);
    let at_ns = u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos())?;
    cluster.lab.cable("n1", false)?;
    cluster.host_mut("n1").kill_all();
    let off = std::time::Instant::now();
    let all = within(TAKEOVER, || {
        ["n2", "n3"].into_iter().find(|name| {
            let there = cluster.lab.ip(name, &["-o", "address", "show", "dev", "eth0"]);
            there.is_ok_and(|text| text.matches(" 10.78.").count() == usize::from(vips))
        })
    });
    let holder = all.context("no node took all of them over")?;
    println!("{holder} has all of them after {:.0?}", off.elapsed());
    std::thread::sleep(WATCH);
    let mac = cluster.lab.mac(holder)?;
    let mut took = vec![];
    for (number, probe) in sample.iter().zip(probes) {
        let trace = probe.finish()?;
        let first = trace.replies.iter().find(|r| r.at_ns > at_ns && r.from == mac);
        let first = first.with_context(|| format!("VIP {number} does not answer"))?;
        took.push(Duration::from_nanos(first.at_ns - at_ns).as_millis());
    }
    let found = json!({
        "vips": vips, "all_addresses_ms": off.elapsed().as_millis() - WATCH.as_millis(),
        "first_middle_last_answer_ms": took, "load": load()?,
    });
    std::fs::write(results("many.json"), serde_json::to_vec_pretty(&found)?)?;
    println!("{found:#}");
    Ok(())
}
