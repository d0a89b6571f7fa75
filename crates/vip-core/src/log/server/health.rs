//! What observers see of real servers, and what comes of it: who is served.

use super::{Real, Server, ServerEvent, ServerOp};
use crate::log::State;
use crate::{
    CheckSpec, Damping, Level, Name, Node, NodeId, NodeState, Observed, Opinion, Outcome, RealSpec,
    Refusal, ServerSpec, ServerUid, Target, judge, observers,
};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// So many nodes observe a real server, where there are as many.
const OBSERVERS: usize = 3;
/// How long first answers take to be in the log, beside the time that probes take.
pub const FIRST_ANSWERS: Duration = Duration::from_secs(1);
/// Who did it, where nobody did but that members changed.
pub(super) const MEMBERS_CHANGED: &str = "cluster";
/// Real servers in one entry.
pub(super) const MOST_AT_ONCE: usize = 2000;
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
    /// Absent where it never went down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub damping: Option<Damping>,
}

pub(super) fn is_zero<T: Default + PartialEq>(number: &T) -> bool {
    *number == T::default()
}

/// What an observer sees of one; `None`: it does not observe it any more.
pub type Sighting = (Observed, Option<Opinion>);

impl Health {
    pub(super) fn is_unchecked(&self) -> bool {
        *self == Self::default()
    }

    /// The last failure that an observer tells of one that is down, if there is one whose word
    /// `counts`: the rest of a sentence.
    #[must_use]
    pub fn why(&self, counts: impl Fn(NodeId, &Opinion) -> bool) -> &str {
        if self.is_held() {
            return "it went down again and again: it is held down for some minutes";
        }
        let told = self.seen.iter().filter(|(node, opinion)| counts(**node, opinion));
        let mut told = told.filter_map(|(_, opinion)| match opinion {
            Opinion::Down(why) => Some(why.as_str()),
            Opinion::Up | Opinion::Blind | Opinion::Unable(_) => None,
        });
        told.next().unwrap_or("it does not answer")
    }

    /// Whether it is held down, whatever its observers see.
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.damping.is_some_and(|damping| damping.held)
    }

    /// Why none of its observers can look at it, where none can: the rest of a sentence.
    #[must_use]
    pub fn unable(&self, observers: &[NodeId]) -> Option<&str> {
        let said = || observers.iter().filter_map(|node| self.seen.get(node));
        let sees = |opinion: &Opinion| matches!(opinion, Opinion::Up | Opinion::Down(_));
        if said().any(sees) {
            return None;
        }
        said().find_map(|opinion| match opinion {
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

pub(super) fn cut(why: &str) -> String {
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
        target(&self.spec, real)
    }
}

fn target(spec: &ServerSpec, real: &RealSpec) -> Option<Target> {
    let check = spec.check.as_ref()?;
    let own = spec.port_of(real);
    let (kind, port) = check.of(real.ip, own);
    let port = port.or(own).or((!kind.has_port()).then_some(0))?;
    Some(Target { at: SocketAddr::new(real.ip, port), kind: kind.clone(), timing: check.timing })
}

impl Server {
    /// Whether first answers may still come in. Who connected by then was early: that each of
    /// them is a change of its own is no reason to go by two tables for minutes.
    #[must_use]
    pub fn is_new(&self, now_ms: u64) -> bool {
        let answers_ms = |check: &CheckSpec| {
            let timing = &check.timing;
            let within = timing.first_answers() + timing.grace + FIRST_ANSWERS;
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
        // Another port of the virtual server is no other check.
        let how = |spec: &ServerSpec, real: &RealSpec| {
            let (kind, port) = spec.check.as_ref()?.of(real.ip, spec.port_of(real));
            Some((kind.clone(), port))
        };
        if self.spec.check != spec.check {
            // Whoever changes it looks at it.
            reals.iter_mut().for_each(|real| real.health.damping = None);
        }
        let is_other = |real: &&mut Real| how(&self.spec, &real.spec) != how(spec, &real.spec);
        for real in reals.iter_mut().filter(is_other) {
            let place = (real.spec.ip, spec.port_of(&real.spec));
            let is_it = |was: &&Real| (was.spec.ip, self.spec.port_of(&was.spec)) == place;
            let was = self.reals.iter().find(is_it);
            let is_served = was.is_some_and(|was| self.is_well(was));
            real.health = match spec.check {
                Some(_) if is_served => {
                    Health { is_up: Some(true), since_ms: now_ms, ..Health::default() }
                }
                _ => Health::default(),
            };
        }
    }
}

/// Both, each once.
fn with(mut observers: Vec<NodeId>, onlookers: &[NodeId]) -> Vec<NodeId> {
    let others = onlookers.iter().filter(|node| !observers.contains(node));
    let others: Vec<_> = others.copied().collect();
    observers.extend(others);
    observers
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
        with(self.observers_of(server, real), &self.onlookers(server))
    }

    /// The real servers that a node observes.
    #[must_use]
    pub fn observed_by(&self, node: NodeId) -> Vec<(&Server, &Real)> {
        let checked = self.all_servers().filter(|server| server.spec.check.is_some());
        let all = checked.flat_map(|server| server.reals.iter().map(move |real| (server, real)));
        all.filter(|(server, real)| self.watchers_of(server, real).contains(&node)).collect()
    }

    /// The virtual servers that a holder hears of whether somebody answers, beside probes.
    #[must_use]
    pub fn heard_by(&self, node: NodeId) -> BTreeSet<ServerUid> {
        let holds = |server: &&Server| {
            server.spec.check.is_some()
                && self.vip(server.vip).is_some_and(|vip| vip.holder == Some(node))
        };
        self.all_servers().filter(holds).map(|server| server.uid).collect()
    }

    /// Whether somebody sees a real server down.
    #[must_use]
    pub fn is_seen_down(&self, observed: &Observed) -> bool {
        let server = self.server(observed.server);
        let mut real = server.into_iter().flat_map(|server| {
            server.reals.iter().filter(|real| server.observed(&real.spec) == *observed)
        });
        let is_down = |opinion: &Opinion| matches!(opinion, Opinion::Down(_));
        real.any(|real| real.health.seen.values().any(is_down))
    }

    /// Who probes the real servers that tables have at these places.
    #[must_use]
    pub fn watchers_at(
        &self,
        server: ServerUid,
        places: &[(IpAddr, u16)],
    ) -> BTreeMap<NodeId, Vec<Observed>> {
        let mut all: BTreeMap<_, Vec<_>> = BTreeMap::new();
        let Some(server) = self.server(server) else { return all };
        let place = |real: &Real| server.dealt_one(&real.spec, 1).place();
        for real in server.reals.iter().filter(|real| places.contains(&place(real))) {
            for node in self.watchers_of(server, real) {
                all.entry(node).or_default().push(server.observed(&real.spec));
            }
        }
        all
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
            let all = self.all_servers();
            let all = all.flat_map(|server| server.reals.iter().map(move |real| (server, real)));
            // What somebody said who looks no more counts nowhere, and is not taken back.
            let said = all.filter(|(server, real)| {
                let says = real.health.seen.get(node);
                says.is_some_and(|opinion| *opinion != Opinion::Blind)
                    && self.watchers_of(server, real).contains(node)
            });
            // The rest is next.
            let said = said.take(MOST_AT_ONCE);
            let blind = |(server, real): (&Server, &Real)| {
                (server.observed(&real.spec), Some(Opinion::Blind))
            };
            let seen: Vec<_> = said.map(blind).collect();
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
        let mut changed = BTreeMap::new();
        let mut needs = self.needs;
        for (observed, opinion) in self.new_sightings(node, seen.to_vec()) {
            let Some((known, real)) = self.to_change(&mut changed, observed) else { continue };
            let has_no_say = || !self.observers_of(known, real).contains(&node);
            if self.onlookers(known).contains(&node) && has_no_say() {
                // An earlier version does not keep such an opinion.
                needs = Level::KINDS;
            }
            match opinion {
                Some(opinion) => real.health.seen.insert(node, opinion),
                None => real.health.seen.remove(&node),
            };
        }
        self.needs = self.needs.max(needs);
        self.judge_all(actor, changed)
    }

    /// A real server as it is to be, and its virtual one as the log has it.
    pub(super) fn to_change<'a>(
        &'a self,
        changed: &'a mut BTreeMap<ServerUid, Server>,
        observed: Observed,
    ) -> Option<(&'a Server, &'a mut Real)> {
        let known = self.server(observed.server)?;
        let server = changed.entry(observed.server).or_insert_with(|| known.clone());
        let is_it = |real: &&mut Real| known.observed(&real.spec) == observed;
        Some((known, server.reals.iter_mut().find(is_it)?))
    }

    fn judge_all(&mut self, actor: &str, changed: BTreeMap<ServerUid, Server>) -> Outcome {
        let outcome = if changed.is_empty() { Outcome::Unchanged } else { Outcome::Done };
        for server in changed.into_values() {
            self.judge(actor, server);
        }
        outcome
    }

    /// Those that are held down, each with what it owes: that tells one time from another.
    #[must_use]
    pub fn held(&self) -> Vec<(Observed, u64)> {
        let all = self.all_servers().flat_map(|server| {
            server.reals.iter().map(move |real| (server.observed(&real.spec), &real.health))
        });
        let held = |(observed, health): (Observed, &Health)| {
            let damping = health.damping.filter(|damping| damping.held)?;
            Some((observed, damping.free_ms))
        };
        all.filter_map(held).take(MOST_AT_ONCE).collect()
    }

    /// They are held down no longer, and what follows.
    pub(super) fn release(&mut self, actor: &str, reals: &[Observed]) -> Outcome {
        let mut changed = BTreeMap::new();
        for observed in reals {
            let real = self.to_change(&mut changed, *observed).map(|(_, real)| real);
            if let Some(damping) = real.and_then(|real| real.health.damping.as_mut()) {
                damping.held = false;
            }
        }
        self.judge_all(actor, changed)
    }

    /// Nodes that are none any more, or observe no more, have no opinion; what follows.
    pub(super) fn judge_anew(&mut self, uid: ServerUid) {
        let Some(server) = self.server(uid) else { return };
        let is_stranger = |(real, observers): (&Real, &Vec<NodeId>)| {
            real.health.seen.keys().any(|node| !observers.contains(node))
        };
        let nodes: Vec<_> =
            server.reals.iter().map(|real| self.watchers_of(server, real)).collect();
        // Who is held down may be the only one by now. An earlier version did not look.
        let is_held = |real: &Real| real.health.is_held();
        let may_be_freed = self.understood() >= Level::NAMES && server.reals.iter().any(is_held);
        if !may_be_freed && !server.reals.iter().zip(&nodes).any(is_stranger) {
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
        // An earlier version knows of no damping.
        let damps = self.understood() >= Level::KINDS;
        let mut needs = self.needs;
        let onlookers = self.onlookers(&server);
        let mut verdicts = vec![];
        for real in &mut reals {
            let observers = self.observers_of(&server, real);
            let counts = |node: &NodeId, opinion: &Opinion| {
                observers.contains(node) && self.counts(*node, opinion)
            };
            let opinions = real.health.seen.iter().filter(|(node, one)| counts(node, one));
            // One that is held down was up, and is not for that alone.
            let was = if real.health.is_held() { Some(true) } else { real.health.is_up };
            verdicts.push(judge(was, opinions.map(|(_, opinion)| opinion)));
            let watchers = with(observers, &onlookers);
            real.health.seen.retain(|node, _| watchers.contains(node));
        }
        let is_free = |(real, is_up): (&Real, &Option<bool>)| {
            *is_up == Some(true) && real.weight() > 0 && !real.health.is_held()
        };
        // Better one that comes and goes than none.
        let holds = reals.iter().zip(&verdicts).any(is_free);
        for (real, seen) in reals.iter_mut().zip(verdicts) {
            let is_up = seen.map(|seen| seen && !(holds && real.health.is_held()));
            if is_up == real.health.is_up {
                continue;
            }
            if real.health.is_up == Some(true) && seen == Some(false) && damps {
                needs = Level::KINDS;
                let damping = real.health.damping.get_or_insert_default();
                if damping.went_down(self.time_ms) {
                    let (server, real) = (server.spec.name.clone(), real.spec);
                    events.push(ServerEvent::Held { server, real });
                }
            }
            is_first &= real.health.is_up.is_none();
            real.rising = if is_up == Some(true) { server.first_share(self.time_ms) } else { 0 };
            (real.health.is_up, real.health.since_ms) = (is_up, self.time_ms);
            let (server, spec) = (server.spec.name.clone(), real.spec);
            events.push(match is_up {
                Some(true) => ServerEvent::RealUp { server, real: spec },
                _ => {
                    let why = real.health.why(|node, one| self.counts(node, one)).to_owned();
                    ServerEvent::RealDown { server, real: spec, why }
                }
            });
        }
        self.needs = self.needs.max(needs);
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
mod tests;
