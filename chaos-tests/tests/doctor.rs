//! `vipctl doctor`: what is wrong with a host, before it joins and after, in
//! words.

use anyhow::Result;
use chaos_tests::{Cluster, Fault, Faults, Options, Process, wait_for};
use nix::sys::signal::Signal;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(15);

fn bare(nodes: u8) -> Result<Cluster> {
    Cluster::bare(&Options { nodes, ..Options::default() })
}

/// Waits until the doctor of a host says this.
fn said(cluster: &Cluster, host: &str, words: &str) -> Result<()> {
    let mut last = String::new();
    let found = wait_for(words, SOON, || {
        last = cluster.host(host).ctl(&["doctor"]).ok()?.stdout;
        last.contains(words).then_some(())
    });
    found.map_err(|e| e.context(last))
}

#[test]
fn before_it_joins_a_host_knows_what_would_be_in_the_way() -> Result<()> {
    let mut cluster = bare(1)?;
    let well = cluster.host("n1").ctl_ok(&["doctor"])?;
    for words in ["peers will use 10.77.0.1:7400", "the kernel enforces leases", "in no cluster"] {
        assert!(well.contains(words), "{words}: {well}");
    }
    // Again, so that nothing of the first look is left.
    assert!(cluster.host("n1").ctl_ok(&["doctor"])?.contains("the kernel enforces leases"));

    let port = std::thread::scope(|scope| {
        let bound = scope.spawn(|| {
            cluster.lab.enter("n1")?;
            Ok::<_, anyhow::Error>(std::net::TcpListener::bind("10.77.0.1:7400")?)
        });
        bound.join().expect("no panic")
    })?;
    let taken = cluster.host("n1").ctl(&["doctor"])?;
    assert_eq!(taken.code, Some(1), "{taken:?}");
    assert!(taken.stdout.contains("cannot listen on"), "{taken:?}");
    drop(port);

    cluster.host("n1").signal(&[Process::Guard], Signal::SIGSTOP)?;
    let mute = cluster.host("n1").ctl(&["doctor"])?;
    assert!(mute.stdout.contains("it does not answer at"), "{mute:?}");
    cluster.host("n1").signal(&[Process::Guard], Signal::SIGCONT)?;

    for (place, words) in [
        ("10.77.0.99:7400", "no interface has 10.77.0.99"),
        ("10.77.0.1:7401", "it listens at port 7400, and peers use 7401"),
        ("127.0.0.1:7400", "no other member reaches 127.0.0.1:7400: it is a loopback address"),
    ] {
        cluster.host_mut("n1").stop()?;
        cluster.host_mut("n1").set("node.advertise", place);
        cluster.host_mut("n1").start()?;
        let told = cluster.host("n1").ctl(&["doctor"])?;
        assert!(told.stdout.contains(words), "{words}: {told:?}");
    }
    Ok(())
}

#[test]
fn a_member_knows_who_reaches_whom_and_what_is_wrong_with_its_vips() -> Result<()> {
    let mut cluster = Cluster::formed(&Options::default())?;
    for words in ["to n2", "to n3"] {
        said(&cluster, "n1", words)?;
    }
    let well = cluster.host("n1").ctl_ok(&["doctor"])?;
    assert_eq!(well.matches("there and back").count(), 2, "{well}");

    // n2 makes no connections to n1, and takes those from there.
    let closed = "table inet t { chain o { type filter hook output priority 0; \
                  ip daddr 10.77.0.1 tcp dport 7400 drop; }; }";
    cluster.host("n2").exec("nft", &[closed])?.ok()?;
    said(&cluster, "n1", "n2 does not reach this node at 10.77.0.1:7400")?;
    cluster.host("n2").exec("nft", &["delete", "table", "inet", "t"])?.ok()?;
    said(&cluster, "n1", "there and back")?;

    let n1 = cluster.host("n1");
    cluster.lab.ip("n3", &["address", "add", "10.77.0.98/32", "dev", "lo"])?;
    n1.ctl_ok(&["vip", "add", "own", "--address", "10.77.0.98/24", "--no-wait"])?;
    said(&cluster, "n3", "own cannot be here: the host has 10.77.0.98 already")?;
    n1.ctl_ok(&["vip", "add", "web", "--address", "10.77.0.100/24"])?;
    let mut faults = Faults::default();
    faults.inject(&mut cluster, Fault::ForeignHost)?;
    said(&cluster, "n1", "claims 10.77.0.100 of web")?;
    faults.heal(&mut cluster)
}
