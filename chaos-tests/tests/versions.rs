//! Two neighbouring versions in one cluster: this one, and one with an operation
//! more.

use anyhow::{Context, Result, ensure};
use chaos_tests::{Cluster, Connections, Options, Outcome, Probe, V4, Version, wait_for};
use std::net::Ipv4Addr;
use std::time::Duration;
use vip_core::Level;

const VIP: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 100);
const CONNECTIONS: usize = 20;
const SOON: Duration = Duration::from_secs(10);
/// Below what a loss of the holder costs, above a planned move on a busy machine.
const OUTAGE: Duration = Duration::from_millis(150);
/// The next version's name has it.
const NEXT: &str = "+next";

fn web() -> Result<Cluster> {
    let cluster = Cluster::formed(&Options::default())?;
    cluster.host("n1").ctl_ok(&["vip", "add", "web", "--address", "10.77.0.100/24"])?;
    cluster.wait_until_at_leader("n1")?;
    Ok(cluster)
}

/// Whether the log says that each of these runs this version.
fn all_run(cluster: &Cluster, nodes: &[&str], version: Version) -> Result<bool> {
    let told = cluster.host("n1").ctl_json(&["node", "list"])?;
    let told = told.as_array().context("nodes")?;
    Ok(nodes.iter().all(|name| {
        let node = told.iter().find(|node| node["name"] == *name);
        let said = node.and_then(|node| node["version"].as_str()).unwrap_or_default();
        !said.is_empty() && said.ends_with(NEXT) == (version == Version::Next)
    }))
}

/// As somebody upgrades it: stop, install, start, look.
fn roll(cluster: &mut Cluster, name: &str, version: Version) -> Result<()> {
    let host = cluster.host_mut(name);
    host.stop()?;
    host.install(version);
    host.start()?;
    wait_for("the log to know what it runs", SOON, || {
        all_run(cluster, &[name], version).ok()?.then_some(())
    })?;
    cluster.wait_until_settled(name)?;
    cluster.wait_until_at_leader(name).map(|_| ())
}

/// What only the next version can: a mark on each node.
fn mark(cluster: &Cluster) -> Result<Outcome> {
    cluster.host("n1").ctl(&["token", "revoke", "next-version"])
}

#[test]
fn a_version_is_rolled_forward_back_and_forward_and_nobody_waits() -> Result<()> {
    let mut cluster = web()?;
    assert!(all_run(&cluster, &["n1", "n2", "n3"], Version::This)?);
    let _server = V4.by_dr(&mut cluster.lab, "r1", 11)?;
    let add = ["vs", "add", "front", "--vip", "web", "--port", "80", "--real", "10.77.0.11"];
    cluster.host("n1").ctl_ok(&add)?;
    let mut connections = Connections::open(&cluster.lab, "client", V4.target(), CONNECTIONS)?;
    let probe = Probe::start(&cluster.lab, VIP)?;
    roll(&mut cluster, "n2", Version::Next)?;
    roll(&mut cluster, "n1", Version::Next)?;
    // Who leads must know of the operation, or it has never heard of it.
    cluster.host("n1").ctl_ok(&["node", "drain", "n3"])?;
    cluster.wait_for_status("n1", "a leader that runs the next version", |status| {
        status.leader.as_ref().filter(|leader| *leader != "n3").cloned()
    })?;
    let refused = mark(&cluster)?;
    assert_eq!(refused.code, Some(1), "{refused:?}");
    for said in [concat!("n3 (", env!("CARGO_PKG_VERSION"), ")"), "Nothing was changed"] {
        assert!(refused.stderr.contains(said), "{said}: {refused:?}");
    }
    cluster.host("n1").ctl_ok(&["node", "undrain", "n3"])?;
    roll(&mut cluster, "n3", Version::Next)?;
    // Nobody used it, so there is a way back.
    for name in ["n1", "n2", "n3"] {
        roll(&mut cluster, name, Version::This)?;
    }
    for name in ["n3", "n2", "n1"] {
        roll(&mut cluster, name, Version::Next)?;
    }
    assert_eq!(connections.lost(), 0, "through all of it");
    let trace = probe.finish()?;
    let longest = trace.changes().iter().map(chaos_tests::Outage::ms).fold(0.0, f64::max);
    println!("{} changes of the holder, longest silence {longest:.1} ms", trace.changes().len());
    assert_eq!(trace.outages(OUTAGE), []);
    ensure!(trace.changes().len() >= 3, "the VIP did not move: {:?}", cluster.holders(&trace)?);
    let marked = mark(&cluster)?;
    assert_eq!(marked.code, Some(0), "{marked:?}");
    Ok(())
}

/// Rather than skip an entry, a node stands still.
#[test]
fn a_node_that_does_not_understand_an_entry_says_so_and_serves_nothing() -> Result<()> {
    let mut cluster = web()?;
    for name in ["n2", "n3", "n1"] {
        roll(&mut cluster, name, Version::Next)?;
    }
    // The log does not know that n3 goes back.
    cluster.host_mut("n3").stop()?;
    cluster.wait_until_settled("n1")?;
    mark(&cluster)?.ok()?;
    let n3 = cluster.host_mut("n3");
    n3.install(Version::This);
    n3.start()?;
    let (here, next) = (Level::HERE.0, Level::HERE.0 + 1);
    let said = format!(
        "the cluster's log was written by a newer vipd: it takes a vipd that understands level \
         {next}, and this one understands {here}"
    );
    wait_for("n3 to say why it does not go on", SOON, || {
        cluster.host("n3").log().contains(&said).then_some(())
    })?;
    // What is on the disk already is found at the start.
    cluster.host_mut("n3").kill_all();
    cluster.host_mut("n2").stop()?;
    let n2 = cluster.host("n2");
    let settings: Vec<_> = n2.settings().iter().flat_map(|s| ["--set", s.as_str()]).collect();
    let vipd = Version::This.vipd()?.display().to_string();
    let outcome = n2.exec(&vipd, &[&["agent"], settings.as_slice()].concat())?;
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
    let level = format!("understands level {next}");
    for said in ["written by a newer vipd", level.as_str(), "install that version again"] {
        assert!(outcome.stderr.contains(said), "{said}: {outcome:?}");
    }
    assert!(!outcome.stderr.contains("damaged"), "{outcome:?}");
    for name in ["n2", "n3"] {
        let host = cluster.host_mut(name);
        host.install(Version::Next);
        host.start()?;
        cluster.wait_until_settled(name)?;
    }
    Ok(())
}
