//! Interfaces that come while nobody looks, that no gate fits, and traffic that
//! only passes through.

use anyhow::{Context, Result};
use chaos_tests::{Cluster, Lab, Options, Probe, Process, wait_for};
use nix::sys::signal::Signal;
use std::fs::{File, OpenOptions};
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

const VIP: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 100);
const SOON: Duration = Duration::from_secs(10);

fn cluster() -> Result<Cluster> {
    let cluster = Cluster::formed(&Options::default())?;
    cluster.host("n1").ctl_ok(&["vip", "add", "web", "--address", "10.77.0.100/24"])?;
    cluster.wait_until_settled("n3")?;
    Ok(cluster)
}

/// A second cable from a host to the switch. Returns its Ethernet address.
fn second_cable(lab: &Lab, host: &str) -> Result<[u8; 6]> {
    let namespace = lab.namespace(host);
    let port = format!("q{host}");
    lab.ip(
        "sw",
        &["link", "add", &port, "type", "veth", "peer", "name", "eth1", "netns", &namespace],
    )?;
    lab.ip("sw", &["link", "set", &port, "master", "br0", "up"])?;
    lab.ip(host, &["link", "set", "eth1", "up"])?;
    lab.mac_of(host, "eth1")
}

#[test]
fn an_interface_that_appears_while_the_guard_is_frozen_answers_for_nothing() -> Result<()> {
    let cluster = cluster()?;
    let lab = &cluster.lab;
    cluster.host("n1").signal(&[Process::Agent, Process::Guard], Signal::SIGSTOP)?;
    let new = cluster.wait_for_takeover("n2", "n1")?;
    let late = second_cable(lab, "n1")?;
    let probe = Probe::start_towards(lab, VIP, &[late])?;
    // For as long as the frozen host has the address, which the kernel deletes in
    // the end. Each time the client asks everybody who has the VIP.
    let begun = Instant::now();
    let mut exposed = Duration::ZERO;
    while exposed < Duration::from_millis(1200) && lab.has_address("n1", "10.77.0.100")? {
        lab.ip("client", &["neigh", "flush", "dev", "eth0"])?;
        std::thread::sleep(Duration::from_millis(20));
        exposed = begun.elapsed();
    }
    assert!(exposed > Duration::from_millis(200), "it had the address: {exposed:?}");
    let trace = probe.finish()?;
    let (asked, holder) = (trace.replies.len(), lab.mac(&new)?);
    assert!(asked > 100, "the new holder answers: {asked}");
    let strangers: Vec<_> = trace.claimants().into_iter().filter(|mac| *mac != holder).collect();
    assert!(strangers.is_empty(), "{strangers:x?} beside {holder:x?}; late {late:x?}");
    Ok(())
}

/// The same for IPv6. Neighbour solicitations are answered for the addresses of
/// the interface that they came in by alone, so the client is told where to send.
#[test]
fn an_interface_that_appears_while_the_guard_is_frozen_takes_no_ipv6() -> Result<()> {
    let cluster = Cluster::formed(&Options::default())?;
    let lab = &cluster.lab;
    let n1 = cluster.host("n1");
    n1.ctl_ok(&["vip", "add", "web", "--address", "10.77.0.100/24", "--address", "fd77::100/64"])?;
    cluster.wait_until_settled("n3")?;
    let tell = |mac: [u8; 6]| {
        let mac = mac.map(|byte| format!("{byte:02x}")).join(":");
        let entry = ["neigh", "replace", "fd77::100", "lladdr", &mac, "dev", "eth0"];
        lab.ip("client", &[&["-6"], &entry[..], &["nud", "permanent"]].concat())
    };
    let ask = || -> Result<bool> {
        let ping = lab.exec("client", "ping", &["-6", "-c1", "-W0.1", "fd77::100"])?;
        Ok(ping.code == Some(0))
    };
    // An echo is answered by the interface that it came in by, if that has a route
    // and, at once here, an address of its own to ask for the way back.
    let no_dad = "echo 0 > /proc/sys/net/ipv6/conf/default/accept_dad";
    lab.exec("n1", "sh", &["-c", no_dad])?.ok()?;
    let cable = || -> Result<[u8; 6]> {
        let mac = second_cable(lab, "n1")?;
        lab.ip("n1", &["address", "add", "fd77::51/64", "dev", "eth1", "nodad"])?;
        Ok(mac)
    };
    // By the new interface, while its host is the holder: the way is open.
    tell(cable()?)?;
    wait_for("an answer by the second cable", SOON, || ask().ok()?.then_some(()))?;
    lab.ip("n1", &["link", "delete", "eth1"])?;

    n1.signal(&[Process::Agent, Process::Guard], Signal::SIGSTOP)?;
    cluster.wait_for_takeover("n2", "n1")?;
    tell(cable()?)?;
    let (mut asked, mut answered) = (0, 0);
    while asked < 10 && lab.has_address("n1", "fd77::100")? {
        answered += u32::from(ask()?);
        asked += 1;
    }
    assert!(asked > 0, "it had the address");
    assert_eq!(answered, 0, "of {asked}");
    Ok(())
}

/// A network behind a host, with one machine in it.
fn pod_behind(lab: &mut Lab, host: &str, number: u8) -> Result<String> {
    let pod = format!("pod{number}");
    lab.add_bare_host(&pod)?;
    let inside = lab.namespace(&pod);
    let (port, near, far) =
        (format!("to{pod}"), format!("10.88.{number}.1/24"), format!("10.88.{number}.2/24"));
    lab.ip(
        host,
        &["link", "add", &port, "type", "veth", "peer", "name", "eth0", "netns", &inside],
    )?;
    lab.ip(host, &["address", "add", &near, "dev", &port])?;
    lab.ip(host, &["link", "set", &port, "up"])?;
    lab.ip(&pod, &["link", "set", "eth0", "up"])?;
    lab.ip(&pod, &["address", "add", &far, "dev", "eth0"])?;
    lab.ip(&pod, &["route", "add", "default", "via", near.trim_end_matches("/24")])?;
    lab.exec(host, "sh", &["-c", "echo 1 > /proc/sys/net/ipv4/ip_forward"])?.ok()?;
    for other in ["n1", "n2", "n3"].into_iter().filter(|other| *other != host) {
        let (net, via) = (format!("10.88.{number}.0/24"), format!("10.77.0.{number}"));
        lab.ip(other, &["route", "add", &net, "via", &via])?;
    }
    Ok(pod)
}

/// A pod, container or virtual machine that is routed behind a node reaches the
/// VIP wherever it is, also behind nodes that had it before.
#[test]
fn what_is_routed_behind_a_former_holder_reaches_the_vip() -> Result<()> {
    let mut cluster = cluster()?;
    let pods = [("n1", 1), ("n2", 2), ("n3", 3)]
        .into_iter()
        .map(|(host, number)| pod_behind(&mut cluster.lab, host, number))
        .collect::<Result<Vec<_>>>()?;
    for (turn, to) in
        ["n2", "n3", "n1", "n2", "n1", "n3", "n2", "n3", "n1", "n2"].iter().enumerate()
    {
        cluster.host("n1").ctl_ok(&["vip", "move", "web", "--to", to])?;
        if turn == 4 {
            // Another takes over, and the next guard here purges what is left.
            // Frozen first, so that it does not let go in order.
            cluster.host(to).signal(&[Process::Guard], Signal::SIGSTOP)?;
            cluster.host_mut(to).kill_all();
            cluster.wait_for_takeover("n2", to)?;
            cluster.host_mut(to).start()?;
            wait_for("its next guard", SOON, || {
                let starts = cluster.host(to).log().matches("guard ready").count();
                (starts > 1).then_some(())
            })?;
        }
        for pod in &pods {
            let ask =
                || cluster.lab.exec(pod, "ping", &["-c1", "-W1", "10.77.0.100"]).ok()?.ok().ok();
            wait_for("an answer", SOON, ask).with_context(|| format!("{pod} asks {to}"))?;
        }
    }
    Ok(())
}

/// A tap of a hardware type that is neither Ethernet nor none, for as long as
/// the value lives.
fn odd_tap(lab: &Lab, host: &str) -> Result<File> {
    const TUNSETIFF: libc::c_ulong = 0x4004_54ca;
    const TUNSETLINK: libc::c_ulong = 0x4004_54cd;
    const IFF_TAP: i16 = 0x0002;
    const ARPHRD_INFINIBAND: libc::c_ulong = 32;
    let file = std::thread::scope(|scope| {
        let open = scope.spawn(|| -> Result<File> {
            lab.enter(host)?;
            let file = OpenOptions::new().read(true).write(true).open("/dev/net/tun")?;
            let mut request = [0u8; 40];
            request[..4].copy_from_slice(b"odd0");
            request[16..18].copy_from_slice(&IFF_TAP.to_ne_bytes());
            #[expect(unsafe_code, reason = "no wrapper knows these requests")]
            // SAFETY: the first request reads and writes a struct ifreq, which
            // `request` is as long as; the second takes a number.
            let results = unsafe {
                [
                    libc::ioctl(file.as_raw_fd(), TUNSETIFF, request.as_mut_ptr()),
                    libc::ioctl(file.as_raw_fd(), TUNSETLINK, ARPHRD_INFINIBAND),
                ]
            };
            anyhow::ensure!(results == [0, 0], std::io::Error::last_os_error());
            Ok(file)
        });
        open.join().expect("no panic")
    })?;
    lab.ip(host, &["link", "set", "odd0", "up"])?;
    Ok(file)
}

#[test]
fn an_interface_that_the_gate_cannot_parse_holds_nothing_and_the_others_go_on() -> Result<()> {
    let cluster = Cluster::formed(&Options { nodes: 1, ..Options::default() })?;
    let n1 = cluster.host("n1");
    n1.ctl_ok(&["vip", "add", "web", "--address", "10.77.0.100/24"])?;
    let _tap = odd_tap(&cluster.lab, "n1")?;
    let add = ["vip", "add", "odd", "--address", "10.99.0.1/24", "--interface", "odd0"];
    let odd = n1.ctl(&add)?;
    assert_eq!(odd.code, Some(1));
    assert!(odd.stderr.contains("hardware type 32"), "{}", odd.stderr);
    let add = ["vip", "add", "far", "--address", "10.9.9.9/24", "--no-wait"];
    let far = n1.ctl(&add[..5])?;
    n1.ctl_ok(&add)?;
    let words = "on n1: no interface has a subnet with 10.9.9.9: name one";
    assert!(far.stderr.contains(words), "{}", far.stderr);
    let cloud = ["--timeout", "2s", "vip", "add", "cloud", "--address", "169.254.169.254/32"];
    let cloud = n1.ctl(&[&cloud[..], &["--interface", "eth0"]].concat())?;
    assert!(cloud.stderr.contains("169.254.169.254 is outside `allow`"), "{}", cloud.stderr);
    let told = "far cannot be on n1: no interface has a subnet with 10.9.9.9: name one";
    for command in ["status", "events"] {
        let text = n1.ctl_ok(&[command])?;
        assert!(text.contains(told), "{command}: {text}");
    }
    assert!(!cluster.lab.ip("n1", &["address", "show"])?.contains("10.99.0.1"));
    let web = n1.ctl_json(&["vip", "show", "web"])?;
    assert_eq!((web["answers"].as_bool(), web["epoch"].as_u64()), (Some(true), Some(1)), "{web}");
    Ok(())
}
