//! Where it is measured: one client, two directors, one real server with a network on
//! each side of them.
//!
//! ```text
//!   client ──┐                      ┌── real (10.78.0.11, behind both)
//!            ├─ front ─ d1: vipd ───┤
//!   real  ───┘   └───── d2: none ───┘
//! ```
//!
//! By direct routing the real server is on the front, and answers past the director; by
//! NAT it is behind, and its way out is the director. Each way has a port of its own: one
//! real server's port through several paths would find its old connections.

use super::load::{Figure, Kind, measure};
use anyhow::{Context, Result};
use chaos_tests::{Cluster, Daemon, Options, run, wait_for};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(20);
/// Of a download in bulk.
const PAGE: usize = 8 << 20;

/// How packets get from the client to the real server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Way {
    /// Routed by the director's kernel, and answered past it.
    PlainDr,
    EbpfDr,
    NftDr,
    /// Routed by the director's kernel, both ways.
    PlainNat,
    EbpfNat,
    NftNat,
    /// As plain both ways, on a host that has vipd's program attached and forwards nothing
    /// by it.
    Attached,
}

impl Way {
    pub(super) const ALL: [Self; 7] = [
        Self::PlainDr,
        Self::EbpfDr,
        Self::NftDr,
        Self::PlainNat,
        Self::EbpfNat,
        Self::NftNat,
        Self::Attached,
    ];

    /// What it is compared with.
    pub(super) fn limit(self) -> Self {
        match self {
            Self::PlainDr | Self::EbpfDr | Self::NftDr => Self::PlainDr,
            Self::PlainNat | Self::EbpfNat | Self::NftNat | Self::Attached => Self::PlainNat,
        }
    }

    fn port(self) -> u16 {
        8001 + self as u16
    }

    fn target(self) -> &'static str {
        match self {
            // An address of the real server's own that the client routes through d2.
            Self::PlainDr => "10.90.0.1",
            Self::EbpfDr | Self::EbpfNat => "10.77.0.100",
            Self::NftDr => "10.77.0.101",
            Self::NftNat => "10.77.0.102",
            Self::PlainNat => "10.78.0.11",
            Self::Attached => "10.79.0.11",
        }
    }
}

/// See the module. Dropping it ends all of it.
pub(super) struct Testbed {
    servers: Vec<Daemon>,
    cluster: Cluster,
}

impl Testbed {
    pub(super) fn new() -> Result<Self> {
        // d1 is n1 of a cluster of its own.
        let mut cluster = Cluster::formed(&Options { nodes: 1, ..Options::default() })?;
        let lab = &mut cluster.lab;
        lab.add_host("d2", 20)?;
        lab.add_host("real", 11)?;
        lab.add_bare_host("behind")?;
        let mut bed = Self { servers: vec![], cluster };
        bed.wire()?;
        bed.nftables()?;
        bed.serve("real")?;
        bed.serve("behind")?;
        bed.virtual_servers()?;
        for way in Way::ALL {
            let answers = wait_for("the real server answers", SOON, || {
                bed.measure(way, Kind::New).ok().map(|_| ())
            });
            answers.with_context(|| format!("{way:?}: {}", bed.url(way, Kind::New)))?;
        }
        Ok(bed)
    }

    fn ip(&self, host: &str, arguments: &str) -> Result<()> {
        let arguments: Vec<&str> = arguments.split(' ').collect();
        self.cluster.lab.ip(host, &arguments).map(|_| ())
    }

    fn sysctl(&self, host: &str, settings: &str) -> Result<()> {
        let settings: Vec<&str> = settings.split(' ').collect();
        let arguments = [&["-qw"], &settings[..]].concat();
        self.cluster.lab.exec(host, "sysctl", &arguments)?.ok().map(|_| ())
    }

    fn wire(&self) -> Result<()> {
        for name in ["n1", "d2"] {
            let inside = self.cluster.lab.namespace(name);
            let last = if name == "n1" { 1 } else { 2 };
            let far = self.cluster.lab.namespace("behind");
            run(
                "ip",
                &[
                    "-n",
                    &inside,
                    "link",
                    "add",
                    "eth1",
                    "type",
                    "veth",
                    "peer",
                    "name",
                    &format!("to-{name}"),
                    "netns",
                    &far,
                ],
            )?
            .ok()?;
            // A network for each director: a reply goes back where it came from.
            let net = if name == "n1" { "10.79.0" } else { "10.78.0" };
            self.ip(name, "link set eth1 up")?;
            self.ip(name, &format!("address add {net}.{last}/24 dev eth1"))?;
            self.ip("behind", &format!("link set to-{name} up"))?;
            self.ip("behind", &format!("address add {net}.11/24 dev to-{name}"))?;
            let table = if name == "n1" { 79 } else { 78 };
            self.ip("behind", &format!("route add default via {net}.{last} table {table}"))?;
            self.ip("behind", &format!("rule add from {net}.11 table {table}"))?;
            let quiet = "net.ipv4.ip_forward=1 net.ipv4.conf.all.send_redirects=0 \
                         net.ipv4.conf.eth0.send_redirects=0";
            self.sysctl(name, quiet)?;
        }
        self.ip("client", "route add 10.90.0.0/24 via 10.77.0.20")?;
        self.ip("client", "route add 10.78.0.0/24 via 10.77.0.20")?;
        self.ip("client", "route add 10.79.0.0/24 via 10.77.0.1")?;
        self.ip("d2", "route add 10.90.0.1/32 via 10.77.0.11")?;
        self.sysctl("real", "net.ipv4.conf.all.arp_ignore=1 net.ipv4.conf.all.arp_announce=2")?;
        for ip in ["10.90.0.1", "10.77.0.100", "10.77.0.101"] {
            self.ip("real", &format!("address add {ip}/32 dev lo"))?;
        }
        // A burst of new connections must not find its ports used up.
        self.sysctl("client", "net.ipv4.ip_local_port_range=1024\t65535 net.ipv4.tcp_tw_reuse=1")
    }

    /// The same two methods by nftables: a frame sent on at ingress, and DNAT with conntrack.
    fn nftables(&self) -> Result<()> {
        for ip in ["10.77.0.101", "10.77.0.102"] {
            self.ip("d2", &format!("address add {ip}/32 dev eth0"))?;
        }
        let (dr, nat) = (Way::NftDr.port(), Way::NftNat.port());
        let rules = format!(
            "table netdev front {{
               chain onward {{
                 type filter hook ingress device eth0 priority 0;
                 ip daddr 10.77.0.101 tcp dport {dr} fwd ip to jhash ip saddr . tcp sport \
                   mod 4093 seed 7 map {{ 0-4092 : 10.77.0.11 }} device eth0
               }}
             }}
             table ip back {{
               chain pre {{
                 type nat hook prerouting priority dstnat;
                 ip daddr 10.77.0.102 tcp dport {nat} dnat to jhash ip saddr . tcp sport \
                   mod 4093 seed 7 map {{ 0-4092 : 10.78.0.11 }}
               }}
             }}"
        );
        let file = self.cluster.dir().join("rules");
        std::fs::write(&file, rules)?;
        let file = file.display().to_string();
        self.cluster.lab.exec("d2", "nft", &["-f", &file])?.ok().map(|_| ())
    }

    fn serve(&mut self, host: &str) -> Result<()> {
        let dir = self.cluster.dir().join("nginx").join(host);
        std::fs::create_dir_all(dir.join("html"))?;
        std::fs::write(dir.join("html/index.html"), "well")?;
        std::fs::write(dir.join("html/big"), vec![b'x'; PAGE])?;
        let listen: String =
            Way::ALL.iter().map(|way| format!("listen {} backlog=4096;", way.port())).collect();
        let places: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .iter()
            .map(|place| format!("{place}_temp_path {place};"))
            .collect();
        let config = format!(
            "pid nginx.pid; error_log stderr crit; worker_processes 1;
             events {{ worker_connections 4096; }}
             http {{ access_log off; sendfile on; keepalive_requests 1000000; {places}
               server {{ {listen} root html; }} }}"
        );
        std::fs::write(dir.join("nginx.conf"), config)?;
        self.servers.push(Daemon::nginx(&self.cluster.lab, host, &dir)?);
        Ok(())
    }

    fn virtual_servers(&self) -> Result<()> {
        let n1 = self.cluster.host("n1");
        n1.ctl_ok(&["vip", "add", "web", "--address", "10.77.0.100/24"])?;
        for (name, way, method, real) in
            [("dr", Way::EbpfDr, "dr", "10.77.0.11"), ("nat", Way::EbpfNat, "nat", "10.79.0.11")]
        {
            let port = way.port().to_string();
            let add = ["vs", "add", name, "--vip", "web", "--port", &port, "--forward", method];
            n1.ctl_ok(&[&add[..], &["--real", real]].concat())?;
        }
        Ok(())
    }

    fn url(&self, way: Way, kind: Kind) -> String {
        let page = if kind == Kind::Bulk { "big" } else { "" };
        format!("http://{}:{}/{page}", way.target(), way.port())
    }

    pub(super) fn measure(&self, way: Way, kind: Kind) -> Result<Figure> {
        measure(&self.cluster.lab, kind, &self.url(way, kind))
            .with_context(|| format!("{way:?} {kind:?}"))
    }
}
