//! VIPs that are announced nowhere (`--via lb`): a balancer asks the nodes, and sends clients
//! to the one that is well.

use anyhow::{Context, Result, ensure};
use chaos_tests::{Asked, Cluster, Connections, Net, Options, Process, RealServer, V4, wait_for};
use nix::sys::signal::Signal;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

const NODES: [&str; 3] = ["n1", "n2", "n3"];
const SOON: Duration = Duration::from_secs(15);
/// What claims keep, the kernel deletes after that.
const KEPT: Duration = Duration::from_secs(5);
/// Of members as real servers.
const MEMBERS_PORT: u16 = 81;
const VIP: &str = "10.77.0.100";
/// It is said at the moment of the request, and a client needs a while after it.
const LEASE: Duration = Duration::from_secs(1);

fn options() -> Options {
    Options { settings: vec!["http.listen=0.0.0.0:7480".into()], ..Options::default() }
}

fn address(node: &str) -> String {
    V4.at(node[1..].parse().expect("a number"))
}

fn is_well(cluster: &Cluster, node: &str) -> bool {
    let at = format!("{}:7480", address(node)).parse().expect("an address");
    let asked = Asked::by(&cluster.lab, "client", at, "GET", "/v1/vip/web");
    asked.is_ok_and(|asked| asked.status == 200)
}

/// What a balancer does: clients go by a node, and nobody asks for the VIP by ARP.
fn send_by(cluster: &Cluster, node: &str) -> Result<()> {
    let route = ["route", "replace", &format!("{VIP}/32"), "via", &address(node)];
    cluster.lab.ip("client", &route).map(drop)
}

/// To the node that is well; once there is one beside `not`.
fn balance(cluster: &Cluster, not: &str) -> Result<&'static str> {
    let others = || NODES.into_iter().find(|node| *node != not && is_well(cluster, node));
    let node = wait_for("one is well", SOON, others)?;
    send_by(cluster, node)?;
    Ok(node)
}

fn answers(cluster: &Cluster) -> bool {
    let ping = ["-c1", "-W1", VIP];
    cluster.lab.exec("client", "ping", &ping).is_ok_and(|outcome| outcome.code == Some(0))
}

/// Where the VIP is on a node.
fn device(cluster: &Cluster, node: &str) -> Result<Option<String>> {
    let text = cluster.lab.ip(node, &["-br", "address"])?;
    let line = text.lines().find(|line| line.contains(&format!("{VIP}/32")));
    Ok(line.and_then(|line| line.split(['@', ' ']).next()).map(ToOwned::to_owned))
}

fn add(cluster: &Cluster) -> Result<()> {
    let add = ["vip", "add", "web", "--address", "10.77.0.100/24", "--placement", "sticky"];
    cluster.host("n1").ctl_ok(&[&add[..], &["--via", "lb"]].concat()).map(drop)
}

#[test]
fn it_is_on_loopback_of_its_holder_and_nobody_resolves_it() -> Result<()> {
    let cluster = Cluster::formed(&options())?;
    let lab = &cluster.lab;
    add(&cluster)?;
    let holder = cluster.wait_for_takeover("n1", "nobody")?;
    assert_eq!(device(&cluster, &holder)?.as_deref(), Some("lo"));
    ensure!(!answers(&cluster), "somebody answers for it by ARP");
    let neighbours = lab.ip("client", &["neigh", "show", VIP])?;
    ensure!(!neighbours.contains("lladdr"), "{neighbours}");
    send_by(&cluster, &holder)?;
    ensure!(answers(&cluster), "its holder does not answer");
    for node in NODES.into_iter().filter(|node| *node != holder) {
        assert_eq!(device(&cluster, node)?, None, "{node}");
        send_by(&cluster, node)?;
        ensure!(!answers(&cluster), "{node} answers");
    }
    let shown = cluster.host("n1").ctl_ok(&["vip", "show", "web"])?;
    ensure!(shown.contains("load balancers ask each node for /v1/vip/web"), "{shown}");

    // Somebody else deletes it.
    send_by(&cluster, &holder)?;
    lab.ip(&holder, &["address", "del", &format!("{VIP}/32"), "dev", "lo"])?;
    wait_for("it is there again", SOON, || answers(&cluster).then_some(()))?;
    let to = NODES.into_iter().find(|node| *node != holder).context("another")?;
    cluster.host("n1").ctl_ok(&["vip", "move", "web", "--to", to])?;
    ensure!(!answers(&cluster), "{holder} answers yet");
    assert_eq!((balance(&cluster, &holder)?, device(&cluster, to)?.as_deref()), (to, Some("lo")));
    ensure!(answers(&cluster), "{to} does not answer");

    // Frozen, it answers until its lease is over, though clients are sent there yet.
    let frozen = [Process::Parent, Process::Agent, Process::Guard];
    cluster.host(to).signal(&frozen, Signal::SIGSTOP)?;
    let began = Instant::now();
    wait_for("it is silent", SOON, || (!answers(&cluster)).then_some(()))?;
    ensure!(began.elapsed() < LEASE * 3, "after {:?}", began.elapsed());
    balance(&cluster, to)?;
    wait_for("another answers", SOON, || answers(&cluster).then_some(()))?;
    send_by(&cluster, to)?;
    ensure!(!answers(&cluster), "two answer");
    cluster.host(to).signal(&frozen, Signal::SIGCONT)?;
    wait_for("the address is gone there", SOON, || {
        device(&cluster, to).ok()?.is_none().then_some(())
    })?;
    ensure!(!answers(&cluster), "two answer");
    Ok(())
}

#[test]
fn another_way_to_be_found_is_a_change_like_another_interface() -> Result<()> {
    let cluster = Cluster::formed(&options())?;
    let n1 = cluster.host("n1");
    add(&cluster)?;
    let refused = n1.ctl(&["vip", "set", "web", "--interface", "eth0"])?;
    assert_eq!(refused.code, Some(2));
    ensure!(refused.stderr.contains("by lb its addresses are on loopback"), "{}", refused.stderr);
    n1.ctl_ok(&["vip", "set", "web", "--via", "garp"])?;
    let holder = cluster.wait_for_takeover("n1", "nobody")?;
    assert_eq!(device(&cluster, &holder)?.as_deref(), Some("eth0"));
    ensure!(answers(&cluster), "it is announced");
    n1.ctl_ok(&["vip", "set", "web", "--via", "lb"])?;
    let holder = cluster.wait_for_takeover("n1", "nobody")?;
    assert_eq!(device(&cluster, &holder)?.as_deref(), Some("lo"));

    // The balancer may answer for it, wherever it is.
    cluster.lab.ip("client", &["address", "add", &format!("{VIP}/32"), "dev", "eth0"])?;
    let refused = n1.ctl(&["vip", "set", "web", "--via", "garp"])?;
    ensure!(refused.code == Some(1) && refused.stderr.contains("another host"), "{refused:?}");
    ensure!(refused.stderr.contains("It is as it was before"), "{refused:?}");
    // Others may have tried as well before it was given up, and whoever has it by then keeps it.
    let answers = || NODES.iter().any(|node| is_well(&cluster, node)).then_some(());
    wait_for("it answers as before", SOON, answers)?;
    let holder = cluster.wait_for_takeover("n1", "nobody")?;
    assert_eq!(device(&cluster, &holder)?.as_deref(), Some("lo"));
    Ok(())
}

/// As it comes it listens for this host alone.
#[test]
fn a_node_that_no_balancer_can_ask_says_so() -> Result<()> {
    let cluster = Cluster::formed(&Options::default())?;
    let n1 = cluster.host("n1");
    let doctor = || -> Result<String> { Ok(n1.ctl(&["doctor"])?.stdout) };
    ensure!(doctor()?.contains("answers at 127.0.0.1:7480"), "{}", doctor()?);
    add(&cluster)?;
    for told in [n1.ctl_ok(&["status"])?, doctor()?] {
        ensure!(told.contains("set http.listen in vipd.toml"), "{told}");
    }
    Ok(())
}

/// Clients in turn, by whoever holds it, and the way back that each real server has.
fn forwarded(cluster: &Cluster, port: u16, servers: usize) -> Result<()> {
    let mut holder = balance(cluster, "nobody")?;
    let at = SocketAddr::new(VIP.parse()?, port);
    for to in NODES {
        if to != holder {
            cluster.host("n1").ctl_ok(&["vip", "move", "web", "--to", to])?;
            // The way out of those behind it.
            cluster.host("n1").ctl_ok(&["vip", "move", "gateway", "--to", to])?;
            holder = balance(cluster, holder)?;
        }
        // The former holder's own real server has the address for longer than claims keep it.
        if port == MEMBERS_PORT {
            std::thread::sleep(KEPT);
        }
        let open = || Connections::open(&cluster.lab, "client", at, 40).ok();
        let connections = wait_for("all are forwarded", SOON, open)?;
        ensure!(connections.of_each().len() == servers, "{:?}", connections.of_each());
    }
    Ok(())
}

#[test]
fn real_servers_are_beside_it_behind_it_and_its_members() -> Result<()> {
    let net: &Net = &V4;
    let mut cluster = Cluster::formed(&options())?;
    net.behind(&cluster.lab)?;
    for node in NODES {
        // Whoever is answered by NAT is so by the way out.
        cluster.lab.ip(node, &["route", "add", "default", "via", "10.77.0.250"])?;
    }
    let lab = &mut cluster.lab;
    let _beside = [net.by_dr(lab, "r1", 11)?, net.by_dr(lab, "r2", 12)?];
    let _behind = [net.by_nat(lab, "r3", 13)?, net.by_nat(lab, "r4", 14)?];
    let own: Vec<_> = NODES
        .iter()
        .map(|node| RealServer::start(lab, node, "0.0.0.0:81".parse()?))
        .collect::<Result<_>>()?;
    let n1 = cluster.host("n1");
    let gateway = format!("{}100/24", net.back);
    n1.ctl_ok(&["vip", "add", "gateway", "--address", &gateway])?;
    add(&cluster)?;
    let add = |name: &str, port: &str, more: &[&str]| {
        n1.ctl_ok(&[&["vs", "add", name, "--vip", "web", "--port", port][..], more].concat())
    };
    add("beside", "80", &["--real", "10.77.0.11", "--real", "10.77.0.12"])?;
    add("own", "81", &["--real-nodes", "81"])?;
    let [three, four] = [13, 14].map(|last| net.place(last).to_string());
    add("behind", "82", &["--real", &three, "--real", &four])?;
    for (port, servers) in [(MEMBERS_PORT, 3), (80, 2), (82, 2)] {
        forwarded(&cluster, port, servers).with_context(|| format!("port {port}"))?;
    }
    // A member takes it whether it holds it or not, and answers for nobody else.
    for node in NODES {
        assert_eq!(device(&cluster, node)?.as_deref(), Some("lo"), "{node}");
    }
    drop(own);
    n1.ctl_ok(&["vs", "remove", "own"])?;
    let holder = balance(&cluster, "nobody")?;
    for node in NODES.into_iter().filter(|node| *node != holder) {
        wait_for("it is there no more", SOON * 2, || {
            device(&cluster, node).ok()?.is_none().then_some(())
        })?;
    }
    assert_eq!(device(&cluster, holder)?.as_deref(), Some("lo"));
    Ok(())
}
