//! One renewal for all that a node has.

use super::*;

#[test]
fn a_holder_names_what_it_has_once_and_renews_it_by_one_name_from_then_on() {
    let (mut leases, all) = holding_under_another();
    let cover = Cover::of(all.iter().copied());
    let at = |heartbeats: u32| START + LAN.heartbeat * heartbeats;
    assert_eq!(asked(&next_heartbeat(&mut leases, at(1))), [Wanted::All(all.clone())]);
    let granted = GrantAnswer { granted: all.clone(), ..Default::default() };
    let told = extended(answered(&mut leases, at(1), false, granted));
    assert!(matches!(told[..], [VipOrder::Extend { .. }]), "{told:?}");
    assert_eq!(asked(&next_heartbeat(&mut leases, at(2))), [Wanted::Cover(cover)]);
    let renewed = GrantAnswer { covered: Some(cover), ..Default::default() };
    let told = extended(answered(&mut leases, at(2), false, renewed));
    let (incarnation, deadline) = (Incarnation(7), at(2) + LAN.grant);
    assert_eq!(told, [VipOrder::ExtendAll { incarnation, cover, deadline }]);
}

#[test]
fn a_holder_whose_leader_or_guard_has_another_set_names_all_at_once() {
    let at = |heartbeats: u32| START + LAN.heartbeat * heartbeats;
    for by_guard in [false, true] {
        let (mut leases, all) = holding_under_another();
        next_heartbeat(&mut leases, at(1));
        assert_ne!(asked(&next_heartbeat(&mut leases, at(2))), [Wanted::All(all.clone())]);
        let actions = if by_guard {
            leases.step(at(2), LeaseEvent::Notices(vec![GuardNotice::OtherCover]))
        } else {
            answered(&mut leases, at(2), false, GrantAnswer::default())
        };
        assert_eq!(asked(&actions), [Wanted::All(all)], "by guard: {by_guard}");
    }
}

#[test]
fn another_leader_is_told_one_by_one() {
    let (mut leases, all) = holding_under_another();
    let at = |heartbeats: u32| START + LAN.heartbeat * heartbeats;
    next_heartbeat(&mut leases, at(1));
    let next = Vote { term: Term(2), node: NodeId(3), committed: true };
    let later = at(2) + LAN.promise;
    leases.saving_vote(later, next);
    leases.vote_is_durable(later, next);
    leases.renewed_by(later, next, LAN.promise, ReportId::default());
    assert_eq!(asked(&leases.step(later, LeaseEvent::Tick)), [Wanted::All(all)]);
}

#[test]
fn a_leader_extends_what_it_holds_by_one_order() {
    let (mut leases, _) = holding_two_vips();
    leases.step(START, LeaseEvent::Notices(vec![prepared(1), prepared(2)]));
    let opened = |number| GuardNotice::Opened { vip: VipUid(number), epoch: Epoch(1) };
    leases.step(START, LeaseEvent::Notices(vec![opened(1), opened(2)]));
    let all = leases.claims().renewals();
    let cover = Cover::of(all.iter().copied());
    let at = |heartbeats: u32| START + LAN.heartbeat * heartbeats;
    let told = extended(promised(&mut leases, at(1)));
    assert!(matches!(&told[..], [VipOrder::Extend { deadlines, .. }] if deadlines.len() == 2));
    let incarnation = all[0].incarnation;
    let deadline = leases.lease_end(at(2)) + LAN.heartbeat;
    let told = extended(promised(&mut leases, at(2)));
    assert_eq!(told, [VipOrder::ExtendAll { incarnation, cover, deadline }]);
    // The guard has another set: each by itself, at once.
    let told = extended(leases.step(at(2), LeaseEvent::Notices(vec![GuardNotice::OtherCover])));
    assert!(matches!(&told[..], [VipOrder::Extend { deadlines, .. }] if deadlines.len() == 2));
}

/// Requests by one name and one by one, of a node and of an earlier one of it.
#[test]
fn a_leader_renews_by_name_what_it_granted() {
    let mut leases = leading();
    leases.step(START, LeaseEvent::Applied(Arc::new(state_with_two_vips(NodeId(2)))));
    let all = [1, 2].map(|vip| Grantee {
        vip: VipUid(vip),
        epoch: Epoch(1),
        incarnation: Incarnation(8),
    });
    let by_name = Wanted::Cover(Cover::of(all));
    let other = leases.granted_to(START, NodeId(2), &by_name);
    assert_eq!(other, (GrantAnswer::default(), None));
    let (answer, _) = leases.granted_to(START, NodeId(2), &Wanted::All(all.into()));
    assert_eq!((answer.granted, answer.covered), (all.to_vec(), None));
    let (answer, _) = leases.granted_to(START, NodeId(2), &by_name);
    assert_eq!(answer, GrantAnswer { covered: Some(Cover::of(all)), ..Default::default() });
    // It names one alone: the other is out.
    leases.granted_to(START, NodeId(2), &Wanted::All(all[..1].into()));
    let (answer, _) = leases.granted_to(START, NodeId(2), &by_name);
    assert_eq!(answer, GrantAnswer::default());
    let one = Wanted::Cover(Cover::of([all[0]]));
    assert!(leases.granted_to(START, NodeId(2), &one).0.covered.is_some());
}

/// As all of it waits for a W there: another question has no other answer.
#[test]
fn an_empty_answer_to_each_by_its_name_is_not_asked_for_again_at_once() {
    let (mut leases, all) = holding_under_another();
    let at = START + LAN.heartbeat;
    assert_eq!(asked(&next_heartbeat(&mut leases, at)), [Wanted::All(all)]);
    let actions = answered(&mut leases, at, false, GrantAnswer::default());
    assert_eq!(asked(&actions), []);
}

/// The guard may have it open as long as its release waits for its turn.
#[test]
fn while_the_guard_gives_something_up_the_rest_is_named_one_by_one() {
    let (mut leases, all) = holding_under_another();
    let at = |heartbeats: u32| START + LAN.heartbeat * heartbeats;
    next_heartbeat(&mut leases, at(1));
    let denied = vec![(all[0], crate::Denial::NotHolder)];
    let answer = GrantAnswer { denied, granted: all[1..].into(), covered: None };
    answered(&mut leases, at(1), false, answer);
    let rest = Wanted::All(all[1..].into());
    assert_eq!(asked(&next_heartbeat(&mut leases, at(2))), [rest]);
    let released = GuardNotice::Released { vip: VipUid(1), epoch: Epoch(1) };
    leases.step(at(2), LeaseEvent::Notices(vec![released]));
    let by_name = Wanted::Cover(Cover::of([all[1]]));
    assert!(asked(&next_heartbeat(&mut leases, at(3))).contains(&by_name));
}

/// A question that is under way is not asked twice, and asked again once it was
/// answered, or was not.
#[test]
fn a_first_grant_is_asked_for_once_at_a_time() {
    let mut leases = assigned_by_another();
    let first = |vip| Wanted::First(vec![leased(vip)]);
    let told = leases.step(START, LeaseEvent::Notices(vec![prepared(1)]));
    assert_eq!(asked(&told), [first(1)]);
    let told = leases.step(START, LeaseEvent::Notices(vec![prepared(2)]));
    assert_eq!(asked(&told), [], "the other one is under way");
    let granted = GrantAnswer { granted: vec![leased(1)], ..Default::default() };
    let told = answered(&mut leases, START, true, granted);
    assert_eq!(asked(&told), [first(2)]);
    assert_eq!(asked(&answered(&mut leases, START, true, GrantAnswer::default())), [first(2)]);
}

/// A holder that was denied says so at once: its leader took it for the holder.
#[test]
fn a_denial_is_worth_a_report_and_a_grant_is_none() {
    let reports = |answer: GrantAnswer| {
        let (mut leases, _) = holding_under_another();
        let at = START + LAN.heartbeat;
        next_heartbeat(&mut leases, at);
        let known = leases.latest_report();
        leases.renewed_by(at, LEADER, LAN.promise, known);
        answered(&mut leases, at, false, answer);
        leases.latest_report() != known
    };
    let (_, all) = holding_under_another();
    let denied = vec![(all[0], crate::Denial::NotHolder)];
    assert!(reports(GrantAnswer { denied, ..Default::default() }));
    assert!(!reports(GrantAnswer { granted: all, ..Default::default() }));
}

/// Not even an order without anything in it.
#[test]
fn where_there_is_nothing_to_order_the_guard_is_told_nothing() {
    let (mut leases, _) = holding_under_another();
    let again = LeaseEvent::Applied(Arc::new(state_with_two_vips(ME)));
    assert_eq!(orders(leases.step(START, again)), Vec::<Vec<VipOrder>>::new());
}
