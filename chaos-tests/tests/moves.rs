//! Moves by command: to a node that can hold the VIP, or not at all.

use anyhow::{Context, Result};
use chaos_tests::{Cluster, Options, Probe, Process, wait_for};
use nix::sys::signal::Signal;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

const VIP: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 100);
const SOME_REPLIES: Duration = Duration::from_millis(100);
const SOON: Duration = Duration::from_secs(10);
/// Below what a move back would cost, above what a busy machine does.
const OUTAGE: Duration = Duration::from_millis(150);

/// The VIP is on an interface that n3 lacks: another cable to the same switch.
fn on_an_interface_of_two() -> Result<Cluster> {
    let cluster = Cluster::formed(&Options::default())?;
    for host in ["n1", "n2"] {
        second_cable(&cluster, host)?;
    }
    let add = ["vip", "add", "web", "--address", "10.77.0.100/24", "--interface", "lan0"];
    cluster.host("n1").ctl_ok(&add)?;
    Ok(cluster)
}

fn second_cable(cluster: &Cluster, host: &str) -> Result<()> {
    let (lab, port) = (&cluster.lab, format!("l{host}"));
    let inside = lab.namespace(host);
    let cable = ["link", "add", &port, "type", "veth", "peer", "name", "lan0", "netns", &inside];
    lab.ip("sw", &cable)?;
    lab.ip("sw", &["link", "set", &port, "master", "br0", "up"])?;
    lab.ip(host, &["link", "set", "lan0", "up"]).map(|_| ())
}

#[test]
fn a_move_to_a_node_that_cannot_hold_the_vip_is_refused_and_costs_nothing() -> Result<()> {
    let cluster = on_an_interface_of_two()?;
    let n1 = cluster.host("n1");
    let before = n1.ctl_json(&["vip", "show", "web"])?;
    let probe = Probe::start(&cluster.lab, VIP)?;
    wait_for("what hinders n3", SOON, || {
        let status = n1.ctl_ok(&["status"]).ok()?;
        status.contains("VIP web cannot be on n3: no interface lan0").then_some(())
    })?;
    let begun = Instant::now();
    let refused = cluster.host("n2").ctl(&["vip", "move", "web", "--to", "n3"])?;
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    for said in ["node n3 cannot hold a VIP", "no interface lan0", "Nothing was changed"] {
        assert!(refused.stderr.contains(said), "{said}: {refused:?}");
    }
    let after = n1.ctl_json(&["vip", "show", "web"])?;
    for field in ["holder", "epoch", "pinned", "answers"] {
        assert_eq!(after[field], before[field], "{field}");
    }
    // Nor is it given to n3 when its holder goes.
    n1.ctl_ok(&["node", "drain", "n1"])?;
    std::thread::sleep(SOME_REPLIES);
    let trace = probe.finish()?;
    // What came by lan0 is answered by eth0, whose network it is.
    assert_eq!(cluster.holders(&trace)?, ["n1", "n2"]);
    assert_eq!(trace.outages(OUTAGE), []);
    Ok(())
}

/// The interface appears: the node can hold it, without being asked to try.
#[test]
fn a_node_that_can_hold_a_vip_now_says_so_by_itself() -> Result<()> {
    let cluster = on_an_interface_of_two()?;
    let n1 = cluster.host("n1");
    wait_for("what hinders n3", SOON, || {
        n1.ctl_ok(&["status"]).ok()?.contains("cannot be on n3").then_some(())
    })?;
    second_cable(&cluster, "n3")?;
    wait_for("nothing to hinder n3", SOON, || {
        (!n1.ctl_ok(&["status"]).ok()?.contains("cannot be on n3")).then_some(())
    })?;
    n1.ctl_ok(&["vip", "move", "web", "--to", "n3"])?;
    let lan0 = cluster.lab.ip("n3", &["address", "show", "dev", "lan0"])?;
    assert!(lan0.contains("10.77.0.100/32"), "{lan0}");
    Ok(())
}

/// What no node can hold is said at once, in words, and not left behind.
#[test]
fn a_vip_that_no_node_can_hold_is_refused_at_once() -> Result<()> {
    let cluster = Cluster::formed(&Options::default())?;
    let n1 = cluster.host("n1");
    let add = ["vip", "add", "web", "--address", "10.77.0.100/24", "--interface", "nosuch0"];
    let begun = Instant::now();
    let refused = n1.ctl(&add)?;
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    for said in ["on n1, n2, n3: no interface nosuch0", "Nothing was left behind"] {
        assert!(refused.stderr.contains(said), "{said}: {refused:?}");
    }
    assert_eq!(n1.ctl_json(&["vip", "list"])?.as_array().map(Vec::len), Some(0));
    n1.ctl_ok(&[&add[..], &["--no-wait"]].concat())?;
    wait_for("it to be said in the status", SOON, || {
        let status = cluster.host("n3").ctl_ok(&["status"]).ok()?;
        status.contains("VIP web cannot be on n2: no interface nosuch0").then_some(())
    })?;
    Ok(())
}

/// A removal meets a move in every stage of it, and ends well.
#[test]
fn a_removal_during_a_move_is_done_in_time_and_leaves_nothing() -> Result<()> {
    let cluster = Cluster::formed(&Options::default())?;
    let mut worst = Duration::ZERO;
    for round in 0..24_u64 {
        let to = format!("n{}", round % 3 + 1);
        cluster.host("n1").ctl_ok(&["vip", "add", "race", "--address", "10.77.0.77/24"])?;
        let took = std::thread::scope(|scope| -> Result<Duration> {
            let moved =
                scope.spawn(|| cluster.host("n1").ctl(&["vip", "move", "race", "--to", &to]));
            std::thread::sleep(Duration::from_millis(round % 8 * 6));
            let begun = Instant::now();
            cluster.host("n2").ctl_ok(&["--timeout", "6s", "vip", "remove", "race"])?;
            moved.join().expect("no panic")?;
            Ok(begun.elapsed())
        })?;
        worst = worst.max(took);
    }
    println!("removed within {worst:?}");
    for host in &cluster.hosts {
        wait_for("an empty list", SOON, || {
            let list = host.ctl_json(&["vip", "list"]).ok()?;
            list.as_array()?.is_empty().then_some(())
        })?;
        assert!(!cluster.lab.has_address(&host.name, "10.77.0.77")?, "{} has it", host.name);
    }
    Ok(())
}

/// Without a guard a node holds nothing: every view says so, and a command that
/// needs it says so in seconds.
#[test]
fn a_node_without_a_guard_is_named_and_refused() -> Result<()> {
    let cluster = Cluster::formed(&Options::default())?;
    let n1 = cluster.host("n1");
    n1.ctl_ok(&["vip", "add", "web", "--address", "10.77.0.100/24"])?;
    // It is there, and connects nobody.
    cluster.host("n3").signal(&[Process::Guard], Signal::SIGSTOP)?;
    wait_for("n3 to be said to be unfit", SOON, || {
        let nodes = n1.ctl_ok(&["node", "list"]).ok()?;
        nodes.contains("n3 can hold no VIP: its guard is not there").then_some(())
    })?;
    let status = cluster.host("n2").ctl_ok(&["status"])?;
    assert!(status.starts_with("TROUBLE: n3 can hold nothing; one more voter"), "{status}");
    let begun = Instant::now();
    let refused = n1.ctl(&["vip", "move", "web", "--to", "n3"])?;
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.stderr.contains("its guard is not there"), "{refused:?}");
    assert!(begun.elapsed() < Duration::from_secs(6), "{:?}", begun.elapsed());
    assert!(n1.ctl_json(&["vip", "show", "web"])?["pinned"].is_null());
    cluster.host("n3").signal(&[Process::Guard], Signal::SIGCONT)?;
    wait_for("n3 to be fit", SOON, || {
        n1.ctl_ok(&["status"]).ok()?.starts_with("all well").then_some(())
    })?;
    n1.ctl_ok(&["vip", "move", "web", "--to", "n3"]).map(|_| ())
}

fn set(cluster: &Cluster, arguments: &[&str]) -> Result<()> {
    cluster.host("n2").ctl_ok(&[&["vip", "set", "web"], arguments].concat()).map(|_| ())
}

/// What comes is there when the command answers; what it had never fell silent.
#[test]
fn a_vip_is_given_an_address_while_it_answers() -> Result<()> {
    let cluster = Cluster::formed(&Options::default())?;
    let n1 = cluster.host("n1");
    n1.ctl_ok(&["vip", "add", "web", "--address", "10.77.0.100/24", "--placement", "sticky"])?;
    let before = n1.ctl_json(&["vip", "show", "web"])?;
    let holder = before["holder"].as_str().unwrap_or_default().to_owned();
    let probe = Probe::start(&cluster.lab, VIP)?;
    set(&cluster, &["--address", "10.77.0.100/24", "--address", "10.77.0.101/24"])?;
    assert!(cluster.lab.has_address(&holder, "10.77.0.101")?);
    let asked = cluster.lab.exec("client", "ping", &["-c1", "-W1", "10.77.0.101"])?;
    assert_eq!(asked.code, Some(0), "{asked:?}");
    let after = n1.ctl_json(&["vip", "show", "web"])?;
    assert_eq!((&after["holder"], &after["epoch"]), (&before["holder"], &before["epoch"]));
    assert_eq!(n1.ctl_json(&["vip", "list"])?.as_array().map(Vec::len), Some(1));
    // Its placement, and nothing else.
    set(&cluster, &["--placement", "leader"])?;
    std::thread::sleep(SOME_REPLIES);
    let trace = probe.finish()?;
    assert_eq!(cluster.holders(&trace)?, [holder.as_str()]);
    assert_eq!(trace.outages(Duration::from_millis(50)), []);
    // Both move together.
    let to = if holder == "n3" { "n2" } else { "n3" };
    n1.ctl_ok(&["vip", "move", "web", "--to", to])?;
    for address in ["10.77.0.100", "10.77.0.101"] {
        assert!(cluster.lab.has_address(to, address)?, "{address} on {to}");
        assert!(!cluster.lab.has_address(&holder, address)?, "{address} on {holder}");
    }
    Ok(())
}

/// Somebody has it, or a member lives there: nothing is changed, nothing left.
#[test]
fn an_address_that_cannot_come_changes_nothing() -> Result<()> {
    let cluster = Cluster::formed(&Options::default())?;
    let n1 = cluster.host("n1");
    n1.ctl_ok(&["vip", "add", "web", "--address", "10.77.0.100/24"])?;
    n1.ctl_ok(&["vip", "add", "db", "--address", "10.77.0.102/24"])?;
    let before = n1.ctl_json(&["vip", "show", "web"])?;
    let probe = Probe::start(&cluster.lab, VIP)?;
    for (address, words) in [
        ("10.77.0.250/24", "another host has 10.77.0.250"),
        ("10.77.0.102/24", "10.77.0.102 belongs to VIP db"),
        ("10.77.0.2/24", "10.77.0.2 is the address of node n2"),
        ("10.99.9.9/24", "no interface has a subnet with 10.99.9.9"),
    ] {
        let both = ["vip", "set", "web", "--address", "10.77.0.100/24", "--address", address];
        let refused = cluster.host("n3").ctl(&both)?;
        assert!(refused.code.is_some_and(|code| (1..3).contains(&code)), "{refused:?}");
        assert!(refused.stderr.contains(words), "{words}: {refused:?}");
        let after = n1.ctl_json(&["vip", "show", "web"])?;
        for field in ["addresses", "holder", "epoch", "answers", "hindered"] {
            assert_eq!(after[field], before[field], "{field} after {address}");
        }
        assert_eq!(n1.ctl_json(&["vip", "list"])?.as_array().map(Vec::len), Some(2));
    }
    assert_eq!(n1.ctl(&["vip", "set", "web"])?.code, Some(2), "nothing to set");
    std::thread::sleep(SOME_REPLIES);
    assert_eq!(probe.finish()?.outages(Duration::from_millis(50)), []);
    Ok(())
}

/// What goes is gone when the command answers, and somebody else's from then on.
#[test]
fn a_vip_gives_an_address_up_and_another_takes_it() -> Result<()> {
    let cluster = Cluster::formed(&Options::default())?;
    let n1 = cluster.host("n1");
    let both = ["--address", "10.77.0.100/24", "--address", "10.77.0.101/24"];
    n1.ctl_ok(&[&["vip", "add", "web"], &both[..]].concat())?;
    let holder = n1.ctl_json(&["vip", "show", "web"])?["holder"].as_str().map(str::to_owned);
    let holder = holder.unwrap_or_default();
    let probe = Probe::start(&cluster.lab, VIP)?;
    std::thread::sleep(SOME_REPLIES);
    set(&cluster, &["--address", "10.77.0.100/24"])?;
    assert!(!cluster.lab.has_address(&holder, "10.77.0.101")?);
    std::thread::sleep(SOME_REPLIES);
    let trace = probe.finish()?;
    assert_eq!(cluster.holders(&trace)?, [holder.as_str()]);
    println!("silent while another went: {:?}", trace.outages(Duration::from_millis(3)));
    assert_eq!(trace.outages(OUTAGE), []);
    n1.ctl_ok(&["vip", "add", "next", "--address", "10.77.0.101/24"])?;
    // And the other way round, by one command.
    n1.ctl_ok(&["vip", "remove", "next"])?;
    set(&cluster, &["--address", "10.77.0.101/24"])?;
    assert!(!cluster.lab.has_address(&holder, "10.77.0.100")?);
    assert!(cluster.lab.has_address(&holder, "10.77.0.101")?);
    Ok(())
}

/// To another interface and back.
#[test]
fn a_vip_changes_its_interface_where_it_is() -> Result<()> {
    let cluster = Cluster::formed(&Options::default())?;
    for host in ["n1", "n2", "n3"] {
        second_cable(&cluster, host)?;
    }
    let n1 = cluster.host("n1");
    n1.ctl_ok(&["vip", "add", "web", "--address", "10.77.0.100/24"])?;
    let holder = n1.ctl_json(&["vip", "show", "web"])?["holder"].as_str().map(str::to_owned);
    let holder = holder.unwrap_or_default();
    let on = |device: &str| cluster.lab.ip(&holder, &["-br", "address", "show", "dev", device]);
    set(&cluster, &["--interface", "lan0"])?;
    assert!(on("lan0")?.contains("10.77.0.100/32"), "{}", on("lan0")?);
    assert!(!on("eth0")?.contains("10.77.0.100"), "{}", on("eth0")?);
    let before = n1.ctl_json(&["vip", "show", "web"])?;
    let refused = n1.ctl(&["vip", "set", "web", "--interface", "nosuch0"])?;
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.stderr.contains("VIP web is as it was"), "{refused:?}");
    let after = n1.ctl_json(&["vip", "show", "web"])?;
    for field in ["interface", "epoch", "holder", "answers"] {
        assert_eq!(after[field], before[field], "{field}");
    }
    set(&cluster, &["--interface", ""])?;
    assert!(on("eth0")?.contains("10.77.0.100/32"), "{}", on("eth0")?);
    Ok(())
}

/// Asked when it returns, not when it is over: where its placement wants it.
#[test]
fn a_move_by_placement_answers_when_it_is_there_and_every_move_has_an_author() -> Result<()> {
    let cluster = Cluster::formed(&Options::default())?;
    let n1 = cluster.host("n1");
    n1.ctl_ok(&["vip", "add", "web", "--address", "10.77.0.100/24"])?;
    n1.ctl_ok(&["vip", "move", "web", "--to", "n2"])?;
    let told = cluster.host("n3").ctl_ok(&["vip", "move", "web", "--auto"])?;
    let leader = cluster.status("n1")?.leader.unwrap_or_default();
    assert!(told.contains(&format!("VIP web answers on {leader}")), "{told}");
    let events = n1.ctl_ok(&["events"])?;
    for words in ["VIP web is to stay on n2  [root@n1", "where its placement wants it  [root@n3"] {
        assert!(events.contains(words), "{words}: {events}");
    }
    Ok(())
}

/// Done or undone, and nothing left in between, whoever is lost meanwhile.
#[test]
fn a_change_whose_leader_is_lost_leaves_no_guest() -> Result<()> {
    for after_ms in [20, 60, 100] {
        let mut cluster = Cluster::formed(&Options::default())?;
        cluster.host("n1").ctl_ok(&["vip", "add", "web", "--address", "10.77.0.100/24"])?;
        let control = cluster.host("n2").control();
        let both = ["--address", "10.77.0.100/24", "--address", "10.77.0.101/24"];
        let set = [&["--timeout", "5s", "vip", "set", "web"], &both[..]].concat();
        std::thread::scope(|scope| -> Result<()> {
            let changed = scope.spawn(|| control.ctl(&set));
            std::thread::sleep(Duration::from_millis(after_ms));
            let leader = cluster.status("n2")?.leader.unwrap_or_else(|| "n1".into());
            cluster.host_mut(&leader).kill_all();
            changed.join().expect("no panic").map(|_| ())
        })?;
        let host = cluster.hosts.iter_mut().find_map(|host| host.runs().then_some(&*host));
        let host = host.context("a host that runs")?;
        wait_for("a VIP with one set of addresses, and no guest", SOON, || {
            let list = host.ctl_json(&["vip", "list"]).ok()?;
            let [web] = list.as_array()?.as_slice() else { return None };
            let addresses = web["addresses"].as_array()?.len();
            let done = web["answers"].as_bool()? && (1..3).contains(&addresses);
            done.then(|| println!("after {after_ms} ms: {addresses} addresses"))
        })?;
    }
    Ok(())
}
