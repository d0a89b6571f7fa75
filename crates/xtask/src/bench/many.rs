//! Many VIPs of one node that move at once: drained, then without power.

use super::{load, results};
use anyhow::{Context, Result};
use chaos_tests::{Cluster, Options, Probe, within};
use serde_json::{Value, json};
use std::net::Ipv4Addr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const TAKEOVER: Duration = Duration::from_secs(30);
const WATCH: Duration = Duration::from_millis(700);

fn address(number: u16) -> Ipv4Addr {
    let [high, low] = number.to_be_bytes();
    Ipv4Addr::new(10, 78, high + 1, low)
}

/// The client finds them on its link.
pub(super) fn routed(cluster: &Cluster) -> Result<()> {
    cluster.lab.ip("client", &["route", "add", "10.78.0.0/16", "dev", "eth0"]).map(|_| ())
}

pub(super) fn add(cluster: &Cluster, vips: u16) -> Result<()> {
    let begin = std::time::Instant::now();
    for number in 0..vips {
        let (name, cidr) = (format!("v{number}"), format!("{}/32", address(number)));
        let add = ["vip", "add", &name, "--address", &cidr, "--interface", "eth0"];
        cluster.host("n1").ctl_ok(&add)?;
    }
    println!("{vips} VIPs added in {:.1?}", begin.elapsed());
    Ok(())
}

/// Whether a node has the addresses of so many.
pub(super) fn has_all(cluster: &Cluster, vips: u16, node: &str) -> bool {
    let there = cluster.lab.ip(node, &["-o", "address", "show", "dev", "eth0"]);
    there.is_ok_and(|text| text.matches(" 10.78.").count() == usize::from(vips))
}

pub(super) fn run(profile: &str, vips: u16) -> Result<()> {
    let options = Options { profile: profile.into(), ..Options::default() };
    let mut cluster = Cluster::formed(&options)?;
    routed(&cluster)?;
    add(&cluster, vips)?;

    let (holder, drained) = watch(&mut cluster, vips, "n1", |cluster| {
        cluster.host("n1").ctl_ok(&["node", "drain", "n1"]).map(|_| ())
    })?;
    cluster.host("n1").ctl_ok(&["node", "undrain", "n1"])?;
    let (_, off) = watch(&mut cluster, vips, &holder, |cluster| {
        cluster.lab.cable(&holder, false)?;
        cluster.host_mut(&holder).kill_all();
        Ok(())
    })?;
    let found = json!({
        "profile": profile, "vips": vips, "drain": drained, "power off": off, "load": load()?,
    });
    let path = results(&format!("many-{profile}.json"));
    std::fs::write(path, serde_json::to_vec_pretty(&found)?)?;
    println!("{found:#}");
    Ok(())
}

/// Makes a change that moves all VIPs from `old`; returns who has them then,
/// and what the first, the middle and the last one saw of it.
fn watch(
    cluster: &mut Cluster,
    vips: u16,
    old: &str,
    change: impl FnOnce(&mut Cluster) -> Result<()>,
) -> Result<(String, Value)> {
    let sample = [0, vips / 2, vips - 1];
    let probes: Vec<_> = sample
        .iter()
        .map(|number| Probe::start(&cluster.lab, address(*number)))
        .collect::<Result<_>>()?;
    std::thread::sleep(WATCH);
    let at_ns = u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos())?;
    change(cluster)?;
    // Looking at once would cost the processors that the nodes need.
    std::thread::sleep(WATCH);
    let all = within(TAKEOVER, || {
        let mut others = ["n1", "n2", "n3"].into_iter().filter(|name| *name != old);
        others.find(|name| has_all(cluster, vips, name))
    });
    let holder = all.context("no node took all of them over")?;
    let mac = cluster.lab.mac(holder)?;
    let (mut answers, mut outages) = (vec![], vec![]);
    for (number, probe) in sample.iter().zip(probes) {
        let trace = probe.finish()?;
        let first = trace.replies.iter().find(|r| r.at_ns > at_ns && r.from == mac);
        let first = first.with_context(|| format!("VIP {number} does not answer"))?;
        answers.push(Duration::from_nanos(first.at_ns - at_ns).as_millis());
        outages.extend(trace.changes().iter().map(|outage| outage.ms().round()));
    }
    Ok((holder.to_owned(), json!({ "answers after, ms": answers, "outages, ms": outages })))
}
