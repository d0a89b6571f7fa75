//! Whether the holder of a VIP reaches the real servers behind it. Where it alone sees all of
//! a virtual server's down that others see up, the way is broken and not they: the VIP goes
//! to a node that reaches them, and does not come back for a while.

use super::{Real, Server, ServerEvent};
use crate::log::State;
use crate::log::reports::take_over;
use crate::{NodeId, NodeState, Opinion, Outcome, ServerOp, ServerUid, VipUid};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::time::Duration;

/// A node that reaches them again may hold the VIP again after so long: a way that comes and
/// goes must not take a VIP along each time.
pub const DAMPED: Duration = Duration::from_secs(60);

/// A node that did not reach the real servers of a virtual one behind a VIP that it held.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CutOff {
    pub server: ServerUid,
    /// As the node sees one of them: the rest of a sentence.
    pub why: String,
    /// Log time, ms since 1970.
    pub since_ms: u64,
}

impl fmt::Display for CutOff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "it does not reach its real servers, which others see up ({})", self.why)
    }
}

/// What is to be said of a node and a VIP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PathChange {
    pub vip: VipUid,
    pub node: NodeId,
    /// The virtual server that it is cut off from; `None`: of none any more.
    pub server: Option<ServerUid>,
}

impl State {
    /// Why a node sees all down that is served of a virtual server, where somebody else sees
    /// each of it up.
    fn sees_all_down(&self, server: &Server, node: NodeId) -> Option<&str> {
        let server = self.server(server.uid)?;
        let up = |real: &&Real| real.health.is_up == Some(true);
        let mut why = None;
        for real in server.reals.iter().filter(up) {
            let by_others = real
                .health
                .seen
                .iter()
                .any(|(other, opinion)| *other != node && *opinion == Opinion::Up);
            match real.health.seen.get(&node) {
                Some(Opinion::Down(text)) if by_others => why = Some(text.as_str()),
                _ => return None,
            }
        }
        why
    }

    /// What the leader is to say of ways to real servers.
    #[must_use]
    pub fn path_changes(&self, now_ms: u64) -> Vec<PathChange> {
        let checked = || self.all_servers().filter(|server| server.spec.check.is_some());
        let broken = checked().filter_map(|server| {
            let node = self.vip(server.vip)?.holder?;
            let is_known = self.cut_off.get(&server.vip).is_some_and(|all| all.contains_key(&node));
            let is_broken = !is_known && self.sees_all_down(server, node).is_some();
            is_broken.then_some(PathChange { vip: server.vip, node, server: Some(server.uid) })
        });
        let known = self
            .cut_off
            .iter()
            .flat_map(|(vip, nodes)| nodes.iter().map(move |(node, what)| (*vip, *node, what)));
        let damped_ms = u64::try_from(DAMPED.as_millis()).unwrap_or(u64::MAX);
        let mended = known.filter_map(|(vip, node, what)| {
            let still =
                self.server(what.server).and_then(|server| self.sees_all_down(server, node));
            let active = self.nodes.get(&node).is_some_and(|node| node.state == NodeState::Active);
            let is_over =
                !active || (still.is_none() && now_ms >= what.since_ms.saturating_add(damped_ms));
            is_over.then_some(PathChange { vip, node, server: None })
        });
        let mut changes: Vec<_> = mended.chain(broken).collect();
        // Of several virtual servers one says it.
        changes.sort_by_key(|change| (change.vip, change.node, change.server));
        changes.dedup_by_key(|change| (change.vip, change.node));
        changes
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
                let cut_off = CutOff { server: uid, why, since_ms: self.time_ms };
                Some((known.spec.name.clone(), cut_off))
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

    /// Who observes a real server beside those whose opinions count: the VIP's holder, and who
    /// is to be known to reach it again.
    pub(super) fn onlookers(&self, server: &Server) -> Vec<NodeId> {
        let holder = self.vip(server.vip).and_then(|vip| vip.holder);
        let marked = self.cut_off.get(&server.vip).into_iter().flat_map(|nodes| nodes.keys());
        let all = holder.into_iter().chain(marked.copied());
        let active = |node: &NodeId| {
            self.nodes.get(node).is_some_and(|node| node.state == NodeState::Active)
        };
        all.filter(active).collect()
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
        Actor, Assignment, Cause, CheckKind, CheckSpec, Command, NodeView, Observed, Op, Placement,
        ServerSpec, VipOp, VipSpec, target,
    };
    use std::collections::BTreeMap;

    const WEB: VipUid = VipUid(1);

    fn at(state: &mut State, time_ms: u64, op: impl Into<Op>) {
        let command = Command { time_ms, actor: Actor("test".into()), term: None, op: op.into() };
        assert_eq!(state.apply(1, &command), Outcome::Done);
    }

    /// Held by n4, which is none of those whose opinions count.
    fn held() -> State {
        let mut state = state_of([1, 2, 3, 4].map(voter));
        let spec = VipSpec { placement: Placement::Sticky, ..vip("web", 100) };
        apply(&mut state, VipOp::Add { spec });
        let observers = ["n1", "n2", "n3"].map(|name| name.parse().expect("a name")).into();
        let check = Some(CheckSpec { observers, ..CheckKind::Tcp.into() });
        let spec = ServerSpec { check, ..server(&["10.0.0.11", "10.0.0.12"]) };
        apply(&mut state, ServerOp::Add { spec });
        let seen = state.vip(WEB).expect("added").epoch;
        let to = Some(NodeId(4));
        let moves = vec![Assignment { vip: WEB, seen, to, cause: Cause::Command }];
        at(&mut state, 1, VipOp::Assign { moves });
        state
    }

    fn sees(state: &mut State, time_ms: u64, node: u64, last: u8, up: bool) {
        let observed = Observed { server: ServerUid(1), ip: [10, 0, 0, last].into(), port: 80 };
        let opinion = if up { Opinion::Up } else { Opinion::Down("no route to it".into()) };
        let seen = vec![(observed, Some(opinion))];
        at(state, time_ms, ServerOp::Observe { node: NodeId(node), seen });
    }

    /// Where the VIP is to be, as things are.
    fn goes_to(state: &State) -> Option<NodeId> {
        let view = NodeView { alive: true, able: true, ..NodeView::default() };
        let views: BTreeMap<_, _> = (1..=4).map(|node| (NodeId(node), view.clone())).collect();
        target(state, NodeId(1), &views, state.vip(WEB).expect("there"))
    }

    #[test]
    fn a_holder_that_alone_sees_all_down_gives_its_vip_away_once() {
        let mut state = held();
        for node in 1..=4 {
            sees(&mut state, 2, node, 11, true);
            sees(&mut state, 2, node, 12, true);
        }
        assert_eq!((state.path_changes(3), goes_to(&state)), (vec![], Some(NodeId(4))));
        sees(&mut state, 3, 4, 11, false);
        assert_eq!(state.path_changes(3), [], "it reaches the other one");
        sees(&mut state, 4, 4, 12, false);
        let up = |state: &State| {
            state
                .server(ServerUid(1))
                .expect("there")
                .reals
                .iter()
                .all(|real| real.health.is_up == Some(true))
        };
        assert!(up(&state), "it has no say in that");
        let broken = PathChange { vip: WEB, node: NodeId(4), server: Some(ServerUid(1)) };
        assert_eq!(state.path_changes(5), [broken]);
        at(&mut state, 1000, ServerOp::from(vec![broken]));
        assert_eq!(state.path_changes(1000), [], "that is known");
        assert_eq!(goes_to(&state), Some(NodeId(1)));
        let told = state.cut_off[&WEB][&NodeId(4)].to_string();
        assert!(told.ends_with("see up (no route to it)"), "{told}");
        // It goes on looking, and is trusted again some time after it sees them.
        assert_eq!(state.probed_by(NodeId(4)).len(), 2);
        sees(&mut state, 2000, 4, 11, true);
        assert_eq!(state.path_changes(60_999), []);
        let mended = PathChange { server: None, ..broken };
        assert_eq!(state.path_changes(61_000), [mended]);
        at(&mut state, 61_000, ServerOp::from(vec![mended]));
        assert_eq!((goes_to(&state), state.cut_off.len()), (Some(NodeId(4)), 0));
    }

    #[test]
    fn where_the_servers_are_down_or_nobody_reaches_them_the_vip_stays() {
        let mut state = held();
        for node in 1..=4 {
            sees(&mut state, 2, node, 11, true);
        }
        for node in [4, 1, 2] {
            sees(&mut state, 3, node, 11, false);
        }
        assert_eq!(state.path_changes(4), [], "it is down");
        // All that could are marked: better one of them than none.
        for node in 1..=4 {
            let what = CutOff { server: ServerUid(1), why: String::new(), since_ms: 4 };
            take_over(&mut state.cut_off, (WEB, NodeId(node)), Some(&what));
        }
        assert_eq!(goes_to(&state), Some(NodeId(4)));
    }
}
