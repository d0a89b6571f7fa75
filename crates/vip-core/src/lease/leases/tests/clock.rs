//! A clock that does not run as leases assume.

use super::*;

#[test]
fn a_leader_whose_clock_is_not_true_lets_its_lease_lapse() {
    let mut leases = leading();
    leases.step(START, LeaseEvent::GuardUp(Incarnation(7)));
    assert!(leases.fitness(START) == Fitness::Fit);
    leases.clock(START, false);
    let due = START + LAN.heartbeat;
    let actions = leases.step(due, LeaseEvent::Tick);
    assert!(!actions.iter().any(|a| matches!(a, LeaseAction::Renew { .. })), "{actions:?}");
    assert!(leases.fitness(due) != Fitness::Fit, "it holds nothing");
    leases.clock(START, true);
    let actions = leases.step(due + LAN.heartbeat, LeaseEvent::Tick);
    assert!(actions.iter().any(|a| matches!(a, LeaseAction::Renew { .. })), "{actions:?}");
}

#[test]
fn a_node_whose_clock_is_not_true_does_not_campaign() {
    let (mut leases, free) = follower_of_a_lost_leader();
    assert!(leases.campaign_due().is_some());
    assert!(leases.may_vote(free).is_ok());
    leases.clock(START, false);
    assert_eq!(leases.campaign_due(), None);
    assert!(leases.may_vote(free).is_err(), "its promise ended too early");
    let late = free + leases.scene.timing.promise / 8;
    assert!(leases.may_vote(late).is_ok(), "it still votes");
}

/// Others wait for W after its last grant, which its clock does not keep.
#[test]
fn a_holder_whose_clock_is_not_true_asks_for_nothing() {
    let mut leases = one_of_three(ME, LAN, Vote::default());
    let other = Vote { term: Term(1), node: NodeId(2), committed: true };
    leases.saving_vote(START, other);
    leases.vote_is_durable(START, other);
    leases.step(START, LeaseEvent::Applied(Arc::new(state_with_two_vips(ME))));
    leases.step(START, LeaseEvent::GuardUp(SESSION));
    let prepared = |number| GuardNotice::Prepared { vip: VipUid(number), epoch: Epoch(1) };
    leases.step(START, LeaseEvent::Notices(vec![prepared(1), prepared(2)]));
    assert_eq!(leases.heard_of(START, other, LAN.promise), crate::PromiseReply::Promised);
    let asks = |leases: &mut Leases, at| {
        leases.heard_of(at, other, LAN.promise);
        let actions = leases.step(at, LeaseEvent::Tick);
        actions.iter().filter(|action| matches!(action, LeaseAction::Ask(_))).count()
    };
    leases.clock(START, false);
    assert_eq!(asks(&mut leases, START + LAN.heartbeat), 0);
    leases.clock(START, true);
    assert_eq!(asks(&mut leases, START + LAN.heartbeat * 2), 1);
}
