//! Virtual servers with real traffic: who gets a connection, and what it lives through.

use anyhow::{Context, Result};
use chaos_tests::{
    Cluster, Connections, Flows, Net, Options, Probe, Process, RealServer, Stream, Streams, V4, V6,
    wait_for,
};
use nix::sys::signal::Signal;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(20);
const CONNECTIONS: usize = 200;
const FLOWS: usize = 40;
const IDLE: usize = 40;
const PUSHED: usize = 40;
const BULK: usize = 8;

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
/// there before; `one` of three real servers is drained, and goes at the end.
fn lives_through(cluster: &mut Cluster, to: SocketAddr, (one, fourth): (&str, &str)) -> Result<()> {
    let open = |cluster: &Cluster, count| Connections::open(&cluster.lab, "client", to, count);
    let mut connections = open(cluster, CONNECTIONS)?;
    let mut idle = open(cluster, IDLE)?;
    let pushed = Streams::open(&cluster.lab, "client", to, (Stream::Push, PUSHED))?;
    let bulk = Streams::open(&cluster.lab, "client", to, (Stream::Bulk, BULK))?;
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
    assert_eq!((pushed.lost(), bulk.lost()), (0, 0), "on which servers speak");
    assert_eq!((idle.lost(), flows.lost()), (0, 0), "that were idle, and datagrams");
    let after = open(cluster, CONNECTIONS)?.of_each();
    assert!(after.keys().eq(youngest.keys()), "{after:?} and {youngest:?}");

    let gone = connections.end_those_of("r1");
    assert!(gone > 0);
    cluster.host(&watcher).ctl_ok(&["real", "remove", "front", one])?;
    assert_eq!(connections.lost(), 0, "of others, by a removal");
    Ok(())
}

fn connections_by_dr(net: &Net) -> Result<()> {
    let mut cluster = Cluster::formed(&Options::default())?;
    does_not_forward_itself(&cluster)?;
    let mut servers = vec![];
    for (name, last) in [("r1", 11), ("r2", 12), ("r3", 13), ("r4", 14)] {
        servers.push(net.by_dr(&mut cluster.lab, name, last)?);
    }
    let n1 = cluster.host("n1");
    let address = format!("{}/{}", net.vip(), net.length);
    n1.ctl_ok(&["vip", "add", "web", "--address", &address, "--placement", "sticky"])?;
    let reals = [11, 12, 13].map(|last| net.at(last));
    let reals: Vec<_> = reals.iter().flat_map(|real| ["--real", real]).collect();
    let add = ["--vip", "web", "--port", "80"];
    let said = n1.ctl_ok(&[&["vs", "add", "front"], &add[..], &reals].concat())?;
    assert!(said.contains("by dr to 3 real servers"), "{said}");
    let setup = format!("address add {}/{} dev lo", net.vip(), net.alone);
    assert!(said.contains(&setup), "{said}");
    n1.ctl_ok(&[&["vs", "add", "names", "--protocol", "udp"], &add[..], &reals].concat())?;
    let (one, fourth) = (net.at(11), net.at(14));
    lives_through(&mut cluster, net.target(), (&one, &fourth))
}

fn connections_by_nat(net: &Net) -> Result<()> {
    let mut cluster = Cluster::formed(&Options::default())?;
    does_not_forward_itself(&cluster)?;
    net.behind(&cluster.lab)?;
    let mut servers = vec![];
    for (name, last) in [("r1", 11), ("r2", 12), ("r3", 13), ("r4", 14)] {
        servers.push(net.by_nat(&mut cluster.lab, name, last)?);
    }
    let n1 = cluster.host("n1");
    let addresses = [net.vip(), format!("{}100", net.back)];
    let addresses = addresses.map(|ip| format!("{ip}/{}", net.length));
    n1.ctl_ok(&["vip", "add", "web", "--address", &addresses[0]])?;
    n1.ctl_ok(&["vip", "add", "inside", "--address", &addresses[1]])?;
    let place = |last: u8| net.place(last).to_string();
    let reals = [11, 12, 13].map(place);
    let reals: Vec<_> = reals.iter().flat_map(|real| ["--real", real]).collect();
    let add = ["--vip", "web", "--port", "80"];
    let said = n1.ctl_ok(&[&["vs", "add", "front"], &add[..], &reals].concat())?;
    assert!(said.contains("by nat to 3 real servers"), "{said}");
    n1.ctl_ok(&[&["vs", "add", "names", "--protocol", "udp"], &add[..], &reals].concat())?;
    lives_through(&mut cluster, net.target(), (&place(11), &place(14)))
}

#[test]
fn connections_by_direct_routing_live_on() -> Result<()> {
    connections_by_dr(&V4)
}

#[test]
fn connections_by_direct_routing_live_on_by_ipv6() -> Result<()> {
    connections_by_dr(&V6)
}

#[test]
fn connections_by_nat_live_on() -> Result<()> {
    connections_by_nat(&V4)
}

#[test]
fn connections_by_nat_live_on_by_ipv6() -> Result<()> {
    connections_by_nat(&V6)
}

/// Whoever is killed on the holder: what the kernel forwards by outlives the agent, and a
/// guard that is started anew has it before a VIP is opened.
#[test]
fn connections_live_through_the_end_of_agent_and_guard() -> Result<()> {
    let mut cluster = Cluster::formed(&Options::default())?;
    let _servers = V4.front(&mut cluster)?;
    let (n1, to) = (cluster.host("n1"), V4.target());
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
    let _server = V4.by_dr(&mut cluster.lab, "r1", 11)?;
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
    let to = V4.target();
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

/// As on a control plane: every node is a real server, the holder too. None but the holder
/// answers whoever asks it directly, and connections stay where they are.
#[test]
fn members_are_real_servers_and_one_of_them_holds() -> Result<()> {
    let mut cluster = Cluster::formed(&Options::default())?;
    let n1 = cluster.host("n1");
    let mut servers = vec![];
    for name in ["n1", "n2", "n3"] {
        servers.push(RealServer::start(&cluster.lab, name, V4.any())?);
    }
    n1.ctl_ok(&["vip", "add", "web", "--address", "10.77.0.100/24", "--placement", "sticky"])?;
    let add = ["vs", "add", "front", "--vip", "web", "--port", "80"];
    let refused = n1.ctl(&[&add[..], &["--real", "10.77.0.2:81"]].concat())?;
    assert!(refused.stderr.contains("the member n2"), "{refused:?}");
    let said = n1.ctl_ok(&[&add[..], &["--real-nodes", "80"]].concat())?;
    assert!(said.contains("by dr to 3 real servers") && !said.contains("dev lo"), "{said}");
    for node in ["n1", "n2", "n3"] {
        wait_for("it takes the VIP as a real server", SOON, || {
            let lo = cluster.lab.ip(node, &["address", "show", "dev", "lo"]).ok()?;
            lo.contains("10.77.0.100/32").then_some(())
        })?;
    }

    // As where the members run containers: what comes too early is not routed in circles.
    for node in ["n1", "n2", "n3"] {
        cluster.lab.exec(node, "sysctl", &["-qw", "net.ipv4.ip_forward=1"])?.ok()?;
    }
    let probe = Probe::start(&cluster.lab, Ipv4Addr::new(10, 77, 0, 100))?;
    let mut connections = Connections::open(&cluster.lab, "client", V4.target(), CONNECTIONS)?;
    let each = connections.of_each();
    assert!(each.len() == 3 && each.values().all(|count| *count > 20), "{each:?}");
    let mut holders = vec![holder(&cluster, "n1")?];
    for node in ["n2", "n3", "n1"] {
        if holders.last().map(String::as_str) != Some(node) {
            n1.ctl_ok(&["vip", "move", "web", "--to", node])?;
            holders.push(node.to_owned());
            assert_eq!(connections.lost(), 0, "to {node}");
        }
    }
    let old = holder(&cluster, "n2")?;
    cluster.host_mut(&old).kill_all();
    cluster.lab.isolate(&old)?;
    holders.push(cluster.wait_for_takeover("n2", &old)?);
    connections.end_those_of(&old);
    assert_eq!(connections.lost(), 0, "of the others, by a power failure");
    let trace = probe.finish()?;
    assert_eq!(cluster.holders(&trace)?, holders);
    Ok(())
}

/// Its gate shuts in time for all but what the next holder sends it.
#[test]
fn a_frozen_holder_falls_silent_and_is_a_real_server_all_the_while() -> Result<()> {
    let cluster = Cluster::formed(&Options::default())?;
    let n1 = cluster.host("n1");
    let mut servers = vec![];
    for name in ["n1", "n2", "n3"] {
        servers.push(RealServer::start(&cluster.lab, name, V4.any())?);
    }
    n1.ctl_ok(&["vip", "add", "web", "--address", "10.77.0.100/24", "--placement", "sticky"])?;
    let add = ["vs", "add", "front", "--vip", "web", "--port", "80", "--real-nodes", "80"];
    n1.ctl_ok(&add)?;
    let probe = Probe::start(&cluster.lab, Ipv4Addr::new(10, 77, 0, 100))?;
    let mut connections = Connections::open(&cluster.lab, "client", V4.target(), CONNECTIONS)?;
    let frozen = holder(&cluster, "n1")?;
    let watcher = another_than(&frozen);
    let all = [Process::Parent, Process::Agent, Process::Guard];
    cluster.host(&frozen).signal(&all, Signal::SIGSTOP)?;
    let next = cluster.wait_for_takeover(watcher, &frozen)?;
    assert_eq!(connections.lost(), 0, "also those at the frozen host's own server");
    assert!(connections.of_each().contains_key(&frozen));
    cluster.host(&frozen).signal(&all, Signal::SIGCONT)?;
    wait_for("it knows who holds the VIP", SOON, || {
        let vip = cluster.host(&frozen).ctl_json(&["vip", "show", "web"]).ok()?;
        (vip["holder"] == next.as_str()).then_some(())
    })?;
    assert_eq!(connections.lost(), 0, "after the thaw");
    let new = Connections::open(&cluster.lab, "client", V4.target(), CONNECTIONS)?;
    assert!(new.of_each().contains_key(&frozen), "{:?}", new.of_each());
    let trace = probe.finish()?;
    assert_eq!(cluster.holders(&trace)?, [frozen, next]);
    Ok(())
}

/// Containers on a host reach its own server by the VIP, whoever holds it.
#[test]
fn what_a_namespace_behind_a_member_sends_goes_to_that_members_server() -> Result<()> {
    let mut cluster = Cluster::formed(&Options::default())?;
    let mut servers = vec![];
    for name in ["n1", "n2", "n3"] {
        servers.push(RealServer::start(&cluster.lab, name, V4.any())?);
    }
    cluster.lab.add_bare_host("pod")?;
    let (lab, pod) = (&cluster.lab, cluster.lab.namespace("pod"));
    let cable = ["link", "add", "pod0", "type", "veth", "peer", "name", "eth0", "netns", &pod];
    lab.ip("n2", &cable)?;
    lab.ip("n2", &["link", "set", "pod0", "up"])?;
    lab.ip("n2", &["address", "add", "10.79.0.1/24", "dev", "pod0"])?;
    lab.ip("pod", &["link", "set", "eth0", "up"])?;
    lab.ip("pod", &["address", "add", "10.79.0.2/24", "dev", "eth0"])?;
    lab.ip("pod", &["route", "add", "default", "via", "10.79.0.1"])?;
    let n1 = cluster.host("n1");
    n1.ctl_ok(&["vip", "add", "web", "--address", "10.77.0.100/24"])?;
    n1.ctl_ok(&["vip", "move", "web", "--to", "n1"])?;
    let add = ["vs", "add", "front", "--vip", "web", "--port", "80", "--real-nodes", "80"];
    n1.ctl_ok(&add)?;
    wait_for("n2 takes the VIP", SOON, || {
        let lo = cluster.lab.ip("n2", &["address", "show", "dev", "lo"]).ok()?;
        lo.contains("10.77.0.100/32").then_some(())
    })?;
    let connections = Connections::open(&cluster.lab, "pod", V4.target(), 20)?;
    assert_eq!(connections.of_each(), [("n2".to_owned(), 20)].into());
    Ok(())
}

#[test]
fn members_are_real_servers_by_ipv6() -> Result<()> {
    let cluster = Cluster::formed(&Options::default())?;
    let n1 = cluster.host("n1");
    let mut servers = vec![];
    for name in ["n1", "n2", "n3"] {
        servers.push(RealServer::start(&cluster.lab, name, V6.any())?);
    }
    n1.ctl_ok(&["vip", "add", "web", "--address", "fd77::100/64", "--placement", "sticky"])?;
    let reals = ["--real", "fd77::1", "--real", "fd77::2", "--real", "fd77::3"];
    n1.ctl_ok(&[&["vs", "add", "front", "--vip", "web", "--port", "80"], &reals[..]].concat())?;
    for node in ["n1", "n2", "n3"] {
        let takes = || cluster.host(node).log().contains("a real server on this host takes it");
        wait_for("it takes the VIP", SOON, || takes().then_some(()))?;
    }
    let mut connections = Connections::open(&cluster.lab, "client", V6.target(), CONNECTIONS)?;
    assert_eq!(connections.of_each().len(), 3);
    for node in ["n2", "n3", "n1"] {
        n1.ctl_ok(&["vip", "move", "web", "--to", node])?;
        assert_eq!(connections.lost(), 0, "to {node}");
    }
    Ok(())
}

/// By any other interface than those to its containers it is a stranger who asks.
#[test]
fn a_member_that_does_not_hold_takes_nothing_from_strangers_on_other_networks() -> Result<()> {
    let mut cluster = Cluster::formed(&Options::default())?;
    let mut servers = vec![];
    for name in ["n1", "n2", "n3"] {
        servers.push(RealServer::start(&cluster.lab, name, V4.any())?);
    }
    cluster.lab.add_bare_host("far")?;
    let (lab, far) = (&cluster.lab, cluster.lab.namespace("far"));
    let cable = ["link", "add", "wire", "type", "veth", "peer", "name", "eth0", "netns", &far];
    lab.ip("n2", &cable)?;
    lab.ip("n2", &["link", "set", "wire", "up"])?;
    // One of its own that is no end of a pair.
    lab.ip("n2", &["link", "add", "own", "link", "wire", "type", "macvlan", "mode", "bridge"])?;
    for (host, interface, address) in
        [("n2", "own", "10.79.0.1/24"), ("far", "eth0", "10.79.0.2/24")]
    {
        lab.ip(host, &["link", "set", interface, "up"])?;
        lab.ip(host, &["address", "add", address, "dev", interface])?;
    }
    lab.ip("far", &["route", "add", "default", "via", "10.79.0.1"])?;
    let n1 = cluster.host("n1");
    n1.ctl_ok(&["vip", "add", "web", "--address", "10.77.0.100/24", "--placement", "sticky"])?;
    n1.ctl_ok(&["vip", "move", "web", "--to", "n1"])?;
    let add = ["vs", "add", "front", "--vip", "web", "--port", "80", "--real-nodes", "80"];
    n1.ctl_ok(&add)?;
    let takes = || cluster.host("n2").log().contains("a real server on this host takes it");
    wait_for("n2 takes the VIP", SOON, || takes().then_some(()))?;
    // The way there is well.
    Connections::open(&cluster.lab, "far", (V4.at(2).parse::<std::net::IpAddr>()?, 80).into(), 1)?;
    let refused = Connections::open(&cluster.lab, "far", V4.target(), 1);
    assert!(refused.is_err(), "{refused:?}");
    Ok(())
}

/// No more a real server, a node is as any other; and nothing is left of it.
#[test]
fn a_member_that_is_no_real_server_any_more_leaves_nothing() -> Result<()> {
    let cluster = Cluster::formed(&Options::default())?;
    let n1 = cluster.host("n1");
    n1.ctl_ok(&["vip", "add", "web", "--address", "10.77.0.100/24"])?;
    let has = |node: &str, interface: &str| -> Result<bool> {
        let shown = cluster.lab.ip(node, &["address", "show", "dev", interface])?;
        Ok(shown.contains("10.77.0.100/32"))
    };
    let until = |node: &str, wanted: bool| {
        wait_for("the address on loopback", SOON, || {
            has(node, "lo").is_ok_and(|there| there == wanted).then_some(())
        })
    };
    let add = ["vs", "add", "front", "--vip", "web", "--port", "80"];
    n1.ctl_ok(&[&add[..], &["--real", "10.77.0.1", "--real", "10.77.0.2"]].concat())?;
    until("n1", true)?;
    until("n2", true)?;
    assert!(!has("n3", "lo")?, "it is none");
    // Somebody else takes it away.
    cluster.lab.ip("n2", &["address", "delete", "10.77.0.100/32", "dev", "lo"])?;
    until("n2", true).context("it is put back")?;
    n1.ctl_ok(&["real", "remove", "front", "10.77.0.2"])?;
    until("n2", false)?;
    assert!(has("n1", "lo")?);
    let taken = || n1.log().matches("a real server on this host takes it ip=").count();
    let before = taken();
    assert!(before > 0);
    n1.signal(&[Process::Guard], Signal::SIGKILL)?;
    wait_for("the next guard takes it", SOON, || (taken() > before).then_some(()))?;
    until("n1", true)?;
    n1.ctl_ok(&["vs", "remove", "front"])?;
    until("n1", false)?;
    wait_for("the holder answers", SOON, || {
        let vip = n1.ctl_json(&["vip", "show", "web"]).ok()?;
        (vip["answers"] == true).then_some(())
    })?;
    let holder = holder(&cluster, "n1")?;
    assert!(has(&holder, "eth0")?, "who holds it goes on");
    Ok(())
}

/// Nobody orders it to: its agent is in no cluster any more.
#[test]
fn a_member_that_left_stops_taking_the_vip() -> Result<()> {
    let cluster = Cluster::formed(&Options::default())?;
    let n1 = cluster.host("n1");
    n1.ctl_ok(&["vip", "add", "web", "--address", "10.77.0.100/24"])?;
    let reals = ["--real", "10.77.0.1", "--real", "10.77.0.3"];
    n1.ctl_ok(&[&["vs", "add", "front", "--vip", "web", "--port", "80"], &reals[..]].concat())?;
    let takes = || {
        let lo = cluster.lab.ip("n3", &["address", "show", "dev", "lo"]);
        lo.map(|lo| lo.contains("10.77.0.100/32"))
    };
    wait_for("n3 takes the VIP", SOON, || takes().ok()?.then_some(()))?;
    cluster.host("n3").ctl_ok(&["leave"])?;
    wait_for("it does not any more", Duration::from_secs(60), || (!takes().ok()?).then_some(()))
}
