//! Hosts that real servers run on: beside the nodes, and behind them.

use crate::cluster::Cluster;
use crate::net::Lab;
use crate::traffic::RealServer;
use anyhow::Result;
use std::net::{IpAddr, SocketAddr};

/// The addresses of a test, all of one family.
#[derive(Clone, Copy, Debug)]
pub struct Net {
    /// Where clients and nodes are, without the last part.
    pub front: &'static str,
    /// A network behind the nodes, the same.
    pub back: &'static str,
    /// Of its prefixes.
    pub length: u8,
    /// Of a prefix with one address.
    pub alone: u8,
}

/// IPv4.
pub const V4: Net = Net { front: "10.77.0.", back: "10.78.0.", length: 24, alone: 32 };
/// IPv6.
pub const V6: Net = Net { front: "fd77::", back: "fd78::", length: 64, alone: 128 };
/// The port of the VIP.
const PORT: u16 = 80;
/// That of real servers behind the nodes.
const BACK_PORT: u16 = 8080;

impl Net {
    /// An address on the front.
    #[must_use]
    pub fn at(&self, last: u8) -> String {
        format!("{}{last}", self.front)
    }

    /// The VIP.
    #[must_use]
    pub fn vip(&self) -> String {
        self.at(100)
    }

    /// Its port.
    ///
    /// # Panics
    /// Never: it is an address.
    #[must_use]
    pub fn target(&self) -> SocketAddr {
        SocketAddr::new(self.ip(&self.vip()), PORT)
    }

    /// All addresses of a host, at the VIP's port.
    #[must_use]
    pub fn any(&self) -> SocketAddr {
        SocketAddr::new(self.ip(if self.alone == 128 { "::" } else { "0.0.0.0" }), PORT)
    }

    /// A real server behind the nodes.
    #[must_use]
    pub fn place(&self, last: u8) -> SocketAddr {
        SocketAddr::new(self.ip(&format!("{}{last}", self.back)), BACK_PORT)
    }

    fn ip(&self, text: &str) -> IpAddr {
        text.parse().expect("the constants are addresses")
    }

    fn add(&self, lab: &Lab, host: &str, (address, interface): (&str, &str)) -> Result<()> {
        let nodad: &[&str] = if self.alone == 128 { &["nodad"] } else { &[] };
        lab.ip(host, &[&["address", "add", address, "dev", interface], nodad].concat())?;
        Ok(())
    }

    /// A host beside the nodes that takes what is for the VIP, and does not say so on the
    /// network.
    ///
    /// # Errors
    /// A step failed.
    pub fn by_dr(&self, lab: &mut Lab, name: &str, last: u8) -> Result<RealServer> {
        lab.add_host(name, last)?;
        let quiet = ["net.ipv4.conf.all.arp_ignore=1", "net.ipv4.conf.all.arp_announce=2"];
        lab.exec(name, "sysctl", &[&["-qw"], &quiet[..]].concat())?.ok()?;
        self.add(lab, name, (&format!("{}/{}", self.vip(), self.alone), "lo"))?;
        RealServer::start(lab, name, self.target())
    }

    /// VIP `web` and the virtual server `front` of it, with two real servers beside the
    /// nodes.
    ///
    /// # Errors
    /// A step failed.
    pub fn front(&self, cluster: &mut Cluster) -> Result<Vec<RealServer>> {
        let lab = &mut cluster.lab;
        let servers = vec![self.by_dr(lab, "r1", 11)?, self.by_dr(lab, "r2", 12)?];
        let n1 = cluster.host("n1");
        let (vip, reals) = (format!("{}/{}", self.vip(), self.length), [self.at(11), self.at(12)]);
        n1.ctl_ok(&["vip", "add", "web", "--address", &vip])?;
        let add = ["vs", "add", "front", "--vip", "web", "--port", "80"];
        n1.ctl_ok(&[&add[..], &["--real", &reals[0], "--real", &reals[1]]].concat())?;
        Ok(servers)
    }

    /// A second network, behind three nodes.
    ///
    /// # Errors
    /// `ip` failed.
    pub fn behind(&self, lab: &Lab) -> Result<()> {
        lab.ip("sw", &["link", "add", "back", "type", "bridge", "mcast_snooping", "0"])?;
        lab.ip("sw", &["link", "set", "back", "up"])?;
        for (node, last) in [("n1", 1), ("n2", 2), ("n3", 3)] {
            self.on_the_back(lab, node, ("eth1", last))?;
        }
        Ok(())
    }

    fn on_the_back(&self, lab: &Lab, name: &str, (interface, last): (&str, u8)) -> Result<()> {
        let (inside, port) = (lab.namespace(name), format!("b{name}"));
        let peer = ["type", "veth", "peer", "name", interface, "netns", &inside];
        lab.ip("sw", &[&["link", "add", &port], &peer[..]].concat())?;
        lab.ip("sw", &["link", "set", &port, "master", "back", "up"])?;
        lab.ip(name, &["link", "set", interface, "up"])?;
        self.add(lab, name, (&format!("{}{last}/{}", self.back, self.length), interface))
    }

    /// A host there, whose way out is a VIP with this last part.
    ///
    /// # Errors
    /// A step failed.
    pub fn by_nat(&self, lab: &mut Lab, name: &str, last: u8) -> Result<RealServer> {
        lab.add_bare_host(name)?;
        self.on_the_back(lab, name, ("eth0", last))?;
        let gateway = format!("{}100", self.back);
        lab.ip(name, &["route", "add", "default", "via", &gateway])?;
        RealServer::start(lab, name, self.place(last))
    }
}
