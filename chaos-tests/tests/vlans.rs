//! Virtual servers on VLAN devices. Needs a kernel that has them: `cargo xtask lab` does.

use anyhow::Result;
use chaos_tests::{Cluster, Connections, Lab, Options, RealServer, Stream, Streams};
use std::net::SocketAddr;

const CONNECTIONS: usize = 30;
const BULK: usize = 4;

/// A device for one VLAN of a host's interface, with an address.
fn join(lab: &Lab, host: &str, vlan: u8, address: &str) -> Result<()> {
    let (device, id) = (format!("eth0.{vlan}"), vlan.to_string());
    lab.ip(host, &["link", "add", "link", "eth0", "name", &device, "type", "vlan", "id", &id])?;
    lab.ip(host, &["address", "add", address, "dev", &device])?;
    lab.ip(host, &["link", "set", &device, "up"]).map(|_| ())
}

fn by_dr(lab: &mut Lab, name: &str, last: u8, vip: SocketAddr) -> Result<RealServer> {
    lab.add_host(name, last)?;
    join(lab, name, 7, &format!("10.88.0.{last}/24"))?;
    let quiet = ["net.ipv4.conf.all.arp_ignore=1", "net.ipv4.conf.all.arp_announce=2"];
    lab.exec(name, "sysctl", &[&["-qw"], &quiet[..]].concat())?.ok()?;
    lab.ip(name, &["address", "add", &format!("{}/32", vip.ip()), "dev", "lo"])?;
    RealServer::start(lab, name, vip)
}

fn by_nat(lab: &mut Lab, name: &str, last: u8) -> Result<RealServer> {
    lab.add_host(name, last)?;
    join(lab, name, 8, &format!("10.89.0.{last}/24"))?;
    lab.ip(name, &["route", "add", "default", "via", "10.89.0.100"])?;
    RealServer::start(lab, name, SocketAddr::new([10, 89, 0, last].into(), 8080))
}

/// Clients and direct-routing real servers on one VLAN, those behind NAT on another, all on
/// one cable.
#[test]
#[ignore = "needs VLAN devices: cargo xtask lab"]
fn virtual_servers_work_on_vlan_devices() -> Result<()> {
    let mut cluster = Cluster::formed(&Options { nodes: 1, ..Options::default() })?;
    let vip = SocketAddr::new([10, 88, 0, 100].into(), 80);
    let mut servers = vec![];
    for (name, last) in [("r1", 11), ("r2", 12)] {
        servers.push(by_dr(&mut cluster.lab, name, last, vip)?);
    }
    for (name, last) in [("r3", 13), ("r4", 14)] {
        servers.push(by_nat(&mut cluster.lab, name, last)?);
    }
    join(&cluster.lab, "client", 7, "10.88.0.250/24")?;
    for (vlan, address) in [(7, "10.88.0.1/24"), (8, "10.89.0.1/24")] {
        join(&cluster.lab, "n1", vlan, address)?;
    }
    let n1 = cluster.host("n1");
    n1.ctl_ok(&["vip", "add", "web", "--address", "10.88.0.100/24"])?;
    n1.ctl_ok(&["vip", "add", "inside", "--address", "10.89.0.100/24"])?;
    let add = |name: &str, port: &str, reals: [&str; 2]| {
        let add = ["vs", "add", name, "--vip", "web", "--port", port];
        n1.ctl_ok(&[&add[..], &["--real", reals[0], "--real", reals[1]]].concat())
    };
    assert!(add("front", "80", ["10.88.0.11", "10.88.0.12"])?.contains("by dr"));
    assert!(add("back", "81", ["10.89.0.13:8080", "10.89.0.14:8080"])?.contains("by nat"));
    let back = SocketAddr::new(vip.ip(), 81);
    for (server, to, first) in [("front", vip, "10.88.0.11"), ("back", back, "10.89.0.13:8080")] {
        let mut connections = Connections::open(&cluster.lab, "client", to, CONNECTIONS)?;
        assert_eq!(connections.of_each().len(), 2, "{server}: {:?}", connections.of_each());
        let bulk = Streams::open(&cluster.lab, "client", to, (Stream::Bulk, BULK))?;
        n1.ctl_ok(&["real", "drain", server, first])?;
        assert_eq!((connections.lost(), bulk.lost()), (0, 0), "{server}");
        let newer = Connections::open(&cluster.lab, "client", to, CONNECTIONS)?;
        assert_eq!(newer.of_each().len(), 1, "{server}: {:?}", newer.of_each());
    }
    Ok(())
}
