//! What the holder forwards tells who does not answer before a probe is due.

use anyhow::{Context, Result, ensure};
use chaos_tests::{Cluster, Connections, Net, Options, Process, RealServer, V4, wait_for};
use nix::sys::signal::Signal;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Well before the next probe is due, after the interval less its jitter.
const NEXT_PROBE: Duration = Duration::from_secs(12);
const CHECK: [&str; 8] =
    ["--check", "tcp", "--check-interval", "20s", "--check-timeout", "500ms", "--check-fall", "1"];

/// How a real server is, as a node tells.
fn state(cluster: &Cluster, from: &str, real: SocketAddr) -> Result<String> {
    let shown = cluster.host(from).ctl_json(&["vs", "show", "front"])?;
    let reals = shown["reals"].as_array().context("real servers")?;
    let real = reals.iter().find(|one| one["address"] == real.to_string()).context("there")?;
    Ok(real["state"].as_str().context("a state")?.to_owned())
}

/// Until clients who connect all the while have it called down. Who looks once in 20 s saw it
/// well just before.
fn clients_have_it_called_down(cluster: &Cluster, real: SocketAddr, added: Instant) -> Result<()> {
    while state(cluster, "n3", real)? != "down" {
        ensure!(added.elapsed() < NEXT_PROBE, "{real} is up yet after {:?}", added.elapsed());
        let _ = Connections::open(&cluster.lab, "client", V4.target(), 8);
    }
    println!("down {:?} after it was added", added.elapsed());
    ensure!(added.elapsed() < NEXT_PROBE, "it was a probe's turn");
    Ok(())
}

/// Each observer alone would hear of it at its next probe, and a majority has to.
#[test]
fn a_server_that_refuses_clients_is_looked_at_sooner_by_all_its_observers() -> Result<()> {
    let mut cluster = Cluster::formed(&Options::default())?;
    let own = |last| -> Result<SocketAddr> { Ok(SocketAddr::new(V4.at(last).parse()?, 80)) };
    let mut reals = vec![];
    for (name, last) in [("r1", 11), ("r2", 12)] {
        let at_vip = V4.by_dr(&mut cluster.lab, name, last)?;
        reals.push([at_vip, RealServer::start(&cluster.lab, name, own(last)?)?]);
    }
    let n1 = cluster.host("n1");
    n1.ctl_ok(&["vip", "add", "web", "--address", "10.77.0.100/24"])?;
    // Who holds it need not lead.
    n1.ctl_ok(&["vip", "move", "web", "--to", "n2"])?;
    ensure!(cluster.status("n1")?.leader.as_deref() != Some("n2"), "n2 leads");
    let add = ["vs", "add", "front", "--vip", "web", "--port", "80"];
    let both = ["--real", "10.77.0.11", "--real", "10.77.0.12"];
    n1.ctl_ok(&[&add[..], &both, &CHECK].concat())?;
    let added = Instant::now();
    // The next program of the guard goes on listening.
    cluster.host("n2").signal(&[Process::Guard], Signal::SIGHUP)?;
    let goes_on = || cluster.host("n2").log().contains("guard goes on from the program before");
    wait_for("its program is replaced", NEXT_PROBE, || goes_on().then_some(()))?;
    drop(reals.pop());
    assert_eq!(state(&cluster, "n1", own(12)?)?, "up", "nobody looked yet");
    clients_have_it_called_down(&cluster, own(12)?, added)?;
    assert_eq!(state(&cluster, "n1", own(11)?)?, "up");
    Ok(())
}

/// By NAT its silence comes by the holder too.
#[test]
fn a_server_that_fell_silent_is_looked_at_sooner() -> Result<()> {
    let net: &Net = &V4;
    let mut cluster = Cluster::formed(&Options::default())?;
    net.behind(&cluster.lab)?;
    let lab = &mut cluster.lab;
    let _both = [net.by_nat(lab, "r1", 11)?, net.by_nat(lab, "r2", 12)?];
    let n1 = cluster.host("n1");
    let gateway = format!("{}100/24", net.back);
    n1.ctl_ok(&["vip", "add", "gateway", "--address", &gateway])?;
    n1.ctl_ok(&["vip", "add", "web", "--address", "10.77.0.100/24"])?;
    let [one, two] = [11, 12].map(|last| net.place(last));
    let (first, second) = (one.to_string(), two.to_string());
    let add = ["vs", "add", "front", "--vip", "web", "--port", "80"];
    let both = ["--real", &first, "--real", &second];
    n1.ctl_ok(&[&add[..], &both, &CHECK].concat())?;
    let added = Instant::now();
    cluster.lab.ip("r2", &["link", "set", "eth0", "down"])?;
    clients_have_it_called_down(&cluster, two, added)?;
    assert_eq!(state(&cluster, "n1", one)?, "up");
    Ok(())
}
