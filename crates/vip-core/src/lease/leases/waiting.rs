//! Requests for grants that a leader keeps until it can answer.

use super::{GrantAnswer, Leases, Wanted};
use crate::{Mono, NodeId};
use std::time::Duration;

/// The longest that a leader keeps one, whatever it says: well below every G,
/// which runs from the time that the request was sent.
const MAX_WAIT: Duration = Duration::from_millis(100);
/// Of many VIPs some are free a little earlier than others: one answer for what
/// is free within this time costs less than one for each.
const GATHER: Duration = Duration::from_millis(5);

/// What to do with it now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WaitingStep {
    /// Send this.
    Answer(GrantAnswer),
    /// Look again then, or when anything changes.
    Until(Mono),
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Waiting {
    node: NodeId,
    wanted: Wanted,
    until: Mono,
    gathers_until: Option<Mono>,
}

impl Waiting {
    /// A request that came now from `node`, which would wait for `wait`.
    #[must_use]
    pub fn of(now: Mono, node: NodeId, wanted: Wanted, wait: Duration) -> Self {
        Self { node, wanted, until: now + wait.min(MAX_WAIT), gathers_until: None }
    }

    /// Decides as far as it can be decided now.
    pub fn step(&mut self, now: Mono, leases: &mut Leases) -> WaitingStep {
        if let Some(gathered) = self.gathers_until.filter(|at| now < *at) {
            return WaitingStep::Until(gathered);
        }
        let (answer, free_at) = leases.granted_to(now, self.node, &self.wanted);
        if let Some(free_at) = free_at.filter(|_| now < self.until) {
            return WaitingStep::Until(free_at.min(self.until));
        }
        let all = answer.granted.len() + answer.denied.len() == self.wanted.named().len();
        let gathers = !all && !answer.granted.is_empty() && self.gathers_until.is_none();
        if gathers && now + GATHER < self.until {
            self.gathers_until = Some(now + GATHER);
            return WaitingStep::Until(now + GATHER);
        }
        WaitingStep::Answer(answer)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{START, leading, state_with_two_vips};
    use super::super::{FIRST_GRANT_WAIT, LeaseEvent, WaitingStep};
    use super::*;
    use crate::{Epoch, Grantee, Incarnation, VipUid};
    use std::sync::Arc;

    const HOLDER: NodeId = NodeId(2);

    fn grantee(vip: u64, epoch: u64) -> Grantee {
        Grantee { vip: VipUid(vip), epoch: Epoch(epoch), incarnation: Incarnation(8) }
    }

    #[test]
    fn what_can_be_decided_at_once_does_not_wait() {
        let mut leases = leading();
        leases.step(START, LeaseEvent::Applied(Arc::new(state_with_two_vips(HOLDER))));
        let wanted = vec![grantee(1, 1), grantee(2, 9)];
        let mut waiting = Waiting::of(START, HOLDER, Wanted::First(wanted), FIRST_GRANT_WAIT);
        let WaitingStep::Answer(answer) = waiting.step(START, &mut leases) else {
            panic!("it waits");
        };
        assert_eq!((answer.granted.len(), answer.denied.len()), (1, 1));
    }

    #[test]
    fn a_request_is_not_kept_for_longer_than_any_grant_lives() {
        let mut leases = leading();
        let mut state = state_with_two_vips(HOLDER);
        crate::testing::move_to(&mut state, VipUid(1), 1);
        crate::testing::move_to(&mut state, VipUid(1), 2);
        leases.step(START, LeaseEvent::Applied(Arc::new(state)));
        let long = Duration::from_secs(60);
        let mut waiting = Waiting::of(START, HOLDER, Wanted::First(vec![grantee(1, 3)]), long);
        let at = START + MAX_WAIT;
        assert_eq!(waiting.step(START, &mut leases), WaitingStep::Until(at));
        let nothing = WaitingStep::Answer(GrantAnswer::default());
        assert_eq!(waiting.step(at, &mut leases), nothing, "the holder asks again");
    }

    /// Leads; of two VIPs of the holder one is not free yet.
    fn leading_with_one_free() -> Leases {
        let mut leases = leading();
        let mut state = state_with_two_vips(HOLDER);
        crate::testing::move_to(&mut state, VipUid(1), 1);
        crate::testing::move_to(&mut state, VipUid(1), 2);
        leases.step(START, LeaseEvent::Applied(Arc::new(state)));
        leases
    }

    #[test]
    fn nothing_is_gathered_that_the_holder_does_not_wait_for() {
        for (wait, gathers) in [(GATHER, false), (GATHER + Duration::from_nanos(1), true)] {
            let mut leases = leading_with_one_free();
            let wanted = Wanted::First(vec![grantee(1, 3), grantee(2, 1)]);
            let step = Waiting::of(START, HOLDER, wanted, wait).step(START, &mut leases);
            assert_eq!(step == WaitingStep::Until(START + GATHER), gathers, "{step:?}");
        }
    }

    #[test]
    fn what_is_free_a_little_later_goes_along() {
        let mut leases = leading_with_one_free();
        let wanted = vec![grantee(1, 3), grantee(2, 1)];
        let mut waiting = Waiting::of(START, HOLDER, Wanted::First(wanted), FIRST_GRANT_WAIT);
        let gathered = START + GATHER;
        assert_eq!(waiting.step(START, &mut leases), WaitingStep::Until(gathered));
        let early = gathered - Duration::from_millis(1);
        assert_eq!(waiting.step(early, &mut leases), WaitingStep::Until(gathered));
        let WaitingStep::Answer(answer) = waiting.step(gathered, &mut leases) else {
            panic!("it waits on");
        };
        assert_eq!(answer.granted, [grantee(2, 1)]);
    }
}
