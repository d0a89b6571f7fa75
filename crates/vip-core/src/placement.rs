//! Who should hold which VIP. Decided by the leader, written to the log.

use crate::{
    Assignment, Cause, Epoch, Node, NodeId, NodeState, Placement, State, Vip, VipUid, Why,
};
use std::collections::{BTreeMap, BTreeSet};

/// What the leader knows of a node beside the log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeView {
    /// It acknowledged a lease message within P.
    pub alive: bool,
    /// Its guard is there and can hold VIPs.
    pub able: bool,
    /// It is about to stop, and hands over first.
    pub stopping: bool,
    /// VIPs that its guard cannot claim.
    pub unable: BTreeSet<VipUid>,
}

/// The changes of holder that are due. `ended` tells up to which epoch a VIP
/// is known to answer nowhere.
#[must_use]
pub fn decide(
    state: &State,
    me: NodeId,
    views: &BTreeMap<NodeId, NodeView>,
    ended: impl Fn(&Vip) -> Epoch,
) -> Vec<Assignment> {
    let place = Place { state, me, views };
    let wanted = state.all_vips().filter(|vip| vip.is_wanted());
    wanted.filter_map(|vip| place.due(vip, ended(vip))).collect()
}

/// The node that a VIP is to be on, as things are.
#[must_use]
pub fn target(
    state: &State,
    me: NodeId,
    views: &BTreeMap<NodeId, NodeView>,
    vip: &Vip,
) -> Option<NodeId> {
    Place { state, me, views }.target(vip)
}

struct Place<'a> {
    state: &'a State,
    me: NodeId,
    views: &'a BTreeMap<NodeId, NodeView>,
}

impl Place<'_> {
    fn well(&self, id: NodeId, vip: &Vip) -> bool {
        let member = self.state.nodes.get(&id).is_some_and(Node::may_hold);
        let view = self.views.get(&id);
        member
            && view
                .is_some_and(|v| v.alive && v.able && !v.stopping && !v.unable.contains(&vip.uid))
    }

    fn due(&self, vip: &Vip, ended: Epoch) -> Option<Assignment> {
        let over = ended >= vip.epoch;
        let target = self.target(vip);
        if target == vip.holder && !over {
            return None;
        }
        if target.is_none() && !self.must_let_go(vip) {
            // Nobody better: the holder may come back under its epoch.
            return None;
        }
        let cause = self.cause(vip, target, over);
        Some(Assignment { vip: vip.uid, seen: vip.epoch, to: target, cause })
    }

    /// Whether it is known not to reach the real servers behind a VIP.
    fn is_cut_off(&self, id: NodeId, vip: &Vip) -> bool {
        self.state.cut_off.get(&vip.uid).is_some_and(|nodes| nodes.contains_key(&id))
    }

    fn target(&self, vip: &Vip) -> Option<NodeId> {
        self.fitting(vip).or_else(|| self.last_resort(vip))
    }

    /// Of a holder that is gone: whoever could not have it moved before may by now, and is
    /// better than nobody.
    fn last_resort(&self, vip: &Vip) -> Option<NodeId> {
        let holder = vip.holder?;
        if self.views.get(&holder).is_some_and(|view| view.alive) {
            return None;
        }
        let member = |id| self.state.nodes.get(&id).is_some_and(Node::may_hold);
        let up = |id| self.views.get(&id).is_some_and(|v| v.alive && v.able && !v.stopping);
        self.first(vip, |id| member(id) && up(id) && self.could_not(id, vip))
    }

    /// Whether it could not have it moved when it was asked last.
    fn could_not(&self, id: NodeId, vip: &Vip) -> bool {
        let why = self.state.obstacles.get(&vip.uid).and_then(|nodes| nodes.get(&id));
        why.is_some_and(|obstacle| matches!(obstacle.why, Why::NotTaken(_)))
    }

    fn fitting(&self, vip: &Vip) -> Option<NodeId> {
        let well = |id| self.well(id, vip);
        if let Some(pinned) = vip.pinned.filter(|p| well(*p)) {
            return Some(pinned);
        }
        let reaches = |id| well(id) && !self.is_cut_off(id, vip);
        if self.state.cut_off.contains_key(&vip.uid) {
            // Who sees them, or else who may; one that does not reach them is better than none.
            let sees = |id| reaches(id) && self.state.sees_behind(vip.uid, id);
            return self
                .first(vip, sees)
                .or_else(|| self.first(vip, reaches))
                .or_else(|| self.first(vip, well));
        }
        // Whoever was not asked yet comes before those who could not when they were.
        self.first(vip, |id| well(id) && !self.could_not(id, vip)).or_else(|| self.first(vip, well))
    }

    fn first(&self, vip: &Vip, may: impl Fn(NodeId) -> bool) -> Option<NodeId> {
        let holder = vip.holder.filter(|h| may(*h));
        let preferred = match vip.spec.placement {
            Placement::Leader => may(self.me).then_some(self.me),
            Placement::Sticky => holder,
        };
        let anyone = || {
            let me = Some(self.me).filter(|me| may(*me));
            me.or_else(|| self.state.nodes.keys().copied().find(|id| may(*id)))
        };
        preferred.or(holder).or_else(anyone)
    }

    /// The log says that the holder must not hold, whether or not there is
    /// another.
    fn must_let_go(&self, vip: &Vip) -> bool {
        vip.holder.is_some_and(|h| !self.state.nodes.get(&h).is_some_and(Node::may_hold))
    }

    fn cause(&self, vip: &Vip, target: Option<NodeId>, over: bool) -> Cause {
        let Some(holder) = vip.holder else {
            return if vip.epoch == Epoch(0) { Cause::Created } else { Cause::Placement };
        };
        match self.state.nodes.get(&holder) {
            None => return Cause::HolderRemoved,
            Some(node) => match node.state {
                NodeState::Active => {}
                NodeState::Leaving => return Cause::HolderLeaving,
                NodeState::Drained | NodeState::Joining => return Cause::Drain,
            },
        }
        if self.views.get(&holder).is_some_and(|v| v.alive && v.stopping) {
            Cause::HolderStopping
        } else if !self.views.get(&holder).is_some_and(|v| v.alive) {
            Cause::HolderLost
        } else if over || !self.well(holder, vip) {
            Cause::HolderReleased
        } else if target == vip.pinned {
            Cause::Command
        } else if target == Some(self.me) && vip.assigned_in < self.state.term {
            Cause::LeaderChanged
        } else {
            Cause::Placement
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{apply, state_of, vip, voter};
    use crate::{NodeOp, Role, Term, VipOp, VipSpec};

    fn state(placement: Placement) -> State {
        let witness = Node { role: Role::Witness, ..voter(3) };
        let mut state = state_of([voter(1), voter(2), witness]);
        apply(&mut state, VipOp::Add { spec: VipSpec { placement, ..vip("web", 100) } });
        state
    }

    fn views(well: &[u64]) -> BTreeMap<NodeId, NodeView> {
        let view =
            |id: &u64| (NodeId(*id), NodeView { alive: true, able: true, ..Default::default() });
        well.iter().map(view).collect()
    }

    /// Decides as `me` and applies; returns new holder and cause.
    fn step(state: &mut State, me: u64, well: &[u64]) -> Option<(Option<u64>, Cause)> {
        let moves = decide(state, NodeId(me), &views(well), |vip| vip.fenced);
        let result = moves.first().map(|m| (m.to.map(|n| n.0), m.cause));
        apply(state, VipOp::Assign { moves });
        result
    }

    #[test]
    fn by_default_the_vip_follows_the_leader() {
        let mut state = state(Placement::Leader);
        assert_eq!(step(&mut state, 1, &[1, 2, 3]), Some((Some(1), Cause::Created)));
        assert_eq!(step(&mut state, 1, &[1, 2, 3]), None);
        state.enter(Term(2));
        assert_eq!(step(&mut state, 2, &[1, 2, 3]), Some((Some(2), Cause::LeaderChanged)));
    }

    /// Each for what it is: what came back is no new leader, a restart no drain.
    #[test]
    fn the_cause_of_a_move_is_what_happened() {
        let mut state = state(Placement::Leader);
        step(&mut state, 1, &[1, 2]);
        let mut unable = views(&[1, 2]);
        unable.get_mut(&NodeId(1)).expect("there").unable.insert(VipUid(1));
        let moves = decide(&state, NodeId(1), &unable, |vip| vip.fenced);
        assert_eq!((moves[0].to, moves[0].cause), (Some(NodeId(2)), Cause::HolderReleased));
        apply(&mut state, VipOp::Assign { moves });
        assert_eq!(step(&mut state, 1, &[1, 2]), Some((Some(1), Cause::Placement)), "its link");

        let mut stopping = views(&[1, 2]);
        stopping.get_mut(&NodeId(1)).expect("there").stopping = true;
        let moves = decide(&state, NodeId(1), &stopping, |vip| vip.fenced);
        assert_eq!((moves[0].to, moves[0].cause), (Some(NodeId(2)), Cause::HolderStopping));

        let left = NodeOp::Leaving { node: NodeId(1), for_cause: false };
        apply(&mut state, left);
        assert_eq!(step(&mut state, 1, &[1, 2]), Some((Some(2), Cause::HolderLeaving)));
    }

    #[test]
    fn a_sticky_vip_stays_whoever_leads_until_its_holder_is_lost() {
        let mut state = state(Placement::Sticky);
        step(&mut state, 1, &[1, 2, 3]);
        assert_eq!(step(&mut state, 2, &[1, 2, 3]), None);
        assert_eq!(step(&mut state, 2, &[2, 3]), Some((Some(2), Cause::HolderLost)));
        assert_eq!(step(&mut state, 1, &[1, 2, 3]), None);
    }

    #[test]
    fn a_witness_that_leads_gives_the_vip_to_an_eligible_node() {
        let mut state = state(Placement::Leader);
        assert_eq!(step(&mut state, 3, &[1, 2, 3]), Some((Some(1), Cause::Created)));
    }

    /// Nobody would be better off.
    #[test]
    fn a_vip_stays_assigned_while_no_node_can_hold_it() {
        let mut state = state(Placement::Sticky);
        assert_eq!(step(&mut state, 3, &[3]), None, "to nobody");
        step(&mut state, 1, &[1, 2]);
        assert_eq!(step(&mut state, 3, &[3]), None, "its holder may come back");
    }

    #[test]
    fn a_drained_node_lets_go_even_when_there_is_no_other() {
        let mut state = state(Placement::Sticky);
        step(&mut state, 1, &[1, 2]);
        apply(&mut state, NodeOp::Drain { node: NodeId(1), drained: true });
        assert_eq!(step(&mut state, 1, &[1, 2]), Some((Some(2), Cause::Drain)));
        apply(&mut state, NodeOp::Drain { node: NodeId(2), drained: true });
        assert_eq!(step(&mut state, 1, &[1, 2]), Some((None, Cause::Drain)));
        assert_eq!(step(&mut state, 1, &[1, 2]), None);
    }

    #[test]
    fn a_pin_wins_while_its_node_is_well_and_ends_when_it_is_not() {
        let mut state = state(Placement::Leader);
        step(&mut state, 1, &[1, 2]);
        apply(&mut state, VipOp::Pin { name: "web".parse().expect("valid"), to: Some(NodeId(2)) });
        assert_eq!(step(&mut state, 1, &[1, 2]), Some((Some(2), Cause::Command)));
        assert_eq!(step(&mut state, 1, &[1, 2]), None);
        assert_eq!(step(&mut state, 1, &[1]), Some((Some(1), Cause::HolderLost)));
        assert_eq!(step(&mut state, 1, &[1, 2]), None, "the pin ended with the failure");
    }

    #[test]
    fn an_epoch_that_ended_is_followed_by_another_on_the_same_node() {
        let mut state = state(Placement::Sticky);
        step(&mut state, 1, &[1]);
        let moves = decide(&state, NodeId(1), &views(&[1]), |vip| vip.epoch);
        assert_eq!(moves[0].to, Some(NodeId(1)));
        assert_eq!(moves[0].cause, Cause::HolderReleased);
    }

    /// What kept them from it may be over, and a holder that is gone moves nothing.
    #[test]
    fn whoever_could_not_have_it_moved_is_better_than_a_holder_that_is_gone() {
        use crate::{Obstacle, ObstacleChange};
        let mut state = state(Placement::Sticky);
        step(&mut state, 2, &[2]);
        let unable = |well: &[u64]| {
            let mut views = views(well);
            if let Some(one) = views.get_mut(&NodeId(1)) {
                one.unable.insert(VipUid(1));
            }
            views
        };
        let decided = |state: &State, well: &[u64]| {
            let moves = decide(state, NodeId(3), &unable(well), |vip| vip.fenced);
            moves.first().map(|m| (m.to.map(|n| n.0), m.cause))
        };
        let mut refused = |why| {
            let why = Some(Obstacle { ip: [10, 0, 0, 100].into(), why });
            let changes = vec![ObstacleChange { vip: VipUid(1), node: NodeId(1), why }];
            apply(&mut state, VipOp::Obstacles { changes });
            [decided(&state, &[1, 2, 3]), decided(&state, &[1, 3])]
        };
        assert_eq!(refused(Why::NoLink), [None, None], "that is not over");
        let throttled = Why::NotTaken("throttled".into());
        assert_eq!(refused(throttled), [None, Some((Some(1), Cause::HolderLost))]);
    }

    /// Though it would be preferred, and may try again.
    #[test]
    fn whoever_was_not_asked_yet_comes_before_those_who_could_not() {
        use crate::{Obstacle, ObstacleChange};
        let mut state = state(Placement::Leader);
        let why = Obstacle { ip: [10, 0, 0, 100].into(), why: Why::NotTaken("no".into()) };
        let change = |why| ObstacleChange { vip: VipUid(1), node: NodeId(1), why };
        apply(&mut state, VipOp::Obstacles { changes: vec![change(Some(why))] });
        assert_eq!(step(&mut state, 1, &[1, 2]), Some((Some(2), Cause::Created)));
        assert_eq!(step(&mut state, 1, &[1, 2]), None);
        apply(&mut state, VipOp::Obstacles { changes: vec![change(None)] });
        assert_eq!(step(&mut state, 1, &[1, 2]), Some((Some(1), Cause::Placement)));
    }

    #[test]
    fn a_node_whose_guard_cannot_claim_is_passed_over() {
        let mut state = state(Placement::Sticky);
        step(&mut state, 1, &[1, 2]);
        let mut views = views(&[1, 2]);
        views.get_mut(&NodeId(1)).expect("there").unable.insert(VipUid(1));
        let moves = decide(&state, NodeId(1), &views, |vip| vip.fenced);
        assert_eq!(moves[0].to, Some(NodeId(2)));
    }
}
