//! What can be done to a cluster from outside, and undone.

use crate::busy::BusyLoops;
use crate::cluster::Cluster;
use crate::freezer::Freezer;
use crate::host::Process;
use anyhow::Result;
use nix::sys::signal::Signal;
use std::fmt;
use std::time::Duration;

/// A fault. Hosts are named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// SIGKILL; what has a parent is started again by it.
    Kill(String, Vec<Process>),
    /// The guard's program is replaced in its process, and by the same one.
    Replace(String),
    /// No power and no link.
    PowerOff(String),
    /// The agent is killed and comes back at once, with the way to one peer cut:
    /// what it promised must outlive it.
    RestartAndCut(String, String),
    /// SIGSTOP.
    Stop(String, Vec<Process>),
    /// All of a host's processes, by the kernel's freezer.
    Freeze(String),
    /// No network, but a link.
    Isolate(String),
    /// No link.
    Unplug(String),
    /// Nothing of the other nodes arrives.
    Deaf(String),
    /// Nothing reaches the other nodes.
    Mute(String),
    /// Two hosts do not reach each other.
    CutPair(String, String),
    /// Each write of a host's processes takes so much longer, and is lost if its
    /// process is killed before.
    SlowDisk(String, Duration),
    /// Percent of packets lost between nodes.
    Loss(u8),
    /// Percent of packets doubled between nodes.
    Duplication(u8),
    /// The client hears no announcement.
    LoseAnnouncements,
    /// Somebody else on the network has the VIP and says so.
    ForeignHost,
    /// Busy loops on the machine.
    Busy(u8),
}

impl Fault {
    /// Its name, without where.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Kill(..) => "kill",
            Self::Replace(_) => "replaced guard",
            Self::PowerOff(_) => "power off",
            Self::RestartAndCut(..) => "restart inside a promise",
            Self::Stop(..) => "stop",
            Self::Freeze(_) => "freeze",
            Self::Isolate(_) => "isolation",
            Self::Unplug(_) => "link down",
            Self::Deaf(_) => "deaf",
            Self::Mute(_) => "mute",
            Self::CutPair(..) => "cut pair",
            Self::SlowDisk(..) => "slow disk",
            Self::Loss(_) => "loss",
            Self::Duplication(_) => "duplication",
            Self::LoseAnnouncements => "lost announcements",
            Self::ForeignHost => "foreign host",
            Self::Busy(_) => "busy machine",
        }
    }

    /// Whether it is, or has a part that is, a packet filter.
    fn is_filter(&self) -> bool {
        matches!(
            self,
            Self::RestartAndCut(..)
                | Self::Deaf(_)
                | Self::Mute(_)
                | Self::CutPair(..)
                | Self::Loss(_)
                | Self::Duplication(_)
                | Self::LoseAnnouncements
        )
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kill(host, what) | Self::Stop(host, what) => {
                write!(f, "{} {what:?} of {host}", self.kind())
            }
            Self::RestartAndCut(a, b) | Self::CutPair(a, b) => {
                write!(f, "{} {a} {b}", self.kind())
            }
            Self::Replace(host)
            | Self::PowerOff(host)
            | Self::Freeze(host)
            | Self::Isolate(host)
            | Self::Unplug(host)
            | Self::Deaf(host)
            | Self::Mute(host) => write!(f, "{} {host}", self.kind()),
            Self::SlowDisk(host, by) => write!(f, "{} {host} {by:?}", self.kind()),
            Self::Loss(n) | Self::Duplication(n) | Self::Busy(n) => {
                write!(f, "{} {n}", self.kind())
            }
            Self::LoseAnnouncements | Self::ForeignHost => f.write_str(self.kind()),
        }
    }
}

/// The host that has the VIP without being asked.
const ALIEN: &str = "alien";
const ALIEN_LAST: u8 = 66;
/// The VIP of the faults that need one.
const VIP: &str = "10.77.0.100";

/// The faults that a cluster has at the moment.
#[derive(Debug, Default)]
pub struct Faults {
    active: Vec<Fault>,
    busy: Vec<BusyLoops>,
    frozen: Vec<Freezer>,
    alien: bool,
}

impl Faults {
    /// Adds a fault to those that are there.
    ///
    /// # Errors
    /// It cannot be brought about.
    pub fn inject(&mut self, cluster: &mut Cluster, fault: Fault) -> Result<()> {
        let filtered = fault.is_filter();
        self.active.push(fault.clone());
        if filtered {
            self.filter(cluster)?;
        }
        match &fault {
            Fault::Kill(host, what) => signal(cluster, host, what, Signal::SIGKILL),
            Fault::Replace(host) => signal(cluster, host, &[Process::Guard], Signal::SIGHUP),
            Fault::PowerOff(host) => {
                cluster.lab.cable(host, false)?;
                cluster.host_mut(host).kill_all();
            }
            // The way is cut by now.
            Fault::RestartAndCut(host, _) => {
                signal(cluster, host, &[Process::Agent], Signal::SIGKILL);
            }
            Fault::Stop(host, what) => signal(cluster, host, what, Signal::SIGSTOP),
            Fault::Freeze(host) => {
                let pids = [Process::Parent, Process::Agent, Process::Guard];
                let pids = pids.into_iter().filter_map(|p| cluster.host(host).find(p));
                let name = cluster.lab.namespace(host);
                self.frozen.push(Freezer::freeze(&name, pids)?);
            }
            Fault::Isolate(host) => cluster.lab.isolate(host)?,
            Fault::Unplug(host) => cluster.lab.cable(host, false)?,
            Fault::SlowDisk(host, by) => cluster.host(host).slow_disk(*by)?,
            Fault::ForeignHost => self.intrude(cluster)?,
            Fault::Busy(loops) => self.busy.push(BusyLoops::start(*loops)?),
            Fault::Deaf(_)
            | Fault::Mute(_)
            | Fault::CutPair(..)
            | Fault::Loss(_)
            | Fault::Duplication(_)
            | Fault::LoseAnnouncements => {}
        }
        Ok(())
    }

    /// Undoes all of them. Hosts without power are started again.
    ///
    /// # Errors
    /// One cannot be undone.
    pub fn heal(&mut self, cluster: &mut Cluster) -> Result<()> {
        self.busy.clear();
        self.frozen.clear();
        let filtered = self.active.iter().any(Fault::is_filter);
        for fault in std::mem::take(&mut self.active) {
            match fault {
                Fault::Stop(host, what) => signal(cluster, &host, &what, Signal::SIGCONT),
                Fault::PowerOff(host) => {
                    cluster.lab.cable(&host, true)?;
                    if !cluster.host_mut(&host).runs() {
                        cluster.host_mut(&host).start()?;
                    }
                }
                Fault::SlowDisk(host, _) => cluster.host(&host).slow_disk(Duration::ZERO)?,
                Fault::Isolate(host) => cluster.lab.heal(&host)?,
                Fault::Unplug(host) => cluster.lab.cable(&host, true)?,
                Fault::ForeignHost => cluster.lab.cable(ALIEN, false)?,
                _ => {}
            }
        }
        if filtered { self.filter(cluster) } else { Ok(()) }
    }

    fn intrude(&mut self, cluster: &mut Cluster) -> Result<()> {
        if !self.alien {
            cluster.lab.add_host(ALIEN, ALIEN_LAST)?;
            let own = format!("10.77.0.{ALIEN_LAST}/24");
            cluster.lab.ip(ALIEN, &["address", "delete", &own, "dev", "eth0"])?;
            cluster.lab.ip(ALIEN, &["address", "add", &format!("{VIP}/24"), "dev", "eth0"])?;
            self.alien = true;
        }
        cluster.lab.cable(ALIEN, true)?;
        // Asks for the client as the VIP, and so claims it.
        let speak = "echo > /dev/udp/10.77.0.250/9";
        cluster.lab.exec(ALIEN, "bash", &["-c", speak])?.ok().map(|_| ())
    }

    /// Makes the packet filters what the faults want.
    fn filter(&self, cluster: &Cluster) -> Result<()> {
        for host in &cluster.hosts {
            let rules = self.rules(cluster, &host.name);
            let text = format!(
                "add table ip fault; delete table ip fault; add table ip fault; \
                 add chain ip fault in {{ type filter hook input priority 0; }}; \
                 add chain ip fault out {{ type filter hook output priority 0; }}; {}",
                rules.join("; ")
            );
            cluster.lab.exec(&host.name, "nft", &[&text])?.ok()?;
        }
        let deaf = self.active.contains(&Fault::LoseAnnouncements);
        // Whoever asks for somebody announces itself, too.
        let rules = format!(
            "add rule arp fault in arp saddr ip {VIP} arp daddr ip {VIP} drop; \
             add rule arp fault in arp saddr ip {VIP} arp operation request drop"
        );
        let text = format!(
            "add table arp fault; delete table arp fault; add table arp fault; \
             add chain arp fault in {{ type filter hook input priority 0; }}; {}",
            if deaf { &rules } else { "" }
        );
        cluster.lab.exec("client", "nft", &[&text])?.ok().map(|_| ())
    }

    fn rules(&self, cluster: &Cluster, me: &str) -> Vec<String> {
        let peers: Vec<(&str, &str)> = cluster
            .hosts
            .iter()
            .filter(|h| h.name != me)
            .map(|h| (h.name.as_str(), h.address.as_str()))
            .collect();
        let address = |name: &str| peers.iter().find(|p| p.0 == name).map(|p| p.1);
        let all = peers.iter().map(|p| p.1).collect::<Vec<_>>().join(", ");
        let mut rules = vec![];
        for fault in &self.active {
            match fault {
                Fault::Deaf(host) if host == me => {
                    rules.push(format!("add rule ip fault in ip saddr {{ {all} }} drop"));
                }
                Fault::Mute(host) if host == me => {
                    rules.push(format!("add rule ip fault out ip daddr {{ {all} }} drop"));
                }
                Fault::CutPair(a, b) | Fault::RestartAndCut(a, b) if a == me || b == me => {
                    let other = address(if a == me { b } else { a });
                    if let Some(other) = other {
                        rules.push(format!("add rule ip fault in ip saddr {other} drop"));
                        rules.push(format!("add rule ip fault out ip daddr {other} drop"));
                    }
                }
                Fault::Loss(percent) => rules.push(format!(
                    "add rule ip fault in ip saddr {{ {all} }} \
                     numgen random mod 100 < {percent} drop"
                )),
                Fault::Duplication(percent) => {
                    for (_, to) in &peers {
                        rules.push(format!(
                            "add rule ip fault out ip daddr {to} \
                             numgen random mod 100 < {percent} dup to {to} device eth0"
                        ));
                    }
                }
                _ => {}
            }
        }
        rules
    }
}

/// A process that is gone already needs no signal.
fn signal(cluster: &Cluster, host: &str, what: &[Process], signal: Signal) {
    for process in what {
        let _ = cluster.host(host).signal(&[*process], signal);
    }
}
