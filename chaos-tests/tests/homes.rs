//! Where an address stands on a host: alone, on the interface that it belongs
//! on, with a way to its neighbours, and never in the way of the host's own.

use anyhow::Result;
use chaos_tests::{Cluster, Lab, Options, wait_for};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(10);

fn alone(settings: &[&str]) -> Result<Cluster> {
    let settings = settings.iter().map(ToString::to_string).collect();
    let cluster = Cluster::bare(&Options { nodes: 1, settings, ..Options::default() })?;
    cluster.host("n1").ctl_ok(&["init"])?;
    Ok(cluster)
}

/// The host's own address goes and comes back, as with DHCP or networkd.
fn renew(lab: &Lab, host: &str, address: &str, device: &str) -> Result<()> {
    lab.ip(host, &["address", "del", address, "dev", device])?;
    lab.ip(host, &["address", "add", address, "brd", "+", "dev", device]).map(|_| ())
}

fn answers(lab: &Lab, address: &str) -> bool {
    let ping = ["-c1", "-W1", address];
    lab.exec("client", "ping", &ping).is_ok_and(|outcome| outcome.code == Some(0))
}

#[test]
fn the_hosts_own_address_outlives_a_renewal_and_the_vip() -> Result<()> {
    let cluster = alone(&[])?;
    let (lab, n1) = (&cluster.lab, cluster.host("n1"));
    n1.ctl_ok(&["vip", "add", "web", "--address", "10.77.0.100/24", "--interface", "eth0"])?;
    assert!(lab.ip("n1", &["-4", "-br", "address", "show", "eth0"])?.contains("10.77.0.100/32"));
    renew(lab, "n1", "10.77.0.1/24", "eth0")?;
    let routes = lab.ip("n1", &["route"])?;
    assert!(routes.contains("10.77.0.0/24 dev eth0"), "no way to its network: {routes}");
    assert!(answers(lab, "10.77.0.1") && answers(lab, "10.77.0.100"));
    n1.ctl_ok(&["vip", "remove", "web"])?;
    let left = lab.ip("n1", &["-4", "-br", "address", "show", "eth0"])?;
    assert!(left.contains("10.77.0.1/24") && !left.contains("10.77.0.100"), "{left}");
    assert!(answers(lab, "10.77.0.1"));
    Ok(())
}

/// A second network, with the default route, that is not the VIP's.
fn with_management(cluster: &Cluster) -> Result<()> {
    for (number, host) in (1..).zip(&cluster.hosts) {
        let (lab, name) = (&cluster.lab, host.name.as_str());
        let (port, inside) = (format!("m{name}"), lab.namespace(name));
        lab.ip(
            "sw",
            &["link", "add", &port, "type", "veth", "peer", "name", "mg0", "netns", &inside],
        )?;
        lab.ip("sw", &["link", "set", &port, "up"])?;
        lab.ip(name, &["link", "set", "mg0", "up"])?;
        lab.ip(name, &["address", "add", &format!("10.66.0.{number}/24"), "dev", "mg0"])?;
        lab.ip(name, &["route", "add", "default", "via", "10.66.0.254"])?;
    }
    Ok(())
}

fn device_of(lab: &Lab, host: &str, address: &str) -> Result<Option<String>> {
    let text = lab.ip(host, &["-br", "address"])?;
    let line = text.lines().find(|line| line.contains(&format!("{address}/")));
    Ok(line.and_then(|line| line.split(['@', ' ']).next()).map(ToOwned::to_owned))
}

/// In the moment without the LAN's own address there is a default route, and the
/// VIP goes nowhere by it, held or claimed.
#[test]
fn a_vip_never_follows_the_default_route_to_another_network() -> Result<()> {
    let cluster = alone(&[])?;
    with_management(&cluster)?;
    let (lab, n1) = (&cluster.lab, cluster.host("n1"));
    n1.ctl_ok(&["vip", "add", "web", "--address", "10.77.0.100/24"])?;
    lab.ip("n1", &["address", "del", "10.77.0.1/24", "dev", "eth0"])?;
    for _ in 0..20 {
        assert_eq!(device_of(lab, "n1", "10.77.0.100")?.as_deref(), Some("eth0"), "held");
        std::thread::sleep(Duration::from_millis(20));
    }
    n1.ctl_ok(&["vip", "remove", "web"])?;
    let add = ["vip", "add", "db", "--address", "10.77.0.101/24", "--no-wait"];
    let refused = n1.ctl(&add[..5])?;
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.stderr.contains("no interface has a subnet with 10.77.0.101"), "{refused:?}");
    assert_eq!(n1.ctl_json(&["vip", "list"])?.as_array().map(Vec::len), Some(0));
    n1.ctl_ok(&add)?;
    assert_eq!(device_of(lab, "n1", "10.77.0.101")?, None);
    // It comes with the address, not after a pause.
    lab.ip("n1", &["address", "add", "10.77.0.1/24", "dev", "eth0"])?;
    wait_for("the VIP", Duration::from_secs(1), || answers(lab, "10.77.0.101").then_some(()))?;
    assert_eq!(device_of(lab, "n1", "10.77.0.101")?.as_deref(), Some("eth0"));
    Ok(())
}

/// The network of a VIP moves to another interface: the VIP goes along.
#[test]
fn a_vip_moves_to_the_interface_that_its_subnet_moved_to() -> Result<()> {
    let cluster = alone(&[])?;
    with_management(&cluster)?;
    let (lab, n1) = (&cluster.lab, cluster.host("n1"));
    lab.ip("sw", &["link", "set", "mn1", "master", "br0"])?;
    n1.ctl_ok(&["vip", "add", "web", "--address", "10.77.0.100/24"])?;
    lab.ip("n1", &["address", "del", "10.77.0.1/24", "dev", "eth0"])?;
    lab.ip("n1", &["address", "add", "10.77.0.1/24", "dev", "mg0"])?;
    wait_for("the VIP on mg0", SOON, || {
        let device = device_of(lab, "n1", "10.77.0.100").ok()?;
        (device.as_deref() == Some("mg0")).then_some(())
    })?;
    wait_for("an answer", SOON, || answers(lab, "10.77.0.100").then_some(()))?;
    assert_eq!(device_of(lab, "n1", "10.77.0.100")?.as_deref(), Some("mg0"), "and nowhere else");
    wait_for("a new epoch for it", SOON, || {
        n1.ctl_ok(&["events"]).ok()?.contains("answers on n1 at epoch 2").then_some(())
    })?;
    assert!(n1.log().contains("on another interface than mg0, where it belongs"), "{}", n1.log());
    Ok(())
}

/// Public VIPs on a host with a private address: neighbours are reached directly,
/// by one route that goes with the last of them.
#[test]
fn vips_of_a_network_that_the_host_is_not_in_bring_the_way_to_it() -> Result<()> {
    let cluster = alone(&[])?;
    with_management(&cluster)?;
    let (lab, n1) = (&cluster.lab, cluster.host("n1"));
    lab.ip("client", &["address", "add", "203.0.113.9/28", "dev", "eth0"])?;
    for (net, device) in [("all", ""), ("eth0", ""), ("mg0", "")] {
        let strict = format!("echo 1 > /proc/sys/net/ipv4/conf/{net}/rp_filter{device}");
        lab.exec("n1", "sh", &["-c", &strict])?.ok()?;
    }
    let route = || lab.ip("n1", &["route", "show", "203.0.113.0/28"]);
    for (name, address) in [("a", "203.0.113.5/28"), ("b", "203.0.113.6/28")] {
        n1.ctl_ok(&["vip", "add", name, "--address", address, "--interface", "eth0"])?;
        assert!(answers(lab, &address[..11]), "{name}; {}", route()?);
    }
    assert_eq!(route()?.lines().count(), 1, "{}", route()?);
    assert!(route()?.contains("proto 118"), "{}", route()?);
    // Somebody flushes it.
    lab.ip("n1", &["route", "del", "203.0.113.0/28"])?;
    wait_for("the route to be back", SOON, || (!route().ok()?.is_empty()).then_some(()))?;
    n1.ctl_ok(&["vip", "remove", "a"])?;
    assert!(answers(lab, "203.0.113.6"));
    n1.ctl_ok(&["vip", "remove", "b"])?;
    wait_for("the route to be gone", SOON, || route().ok()?.is_empty().then_some(()))?;
    // One that the host has already stays its own.
    lab.ip("n1", &["route", "add", "203.0.113.0/28", "dev", "eth0"])?;
    n1.ctl_ok(&["vip", "add", "a", "--address", "203.0.113.5/28", "--interface", "eth0"])?;
    n1.ctl_ok(&["vip", "remove", "a"])?;
    assert!(route()?.contains("scope link"), "the host's own: {}", route()?);
    Ok(())
}

/// What a host's own subnet has for itself is nobody's, however it is written;
/// nor is any gateway, by whatever table or among several.
#[test]
fn edges_of_the_subnet_and_every_gateway_are_refused() -> Result<()> {
    let cluster = alone(&[])?;
    let (lab, n1) = (&cluster.lab, cluster.host("n1"));
    let paths = ["nexthop", "via", "10.77.0.251", "nexthop", "via", "10.77.0.252"];
    lab.ip("n1", &[&["route", "add", "198.51.100.0/24"], &paths[..]].concat())?;
    lab.ip("n1", &["route", "add", "default", "via", "10.77.0.253", "table", "77"])?;
    for (at, (address, why)) in (0..).zip([
        ("10.77.0.255/32", "not a unicast address"),
        ("10.77.0.0/32", "not a unicast address"),
        ("10.77.0.251/24", "a gateway of the host"),
        ("10.77.0.252/24", "a gateway of the host"),
        ("10.77.0.253/24", "a gateway of the host"),
    ]) {
        let name = format!("v{at}");
        let add = ["vip", "add", &name, "--address", address];
        let refused = n1.ctl(&[&add[..], &["--interface", "eth0"]].concat())?;
        assert_eq!(refused.code, Some(1), "{address}: {refused:?}");
        assert!(refused.stderr.contains(why), "{address}: {refused:?}");
        assert_eq!(device_of(lab, "n1", address.split('/').next().unwrap_or(address))?, None);
    }
    Ok(())
}

/// Neighbours hear of a new Ethernet address at once.
#[test]
fn a_changed_ethernet_address_is_announced() -> Result<()> {
    let cluster = alone(&[])?;
    let (lab, n1) = (&cluster.lab, cluster.host("n1"));
    n1.ctl_ok(&["vip", "add", "web", "--address", "10.77.0.100/24"])?;
    assert!(answers(lab, "10.77.0.100"));
    let new = "02:00:00:00:77:01";
    lab.ip("n1", &["link", "set", "eth0", "address", new])?;
    wait_for("the client to know", Duration::from_secs(2), || {
        let known = lab.ip("client", &["neigh", "show", "10.77.0.100"]).ok()?;
        known.contains(new).then_some(())
    })?;
    assert!(answers(lab, "10.77.0.100"));
    Ok(())
}

/// A switch looks for the VIP where its packets last came from: when a bridge of
/// the host leaves by another port, neighbours hear it again.
#[test]
fn a_bridge_that_leaves_by_another_port_announces() -> Result<()> {
    let cluster = alone(&[])?;
    let (lab, n1) = (&cluster.lab, cluster.host("n1"));
    lab.ip("n1", &["link", "add", "br1", "type", "bridge"])?;
    lab.ip("n1", &["link", "set", "br1", "address", "02:00:00:00:77:02", "up"])?;
    lab.ip("n1", &["link", "set", "eth0", "master", "br1"])?;
    n1.ctl_ok(&["vip", "add", "web", "--address", "10.77.0.100/24", "--interface", "br1"])?;
    let last = vip_core::ANNOUNCE_OFFSETS.last().copied().unwrap_or_default();
    std::thread::sleep(last + Duration::from_millis(500));
    let inside = lab.namespace("n1");
    let cable =
        ["link", "add", "pspare", "type", "veth", "peer", "name", "spare", "netns", &inside];
    lab.ip("sw", &cable)?;
    let heard = std::thread::scope(|scope| -> Result<_> {
        let listen = "arp and arp[14:4] = 0x0a4d0064 and arp[24:4] = 0x0a4d0064";
        let words = ["5", "tcpdump", "-i", "eth0", "-n", "-c", "1", listen];
        let heard = scope.spawn(move || lab.exec("client", "timeout", &words));
        wait_for("the listener", SOON, || {
            let packets = lab.exec("client", "cat", &["/proc/net/packet"]).ok()?.stdout;
            (packets.lines().count() > 1).then_some(())
        })?;
        lab.ip("n1", &["link", "set", "spare", "master", "br1", "up"])?;
        lab.ip("sw", &["link", "set", "pspare", "up"])?;
        heard.join().expect("no panic")
    })?;
    assert_eq!(heard.code, Some(0), "no announcement: {heard:?}");
    Ok(())
}

/// IPv6 is switched off and on again: said in words, and claimed again without a
/// pause.
#[test]
fn a_vip_comes_back_with_ipv6() -> Result<()> {
    let cluster = alone(&[])?;
    let (lab, n1) = (&cluster.lab, cluster.host("n1"));
    n1.ctl_ok(&["vip", "add", "web", "--address", "fd77::100/64", "--interface", "eth0"])?;
    assert!(answers(lab, "fd77::100"));
    let switch = |off: &str| {
        let line = format!("echo {off} > /proc/sys/net/ipv6/conf/eth0/disable_ipv6");
        lab.exec("n1", "sh", &["-c", &line])?.ok()
    };
    switch("1")?;
    wait_for("the reason", SOON, || {
        n1.ctl_ok(&["status"]).ok()?.contains("IPv6 is off on eth0").then_some(())
    })?;
    // Longer than the first pauses between attempts.
    std::thread::sleep(Duration::from_secs(4));
    switch("0")?;
    wait_for("an answer", Duration::from_secs(3), || answers(lab, "fd77::100").then_some(()))
}

/// An address that a member has for itself where nobody on the LAN can ask for
/// it: the member says so, and nothing is taken.
#[test]
fn a_members_own_address_is_refused_though_it_answers_no_question() -> Result<()> {
    let cluster = Cluster::formed(&Options::default())?;
    cluster.lab.ip("n3", &["address", "add", "10.77.0.99/32", "dev", "lo"])?;
    let n1 = cluster.host("n1");
    wait_for("n3 to have looked", SOON, || {
        let refused = n1.ctl(&["vip", "add", "web", "--address", "10.77.0.99/24"]).ok()?;
        let said = refused.stderr.contains("n3 has 10.77.0.99 of web for itself");
        if refused.code == Some(0) {
            let _ = n1.ctl(&["vip", "remove", "web"]);
        }
        (refused.code == Some(1) && said).then_some(())
    })?;
    assert_eq!(n1.ctl_json(&["vip", "list"])?.as_array().map(Vec::len), Some(0));
    Ok(())
}
