//! Promises outlive the process that gave them.

use anyhow::Result;
use chaos_tests::{Cluster, Fault, Faults, Options, Probe, Process};
use nix::sys::signal::Signal;
use std::net::Ipv4Addr;
use std::time::Duration;

const VIP: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 100);
/// P of profile `lan`.
const PROMISE: Duration = Duration::from_millis(200);

/// Each is a matter of some ten milliseconds: whether the last promise still
/// runs when the third one asks.
const TRIALS: usize = 4;

/// L is cut off, and another leads. L is back with a disk that takes no write,
/// hears the new leader, becomes the only one that this one hears, and is
/// killed: it finds the vote for itself, of its own old leadership, on its disk.
/// Did it promise anything to the one after?
#[test]
fn a_killed_voter_finds_on_its_disk_whom_it_promised() -> Result<()> {
    let options = Options { unwell: true, ..Options::default() };
    let mut cluster = Cluster::formed(&options)?;
    cluster.host("n1").ctl_ok(&["vip", "add", "web", "--address", "10.77.0.100/24"])?;
    for trial in 1..=TRIALS {
        let lost = cluster.wait_until_at_leader("n1")?;
        let probe = Probe::start(&cluster.lab, VIP)?;
        forget(&mut cluster, &lost)?;
        let trace = probe.finish()?;
        let two = trace.overlaps(PROMISE);
        let holders = cluster.holders(&trace)?;
        assert!(two.is_empty(), "trial {trial}: two answered in turn: {holders:?}");
    }
    Ok(())
}

fn forget(cluster: &mut Cluster, lost: &str) -> Result<()> {
    let others: Vec<String> =
        cluster.hosts.iter().map(|h| h.name.clone()).filter(|name| name != lost).collect();
    let mut away = Faults::default();
    away.inject(cluster, Fault::Isolate(lost.into()))?;
    let next = cluster.wait_for_takeover(&others[0], lost)?;
    let third = others.iter().find(|name| **name != next).expect("three hosts").clone();
    cluster.wait_until_settled(&third)?;

    cluster.host(lost).slow_disk(PROMISE * 20)?;
    away.heal(cluster)?;
    // Long enough for it to hear the leader, and to vote for it.
    std::thread::sleep(PROMISE);
    let mut alone = Faults::default();
    alone.inject(cluster, Fault::CutPair(next.clone(), third))?;
    // The third one's promise runs out.
    std::thread::sleep(PROMISE * 6 / 5);
    cluster.host(lost).slow_disk(Duration::ZERO)?;
    cluster.host(lost).signal(&[Process::Agent], Signal::SIGKILL)?;
    // Before it is back: it must not hear the leader again.
    alone.inject(cluster, Fault::CutPair(lost.into(), next))?;

    std::thread::sleep(PROMISE * 4);
    alone.heal(cluster)?;
    cluster.wait_until_settled(lost).map(|_| ())
}
