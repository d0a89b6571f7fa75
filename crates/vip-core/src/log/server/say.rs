//! Whose word counts of whether real servers are down. A node that sees none of those up that
//! others see up has a network of its own that is broken: who gets an answer is right, and
//! two nodes with the same broken switch must not outvote one that is served. What it sees up
//! counts all the same.
//!
//! Observers see one thing at different times, so it has to be so for as long as all of them
//! take to see it, and it has to be over for [`BACK_AFTER`]. The leader measures both.

use super::paths::TOLD;
use super::{Real, Server, ServerOp};
use crate::log::State;
use crate::{CheckKind, NodeEvent, NodeId, Opinion, Outcome, Reply};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

/// Of fewer hosts' real servers nobody can tell a broken network.
const HOSTS: usize = 2;
/// A node's word counts again when it has been as others' for so long: a network that comes
/// and goes must not take real servers along each time.
pub(super) const BACK_AFTER: Duration = Duration::from_secs(60);

/// Whether a node is to have a say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SayChange {
    pub node: NodeId,
    pub has: bool,
}

/// What a node does not see up.
#[derive(Default)]
struct Missed<'a> {
    hosts: BTreeSet<IpAddr>,
    /// As it sees one of them.
    why: &'a str,
    /// Until all others would see it as well.
    takes: Duration,
}

impl State {
    /// Whether what a node sees down counts.
    fn has_say(&self, node: NodeId) -> bool {
        self.nodes.get(&node).is_some_and(|node| node.no_say.is_none())
    }

    /// Whether an observer's word counts.
    #[must_use]
    pub fn counts(&self, node: NodeId, opinion: &Opinion) -> bool {
        *opinion == Opinion::Up || self.has_say(node)
    }

    /// Whether a real server that a node sees up, or down, tells of that node's network: who
    /// answers does. A node itself always does, silence is no answer, and what a program goes
    /// by nobody knows.
    fn tells_of_network(&self, server: &Server, real: &Real, node: NodeId) -> bool {
        let kind = server.target(&real.spec).map(|target| target.kind);
        let answers = kind.is_some_and(|kind| match &*kind {
            CheckKind::Exec(_) => false,
            CheckKind::Udp(check) => check.expect != Reply::None,
            _ => true,
        });
        answers && self.node_at(real.spec.ip).is_none_or(|at| at.id != node)
    }

    /// Whether a node sees something up that it looks at.
    fn sees_any_up(&self, node: NodeId) -> bool {
        let sees = |server: &Server, real: &Real| {
            real.health.seen.get(&node) == Some(&Opinion::Up)
                && self.watchers_of(server, real).contains(&node)
                && self.tells_of_network(server, real, node)
        };
        self.all_servers().any(|server| server.reals.iter().any(|real| sees(server, real)))
    }

    /// Whether a node without a say sees nothing up yet of what others see up.
    pub(super) fn misses_all(&self, node: NodeId) -> bool {
        !self.has_say(node) && self.missing_all().contains_key(&node)
    }

    /// Nodes that see nothing up of what others see up.
    fn missing_all(&self) -> BTreeMap<NodeId, Missed<'_>> {
        let mut missed: BTreeMap<NodeId, Missed<'_>> = BTreeMap::new();
        for server in self.all_servers() {
            let Some(check) = &server.spec.check else { continue };
            for real in &server.reals {
                let seen = &real.health.seen;
                let is = |wanted: fn(&Opinion) -> bool| seen.values().any(wanted);
                if !is(|one| *one == Opinion::Up) || !is(|one| matches!(one, Opinion::Down(_))) {
                    continue;
                }
                // Whoever looks no more may have said anything.
                let watchers = self.watchers_of(server, real);
                let tells = |node: &&NodeId| self.tells_of_network(server, real, **node);
                let told = || watchers.iter().filter(tells);
                let said = || told().filter_map(|node| Some((*node, seen.get(node)?)));
                if !said().any(|(_, opinion)| *opinion == Opinion::Up) {
                    continue;
                }
                for (node, opinion) in said() {
                    let Opinion::Down(why) = opinion else { continue };
                    let all = missed.entry(node).or_default();
                    all.hosts.insert(real.spec.ip);
                    all.why = why;
                    all.takes = all.takes.max(check.timing.noticed_after(true) + TOLD);
                }
            }
        }
        missed.retain(|node, all| {
            // Of one whose network is known to be broken the last host tells it as well.
            let is_told = all.hosts.len() >= HOSTS || !self.has_say(*node);
            is_told && !self.sees_any_up(*node)
        });
        missed
    }

    /// What is to be said of nodes, once it has been so for as long: `back_after` for those that
    /// are to have a say again.
    #[must_use]
    pub fn say_changes(&self, back_after: Duration) -> Vec<(SayChange, Duration)> {
        let missing = self.missing_all();
        let lost = missing.iter().filter(|(node, _)| self.has_say(**node));
        let lost = lost.map(|(node, all)| (SayChange { node: *node, has: false }, all.takes));
        let without = self.nodes.values().filter(|node| node.no_say.is_some());
        let back = without.filter(|node| !missing.contains_key(&node.id));
        let back = back.map(|node| (SayChange { node: node.id, has: true }, back_after));
        lost.chain(back).collect()
    }

    pub(super) fn take_say(&mut self, actor: &str, SayChange { node, has }: SayChange) -> Outcome {
        if !self.nodes.contains_key(&node) || self.has_say(node) == has {
            return Outcome::Unchanged;
        }
        let why = self.missing_all().get(&node).map(|all| all.why.to_owned());
        let why = why.filter(|_| !has);
        if why.is_none() && !has {
            // It was so when it was proposed.
            return Outcome::Unchanged;
        }
        let Some(known) = self.node_mut(node) else { return Outcome::Unchanged };
        known.no_say.clone_from(&why);
        self.record(actor, NodeEvent::Say { node, lost: why });
        let has_opinion =
            |server: &&Server| server.reals.iter().any(|real| real.health.seen.contains_key(&node));
        let all: Vec<_> = self.all_servers().filter(has_opinion).cloned().collect();
        all.into_iter().for_each(|server| self.judge(actor, server));
        Outcome::Done
    }
}

impl From<SayChange> for ServerOp {
    fn from(change: SayChange) -> Self {
        Self::Say { change }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{apply, server, state_of, vip, voter};
    use crate::{CheckTiming, CheckWords, EventKind, Observed, ServerSpec, ServerUid, VipOp};

    const TWO: [&str; 2] = ["10.0.0.11", "10.0.0.12"];

    /// Three nodes that look at these, and see all up.
    fn seen_by_three(reals: &[&str]) -> State {
        let mut state = state_of([1, 2, 3].map(voter));
        apply(&mut state, VipOp::Add { spec: vip("web", 100) });
        let check = Some(CheckKind::Tcp.into());
        apply(&mut state, ServerOp::Add { spec: ServerSpec { check, ..server(reals) } });
        for (node, last) in (1..=3).flat_map(|node| [(node, 11), (node, 12)]) {
            sees(&mut state, node, last, true);
        }
        state
    }

    fn sees(state: &mut State, node: u64, last: u8, up: bool) {
        let observed = Observed { server: ServerUid(1), ip: [10, 0, 0, last].into(), port: 80 };
        let opinion = if up { Opinion::Up } else { Opinion::Down("no route to it".into()) };
        let seen = vec![(observed, Some(opinion))];
        apply(state, ServerOp::Observe { node: NodeId(node), seen });
    }

    fn up(state: &State) -> Vec<Option<bool>> {
        state.all_servers().flat_map(|server| &server.reals).map(|real| real.health.is_up).collect()
    }

    fn change(node: u64, has: bool) -> SayChange {
        SayChange { node: NodeId(node), has }
    }

    /// As behind one broken switch.
    #[test]
    fn two_that_see_nothing_do_not_outvote_one_that_is_answered() {
        let mut state = seen_by_three(&TWO);
        assert_eq!(state.say_changes(BACK_AFTER), []);
        for (node, last) in [(1, 11), (1, 12), (2, 11)] {
            sees(&mut state, node, last, false);
        }
        let takes = CheckTiming::default().noticed_after(true) + TOLD;
        assert_eq!(
            state.say_changes(BACK_AFTER),
            [(change(1, false), takes)],
            "the other sees one yet"
        );
        sees(&mut state, 2, 12, false);
        assert_eq!(up(&state), [Some(false); 2]);
        for node in [1, 2] {
            assert!(state.say_changes(BACK_AFTER).contains(&(change(node, false), takes)));
            apply(&mut state, ServerOp::from(change(node, false)));
        }
        assert_eq!((up(&state), state.say_changes(BACK_AFTER)), (vec![Some(true); 2], vec![]));
        let told = state.events.all().into_iter().filter(|event| {
            matches!(&event.what, EventKind::Node(NodeEvent::Say { lost: Some(why), .. })
                if why == "no route to it")
        });
        assert_eq!(told.count(), 2);

        // The third alone decides who is down.
        sees(&mut state, 3, 11, false);
        assert_eq!(up(&state), [Some(false), Some(true)]);
        sees(&mut state, 1, 12, true);
        assert_eq!(state.say_changes(BACK_AFTER), [(change(1, true), BACK_AFTER)]);
        apply(&mut state, ServerOp::from(change(1, true)));
        assert!(state.has_say(NodeId(1)) && !state.has_say(NodeId(2)));
        assert_eq!(up(&state), [Some(false), Some(true)]);
    }

    #[test]
    fn servers_that_are_down_for_all_or_that_one_alone_sees_down_tell_nothing_of_a_node() {
        let mut state = seen_by_three(&TWO);
        sees(&mut state, 1, 11, false);
        assert_eq!(state.say_changes(BACK_AFTER), [], "it sees the other");
        for (node, last) in (1..=3).flat_map(|node| [(node, 11), (node, 12)]) {
            sees(&mut state, node, last, false);
        }
        assert_eq!((state.say_changes(BACK_AFTER), up(&state)), (vec![], vec![Some(false); 2]));
        // Of one host: it may refuse that node alone.
        let mut state = seen_by_three(&TWO[..1]);
        sees(&mut state, 1, 11, false);
        assert_eq!(state.say_changes(BACK_AFTER), []);
    }

    /// What it saw down is down for all now.
    #[test]
    fn who_sees_what_others_see_has_a_say_again() {
        let mut state = seen_by_three(&TWO);
        for last in [11, 12] {
            sees(&mut state, 1, last, false);
        }
        apply(&mut state, ServerOp::from(change(1, false)));
        for (node, last) in [(2, 11), (2, 12), (3, 11), (3, 12)] {
            sees(&mut state, node, last, false);
        }
        assert_eq!(state.say_changes(BACK_AFTER), [(change(1, true), BACK_AFTER)]);
    }

    /// As two switches that start anew, one after the other: the first is there again.
    #[test]
    fn what_one_without_a_say_sees_up_counts() {
        let mut state = seen_by_three(&TWO);
        for (node, last) in [(1, 11), (1, 12), (2, 11), (2, 12)] {
            sees(&mut state, node, last, false);
        }
        apply(&mut state, ServerOp::from(change(1, false)));
        apply(&mut state, ServerOp::from(change(2, false)));
        for last in [11, 12] {
            sees(&mut state, 1, last, true);
            sees(&mut state, 3, last, false);
        }
        assert_eq!(up(&state), [Some(true); 2], "a tie");
        apply(&mut state, ServerOp::from(change(3, false)));
        assert!(!state.has_say(NodeId(3)), "now it is the one");
        assert_eq!(up(&state), [Some(true); 2]);
        // What is not so any more is not believed.
        apply(&mut state, ServerOp::from(change(1, true)));
        apply(&mut state, ServerOp::from(change(1, false)));
        assert!(state.has_say(NodeId(1)));
    }

    /// Whoever is its own real server always answers itself, and a datagram that needs no
    /// answer never fails for who has no network.
    #[test]
    fn what_needs_no_network_tells_nothing_of_one() {
        let tells = |check: &str, expect: Option<&str>, real: &str| {
            let words = CheckWords { expect: expect.map(Into::into), ..CheckWords::of(check) };
            let kind = CheckKind::try_from(words).expect("a kind");
            let mut state = state_of([1, 2].map(voter));
            apply(&mut state, VipOp::Add { spec: vip("web", 100) });
            let spec = ServerSpec { check: Some(kind.into()), ..server(&[real]) };
            apply(&mut state, ServerOp::Add { spec });
            let server = state.all_servers().next().expect("there");
            state.tells_of_network(server, &server.reals[0], NodeId(2))
        };
        assert!(tells("tcp", None, "10.0.0.11") && tells("udp:00", None, "10.0.0.11"));
        assert!(!tells("udp:00", Some("none"), "10.0.0.11"));
        assert!(!tells("exec:a", None, "10.0.0.11"));
        assert!(!tells("tcp", None, "10.0.0.2") && tells("tcp", None, "10.0.0.1"));
    }
}
