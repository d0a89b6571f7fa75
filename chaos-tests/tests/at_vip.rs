//! Real servers of direct routing that answer at their own addresses, and not to what is sent
//! there for the VIP.

use anyhow::{Context, Result};
use chaos_tests::{Cluster, Connections, Net, Options, RealServer, V4, V6, wait_for};
use std::net::SocketAddr;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(10);

const ADD: [&str; 13] = [
    "vs",
    "add",
    "front",
    "--vip",
    "web",
    "--port",
    "80",
    "--check",
    "tcp",
    "--check-interval",
    "400ms",
    "--check-timeout",
    "200ms",
];

/// keepalived would send half of all connections to where nobody takes them.
fn who_does_not_take_it_is_down(net: &Net) -> Result<()> {
    let mut cluster = Cluster::formed(&Options::default())?;
    let own = |last| -> Result<SocketAddr> { Ok(SocketAddr::new(net.at(last).parse()?, 80)) };
    let lab = &mut cluster.lab;
    // One as it should be; one without the address, which would route what it is sent on to
    // the holder; one that has it, and listens at its own alone.
    let _r1 = [net.by_dr(lab, "r1", 11)?, RealServer::start(lab, "r1", own(11)?)?];
    lab.add_host("r2", 12)?;
    let forwards = ["net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1"];
    lab.exec("r2", "sysctl", &[&["-qw"], &forwards[..]].concat())?.ok()?;
    let _r2 = RealServer::start(lab, "r2", own(12)?)?;
    drop(net.by_dr(lab, "r3", 13)?);
    let _r3 = RealServer::start(lab, "r3", own(13)?)?;
    let n1 = cluster.host("n1");
    let vip = format!("{}/{}", net.vip(), net.length);
    n1.ctl_ok(&["vip", "add", "web", "--address", &vip])?;
    let [first, second, third] = [11, 12, 13].map(|last| net.at(last));
    let reals = ["--real", &first, "--real", &second, "--real", &third];
    let added = n1.ctl_ok(&[&ADD[..], &reals].concat())?;
    let down = |last, why: &str| Ok(format!("{} is down: {why}", own(last)?));
    assert!(added.contains("to 1 real servers, 2 down"), "{added}");
    for (last, why) in [(12, "no VIP on its loopback"), (13, "it listens at its own address")] {
        let down: Result<_> = down(last, why);
        assert!(added.contains(&down?), "{added}");
    }
    let through = Connections::open(&cluster.lab, "client", net.target(), 30)?;
    assert_eq!(through.of_each().into_keys().collect::<Vec<_>>(), ["r1"]);

    // From any node, the holder among them.
    for to in ["n2", "n3", "n1"] {
        cluster.host("n1").ctl_ok(&["vip", "move", "web", "--to", to])?;
        let checked = cluster.host("n2").ctl_json(&["vs", "check", "front"])?;
        for (real, well) in checked.as_array().context("real servers")?.iter().zip([1, 0, 0]) {
            let seen = real["seen"].as_array().context("observers")?;
            let up = seen.iter().filter(|one| one["state"] == "up").count();
            assert_eq!((seen.len(), up), (3, 3 * well), "{to} holds it: {real}");
        }
    }
    // What is asked leaves nothing behind.
    let half = ["-Htn", "state", "syn-recv"];
    let half_open = || cluster.lab.exec("r1", "ss", &half).ok()?.ok().ok();
    wait_for("no connection is half open", SOON, || half_open()?.trim().is_empty().then_some(()))?;

    let on_loopback = format!("{}/{}", net.vip(), net.alone);
    cluster.lab.ip("r2", &["address", "add", &on_loopback, "dev", "lo"])?;
    let checked = cluster.host("n2").ctl_ok(&["vs", "check", "front", &second])?;
    assert!(checked.contains("it listens at its own address alone"), "{checked}");
    let _at_vip = ["r2", "r3"].map(|name| RealServer::start(&cluster.lab, name, net.target()));
    let all = || {
        let all = Connections::open(&cluster.lab, "client", net.target(), 60).ok()?;
        (all.of_each().len() == 3).then_some(())
    };
    wait_for("all three are sent something", SOON, all)
}

#[test]
fn who_does_not_take_what_is_sent_to_the_vip_is_down_with_the_reason() -> Result<()> {
    who_does_not_take_it_is_down(&V4)
}

#[test]
fn who_does_not_take_what_is_sent_to_an_ipv6_vip_is_down_with_the_reason() -> Result<()> {
    who_does_not_take_it_is_down(&V6)
}

/// What is sent to the host goes to a container of its own, as Docker publishes ports.
const PUBLISHED: &str = "add table ip published; \
     add chain ip published in { type nat hook prerouting priority -100; }; \
     add rule ip published in fib daddr type local tcp dport 80 dnat to 10.99.0.2:8080";

/// It is one hop further, and answers as the VIP all the same.
#[test]
fn a_port_that_a_host_publishes_for_a_container_is_taken() -> Result<()> {
    let mut cluster = Cluster::formed(&Options::default())?;
    let lab = &mut cluster.lab;
    drop(V4.by_dr(lab, "r1", 11)?);
    lab.add_bare_host("inner")?;
    let inner = lab.namespace("inner");
    let pair = ["type", "veth", "peer", "name", "eth0", "netns", &inner];
    lab.ip("r1", &[&["link", "add", "docker0"], &pair[..]].concat())?;
    lab.ip("r1", &["link", "set", "docker0", "up"])?;
    lab.ip("r1", &["address", "add", "10.99.0.1/24", "dev", "docker0"])?;
    lab.ip("inner", &["link", "set", "eth0", "up"])?;
    lab.ip("inner", &["address", "add", "10.99.0.2/24", "dev", "eth0"])?;
    lab.ip("inner", &["route", "add", "default", "via", "10.99.0.1"])?;
    lab.exec("r1", "sysctl", &["-qw", "net.ipv4.ip_forward=1"])?.ok()?;
    lab.exec("r1", "nft", &[PUBLISHED])?.ok()?;
    let _inner = RealServer::start(lab, "inner", "10.99.0.2:8080".parse()?)?;
    let n1 = cluster.host("n1");
    n1.ctl_ok(&["vip", "add", "web", "--address", "10.77.0.100/24"])?;
    let added = n1.ctl_ok(&[&ADD[..], &["--real", "10.77.0.11"]].concat())?;
    assert!(added.contains("to 1 real servers") && !added.contains("down"), "{added}");
    let through = Connections::open(&cluster.lab, "client", V4.target(), 8)?;
    assert_eq!(through.of_each().into_keys().collect::<Vec<_>>(), ["inner"]);
    Ok(())
}
