//! Whether the holder of a VIP reaches the real servers behind it. Where it alone sees all of
//! a virtual server's down that others see up, the way is broken and not they: the VIP goes
//! to a node that reaches them, and does not come back for a while.
//!
//! Observers see one thing at different times, so it has to be so for as long as all of them
//! take to see it; and a node is trusted again when it has seen them for as long as [`DAMPED`].
//! The leader measures both.

use super::{Server, ServerEvent};
use crate::log::State;
use crate::log::reports::take_over;
use crate::{Level, NodeId, NodeState, Opinion, Outcome, ServerOp, ServerUid, VipUid};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::time::Duration;

/// A node that sees them again for so long may hold the VIP again: a way that comes and goes
/// must not take a VIP along each time.
const DAMPED: Duration = Duration::from_secs(60);
/// What observers see is in the log after so long, at most, where nothing is wrong.
pub(super) const TOLD: Duration = Duration::from_secs(1);

/// A node that did not reach the real servers of a virtual one behind a VIP that it held.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CutOff {
    pub server: ServerUid,
    /// As the node saw one of them: the rest of a sentence.
    pub why: String,
}

impl fmt::Display for CutOff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "it does not reach its real servers, which others see up ({})", self.why)
    }
}

/// What is to be said of a node and a VIP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PathChange {
    pub vip: VipUid,
    pub node: NodeId,
    /// The virtual server that it is cut off from; `None`: of none any more.
    pub server: Option<ServerUid>,
}

impl Server {
    /// What its observers call up.
    fn up_reals(&self) -> impl Iterator<Item = &super::Real> {
        self.reals.iter().filter(|real| real.health.is_up == Some(true))
    }
}

impl State {
    /// Why a node sees all down that is up, where somebody else who looks sees each of it up.
    fn sees_all_down<'a>(&self, server: &'a Server, node: NodeId) -> Option<&'a str> {
        let mut why = None;
        for real in server.up_reals() {
            match real.health.seen.get(&node) {
                Some(Opinion::Down(text)) => why = Some(text.as_str()),
                _ => return None,
            }
        }
        let by_another = |real: &super::Real| {
            let others = self.watchers_of(server, real).into_iter().filter(|other| *other != node);
            others.into_iter().any(|other| real.health.seen.get(&other) == Some(&Opinion::Up))
        };
        why.filter(|_| server.up_reals().all(by_another))
    }

    /// Whether a node sees something up of what is up of a virtual server.
    fn sees_some_up(&self, server: &Server, node: NodeId) -> bool {
        let is_up = |real: &super::Real| {
            real.health.seen.get(&node) == Some(&Opinion::Up)
                && self.watchers_of(server, real).contains(&node)
        };
        server.up_reals().any(is_up)
    }

    fn checked_behind(&self, vip: VipUid) -> impl Iterator<Item = &Server> {
        self.all_servers().filter(move |server| server.vip == vip && server.spec.check.is_some())
    }

    /// Whether a node sees real servers behind a VIP, as far as the log knows.
    #[must_use]
    pub fn sees_behind(&self, vip: VipUid, node: NodeId) -> bool {
        self.checked_behind(vip).any(|server| self.sees_some_up(server, node))
    }

    /// What is to be said of ways to real servers, once it has been so for as long.
    #[must_use]
    pub fn path_changes(&self) -> Vec<(PathChange, Duration)> {
        let broken = self.all_servers().filter_map(|server| {
            let (check, node) = (server.spec.check.as_ref()?, self.vip(server.vip)?.holder?);
            let is_known = self.cut_off.get(&server.vip).is_some_and(|all| all.contains_key(&node));
            if is_known || self.sees_all_down(server, node).is_none() {
                return None;
            }
            let change = PathChange { vip: server.vip, node, server: Some(server.uid) };
            // Of one whose network is known to be broken that was waited for.
            let waits = if self.misses_all(node) {
                Duration::ZERO
            } else {
                check.timing.noticed_after(true) + TOLD
            };
            Some((change, waits))
        });
        let known = self.cut_off.iter();
        let known = known.flat_map(|(vip, nodes)| nodes.keys().map(move |node| (*vip, *node)));
        let mended = known.filter_map(|(vip, node)| {
            let change = PathChange { vip, node, server: None };
            if self.checked_behind(vip).next().is_none() {
                return Some((change, Duration::ZERO));
            }
            // Of what nobody sees up nobody can tell.
            let up = |server: &&Server| server.up_reals().next().is_some();
            let mut told = self.checked_behind(vip).filter(up).peekable();
            let is_told = told.peek().is_some();
            (is_told && told.all(|server| self.sees_some_up(server, node)))
                .then_some((change, DAMPED))
        });
        broken.chain(mended).collect()
    }

    pub(super) fn take_paths(&mut self, actor: &str, changes: &[PathChange]) -> Outcome {
        let mut outcome = Outcome::Unchanged;
        for PathChange { vip, node, server } in changes {
            if self.vip(*vip).is_none() || !self.nodes.contains_key(node) {
                continue;
            }
            let said = server.and_then(|uid| {
                let known = self.server(uid)?;
                let why = self.sees_all_down(known, *node).unwrap_or("no answer").to_owned();
                Some((known.spec.name.clone(), CutOff { server: uid, why }))
            });
            let (name, cut_off) = said.unzip();
            if take_over(&mut self.cut_off, (*vip, *node), cut_off.as_ref()) {
                outcome = Outcome::Done;
                if let Some((server, CutOff { why, .. })) = name.zip(cut_off) {
                    self.record(actor, ServerEvent::CutOff { server, node: *node, why });
                }
            }
        }
        outcome
    }

    /// Who looks at the real servers of a virtual one without a say: the VIP's holder, and who
    /// is to be known to reach them again. Where somebody said who can reach them, of those.
    pub(super) fn onlookers(&self, server: &Server) -> Vec<NodeId> {
        // An earlier version keeps no other opinions.
        let check = server.spec.check.as_ref().filter(|_| self.understood() >= Level::KINDS);
        let Some(check) = check else { return vec![] };
        let holder = self.vip(server.vip).and_then(|vip| vip.holder);
        let marked = self.cut_off.get(&server.vip).into_iter().flat_map(|nodes| nodes.keys());
        let may = |node: &NodeId| {
            self.nodes.get(node).is_some_and(|node| {
                node.state == NodeState::Active
                    && (check.observers.is_empty() || check.observers.contains(&node.name))
            })
        };
        holder.into_iter().chain(marked.copied()).filter(may).collect()
    }
}

impl From<Vec<PathChange>> for ServerOp {
    fn from(changes: Vec<PathChange>) -> Self {
        Self::Paths { changes }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{apply, server, state_of, vip, voter};
    use crate::{
        Actor, Assignment, Cause, CheckKind, CheckTiming, Command, NodeView, Observed, Op,
        Placement, ServerSpec, VipOp, VipSpec, target,
    };
    use std::collections::BTreeMap;

    const WEB: VipUid = VipUid(1);
    const HOLDER: NodeId = NodeId(4);
    const TWO: [&str; 2] = ["10.0.0.11", "10.0.0.12"];

    fn at(state: &mut State, op: impl Into<Op>) -> Outcome {
        let command =
            Command { time_ms: 1, actor: Actor("test".into()), term: None, op: op.into() };
        state.apply(1, &command)
    }

    fn held(observers: &[&str], reals: &[&str]) -> State {
        let mut state = state_of([1, 2, 3, 4].map(voter));
        let spec = VipSpec { placement: Placement::Sticky, ..vip("web", 100) };
        apply(&mut state, VipOp::Add { spec });
        let observers = observers.iter().map(|name| name.parse().expect("a name")).collect();
        let check = Some(crate::CheckSpec { observers, ..CheckKind::Tcp.into() });
        let spec = ServerSpec { check, ..server(reals) };
        apply(&mut state, ServerOp::Add { spec });
        let seen = state.vip(WEB).expect("added").epoch;
        let moves = vec![Assignment { vip: WEB, seen, to: Some(HOLDER), cause: Cause::Command }];
        assert_eq!(at(&mut state, VipOp::Assign { moves }), Outcome::Done);
        state
    }

    /// Who does not look is not heard.
    fn sees(state: &mut State, node: u64, last: u8, up: bool) {
        let observed = Observed { server: ServerUid(1), ip: [10, 0, 0, last].into(), port: 80 };
        let opinion = if up { Opinion::Up } else { Opinion::Down("no route to it".into()) };
        let seen = vec![(observed, Some(opinion))];
        at(state, ServerOp::Observe { node: NodeId(node), seen });
    }

    fn all_see(state: &mut State, up: bool) {
        for (node, last) in (1..=4).flat_map(|node| [(node, 11), (node, 12)]) {
            sees(state, node, last, up);
        }
    }

    /// Where the VIP is to be, as things are.
    fn goes_to(state: &State) -> Option<NodeId> {
        let view = NodeView { alive: true, able: true, ..NodeView::default() };
        let views: BTreeMap<_, _> = (1..=4).map(|node| (NodeId(node), view.clone())).collect();
        target(state, NodeId(1), &views, state.vip(WEB).expect("there"))
    }

    const BROKEN: PathChange = PathChange { vip: WEB, node: HOLDER, server: Some(ServerUid(1)) };
    const MENDED: PathChange = PathChange { server: None, ..BROKEN };

    #[test]
    fn a_holder_that_alone_sees_all_down_gives_its_vip_away_once() {
        let mut state = held(&[], &TWO);
        all_see(&mut state, true);
        assert_eq!((state.path_changes(), goes_to(&state)), (vec![], Some(HOLDER)));
        sees(&mut state, 4, 11, false);
        assert_eq!(state.path_changes(), [], "it reaches the other one");
        sees(&mut state, 4, 12, false);
        // The others may be about to see the same.
        let takes = CheckTiming::default().noticed_after(true) + TOLD;
        assert_eq!(state.path_changes(), [(BROKEN, takes)]);
        assert_eq!(at(&mut state, ServerOp::from(vec![BROKEN])), Outcome::Done);
        assert_eq!(state.path_changes(), [], "that is known");
        let to = goes_to(&state).expect("somebody");
        assert!(to != HOLDER && state.sees_behind(WEB, to), "{to}");
        let told = state.cut_off[&WEB][&HOLDER].to_string();
        assert!(told.ends_with("see up (no route to it)"), "{told}");
        // It goes on looking. What is down for all tells nothing of it.
        assert_eq!(state.probed_by(HOLDER).len(), 2);
        all_see(&mut state, false);
        assert_eq!(state.path_changes(), []);
        for node in 1..4 {
            sees(&mut state, node, 11, true);
        }
        assert_eq!(state.path_changes(), []);
        sees(&mut state, 4, 11, true);
        assert_eq!(state.path_changes(), [(MENDED, DAMPED)]);
        assert_eq!(at(&mut state, ServerOp::from(vec![MENDED])), Outcome::Done);
        assert_eq!((goes_to(&state), state.cut_off.len()), (Some(HOLDER), 0));
    }

    /// Where four may observe, and three do, without a say.
    #[test]
    fn the_holder_looks_whoever_observes() {
        let mut looks_on = false;
        for last in 11..40 {
            let state = held(&[], &[&format!("10.0.0.{last}")]);
            let server = state.all_servers().next().expect("there");
            let real = &server.reals[0];
            assert!(state.watchers_of(server, real).contains(&HOLDER), "{last}");
            looks_on |= !state.observers_of(server, real).contains(&HOLDER);
        }
        assert!(looks_on, "it observes each of them");
    }

    #[test]
    fn where_somebody_said_who_can_reach_them_the_holder_is_not_asked() {
        let mut state = held(&["n1", "n2", "n3"], &TWO);
        all_see(&mut state, true);
        for last in [11, 12] {
            sees(&mut state, 4, last, false);
        }
        assert_eq!(state.path_changes(), []);
        assert_eq!(state.probed_by(HOLDER).len(), 0);
    }

    #[test]
    fn where_nobody_reaches_them_the_vip_stays_and_a_persons_word_counts() {
        let mut state = held(&[], &TWO);
        for node in 1..=4 {
            let what = CutOff { server: ServerUid(1), why: String::new() };
            take_over(&mut state.cut_off, (WEB, NodeId(node)), Some(&what));
        }
        assert_eq!(goes_to(&state), Some(HOLDER), "better one of them than none");
        take_over(&mut state.cut_off, (WEB, NodeId(2)), None);
        assert_eq!(goes_to(&state), Some(NodeId(2)));
        assert_eq!(
            at(&mut state, VipOp::Pin { name: "web".parse().expect("a name"), to: Some(HOLDER) }),
            Outcome::Done
        );
        assert_eq!(goes_to(&state), Some(HOLDER));
    }

    /// A proposal that changes nothing would be made again at each look.
    #[test]
    fn what_a_former_holder_said_is_not_taken_back_again_and_again() {
        for last in 11..40 {
            let mut state = held(&[], &[&format!("10.0.0.{last}")]);
            (1..=4).for_each(|node| sees(&mut state, node, last, true));
            let seen = state.vip(WEB).expect("there").epoch;
            let to = Some(NodeId(1));
            let moves = vec![Assignment { vip: WEB, seen, to, cause: Cause::HolderLost }];
            assert_eq!(at(&mut state, VipOp::Assign { moves }), Outcome::Done);
            let silent = [HOLDER].into();
            for op in state.blinded(&silent) {
                assert_eq!(at(&mut state, op), Outcome::Done, "{last}");
            }
            assert_eq!(state.blinded(&silent), []);
        }
    }
}
