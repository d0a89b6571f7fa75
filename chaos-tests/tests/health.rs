//! Real servers that are checked: who answers is served, and nobody else.

use anyhow::{Context, Result};
use chaos_tests::{Cluster, Connections, Lab, Options, RealServer, V4, unserved, wait_for};
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};
use vip_core::CheckTiming;

const SOON: Duration = Duration::from_secs(10);

/// A real server by direct routing: it answers as the VIP, and as itself to who probes it.
struct Direct(#[expect(dead_code, reason = "they end with it")] [RealServer; 2]);

impl Direct {
    fn start(cluster: &Cluster, (name, last): (&str, u8)) -> Result<Self> {
        let own = SocketAddr::new(V4.at(last).parse()?, V4.target().port());
        let server = |at| RealServer::start(&cluster.lab, name, at);
        Ok(Self([server(V4.target())?, server(own)?]))
    }
}

const R2: (&str, u8) = ("r2", 12);

/// The VIP, and two real servers by direct routing.
fn front(cluster: &mut Cluster) -> Result<[Direct; 2]> {
    for (name, last) in [("r1", 11), R2] {
        drop(V4.by_dr(&mut cluster.lab, name, last)?);
    }
    cluster.host("n1").ctl_ok(&["vip", "add", "web", "--address", "10.77.0.100/24"])?;
    Ok([Direct::start(cluster, ("r1", 11))?, Direct::start(cluster, R2)?])
}

const ADD: [&str; 13] = [
    "vs",
    "add",
    "front",
    "--vip",
    "web",
    "--port",
    "80",
    "--real",
    "10.77.0.11",
    "--real",
    "10.77.0.12",
    "--check",
    "tcp",
];

/// The states of the real servers, as a node tells them.
fn states(cluster: &Cluster, from: &str) -> Result<BTreeMap<String, String>> {
    let shown = cluster.host(from).ctl_json(&["vs", "show", "front"])?;
    let reals = shown["reals"].as_array().context("real servers")?;
    let state = |real: &Value| {
        Some((real["address"].as_str()?.to_owned(), real["state"].as_str()?.to_owned()))
    };
    Ok(reals.iter().filter_map(state).collect())
}

fn wait_until(cluster: &Cluster, wanted: [&str; 2]) -> Result<()> {
    let places = ["10.77.0.11:80", "10.77.0.12:80"].map(ToOwned::to_owned);
    let wanted: BTreeMap<_, _> = places.into_iter().zip(wanted.map(ToOwned::to_owned)).collect();
    for from in ["n1", "n2", "n3"] {
        wait_for("it is seen by all", SOON, || {
            (states(cluster, from).ok()? == wanted).then_some(())
        })
        .with_context(|| format!("{from}: {:?}", states(cluster, from)))?;
    }
    Ok(())
}

fn events(cluster: &Cluster, kind: &str) -> Result<Vec<String>> {
    let all = cluster.host("n1").ctl_ok(&["events", "-o", "json"])?;
    let lines = all.lines().map(serde_json::from_str::<Value>).collect::<Result<Vec<_>, _>>()?;
    let of_kind = lines.iter().filter(|event| event["kind"] == kind);
    Ok(of_kind.filter_map(|event| Some(event["text"].as_str()?.to_owned())).collect())
}

/// Down while it is gone, and back with its first answer; told once each time.
#[test]
fn a_server_that_does_not_answer_is_sent_nothing_until_it_does() -> Result<()> {
    let mut cluster = Cluster::formed(&Options::default())?;
    let [_r1, r2] = front(&mut cluster)?;
    let fast = ["--check-interval", "400ms", "--check-timeout", "200ms"];
    let added = cluster.host("n1").ctl_ok(&[&ADD[..], &fast].concat())?;
    assert!(added.contains("to 2 real servers"), "{added}");
    wait_until(&cluster, ["up", "up"])?;
    let mut connections = Connections::open(&cluster.lab, "client", V4.target(), 40)?;
    assert_eq!(connections.of_each().len(), 2, "{:?}", connections.of_each());

    let begun = Instant::now();
    drop(r2);
    // Each is refused by r2 for as long as it is sent there.
    wait_for("clients get through", SOON, || {
        Connections::open(&cluster.lab, "client", V4.target(), 40).ok().map(drop)
    })?;
    println!("clients get through after {:?}", begun.elapsed());
    wait_until(&cluster, ["up", "down"])?;
    let shown = cluster.host("n2").ctl_ok(&["vs", "show", "front"])?;
    assert!(shown.contains("connection refused"), "{shown}");
    connections.end_those_of("r2");
    assert_eq!(connections.lost(), 0, "of the other one");

    // Neither a takeover nor a start of everything changes who is up.
    cluster.host("n1").ctl_ok(&["vip", "move", "web", "--to", "n3"])?;
    assert_eq!(connections.lost(), 0);
    cluster.hosts.iter_mut().for_each(chaos_tests::Host::kill_all);
    cluster.hosts.iter_mut().try_for_each(chaos_tests::Host::start)?;
    wait_until(&cluster, ["up", "down"])?;
    let downs = events(&cluster, "real-down")?;
    assert_eq!(downs, ["virtual server front has 10.77.0.12 down: connection refused"]);

    let _r2 = Direct::start(&cluster, R2)?;
    wait_until(&cluster, ["up", "up"])?;
    assert_eq!(events(&cluster, "real-up")?.len(), 3, "each at first, and one again");
    let both = || {
        let all = Connections::open(&cluster.lab, "client", V4.target(), 40).ok()?;
        (all.of_each().len() == 2).then_some(())
    };
    wait_for("both are sent something", SOON, both)
}

/// A check that one cannot pass is said at once; what is there forwards all the same.
#[test]
fn whoever_adds_a_server_that_does_not_answer_hears_of_it() -> Result<()> {
    let mut cluster = Cluster::formed(&Options::default())?;
    let [_r1, r2] = front(&mut cluster)?;
    drop(r2);
    let added = cluster.host("n1").ctl_ok(&ADD)?;
    assert!(added.contains("to 1 real servers, 1 down"), "{added}");
    assert!(added.contains("10.77.0.12:80 is down: connection refused"), "{added}");
    let connections = Connections::open(&cluster.lab, "client", V4.target(), 20)?;
    assert_eq!(connections.of_each().into_keys().collect::<Vec<_>>(), ["r1"]);
    // What each observer sees when it looks now, one real server or all.
    let checked = |real: &[&str]| {
        let check = ["vs", "check", "front"];
        let json = cluster.host("n2").ctl_json(&[&check[..], real].concat())?;
        let all = json.as_array().context("real servers")?.clone();
        let seen = |real: &Value| {
            let seen = real["seen"].as_array().cloned().unwrap_or_default();
            let sees: Vec<_> = seen.iter().map(|one| one["state"].to_string()).collect();
            format!("{} {}", real["address"], sees.join(","))
        };
        anyhow::Ok(all.iter().map(seen).collect::<Vec<_>>())
    };
    let [up, down] =
        [r#""10.77.0.11:80" "up","up","up""#, r#""10.77.0.12:80" "down","down","down""#];
    assert_eq!(checked(&[])?, [up, down]);
    assert_eq!(checked(&["10.77.0.12"])?, [down]);
    let told = cluster.host("n3").ctl_ok(&["vs", "check", "front"])?;
    assert!(told.contains("connection refused"), "{told}");
    let nobody = cluster.host("n1").ctl(&["vs", "check", "front", "10.77.0.13"])?;
    assert!(nobody.stderr.contains("no such real server"), "{nobody:?}");
    // One alone can be checked otherwise, and as the others again.
    let of = |word: &str| {
        let of = format!("10.77.0.11={word}");
        cluster.host("n1").ctl_ok(&["vs", "set", "front", "--check-of", &of])
    };
    let set = of("port=81")?;
    assert!(set.contains("10.77.0.11:80 is down: connection refused"), "{set}");
    let shown = cluster.host("n3").ctl_ok(&["vs", "show", "front"])?;
    assert!(shown.contains("Otherwise: 10.77.0.11: port 81."), "{shown}");
    let set = of("")?;
    assert!(!set.contains("10.77.0.11:80 is down"), "{set}");
    // Another check that none passes is said as well, and whoever does not want to wait need
    // not.
    let other = ["vs", "set", "front", "--check-port", "81"];
    let set = cluster.host("n1").ctl_ok(&other)?;
    assert!(set.contains("10.77.0.11:80 is down: connection refused"), "{set}");
    cluster.host("n1").ctl_ok(&["vs", "remove", "front"])?;
    let added =
        cluster.host("n1").ctl_ok(&[&ADD[..], &["--no-wait", "--check-fall", "9"]].concat())?;
    assert!(!added.contains("is down"), "{added}");
    // Without a check its administrator has the word.
    cluster.host("n1").ctl_ok(&["vs", "set", "front", "--check", "none"])?;
    wait_until(&cluster, ["up", "up"])
}

/// A busy machine takes longer than the bound says.
const BUSY: Duration = Duration::from_secs(1);

/// From a server's end to the last packet sent to it, with the usual timing: one that refuses
/// and one that hangs.
#[test]
fn a_server_that_ends_is_sent_nothing_after_what_the_timing_says() -> Result<()> {
    let mut cluster = Cluster::formed(&Options::default())?;
    let [_r1, r2] = front(&mut cluster)?;
    cluster.host("n1").ctl_ok(&ADD)?;
    wait_until(&cluster, ["up", "up"])?;
    let timing = CheckTiming::default();

    drop(r2);
    let refusing = unserved(&cluster.lab, V4.target(), 2 * SOON)?;
    wait_until(&cluster, ["up", "down"])?;
    let _r2 = Direct::start(&cluster, R2)?;
    wait_until(&cluster, ["up", "up"])?;
    let hang = "add table ip hang; \
                add chain ip hang in { type filter hook input priority 0; }; \
                add rule ip hang in tcp dport 80 drop";
    cluster.lab.exec("r2", "nft", &[hang])?.ok()?;
    let hanging = unserved(&cluster.lab, V4.target(), 2 * SOON)?;
    println!("refusing: {refusing:?}, hanging: {hanging:?}");
    wait_until(&cluster, ["up", "down"])?;
    let shown = cluster.host("n3").ctl_ok(&["vs", "show", "front"])?;
    assert!(shown.contains("no answer within 1 s"), "{shown}");
    let warned = cluster.host("n2").ctl_ok(&["status"])?;
    assert!(warned.contains("front has 1 of 2 real servers down"), "{warned}");
    for (took, hangs) in [(refusing, false), (hanging, true)] {
        let bound = timing.noticed_after(hangs) + BUSY;
        assert!(took <= bound, "hangs: {hangs}, {took:?} of {bound:?}");
        assert!(took >= timing.gap(), "hangs: {hangs}, {took:?}: one failure is not enough");
    }
    Ok(())
}

/// One that sees nothing has no opinion, and two that do decide; and whoever is cut off is
/// no observer after a while, so that one alone can.
#[test]
fn who_cannot_be_asked_does_not_keep_a_dead_server_up() -> Result<()> {
    let mut cluster = Cluster::formed(&Options::default())?;
    let [_r1, r2] = front(&mut cluster)?;
    cluster.host("n1").ctl_ok(&[&ADD[..], &["--observe", "n2,n3"]].concat())?;
    wait_until(&cluster, ["up", "up"])?;
    let seen = || -> Result<Vec<String>> {
        let shown = cluster.host("n1").ctl_json(&["vs", "show", "front"])?;
        let seen = shown["reals"][1]["seen"].as_array().context("observers")?.clone();
        Ok(seen.iter().map(|one| format!("{} {}", one["node"], one["state"])).collect())
    };
    let both = || {
        let seen = seen().ok()?;
        let says = |node: &str| seen.iter().any(|one| one.contains(node));
        (says("n2") && says("n3")).then_some(())
    };
    wait_for("both say so", SOON, both)?;
    cluster.lab.isolate("n3")?;
    drop(r2);
    // The last that n3 said is that it is up: a tie, until nobody has heard of it for long.
    let is_down = || {
        let shown = states(&cluster, "n1").ok()?;
        (shown.get("10.77.0.12:80")? == "down").then_some(())
    };
    wait_for("the other one decides", 2 * SOON, is_down)
        .with_context(|| format!("{:?}", seen()))?;
    cluster.lab.heal("n3")?;
    wait_until(&cluster, ["up", "down"])?;
    assert_eq!(events(&cluster, "real-down")?.len(), 1);
    Ok(())
}

/// As on a control plane: members are real servers, and observe each other and themselves.
#[test]
fn members_that_are_real_servers_are_checked_as_others_are() -> Result<()> {
    let cluster = Cluster::formed(&Options::default())?;
    cluster.host("n1").ctl_ok(&["vip", "add", "web", "--address", "10.77.0.100/24"])?;
    let add = ["vs", "add", "api", "--vip", "web", "--port", "80", "--real-nodes", "80"];
    let timing = ["--check", "tcp", "--check-interval", "400ms", "--check-timeout", "200ms"];
    let lab = &cluster.lab;
    let mut servers = ["n1", "n2", "n3"]
        .map(|name| RealServer::start(lab, name, V4.any()))
        .into_iter()
        .collect::<Result<Vec<_>>>()?;
    cluster.host("n1").ctl_ok(&[&add[..], &timing].concat())?;
    let served = || {
        let all = Connections::open(&cluster.lab, "client", V4.target(), 60).ok()?;
        Some(all.of_each().into_keys().collect::<Vec<_>>())
    };
    let are = |wanted: &'static [&str]| move |found: Vec<String>| (found == wanted).then_some(());
    wait_for("all three", SOON, || served().and_then(are(&["n1", "n2", "n3"])))?;
    // The API server of the node that holds the VIP: the VIP stays, and others answer.
    drop(servers.remove(0));
    wait_for("the other two", SOON, || served().and_then(are(&["n2", "n3"])))?;
    servers.push(RealServer::start(&cluster.lab, "n1", V4.any())?);
    wait_for("all three", SOON, || served().and_then(are(&["n1", "n2", "n3"])))
}

/// Too few are up, and others take their place until enough are.
#[test]
fn a_service_without_a_quorum_is_the_sorry_servers_or_nobodys() -> Result<()> {
    let mut cluster = Cluster::formed(&Options::default())?;
    let [r1, r2] = front(&mut cluster)?;
    drop(V4.by_dr(&mut cluster.lab, "sorry", 13)?);
    let _sorry = RealServer::start(&cluster.lab, "sorry", V4.target())?;
    let n1 = cluster.host("n1").control();
    let fast = ["--check-interval", "400ms", "--check-timeout", "200ms"];
    n1.ctl(&[&ADD[..], &fast, &["--quorum-up", "2", "--sorry", "10.77.0.13"]].concat())?.ok()?;
    let served = |wanted: &[&str]| {
        let all = Connections::open(&cluster.lab, "client", V4.target(), 40).ok()?;
        all.of_each().into_keys().eq(wanted.iter().copied()).then_some(())
    };
    wait_for("both", SOON, || served(&["r1", "r2"]))?;
    let mut kept = Connections::open(&cluster.lab, "client", V4.target(), 40)?;

    drop(r2);
    wait_for("the sorry server", SOON, || served(&["sorry"]))?;
    kept.end_those_of("r2");
    assert_eq!(kept.lost(), 0, "who is up keeps the connections that it has");
    let shown = n1.ctl(&["vs", "show", "front"])?.ok()?;
    assert!(
        shown.contains("1 of its real servers are up and take new connections, 2 have to"),
        "{shown}"
    );
    let warned = n1.ctl(&["status"])?.ok()?;
    assert!(warned.contains("clients get the sorry server"), "{warned}");

    n1.ctl(&["vs", "set", "front", "--sorry", "", "--all-down", "keep-last"])?.ok()?;
    wait_for("the one that is up", SOON, || served(&["r1"]))?;
    n1.ctl(&["vs", "set", "front", "--all-down", "drop"])?.ok()?;
    let is_dropped = || {
        let from = || -> Result<bool> {
            cluster.lab.enter("client")?;
            Ok(TcpStream::connect_timeout(&V4.target(), Duration::from_millis(200)).is_err())
        };
        std::thread::scope(|scope| scope.spawn(from).join()).ok()?.ok()?.then_some(())
    };
    wait_for("nobody", SOON, is_dropped)?;
    assert_eq!(kept.lost(), 0);
    let _r2 = Direct::start(&cluster, R2)?;
    wait_for("both again", SOON, || served(&["r1", "r2"]))?;
    for (kind, says) in [("server-down", "1 real servers are up, 2 have to be"), ("server-up", "2")]
    {
        let told = events(&cluster, kind)?;
        assert!(told.len() == 1 && told[0].contains(says), "{told:?}");
    }
    drop(r1);
    Ok(())
}

/// Their hosts are gone, so that nobody but the holder can tell a client.
#[test]
fn connections_that_nobody_has_any_more_are_reset_where_that_is_wanted() -> Result<()> {
    let mut cluster = Cluster::formed(&Options::default())?;
    let _both = front(&mut cluster)?;
    let fast = ["--check-interval", "400ms", "--check-timeout", "200ms"];
    cluster.host("n1").ctl_ok(&[&ADD[..], &fast].concat())?;
    wait_until(&cluster, ["up", "up"])?;
    let connect = || -> Result<TcpStream> {
        cluster.lab.enter("client")?;
        Ok(TcpStream::connect_timeout(&V4.target(), Duration::from_secs(2))?)
    };
    let connected = std::thread::scope(|scope| scope.spawn(connect).join());
    let mut stream = connected.map_err(|_| anyhow::anyhow!("the client panicked"))??;
    for name in ["r1", "r2"] {
        cluster.lab.ip(name, &["link", "set", "eth0", "down"])?;
    }
    wait_until(&cluster, ["down", "down"])?;
    let mut says = |limit| -> Result<std::io::ErrorKind> {
        stream.set_read_timeout(Some(limit))?;
        stream.write_all(b"is anybody there?")?;
        let heard = stream.read(&mut [0; 8]);
        Ok(heard.err().context("somebody answers, or ends it")?.kind())
    };
    assert_eq!(says(Duration::from_secs(1))?, std::io::ErrorKind::WouldBlock, "it is left");
    cluster.host("n2").ctl_ok(&["vs", "set", "front", "--on-down", "reset"])?;
    assert_eq!(says(Duration::from_secs(20))?, std::io::ErrorKind::ConnectionReset);
    Ok(())
}

/// On a node: nothing it sends to either of them arrives.
const CUT: &str = "add table ip cut; \
                   add chain ip cut out { type filter hook output priority 0; }; \
                   add rule ip cut out ip daddr { 10.77.0.11, 10.77.0.12 } tcp dport 80 drop";

/// The way is broken, and not they: the others reach them.
#[test]
fn a_holder_that_does_not_reach_its_servers_gives_its_vip_to_one_that_does() -> Result<()> {
    let mut cluster = Cluster::formed(&Options::default())?;
    let [_r1, _r2] = front(&mut cluster)?;
    let fast = ["--check-interval", "400ms", "--check-timeout", "200ms"];
    cluster.host("n1").ctl_ok(&[&ADD[..], &fast].concat())?;
    wait_until(&cluster, ["up", "up"])?;
    let holder = || -> Result<String> {
        let vip = cluster.host("n2").ctl_json(&["vip", "show", "web"])?;
        Ok(vip["holder"].as_str().context("nobody holds it")?.to_owned())
    };
    assert_eq!(holder()?, "n1");
    cluster.lab.exec("n1", "nft", &[CUT])?.ok()?;
    wait_for("another holds it", SOON, || (holder().ok()? != "n1").then_some(()))?;
    let now = holder()?;
    wait_until(&cluster, ["up", "up"])?;
    let warned = cluster.host("n3").ctl_ok(&["status"])?;
    assert!(
        warned.contains("VIP web cannot be on n1: it does not reach its real servers"),
        "{warned}"
    );
    let told = events(&cluster, "server-cut-off")?;
    assert!(told.len() == 1 && told[0].contains("n1 does not reach"), "{told:?}");
    wait_for("clients are served", SOON, || {
        Connections::open(&cluster.lab, "client", V4.target(), 20).ok().map(drop)
    })?;
    // It sees them again, and has to for a while before it is trusted.
    cluster.lab.exec("n1", "nft", &["delete table ip cut"])?.ok()?;
    let sees = || {
        let shown = cluster.host("n2").ctl_json(&["vs", "show", "front"]).ok()?;
        let seen = shown["reals"][0]["seen"].as_array()?.clone();
        let own = seen.into_iter().find(|one| one["node"] == "n1")?;
        (own["state"] == "up").then_some(())
    };
    wait_for("n1 sees them", SOON, sees)?;
    assert_eq!(holder()?, now);
    Ok(())
}

/// Packets that a table of nft counted, by the addresses that they came from.
fn counted(lab: &Lab, host: &str, from: &str) -> Result<u64> {
    let listed = lab.exec(host, "nft", &["-j", "list", "table", "ip", "seen"])?.ok()?;
    let listed: Value = serde_json::from_str(&listed)?;
    let rules = listed["nftables"].as_array().context("no rules")?;
    let is_it = |rule: &&Value| rule["rule"]["comment"] == from;
    let rule = rules.iter().find(is_it).with_context(|| format!("{from}: {listed}"))?;
    rule["rule"]["expr"][2]["counter"]["packets"].as_u64().context("no count")
}

/// The holder's, too: else a probe would go by the lease gate, and its answer to whoever holds
/// the VIP next.
#[test]
fn probes_come_from_nodes_own_addresses() -> Result<()> {
    let mut cluster = Cluster::formed(&Options::default())?;
    let [_r1, _r2] = front(&mut cluster)?;
    let mut text = "add table ip seen; \
                    add chain ip seen in { type filter hook input priority 0; };"
        .to_owned();
    for last in [1, 2, 3, 100] {
        let from = V4.at(last);
        text += &format!(
            "add rule ip seen in ip saddr {from} tcp dport 80 counter comment \"{from}\";"
        );
    }
    cluster.lab.exec("r1", "nft", &[&text])?.ok()?;
    cluster.host("n1").ctl_ok(&ADD)?;
    for last in [1, 2, 3] {
        wait_for("each probes", SOON, || {
            (counted(&cluster.lab, "r1", &V4.at(last)).ok()? > 0).then_some(())
        })?;
    }
    assert_eq!(counted(&cluster.lab, "r1", &V4.vip())?, 0);
    Ok(())
}

/// As two nodes behind one broken switch: who is answered is right, and serves.
#[test]
fn nodes_whose_network_is_broken_do_not_outvote_one_that_is_answered() -> Result<()> {
    let mut cluster = Cluster::formed(&Options::default())?;
    let [_r1, _r2] = front(&mut cluster)?;
    let fast = ["--check-interval", "400ms", "--check-timeout", "200ms"];
    cluster.host("n1").ctl_ok(&[&ADD[..], &fast].concat())?;
    wait_until(&cluster, ["up", "up"])?;
    for node in ["n1", "n2"] {
        cluster.lab.exec(node, "nft", &[CUT])?.ok()?;
    }
    let served = || Connections::open(&cluster.lab, "client", V4.target(), 20).ok().map(drop);
    let is_at_n3 = || {
        let vip = cluster.host("n3").ctl_json(&["vip", "show", "web"]).ok()?;
        (vip["holder"] == "n3").then_some(())
    };
    wait_for("the one that is answered holds it", 2 * SOON, is_at_n3)?;
    wait_until(&cluster, ["up", "up"])?;
    wait_for("clients are served", SOON, served)?;
    let warned = cluster.host("n2").ctl_ok(&["status"])?;
    for node in ["n1", "n2"] {
        let says = format!("{node} has no say in which real servers are down");
        assert!(warned.contains(&says), "{warned}");
    }
    let told = events(&cluster, "node-sees-nothing")?;
    assert!(told.len() == 2 && told[0].contains("no answer within 200 ms"), "{told:?}");
    Ok(())
}

/// How many of so many new connections each real server gets.
fn shares(cluster: &Cluster) -> Result<BTreeMap<String, usize>> {
    Ok(Connections::open(&cluster.lab, "client", V4.target(), 200)?.of_each())
}

/// Its caches are cold: it has a quarter, a half, three quarters, all of its share.
#[test]
fn a_server_that_is_back_has_its_share_in_steps() -> Result<()> {
    let mut cluster = Cluster::formed(&Options::default())?;
    let [_r1, r2] = front(&mut cluster)?;
    let n1 = cluster.host("n1").control();
    let fast = ["--check-interval", "400ms", "--check-timeout", "200ms"];
    n1.ctl(&[&ADD[..], &fast, &["--check-slow-start", "40s"]].concat())?.ok()?;
    wait_until(&cluster, ["up", "up"])?;
    let of_r2 = |cluster: &Cluster| anyhow::Ok(shares(cluster)?.get("r2").copied().unwrap_or(0));
    // Both are new, and have all of it. By then first answers are over.
    let is_old = || {
        let shown = cluster.host("n1").ctl_json(&["vs", "show", "front"]).ok()?;
        let since = shown["reals"][0]["since_ms"].as_u64()?;
        let now = std::time::SystemTime::UNIX_EPOCH.elapsed().ok()?;
        (now > Duration::from_millis(since + 4000)).then_some(())
    };
    wait_for("first answers are over", SOON, is_old)?;
    assert!((60..140).contains(&of_r2(&cluster)?), "{:?}", shares(&cluster)?);
    drop(r2);
    wait_until(&cluster, ["up", "down"])?;
    let _r2 = Direct::start(&cluster, R2)?;
    wait_until(&cluster, ["up", "up"])?;
    let shown = cluster.host("n3").ctl_json(&["vs", "show", "front"])?;
    assert_eq!(shown["reals"][1]["share_percent"], 25, "{shown}");
    // One of five, while it has a quarter.
    let few = of_r2(&cluster)?;
    assert!((1..80).contains(&few), "{few}");
    let shown = cluster.host("n3").ctl_ok(&["vs", "show", "front"])?;
    assert!(shown.contains("1 (25 %)") && shown.contains("its whole share after 40s"), "{shown}");
    n1.ctl(&["vs", "set", "front", "--check-slow-start", "1s"])?.ok()?;
    let is_whole = || {
        let shown = cluster.host("n2").ctl_json(&["vs", "show", "front"]).ok()?;
        shown["reals"][1]["share_percent"].is_null().then_some(())
    };
    wait_for("it has all of it", SOON, is_whole)?;
    assert!((60..140).contains(&of_r2(&cluster)?), "{:?}", shares(&cluster)?);
    Ok(())
}
