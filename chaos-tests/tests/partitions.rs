//! Networks that work in one direction, for one pair, or now and then. Only
//! the traffic between nodes is hurt: the client reaches the VIP all the time,
//! so whoever holds on too long is heard.

use anyhow::Result;
use chaos_tests::{Cluster, Fault, Faults, Options, Probe, wait_for};
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

fn start(cluster: &Cluster) -> Result<Probe> {
    let probe = Probe::start(&cluster.lab, VIP)?;
    wait_for("the client knows the VIP", TAKEOVER, || {
        let all = cluster.lab.ip("client", &["neigh", "show", "10.77.0.100"]).ok()?;
        all.contains("lladdr").then_some(())
    })?;
    std::thread::sleep(Duration::from_millis(300));
    Ok(probe)
}

/// A cut in one direction around the holder: another takes over, the holder is
/// silent before that, and the heal moves nothing.
fn one_way(fault: Fault) -> Result<()> {
    let mut cluster = cluster()?;
    let mut faults = Faults::default();
    let probe = start(&cluster)?;
    faults.inject(&mut cluster, fault)?;
    let new = cluster.wait_for_takeover("n3", "n1")?;
    std::thread::sleep(LONG);
    let epoch = cluster.wait_until_settled("n3")?.vips[0].2;
    faults.heal(&mut cluster)?;
    cluster.wait_for_status("n1", "n1 follows", |s| {
        (s.leader.as_deref() == Some(&new)).then_some(())
    })?;
    std::thread::sleep(LONG);
    let trace = probe.finish()?;
    assert_eq!(cluster.holders(&trace)?, ["n1", &new]);
    let after = cluster.wait_until_settled("n1")?;
    assert_eq!(after.vips[0], ("web".into(), Some(new), epoch), "a heal moves nothing");
    Ok(())
}

#[test]
fn a_holder_that_can_send_but_not_hear_hands_over() -> Result<()> {
    one_way(Fault::Deaf("n1".into()))
}

#[test]
fn a_holder_that_can_hear_but_not_send_hands_over() -> Result<()> {
    one_way(Fault::Mute("n1".into()))
}

/// The fault does not touch the quorum of the leader: nothing happens at all.
fn nothing_happens(cluster: &mut Cluster, span: Duration, fault: Fault) -> Result<()> {
    let before = cluster.wait_until_settled("n3")?;
    let mut faults = Faults::default();
    let probe = start(cluster)?;
    faults.inject(cluster, fault)?;
    std::thread::sleep(span);
    faults.heal(cluster)?;
    std::thread::sleep(LONG);
    let trace = probe.finish()?;
    assert_eq!(cluster.holders(&trace)?, ["n1"]);
    assert_eq!(trace.outages(HICCUP), []);
    let after = cluster.wait_until_settled("n3")?;
    assert_eq!((after.leader, after.vips), (before.leader, before.vips));
    Ok(())
}

#[test]
fn one_cut_pair_of_three_moves_nothing_even_if_the_leader_is_in_it() -> Result<()> {
    let mut cluster = cluster()?;
    for other in ["n3", "n1"] {
        nothing_happens(&mut cluster, LONG, Fault::CutPair("n2".into(), other.into()))?;
    }
    Ok(())
}

#[test]
fn five_percent_of_loss_moves_nothing() -> Result<()> {
    nothing_happens(&mut cluster()?, Duration::from_secs(15), Fault::Loss(5))
}

#[test]
fn doubled_packets_move_nothing() -> Result<()> {
    nothing_happens(&mut cluster()?, LONG, Fault::Duplication(50))
}

/// A link that comes and goes faster than anybody can take over.
#[test]
fn a_flapping_link_never_gives_two_holders() -> Result<()> {
    let mut cluster = cluster()?;
    let mut faults = Faults::default();
    let probe = start(&cluster)?;
    for lasting in [60, 250, 120, 400, 180, 320, 90, 700] {
        faults.inject(&mut cluster, Fault::Deaf("n1".into()))?;
        std::thread::sleep(Duration::from_millis(lasting));
        faults.heal(&mut cluster)?;
        std::thread::sleep(Duration::from_millis(lasting / 2));
    }
    let settled = cluster.wait_until_at_leader("n2")?;
    std::thread::sleep(LONG);
    let trace = probe.finish()?;
    // Each stretch of one holder ends before the next begins; two that answer
    // at a time would show as very many short ones.
    let stretches = cluster.holders(&trace)?;
    assert!(stretches.len() <= 9, "{stretches:?}");
    assert_eq!(stretches.last(), Some(&settled));
    Ok(())
}
