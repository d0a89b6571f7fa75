//! Whether a virtual server fits into what there is: its VIP, the other virtual servers,
//! and whom it names as real servers.

use super::names::by_names;
use super::refusal::Family;
use super::{MAX_REALS_IN_ALL, Real, Resolved, Server, ServerRefusal};
use crate::log::State;
use crate::{
    Forward, HostName, MAX_REALS, Node, NodeState, Policy, RealSpec, Refusal, ServerSpec,
    ServerSpecError, Vip, VipAddress, VipSpec, subnet,
};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

/// What `auto` is: direct routing where it can be.
pub(super) fn decide(vip: &Vip, spec: &ServerSpec, reals: &[Real]) -> Forward {
    let direct = |real: RealSpec| {
        let same_port = real.port.is_none() || real.port == spec.ports.single();
        same_port && on_subnet(&vip.spec, real.ip)
    };
    let mut all = reals.iter().map(|real| real.spec).chain(spec.policy.sorry);
    match spec.forward {
        Forward::Auto if spec.real_nodes.is_some() || all.all(direct) => Forward::Dr,
        Forward::Auto => Forward::Nat,
        decided => decided,
    }
}

/// The VIP's addresses that real servers of this one's family can be behind.
fn addresses_for(vip: &VipSpec, ip: IpAddr) -> impl Iterator<Item = &VipAddress> {
    vip.addresses.iter().filter(move |address| address.ip.is_ipv4() == ip.is_ipv4())
}

fn on_subnet(vip: &VipSpec, ip: IpAddr) -> bool {
    addresses_for(vip, ip).any(|address| subnet(address.ip, address.prefix).contains(&ip))
}

/// Members as real servers, with what is known of those that were.
pub(super) fn with_what_is_known(mut members: Vec<Real>, there: &[Real]) -> Vec<Real> {
    for real in &mut members {
        // A member has one port.
        let known = there.iter().find(|known| known.spec.ip == real.spec.ip);
        if let Some(known) = known {
            (real.health, real.kept) = (known.health.clone(), known.kept);
        }
    }
    members
}

impl State {
    pub(super) fn vip_of(&self, spec: &ServerSpec) -> Result<&Vip, Refusal> {
        let vip = self.vip_named(spec.vip.as_str()).filter(|vip| vip.guest.is_none());
        vip.ok_or_else(|| Refusal::UnknownVip { name: spec.vip.to_string() })
    }

    /// The real servers that a spec names; what is known of those that are there stays.
    pub(super) fn reals_of(
        &self,
        vip: &Vip,
        spec: &ServerSpec,
        answers: &BTreeMap<HostName, Resolved>,
        there: &[Real],
    ) -> Vec<Real> {
        if let Some(port) = spec.real_nodes {
            return with_what_is_known(self.members_behind(vip, port), there);
        }
        let place = |real: &RealSpec| (real.ip, spec.port_of(real));
        let real = |(name, spec): (Option<HostName>, RealSpec)| {
            let mut known = there.iter().filter(|known| place(&known.spec) == place(&spec));
            let first = known.clone().next().cloned();
            let drained = known.any(|known| known.drained);
            let known = first.unwrap_or_else(|| Real::new(spec, drained));
            Real { spec, drained, name, ..known }
        };
        let named = by_names(vip, spec, answers, there).into_iter();
        let named = named.map(|(name, real)| (Some(name), real));
        let reals = spec.reals.iter().map(|real| (None, *real)).chain(named);
        let mut reals: Vec<_> = reals.map(real).collect();
        reals.sort_by_key(|real| place(&real.spec));
        reals
    }

    /// The members as real servers: each that is here to stay, at its address in the
    /// subnet of the VIP's first address, since one port has one family. One that is
    /// drained keeps its connections; of two at one address the first counts.
    pub(super) fn members_behind(&self, vip: &Vip, port: u16) -> Vec<Real> {
        let is_first = |ip: IpAddr| {
            let first = vip.spec.addresses.first();
            first.is_some_and(|address| subnet(address.ip, address.prefix).contains(&ip))
        };
        let real = |(node, ip): (&Node, IpAddr)| {
            let drained = match node.state {
                NodeState::Active => false,
                NodeState::Drained | NodeState::Leaving => true,
                NodeState::Joining => return None,
            };
            let spec = RealSpec { ip, port: Some(port), weight: 1 };
            (node.role.holds() && is_first(ip)).then(|| Real::new(spec, drained))
        };
        let place = |node: &Node| node.advertise.parse::<SocketAddr>().ok();
        let nodes = self.nodes.values();
        let placed = nodes.filter_map(|node| Some((node, place(node)?.ip().to_canonical())));
        let mut reals: Vec<_> = placed.filter_map(real).collect();
        reals.sort_by_key(|real| real.spec.ip);
        reals.dedup_by_key(|real| real.spec.ip);
        reals
    }

    /// The member that is reached at an address.
    #[must_use]
    pub fn node_at(&self, ip: IpAddr) -> Option<&Node> {
        self.nodes.values().find(|node| {
            node.advertise.parse::<SocketAddr>().is_ok_and(|at| at.ip().to_canonical() == ip)
        })
    }

    /// Whether this virtual server can be, beside all others.
    pub(super) fn check_fits(&self, server: &Server) -> Result<(), Refusal> {
        let Some(vip) = self.vip(server.vip) else {
            return Err(Refusal::UnknownVip { name: server.spec.vip.to_string() });
        };
        let others = || self.all_servers().filter(|other| other.uid != server.uid);
        let count = |server: &Server| server.targets().count();
        let in_all = others().map(count).sum::<usize>() + count(server);
        let all = count(server);
        if all > MAX_REALS {
            let too_many =
                ServerSpecError::TooManyReals { name: server.spec.name.clone(), count: all };
            return Err(ServerRefusal::from(too_many).into());
        }
        if in_all > MAX_REALS_IN_ALL {
            return Err(ServerRefusal::TooManyReals.into());
        }
        if let Some(other) = others().find(|other| server.clashes(other)) {
            return Err(ServerRefusal::Clash {
                vip: server.spec.vip.clone(),
                protocol: server.spec.protocol,
                ports: server.spec.ports,
                other: other.spec.name.clone(),
                theirs: other.spec.ports,
            }
            .into());
        }
        for real in server.targets() {
            self.check_real(server, &vip.spec, real)?;
        }
        let (first, sorry) = (server.reals.first(), server.spec.policy.sorry);
        if let Some((first, sorry)) = first.zip(sorry)
            && first.spec.ip.is_ipv4() != sorry.ip.is_ipv4()
        {
            let (name, one, other) = (server.spec.name.clone(), first.spec.ip, sorry.ip);
            let mixed = ServerSpecError::MixedFamilies { name, one, other };
            return Err(ServerRefusal::from(mixed).into());
        }
        match server.targets().find_map(|real| self.behind_another(server, real)) {
            Some(refusal) => Err(refusal),
            None => Ok(()),
        }
    }

    /// Whether the replies of a real server would be either's of two virtual ones.
    pub(super) fn behind_another(&self, server: &Server, real: RealSpec) -> Option<Refusal> {
        let others = self.all_servers().filter(|other| other.uid != server.uid);
        let mut others = others.filter(|_| server.forward == Forward::Nat);
        let other = others.find(|other| server.shares_replies(real, other))?;
        Some(ServerRefusal::BehindAnother { real, other: other.spec.name.clone() }.into())
    }

    pub(super) fn check_real(
        &self,
        server: &Server,
        vip: &VipSpec,
        real: RealSpec,
    ) -> Result<(), Refusal> {
        let (name, ip) = (|| vip.name.clone(), real.ip);
        if let Some(moving) = self.all_vips().find(|vip| vip.spec.has(ip)) {
            let vip = moving.spec.name.clone();
            return Err(ServerRefusal::RealIsVip { real: ip, vip }.into());
        }
        let family = Family::of(ip);
        let mut addresses = addresses_for(vip, ip);
        let Some(first) = addresses.next() else {
            return Err(ServerRefusal::NoAddress { vip: name(), family, real: ip }.into());
        };
        if server.forward == Forward::Nat && addresses.next().is_some() {
            return Err(ServerRefusal::SeveralAddresses { vip: name(), family }.into());
        }
        if server.forward != Forward::Dr {
            return match self.node_at(ip).filter(|_| server.forward == Forward::Nat) {
                Some(node) => {
                    let node = node.name.clone();
                    Err(ServerRefusal::MemberByNat { real: ip, node }.into())
                }
                None => Ok(()),
            };
        }
        if !on_subnet(vip, ip) {
            return Err(ServerRefusal::OffSubnet { real: ip, vip: *first }.into());
        }
        let dr = ServerSpec { forward: Forward::Dr, reals: vec![real], ..server.spec.clone() };
        let dr = ServerSpec { real_nodes: None, names: vec![], policy: Policy::default(), ..dr };
        Ok(dr.check().map_err(ServerRefusal::from)?)
    }

    /// Whether a VIP may be removed.
    ///
    /// # Errors
    /// [`ServerRefusal::VipInUse`].
    pub(in crate::log) fn check_unused(&self, vip: &Vip) -> Result<(), Refusal> {
        let servers = self.all_servers().filter(|server| server.vip == vip.uid);
        let servers: Vec<_> = servers.map(|server| server.spec.name.to_string()).collect();
        if servers.is_empty() {
            return Ok(());
        }
        let (vip, servers) = (vip.spec.name.clone(), servers.join(", "));
        Err(ServerRefusal::VipInUse { vip, servers }.into())
    }

    /// Whether a VIP may have these addresses, as far as virtual servers go: none is a
    /// real server's, and its own real servers still have one to be behind.
    ///
    /// # Errors
    /// [`ServerRefusal`].
    pub(in crate::log) fn check_addresses(
        &self,
        vip: Option<&Vip>,
        spec: &VipSpec,
    ) -> Result<(), Refusal> {
        for server in self.all_servers() {
            for real in server.targets() {
                if spec.has(real.ip) {
                    let (ip, server) = (real.ip, server.spec.name.clone());
                    return Err(ServerRefusal::VipIsReal { ip, server }.into());
                }
                if vip.is_some_and(|vip| vip.uid == server.vip) {
                    self.check_real(server, spec, real)?;
                }
            }
        }
        Ok(())
    }
}

impl Server {
    /// All that may be sent anything: its real servers, and the sorry server.
    pub(super) fn targets(&self) -> impl Iterator<Item = RealSpec> {
        self.reals.iter().map(|real| real.spec).chain(self.spec.policy.sorry)
    }

    /// Whether both would have one port of a VIP.
    fn clashes(&self, other: &Self) -> bool {
        let family = |server: &Self| server.reals.first().map(|real| real.spec.ip.is_ipv4());
        self.vip == other.vip
            && self.spec.protocol == other.spec.protocol
            && self.spec.ports.overlaps(other.spec.ports)
            && (family(self).is_none() || family(other).is_none() || family(self) == family(other))
    }

    /// Whether a real server's replies would be either's, if both rewrite them.
    fn shares_replies(&self, mine: RealSpec, other: &Self) -> bool {
        let both = other.forward == Forward::Nat && self.spec.protocol == other.spec.protocol;
        let ports = |server: &Self, real: &RealSpec| match server.spec.port_of(real) {
            Some(port) => (port, port),
            None => server.spec.ports.bounds(),
        };
        let is_shared = |theirs: RealSpec| {
            let ((a, b), (c, d)) = (ports(self, &mine), ports(other, &theirs));
            mine.ip == theirs.ip && a <= d && c <= b
        };
        both && other.targets().any(is_shared)
    }
}
