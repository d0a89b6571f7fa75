//! What the network believes: neighbour caches after faults.

use anyhow::Result;
use chaos_tests::{Cluster, Fault, Faults, Options, Probe, wait_for};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

const VIP: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 100);
/// Long enough for many.
const SOME_REPLIES: Duration = Duration::from_millis(300);
const SOON: Duration = Duration::from_secs(5);

fn cluster() -> Result<Cluster> {
    let cluster = Cluster::formed(&Options::default())?;
    cluster.host("n1").ctl_ok(&["vip", "add", "web", "--address", "10.77.0.100/24"])?;
    cluster.wait_until_settled("n2")?;
    Ok(cluster)
}

/// The host that the client sends to.
fn believed(cluster: &Cluster) -> Result<Option<String>> {
    let text = cluster.lab.ip("client", &["neigh", "show", "10.77.0.100"])?;
    let hex = |mac: &[u8; 6]| mac.map(|byte| format!("{byte:02x}")).join(":");
    let found = cluster.macs()?.into_iter().find(|(_, mac)| text.contains(&hex(mac)));
    Ok(found.map(|(name, _)| name))
}

fn wait_until_believed(cluster: &Cluster, host: &str) -> Result<Duration> {
    let begin = Instant::now();
    wait_for(&format!("the client sends to {host}"), SOON, || {
        (believed(cluster).ok()?.as_deref() == Some(host)).then_some(())
    })?;
    Ok(begin.elapsed())
}

/// The client and the old holder on one side, the next holder on the other: when
/// they meet again the client still believes what it knew.
#[test]
fn a_client_that_was_cut_off_with_the_old_holder_is_told_at_the_heal() -> Result<()> {
    let cluster = cluster()?;
    let probe = Probe::start(&cluster.lab, VIP)?;
    wait_until_believed(&cluster, "n1")?;
    cluster.lab.split(&["n1", "client"])?;
    let new = cluster.wait_for_takeover("n3", "n1")?;
    assert_eq!(believed(&cluster)?.as_deref(), Some("n1"));
    cluster.lab.heal("n1")?;
    cluster.lab.heal("client")?;
    let took = wait_until_believed(&cluster, &new)?;
    println!("told {took:?} after the heal");
    // Without being told the client would ask again after seconds only.
    assert!(took < Duration::from_secs(1), "told after {took:?}");
    std::thread::sleep(SOME_REPLIES);
    let trace = probe.finish()?;
    assert_eq!(cluster.holders(&trace)?, ["n1", &new]);
    Ok(())
}

/// A heal alone: the VIP stays where it is and misses next to nothing.
#[test]
fn a_heal_alone_costs_the_clients_nothing() -> Result<()> {
    let mut cluster = cluster()?;
    let mut faults = Faults::default();
    faults.inject(&mut cluster, Fault::Isolate("n1".into()))?;
    let new = cluster.wait_for_takeover("n3", "n1")?;
    let before = cluster.wait_until_settled("n3")?.vips;
    wait_until_believed_by_asking(&cluster, &new)?;
    let probe = Probe::start(&cluster.lab, VIP)?;
    faults.heal(&mut cluster)?;
    cluster.wait_for_status("n1", "n1 follows", |s| {
        (s.leader.as_deref() == Some(&new)).then_some(())
    })?;
    std::thread::sleep(Duration::from_secs(2));
    let trace = probe.finish()?;
    assert_eq!(cluster.holders(&trace)?, [new]);
    assert_eq!(trace.outages(Duration::from_millis(50)), []);
    assert_eq!(cluster.wait_until_settled("n3")?.vips, before);
    Ok(())
}

fn wait_until_believed_by_asking(cluster: &Cluster, host: &str) -> Result<()> {
    let probe = Probe::start(&cluster.lab, VIP)?;
    wait_until_believed(cluster, host)?;
    probe.finish().map(|_| ())
}

#[test]
fn lost_announcements_are_repeated() -> Result<()> {
    let mut cluster = cluster()?;
    let mut faults = Faults::default();
    let probe = Probe::start(&cluster.lab, VIP)?;
    wait_until_believed(&cluster, "n1")?;
    faults.inject(&mut cluster, Fault::LoseAnnouncements)?;
    faults.inject(&mut cluster, Fault::PowerOff("n1".into()))?;
    let new = cluster.wait_for_takeover("n3", "n1")?;
    assert_eq!(believed(&cluster)?.as_deref(), Some("n1"), "the first were lost");
    faults.heal(&mut cluster)?;
    let took = wait_until_believed(&cluster, &new)?;
    println!("told after {took:?}");
    // The holder's own question for the client was lost, too; it asks again
    // after a second.
    std::thread::sleep(Duration::from_secs(1) + SOME_REPLIES);
    let trace = probe.finish()?;
    assert_eq!(cluster.holders(&trace)?, ["n1", &new]);
    Ok(())
}

/// Somebody else on the network uses the address: the holder defends it, and
/// says so.
#[test]
fn a_foreign_host_with_the_vip_is_answered_and_reported() -> Result<()> {
    let mut cluster = cluster()?;
    let mut faults = Faults::default();
    let probe = Probe::start(&cluster.lab, VIP)?;
    wait_until_believed(&cluster, "n1")?;
    faults.inject(&mut cluster, Fault::ForeignHost)?;
    wait_for("n1 says so", SOON, || {
        cluster.host("n1").log().contains("another host claims").then_some(())
    })?;
    wait_until_believed(&cluster, "n1")?;
    faults.heal(&mut cluster)?;
    wait_until_believed(&cluster, "n1")?;
    assert_eq!(cluster.wait_until_settled("n2")?.vips[0].1.as_deref(), Some("n1"));
    drop(probe);
    Ok(())
}

/// Without a link nobody can be reached: the address goes at once, not when the
/// lease ends.
#[test]
fn a_holder_without_a_link_lets_go() -> Result<()> {
    let mut cluster = cluster()?;
    let mut faults = Faults::default();
    let probe = Probe::start(&cluster.lab, VIP)?;
    wait_until_believed(&cluster, "n1")?;
    faults.inject(&mut cluster, Fault::Unplug("n1".into()))?;
    let begin = Instant::now();
    wait_for("n1 to let go", SOON, || {
        (!cluster.lab.has_address("n1", "10.77.0.100").ok()?).then_some(())
    })?;
    println!("let go after {:?}", begin.elapsed());
    let reason = "no link; letting go of it";
    assert!(cluster.host("n1").log().contains(reason), "not for the end of its lease");
    let new = cluster.wait_for_takeover("n3", "n1")?;
    wait_until_believed(&cluster, &new)?;
    std::thread::sleep(SOME_REPLIES);
    faults.heal(&mut cluster)?;
    cluster.wait_for_status("n1", "n1 follows", |s| {
        (s.leader.as_deref() == Some(&new)).then_some(())
    })?;
    let trace = probe.finish()?;
    assert_eq!(cluster.holders(&trace)?, ["n1", &new]);
    Ok(())
}

/// The nodes reach each other on another interface than the VIP's: nothing but
/// the link says that the holder is of no use.
#[test]
fn a_vip_leaves_an_interface_without_a_link_and_may_come_back() -> Result<()> {
    let cluster = Cluster::formed(&Options::default())?;
    for name in ["n1", "n2", "n3"] {
        let pair = ["link", "add", "eth1", "type", "veth", "peer", "name", "far"];
        cluster.lab.ip(name, &pair)?;
        for interface in ["eth1", "far"] {
            cluster.lab.ip(name, &["link", "set", interface, "up"])?;
        }
    }
    let add = ["vip", "add", "web", "--address", "10.99.0.1/24", "--interface", "eth1"];
    cluster.host("n1").ctl_ok(&add)?;
    assert_eq!(cluster.wait_until_settled("n2")?.vips[0].1.as_deref(), Some("n1"));
    let on = |name: &str| cluster.lab.ip(name, &["address", "show", "dev", "eth1"]);
    cluster.lab.ip("n1", &["link", "set", "far", "down"])?;
    let new = cluster.wait_for_takeover("n3", "n1")?;
    assert!(!on("n1")?.contains("10.99.0.1") && on(&new)?.contains("10.99.0.1"));
    // The only one with a link is always good enough.
    cluster.lab.ip("n1", &["link", "set", "far", "up"])?;
    for name in ["n2", "n3"] {
        cluster.lab.ip(name, &["link", "set", "far", "down"])?;
    }
    wait_for("n1 to have it back", SOON, || {
        let json = cluster.host("n2").ctl_json(&["vip", "show", "web"]).ok()?;
        (json["holder"] == "n1" && json["answers"] == true).then_some(())
    })
}
