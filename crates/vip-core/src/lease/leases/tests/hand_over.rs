//! Handing leadership over.

use super::*;
use crate::{HandOver, HandOverStep};

/// The next leader would not know until when the holder may answer, and would
/// let it fall silent.
#[test]
fn a_lease_is_not_closed_while_the_log_lacks_a_grant() {
    let mut leases = leading();
    let mut state = state_with_two_vips(NodeId(2));
    leases.step(START, LeaseEvent::Applied(Arc::new(state.clone())));
    let grant = Grantee { vip: VipUid(1), epoch: Epoch(1), incarnation: Incarnation(8) };
    let (answer, _) = leases.granted_to(START, NodeId(2), &Wanted::First(vec![grant]));
    assert_eq!(answer.granted, [grant]);
    assert!(!leases.close_lease(START, NodeId(2)));
    apply(&mut state, VipOp::Settle { grants: vec![grant], nested: false });
    leases.step(START, LeaseEvent::Applied(Arc::new(state)));
    assert!(leases.close_lease(START, NodeId(2)));
}

/// The next leader would grant to another node at once what may be open here.
#[test]
fn a_lease_is_not_closed_while_a_gate_of_this_host_may_be_open() {
    let mut leases = leading();
    leases.step(START, LeaseEvent::GuardUp(SESSION));
    leases.step(START, LeaseEvent::GuardDown);
    assert!(!leases.close_lease(START, NodeId(2)), "its guard was not heard to let go");
    assert!(leases.close_lease(START + LAN.grant, NodeId(2)), "no grant lasts for so long");
    let (mut leases, _) = holding_two_vips();
    assert!(!leases.close_lease(START, NodeId(2)), "it is to hold two");
}

/// Raft speaks for whatever term it leads when it gets to a transfer.
#[test]
fn only_the_leadership_whose_lease_was_closed_is_transferred() {
    let mut leases = leading();
    assert!(!leases.may_transfer(START, OWN), "its lease runs");
    assert!(leases.close_lease(START, NodeId(2)));
    let next = Vote { term: Term(3), ..OWN };
    leases.saving_vote(START, next);
    leads(&mut leases, START, Some(3));
    assert!(leases.may_transfer(START, OWN), "closed for good");
    assert!(!leases.may_transfer(START, next));
}

/// Raft proposes nothing in a term that it believes to have given away.
#[test]
fn a_leader_that_must_not_be_transferred_starts_over() {
    let mut leases = leading();
    assert!(!leases.may_transfer(START, OWN));
    assert!(!leases.transferred_in_vain(START + LAN.promise));
    assert!(leases.transferred_in_vain(START + LAN.promise * 4));
    leases.saving_vote(START, deposed_by(2));
    assert!(!leases.transferred_in_vain(START + LAN.promise * 4), "it is over");
}

/// A leader that is the only voter is deposed by the vote of a node that has
/// none, and elects itself again while its gate may be open.
#[test]
fn a_single_voter_waits_for_its_own_lease() {
    let mut leases = leading();
    let alone = |leads| RaftView { leads, voters: Voters::one([ME]) };
    leases.step(START, LeaseEvent::Raft(alone(Some(Term(1)))));
    let lapse = START + LAN.lease + LAN.gate_to_wire;
    leases.saving_vote(START, deposed_by(9));
    leases.saving_vote(START, Vote { term: Term(5), ..OWN });
    leases.step(START, LeaseEvent::Raft(alone(Some(Term(5)))));
    assert!(!leases.has_lease(lapse - Duration::from_millis(1)));
    assert!(leases.has_lease(lapse));
}

#[test]
fn a_lease_that_there_is_not_cannot_be_closed() {
    let mut leases = one_of_three(ME, LAN, Vote::default());
    assert!(!leases.close_lease(START, NodeId(2)));
}

/// It may be heard by this node alone: another election would only end as the
/// last one did.
#[test]
fn a_successor_that_was_not_elected_is_not_asked_again_at_once() {
    let mut leases = leading();
    leading_drained(&mut leases, START);
    assert_eq!(leases.leads_instead_of(START), Some(NodeId(2)));
    assert!(leases.close_lease(START, NodeId(2)));

    // Elected again.
    let next = Vote { term: Term(3), ..OWN };
    let again = START + LAN.election * 2;
    leases.saving_vote(again, next);
    leads(&mut leases, again, Some(3));
    assert_eq!(leases.leads_instead_of(again), None, "it rests");
    assert_eq!(leases.successor(again), Some(NodeId(3)), "whom it did not ask yet");
    let later = START + LAN.promise * 10;
    for from in [2, 3] {
        promised_by(&mut leases, NodeId(from), next, later);
    }
    assert_eq!(leases.leads_instead_of(later), Some(NodeId(3)));
}

#[test]
fn a_successor_that_led_is_as_good_as_any() {
    let mut leases = leading();
    leading_drained(&mut leases, START);
    assert!(leases.close_lease(START, NodeId(2)));
    let led = Vote { term: Term(2), node: NodeId(2), committed: true };
    leases.saving_vote(START, led);
    leases.vote_is_durable(START, led);
    assert_eq!(leases.heard_of(START, led, LAN.promise), crate::PromiseReply::Promised);
    assert_eq!(*leases.leader.handed_to(), BTreeMap::new());
}

/// Whoever stops leaves its VIPs to others, and does not go before they have them.
#[test]
fn who_stops_waits_until_what_it_holds_is_another_nodes() {
    let (mut leases, all) = holding_under_another();
    let mut end = HandOver::of_everything(START, &mut leases);
    assert_eq!(end.step(START, &mut leases, |_| true), HandOverStep::Wait);
    let mut state = state_with_two_vips(ME);
    move_to(&mut state, VipUid(1), 2);
    move_to(&mut state, VipUid(2), 2);
    leases.step(START, LeaseEvent::Applied(Arc::new(state)));
    assert_eq!(end.step(START, &mut leases, |_| true), HandOverStep::Wait, "it answers as yet");
    for Grantee { vip, epoch, .. } in all {
        leases.step(START, LeaseEvent::Notices(vec![GuardNotice::Released { vip, epoch }]));
    }
    assert_eq!(end.step(START, &mut leases, |_| true), HandOverStep::Done);
}

/// With nobody to leave them to there is nothing to wait for.
#[test]
fn the_last_node_that_can_hold_stops_at_once() {
    let (mut leases, _) = holding_under_another();
    let mut state = state_with_two_vips(ME);
    apply(&mut state, NodeOp::Drain { node: NodeId(2), drained: true });
    leases.step(START, LeaseEvent::Applied(Arc::new(state)));
    let mut end = HandOver::of_everything(START, &mut leases);
    assert_eq!(end.step(START, &mut leases, |_| true), HandOverStep::Done);
}
