//! Real servers by DNS names: the leader resolves, and its answer is in the log, since a node
//! that asked for itself would deal another table.

use super::health::{MOST_AT_ONCE, cut};
use super::{Real, Server, ServerEvent, ServerOp, ServerRefusal};
use crate::log::State;
use crate::{HostName, NamedReal, Outcome, RealSpec, Refusal, ServerSpec, ServerUid, Vip, no_peer};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// Most addresses of a name and family: what else it has is left out, the largest first.
const MAX_ADDRESSES: usize = 64;

/// What a name resolved to last.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resolved {
    /// In order.
    pub addresses: Vec<IpAddr>,
    /// Why there was no later answer: the rest of a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failing: Option<String>,
}

/// What names resolve to.
pub type Resolutions = BTreeMap<HostName, Vec<IpAddr>>;

/// As the log keeps what a name resolves to: the same whatever order it came in, without what
/// no other host can have, and no more than there is room for.
#[must_use]
pub fn in_order(addresses: &[IpAddr]) -> Vec<IpAddr> {
    let all: BTreeSet<_> = addresses.iter().map(IpAddr::to_canonical).collect();
    let (v4, v6): (Vec<_>, Vec<_>) =
        all.into_iter().filter(|ip| no_peer(*ip).is_none()).partition(IpAddr::is_ipv4);
    v4.into_iter().take(MAX_ADDRESSES).chain(v6.into_iter().take(MAX_ADDRESSES)).collect()
}

pub(super) fn resolved(answers: &Resolutions) -> BTreeMap<HostName, Resolved> {
    let one = |(name, addresses): (&HostName, &Vec<IpAddr>)| {
        (name.clone(), Resolved { addresses: in_order(addresses), failing: None })
    };
    answers.iter().map(one).collect()
}

impl Server {
    /// The names that its real servers have.
    fn has_name(&self, name: &HostName) -> bool {
        self.spec.names.iter().any(|real| real.name == *name)
    }

    /// Takes what names resolve to, and forgets what nobody names any more.
    pub(super) fn take_answers(&mut self, answers: &Resolutions) {
        let names: BTreeSet<_> = self.spec.names.iter().map(|real| &real.name).collect();
        self.answers.retain(|name, _| names.contains(name));
        let mut taken = resolved(answers);
        taken.retain(|name, _| names.contains(name));
        self.answers.extend(taken);
    }

    /// Its spec with the real servers that it has by address.
    pub(super) fn spec_by_address(&self) -> ServerSpec {
        let own = self.reals.iter().filter(|real| real.name.is_none());
        ServerSpec { reals: own.map(|real| real.spec).collect(), ..self.spec.clone() }
    }
}

/// The real servers that names stand for, without those that are named by address: of the
/// family of these, or else of those that are there, or else of the VIP's first address.
pub(super) fn by_names(
    vip: &Vip,
    spec: &ServerSpec,
    answers: &BTreeMap<HostName, Resolved>,
    there: &[Real],
) -> Vec<(HostName, RealSpec)> {
    let first = spec.reals.first().or(spec.policy.sorry.as_ref()).map(|real| real.ip);
    let has = |ip: &IpAddr| vip.spec.addresses.iter().any(|own| own.ip.is_ipv4() == ip.is_ipv4());
    let first = first.or_else(|| there.first().map(|real| real.spec.ip).filter(has));
    let first = first.or_else(|| vip.spec.addresses.first().map(|address| address.ip));
    let is_fit = |ip: &IpAddr| first.is_some_and(|first| first.is_ipv4() == ip.is_ipv4());
    let place = |real: &RealSpec| (real.ip, spec.port_of(real));
    let mut seen: BTreeSet<_> = spec.reals.iter().map(place).collect();
    let mut found = vec![];
    for named in &spec.names {
        let resolved = answers.get(&named.name);
        let addresses = resolved.into_iter().flat_map(|resolved| &resolved.addresses);
        for real in addresses.filter(|ip| is_fit(ip)).map(|ip| named.at(*ip)) {
            if seen.insert(place(&real)) {
                found.push((named.name.clone(), real));
            }
        }
    }
    found
}

impl State {
    /// Without those of names that cannot be real servers here: an answer of DNS must not stop
    /// what works.
    ///
    /// # Errors
    /// None is left. The reason of the first.
    pub(super) fn keep_fit(&self, server: &mut Server) -> Result<(), Refusal> {
        let Some(vip) = self.vip(server.vip) else { return Ok(()) };
        let mut refused = None;
        let mut reals = std::mem::take(&mut server.reals);
        reals.retain(|real| {
            let fits = match &real.name {
                Some(_) => self.check_alone(server, vip, real.spec),
                None => Ok(()),
            };
            fits.map_err(|why| refused.get_or_insert(why).clone()).is_ok()
        });
        server.reals = reals;
        match refused {
            Some(why) if server.reals.is_empty() => Err(why),
            _ => Ok(()),
        }
    }

    /// Whether one can be a real server of a virtual one, whoever else is.
    fn check_alone(&self, server: &Server, vip: &Vip, real: RealSpec) -> Result<(), Refusal> {
        self.check_real(server, &vip.spec, real)?;
        match self.behind_another(server, real) {
            Some(refusal) => Err(refusal),
            None => Ok(()),
        }
    }

    /// What the leader's resolver said of a name. That it fails is told once, and the answer
    /// before stays.
    pub(super) fn resolve(
        &mut self,
        actor: &str,
        uid: ServerUid,
        name: &HostName,
        answer: &Result<Vec<IpAddr>, String>,
    ) -> Outcome {
        let Some(old) = self.server(uid).filter(|server| server.has_name(name)).cloned() else {
            return Outcome::Unchanged;
        };
        let changed = match answer {
            Ok(addresses) => self.resolved(&old, name, addresses),
            Err(why) => Err(cut(why)),
        };
        let is_failing = |server: &Server| {
            server.answers.get(name).is_some_and(|resolved| resolved.failing.is_some())
        };
        match changed {
            Ok((server, _)) if server == old => return Outcome::Unchanged,
            Ok((server, short)) => {
                let addresses = server.answers.get(name).cloned().unwrap_or_default().addresses;
                let (server_name, name) = (server.spec.name.clone(), name.clone());
                self.put_server(server);
                self.record(actor, ServerEvent::Resolved { server: server_name, name, addresses });
                self.record_all(actor, short);
                self.judge_anew(uid);
            }
            Err(_) if is_failing(&old) => return Outcome::Unchanged,
            Err(why) => {
                let mut server = old;
                server.answers.entry(name.clone()).or_default().failing = Some(why.clone());
                let (server_name, name) = (server.spec.name.clone(), name.clone());
                self.put_server(server);
                self.record(actor, ServerEvent::Unresolved { server: server_name, name, why });
            }
        }
        Outcome::Done
    }

    /// A virtual server with another answer; or why that cannot be.
    fn resolved(
        &self,
        old: &Server,
        name: &HostName,
        addresses: &[IpAddr],
    ) -> Result<(Server, Option<ServerEvent>), String> {
        let mut server = old.clone();
        let answers = [(name.clone(), addresses.to_vec())].into();
        server.take_answers(&answers);
        let vip = self.vip(old.vip).ok_or("its VIP is gone")?;
        server.reals = self.reals_of(vip, &old.spec_by_address(), &server.answers, &old.reals);
        self.keep_fit(&mut server).map_err(|why| cut(&why.to_string()))?;
        // Whoever else there is: what stands for nobody is no answer.
        let resolved = &server.answers[name].addresses;
        if !server.reals.iter().any(|real| resolved.contains(&real.spec.ip)) {
            return Err("none of its addresses can be a real server".to_owned());
        }
        let reals = std::mem::replace(&mut server.reals, old.reals.clone());
        let short = server.deal_anew(old.dealt(&old.reals), reals, self.time_ms);
        self.check_fits(&server).map_err(|why| cut(&why.to_string()))?;
        if server != *old {
            server.revision += 1;
        }
        Ok((server, short))
    }

    /// All names that real servers have, for whoever leads to resolve, with what they resolved
    /// to last.
    #[must_use]
    pub fn names(&self) -> BTreeMap<HostName, BTreeSet<IpAddr>> {
        let mut all: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
        for server in self.all_servers() {
            for real in &server.spec.names {
                let resolved = server.answers.get(&real.name);
                let known = all.entry(real.name.clone()).or_default();
                known.extend(resolved.into_iter().flat_map(|resolved| &resolved.addresses));
            }
        }
        all
    }

    /// What a name's answer changes, to be proposed by the leader.
    #[must_use]
    pub fn resolutions(
        &self,
        name: &HostName,
        answer: &Result<Vec<IpAddr>, String>,
    ) -> Vec<ServerOp> {
        let is_news = |server: &&Server| {
            let known = server.answers.get(name);
            let is_failing = known.is_some_and(|resolved| resolved.failing.is_some());
            match answer {
                Ok(addresses) => match self.resolved(server, name, addresses) {
                    Ok((changed, _)) => changed != **server,
                    Err(_) => !is_failing,
                },
                Err(_) => !is_failing,
            }
        };
        let naming = self.all_servers().filter(|server| server.has_name(name)).filter(is_news);
        // No longer than it is kept.
        let answer = match answer {
            Ok(addresses) => Ok(in_order(addresses)),
            Err(why) => Err(cut(why)),
        };
        let resolve = |server: &Server| ServerOp::Resolve {
            server: server.uid,
            name: name.clone(),
            answer: answer.clone(),
        };
        naming.map(resolve).take(MOST_AT_ONCE).collect()
    }
}

/// Who comes by a name is changed by changing names.
pub(super) fn check_own(server: &Server, real: &Real) -> Result<(), Refusal> {
    let Some(name) = real.name.clone() else { return Ok(()) };
    let (server, real) = (server.spec.name.clone(), real.spec);
    Err(ServerRefusal::OfName { server, real, name }.into())
}

/// The same of one that goes: without it a name may bring it back.
pub(super) fn check_goes(server: &Server, real: &Real) -> Result<(), Refusal> {
    let place = |real: &RealSpec| (real.ip, server.spec.port_of(real));
    let has = |named: &&NamedReal| {
        let resolved = server.answers.get(&named.name);
        let mut addresses = resolved.into_iter().flat_map(|resolved| &resolved.addresses);
        addresses.any(|ip| place(&named.at(*ip)) == place(&real.spec))
    };
    let by_name = server.spec.names.iter().find(has).map(|named| named.name.clone());
    let name = by_name.or_else(|| real.name.clone());
    check_own(server, &Real { name, ..real.clone() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{apply, server, state_of, vip, voter};
    use crate::{Actor, CheckKind, Command, Level, NodeId, Op, RealPlace, VipOp, VipSpec};

    const NAME: &str = "web.example.com";
    const ONE: ServerUid = ServerUid(1);

    fn ips(all: &[&str]) -> Vec<IpAddr> {
        all.iter().map(|ip| ip.parse().expect("valid")).collect()
    }

    fn named(text: &str) -> ServerSpec {
        ServerSpec { names: vec![text.parse().expect("a name")], ..server(&[]) }
    }

    fn add(state: &mut State, spec: ServerSpec, addresses: &[&str]) -> Outcome {
        let answers = [(NAME.parse().expect("valid"), ips(addresses))].into();
        does(state, ServerOp::AddNamed { spec, answers })
    }

    fn does(state: &mut State, op: impl Into<Op>) -> Outcome {
        let command = Command { time_ms: 1, actor: Actor("t".into()), term: None, op: op.into() };
        state.apply(1, &command)
    }

    fn state() -> State {
        let mut state = state_of([voter(1)]);
        let addresses = ["10.0.0.100/24", "fd00::100/64"].map(|ip| ip.parse().expect("valid"));
        let interface = Some("lan".into());
        let spec = VipSpec { addresses: addresses.into(), interface, ..vip("web", 100) };
        apply(&mut state, VipOp::Add { spec });
        state
    }

    fn with(spec: ServerSpec, addresses: &[&str]) -> State {
        let mut state = state();
        assert_eq!(add(&mut state, spec, addresses), Outcome::Done);
        state
    }

    fn answer(state: &mut State, answer: Result<Vec<IpAddr>, String>) -> Outcome {
        let name = NAME.parse().expect("valid");
        does(state, ServerOp::Resolve { server: ONE, name, answer })
    }

    fn reals(state: &State) -> Vec<String> {
        state.server(ONE).expect("there").reals.iter().map(|real| real.spec.to_string()).collect()
    }

    #[test]
    fn each_address_is_a_real_server_in_whatever_order_they_came() {
        let one = with(named("web.example.com:80@2"), &["10.0.0.12", "10.0.0.11", "10.0.0.12"]);
        assert_eq!(reals(&one), ["10.0.0.11:80@2", "10.0.0.12:80@2"]);
        let other = with(named("web.example.com:80@2"), &["10.0.0.11", "10.0.0.12"]);
        assert_eq!(one.server(ONE), other.server(ONE));
        // Beside one that is named by its address, which keeps its own weight.
        let both = ServerSpec { reals: server(&["10.0.0.12"]).reals, ..named(NAME) };
        let both = with(both, &["10.0.0.11", "10.0.0.12", "fd00::11", "127.0.0.1"]);
        assert_eq!(reals(&both), ["10.0.0.11", "10.0.0.12"]);
        let by_name = |real: &Real| real.name.is_some();
        let server = both.server(ONE).expect("there");
        assert_eq!(server.reals.iter().map(by_name).collect::<Vec<_>>(), [true, false]);
        let known = ips(&["10.0.0.11", "10.0.0.12", "fd00::11"]).into_iter().collect();
        assert_eq!(both.names(), [(NAME.parse().expect("valid"), known)].into());
    }

    #[test]
    fn another_answer_is_other_real_servers_and_who_stays_stays_as_it_was() {
        let checked = ServerSpec { check: Some(CheckKind::Tcp.into()), ..named(NAME) };
        let mut state = with(checked, &["10.0.0.11", "10.0.0.12"]);
        let seen = |ip: &str| {
            let ip = ip.parse().expect("valid");
            (crate::Observed { server: ONE, ip, port: 80 }, Some(crate::Opinion::Up))
        };
        let seen = vec![seen("10.0.0.11"), seen("10.0.0.12")];
        does(&mut state, ServerOp::Observe { node: NodeId(1), seen });
        let place = RealPlace { ip: [10, 0, 0, 12].into(), port: None };
        let front = || "front".parse().expect("valid");
        does(&mut state, ServerOp::DrainReal { server: front(), place, drained: true });
        let generation = state.server(ONE).expect("there").generation;
        assert_eq!(answer(&mut state, Ok(ips(&["10.0.0.13", "10.0.0.12"]))), Outcome::Done);
        assert_eq!(reals(&state), ["10.0.0.12", "10.0.0.13"]);
        let server = state.server(ONE).expect("there");
        assert!(server.generation > generation);
        let [stayed, new] = &server.reals[..] else { panic!("two") };
        assert_eq!((stayed.drained, stayed.health.is_up), (true, Some(true)));
        assert_eq!((new.drained, new.health.is_up), (false, None));
        assert_eq!(answer(&mut state, Ok(ips(&["10.0.0.12", "10.0.0.13"]))), Outcome::Unchanged);
        // They go with the name alone.
        for op in [
            ServerOp::RemoveReal { server: front(), place },
            ServerOp::WeighReal { server: front(), place, weight: 7 },
        ] {
            let refused = does(&mut state, op);
            let Outcome::Refused(Refusal::Server(why)) = refused else { panic!("{refused:?}") };
            assert!(matches!(why, ServerRefusal::OfName { .. }), "{why}");
        }
    }

    #[test]
    fn a_resolver_that_fails_is_told_of_once_and_changes_nothing() {
        let mut state = with(named(NAME), &["10.0.0.11"]);
        let name = NAME.parse().expect("valid");
        let fails = || Err("no answer".to_owned());
        assert_eq!(state.resolutions(&name, &fails()).len(), 1);
        assert_eq!(answer(&mut state, fails()), Outcome::Done);
        let failed = state.server(ONE).cloned();
        assert_eq!(answer(&mut state, Err("another reason".to_owned())), Outcome::Unchanged);
        assert_eq!(state.resolutions(&name, &fails()), []);
        // Nor is an answer that nobody could be sent to by.
        for bad in [&["127.0.0.1"][..], &["10.0.0.100"], &["192.0.2.1"], &["fd00::1"], &[]] {
            assert_eq!(state.resolutions(&name, &Ok(ips(bad))), [], "{bad:?}");
            assert_eq!(answer(&mut state, Ok(ips(bad))), Outcome::Unchanged, "{bad:?}");
        }
        assert_eq!((state.server(ONE).cloned(), reals(&state)), (failed, vec!["10.0.0.11".into()]));
        // It answers again, and as before.
        let back = Ok(ips(&["10.0.0.11"]));
        assert_eq!(state.resolutions(&name, &back).len(), 1);
        assert_eq!(answer(&mut state, back.clone()), Outcome::Done);
        assert_eq!(state.server(ONE).expect("there").answers[&name].failing, None);
        assert_eq!(state.resolutions(&name, &back), []);
    }

    #[test]
    fn whoever_names_nobody_is_told_so_and_what_is_unfit_beside_others_is_left_out() {
        let mut state = state();
        for bad in [&[][..], &["127.0.0.1"], &["fd00::11"], &["10.0.0.100"]] {
            let refused = add(&mut state, named(NAME), bad);
            assert!(matches!(refused, Outcome::Refused(_)), "{bad:?}: {refused:?}");
        }
        let dr = ServerSpec { forward: crate::Forward::Dr, ..named(NAME) };
        assert_eq!(add(&mut state, dr, &["10.0.0.11", "192.0.2.1"]), Outcome::Done);
        assert_eq!(reals(&state), ["10.0.0.11"], "no host by direct routing");
        let many: Vec<_> = (0..=255).map(|last| IpAddr::from([10, 0, 0, last])).collect();
        assert_eq!(answer(&mut state, Ok(many)), Outcome::Done);
        assert!(reals(&state).len() <= MAX_ADDRESSES, "{}", reals(&state).len());
    }

    /// Whoever answers for a name can take away its servers, and not what works.
    #[test]
    fn an_answer_of_no_use_leaves_a_names_servers_whoever_else_there_is() {
        let spec = ServerSpec { reals: server(&["10.0.0.9"]).reals, ..named(NAME) };
        let mut state = with(spec, &["10.0.0.11", "10.0.0.12"]);
        let before = reals(&state);
        for bad in [&["127.0.0.1"][..], &["0.0.0.0"], &["fd00::11"], &["10.0.0.100"], &[]] {
            answer(&mut state, Ok(ips(bad)));
            assert_eq!(reals(&state), before, "{bad:?}");
        }
        // One that is named by its address as well is somebody.
        assert_eq!(answer(&mut state, Ok(ips(&["10.0.0.9"]))), Outcome::Done);
        assert_eq!(reals(&state), ["10.0.0.9"]);
    }

    #[test]
    fn what_was_left_out_is_taken_as_soon_as_it_can_be() {
        let mut state = with(named(NAME), &["10.0.0.11"]);
        apply(&mut state, VipOp::Add { spec: vip("other", 12) });
        let both = || Ok(ips(&["10.0.0.11", "10.0.0.12"]));
        let name: HostName = NAME.parse().expect("valid");
        assert_eq!(answer(&mut state, both()), Outcome::Done);
        assert_eq!(
            (reals(&state), state.resolutions(&name, &both())),
            (vec!["10.0.0.11".into()], vec![])
        );
        apply(&mut state, VipOp::Remove { name: "other".parse().expect("valid") });
        let [resolve] = &state.resolutions(&name, &both())[..] else { panic!("it changes") };
        assert_eq!(does(&mut state, resolve.clone()), Outcome::Done);
        assert_eq!(reals(&state), ["10.0.0.11", "10.0.0.12"]);
    }

    #[test]
    fn who_is_named_by_its_address_is_there_whatever_its_name_resolves_to() {
        let mut check = crate::CheckSpec::from(CheckKind::Tcp);
        let otherwise = crate::RealCheck {
            ip: [10, 0, 0, 12].into(),
            port: None,
            check: None,
            check_port: Some(81),
        };
        check.otherwise = vec![otherwise];
        let spec = ServerSpec { check: Some(check.clone()), ..named(NAME) };
        let mut state = with(spec, &["10.0.0.11", "10.0.0.12"]);
        let front = || "front".parse().expect("valid");
        let real = || "10.0.0.11@3".parse().expect("valid");
        assert_eq!(
            does(&mut state, ServerOp::AddReal { server: front(), real: real() }),
            Outcome::Done
        );
        let place = RealPlace { ip: [10, 0, 0, 11].into(), port: None };
        let remove = || ServerOp::RemoveReal { server: front(), place };
        assert!(matches!(does(&mut state, remove()), Outcome::Refused(_)), "it would come back");
        assert_eq!(answer(&mut state, Ok(ips(&["10.0.0.13"]))), Outcome::Done);
        assert_eq!(reals(&state), ["10.0.0.11@3", "10.0.0.13"]);
        // Who was there once and is checked otherwise is so when it is there again.
        assert_eq!(state.server(ONE).expect("there").spec.check, Some(check));
        assert_eq!(does(&mut state, remove()), Outcome::Done);
        assert_eq!(reals(&state), ["10.0.0.13"]);
    }

    #[test]
    fn a_version_before_is_told_of_no_names() {
        let answers = Resolutions::new();
        let op = ServerOp::AddNamed { spec: named(NAME), answers };
        assert_eq!(op.since(), Level::NAMES);
        // Nor of resets: it would refuse them, and others would not.
        let policy = crate::Policy { on_down: crate::OnDown::Reset, ..Default::default() };
        let spec = ServerSpec { policy, ..server(&["10.0.0.11"]) };
        let udp = ServerSpec { protocol: crate::Protocol::Udp, ..spec.clone() };
        assert_eq!((spec.check(), udp.check().is_err()), (Ok(()), true));
        assert_eq!(ServerOp::Add { spec }.since(), Level::NAMES);
        let written = serde_json::to_string(&server(&["10.0.0.11"])).expect("plain");
        assert!(!written.contains("names"), "{written}");
    }
}
