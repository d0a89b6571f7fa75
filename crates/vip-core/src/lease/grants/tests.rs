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
    let request = Request { node: NodeId(node), grantee, shut: false };
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
    let request = Request { node: NodeId(2), grantee: grantee(1, 7), shut: false };
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
    // The leader knows it before the log does.
    let removed = state.vip_or_retired(WEB).expect("may answer").clone();
    assert!(grants.released(&removed, NodeId(2), grantee(1, 7)));
    assert_eq!(ask(&mut grants.clone(), &state, T, 3, new), Verdict::Granted);
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
    // Granted again it is no other: not by what was granted before this leader was.
    ask(&mut grants, &state, later, 1, grantee(3, 7));
    let own_at = |now| grants.unsettled(now, &state, NodeId(1), later, &LAN).0;
    assert_eq!(own_at(later), [grantee(3, 7)]);
}

/// A first grant of an epoch says nothing of the one before it, and the other way round.
#[test]
fn an_epoch_does_not_begin_as_the_one_before_it_did() {
    let mut state = after_change_of_leader();
    let mut grants = Grants::default();
    assert_eq!(ask(&mut grants, &state, T, 2, grantee(1, 7)), Verdict::Granted);
    move_to(&mut state, WEB, 1);
    let later = T + LAN.wait;
    assert_eq!(ask(&mut grants, &state, later, 1, grantee(2, 9)), Verdict::Granted);
    let (own, others) = grants.unsettled(later, &state, NodeId(1), later, &LAN);
    assert_eq!((own, others), (vec![grantee(2, 9)], vec![]));
}

#[test]
fn what_the_log_knows_is_over_is_not_told_to_it_as_granted() {
    let (mut grants, mut state) = (Grants::default(), state());
    ask(&mut grants, &state, T, 2, grantee(1, 7));
    let told = |grants: &Grants, state: &State| grants.unsettled(T, state, NodeId(1), T, &LAN).1;
    assert_eq!(told(&grants, &state), [grantee(1, 7)]);
    let mut released = grants.clone();
    released.released(state.vip(WEB).expect("there"), NodeId(2), grantee(1, 7));
    assert_eq!(told(&released, &state), [], "it ended");
    move_to(&mut state, WEB, 3);
    assert_eq!(told(&grants, &state), [], "it is the epoch before");
}

#[test]
fn an_own_grant_is_told_until_it_nests_in_this_very_lease() {
    let mut state = state();
    move_to(&mut state, WEB, 1);
    let mut grants = Grants::default();
    ask(&mut grants, &state, T + LAN.wait, 1, grantee(2, 7));
    let mut told = |nested| {
        state.vip_mut(WEB).expect("there").nested = nested;
        let told = grants.unsettled(T + LAN.wait, &state, NodeId(1), T, &LAN);
        assert_eq!(told.1, [], "it is its own");
        told.0
    };
    let nested = |term, epoch| Some(Nested { term: Term(term), epoch: Epoch(epoch) });
    assert_eq!(told(None), [grantee(2, 7)]);
    assert_eq!(told(nested(0, 2)), [grantee(2, 7)], "in an earlier leader's");
    assert_eq!(told(nested(1, 1)), [grantee(2, 7)], "with the epoch before");
    assert_eq!(told(nested(1, 2)), []);
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

const DB: VipUid = VipUid(2);

/// As above, and node 2 has `db` at epoch 1 as well.
fn state_of_two() -> State {
    let mut state = state();
    apply(&mut state, VipOp::Add { spec: vip("db", 101) });
    move_to(&mut state, DB, 2);
    state
}

fn of_db(epoch: u64, incarnation: u64) -> Grantee {
    Grantee { vip: DB, ..grantee(epoch, incarnation) }
}

fn renew(grants: &mut Grants, state: &State, now: Mono, all: &[Grantee]) -> bool {
    let cover = Cover::of(all.iter().copied());
    grants.renew(now, NodeId(2), cover, &lease(state.term.0), state)
}

/// Both granted to session 7 of node 2 one by one.
fn granted_both() -> (Grants, State, [Grantee; 2]) {
    let (mut grants, state) = (Grants::default(), state_of_two());
    let both = [grantee(1, 7), of_db(1, 7)];
    for grantee in both {
        assert_eq!(ask(&mut grants, &state, T, 2, grantee), Verdict::Granted);
    }
    (grants, state, both)
}

#[test]
fn all_that_a_node_has_is_renewed_by_its_name_and_w_counts_from_then() {
    let (mut grants, mut state, both) = granted_both();
    assert!(renew(&mut grants, &state, T + ms(40), &both));
    assert!(renew(&mut grants, &state, T + ms(80), &both));
    move_to(&mut state, WEB, 3);
    let wait = Verdict::Wait(T + ms(80) + LAN.wait);
    assert_eq!(ask(&mut grants, &state, T + ms(90), 3, grantee(2, 9)), wait);
}

/// Otherwise what it took away would be kept open by the rest.
#[test]
fn what_the_leader_took_away_is_renewed_with_nothing_and_its_w_counts_from_before() {
    let (mut grants, mut state, both) = granted_both();
    assert!(renew(&mut grants, &state, T + ms(40), &both));
    let (seen, to) = (Epoch(1), Some(NodeId(3)));
    let step = Assignment { vip: WEB, seen, to, cause: Cause::HolderLost };
    apply(&mut state, VipOp::Assign { moves: vec![step] });
    assert!(!renew(&mut grants, &state, T + ms(80), &both), "the holder has not heard of it");
    assert!(renew(&mut grants, &state, T + ms(90), &both[1..]));
    let wait = Verdict::Wait(T + ms(40) + LAN.wait);
    assert_eq!(ask(&mut grants, &state, T + ms(90), 3, grantee(2, 9)), wait);
}

#[test]
fn another_set_another_session_and_the_empty_set_are_not_renewed() {
    let (mut grants, state, both) = granted_both();
    let session = [grantee(1, 7), of_db(1, 8)];
    let epoch = [grantee(2, 7), of_db(1, 7)];
    for set in [&both[..1], &[], &session, &epoch] {
        assert!(!renew(&mut grants, &state, T, set), "{set:?}");
    }
    assert!(!grants.renew(T, NodeId(3), Cover::of(both), &lease(1), &state), "another node");
    assert!(!grants.renew(T, NodeId(2), Cover::of(both), &lease(2), &state), "another term");
    let of_three = Voters::one([NodeId(1), NodeId(2), NodeId(3)]);
    let unheard = LeaderLease::elected(NodeId(1), Term(1), T, Mono::ZERO, of_three, &LAN);
    assert!(!grants.renew(T, NodeId(2), Cover::of(both), &unheard, &state), "no lease");
    assert!(!grants.renew(T, NodeId(3), Cover::default(), &lease(1), &state));
}

/// A leader that granted nothing yet knows nothing of what a node has.
#[test]
fn a_new_leader_is_told_one_by_one_first() {
    let (_, mut state, both) = granted_both();
    apply(&mut state, VipOp::Settle { grants: both.to_vec(), nested: false });
    state.enter(Term(2));
    let mut grants = Grants::default();
    assert!(!renew(&mut grants, &state, T, &both));
    grants.has_only(NodeId(2), &both);
    for grantee in both {
        assert_eq!(ask(&mut grants, &state, T, 2, grantee), Verdict::Granted);
    }
    assert!(renew(&mut grants, &state, T, &both));
}

#[test]
fn what_a_node_does_not_name_is_not_renewed_with_the_rest() {
    let (mut grants, mut state, both) = granted_both();
    assert!(renew(&mut grants, &state, T + ms(40), &both));
    grants.has_only(NodeId(2), &both[1..]);
    assert!(!renew(&mut grants, &state, T + ms(80), &both));
    assert!(renew(&mut grants, &state, T + ms(80), &both[1..]));
    move_to(&mut state, WEB, 3);
    let wait = Verdict::Wait(T + ms(40) + LAN.wait);
    assert_eq!(ask(&mut grants, &state, T + ms(90), 3, grantee(2, 9)), wait);
    // What another node has is not this one's to name.
    let (mut grants, state, both) = granted_both();
    grants.has_only(NodeId(3), &[]);
    assert!(renew(&mut grants, &state, T, &both));
}

#[test]
fn a_released_epoch_is_renewed_with_nothing() {
    let (mut grants, state, both) = granted_both();
    assert!(renew(&mut grants, &state, T, &both));
    assert!(grants.released(state.vip(WEB).expect("there"), NodeId(2), both[0]));
    assert!(!renew(&mut grants, &state, T, &both));
    assert!(renew(&mut grants, &state, T, &both[1..]));
}

/// Sessions of one guard never overlap.
#[test]
fn a_later_session_of_a_node_takes_the_earlier_ones_cover_away() {
    let (mut grants, mut state, both) = granted_both();
    assert!(renew(&mut grants, &state, T + ms(40), &both));
    apply(&mut state, VipOp::Settle { grants: both.to_vec(), nested: false });
    let released = VipOp::Released { releases: vec![both[1]] };
    apply(&mut state, released);
    move_to(&mut state, DB, 3);
    move_to(&mut state, DB, 2);
    let later = of_db(3, 8);
    assert!(matches!(ask(&mut grants, &state, T + ms(50), 2, later), Verdict::Wait(_)));
    let free_at = T + ms(40) + LAN.wait;
    assert_eq!(ask(&mut grants, &state, free_at, 2, later), Verdict::Granted);
    assert!(!renew(&mut grants, &state, free_at, &[both[0], later]), "of two sessions");
    assert!(renew(&mut grants, &state, free_at, &[later]));
    move_to(&mut state, WEB, 3);
    // Its own last renewal counts, not that of the later session.
    assert_eq!(ask(&mut grants, &state, free_at, 3, grantee(2, 9)), Verdict::Granted);
}

/// As when it is asked for by itself: a thousand VIPs take longer than a lease.
#[test]
fn a_planned_move_is_covered_until_its_successor_is_ready() {
    let (mut grants, mut state, both) = granted_both();
    apply(&mut state, VipOp::Settle { grants: both.to_vec(), nested: false });
    let to = Some(NodeId(3));
    let step = Assignment { vip: WEB, seen: Epoch(1), to, cause: Cause::Command };
    apply(&mut state, VipOp::Assign { moves: vec![step] });
    assert!(renew(&mut grants, &state, T + ms(40), &both));
    let wait = Verdict::Wait(T + ms(40) + LAN.wait);
    assert_eq!(ask(&mut grants, &state, T + ms(50), 3, grantee(2, 9)), wait, "and is ready");
    assert!(!renew(&mut grants, &state, T + ms(60), &both));
    assert!(renew(&mut grants, &state, T + ms(60), &both[1..]));
}

#[test]
fn a_release_is_told_to_the_log_until_it_knows() {
    let (mut grants, mut state) = (Grants::default(), state());
    ask(&mut grants, &state, T, 2, grantee(1, 7));
    apply(&mut state, VipOp::Settle { grants: vec![grantee(1, 7)], nested: false });
    assert_eq!(grants.unlogged_releases(&state), []);
    let vip = state.vip(WEB).expect("there").clone();
    assert!(grants.released(&vip, NodeId(2), grantee(1, 7)));
    assert_eq!(grants.unlogged_releases(&state), [grantee(1, 7)]);
    apply(&mut state, VipOp::Released { releases: vec![grantee(1, 7)] });
    assert_eq!(grants.unlogged_releases(&state), []);
}

/// As when a VIP follows a new leader while it is on its way to another node: what lies between
/// was granted by nobody.
#[test]
fn an_epoch_of_this_term_that_was_never_granted_is_not_waited_for() {
    let mut state = after_change_of_leader();
    let mut grants = Grants::default();
    grants.inherit(&lease(2), &state);
    assert!(grants.released(state.vip(WEB).expect("there"), NodeId(2), grantee(1, 7)));
    move_to(&mut state, WEB, 3);
    move_to(&mut state, WEB, 1);
    assert_eq!(ask(&mut grants, &state, T, 1, grantee(3, 5)), Verdict::Granted);
    // One that was granted is.
    move_to(&mut state, WEB, 3);
    move_to(&mut state, WEB, 2);
    let wait = Verdict::Wait(T + LAN.wait);
    assert_eq!(ask(&mut grants, &state, T + ms(1), 2, grantee(5, 8)), wait);
    assert!(grants.released(state.vip(WEB).expect("there"), NodeId(1), grantee(3, 5)));
    assert_eq!(ask(&mut grants, &state, T + ms(1), 2, grantee(5, 8)), Verdict::Granted);
}

/// Of what an earlier leader assigned nobody knows.
#[test]
fn an_epoch_that_an_earlier_leader_may_have_granted_is_waited_for() {
    let mut state = state();
    apply(&mut state, VipOp::Settle { grants: vec![grantee(1, 7)], nested: false });
    move_to(&mut state, WEB, 3);
    state.enter(Term(2));
    let mut grants = Grants::default();
    grants.inherit(&lease(2), &state);
    assert!(grants.released(state.vip(WEB).expect("there"), NodeId(2), grantee(1, 7)));
    move_to(&mut state, WEB, 1);
    let wait = Verdict::Wait(T + LAN.wait);
    assert_eq!(ask(&mut grants, &state, T, 1, grantee(3, 5)), wait);
    // Nor where the first state that was seen has an assignment of this term already.
    let mut state = after_change_of_leader();
    move_to(&mut state, WEB, 3);
    let mut grants = Grants::default();
    grants.inherit(&lease(2), &state);
    assert!(grants.released(state.vip(WEB).expect("there"), NodeId(2), grantee(1, 7)));
    move_to(&mut state, WEB, 1);
    assert_eq!(ask(&mut grants, &state, T, 1, grantee(3, 5)), wait);
}

/// While somebody is told where it is, it is in no set; and a word from then that comes late
/// takes it out of none.
#[test]
fn what_is_held_with_the_gate_shut_is_renewed_by_itself() {
    let (mut grants, state) = (Grants::default(), state());
    let mut asks = |now, shut| {
        let request = Request { node: NodeId(2), grantee: grantee(1, 7), shut };
        let verdict = grants.request(now, [request], &lease(1), &state, &LAN)[0].1;
        assert_eq!(verdict, Verdict::Granted);
        let cover = Cover::of([grantee(1, 7)]);
        let renewed = grants.renew(now + ms(1), NodeId(2), cover, &lease(1), &state);
        (renewed, grants.granted_at(WEB))
    };
    assert_eq!(asks(T, true), (false, Some(T)));
    assert_eq!(asks(T + ms(40), true), (false, Some(T + ms(40))));
    assert_eq!(asks(T + ms(50), false), (true, Some(T + ms(51))));
    assert_eq!(asks(T + ms(60), true), (true, Some(T + ms(61))), "it came late");
}
