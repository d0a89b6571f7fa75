use super::*;
use crate::testing::{apply, move_to, state_of, vip, voter};
use crate::*;
use std::time::Duration;

const T: Mono = Mono(10_000_000_000);
const LAN: Timing = Profile::Lan.timing();
const WEB: VipUid = VipUid(1);

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// A state in which `web` is at epoch 1, held by node 2, in term 1.
fn state() -> State {
    let mut state = state_of([voter(1), voter(2), voter(3)]);
    state.enter(Term(1));
    apply(&mut state, VipOp::Add { spec: vip("web", 100) });
    move_to(&mut state, WEB, 2);
    state
}

fn grantee(epoch: u64, incarnation: u64) -> Grantee {
    Grantee { vip: WEB, epoch: Epoch(epoch), incarnation: Incarnation(incarnation) }
}

fn lease(term: u64) -> LeaderLease {
    LeaderLease::elected(NodeId(1), Term(term), T, Mono::ZERO, Voters::one([NodeId(1)]), &LAN)
}

fn ask(grants: &mut Grants, state: &State, now: Mono, node: u64, grantee: Grantee) -> Verdict {
    let request = Request { node: NodeId(node), grantee };
    grants.request(now, [request], &lease(state.term.0), state, &LAN)[0].1
}

/// Settled at epoch 1 by session 7 on node 2, then a new leader in term 2.
fn after_change_of_leader() -> State {
    let mut state = state();
    apply(&mut state, VipOp::Settle { grants: vec![grantee(1, 7)], nested: false });
    state.enter(Term(2));
    state
}

#[test]
fn the_first_epoch_needs_no_wait() {
    let (mut grants, state) = (Grants::default(), state());
    assert_eq!(ask(&mut grants, &state, T, 2, grantee(1, 7)), Verdict::Granted);
}

#[test]
fn only_the_committed_holder_at_its_epoch_is_granted() {
    let (mut grants, state) = (Grants::default(), state());
    let no = Verdict::Denied(Denial::NotHolder);
    assert_eq!(ask(&mut grants, &state, T, 3, grantee(1, 7)), no);
    assert_eq!(ask(&mut grants, &state, T, 2, grantee(2, 7)), no);
    assert_eq!(ask(&mut grants, &state, T, 2, grantee(0, 7)), no);
}

#[test]
fn nothing_is_granted_before_an_own_term_entry_is_applied() {
    let (mut grants, state) = (Grants::default(), state());
    let request = Request { node: NodeId(2), grantee: grantee(1, 7) };
    let verdicts = grants.request(T, [request], &lease(2), &state, &LAN);
    assert_eq!(verdicts[0].1, Verdict::Denied(Denial::NotLeading));
}

#[test]
fn a_new_epoch_waits_for_w_after_the_last_grant() {
    let (mut grants, mut state) = (Grants::default(), state());
    ask(&mut grants, &state, T, 2, grantee(1, 7));
    ask(&mut grants, &state, T + ms(100), 2, grantee(1, 7));
    move_to(&mut state, WEB, 3);
    let free_at = T + ms(100) + LAN.wait;
    let wait = Verdict::Wait(free_at);
    assert_eq!(ask(&mut grants, &state, T + ms(101), 3, grantee(2, 9)), wait);
    assert_eq!(ask(&mut grants, &state, free_at, 3, grantee(2, 9)), Verdict::Granted);
}

#[test]
fn a_release_lets_the_new_epoch_start_at_once() {
    let (mut grants, mut state) = (Grants::default(), state());
    ask(&mut grants, &state, T, 2, grantee(1, 7));
    move_to(&mut state, WEB, 3);
    let vip = state.vip(WEB).expect("there").clone();
    assert!(!grants.released(&vip, NodeId(2), grantee(1, 8)), "another session");
    assert!(matches!(ask(&mut grants, &state, T, 3, grantee(2, 9)), Verdict::Wait(_)));
    assert!(!grants.released(&vip, NodeId(3), grantee(1, 7)), "not its holder");
    assert!(grants.released(&vip, NodeId(2), grantee(1, 7)));
    assert_eq!(ask(&mut grants, &state, T, 3, grantee(2, 9)), Verdict::Granted);
}

#[test]
fn a_released_epoch_is_never_granted_again() {
    let (mut grants, state) = (Grants::default(), state());
    ask(&mut grants, &state, T, 2, grantee(1, 7));
    grants.released(state.vip(WEB).expect("there"), NodeId(2), grantee(1, 7));
    let ended = Verdict::Denied(Denial::Ended);
    assert_eq!(ask(&mut grants, &state, T + ms(1000), 2, grantee(1, 7)), ended);
}

#[test]
fn an_epoch_belongs_to_one_guard_session() {
    let (mut grants, state) = (Grants::default(), after_change_of_leader());
    let other = Verdict::Denied(Denial::OtherSession(Incarnation(7)));
    assert_eq!(ask(&mut grants, &state, T + LAN.wait, 2, grantee(1, 8)), other);
}

#[test]
fn a_new_leader_renews_at_once_only_what_is_settled() {
    let state = after_change_of_leader();
    let granted = ask(&mut Grants::default(), &state, T, 2, grantee(1, 7));
    assert_eq!(granted, Verdict::Granted);

    let mut unsettled = self::state();
    move_to(&mut unsettled, WEB, 3);
    unsettled.enter(Term(2));
    let verdict = ask(&mut Grants::default(), &unsettled, T, 3, grantee(2, 9));
    assert_eq!(verdict, Verdict::Wait(T + LAN.wait));
}

#[test]
fn a_leader_that_held_within_its_lease_leaves_no_wait() {
    let mut state = state();
    apply(&mut state, VipOp::Settle { grants: vec![grantee(1, 7)], nested: true });
    state.enter(Term(2));
    move_to(&mut state, WEB, 3);
    assert_eq!(ask(&mut Grants::default(), &state, T, 3, grantee(2, 9)), Verdict::Granted);
}

#[test]
fn a_leader_in_between_voids_the_shortcut() {
    let mut state = state();
    apply(&mut state, VipOp::Settle { grants: vec![grantee(1, 7)], nested: true });
    state.enter(Term(2));
    state.enter(Term(3));
    move_to(&mut state, WEB, 3);
    let verdict = ask(&mut Grants::default(), &state, T, 3, grantee(2, 9));
    assert_eq!(verdict, Verdict::Wait(T + LAN.wait));
}

#[test]
fn a_nested_epoch_says_nothing_about_a_later_one() {
    let mut state = state();
    apply(&mut state, VipOp::Settle { grants: vec![grantee(1, 7)], nested: true });
    move_to(&mut state, WEB, 3);
    move_to(&mut state, WEB, 1);
    state.enter(Term(2));
    let verdict = ask(&mut Grants::default(), &state, T, 1, grantee(3, 9));
    assert_eq!(verdict, Verdict::Wait(T + LAN.wait));
}

#[test]
fn an_address_of_a_removed_vip_waits_for_its_last_holder() {
    let (mut grants, mut state) = (Grants::default(), state());
    ask(&mut grants, &state, T, 2, grantee(1, 7));
    apply(&mut state, VipOp::Settle { grants: vec![grantee(1, 7)], nested: false });
    let spec = state.vip(WEB).expect("there").spec.clone();
    apply(&mut state, VipOp::Remove { name: spec.name.clone() });
    apply(&mut state, VipOp::Add { spec });
    let vip = VipUid(2);
    let to = Some(NodeId(3));
    let moves = vec![Assignment { vip, seen: Epoch(0), to, cause: Cause::Created }];
    apply(&mut state, VipOp::Assign { moves });

    let new = Grantee { vip, epoch: Epoch(1), incarnation: Incarnation(9) };
    let free_at = T + LAN.wait;
    assert_eq!(ask(&mut grants, &state, T, 3, new), Verdict::Wait(free_at));
    apply(&mut state, VipOp::Released { releases: vec![grantee(1, 7)] });
    assert_eq!(ask(&mut grants, &state, T, 3, new), Verdict::Granted);
}

/// Node 1 held by a remote grant, then leads: its gate may still have the old
/// leader's deadline.
#[test]
fn an_epoch_of_an_earlier_leader_nests_only_when_its_grants_have_run_out() {
    let mut state = state();
    move_to(&mut state, WEB, 1);
    apply(&mut state, VipOp::Settle { grants: vec![grantee(2, 7)], nested: false });
    state.enter(Term(2));
    let mut grants = Grants::default();
    assert_eq!(ask(&mut grants, &state, T, 1, grantee(2, 7)), Verdict::Granted);
    let own = |now| grants.unsettled(now, &state, NodeId(1), T, &LAN).0;
    assert_eq!(own(T), []);
    assert_eq!(own(T + LAN.grant), [grantee(2, 7)]);
}

#[test]
fn an_epoch_that_began_under_its_own_leader_nests_at_once() {
    let mut state = state();
    move_to(&mut state, WEB, 1);
    state.enter(Term(2));
    let (mut grants, later) = (Grants::default(), T + LAN.wait);
    let own =
        |grants: &Grants, state: &State| grants.unsettled(later, state, NodeId(1), later, &LAN).0;
    assert_eq!(ask(&mut grants, &state, later, 1, grantee(2, 7)), Verdict::Granted);
    assert_eq!(own(&grants, &state), [], "assigned in the term before: who knows");
    move_to(&mut state, WEB, 1);
    let (mut grants, later) = (Grants::default(), T + LAN.wait);
    assert_eq!(ask(&mut grants, &state, later, 1, grantee(3, 7)), Verdict::Granted);
    assert_eq!(own(&grants, &state), [grantee(3, 7)]);
}

#[test]
fn the_old_holder_is_told_to_go_only_when_the_new_one_is_ready() {
    let (mut grants, mut state) = (Grants::default(), state());
    ask(&mut grants, &state, T, 2, grantee(1, 7));
    move_to(&mut state, WEB, 3);
    let later = T + ms(5);
    assert_eq!(ask(&mut grants, &state, later, 2, grantee(1, 7)), Verdict::Granted);
    let wait = Verdict::Wait(later + LAN.wait);
    assert_eq!(ask(&mut grants, &state, later, 3, grantee(2, 9)), wait);
    let go = Verdict::Denied(Denial::NotHolder);
    assert_eq!(ask(&mut grants, &state, T + ms(6), 2, grantee(1, 7)), go);
    // The time of its last grant has not moved.
    assert_eq!(ask(&mut grants, &state, T + ms(7), 3, grantee(2, 9)), wait);
}

#[test]
fn only_the_holder_of_the_epoch_before_goes_on_and_only_until_it_released() {
    let (mut grants, mut state) = (Grants::default(), state());
    ask(&mut grants, &state, T, 2, grantee(1, 7));
    move_to(&mut state, WEB, 3);
    let no = Verdict::Denied(Denial::NotHolder);
    assert_eq!(ask(&mut grants, &state, T, 1, grantee(1, 7)), no, "another node");
    assert_eq!(ask(&mut grants, &state, T, 2, grantee(1, 8)), no, "another session");
    grants.released(state.vip(WEB).expect("there"), NodeId(2), grantee(1, 7));
    assert_eq!(ask(&mut grants, &state, T, 2, grantee(1, 7)), no);

    let (mut grants, mut state) = (Grants::default(), self::state());
    ask(&mut grants, &state, T, 2, grantee(1, 7));
    move_to(&mut state, WEB, 3);
    move_to(&mut state, WEB, 3);
    assert_eq!(ask(&mut grants, &state, T, 2, grantee(1, 7)), no, "two epochs ago");
}

#[test]
fn a_holder_that_was_given_up_does_not_go_on() {
    let (mut grants, mut state) = (Grants::default(), state());
    ask(&mut grants, &state, T, 2, grantee(1, 7));
    let (seen, to) = (Epoch(1), Some(NodeId(3)));
    let moves = vec![Assignment { vip: WEB, seen, to, cause: Cause::HolderLost }];
    apply(&mut state, VipOp::Assign { moves });
    let no = Verdict::Denied(Denial::NotHolder);
    assert_eq!(ask(&mut grants, &state, T + ms(5), 2, grantee(1, 7)), no);
}

/// A VIP that was removed while its holder was away.
fn removed_unsettled() -> State {
    let mut state = state();
    apply(&mut state, VipOp::Remove { name: "web".parse().expect("valid") });
    state.enter(Term(2));
    state
}

#[test]
fn a_removed_vip_is_outwaited_once_nobody_can_answer_for_it() {
    let (grants, mut state) = (Grants::default(), removed_unsettled());
    let lease = lease(2);
    let early = T + LAN.wait - ms(1);
    assert_eq!(grants.outwaited(early, &lease, &state, &LAN), []);
    assert_eq!(grants.outwaited(T + LAN.wait, &lease, &state, &LAN), [WEB]);
    // Its address is free for another VIP then, at once and for good.
    apply(&mut state, VipOp::Outwaited { vips: vec![WEB] });
    assert_eq!(grants.outwaited(T + LAN.wait, &lease, &state, &LAN), []);
    apply(&mut state, VipOp::Add { spec: vip("next", 100) });
    let next = state.vip_named("next").expect("added").uid;
    move_to(&mut state, next, 3);
    let mut grants = Grants::default();
    let wanted = Grantee { vip: next, epoch: Epoch(1), incarnation: Incarnation(9) };
    assert_eq!(ask(&mut grants, &state, T, 3, wanted), Verdict::Granted);
}

#[test]
fn a_removed_vip_that_this_leader_granted_is_outwaited_from_its_last_grant() {
    let (mut grants, mut state) = (Grants::default(), state());
    ask(&mut grants, &state, T + ms(500), 2, grantee(1, 7));
    apply(&mut state, VipOp::Remove { name: "web".parse().expect("valid") });
    let free_at = T + ms(500) + LAN.wait;
    assert_eq!(grants.outwaited(free_at - ms(1), &lease(1), &state, &LAN), []);
    assert_eq!(grants.outwaited(free_at, &lease(1), &state, &LAN), [WEB]);
}
