//! Promises outlive the process that gave them.

use anyhow::Result;
use chaos_tests::{Cluster, Fault, Faults, Options, Probe, Process};
use nix::sys::signal::Signal;
use std::net::Ipv4Addr;
use std::time::Duration;

const VIP: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 100);
/// P of profile `lan`.
const PROMISE: Duration = Duration::from_millis(200);

/// L is cut off, and another leads. L is back with a disk that takes no write,
/// hears the new leader, becomes the only one that this one hears, and is
/// killed: it finds the vote for itself, of its own old leadership, on its disk.
/// Did it promise anything to the one after?
#[test]
fn a_killed_voter_finds_on_its_disk_whom_it_promised() -> Result<()> {
    let options = Options { slow_disks: true, ..Options::default() };
    let mut cluster = Cluster::formed(&options)?;
    cluster.host("n1").ctl_ok(&["vip", "add", "web", "--address", "10.77.0.100/24"])?;
    cluster.wait_until_settled("n3")?;
    let probe = Probe::start(&cluster.lab, VIP)?;

    let mut away = Faults::default();
    away.inject(&mut cluster, Fault::Isolate("n1".into()))?;
    cluster.wait_for_takeover("n2", "n1")?;
    let next = cluster.wait_until_at_leader("n2")?;
    let third = if next == "n2" { "n3" } else { "n2" };

    cluster.host("n1").slow_disk(PROMISE * 20)?;
    away.heal(&mut cluster)?;
    // Long enough for it to hear the leader, and to vote for it.
    std::thread::sleep(PROMISE);
    let mut alone = Faults::default();
    alone.inject(&mut cluster, Fault::CutPair(next.clone(), third.into()))?;
    // The third one's promise runs out.
    std::thread::sleep(PROMISE * 6 / 5);
    cluster.host("n1").slow_disk(Duration::ZERO)?;
    cluster.host("n1").signal(&[Process::Agent], Signal::SIGKILL)?;

    std::thread::sleep(PROMISE * 6);
    alone.heal(&mut cluster)?;
    cluster.wait_until_settled("n1")?;
    let trace = probe.finish()?;
    let two = trace.overlaps(PROMISE);
    assert!(two.is_empty(), "two answered in turn: {:?}", cluster.holders(&trace)?);
    Ok(())
}
