//! What is wanted of a virtual server: which of a VIP's ports, and the real servers
//! that its connections go to.

use super::check::{CheckSpec, MAX_OTHERWISE, RealCheck};
use super::named::{MAX_NAMES, NamedReal};
use super::policy::{OnDown, Policy, Quorum};
use super::ports::Ports;
use super::real::{MAX_WEIGHT, RealSpec, WEIGHTS};
use super::table::TableSize;
use super::timing::TimingOutOfRange;
use crate::Name;
use crate::words::words;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// Most real servers of one virtual server: in the smallest table each has a slot.
pub const MAX_REALS: usize = 1000;
/// What starts more slowly than that has its weight raised by a person.
const MOST_SLOW_START: Duration = Duration::from_secs(3600);

/// What is forwarded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// RFC 9293.
    #[default]
    Tcp,
    /// RFC 768.
    Udp,
}

words!(Protocol, "protocol" { Tcp => "tcp", Udp => "udp" });

/// How a real server is chosen, by IPVS's names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scheduler {
    /// By a client's address and port: a table that is the same on every node.
    #[default]
    Mh,
    /// By a client's address: all that comes from there goes to one server.
    Sh,
    /// In turns.
    Rr,
    /// In turns, by weight.
    Wrr,
    /// To whoever has the fewest connections.
    Lc,
    /// The same, by weight.
    Wlc,
}

words!(Scheduler, "scheduler" {
    Mh => "mh", Sh => "sh", Rr => "rr", Wrr => "wrr", Lc => "lc", Wlc => "wlc",
});

/// How packets reach a real server, and its replies the client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Forward {
    /// Direct routing where every real server is on the VIP's subnet and has the same
    /// port, else NAT.
    #[default]
    Auto,
    /// Direct routing: the packet as it came; the reply goes past the director.
    Dr,
    /// The destination is rewritten, and the source of the reply, at the director.
    Nat,
    /// The packet in another one.
    Tun,
    /// A connection of the director's own.
    Proxy,
}

words!(Forward, "forwarding method" {
    Auto => "auto", Dr => "dr", Nat => "nat", Tun => "tun", Proxy => "proxy",
});

/// What forwards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Engine {
    /// Whichever can.
    #[default]
    Auto,
    /// The lease gate's own program.
    Ebpf,
    /// The kernel's virtual server.
    Ipvs,
    /// A process that takes connections itself.
    Proxy,
}

words!(Engine, "engine" { Auto => "auto", Ebpf => "ebpf", Ipvs => "ipvs", Proxy => "proxy" });

impl Scheduler {
    /// The engine that it needs.
    #[must_use]
    pub const fn engine(self) -> Engine {
        match self {
            Self::Mh | Self::Sh => Engine::Ebpf,
            Self::Rr | Self::Wrr | Self::Lc | Self::Wlc => Engine::Ipvs,
        }
    }
}

impl Forward {
    /// The engine that it needs; `Auto`: any.
    #[must_use]
    pub const fn engine(self) -> Engine {
        match self {
            Self::Auto | Self::Dr | Self::Nat => Engine::Auto,
            Self::Tun => Engine::Ipvs,
            Self::Proxy => Engine::Proxy,
        }
    }
}

/// What is wanted of a virtual server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerSpec {
    /// Unique name.
    pub name: Name,
    /// The VIP whose ports these are.
    pub vip: Name,
    pub ports: Ports,
    #[serde(default)]
    pub protocol: Protocol,
    #[serde(default)]
    pub scheduler: Scheduler,
    #[serde(default)]
    pub forward: Forward,
    #[serde(default)]
    pub engine: Engine,
    /// `None`: what is sensible for as many real servers as it begins with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub table_size: Option<TableSize>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reals: Vec<RealSpec>,
    /// Real servers by DNS names, beside `reals`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<NamedReal>,
    /// Instead of `reals`: each active member, at this port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub real_nodes: Option<u16>,
    /// `None`: real servers are up while their administrator says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub check: Option<CheckSpec>,
    #[serde(default, skip_serializing_if = "Policy::is_usual")]
    pub policy: Policy,
}

/// Why the spec of a virtual server cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ServerSpecError {
    /// There would be nobody to forward to.
    #[error(
        "virtual server {0} names no real server: use --real ADDR[:PORT], --real NAME[:PORT] or --real-nodes PORT"
    )]
    NoReals(Name),
    /// Members and others.
    #[error("virtual server {0} has --real-nodes, and so no --real: use one of them")]
    RealsAndNodes(Name),
    /// Too many.
    #[error("virtual server {name} names {count} real servers; at most {MAX_REALS} fit in a table")]
    TooManyReals {
        name: Name,
        /// How many.
        count: usize,
    },
    /// Too many.
    #[error("virtual server {name} has real servers of {count} names; at most {MAX_NAMES}")]
    TooManyNames {
        name: Name,
        /// How many.
        count: usize,
    },
    /// A name twice.
    #[error("virtual server {name} names {real} twice")]
    RepeatedName { name: Name, real: NamedReal },
    /// A port of its own where none can be.
    #[error(
        "{real} has a port of its own, and virtual server {name} has several, or dr, which leaves \
         the port as it is: name it without"
    )]
    PortOfName { name: Name, real: NamedReal },
    /// A real server twice.
    #[error("virtual server {name} names the real server {real} twice")]
    Repeated { name: Name, real: RealSpec },
    /// v4 and v6.
    #[error(
        "virtual server {name} mixes IPv4 and IPv6: {one} and {other} cannot be behind one port"
    )]
    MixedFamilies {
        name: Name,
        /// One address.
        one: IpAddr,
        /// One of the other family.
        other: IpAddr,
    },
    /// A weight that there is not.
    #[error("weight {} of the real server {real}: weights are {WEIGHTS}", real.weight)]
    Weight { real: RealSpec },
    /// A real server's own port where the client's decides.
    #[error(
        "the real server {real} has a port of its own, and virtual server {name} has several: a \
         connection keeps its port then"
    )]
    PortOfMany { name: Name, real: RealSpec },
    /// Direct routing changes no port.
    #[error(
        "the real server {real} has another port than virtual server {name}, and dr leaves the port \
         as it is: use --forward nat, or the port {port}"
    )]
    OtherPort {
        name: Name,
        real: RealSpec,
        /// That of the virtual server.
        port: u16,
    },
    /// The replies of a node do not come back by the director.
    #[error("--real-nodes needs dr: a node's replies do not come back through the holder")]
    NodesByNat,
    /// Direct routing changes no port.
    #[error(
        "--real-nodes {port} needs the virtual server's port to be {port} alone, and it has {ports}"
    )]
    NodesPort {
        /// That of the nodes.
        port: u16,
        /// Those of the virtual server.
        ports: Ports,
    },
    /// A check that cannot be so often.
    #[error(transparent)]
    Timing(#[from] TimingOutOfRange),
    /// There is no one port to probe.
    #[error("virtual server {0} has several ports: say which one is probed, with --check-port")]
    CheckPort(Name),
    /// Who serves by UDP need not listen by TCP.
    #[error(
        "virtual server {name} is of UDP, and a check by {kind} says nothing of that: name a port \
         where its real servers listen by TCP, with --check-port, or check by dns, udp, icmp or exec"
    )]
    CheckOfUdp {
        name: Name,
        /// That of the check.
        kind: String,
    },
    /// Too many.
    #[error(
        "virtual server {name} has {count} real servers that are checked otherwise; at most \
         {MAX_OTHERWISE}"
    )]
    TooManyOtherwise {
        name: Name,
        /// How many.
        count: usize,
    },
    /// Nobody would wait for it.
    #[error("--check-slow-start {slow_start:?} of {name}: use at most {MOST_SLOW_START:?}")]
    SlowStart { name: Name, slow_start: Duration },
    /// Nobody would look at it.
    #[error(
        "--check-of {real}: virtual server {name} has no such real server; --check-of {real}= takes \
         it back"
    )]
    OtherwiseOfNobody { name: Name, real: String },
    /// It could never be met.
    #[error(
        "--quorum-up {up} of virtual server {name}, which has {all} real servers: it would count \
         as down for good"
    )]
    Quorum {
        name: Name,
        /// How many would have to be up.
        up: u16,
        /// How many there are.
        all: usize,
    },
    /// No weight is looked at where there is one.
    #[error("the sorry server {0} has a weight: it takes everybody, so use ADDR[:PORT]")]
    SorryWeight(RealSpec),
    /// It has no connections.
    #[error("--on-down reset: UDP has no connections that could be reset; use leave")]
    OnDownReset,
    /// The engine lacks it.
    #[error("{what} needs the engine {needed}; {engine} does not have it")]
    Engine {
        /// Scheduler or forwarding method.
        what: String,
        needed: Engine,
        /// Who was asked for.
        engine: Engine,
    },
    /// No version has that engine yet.
    #[error("{what} needs the engine {engine}, which this version does not have")]
    NoEngine {
        /// What asks for it.
        what: String,
        engine: Engine,
    },
}

impl ServerSpec {
    /// The engine, as far as the spec decides it.
    ///
    /// # Errors
    /// One that there is not yet, or that lacks what is wanted of it.
    pub fn engine(&self) -> Result<Engine, ServerSpecError> {
        let (scheduler, forward) = (self.scheduler, self.forward);
        let by_scheduler = (format!("scheduler {scheduler}"), scheduler.engine());
        let by_forward = (format!("forwarding by {forward}"), forward.engine());
        // A proxy and a tunnel say it first: schedulers they have are another matter.
        let mut needs = [by_forward, by_scheduler].into_iter();
        let needs = needs.find(|(_, needed)| !matches!(needed, Engine::Auto | Engine::Ebpf));
        match (needs, self.engine) {
            (None, Engine::Auto | Engine::Ebpf) => Ok(Engine::Ebpf),
            (Some((what, needed)), engine) if engine != Engine::Auto && engine != needed => {
                Err(ServerSpecError::Engine { what, needed, engine })
            }
            (Some((what, engine)), _) => Err(ServerSpecError::NoEngine { what, engine }),
            (None, engine) => {
                let what = format!("--engine {engine}");
                Err(ServerSpecError::NoEngine { what, engine })
            }
        }
    }

    /// Whether real servers can be checked so.
    fn check_checks(&self, check: &CheckSpec) -> Result<(), ServerSpecError> {
        let name = || self.name.clone();
        check.timing.check()?;
        if check.slow_start > MOST_SLOW_START {
            let (name, slow_start) = (name(), check.slow_start);
            return Err(ServerSpecError::SlowStart { name, slow_start });
        }
        if check.otherwise.len() > MAX_OTHERWISE {
            let (name, count) = (name(), check.otherwise.len());
            return Err(ServerSpecError::TooManyOtherwise { name, count });
        }
        let own = check.otherwise.iter();
        let own = own.map(|own| (own.check.as_ref(), own.check_port.or(check.port)));
        for (kind, port) in own.chain([(None, check.port)]) {
            let kind = kind.unwrap_or(&check.kind);
            if kind.has_port() && port.or(self.ports.single()).is_none() {
                return Err(ServerSpecError::CheckPort(name()));
            }
            if self.protocol == Protocol::Udp && port.is_none() && !kind.is_of_udp() {
                let (name, kind) = (name(), kind.to_string());
                return Err(ServerSpecError::CheckOfUdp { name, kind });
            }
        }
        Ok(())
    }

    /// Whether all that are checked otherwise are among these real servers.
    ///
    /// # Errors
    /// One is not.
    pub fn check_otherwise(
        &self,
        reals: impl Iterator<Item = RealSpec> + Clone,
    ) -> Result<(), ServerSpecError> {
        let is_nobodys = |own: &&RealCheck| {
            // Members come and go, and so does who has a name.
            self.real_nodes.is_none()
                && self.names.is_empty()
                && !reals.clone().any(|real| own.is_of(real.ip, self.port_of(&real)))
        };
        match self.check.iter().flat_map(|check| &check.otherwise).find(is_nobodys) {
            Some(RealCheck { ip, port, .. }) => {
                let real = RealSpec { ip: *ip, port: *port, weight: 1 }.to_string();
                Err(ServerSpecError::OtherwiseOfNobody { name: self.name.clone(), real })
            }
            None => Ok(()),
        }
    }

    /// Checks what can be checked without the rest of the cluster's state.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn check(&self) -> Result<(), ServerSpecError> {
        self.engine()?;
        let name = || self.name.clone();
        match (self.reals.is_empty() && self.names.is_empty(), self.real_nodes) {
            (true, None) => return Err(ServerSpecError::NoReals(name())),
            (false, Some(_)) => return Err(ServerSpecError::RealsAndNodes(name())),
            (true, Some(_)) if self.forward == Forward::Nat => {
                return Err(ServerSpecError::NodesByNat);
            }
            (true, Some(port)) if self.ports.single() != Some(port) => {
                return Err(ServerSpecError::NodesPort { port, ports: self.ports });
            }
            _ => {}
        }
        if let Some(check) = &self.check {
            self.check_checks(check)?;
        }
        let count = self.reals.len() + usize::from(self.policy.sorry.is_some());
        if count > MAX_REALS {
            return Err(ServerSpecError::TooManyReals { name: name(), count });
        }
        let Quorum { up, .. } = self.policy.quorum;
        // As many as a name has, and members, come and go.
        let all_are_known = !self.reals.is_empty() && self.names.is_empty();
        if all_are_known && usize::from(up) > self.reals.len() {
            let (name, all) = (name(), self.reals.len());
            return Err(ServerSpecError::Quorum { name, up, all });
        }
        self.check_names()?;
        let mut seen = BTreeSet::new();
        for real in &self.reals {
            self.check_real(real)?;
            if !seen.insert((real.ip, self.port_of(real))) {
                return Err(ServerSpecError::Repeated { name: name(), real: *real });
            }
        }
        if let Some(sorry) = &self.policy.sorry {
            self.check_real(sorry)?;
            if sorry.weight != 1 {
                return Err(ServerSpecError::SorryWeight(*sorry));
            }
            if !seen.insert((sorry.ip, self.port_of(sorry))) {
                return Err(ServerSpecError::Repeated { name: name(), real: *sorry });
            }
        }
        if self.policy.on_down == OnDown::Reset && self.protocol == Protocol::Udp {
            return Err(ServerSpecError::OnDownReset);
        }
        Ok(())
    }

    fn check_names(&self) -> Result<(), ServerSpecError> {
        let (name, count) = (|| self.name.clone(), self.names.len());
        if count > MAX_NAMES {
            return Err(ServerSpecError::TooManyNames { name: name(), count });
        }
        let mut seen = BTreeSet::new();
        for real in &self.names {
            let keeps_port = self.ports.single().is_none() || self.forward == Forward::Dr;
            if keeps_port && real.port.is_some_and(|own| self.ports.single() != Some(own)) {
                return Err(ServerSpecError::PortOfName { name: name(), real: real.clone() });
            }
            if !seen.insert((&real.name, real.port.or(self.ports.single()))) {
                return Err(ServerSpecError::RepeatedName { name: name(), real: real.clone() });
            }
        }
        Ok(())
    }

    /// Where a connection goes at a real server; `None`: to the port that the client
    /// named.
    #[must_use]
    pub fn port_of(&self, real: &RealSpec) -> Option<u16> {
        real.port.or(self.ports.single())
    }

    /// Where connections go at a real server, in words: ADDR:PORT, or ADDR where the client's
    /// port decides.
    #[must_use]
    pub fn place(&self, real: &RealSpec) -> String {
        match self.port_of(real) {
            Some(port) => SocketAddr::new(real.ip, port).to_string(),
            None => real.ip.to_string(),
        }
    }

    fn check_real(&self, real: &RealSpec) -> Result<(), ServerSpecError> {
        let (name, real) = (self.name.clone(), *real);
        let first = self.reals.first().map_or(real.ip, |first| first.ip);
        if first.is_ipv4() != real.ip.is_ipv4() {
            return Err(ServerSpecError::MixedFamilies { name, one: first, other: real.ip });
        }
        if real.weight > MAX_WEIGHT {
            return Err(ServerSpecError::Weight { real });
        }
        match (real.port, self.ports.single()) {
            (Some(_), None) => Err(ServerSpecError::PortOfMany { name, real }),
            (Some(own), Some(port)) if self.forward == Forward::Dr && own != port => {
                Err(ServerSpecError::OtherPort { name, real, port })
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
