use super::refusals::RETRY_REFUSED;
use super::*;
use crate::testing::{apply, move_to, state_of, vip, voter};
use crate::*;
use std::sync::Arc;
use std::time::Duration;

const START: Mono = Mono(10_000_000_000);
const SESSION: Incarnation = Incarnation(7);
const WEB: VipUid = VipUid(1);

fn state() -> State {
    let mut state = state_of([voter(1), voter(2)]);
    apply(&mut state, VipOp::Add { spec: vip("web", 100) });
    move_to(&mut state, WEB, 1);
    state
}

fn obstacle() -> Obstacle {
    Obstacle { ip: [10, 0, 0, 100].into(), why: Why::NoLink }
}

fn grantee(epoch: u64, incarnation: u64) -> Grantee {
    Grantee { vip: WEB, epoch: Epoch(epoch), incarnation: Incarnation(incarnation) }
}

fn sync(claims: &mut Claims, state: &State) -> Vec<ClaimAction> {
    sync_at(START, claims, state)
}

/// Who is known is looked at by itself.
fn sync_at(now: Mono, claims: &mut Claims, state: &State) -> Vec<ClaimAction> {
    let mut actions = claims.sync(now, state, |_| vec![]);
    for action in &mut actions {
        if let ClaimAction::Order(VipOrder::Prepare { known, .. }) = action {
            known.clear();
        }
    }
    actions
}

fn notice(claims: &mut Claims, notice: GuardNotice) -> Vec<ClaimAction> {
    claims.step(START, &state(), ClaimEvent::Notice(notice))
}

fn prepare(epoch: u64) -> ClaimAction {
    let (epoch, addresses, probe) = (Epoch(epoch), vec![], Probe::Before);
    ClaimAction::Order(VipOrder::Prepare { vip: WEB, epoch, addresses, probe, known: [].into() })
}

fn release(epoch: u64) -> ClaimAction {
    ClaimAction::Order(VipOrder::Release { vip: WEB, epoch: Epoch(epoch) })
}

fn claims() -> Claims {
    let mut claims = Claims::new(NodeId(1));
    claims.step(START, &state(), ClaimEvent::GuardUp(SESSION));
    claims
}

/// Node 1 answers for epoch 1.
fn open(state: &State) -> Claims {
    let mut claims = claims();
    assert_eq!(sync(&mut claims, state), [prepare(1)]);
    let prepared = GuardNotice::Prepared { vip: WEB, epoch: Epoch(1) };
    assert_eq!(notice(&mut claims, prepared), [ClaimAction::AskNow]);
    notice(&mut claims, GuardNotice::Opened { vip: WEB, epoch: Epoch(1) });
    claims
}

#[test]
fn nothing_is_asked_before_the_guard_is_ready() {
    let mut claims = claims();
    sync(&mut claims, &state());
    assert_eq!(claims.waiting(), []);
    let prepared = GuardNotice::Prepared { vip: WEB, epoch: Epoch(1) };
    notice(&mut claims, prepared);
    assert_eq!(claims.waiting(), [grantee(1, 7)]);
}

#[test]
fn losing_the_assignment_releases_and_reports_until_the_log_knows() {
    let mut state = state();
    apply(&mut state, VipOp::Settle { grants: vec![grantee(1, 7)], nested: false });
    let mut claims = open(&state);
    move_to(&mut state, WEB, 2);
    assert_eq!(sync(&mut claims, &state), [], "the next one is not ready yet");
    assert_eq!(claims.renewals(), [grantee(1, 7)]);
    let no = ClaimEvent::Denied(grantee(1, 7), Denial::NotHolder);
    assert_eq!(claims.step(START, &state, no), [release(1)]);
    assert_eq!(claims.renewals(), []);
    let released = GuardNotice::Released { vip: WEB, epoch: Epoch(1) };
    assert_eq!(notice(&mut claims, released), [ClaimAction::ReportNow]);
    sync(&mut claims, &state);
    assert_eq!(claims.releases(), [grantee(1, 7)]);
    apply(&mut state, VipOp::Released { releases: vec![grantee(1, 7)] });
    sync(&mut claims, &state);
    assert_eq!(claims.releases(), []);
}

#[test]
fn a_holder_without_a_successor_releases_at_once() {
    let mut state = state();
    let mut claims = open(&state);
    let moves = vec![Assignment { vip: WEB, seen: Epoch(1), to: None, cause: Cause::Drain }];
    apply(&mut state, VipOp::Assign { moves });
    assert_eq!(sync(&mut claims, &state), [release(1)]);
}

#[test]
fn a_restarted_agent_releases_in_the_name_of_the_session_before() {
    let mut state = state();
    apply(&mut state, VipOp::Settle { grants: vec![grantee(1, 5)], nested: false });
    let mut claims = claims();
    assert_eq!(sync(&mut claims, &state), [ClaimAction::ReportNow]);
    assert_eq!(claims.releases(), [grantee(1, 5)]);
    assert_eq!(claims.waiting(), []);
}

#[test]
fn an_epoch_that_the_guard_refuses_is_asked_for_only_to_be_released() {
    let mut claims = claims();
    sync(&mut claims, &state());
    let (vip, epoch, why) = (WEB, Epoch(1), GuardRefusal::Ended(Epoch(1)));
    notice(&mut claims, GuardNotice::Refused { vip, epoch, why });
    assert_eq!(claims.waiting(), [grantee(1, 7)]);
    let granted = ClaimEvent::Granted(grantee(1, 7), START);
    assert_eq!(claims.step(START, &state(), granted), [ClaimAction::ReportNow]);
    assert_eq!(claims.releases(), [grantee(1, 7)]);
}

#[test]
fn a_grant_to_another_session_is_dropped() {
    let state = state();
    let mut claims = open(&state);
    claims.step(START, &state, ClaimEvent::GuardUp(Incarnation(8)));
    assert_eq!(claims.step(START, &state, ClaimEvent::Granted(grantee(1, 7), START)), []);
}

#[test]
fn an_address_that_cannot_be_had_is_left_alone_for_a_while() {
    let state = state();
    let mut claims = claims();
    sync(&mut claims, &state);
    let why = || GuardRefusal::Address(obstacle());
    let mut at = START;
    for pause in [1, 2, 4, 8, 16, 30, 30].map(Duration::from_secs) {
        let why = why();
        let refused = GuardNotice::Refused { vip: WEB, epoch: Epoch(1), why };
        claims.step(at, &state, ClaimEvent::Notice(refused));
        assert_eq!(claims.unable(at), [WEB]);
        let early = at + pause - Duration::from_millis(1);
        assert_eq!(sync_at(early, &mut claims, &state), []);
        at = at + pause;
        assert_eq!(claims.unable(at), []);
        assert_eq!(sync_at(at, &mut claims, &state), [prepare(1)]);
    }
}

const STRANGER: Mac = Mac([2, 0, 0, 0, 0, 99]);

/// Node n has the interface 02:00:00:00:00:0n.
fn with_interfaces(mut state: State) -> State {
    for node in Arc::make_mut(&mut state.nodes).values_mut() {
        node.macs.insert(Mac([2, 0, 0, 0, 0, node.id.0.to_le_bytes()[0]]));
    }
    state
}

fn answer(claims: &mut Claims, state: &State, epoch: u64, mac: Mac) -> Vec<ClaimAction> {
    let ip = [10, 0, 0, 100].into();
    let conflict = GuardNotice::Conflict { vip: WEB, epoch: Epoch(epoch), ip, mac };
    claims.step(START, state, ClaimEvent::Notice(conflict))
}

fn member(id: u8) -> Mac {
    Mac([2, 0, 0, 0, 0, id])
}

/// Node 2 answered at epoch 1 and is lost; node 1 waits to take over.
fn taking_over() -> (State, Claims) {
    let mut state = with_interfaces(state_of([voter(1), voter(2), voter(3)]));
    apply(&mut state, VipOp::Add { spec: vip("web", 100) });
    move_to(&mut state, WEB, 2);
    apply(&mut state, VipOp::Settle { grants: vec![grantee(1, 5)], nested: false });
    apply(&mut state, VipOp::Answered { grants: vec![grantee(1, 5)] });
    let (seen, to, cause) = (Epoch(1), Some(NodeId(1)), Cause::HolderLost);
    apply(&mut state, VipOp::Assign { moves: vec![Assignment { vip: WEB, seen, to, cause }] });
    let mut claims = claims();
    let (epoch, addresses, probe) = (Epoch(2), vec![], Probe::Beside);
    let order = VipOrder::Prepare { vip: WEB, epoch, addresses, probe, known: [].into() };
    assert_eq!(sync(&mut claims, &state), [ClaimAction::Order(order)]);
    (state, claims)
}

#[test]
fn a_first_claim_is_refused_for_anybody_who_answers_and_tried_again_later() {
    let state = with_interfaces(state());
    let mut claims = claims();
    sync(&mut claims, &state);
    assert_eq!(answer(&mut claims, &state, 1, member(1)), [], "another own interface");
    assert_eq!(answer(&mut claims, &state, 1, STRANGER), [release(1)]);
    let why = Why::Answered(STRANGER);
    assert_eq!(claims.obstacles()[&WEB].why, why);
    assert_eq!(claims.unable(START), [WEB]);
    notice(&mut claims, GuardNotice::Released { vip: WEB, epoch: Epoch(1) });
    let later = START + RETRY_REFUSED;
    assert_eq!(sync_at(later, &mut claims, &state), [prepare(1)]);
}

#[test]
fn a_stranger_that_is_meant_to_be_there_refuses_nothing_and_a_member_still_does() {
    let mut state = with_interfaces(state());
    let mut before = claims();
    sync(&mut before, &state);
    answer(&mut before, &state, 1, STRANGER);
    notice(&mut before, GuardNotice::Released { vip: WEB, epoch: Epoch(1) });
    apply(&mut state, VipOp::Add { spec: VipSpec { no_probe: true, ..vip("web", 100) } });
    assert_eq!(sync(&mut before, &state), [prepare(1)], "at once");
    assert_eq!(answer(&mut before, &state, 1, STRANGER), []);
    assert_eq!(before.conflicts()[&WEB].mac, STRANGER, "it is said all the same");
    assert_eq!(answer(&mut before, &state, 1, member(2)), [release(1)]);
    let name = state.nodes[&NodeId(2)].name.clone();
    assert_eq!(before.obstacles()[&WEB].why, Why::AnsweredBy(name));
}

#[test]
fn a_takeover_is_refused_for_a_member_alone_and_not_for_the_holder_before() {
    let (state, mut claims) = taking_over();
    assert_eq!(answer(&mut claims, &state, 2, member(2)), [], "its lease may run");
    assert_eq!(claims.conflicts(), [].into());
    assert_eq!(answer(&mut claims, &state, 2, STRANGER), []);
    assert_eq!(claims.conflicts()[&WEB].mac, STRANGER);
    assert_eq!(answer(&mut claims, &state, 2, member(3)), [release(2)]);
}

#[test]
fn what_answers_here_is_not_given_up_for_anybody() {
    let state = with_interfaces(state());
    let mut claims = open(&state);
    for mac in [STRANGER, member(2)] {
        assert_eq!(answer(&mut claims, &state, 1, mac), []);
    }
    assert_eq!(claims.conflicts()[&WEB].mac, STRANGER);
}

#[test]
fn whose_answer_may_decide_is_told_to_the_guard() {
    let mut state = with_interfaces(state());
    apply(&mut state, NodeOp::Remove { node: NodeId(2) });
    Arc::make_mut(&mut state.nodes)
        .insert(NodeId(3), Node { macs: [member(3)].into(), ..voter(3) });
    let known = |state: &State| match claims().sync(START, state, |_| vec![]).as_slice() {
        [ClaimAction::Order(VipOrder::Prepare { known, .. })] => known.clone(),
        other => panic!("{other:?}"),
    };
    assert_eq!(known(&state), [member(3)].into(), "not of whom was removed in order");
    Arc::make_mut(&mut state.tombstones).get_mut(&NodeId(2)).expect("there").cut_off = true;
    assert_eq!(known(&state), [member(2), member(3)].into());
}

#[test]
fn what_others_answered_is_forgotten_once_the_vip_answers_elsewhere() {
    let mut state = with_interfaces(state());
    let mut claims = claims();
    sync(&mut claims, &state);
    answer(&mut claims, &state, 1, STRANGER);
    move_to(&mut state, WEB, 2);
    sync(&mut claims, &state);
    assert_eq!(claims.obstacles().len(), 1);
    apply(&mut state, VipOp::Settle { grants: vec![grantee(2, 5)], nested: false });
    apply(&mut state, VipOp::Answered { grants: vec![grantee(2, 5)] });
    sync(&mut claims, &state);
    assert_eq!(claims.obstacles(), [].into());
}

#[test]
fn while_the_old_cluster_may_be_alive_a_stranger_stops_the_first_claim_alone() {
    let mut state = with_interfaces(state());
    apply(&mut state, NodeOp::Remove { node: NodeId(2) });
    Arc::make_mut(&mut state.tombstones).get_mut(&NodeId(2)).expect("there").cut_off = true;
    let mut first = claims();
    sync(&mut first, &state);
    assert_eq!(answer(&mut first, &state, 1, STRANGER), [release(1)]);
    state.vip_mut(WEB).expect("there").answered = Epoch(1);
    let mut later = claims();
    sync(&mut later, &state);
    assert_eq!(answer(&mut later, &state, 1, STRANGER), []);
    assert_eq!(answer(&mut later, &state, 1, member(2)), [release(1)]);
}

#[test]
fn a_vip_is_let_go_of_when_the_cluster_that_was_given_up_comes_back() {
    let mut state = with_interfaces(state());
    apply(&mut state, NodeOp::Remove { node: NodeId(2) });
    Arc::make_mut(&mut state.tombstones).get_mut(&NodeId(2)).expect("there").cut_off = true;
    let mut claims = claims();
    let (epoch, addresses, probe) = (Epoch(1), vec![], Probe::Always);
    let order = VipOrder::Prepare { vip: WEB, epoch, addresses, probe, known: [].into() };
    assert_eq!(sync(&mut claims, &state), [ClaimAction::Order(order)]);
    notice(&mut claims, GuardNotice::Prepared { vip: WEB, epoch: Epoch(1) });
    notice(&mut claims, GuardNotice::Opened { vip: WEB, epoch: Epoch(1) });
    assert_eq!(answer(&mut claims, &state, 1, STRANGER), []);
    assert_eq!(answer(&mut claims, &state, 1, member(2)), [release(1)]);
    let name = state.tombstones[&NodeId(2)].name.clone();
    assert_eq!(claims.obstacles()[&WEB].why, Why::AnsweredBy(name));
}

#[test]
fn a_move_and_a_takeover_without_a_wait_ask_nobody() {
    let (mut state, _) = taking_over();
    let ordered = |state: &State| {
        let mut claims = claims();
        let actions = sync(&mut claims, state);
        let [ClaimAction::Order(VipOrder::Prepare { probe, .. })] = actions[..] else {
            panic!("{actions:?}");
        };
        probe
    };
    let waits = state.clone();
    apply(&mut state, VipOp::Released { releases: vec![grantee(1, 5)] });
    assert_eq!(ordered(&state), Probe::No, "the holder before let go");
    let mut nested = waits.clone();
    nested.vip_mut(WEB).expect("there").nested =
        Some(Nested { term: nested.previous_term, epoch: Epoch(1) });
    assert_eq!(ordered(&nested), Probe::No, "it ended with its leader lease");
    let mut planned = waits;
    planned.vip_mut(WEB).expect("there").cause = Some(Cause::Command);
    assert_eq!(ordered(&planned), Probe::No);
}

#[test]
fn what_could_not_be_held_here_is_said_and_not_tried() {
    let state = state();
    let mut claims = claims();
    let hindered = |map: &[(VipUid, Obstacle)]| ClaimEvent::Hindered(map.iter().cloned().collect());
    claims.step(START, &state, hindered(&[(WEB, obstacle())]));
    assert_eq!(sync(&mut claims, &state), []);
    assert_eq!((claims.unable(START), claims.obstacles().len()), (vec![WEB], 1));
    claims.step(START, &state, hindered(&[]));
    assert_eq!(sync(&mut claims, &state), [prepare(1)]);
    assert_eq!((claims.unable(START), claims.obstacles().len()), (vec![], 0));
}

#[test]
fn an_address_that_could_not_be_had_is_tried_again_when_a_link_comes_back() {
    let state = state();
    let mut claims = claims();
    sync(&mut claims, &state);
    let why = GuardRefusal::Address(obstacle());
    notice(&mut claims, GuardNotice::Refused { vip: WEB, epoch: Epoch(1), why });
    notice(&mut claims, GuardNotice::TryAgain);
    assert_eq!(claims.unable(START), []);
    assert_eq!(sync(&mut claims, &state), [prepare(1)]);
}

/// The guard hears of it once, answers on meanwhile, and hears it again if it
/// could not be.
#[test]
fn addresses_that_join_are_told_to_the_guard_under_the_same_epoch() {
    let mut state = state();
    apply(&mut state, VipOp::Settle { grants: vec![grantee(1, 7)], nested: false });
    apply(&mut state, VipOp::Answered { grants: vec![grantee(1, 7)] });
    let mut claims = open(&state_before(&state));
    state.vip_mut(WEB).expect("there").revision += 1;
    let ClaimAction::Order(VipOrder::Prepare { vip, epoch, addresses, .. }) = prepare(1) else {
        panic!("an order")
    };
    let (probe, known) = (Probe::No, [].into());
    let again = ClaimAction::Order(VipOrder::Prepare { vip, epoch, addresses, probe, known });
    assert_eq!(sync(&mut claims, &state), std::slice::from_ref(&again));
    assert_eq!(sync(&mut claims, &state), []);
    assert!(claims.is_open(WEB, Epoch(1)) && !claims.may_differ());
    let why = GuardRefusal::InUse([10, 0, 0, 101].into());
    notice(&mut claims, GuardNotice::Refused { vip: WEB, epoch: Epoch(1), why });
    assert!(claims.is_open(WEB, Epoch(1)), "what it has it keeps");
    assert!(claims.may_differ(), "the guard is to hear it again");
    assert_eq!(sync(&mut claims, &state), [again]);
    assert_eq!(claims.revisions(), [].into(), "it has not said that it has them");
    notice(&mut claims, GuardNotice::Prepared { vip: WEB, epoch: Epoch(1) });
    assert_eq!(claims.revisions(), [(WEB, 1)].into());
    assert!(!claims.may_differ());
    notice(&mut claims, GuardNotice::Expired { vip: WEB, epoch: Epoch(1) });
    assert_eq!(claims.revisions(), [].into(), "nothing answers");
}

#[test]
fn a_guard_that_is_gone_takes_what_was_claimed_with_it() {
    let state = state();
    for event in [ClaimEvent::GuardDown, ClaimEvent::GuardUp(Incarnation(8))] {
        let mut claims = open(&state);
        let (vip, epoch) = (WEB, Epoch(1));
        assert_eq!(claims.holdings(), [Holding { vip, epoch, open: true }]);
        assert_eq!(claims.open(), [grantee(1, 7)]);
        claims.step(START, &state, ClaimEvent::Hindered([(VipUid(9), obstacle())].into()));
        let session = if let ClaimEvent::GuardUp(new) = &event { Some(*new) } else { None };
        let reported = [ClaimAction::ReportNow];
        let expected = if session.is_some() { &[][..] } else { &reported[..] };
        assert_eq!(claims.step(START, &state, event), expected);
        assert_eq!((claims.session(), claims.holdings(), claims.open()), (session, vec![], vec![]));
        assert_eq!(claims.obstacles(), [].into());
    }
}

#[test]
fn what_is_claimed_and_shut_is_held_and_not_open() {
    let mut claims = claims();
    sync(&mut claims, &state());
    assert_eq!(claims.holdings(), [Holding { vip: WEB, epoch: Epoch(1), open: false }]);
    assert_eq!(claims.open(), []);
}

/// Else the log would be looked at ten times a second for nothing.
#[test]
fn what_did_not_change_is_not_looked_at_again() {
    let state = state();
    let mut claims = open(&state);
    assert!(claims.may_differ(), "its claim changed since");
    sync(&mut claims, &state);
    assert!(!claims.may_differ() && !claims.ages());
    claims.step(START, &state, ClaimEvent::Granted(grantee(1, 7), START));
    assert!(!claims.may_differ(), "a renewal changes nothing");
    answer(&mut claims, &state, 1, STRANGER);
    assert!(claims.may_differ() && claims.ages(), "it is forgotten after a while");
    let mut refused = self::claims();
    sync(&mut refused, &state);
    let why = GuardRefusal::Address(obstacle());
    notice(&mut refused, GuardNotice::Refused { vip: WEB, epoch: Epoch(1), why });
    sync(&mut refused, &state);
    assert!(refused.may_differ() && refused.ages(), "it is tried again after a while");
}

#[test]
fn an_epoch_is_released_in_the_name_of_another_session_alone() {
    let mut state = state();
    apply(&mut state, VipOp::Settle { grants: vec![grantee(1, 7)], nested: false });
    let denied = |claims: &mut Claims, session| {
        let denial = Denial::OtherSession(Incarnation(session));
        claims.step(START, &state, ClaimEvent::Denied(grantee(1, 7), denial))
    };
    let mut own = open(&state);
    assert_eq!(denied(&mut own, 7), [], "a word that was delayed");
    assert_eq!((own.releases(), own.open()), (vec![], vec![grantee(1, 7)]));
    let mut others = open(&state);
    assert_eq!(denied(&mut others, 5), [release(1), ClaimAction::ReportNow]);
    assert_eq!(others.releases(), [grantee(1, 5)]);
}

/// As when it was first claimed.
fn state_before(state: &State) -> State {
    let mut before = state.clone();
    before.vip_mut(WEB).expect("there").answered = Epoch(0);
    before
}

#[test]
fn an_epoch_is_open_when_the_guard_says_so_and_no_other_is() {
    let (state, mut claims) = (state(), claims());
    sync(&mut claims, &state);
    notice(&mut claims, GuardNotice::Prepared { vip: WEB, epoch: Epoch(1) });
    assert!(!claims.is_open(WEB, Epoch(1)), "its gate is shut");
    notice(&mut claims, GuardNotice::Opened { vip: WEB, epoch: Epoch(1) });
    assert!(claims.is_open(WEB, Epoch(1)));
    assert!(!claims.is_open(WEB, Epoch(2)) && !claims.is_open(VipUid(9), Epoch(1)));
    notice(&mut claims, GuardNotice::Expired { vip: WEB, epoch: Epoch(1) });
    assert!(!claims.is_open(WEB, Epoch(1)), "its deadline passed");
}

/// Node 1 is the holder of an epoch that the log knows to be over.
fn fenced() -> State {
    let mut state = state();
    apply(&mut state, VipOp::Settle { grants: vec![grantee(1, 7)], nested: false });
    apply(&mut state, VipOp::Released { releases: vec![grantee(1, 7)] });
    assert_eq!((state.vips[&WEB].holder, state.vips[&WEB].fenced), (Some(NodeId(1)), Epoch(1)));
    state
}

#[test]
fn an_epoch_that_is_over_is_neither_claimed_nor_kept() {
    let fenced = fenced();
    assert_eq!(sync(&mut claims(), &fenced), []);
    let mut held = open(&state());
    assert_eq!(sync(&mut held, &fenced), [release(1)]);
}

/// Whoever answers does so until its successor can; nobody else has a reason to wait.
#[test]
fn what_does_not_answer_yet_is_given_up_as_soon_as_it_is_anothers() {
    let mut state = state();
    let mut preparing = claims();
    assert_eq!(sync(&mut preparing, &state), [prepare(1)]);
    let mut answering = open(&state);
    move_to(&mut state, WEB, 2);
    assert_eq!(sync(&mut preparing, &state), [release(1)]);
    assert_eq!(sync(&mut answering, &state), []);
    move_to(&mut state, WEB, 2);
    assert_eq!(sync(&mut answering, &state), [release(1)], "its successor is past already");
}

/// Somebody has to be told where `web` is.
fn called() -> State {
    let mut state = state_of([voter(1), voter(2)]);
    let params = [("file".to_owned(), "move".to_owned())].into();
    apply(&mut state, VipOp::Add { spec: VipSpec { via: Via::Exec, params, ..vip("web", 100) } });
    move_to(&mut state, WEB, 1);
    state
}

/// It is announced by this node, and until the gate is open nothing takes that back; what is
/// its successor's is not its own.
#[test]
fn what_a_node_announces_is_its_own_until_the_gate_is_open() {
    let mut state = state_of([voter(1), voter(2)]);
    apply(&mut state, VipOp::Add { spec: VipSpec { via: Via::Bgp, ..vip("web", 100) } });
    move_to(&mut state, WEB, 1);
    let mut claims = claims();
    sync(&mut claims, &state);
    let at = |seconds: u64| START + Duration::from_secs(seconds);
    claims.step(START, &state, ClaimEvent::Granted(grantee(1, 7), at(1)));
    let until = |claims: &Claims, state: &State| {
        claims.told_of(state).get(&WEB).map(|lease| (lease.until, lease.announced))
    };
    assert_eq!(until(&claims, &state), Some((at(1), Some(1))));
    claims.step(START, &state, ClaimEvent::Taken(WEB, Epoch(1)));
    assert!(until(&claims, &state).is_some_and(|(until, _)| until > at(3)), "its guard is slow");
    let mut later = state.clone();
    move_to(&mut later, WEB, 1);
    assert_eq!(until(&claims, &later), None);
    // Once it was open and expired its lease is over, and nothing else is waited for.
    sync(&mut claims, &state);
    notice(&mut claims, GuardNotice::Prepared { vip: WEB, epoch: Epoch(1) });
    claims.step(START, &state, ClaimEvent::Granted(grantee(1, 7), at(2)));
    notice(&mut claims, GuardNotice::Opened { vip: WEB, epoch: Epoch(1) });
    assert_eq!(until(&claims, &state), Some((at(2), Some(1))));
    notice(&mut claims, GuardNotice::Expired { vip: WEB, epoch: Epoch(1) });
    let over = until(&claims, &state);
    assert!(over.is_none_or(|(until, _)| until < START), "{over:?}");
}

/// The guard hears nothing of a VIP before whoever has to know where it is does.
#[test]
fn somebody_is_told_before_the_guard_is() {
    let state = called();
    let mut claims = claims();
    assert_eq!(sync(&mut claims, &state), [ClaimAction::AskNow]);
    assert_eq!((claims.seeking(), claims.waiting()), (vec![grantee(1, 7)], vec![]));
    let at = |seconds: u64| START + Duration::from_secs(seconds);
    let granted = |claims: &mut Claims, until| {
        claims.step(START, &state, ClaimEvent::Granted(grantee(1, 7), until))
    };
    assert_eq!(granted(&mut claims, at(1)), [], "the gate stays shut");
    assert_eq!(granted(&mut claims, at(2)), []);
    assert_eq!(claims.taking(), [(WEB, (Epoch(1), at(2)))].into());
    assert_eq!((claims.seeking(), claims.taking_by()), (vec![], vec![grantee(1, 7)]));
    assert!(claims.renewals().is_empty() && claims.cover().is_empty(), "it is in no set");
    let other = ClaimEvent::Taken(WEB, Epoch(2));
    claims.step(START, &state, other);
    assert_eq!(claims.taking().len(), 1, "a word about another epoch");
    claims.step(START, &state, ClaimEvent::Taken(WEB, Epoch(1)));
    assert_eq!((claims.taking().len(), claims.taking_by()), (0, vec![]));
    // Until it answers nobody is to think that its lease is over.
    let lease = CalledLease { epoch: Epoch(1), until: at(2), open: false, announced: None };
    assert_eq!(claims.told_of(&state), [(WEB, lease)].into());
    assert_eq!(sync(&mut claims, &state), [prepare(1)]);
    assert_eq!(sync(&mut claims, &state), []);
    assert_eq!(claims.told_of(&state), [(WEB, lease)].into());
    notice(&mut claims, GuardNotice::Prepared { vip: WEB, epoch: Epoch(1) });
    assert_eq!(claims.waiting(), [grantee(1, 7)], "and now it is as any other");
    assert_eq!(claims.told_of(&state), [(WEB, lease)].into());
    granted(&mut claims, at(3));
    assert_eq!(claims.told_of(&state).len(), 1);
    notice(&mut claims, GuardNotice::Opened { vip: WEB, epoch: Epoch(1) });
    let open = CalledLease { until: at(3), open: true, ..lease };
    assert_eq!(claims.told_of(&state), [(WEB, open)].into());
}

#[test]
fn what_nobody_takes_from_this_node_goes_to_another() {
    let mut state = called();
    let mut claims = claims();
    sync(&mut claims, &state);
    let why = Obstacle { ip: [10, 0, 0, 100].into(), why: Why::NotTaken("no permission".into()) };
    let not = || ClaimEvent::NotTaken(WEB, Epoch(1), why.clone());
    assert_eq!(claims.step(START, &state, not()), [], "nobody was told yet");
    claims.step(START, &state, ClaimEvent::Granted(grantee(1, 7), START));
    // The guard never heard of it, and is to refuse this epoch from now on.
    assert_eq!(claims.step(START, &state, not()), [release(1)]);
    assert_eq!((claims.releases(), claims.unable(START)), (vec![], vec![WEB]));
    let released = GuardNotice::Released { vip: WEB, epoch: Epoch(1) };
    assert_eq!(notice(&mut claims, released), [ClaimAction::ReportNow]);
    assert_eq!(claims.releases(), [grantee(1, 7)]);
    assert_eq!(claims.obstacles(), [(WEB, why.clone())].into());
    notice(&mut claims, GuardNotice::TryAgain);
    assert_eq!(claims.unable(START), [WEB], "the host says nothing of that");
    // From whoever has it moved it is not taken again, until somebody says so.
    let mut elsewhere = state.clone();
    move_to(&mut elsewhere, WEB, 2);
    let at = |seconds| START + Duration::from_secs(seconds);
    sync_at(at(60), &mut claims, &elsewhere);
    assert_eq!(claims.unable(at(60)), [], "nobody answers for it");
    let there = vec![Grantee { epoch: Epoch(2), ..grantee(1, 9) }];
    apply(&mut elsewhere, VipOp::Settle { grants: there.clone(), nested: false });
    apply(&mut elsewhere, VipOp::Answered { grants: there });
    sync_at(at(60), &mut claims, &elsewhere);
    assert_eq!(claims.unable(at(60)), [WEB]);
    let name = "web".parse().expect("a name");
    apply(&mut elsewhere, VipOp::Pin { name, to: Some(NodeId(1)) });
    sync_at(at(60), &mut claims, &elsewhere);
    assert_eq!((claims.unable(at(60)), claims.obstacles().len()), (vec![], 0));
    // Assigned elsewhere while somebody is told: that is released as anything else is.
    let mut claims = Claims::new(NodeId(1));
    claims.step(START, &state, ClaimEvent::GuardUp(SESSION));
    sync(&mut claims, &state);
    claims.step(START, &state, ClaimEvent::Granted(grantee(1, 7), START));
    move_to(&mut state, WEB, 2);
    assert_eq!(sync(&mut claims, &state), [release(1)]);
    assert!(claims.taking().is_empty());
}
