//! Networks that work in one direction, for one pair, or now and then. Only
//! the traffic between nodes is hurt: the client reaches the VIP all the time,
//! so whoever holds on too long is heard.

use anyhow::{Context, Result};
use chaos_tests::{Cluster, Mac, Options, Probe, Trace, wait_for};
use std::net::Ipv4Addr;
use std::time::Duration;

const VIP: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 100);
const TAKEOVER: Duration = Duration::from_secs(10);
/// Longer than any promise, election and wait of the profile together.
const LONG: Duration = Duration::from_secs(3);
/// A renewal may come late; an answer missing for longer is a failover.
const HICCUP: Duration = Duration::from_millis(150);

fn cluster() -> Result<Cluster> {
    let cluster = Cluster::formed(&Options::default())?;
    cluster.host("n1").ctl_ok(&["vip", "add", "web", "--address", "10.77.0.100/24"])?;
    cluster.wait_until_settled("n2")?;
    Ok(cluster)
}

/// Replaces the packet filter of a host: what matches a rule is dropped.
fn filter(cluster: &Cluster, name: &str, rules: &[(&str, &str)]) -> Result<()> {
    let exec = |text: &str| cluster.host(name).exec("nft", &[text])?.ok();
    exec("add table inet fault; delete table inet fault; add table inet fault")?;
    for (hook, rule) in rules {
        exec(&format!(
            "add chain inet fault {hook} {{ type filter hook {hook} priority 0; }}; \
             add rule inet fault {hook} {rule} drop"
        ))?;
    }
    Ok(())
}

fn heal(cluster: &Cluster, name: &str) -> Result<()> {
    filter(cluster, name, &[])
}

fn wait_for_takeover(cluster: &Cluster, from: &str, old: &str) -> Result<String> {
    wait_for("a takeover", TAKEOVER, || {
        let json = cluster.host(from).ctl_json(&["vip", "show", "web"]).ok()?;
        let holder = json["holder"].as_str()?.to_owned();
        (json["answers"].as_bool()? && holder != old).then_some(holder)
    })
}

fn start(cluster: &Cluster) -> Result<Probe> {
    let probe = Probe::start(&cluster.lab, VIP)?;
    wait_for("the client knows the VIP", TAKEOVER, || {
        let all = cluster.lab.ip("client", &["neigh", "show", "10.77.0.100"]).ok()?;
        all.contains("lladdr").then_some(())
    })?;
    std::thread::sleep(Duration::from_millis(300));
    Ok(probe)
}

fn holders(cluster: &Cluster, trace: &Trace) -> Result<Vec<String>> {
    let macs = cluster.macs()?;
    let name = |mac: Mac| {
        let host = macs.iter().find(|(_, m)| *m == mac).context("a host of ours")?;
        Ok(host.0.clone())
    };
    trace.holders().into_iter().map(name).collect()
}

/// A cut in one direction around the holder: another takes over, the holder is
/// silent before that, and the heal moves nothing.
fn one_way(rule: (&str, &str)) -> Result<()> {
    let cluster = cluster()?;
    let probe = start(&cluster)?;
    filter(&cluster, "n1", &[rule])?;
    let new = wait_for_takeover(&cluster, "n3", "n1")?;
    std::thread::sleep(LONG);
    let epoch = cluster.wait_until_settled("n3")?.vips[0].2;
    heal(&cluster, "n1")?;
    cluster.wait_for_status("n1", "n1 follows", |s| {
        (s.leader.as_deref() == Some(&new)).then_some(())
    })?;
    std::thread::sleep(LONG);
    let trace = probe.finish()?;
    assert_eq!(holders(&cluster, &trace)?, ["n1", &new]);
    let after = cluster.wait_until_settled("n1")?;
    assert_eq!(after.vips[0], ("web".into(), Some(new), epoch), "a heal moves nothing");
    Ok(())
}

#[test]
fn a_holder_that_can_send_but_not_hear_hands_over() -> Result<()> {
    one_way(("input", "ip saddr { 10.77.0.2, 10.77.0.3 }"))
}

#[test]
fn a_holder_that_can_hear_but_not_send_hands_over() -> Result<()> {
    one_way(("output", "ip daddr { 10.77.0.2, 10.77.0.3 }"))
}

/// The fault does not touch the quorum of the leader: nothing happens at all.
fn nothing_happens(
    cluster: &Cluster,
    span: Duration,
    hurt: impl FnOnce(&Cluster) -> Result<()>,
) -> Result<()> {
    let before = cluster.wait_until_settled("n3")?;
    let probe = start(cluster)?;
    hurt(cluster)?;
    std::thread::sleep(span);
    for name in ["n1", "n2", "n3"] {
        heal(cluster, name)?;
    }
    std::thread::sleep(LONG);
    let trace = probe.finish()?;
    assert_eq!(holders(cluster, &trace)?, ["n1"]);
    assert_eq!(trace.outages(HICCUP), []);
    let after = cluster.wait_until_settled("n3")?;
    assert_eq!((after.leader, after.vips), (before.leader, before.vips));
    Ok(())
}

#[test]
fn one_cut_pair_of_three_moves_nothing_even_if_the_leader_is_in_it() -> Result<()> {
    let cluster = cluster()?;
    for other in ["10.77.0.3", "10.77.0.1"] {
        nothing_happens(&cluster, LONG, |cluster| {
            let (from, to) = (format!("ip saddr {other}"), format!("ip daddr {other}"));
            filter(cluster, "n2", &[("input", &from), ("output", &to)])
        })?;
    }
    Ok(())
}

#[test]
fn five_percent_of_loss_moves_nothing() -> Result<()> {
    let cluster = cluster()?;
    let loss = "ip saddr { 10.77.0.1, 10.77.0.2, 10.77.0.3 } numgen random mod 100 < 5";
    nothing_happens(&cluster, Duration::from_secs(15), |cluster| {
        ["n1", "n2", "n3"]
            .into_iter()
            .try_for_each(|name| filter(cluster, name, &[("input", loss)]))
    })
}

/// A link that comes and goes faster than anybody can take over.
#[test]
fn a_flapping_link_never_gives_two_holders() -> Result<()> {
    let cluster = cluster()?;
    let probe = start(&cluster)?;
    for lasting in [60, 250, 120, 400, 180, 320, 90, 700] {
        filter(&cluster, "n1", &[("input", "ip saddr { 10.77.0.2, 10.77.0.3 }")])?;
        std::thread::sleep(Duration::from_millis(lasting));
        heal(&cluster, "n1")?;
        std::thread::sleep(Duration::from_millis(lasting / 2));
    }
    let settled = wait_for_takeover(&cluster, "n2", "nobody")?;
    std::thread::sleep(LONG);
    let trace = probe.finish()?;
    // Each stretch of one holder ends before the next begins; two that answer
    // at a time would show as very many short ones.
    let stretches = holders(&cluster, &trace)?;
    assert!(stretches.len() <= 9, "{stretches:?}");
    assert_eq!(stretches.last(), Some(&settled));
    Ok(())
}
