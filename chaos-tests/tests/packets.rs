//! What becomes of packets that are not as others, with real ones: parts of datagrams, and
//! what a router on the way says of too large ones.

use anyhow::Result;
use chaos_tests::{Cluster, Flows, Lab, Net, Options, RealServer, Stream, Streams, V4, V6};

const FLOWS: usize = 12;
/// In several parts, by whatever link.
const LARGE: usize = 4000;
const DOWNLOADS: usize = 6;
/// Of the link beyond the router, which nobody but the router knows of.
const NARROW: &str = "1300";

struct Scene {
    cluster: Cluster,
    _servers: Vec<RealServer>,
}

/// `front` and `names`, by TCP and UDP, with three real servers each; and a client beyond a
/// router with a narrow link.
fn scene(net: &Net, method: &str) -> Result<Scene> {
    let mut cluster = Cluster::formed(&Options::default())?;
    let (mut servers, mut reals) = (vec![], vec![]);
    if method == "nat" {
        net.behind(&cluster.lab)?;
    }
    for (name, last) in [("r1", 11), ("r2", 12), ("r3", 13)] {
        let lab = &mut cluster.lab;
        let (server, real) = match method {
            "nat" => (net.by_nat(lab, name, last)?, net.place(last).to_string()),
            _ => (net.by_dr(lab, name, last)?, net.at(last)),
        };
        servers.push(server);
        reals.extend(["--real".to_owned(), real]);
    }
    let answering: &[&str] =
        if method == "nat" { &["n1", "n2", "n3"] } else { &["r1", "r2", "r3"] };
    beyond(&mut cluster.lab, net, answering)?;
    let n1 = cluster.host("n1");
    let vips = [("web", net.vip()), ("inside", format!("{}100", net.back))];
    for (name, ip) in vips.iter().take(if method == "nat" { 2 } else { 1 }) {
        n1.ctl_ok(&["vip", "add", name, "--address", &format!("{ip}/{}", net.length)])?;
    }
    let reals: Vec<&str> = reals.iter().map(String::as_str).collect();
    for (name, protocol) in [("front", "tcp"), ("names", "udp")] {
        let add = ["vs", "add", name, "--vip", "web", "--port", "80", "--protocol", protocol];
        n1.ctl_ok(&[&add[..], &["--forward", method], &reals].concat())?;
    }
    Ok(Scene { cluster, _servers: servers })
}

/// A host behind a router, whose link to it is narrower than both ends think; `answering`
/// know the way there.
fn beyond(lab: &mut Lab, net: &Net, answering: &[&str]) -> Result<()> {
    lab.add_host("router", 254)?;
    lab.add_bare_host("far")?;
    let far = lab.namespace("far");
    let v6 = net.alone == 128;
    let (family, prefix) = if v6 { ("-6", "fd80::") } else { ("-4", "10.80.0.") };
    let cable = ["link", "add", "eth1", "type", "veth", "peer", "name", "eth0", "netns", &far];
    lab.ip("router", &cable)?;
    for (host, interface, last) in [("router", "eth1", 1), ("far", "eth0", 2)] {
        lab.ip(host, &["link", "set", interface, "up"])?;
        let address = format!("{prefix}{last}/{}", net.length);
        let nodad: &[&str] = if v6 { &["nodad"] } else { &[] };
        lab.ip(host, &[&["address", "add", &address, "dev", interface], nodad].concat())?;
    }
    lab.ip("router", &["link", "set", "eth1", "mtu", NARROW])?;
    let forwards = ["-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1"];
    lab.exec("router", "sysctl", &forwards)?.ok()?;
    lab.ip("far", &[family, "route", "add", "default", "via", &format!("{prefix}1")])?;
    let (there, via) = (format!("{prefix}0/{}", net.length), net.at(254));
    for host in answering {
        lab.ip(host, &[family, "route", "add", &there, "via", &via])?;
    }
    Ok(())
}

fn large_ones_arrive(net: &Net, method: &str) -> Result<()> {
    let scene = scene(net, method)?;
    let lab = &scene.cluster.lab;
    let flows = Flows::open_with(lab, "client", net.target(), (FLOWS, LARGE))?;
    assert_eq!(flows.lost(), 0, "each flow has one server, in parts or whole");
    let bulk = Streams::open(lab, "far", net.target(), (Stream::Bulk, DOWNLOADS))?;
    assert_eq!(bulk.lost(), 0, "the downloads go on");
    let far = if net.alone == 128 { "fd80::2" } else { "10.80.0.2" };
    let heard = |real: &&str| {
        let route = lab.ip(real, &["route", "get", far]);
        route.is_ok_and(|route| route.contains(&format!("mtu {NARROW}")))
    };
    assert!(["r1", "r2", "r3"].iter().any(heard), "a real server heard of the narrow link");
    Ok(())
}

#[test]
fn parts_and_narrow_links_by_direct_routing() -> Result<()> {
    large_ones_arrive(&V4, "dr")
}

#[test]
fn parts_and_narrow_links_by_direct_routing_and_ipv6() -> Result<()> {
    large_ones_arrive(&V6, "dr")
}

#[test]
fn parts_and_narrow_links_by_nat() -> Result<()> {
    large_ones_arrive(&V4, "nat")
}

#[test]
fn parts_and_narrow_links_by_nat_and_ipv6() -> Result<()> {
    large_ones_arrive(&V6, "nat")
}
