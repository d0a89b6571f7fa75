//! Virtual servers with real traffic: who gets a connection, and what it lives through.

use anyhow::{Context, Result};
use chaos_tests::{Cluster, Connections, Flows, Options, Process, RealServer, wait_for};
use nix::sys::signal::Signal;
use std::net::SocketAddr;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(20);
const CONNECTIONS: usize = 200;
const FLOWS: usize = 40;

fn at(text: &str) -> SocketAddr {
    text.parse().expect("an address and a port")
}

/// A host beside the nodes that takes what is for the VIP, and does not say so on the
/// network.
fn by_dr(cluster: &mut Cluster, name: &str, last: u8) -> Result<RealServer> {
    let lab = &mut cluster.lab;
    lab.add_host(name, last)?;
    let quiet = ["-w", "net.ipv4.conf.all.arp_ignore=1", "net.ipv4.conf.all.arp_announce=2"];
    lab.exec(name, "sysctl", &quiet)?.ok()?;
    lab.ip(name, &["address", "add", "10.77.0.100/32", "dev", "lo"])?;
    lab.ip(name, &["address", "add", "fd77::100/128", "dev", "lo", "nodad"])?;
    RealServer::start(lab, name, at("10.77.0.100:80"))
}

/// A host behind the nodes, in a network of its own, whose way out is a VIP there.
fn by_nat(cluster: &mut Cluster, name: &str, last: u8) -> Result<RealServer> {
    let lab = &mut cluster.lab;
    lab.add_bare_host(name)?;
    let (inside, port) = (lab.namespace(name), format!("b{name}"));
    let cable = ["link", "add", &port, "type", "veth", "peer", "name", "eth0", "netns", &inside];
    lab.ip("sw", &cable)?;
    lab.ip("sw", &["link", "set", &port, "master", "back", "up"])?;
    lab.ip(name, &["link", "set", "eth0", "up"])?;
    let address = format!("10.78.0.{last}/24");
    lab.ip(name, &["address", "add", &address, "dev", "eth0"])?;
    lab.ip(name, &["route", "add", "default", "via", "10.78.0.100"])?;
    RealServer::start(lab, name, at("0.0.0.0:8080"))
}

fn holder(cluster: &Cluster, from: &str) -> Result<String> {
    let vip = cluster.host(from).ctl_json(&["vip", "show", "web"])?;
    Ok(vip["holder"].as_str().context("nobody holds it")?.to_owned())
}

fn another_than(holder: &str) -> &'static str {
    ["n1", "n2", "n3"].into_iter().find(|name| *name != holder).expect("one of three")
}

fn does_not_forward_itself(cluster: &Cluster) -> Result<()> {
    for node in ["n1", "n2", "n3"] {
        let forwards = cluster.lab.exec(node, "sysctl", &["-n", "net.ipv4.ip_forward"])?.ok()?;
        assert_eq!(forwards.trim(), "0", "{node} would route by itself");
    }
    Ok(())
}

/// What every forwarding method has to live through, with connections and flows that are
/// there before.
fn lives_through(cluster: &mut Cluster, to: SocketAddr, (one, fourth): (&str, &str)) -> Result<()> {
    let open = |cluster: &Cluster, count| Connections::open(&cluster.lab, "client", to, count);
    let mut connections = open(cluster, CONNECTIONS)?;
    let flows = Flows::open(&cluster.lab, "client", to, FLOWS)?;
    let each = connections.of_each();
    assert!(each.len() == 3 && each.values().all(|count| *count > 20), "{each:?}");

    let first = holder(cluster, "n1")?;
    let second = another_than(&first);
    for vip in ["web", "inside"] {
        if cluster.host("n1").ctl(&["vip", "show", vip])?.code == Some(0) {
            cluster.host("n1").ctl_ok(&["vip", "move", vip, "--to", second])?;
        }
    }
    assert_eq!((connections.lost(), flows.lost()), (0, 0), "by a planned move");

    let n1 = cluster.host("n1");
    n1.ctl_ok(&["real", "add", "front", fourth])?;
    n1.ctl_ok(&["real", "add", "names", fourth])?;
    assert_eq!((connections.lost(), flows.lost()), (0, 0), "by a real server more");
    let mut younger = open(cluster, CONNECTIONS)?;
    assert_eq!(younger.of_each().len(), 4, "the new one gets its share");

    n1.ctl_ok(&["real", "drain", "front", one])?;
    assert_eq!((connections.lost(), younger.lost()), (0, 0), "by a drain");
    let youngest = open(cluster, CONNECTIONS)?.of_each();
    assert!(youngest.len() == 3 && !youngest.contains_key("r1"), "{youngest:?}");

    // The holder loses its power.
    let old = holder(cluster, "n1")?;
    let watcher = another_than(&old).to_owned();
    cluster.host_mut(&old).kill_all();
    cluster.lab.isolate(&old)?;
    cluster.wait_for_takeover(&watcher, &old)?;
    assert_eq!(connections.lost(), 0, "those from before any change, by a power failure");
    assert_eq!(flows.lost(), 0, "by a power failure");
    let after = open(cluster, CONNECTIONS)?.of_each();
    assert!(after.keys().eq(youngest.keys()), "{after:?} and {youngest:?}");

    let gone = connections.end_those_of("r1");
    assert!(gone > 0);
    cluster.host(&watcher).ctl_ok(&["real", "remove", "front", one])?;
    assert_eq!(connections.lost(), 0, "of others, by a removal");
    Ok(())
}

#[test]
fn connections_by_direct_routing_live_through_moves_changes_and_a_power_failure() -> Result<()> {
    let mut cluster = Cluster::formed(&Options::default())?;
    does_not_forward_itself(&cluster)?;
    let mut servers = vec![];
    for (name, last) in [("r1", 11), ("r2", 12), ("r3", 13), ("r4", 14)] {
        servers.push(by_dr(&mut cluster, name, last)?);
    }
    let n1 = cluster.host("n1");
    let addresses = ["--address", "10.77.0.100/24", "--placement", "sticky"];
    n1.ctl_ok(&[&["vip", "add", "web"], &addresses[..]].concat())?;
    let reals = ["--real", "10.77.0.11", "--real", "10.77.0.12", "--real", "10.77.0.13"];
    let add = ["--vip", "web", "--port", "80"];
    let said = n1.ctl_ok(&[&["vs", "add", "front"], &add[..], &reals].concat())?;
    assert!(said.contains("by dr to 3 real servers"), "{said}");
    assert!(said.contains("ip address add 10.77.0.100/32 dev lo"), "{said}");
    n1.ctl_ok(&[&["vs", "add", "names", "--protocol", "udp"], &add[..], &reals].concat())?;
    lives_through(&mut cluster, at("10.77.0.100:80"), ("10.77.0.11", "10.77.0.14"))
}

#[test]
fn connections_by_nat_live_through_moves_changes_and_a_power_failure() -> Result<()> {
    let mut cluster = Cluster::formed(&Options::default())?;
    does_not_forward_itself(&cluster)?;
    cluster.lab.ip("sw", &["link", "add", "back", "type", "bridge", "mcast_snooping", "0"])?;
    cluster.lab.ip("sw", &["link", "set", "back", "up"])?;
    for (node, last) in [("n1", 1), ("n2", 2), ("n3", 3)] {
        let (lab, port) = (&cluster.lab, format!("b{node}"));
        let inside = lab.namespace(node);
        let cable =
            ["link", "add", &port, "type", "veth", "peer", "name", "eth1", "netns", &inside];
        lab.ip("sw", &cable)?;
        lab.ip("sw", &["link", "set", &port, "master", "back", "up"])?;
        lab.ip(node, &["link", "set", "eth1", "up"])?;
        lab.ip(node, &["address", "add", &format!("10.78.0.{last}/24"), "dev", "eth1"])?;
    }
    let mut servers = vec![];
    for (name, last) in [("r1", 11), ("r2", 12), ("r3", 13), ("r4", 14)] {
        servers.push(by_nat(&mut cluster, name, last)?);
    }
    let n1 = cluster.host("n1");
    n1.ctl_ok(&["vip", "add", "web", "--address", "10.77.0.100/24"])?;
    n1.ctl_ok(&["vip", "add", "inside", "--address", "10.78.0.100/24"])?;
    let reals = ["10.78.0.11:8080", "10.78.0.12:8080", "10.78.0.13:8080"];
    let reals = reals.map(|real| ["--real", real]).concat();
    let add = ["--vip", "web", "--port", "80"];
    let said = n1.ctl_ok(&[&["vs", "add", "front"], &add[..], &reals].concat())?;
    assert!(said.contains("by nat to 3 real servers"), "{said}");
    n1.ctl_ok(&[&["vs", "add", "names", "--protocol", "udp"], &add[..], &reals].concat())?;
    lives_through(&mut cluster, at("10.77.0.100:80"), ("10.78.0.11:8080", "10.78.0.14:8080"))
}

/// Whoever is killed on the holder: what the kernel forwards by outlives the agent, and a
/// guard that is started anew has it before a VIP is opened.
#[test]
fn connections_live_through_the_end_of_agent_and_guard() -> Result<()> {
    let mut cluster = Cluster::formed(&Options::default())?;
    let mut servers = vec![];
    for (name, last) in [("r1", 11), ("r2", 12)] {
        servers.push(by_dr(&mut cluster, name, last)?);
    }
    let n1 = cluster.host("n1");
    n1.ctl_ok(&["vip", "add", "web", "--address", "10.77.0.100/24"])?;
    let reals = ["--real", "10.77.0.11", "--real", "10.77.0.12"];
    n1.ctl_ok(&[&["vs", "add", "front", "--vip", "web", "--port", "80"], &reals[..]].concat())?;
    let to = at("10.77.0.100:80");
    let mut connections = Connections::open(&cluster.lab, "client", to, CONNECTIONS)?;
    for processes in [
        &[Process::Agent][..],
        &[Process::Guard],
        &[Process::Agent, Process::Guard],
        &[Process::Guard, Process::Agent],
    ] {
        for round in 0..3 {
            let victim = cluster.host(&holder(&cluster, "n1")?);
            let old: Vec<_> = processes.iter().filter_map(|one| victim.find(*one)).collect();
            victim.signal(processes, Signal::SIGKILL)?;
            // It is spoken all the while: what a host answers for itself ends a connection.
            assert_eq!(connections.lost(), 0, "{processes:?}, round {round}");
            for (process, old) in processes.iter().zip(old) {
                victim.wait_for_process(*process, old)?;
            }
            assert_eq!(connections.lost(), 0, "{processes:?}, round {round}");
            wait_for("somebody answers", SOON, || {
                let vip = n1.ctl_json(&["vip", "show", "web"]).ok()?;
                (vip["answers"] == true).then_some(())
            })?;
            assert_eq!(connections.lost(), 0, "{processes:?}, round {round}");
        }
    }
    Connections::open(&cluster.lab, "client", to, 10).map(|_| ())
}

/// One node, so that the VIP is opened by the very guard that has all to learn first.
#[test]
fn a_new_guard_has_every_table_before_it_opens_a_vip() -> Result<()> {
    let mut cluster = Cluster::formed(&Options { nodes: 1, ..Options::default() })?;
    let _server = by_dr(&mut cluster, "r1", 11)?;
    let n1 = cluster.host("n1");
    n1.ctl_ok(&["vip", "add", "web", "--address", "10.77.0.100/24"])?;
    let add = |name: &str, port: u16| {
        let port = port.to_string();
        let add = ["vs", "add", name, "--vip", "web", "--port", &port, "--real", "10.77.0.11"];
        n1.ctl_ok(&add)
    };
    for number in 0..150 {
        add(&format!("other{number}"), 2000 + number)?;
    }
    add("front", 80)?;
    let to = at("10.77.0.100:80");
    let mut connections = Connections::open(&cluster.lab, "client", to, CONNECTIONS)?;
    for round in 0..5 {
        let old = n1.find(Process::Guard).context("no guard")?;
        n1.signal(&[Process::Guard], Signal::SIGKILL)?;
        assert_eq!(connections.lost(), 0, "round {round}");
        n1.wait_for_process(Process::Guard, old)?;
        wait_for("it answers", SOON, || {
            let vip = n1.ctl_json(&["vip", "show", "web"]).ok()?;
            (vip["answers"] == true).then_some(())
        })?;
        assert_eq!(connections.lost(), 0, "round {round}");
    }
    Ok(())
}

#[test]
fn a_member_is_no_real_server_yet() -> Result<()> {
    let cluster = Cluster::formed(&Options::default())?;
    let n1 = cluster.host("n1");
    n1.ctl_ok(&["vip", "add", "web", "--address", "10.77.0.100/24"])?;
    let add = ["vs", "add", "front", "--vip", "web", "--port", "80"];
    for (more, said) in [
        (["--real", "10.77.0.2"], "n2 is a member of this cluster"),
        (["--real-nodes", "80"], "every node is a member of this cluster"),
    ] {
        let refused = n1.ctl(&[&add[..], &more].concat())?;
        assert_eq!(refused.code, Some(1), "{refused:?}");
        assert!(refused.stderr.contains(said), "{refused:?}");
    }
    assert_eq!(n1.ctl_json(&["vs", "list"])?, serde_json::json!([]));
    Ok(())
}

/// The same on every node, and what each of them has.
#[test]
fn a_virtual_server_looks_the_same_from_every_node() -> Result<()> {
    let mut cluster = Cluster::formed(&Options::default())?;
    let _server = by_dr(&mut cluster, "r1", 11)?;
    let n1 = cluster.host("n1");
    n1.ctl_ok(&["vip", "add", "web", "--address", "10.77.0.100/24"])?;
    let add = ["vs", "add", "front", "--vip", "web", "--port", "80", "--real", "10.77.0.11"];
    cluster.host("n2").ctl_ok(&add)?;
    cluster.host("n3").ctl_ok(&add)?;
    let mut connections = Connections::open(&cluster.lab, "client", at("10.77.0.100:80"), 7)?;
    assert_eq!(connections.lost(), 0);
    let list = n1.ctl_json(&["vs", "list"])?;
    assert_eq!(list[0]["forward"], "dr");
    for node in ["n2", "n3"] {
        assert_eq!(cluster.host(node).ctl_json(&["vs", "list"])?, list, "{node}");
    }
    wait_for("every node has its table", SOON, || {
        let shown = n1.ctl_json(&["vs", "show", "front"]).ok()?;
        let nodes = shown["on_nodes"].as_array()?;
        let all = nodes.len() == 3 && nodes.iter().all(|node| node["state"] == "in-force");
        all.then_some(())
    })?;
    let shown = n1.ctl_json(&["vs", "show", "front"])?;
    assert_eq!(shown["reals"][0]["connections"], 7, "{shown}");
    assert!(shown["reals"][0]["packets"].as_u64() >= Some(28), "{shown}");
    for node in ["n2", "n3"] {
        assert_eq!(cluster.host(node).ctl_json(&["vs", "show", "front"])?, shown, "{node}");
    }
    // Removed, its packets are the holder's own, who does not listen there.
    cluster.host("n2").ctl_ok(&["vs", "remove", "front"])?;
    assert!(connections.lost() > 0);
    assert_eq!(n1.ctl_json(&["vs", "list"])?, serde_json::json!([]));
    Ok(())
}

#[test]
fn what_root_does_not_allow_on_the_holder_is_refused_and_leaves_nothing() -> Result<()> {
    let settings = vec!["guard.allow_real=[\"10.77.0.12/32\"]".to_owned()];
    let cluster = Cluster::formed(&Options { settings, ..Options::default() })?;
    let n1 = cluster.host("n1");
    n1.ctl_ok(&["vip", "add", "web", "--address", "10.77.0.100/24"])?;
    let add = ["vs", "add", "front", "--vip", "web", "--port", "80", "--real"];
    let refused = n1.ctl(&[&add[..], &["10.77.0.11"]].concat())?;
    assert_eq!(refused.code, Some(1), "{refused:?}");
    for said in ["does not forward front", "10.77.0.11 is not in allow_real", "Nothing was left"] {
        assert!(refused.stderr.contains(said), "{said}: {refused:?}");
    }
    assert_eq!(n1.ctl_json(&["vs", "list"])?, serde_json::json!([]));
    n1.ctl_ok(&[&add[..], &["10.77.0.12"]].concat())?;
    Ok(())
}
