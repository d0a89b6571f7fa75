//! What observers see of real servers, and what comes of it: who is served.

use super::{Real, Server, ServerEvent, ServerOp};
use crate::log::State;
use crate::{
    CheckSpec, Level, Name, Node, NodeId, NodeState, Observed, Opinion, Outcome, RealSpec, Refusal,
    ServerSpec, ServerUid, Target, judge, observers,
};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

/// So many nodes observe a real server, where there are as many.
const OBSERVERS: usize = 3;
/// How long first answers take to be in the log, beside the time that probes take.
pub const FIRST_ANSWERS: Duration = Duration::from_secs(1);
/// Who did it, where nobody did but that members changed.
pub(super) const MEMBERS_CHANGED: &str = "cluster";
/// Real servers in one entry.
const MOST_BLINDED: usize = 2000;
/// Bytes of a reason that are kept.
const MAX_WHY: usize = 240;

/// Whether a real server is up, and who says so.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// `None`: nobody knows yet. While it is checked it is served if it is up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub is_up: Option<bool>,
    /// Log time, ms since 1970.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub since_ms: u64,
    /// By observer.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub seen: BTreeMap<NodeId, Opinion>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde wants it so")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// What an observer sees of one; `None`: it does not observe it any more.
pub type Sighting = (Observed, Option<Opinion>);

impl Health {
    pub(super) fn is_unchecked(&self) -> bool {
        *self == Self::default()
    }

    /// The last failure that an observer tells of one that is down: the rest of a sentence.
    #[must_use]
    pub fn why(&self) -> &str {
        let told = self.seen.values().find_map(|opinion| match opinion {
            Opinion::Down(why) => Some(why.as_str()),
            Opinion::Up | Opinion::Blind | Opinion::Unable(_) => None,
        });
        told.unwrap_or("it does not answer")
    }
}

impl Health {
    /// Why nobody can look at it, where nobody can: the rest of a sentence.
    #[must_use]
    pub fn unable(&self) -> Option<&str> {
        let sees = |opinion: &Opinion| matches!(opinion, Opinion::Up | Opinion::Down(_));
        if self.seen.values().any(sees) {
            return None;
        }
        self.seen.values().find_map(|opinion| match opinion {
            Opinion::Unable(why) => Some(why.as_str()),
            Opinion::Up | Opinion::Down(_) | Opinion::Blind => None,
        })
    }
}

impl Opinion {
    /// As the log keeps it, and as it is written there: what is no text costs several times as
    /// much.
    #[must_use]
    pub fn cut(&self) -> Self {
        match self {
            Self::Down(why) => Self::Down(cut(why)),
            Self::Unable(why) => Self::Unable(cut(why)),
            Self::Up | Self::Blind => self.clone(),
        }
    }
}

fn cut(why: &str) -> String {
    let text = why.chars().filter(|letter| !letter.is_control());
    let text: String = text.take(MAX_WHY).collect();
    text[..text.floor_char_boundary(MAX_WHY)].to_owned()
}

impl Server {
    /// How nodes name one of its real servers.
    #[must_use]
    pub fn observed(&self, real: &RealSpec) -> Observed {
        let port = self.spec.port_of(real).unwrap_or(0);
        Observed { server: self.uid, ip: real.ip, port }
    }

    /// How one of them is probed; `None`: it is not.
    #[must_use]
    pub fn target(&self, real: &RealSpec) -> Option<Target> {
        let check = self.spec.check.as_ref()?;
        let port = check.port.or(self.spec.port_of(real));
        let port = port.or((!check.kind.has_port()).then_some(0))?;
        let at = SocketAddr::new(real.ip, port);
        Some(Target { at, kind: check.kind.clone(), timing: check.timing })
    }
}

impl Server {
    /// Whether first answers may still come in. Who connected by then was early: that each of
    /// them is a change of its own is no reason to go by two tables for minutes.
    #[must_use]
    pub fn is_new(&self, now_ms: u64) -> bool {
        let answers_ms = |check: &CheckSpec| {
            let within = check.timing.first_answers() + FIRST_ANSWERS;
            u64::try_from(within.as_millis()).unwrap_or(u64::MAX)
        };
        let check = self.spec.check.as_ref();
        let until = self.added_ms.zip(check);
        let until = until.map(|(added, check)| added.saturating_add(answers_ms(check)));
        until.is_some_and(|until| now_ms < until)
    }

    /// What is known of its real servers, where another check is wanted. Who is served is
    /// served on until it is probed.
    pub(super) fn checked_otherwise(&self, spec: &ServerSpec, reals: &mut [Real], now_ms: u64) {
        let how =
            |spec: &ServerSpec| spec.check.as_ref().map(|check| (check.kind.clone(), check.port));
        if how(&self.spec) == how(spec) {
            return;
        }
        for real in reals {
            let place = (real.spec.ip, spec.port_of(&real.spec));
            let is_it = |was: &&Real| (was.spec.ip, self.spec.port_of(&was.spec)) == place;
            let was = self.reals.iter().find(is_it);
            let is_served = was.is_some_and(|was| self.is_well(was));
            real.health = match spec.check {
                Some(_) if is_served => {
                    Health { is_up: Some(true), since_ms: now_ms, seen: BTreeMap::new() }
                }
                _ => Health::default(),
            };
        }
    }
}

impl State {
    /// Whether the nodes that are to observe are there, and can: those that were named before
    /// are `known`.
    pub(super) fn check_observers(&self, spec: &ServerSpec, known: &[Name]) -> Result<(), Refusal> {
        // A node that went since is no reason to refuse something else.
        let named = spec.check.iter().flat_map(|check| &check.observers);
        let new = named.filter(|name| !known.contains(name));
        let may = |node: &&Node| node.role.holds();
        let is_unknown =
            |name: &&Name| !self.nodes.values().filter(may).any(|node| node.name == **name);
        match new.into_iter().find(is_unknown) {
            Some(name) => Err(Refusal::UnknownNode { name: name.to_string() }),
            None => Ok(()),
        }
    }

    /// The nodes that observe a real server.
    #[must_use]
    pub fn observers_of(&self, server: &Server, real: &Real) -> Vec<NodeId> {
        let Some(check) = &server.spec.check else { return vec![] };
        let may = |name: &Name| check.observers.is_empty() || check.observers.contains(name);
        let nodes = self.nodes.values().filter(|node| node.state == NodeState::Active);
        let nodes = nodes.filter(|node| node.role.holds() && may(&node.name)).map(|node| node.id);
        let Observed { ip, port, .. } = server.observed(&real.spec);
        observers(nodes, server.uid, (ip, port), OBSERVERS)
    }

    /// Those, and who looks without a say in the verdict.
    #[must_use]
    pub fn watchers_of(&self, server: &Server, real: &Real) -> Vec<NodeId> {
        let mut all = self.observers_of(server, real);
        // An earlier version keeps no other opinions.
        if server.spec.check.is_some() && self.understood() >= Level::KINDS {
            let others = self.onlookers(server).into_iter();
            let others: Vec<_> = others.filter(|node| !all.contains(node)).collect();
            all.extend(others);
        }
        all
    }

    /// The real servers that a node observes.
    #[must_use]
    pub fn observed_by(&self, node: NodeId) -> Vec<(&Server, &Real)> {
        let checked = self.all_servers().filter(|server| server.spec.check.is_some());
        let all = checked.flat_map(|server| server.reals.iter().map(move |real| (server, real)));
        all.filter(|(server, real)| self.watchers_of(server, real).contains(&node)).collect()
    }

    /// Whom a node is to probe, and how.
    #[must_use]
    pub fn probed_by(&self, node: NodeId) -> BTreeMap<Observed, Target> {
        let target = |(server, real): (&Server, &Real)| {
            Some((server.observed(&real.spec), server.target(&real.spec)?))
        };
        self.observed_by(node).into_iter().filter_map(target).collect()
    }

    /// Of what a node sees, what the log has otherwise. It keeps what a node said that has
    /// not looked since it started.
    #[must_use]
    pub fn unsaid_sightings(
        &self,
        node: NodeId,
        sees: &BTreeMap<Observed, (Target, Opinion)>,
    ) -> Vec<Sighting> {
        let checked = self.all_servers().filter(|server| server.spec.check.is_some());
        let all = checked.flat_map(|server| server.reals.iter().map(move |real| (server, real)));
        let unsaid = |(server, real): (&Server, &Real)| {
            let observed = server.observed(&real.spec);
            let (target, opinion) = sees.get(&observed)?;
            let opinion = self.as_understood(opinion.cut());
            let is_news = server.target(&real.spec).as_ref() == Some(target)
                && real.health.seen.get(&node) != Some(&opinion);
            // Last: it is the one that takes a while.
            let may = is_news && self.watchers_of(server, real).contains(&node);
            may.then_some((observed, Some(opinion)))
        };
        all.filter_map(unsaid).collect()
    }

    /// An opinion as all members can read it.
    fn as_understood(&self, opinion: Opinion) -> Opinion {
        match opinion {
            Opinion::Unable(_) if self.understood() < Level::KINDS => Opinion::Blind,
            other => other,
        }
    }

    /// What nodes said that are silent, taken back for them.
    #[must_use]
    pub fn blinded(&self, silent: &BTreeSet<NodeId>) -> Vec<ServerOp> {
        let blind = |node: &NodeId| {
            let all = self.all_servers().flat_map(|server| {
                server.reals.iter().map(move |real| (server.observed(&real.spec), &real.health))
            });
            let said = all.filter(|(_, health)| {
                health.seen.get(node).is_some_and(|opinion| *opinion != Opinion::Blind)
            });
            // The rest is next.
            let said = said.take(MOST_BLINDED);
            let seen: Vec<_> = said.map(|(one, _)| (one, Some(Opinion::Blind))).collect();
            (!seen.is_empty()).then_some(ServerOp::Observe { node: *node, seen })
        };
        silent.iter().filter_map(blind).collect()
    }

    /// Of what a node says, what is news to the log.
    #[must_use]
    pub fn new_sightings(&self, node: NodeId, said: Vec<Sighting>) -> Vec<Sighting> {
        let said = said.into_iter().map(|(observed, opinion)| {
            (observed, opinion.map(|opinion| self.as_understood(opinion)))
        });
        let is_news = |(observed, opinion): &Sighting| {
            let Some(server) = self.server(observed.server) else { return false };
            let mut reals = server.reals.iter();
            let real = reals.find(|real| server.observed(&real.spec) == *observed);
            real.is_some_and(|real| {
                let may = opinion.is_none() || self.watchers_of(server, real).contains(&node);
                may && real.health.seen.get(&node) != opinion.as_ref()
            })
        };
        let cut = |(one, opinion): Sighting| (one, opinion.as_ref().map(Opinion::cut));
        said.map(cut).filter(is_news).collect()
    }

    /// Takes over what a node sees, and what follows from it. Who is no observer has no
    /// opinion.
    pub(super) fn observe(&mut self, actor: &str, node: NodeId, seen: &[Sighting]) -> Outcome {
        let mut changed = BTreeMap::<ServerUid, Server>::new();
        for (observed, opinion) in self.new_sightings(node, seen.to_vec()) {
            let Some(known) = self.server(observed.server) else { continue };
            let server = changed.entry(observed.server).or_insert_with(|| known.clone());
            let is_it = |real: &Real| known.observed(&real.spec) == observed;
            let Some(real) = server.reals.iter_mut().find(|real| is_it(real)) else { continue };
            match opinion {
                Some(opinion) => real.health.seen.insert(node, opinion),
                None => real.health.seen.remove(&node),
            };
        }
        let outcome = if changed.is_empty() { Outcome::Unchanged } else { Outcome::Done };
        for server in changed.into_values() {
            self.judge(actor, server);
        }
        outcome
    }

    /// Nodes that are none any more, or observe no more, have no opinion; what follows.
    pub(super) fn judge_anew(&mut self, uid: ServerUid) {
        let Some(server) = self.server(uid) else { return };
        let is_stranger = |(real, observers): (&Real, &Vec<NodeId>)| {
            real.health.seen.keys().any(|node| !observers.contains(node))
        };
        let nodes: Vec<_> =
            server.reals.iter().map(|real| self.watchers_of(server, real)).collect();
        if !server.reals.iter().zip(&nodes).any(is_stranger) {
            return;
        }
        let mut server = server.clone();
        for (real, observers) in server.reals.iter_mut().zip(nodes) {
            real.health.seen.retain(|node, _| observers.contains(node));
        }
        self.judge(MEMBERS_CHANGED, server);
    }

    /// What follows for a virtual server from what its observers say.
    pub(super) fn judge(&mut self, actor: &str, mut server: Server) {
        let old = server.dealt(&server.reals);
        let mut reals = server.reals.clone();
        let mut events = vec![];
        let mut is_first = true;
        for real in &mut reals {
            let watchers = self.watchers_of(&server, real);
            real.health.seen.retain(|node, _| watchers.contains(node));
            let observers = self.observers_of(&server, real);
            let opinions = real.health.seen.iter().filter(|(node, _)| observers.contains(node));
            let is_up = judge(real.health.is_up, opinions.map(|(_, opinion)| opinion));
            if is_up == real.health.is_up {
                continue;
            }
            is_first &= real.health.is_up.is_none();
            (real.health.is_up, real.health.since_ms) = (is_up, self.time_ms);
            let (server, spec) = (server.spec.name.clone(), real.spec);
            events.push(match is_up {
                Some(true) => ServerEvent::RealUp { server, real: spec },
                _ => {
                    let why = real.health.why().to_owned();
                    ServerEvent::RealDown { server, real: spec, why }
                }
            });
        }
        let had_one = server.before.is_some();
        let short = server.deal_anew(old, reals, self.time_ms);
        if is_first && !events.is_empty() && !had_one && server.is_new(self.time_ms) {
            server.before = None;
        }
        self.put_server(server);
        self.record_all(actor, events.into_iter().chain(short));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{apply, server, state_of, vip, voter};
    use crate::{Actor, CheckKind, CheckSpec, Command, EventKind, Forwarding, NodeOp, Op, VipOp};
    use std::net::IpAddr;

    const NOBODY: [u8; 0] = [];
    const ONE: ServerUid = ServerUid(1);

    fn at(state: &mut State, time_ms: u64, op: impl Into<Op>) -> Outcome {
        let command = Command { time_ms, actor: Actor("test".into()), term: None, op: op.into() };
        state.apply(1, &command)
    }

    fn observed(last: u8) -> Observed {
        Observed { server: ONE, ip: [10, 0, 0, last].into(), port: 80 }
    }

    fn down() -> Opinion {
        Opinion::Down("connection refused".into())
    }

    fn sees(
        state: &mut State,
        node: u64,
        last: u8,
        opinion: impl Into<Option<Opinion>>,
    ) -> Outcome {
        let seen = vec![(observed(last), opinion.into())];
        at(state, 100 * node, ServerOp::Observe { node: NodeId(node), seen })
    }

    fn checked(reals: &[&str]) -> ServerSpec {
        ServerSpec { check: Some(CheckSpec::from(CheckKind::Tcp)), ..server(reals) }
    }

    fn with(nodes: u64, spec: ServerSpec) -> State {
        let mut state = state_of((1..=nodes).map(voter));
        apply(&mut state, VipOp::Add { spec: vip("web", 100) });
        apply(&mut state, ServerOp::Add { spec });
        state
    }

    fn forwarding(state: &State) -> Forwarding {
        let server = state.server(ONE).expect("there");
        Forwarding::of(state, server, &BTreeMap::new()).expect("something to forward")
    }

    /// The last parts of who is sent anything.
    fn served(state: &State) -> Vec<u8> {
        let last = |ip| match ip {
            IpAddr::V4(ip) => ip.octets()[3],
            IpAddr::V6(_) => panic!("v4"),
        };
        forwarding(state).places().into_iter().map(|(ip, _)| last(ip)).collect()
    }

    fn told(state: &State) -> Vec<String> {
        let events = state.events.after(0).into_iter().filter_map(|event| match &event.what {
            EventKind::Server(ServerEvent::RealUp { real, .. }) => Some(format!("{} up", real.ip)),
            EventKind::Server(ServerEvent::RealDown { real, why, .. }) => {
                Some(format!("{} down: {why}", real.ip))
            }
            _ => None,
        });
        events.collect()
    }

    #[test]
    fn who_is_served_is_what_most_observers_see_up() {
        let mut state = with(3, checked(&["10.0.0.11", "10.0.0.12"]));
        assert_eq!(served(&state), NOBODY, "nobody has seen either");
        assert_eq!(sees(&mut state, 1, 11, Opinion::Up), Outcome::Done);
        assert_eq!(served(&state), [11], "the first answer is enough");
        assert_eq!(sees(&mut state, 1, 12, Opinion::Up), Outcome::Done);
        let generation = |state: &State| state.server(ONE).expect("there").generation;
        let before = generation(&state);
        for node in [2, 3] {
            sees(&mut state, node, 11, Opinion::Up);
            sees(&mut state, node, 12, Opinion::Up);
        }
        assert_eq!(generation(&state), before, "that changes nothing");
        assert_eq!(sees(&mut state, 1, 12, down()), Outcome::Done);
        assert_eq!(served(&state), [11, 12], "one of three");
        assert_eq!(sees(&mut state, 2, 12, down()), Outcome::Done);
        assert_eq!(served(&state), [11]);
        let known = state.server(ONE).expect("there");
        assert_eq!(
            (known.reals[1].health.is_up, known.reals[1].health.since_ms),
            (Some(false), 300)
        );
        // It leaves both tables at once, and comes back with the slots that it had.
        let forwarding = forwarding(&state);
        assert!(
            forwarding.before.is_some_and(|before| before.reals().len() == 2),
            "not of first answers"
        );
        sees(&mut state, 1, 12, Opinion::Up);
        assert_eq!(served(&state), [11, 12]);
        let all =
            ["10.0.0.11 up", "10.0.0.12 up", "10.0.0.12 down: connection refused", "10.0.0.12 up"];
        assert_eq!(told(&state), all);
        assert_eq!(sees(&mut state, 1, 12, Opinion::Up), Outcome::Unchanged, "that is known");
    }

    #[test]
    fn what_comes_after_the_first_answers_is_a_change() {
        let mut state = with(1, checked(&["10.0.0.11", "10.0.0.12", "10.0.0.13"]));
        let two_tables = |state: &State| state.server(ONE).expect("there").before.is_some();
        let up = |state: &mut State, time_ms, last| {
            let seen = vec![(observed(last), Some(Opinion::Up))];
            at(state, time_ms, ServerOp::Observe { node: NodeId(1), seen });
        };
        up(&mut state, 2, 11);
        let until = CheckSpec::from(CheckKind::Tcp).timing.first_answers() + FIRST_ANSWERS;
        let until = u64::try_from(until.as_millis()).expect("some seconds");
        up(&mut state, until, 12);
        assert_eq!((served(&state), two_tables(&state)), (vec![11, 12], false));
        up(&mut state, until + 1, 13);
        assert_eq!((served(&state), two_tables(&state)), (vec![11, 12, 13], true));
    }

    #[test]
    fn a_tie_and_observers_that_see_nothing_change_nothing() {
        let mut state = with(2, checked(&["10.0.0.11"]));
        sees(&mut state, 1, 11, Opinion::Up);
        sees(&mut state, 2, 11, down());
        assert_eq!(served(&state), [11]);
        sees(&mut state, 1, 11, Opinion::Blind);
        assert_eq!(served(&state), NOBODY, "the other one alone sees");
        sees(&mut state, 2, 11, None);
        assert_eq!(served(&state), NOBODY, "nobody knows better");
        sees(&mut state, 1, 11, Opinion::Up);
        assert_eq!(served(&state), [11]);
    }

    /// Two of five are gone, and the last that they saw is not what is so.
    #[test]
    fn what_was_seen_by_nodes_that_are_silent_does_not_count() {
        let mut state = with(3, checked(&["10.0.0.11"]));
        for node in [1, 2, 3] {
            sees(&mut state, node, 11, Opinion::Up);
        }
        sees(&mut state, 1, 11, down());
        assert_eq!(served(&state), [11]);
        assert_eq!(state.blinded(&[].into()), []);
        for op in state.blinded(&[NodeId(2), NodeId(3), NodeId(9)].into()) {
            assert_eq!(at(&mut state, 1, op), Outcome::Done);
        }
        assert_eq!(served(&state), NOBODY, "the one that sees says that it is down");
        assert_eq!(state.blinded(&[NodeId(2), NodeId(3)].into()), [], "once");
        // They are back, and say again what they see.
        let server = state.server(ONE).expect("there");
        let target = server.target(&server.reals[0].spec).expect("checked");
        let seen = |target| [(observed(11), (target, Opinion::Up))].into();
        assert_eq!(state.unsaid_sightings(NodeId(2), &seen(target.clone())).len(), 1);
        let elsewhere = Target { at: SocketAddr::new(target.at.ip(), 81), ..target };
        assert_eq!(state.unsaid_sightings(NodeId(2), &seen(elsewhere)), [], "of another check");
    }

    #[test]
    fn only_observers_are_heard_and_only_of_what_is_checked() {
        let spec = checked(&["10.0.0.11"]);
        let check = spec
            .check
            .clone()
            .map(|check| CheckSpec { observers: vec!["n2".parse().expect("a name")], ..check });
        let mut state = with(3, ServerSpec { check, ..spec.clone() });
        for node in [1, 3, 9] {
            assert_eq!(sees(&mut state, node, 11, Opinion::Up), Outcome::Unchanged, "{node}");
        }
        assert_eq!(sees(&mut state, 2, 99, Opinion::Up), Outcome::Unchanged);
        assert_eq!(
            (state.observed_by(NodeId(1)).len(), state.observed_by(NodeId(2)).len()),
            (0, 1)
        );
        assert_eq!(sees(&mut state, 2, 11, Opinion::Up), Outcome::Done);
        let unknown = CheckSpec {
            observers: vec!["n7".parse().expect("a name")],
            ..CheckSpec::from(CheckKind::Tcp)
        };
        let spec = ServerSpec { check: Some(unknown), ..spec };
        let set = ServerOp::Set { spec, seen: state.server(ONE).expect("there").revision };
        assert!(matches!(at(&mut state, 1, set), Outcome::Refused(Refusal::UnknownNode { .. })));
        let mut unchecked = with(3, server(&["10.0.0.11"]));
        assert_eq!(sees(&mut unchecked, 1, 11, down()), Outcome::Unchanged);
        assert_eq!(served(&unchecked), [11]);
    }

    /// A service that runs is not stopped to be looked at.
    #[test]
    fn who_is_served_is_served_until_the_new_check_says_otherwise() {
        let mut state = with(1, server(&["10.0.0.11", "10.0.0.12"]));
        let set = |state: &mut State, spec: ServerSpec| {
            let seen = state.server(ONE).expect("there").revision;
            assert_eq!(at(state, 5, ServerOp::Set { spec, seen }), Outcome::Done);
        };
        let generation = |state: &State| state.server(ONE).expect("there").generation;
        let before = generation(&state);
        set(&mut state, checked(&["10.0.0.11", "10.0.0.12"]));
        assert_eq!(served(&state), [11, 12]);
        sees(&mut state, 1, 12, down());
        assert_eq!(served(&state), [11]);
        // However they are written, and whatever they weigh.
        let mut other = with(1, server(&["10.0.0.11", "10.0.0.12"]));
        set(&mut other, checked(&["10.0.0.11@5", "10.0.0.12:80"]));
        assert_eq!(served(&other), [11, 12]);
        // Another port says nothing of what is known.
        let spec = checked(&["10.0.0.11", "10.0.0.12", "10.0.0.13"]);
        let check = spec.check.clone().map(|check| CheckSpec { port: Some(81), ..check });
        set(&mut state, ServerSpec { check, ..spec });
        assert_eq!(served(&state), [11], "and a new one waits for its first answer");
        set(&mut state, server(&["10.0.0.11", "10.0.0.12"]));
        assert_eq!(served(&state), [11, 12], "nothing is checked any more");
        assert!(generation(&state) > before);
        let health = &state.server(ONE).expect("there").reals[1].health;
        assert!(health.is_unchecked(), "{health:?}");
    }

    #[test]
    fn what_is_said_is_what_the_log_has_otherwise() {
        let mut state = with(3, checked(&["10.0.0.11", "10.0.0.12"]));
        let me = NodeId(1);
        let target = |state: &State| {
            let server = state.server(ONE).expect("there");
            server.target(&server.reals[0].spec).expect("checked")
        };
        let other =
            |state: &State| Target { at: SocketAddr::new(observed(12).ip, 80), ..target(state) };
        let mut sees: BTreeMap<_, _> = [(observed(11), (target(&state), Opinion::Up))].into();
        assert_eq!(state.unsaid_sightings(me, &sees), [(observed(11), Some(Opinion::Up))]);
        let say = |state: &mut State, sees: &BTreeMap<_, _>| {
            let seen = state.unsaid_sightings(me, sees);
            at(state, 1, ServerOp::Observe { node: me, seen });
            assert_eq!(state.unsaid_sightings(me, sees), []);
        };
        say(&mut state, &sees);
        // What it saw before it started anew stays until it has looked.
        assert_eq!(state.unsaid_sightings(me, &BTreeMap::new()), []);
        sees.insert(observed(12), (other(&state), Opinion::Down("\u{1}x".repeat(999))));
        say(&mut state, &sees);
        let why = state.server(ONE).expect("there").reals[1].health.why().len();
        assert_eq!(why, MAX_WHY);
        // It is no observer any more.
        at(&mut state, 1, NodeOp::Drain { node: me, drained: true });
        assert_eq!(state.unsaid_sightings(me, &sees), []);
        let reals = &state.server(ONE).expect("there").reals;
        assert!(reals.iter().all(|real| real.health.seen.is_empty()), "{reals:?}");
        assert_eq!(served(&state), [11], "nobody knows better");
    }
}
