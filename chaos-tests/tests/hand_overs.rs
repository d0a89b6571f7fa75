//! A guard's program is replaced while it holds VIPs and forwards.

use anyhow::{Context, Result};
use chaos_tests::{
    Cluster, Connections, Options, Patter, Probe, Process, RealServer, V4, wait_for,
};
use nix::sys::signal::Signal;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

const VIP: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 100);
const SOON: Duration = Duration::from_secs(10);
/// What is shown of silences if something is lost.
const GAP: Duration = Duration::from_millis(20);

/// Of each guard.
const REPLACEMENTS: usize = 12;

/// How often a host's guard went on from the program before.
fn went_on(cluster: &Cluster, host: &str) -> usize {
    cluster.host(host).log().matches("goes on from the program before").count()
}

/// Has a host's guard replaced; returns its process, which is the same.
fn replace(cluster: &Cluster, host: &str) -> Result<i32> {
    let (before, guard) = (went_on(cluster, host), cluster.host(host).find(Process::Guard));
    cluster.host(host).signal(&[Process::Guard], Signal::SIGHUP)?;
    let done = wait_for("it is replaced", SOON, || (went_on(cluster, host) > before).then_some(()));
    done.with_context(|| cluster.host(host).log())?;
    let after = cluster.host(host).find(Process::Guard);
    assert_eq!(after, guard, "another process");
    after.context("a guard")
}

/// What a process has open: how many descriptors.
fn open_by(pid: i32) -> Result<usize> {
    Ok(std::fs::read_dir(format!("/proc/{pid}/fd"))?.count())
}

/// How its threads are scheduled, as proc(5) numbers it: policy and nice, by name.
fn scheduled(pid: i32) -> Result<BTreeMap<String, (String, String)>> {
    let mut threads = BTreeMap::new();
    for task in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        let stat = std::fs::read_to_string(task?.path().join("stat"))?;
        let (before, after) = stat.rsplit_once(')').context("a name")?;
        let name = before.split_once('(').context("a name")?.1.to_owned();
        let fields: Vec<_> = after.split_whitespace().collect();
        let field = |number: usize| fields[number - 3].to_owned();
        threads.insert(name, (field(41), field(19)));
    }
    Ok(threads)
}

/// The holder of the VIP, its epoch, and how many events there are.
fn state(cluster: &Cluster) -> Result<(String, u64, usize)> {
    let n1 = cluster.host("n1");
    let shown = n1.ctl_json(&["vip", "show", "web"])?;
    let holder = shown["holder"].as_str().context("a holder")?.to_owned();
    let epoch = shown["epoch"].as_u64().context("an epoch")?;
    Ok((holder, epoch, n1.ctl_ok(&["events"])?.lines().count()))
}

/// Neither one that the host answers nor one that it forwards, by a table or because it
/// is remembered; and a real server that is a node itself goes on taking its packets.
#[test]
fn a_guard_is_replaced_without_a_lost_packet() -> Result<()> {
    let mut cluster = Cluster::formed(&Options::default())?;
    let lab = &mut cluster.lab;
    let _servers = [V4.by_dr(lab, "r1", 11)?, V4.by_dr(lab, "r2", 12)?];
    let n1 = cluster.host("n1");
    n1.ctl_ok(&["vip", "add", "web", "--address", "10.77.0.100/24"])?;
    let reals = ["--real", "10.77.0.11", "--real", "10.77.0.12", "--real", "10.77.0.2"];
    for (name, protocol) in [("front", "tcp"), ("names", "udp")] {
        let add = ["vs", "add", name, "--protocol", protocol, "--vip", "web", "--port", "80"];
        n1.ctl_ok(&[&add[..], &reals].concat())?;
    }
    // At the VIP itself: a datagram's answer has to come from it.
    let member = || RealServer::start(&cluster.lab, "n2", V4.target()).ok();
    let _member = wait_for("the VIP on n2's loopback", SOON, member)?;
    let mut connections = Connections::open(&cluster.lab, "client", V4.target(), 30)?;
    n1.ctl_ok(&["real", "drain", "front", "10.77.0.11"])?;
    assert_eq!(connections.of_each().len(), 3, "{:?}", connections.of_each());
    assert_eq!(connections.lost(), 0);

    let before = state(&cluster)?;
    let patter: Vec<_> = (0..3)
        .map(|_| Patter::start(&cluster.lab, "client", V4.target()))
        .collect::<Result<_>>()?;
    let probe = Probe::start(&cluster.lab, VIP)?;
    let at_first = cluster.host("n1").find(Process::Guard).context("a guard")?;
    let threads = scheduled(at_first)?;
    let hosts = ["n1", "n2", "n3"];
    let mut guards = vec![];
    for host in hosts {
        guards.push(replace(&cluster, host)?);
    }
    let count = || guards.iter().map(|pid| open_by(*pid)).collect::<Result<Vec<_>>>();
    let open = count()?;
    for host in hosts.repeat(REPLACEMENTS) {
        replace(&cluster, host)?;
    }
    assert_eq!(scheduled(at_first)?, threads, "as before");
    // The first ones may not have opened all by then; one more each time would be more.
    let more = count()?.iter().zip(&open).all(|(now, first)| *now < first + REPLACEMENTS);
    assert!(more, "descriptors: {open:?} and {:?}", count()?);
    let trace = probe.finish()?;
    assert!(trace.asked > 1000, "{}", trace.asked);
    assert_eq!(trace.lost(), 0, "of {}: {:?}", trace.asked, trace.outages(GAP));
    for patter in patter {
        let (sent, answered) = patter.finish()?;
        assert!(sent > 1000, "{sent}");
        assert_eq!(sent - answered, 0, "of {sent}");
    }
    assert_eq!(connections.lost(), 0);
    assert_eq!(state(&cluster)?, before, "nothing is to be told of");

    // It obeys, and knows what it has.
    let n1 = cluster.host("n1");
    n1.ctl_ok(&["real", "set-weight", "front", "10.77.0.12", "5"])?;
    // One in six goes to the other one.
    let new = Connections::open(&cluster.lab, "client", V4.target(), 80)?.of_each();
    assert!(!new.contains_key("r1") && new.len() == 2, "{new:?}");
    let holder = before.0;
    let to = if holder == "n1" { "n3" } else { "n1" };
    n1.ctl_ok(&["vip", "move", "web", "--to", to])?;
    assert_eq!(state(&cluster)?.0, to);
    assert_eq!(connections.lost(), 0);
    // A killed agent's VIP goes, by the guard that went on.
    cluster.host(to).signal(&[Process::Agent], Signal::SIGKILL)?;
    cluster.wait_for_takeover("n2", to)?;
    assert_eq!(connections.lost(), 0);
    Ok(())
}
