//! One real server more, one less, drained, weighed; and members as real servers.

use super::fit::with_what_is_known;
use super::health::MEMBERS_CHANGED;
use super::names::{check_goes, check_own};
use super::{Real, RealPlace, Server, ServerEvent, ServerRefusal};
use crate::log::State;
use crate::{
    MAX_REALS, Name, Outcome, Policy, Quorum, RealCheck, RealSpec, Refusal, ServerSpec,
    ServerSpecError, VipUid,
};

impl RealPlace {
    fn is(self, server: &Server, real: &Real) -> bool {
        let port = self.port.or(server.spec.ports.single());
        real.spec.ip == self.ip && server.spec.port_of(&real.spec) == port
    }
}

impl std::fmt::Display for RealPlace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        RealSpec { ip: self.ip, port: self.port, weight: 1 }.fmt(f)
    }
}

impl Server {
    fn position(&self, place: RealPlace) -> Result<usize, Refusal> {
        let found = self.reals.iter().position(|real| place.is(self, real));
        let (name, real) = (self.spec.name.clone(), place.to_string());
        found.ok_or_else(|| ServerRefusal::UnknownReal { name, real }.into())
    }
}

impl State {
    /// One that names its real servers itself.
    fn server_with_reals(&self, name: &Name) -> Result<Server, Refusal> {
        let server = self.known_server(name)?;
        if server.spec.real_nodes.is_some() {
            return Err(ServerRefusal::FollowsNodes { name: name.clone() }.into());
        }
        Ok(server.clone())
    }

    /// Has these real servers, if that fits.
    fn change(
        &mut self,
        actor: &str,
        mut server: Server,
        reals: Vec<Real>,
        event: ServerEvent,
    ) -> Result<Outcome, Refusal> {
        let short = server.deal_anew(server.dealt(&server.reals), reals, self.time_ms);
        self.check_fits(&server)?;
        server.revision += 1;
        self.put_server(server);
        self.record(actor, event);
        self.record_all(actor, short);
        Ok(Outcome::Done)
    }

    pub(super) fn add_real(
        &mut self,
        actor: &str,
        name: &Name,
        real: RealSpec,
    ) -> Result<Outcome, Refusal> {
        let server = self.server_with_reals(name)?;
        let place = RealPlace { ip: real.ip, port: real.port };
        if let Ok(at) = server.position(place) {
            if server.reals[at].name.is_some() {
                // From now on it is there whatever its name resolves to.
                let mut reals = server.reals.clone();
                (reals[at].name, reals[at].spec) = (None, real);
                let event = ServerEvent::RealAdded { server: name.clone(), real };
                return self.change(actor, server, reals, event);
            }
            let there = server.reals[at].spec;
            return if there.weight == real.weight {
                Ok(Outcome::Unchanged)
            } else {
                Err(ServerRefusal::RealExists { name: name.clone(), real: there }.into())
            };
        }
        let count = server.targets().count() + 1;
        if count > MAX_REALS {
            let name = name.clone();
            return Err(ServerRefusal::from(ServerSpecError::TooManyReals { name, count }).into());
        }
        // By itself, and beside one that is there.
        let beside = server.reals.first().map(|first| first.spec);
        let reals = beside.into_iter().chain([real]).collect();
        let policy = Policy { quorum: Quorum::default(), ..server.spec.policy.clone() };
        let spec = ServerSpec { reals, policy, ..server.spec.clone() };
        spec.check().map_err(ServerRefusal::from)?;
        let mut reals = server.reals.clone();
        reals.push(Real::new(real, false));
        reals.sort_by_key(|real| (real.spec.ip, server.spec.port_of(&real.spec)));
        let event = ServerEvent::RealAdded { server: name.clone(), real };
        self.change(actor, server, reals, event)
    }

    pub(super) fn remove_real(
        &mut self,
        actor: &str,
        name: &Name,
        place: RealPlace,
    ) -> Result<Outcome, Refusal> {
        let mut server = self.server_with_reals(name)?;
        let at = server.position(place)?;
        check_goes(&server, &server.reals[at])?;
        let mut reals = server.reals.clone();
        let real = reals.remove(at).spec;
        let port_of = |real: &Real| server.spec.port_of(&real.spec);
        let stays = |own: &RealCheck| reals.iter().any(|it| own.is_of(it.spec.ip, port_of(it)));
        if let Some(mut check) = server.spec.check.clone().filter(|_| server.spec.names.is_empty())
        {
            check.otherwise.retain(stays);
            server.spec.check = Some(check);
        }
        if reals.is_empty() {
            return Err(ServerRefusal::LastReal { name: name.clone(), real }.into());
        }
        let event = ServerEvent::RealRemoved { server: name.clone(), real };
        self.change(actor, server, reals, event)
    }

    pub(super) fn drain_real(
        &mut self,
        actor: &str,
        name: &Name,
        place: RealPlace,
        drained: bool,
    ) -> Result<Outcome, Refusal> {
        let server = self.server_with_reals(name)?;
        let at = server.position(place)?;
        let mut reals = server.reals.clone();
        if reals[at].drained == drained {
            return Ok(Outcome::Unchanged);
        }
        reals[at].drained = drained;
        reals[at].health.damping = None;
        let real = reals[at].spec;
        let event = ServerEvent::RealDrained { server: name.clone(), real, drained };
        self.change(actor, server, reals, event)
    }

    pub(super) fn weigh_real(
        &mut self,
        actor: &str,
        name: &Name,
        place: RealPlace,
        weight: u16,
    ) -> Result<Outcome, Refusal> {
        let server = self.server_with_reals(name)?;
        let at = server.position(place)?;
        let mut reals = server.reals.clone();
        check_own(&server, &reals[at])?;
        let real = RealSpec { weight, ..reals[at].spec };
        if reals[at].spec == real {
            return Ok(Outcome::Unchanged);
        }
        let policy = Policy::default();
        let spec = ServerSpec { reals: vec![real], policy, ..server.spec.clone() };
        spec.check().map_err(ServerRefusal::from)?;
        reals[at].spec = real;
        let event = ServerEvent::RealWeighed { server: name.clone(), real };
        self.change(actor, server, reals, event)
    }

    /// A VIP has other addresses: what is behind it is forwarded from there.
    pub(in crate::log) fn servers_follow_vip(&mut self, vip: VipUid) {
        let behind = self.all_servers().filter(|server| server.vip == vip).cloned();
        for mut server in behind.collect::<Vec<_>>() {
            server.is_another();
            self.put_server(server);
        }
        self.servers_follow_nodes();
    }

    /// Members changed: where they are real servers, so do those.
    pub(in crate::log) fn servers_follow_nodes(&mut self) {
        let following = self.all_servers().filter_map(|server| {
            let (port, vip) = (server.spec.real_nodes?, self.vip(server.vip)?);
            let reals = with_what_is_known(self.members_behind(vip, port), &server.reals);
            (reals != server.reals).then(|| (server.clone(), reals))
        });
        for (mut server, reals) in following.collect::<Vec<_>>() {
            let short = server.deal_anew(server.dealt(&server.reals), reals, self.time_ms);
            self.put_server(server);
            self.record_all(MEMBERS_CHANGED, short);
        }
        // Others may observe them now.
        let checked = self.all_servers().filter(|server| server.spec.check.is_some());
        for uid in checked.map(|server| server.uid).collect::<Vec<_>>() {
            self.judge_anew(uid);
        }
    }
}
