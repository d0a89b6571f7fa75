//! The end of a node's service: VIPs first, leadership last.
//!
//! ```text
//!  begin ──> Wait until nothing is held here ──> Transfer ──> Wait until it
//!  does not lead ──> Done
//! ```

use super::Leases;
use crate::{Mono, NodeId, Vote};
use std::time::Duration;

/// How long a stopping node waits to be relieved: with the rest of its end it
/// is gone within 2 s.
const HAND_OVER_TIMEOUT: Duration = Duration::from_millis(1200);
/// How often it looks. A planned move takes 1 to 2 ms.
pub const HAND_OVER_POLL: Duration = Duration::from_millis(2);

/// What to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandOverStep {
    /// Look again after [`HAND_OVER_POLL`].
    Wait,
    /// The lease is closed: have Raft transfer leadership, then look again.
    Transfer(NodeId),
    /// Nothing is left to hand over, or time is up: the guard lets go of what
    /// is left.
    Done,
}

/// What is to be given away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Task {
    /// What is held, then leadership.
    Everything,
    /// Leadership by this vote, to this node.
    Leadership(Vote, NodeId),
}

/// A hand-over under way. Bounded.
#[derive(Clone, Copy, Debug)]
pub struct HandOver {
    task: Task,
    until: Mono,
    transferred: bool,
}

impl HandOver {
    /// This node is about to stop.
    pub fn of_everything(now: Mono, leases: &mut Leases) -> Self {
        leases.stop_holding(now);
        Self { task: Task::Everything, until: now + HAND_OVER_TIMEOUT, transferred: false }
    }

    /// This node, which holds nothing any more, is to lead no longer. `None`:
    /// it does not lead.
    #[must_use]
    pub fn of_leadership(now: Mono, leases: &Leases, to: NodeId) -> Option<Self> {
        let task = Task::Leadership(leases.own_leadership()?, to);
        Some(Self { task, until: now + HAND_OVER_TIMEOUT, transferred: false })
    }

    /// Whether leadership is all that is left to give away, so that the log is to
    /// come to rest before the next [`Self::step`].
    #[must_use]
    pub fn waits_for_the_log(&self, now: Mono, leases: &Leases) -> bool {
        leases.own_leadership().is_some_and(|own| self.successor(own, now, leases).is_ok())
    }

    /// `has_all` tells whether a node has every entry of this leader's log, and
    /// none is being added: once the lease is closed nothing is replicated any
    /// more.
    pub fn step(
        &mut self,
        now: Mono,
        leases: &mut Leases,
        has_all: impl Fn(NodeId) -> bool,
    ) -> HandOverStep {
        let Some(own) = leases.own_leadership() else {
            return self.without_leadership(now, leases);
        };
        let to = match self.successor(own, now, leases) {
            Ok(to) => to,
            Err(step) => return step,
        };
        if !has_all(to) || !leases.close_lease(now, to) {
            return HandOverStep::Wait;
        }
        self.transferred = true;
        HandOverStep::Transfer(to)
    }

    /// Whom to give leadership to now, or what to do instead.
    fn successor(&self, own: Vote, now: Mono, leases: &Leases) -> Result<NodeId, HandOverStep> {
        if now >= self.until {
            return Err(HandOverStep::Done);
        }
        match self.task {
            Task::Leadership(vote, _) if vote != own => Err(HandOverStep::Done),
            _ if self.transferred => Err(HandOverStep::Wait),
            Task::Leadership(_, to) => Ok(to),
            Task::Everything if leases.waits_for_relief() => Err(HandOverStep::Wait),
            Task::Everything => {
                let to = leases.successor(now).filter(|_| leases.has_lease(now));
                to.ok_or(HandOverStep::Done)
            }
        }
    }

    fn without_leadership(&self, now: Mono, leases: &Leases) -> HandOverStep {
        let waits = self.task == Task::Everything && leases.waits_for_relief();
        if waits && now < self.until { HandOverStep::Wait } else { HandOverStep::Done }
    }
}

impl Leases {
    /// Whether something is held here that another node could take.
    fn waits_for_relief(&self) -> bool {
        let other = |n: &crate::Node| n.id != self.scene.me && n.may_hold();
        !self.holder.claims.holdings().is_empty() && self.scene.state.nodes.values().any(other)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{
        ME, START, holding_two_vips, holding_under_another, leading, leading_drained,
    };
    use super::*;

    const NEXT: NodeId = NodeId(2);

    #[test]
    fn leadership_goes_to_a_successor_that_has_the_whole_log() {
        let mut leases = leading();
        leading_drained(&mut leases, START);
        let mut end = HandOver::of_everything(START, &mut leases);
        assert!(end.waits_for_the_log(START, &leases));
        assert_eq!(end.step(START, &mut leases, |_| false), HandOverStep::Wait);
        assert_eq!(end.step(START, &mut leases, |_| true), HandOverStep::Transfer(NEXT));
        assert!(!end.waits_for_the_log(START, &leases));
        assert_eq!(end.step(START, &mut leases, |_| true), HandOverStep::Wait);
        let elected = Vote { term: crate::Term(2), node: NEXT, committed: false };
        leases.saving_vote(START, elected);
        assert_eq!(end.step(START, &mut leases, |_| true), HandOverStep::Done);
    }

    #[test]
    fn leadership_alone_goes_to_whom_it_is_meant_for() {
        let mut leases = leading();
        leading_drained(&mut leases, START);
        let mut end = HandOver::of_leadership(START, &leases, NodeId(3)).expect("it leads");
        assert_eq!(end.step(START, &mut leases, |_| true), HandOverStep::Transfer(NodeId(3)));
    }

    #[test]
    fn the_log_comes_to_rest_only_once_nothing_is_held_here() {
        let (mut leases, _) = holding_two_vips();
        let end = HandOver::of_everything(START, &mut leases);
        assert!(!end.waits_for_the_log(START, &leases));
    }

    #[test]
    fn who_does_not_lead_waits_for_relief_as_long_as_who_does() {
        let (mut leases, _) = holding_under_another();
        let mut end = HandOver::of_everything(START, &mut leases);
        let late = START + HAND_OVER_TIMEOUT;
        let just = Duration::from_nanos(1);
        assert_eq!(end.step(late - just, &mut leases, |_| true), HandOverStep::Wait);
        assert_eq!(end.step(late, &mut leases, |_| true), HandOverStep::Done);
    }

    #[test]
    fn it_ends_in_time_whatever_happens() {
        let mut leases = leading();
        leading_drained(&mut leases, START);
        let mut end = HandOver::of_everything(START, &mut leases);
        let late = START + HAND_OVER_TIMEOUT;
        assert_eq!(end.step(late, &mut leases, |_| false), HandOverStep::Done);
    }

    #[test]
    fn a_later_leadership_of_this_node_is_another_one() {
        let mut leases = leading();
        leading_drained(&mut leases, START);
        let mut end = HandOver::of_leadership(START, &leases, NEXT).expect("it leads");
        let next = Vote { term: crate::Term(3), node: ME, committed: true };
        leases.saving_vote(START, next);
        let voters = crate::Voters::one([ME, NEXT, NodeId(3)]);
        let view = super::super::RaftView { leads: Some(crate::Term(3)), voters };
        leases.step(START, super::super::LeaseEvent::Raft(view));
        assert_eq!(end.step(START, &mut leases, |_| true), HandOverStep::Done);
        assert!(!leases.may_transfer(START, next));
    }
}
