//! What people are told of virtual servers: the same on every node, and what does not work.

use anyhow::{Context, Result};
use chaos_tests::{Cluster, Connections, Options, V4, wait_for};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(20);
const NODES: [&str; 3] = ["n1", "n2", "n3"];

/// The same on every node, and what each of them has.
#[test]
fn a_virtual_server_looks_the_same_from_every_node() -> Result<()> {
    let mut cluster = Cluster::formed(&Options::default())?;
    let _server = V4.by_dr(&mut cluster.lab, "r1", 11)?;
    let n1 = cluster.host("n1");
    n1.ctl_ok(&["vip", "add", "web", "--address", "10.77.0.100/24"])?;
    let add = ["vs", "add", "front", "--vip", "web", "--port", "80", "--real", "10.77.0.11"];
    cluster.host("n2").ctl_ok(&add)?;
    cluster.host("n3").ctl_ok(&add)?;
    let mut connections = Connections::open(&cluster.lab, "client", V4.target(), 7)?;
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
    // The last packets of what was said, delayed acknowledgements, come meanwhile.
    let shown = wait_for("the same from every node", SOON, || {
        let shows = |node: &str| cluster.host(node).ctl_json(&["vs", "show", "front"]).ok();
        let shown = shows("n1")?;
        ["n2", "n3"].iter().all(|node| shows(node).as_ref() == Some(&shown)).then_some(shown)
    })?;
    assert_eq!(shown["reals"][0]["connections"], 7, "{shown}");
    assert!(shown["reals"][0]["packets"].as_u64() >= Some(28), "{shown}");
    // Removed, its packets are the holder's own, who does not listen there.
    cluster.host("n2").ctl_ok(&["vs", "remove", "front"])?;
    assert!(connections.lost() > 0);
    assert_eq!(n1.ctl_json(&["vs", "list"])?, serde_json::json!([]));
    Ok(())
}

/// Its way out is not the holder: the person who set it up is told.
#[test]
fn a_real_server_by_nat_that_nothing_comes_back_from_is_noticed() -> Result<()> {
    let mut cluster = Cluster::formed(&Options::default())?;
    V4.behind(&cluster.lab)?;
    let _server = V4.by_nat(&mut cluster.lab, "r1", 11)?;
    cluster.lab.ip("r1", &["route", "delete", "default"])?;
    let n1 = cluster.host("n1");
    n1.ctl_ok(&["vip", "add", "web", "--address", "10.77.0.100/24"])?;
    let real = V4.place(11).to_string();
    n1.ctl_ok(&["vs", "add", "front", "--vip", "web", "--port", "80", "--real", &real])?;
    let reason = || -> Result<String> {
        let shown = n1.ctl_json(&["vs", "show", "front"])?;
        Ok(shown["reals"][0]["reason"].as_str().context("a reason")?.to_owned())
    };
    assert!(!reason()?.contains("nothing comes back"), "nobody asked yet");
    let tries = std::thread::scope(|scope| {
        let lab = &cluster.lab;
        let asked: Vec<_> = (0..4)
            .map(|_| scope.spawn(|| Connections::open(lab, "client", V4.target(), 1)))
            .collect();
        asked.into_iter().filter_map(|asked| asked.join().ok()).collect::<Vec<_>>()
    });
    assert!(tries.len() == 4 && tries.iter().all(Result::is_err));
    assert!(reason()?.contains("nothing comes back from it"), "{}", reason()?);
    assert!(n1.ctl_ok(&["vs", "show", "front", "--setup"])?.contains("ip route replace default"));
    Ok(())
}

/// Large packets would be lost, and nobody would know why.
#[test]
fn a_narrow_way_to_a_real_server_is_warned_about() -> Result<()> {
    let mut cluster = Cluster::formed(&Options::default())?;
    V4.behind(&cluster.lab)?;
    let _server = V4.by_nat(&mut cluster.lab, "r1", 11)?;
    cluster.lab.ip("n1", &["link", "set", "eth1", "mtu", "1400"])?;
    let n1 = cluster.host("n1");
    n1.ctl_ok(&["vip", "add", "web", "--address", "10.77.0.100/24"])?;
    let real = V4.place(11).to_string();
    n1.ctl_ok(&["vs", "add", "front", "--vip", "web", "--port", "80", "--real", &real])?;
    let warned = || {
        let status = n1.ctl_ok(&["status"]).ok()?;
        let begins = "On n1, virtual server front is forwarded, and ";
        (status.contains(begins) && status.contains("1400")).then_some(())
    };
    wait_for("it is warned about", SOON, warned)?;
    let shown = n1.ctl_json(&["vs", "show", "front"])?;
    let of = |node: &str| {
        let nodes = shown["on_nodes"].as_array().into_iter().flatten();
        nodes.filter(|on| on["node"] == node).map(|on| on["why"].clone()).next()
    };
    assert!(of("n1").is_some_and(|why| why.as_str().is_some_and(|why| why.contains("MTU"))));
    assert_eq!(of("n2"), Some(serde_json::Value::Null));
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
    // A change of what is there stays in the log, and what to do about it is said.
    let refused = n1.ctl(&["real", "add", "front", "10.77.0.11"])?;
    assert_eq!(refused.code, Some(1), "{refused:?}");
    for said in ["10.77.0.11 is not in allow_real", "what was before stays in force"] {
        assert!(refused.stderr.contains(said), "{said}: {refused:?}");
    }
    // Every node says so of each, and when it was so stays known.
    let said = |status: &str, node| {
        let text = format!("On {node}, virtual server front is not forwarded as wanted: ");
        status.contains(&text)
    };
    for host in NODES {
        let host = cluster.host(host);
        wait_for("all are known to refuse", SOON, || {
            let status = host.ctl_ok(&["status"]).ok()?;
            NODES.iter().all(|node| said(&status, node)).then_some(())
        })?;
    }
    n1.ctl_ok(&["real", "remove", "front", "10.77.0.11"])?;
    wait_for("it is mended everywhere", SOON, || {
        let status = cluster.host("n3").ctl_ok(&["status"]).ok()?;
        (!NODES.iter().any(|node| said(&status, node))).then_some(())
    })?;
    let events = n1.ctl_ok(&["events"])?;
    let of = |kind: &str| {
        let it = "virtual server front ";
        let of_kind = |node: &&str| events.contains(&format!("on {node}, {it}{kind}"));
        NODES.into_iter().filter(of_kind).collect::<Vec<_>>()
    };
    for kind in ["is not forwarded as wanted: ", "is forwarded as wanted again"] {
        assert_eq!(of(kind), NODES, "{kind}: {events}");
    }
    Ok(())
}

/// Nobody sees what the kernel's program drops, unless it is told.
#[test]
fn what_is_dropped_and_why_is_told_by_doctor() -> Result<()> {
    let cluster = Cluster::formed(&Options { nodes: 1, ..Options::default() })?;
    let n1 = cluster.host("n1");
    n1.ctl_ok(&["vip", "add", "web", "--address", "10.77.0.100/24"])?;
    n1.ctl_ok(&["vs", "add", "front", "--vip", "web", "--port", "80", "--real", "10.77.0.11"])?;
    n1.ctl_ok(&["real", "set-weight", "front", "10.77.0.11", "0"])?;
    let told = || Some(n1.ctl_json(&["doctor"]).ok()?.to_string());
    let why = "for a virtual server without a real server that takes any";
    assert!(told().is_some_and(|told| !told.contains(why)), "nobody asked yet");
    assert!(Connections::open(&cluster.lab, "client", V4.target(), 1).is_err());
    wait_for("it is told", 2 * SOON, || told()?.contains(why).then_some(()))
}
