mod failing;
mod foreign;
mod joining;
mod lives;
mod shared;

use super::*;
use crate::{Cover, Grantee, Why};
use std::collections::VecDeque;

const START: Mono = Mono(10_000_000_000);
const WEB: VipUid = VipUid(1);
const SESSION: Incarnation = Incarnation(7);

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

fn address(last: u8) -> Address {
    Address { ip: [10, 0, 0, last].into(), prefix: 24, interface: "eth0".into() }
}

fn came(incarnation: Incarnation, cluster: &str) -> GuardEvent {
    GuardEvent::AgentCame { incarnation, cluster: cluster.to_owned() }
}

fn guard(gated: bool) -> Guard {
    let mut guard = Guard::new(Limits { longest_grant: ms(500), gate_to_wire: ms(20), gated });
    assert_eq!(guard.step(START, came(SESSION, "lab")), []);
    guard
}

fn prepare_probing(epoch: u64, probe: Probe) -> GuardEvent {
    let addresses = vec![address(100)];
    let (epoch, known) = (Epoch(epoch), [].into());
    GuardEvent::Order(VipOrder::Prepare { vip: WEB, epoch, addresses, probe, known })
}

fn prepare(epoch: u64) -> GuardEvent {
    prepare_probing(epoch, Probe::No)
}

fn extend(epoch: u64, deadline: Mono) -> GuardEvent {
    let deadlines = vec![(WEB, Epoch(epoch), deadline)];
    GuardEvent::Order(VipOrder::Extend { incarnation: SESSION, deadlines })
}

fn release(epoch: u64) -> GuardEvent {
    GuardEvent::Order(VipOrder::Release { vip: WEB, epoch: Epoch(epoch) })
}

fn gate(deadline: Mono) -> GuardAction {
    gate_of(100, deadline)
}

fn gate_of(last: u8, deadline: Mono) -> GuardAction {
    GuardAction::Gate { ip: address(last).ip, entry: GateEntry::Until(deadline) }
}

fn notify(notice: impl Fn(VipUid, Epoch) -> GuardNotice, epoch: u64) -> GuardAction {
    GuardAction::Notify(notice(WEB, Epoch(epoch)))
}

fn prepared(epoch: u64) -> GuardAction {
    notify(|vip, epoch| GuardNotice::Prepared { vip, epoch }, epoch)
}

fn opened(epoch: u64) -> GuardAction {
    notify(|vip, epoch| GuardNotice::Opened { vip, epoch }, epoch)
}

fn released(epoch: u64) -> GuardAction {
    notify(|vip, epoch| GuardNotice::Released { vip, epoch }, epoch)
}

/// A guard that answers for epoch 3 until 300 ms after the start.
fn open_guard() -> Guard {
    let mut guard = guard(true);
    guard.step(START, prepare(3));
    guard.step(START, extend(3, START + ms(300)));
    guard
}

fn foreign(last: u64) -> GuardEvent {
    GuardEvent::ForeignClaim { ip: address(100).ip, mac: mac(last) }
}

fn mac(last: u64) -> Mac {
    Mac([2, 0, 0, 0, 0, last.to_le_bytes()[0]])
}

fn announce() -> GuardAction {
    GuardAction::Announce(vec![address(100)])
}

fn probe() -> GuardAction {
    GuardAction::Probe(vec![address(100)])
}

fn prepare_all(epoch: u64, last: &[u8]) -> GuardEvent {
    let addresses = last.iter().map(|last| address(*last)).collect();
    let (epoch, probe, known) = (Epoch(epoch), Probe::No, [].into());
    GuardEvent::Order(VipOrder::Prepare { vip: WEB, epoch, addresses, probe, known })
}

fn prepare_only(epoch: u64, last: u8) -> GuardEvent {
    prepare_all(epoch, &[last])
}

fn extend_all(grantees: &[Grantee], deadline: Mono) -> GuardEvent {
    let cover = Cover::of(grantees.iter().copied());
    GuardEvent::Order(VipOrder::ExtendAll { incarnation: SESSION, cover, deadline })
}

fn shared(slot: u32, deadline: Mono) -> GuardAction {
    GuardAction::Deadline { slot: Slot(slot), deadline }
}

fn with(last: u8, slot: u32) -> GuardAction {
    GuardAction::Gate { ip: address(last).ip, entry: GateEntry::With(Slot(slot)) }
}

/// Answers for `web` at epoch 3 and `db` at epoch 1 until 300 ms after the start.
fn open_for_two() -> (Guard, [Grantee; 2]) {
    let mut guard = open_guard();
    let (epoch, probe, known) = (Epoch(1), Probe::No, [].into());
    let prepare = VipOrder::Prepare { vip: DB, epoch, addresses: vec![address(101)], probe, known };
    guard.step(START, GuardEvent::Order(prepare));
    let deadlines = vec![(DB, epoch, START + ms(300))];
    let extend = VipOrder::Extend { incarnation: SESSION, deadlines };
    guard.step(START, GuardEvent::Order(extend));
    (guard, [grantee(WEB, 3), grantee(DB, 1)])
}

fn gate_failed() -> GuardFailure {
    GuardFailure::Gate { ip: address(100).ip, text: "no memory".into() }
}

fn delete_failed() -> GuardFailure {
    GuardFailure::Delete { ip: address(100).ip }
}

/// What is gone on with instead of a word on `web`, which came next; `None`: with that.
fn failed(guard: &mut Guard, failure: &GuardFailure) -> Option<Vec<GuardAction>> {
    let rest = vec![released(3)];
    let then = guard.failed(failure, rest.clone());
    (then != rest).then_some(then)
}

const DB: VipUid = VipUid(2);

fn grantee(vip: VipUid, epoch: u64) -> Grantee {
    Grantee { vip, epoch: Epoch(epoch), incarnation: SESSION }
}

#[test]
fn the_shut_gate_precedes_the_address_and_the_announcement_follows_the_open_gate() {
    let mut guard = guard(true);
    let add = GuardAction::AddAddress(address(100));
    assert_eq!(guard.step(START, prepare(3)), [gate(Mono::ZERO), add, prepared(3)]);
    let deadline = START + ms(300);
    let announce = GuardAction::Announce(vec![address(100)]);
    assert_eq!(guard.step(START, extend(3, deadline)), [gate(deadline), announce, opened(3)]);
    let later = START + ms(340);
    assert_eq!(guard.step(START + ms(40), extend(3, later)), [gate(later)]);
}

#[test]
fn without_a_gate_the_address_comes_only_when_it_may_answer() {
    let mut guard = guard(false);
    assert_eq!(guard.step(START, prepare(3)), [gate(Mono::ZERO), prepared(3)]);
    let actions = guard.step(START, extend(3, START + ms(300)));
    assert_eq!(actions[0], GuardAction::AddAddress(address(100)));
}

#[test]
fn a_passed_deadline_deletes_the_address_and_a_later_one_brings_it_back() {
    let mut guard = open_guard();
    let expiry = START + ms(300);
    let delete = GuardAction::DeleteAddress(address(100));
    let expired = notify(|vip, epoch| GuardNotice::Expired { vip, epoch }, 3);
    let early = guard.step(START + ms(299), GuardEvent::Tick);
    assert!(!early.contains(&delete));
    assert_eq!(guard.step(expiry, GuardEvent::Tick), [gate(Mono::ZERO), delete, expired]);
    assert!(guard.has_expired());
    let again = guard.step(expiry, extend(3, expiry + ms(300)));
    assert!(!guard.has_expired());
    assert_eq!(again[0], GuardAction::AddAddress(address(100)));
    assert!(again.contains(&opened(3)));
}

#[test]
fn a_release_shuts_the_gate_first_and_refuses_the_epoch_for_good() {
    let mut guard = open_guard();
    let delete = GuardAction::DeleteAddress(address(100));
    assert_eq!(guard.step(START, release(3)), [gate(Mono::ZERO), delete, released(3)]);
    assert_eq!(guard.step(START, extend(3, START + ms(300))), []);
    let why = GuardRefusal::Ended(Epoch(3));
    let refused = GuardNotice::Refused { vip: WEB, epoch: Epoch(3), why };
    assert_eq!(guard.step(START, prepare(3)), [GuardAction::Notify(refused)]);
    assert!(guard.step(START, prepare(4)).contains(&prepared(4)));
}

#[test]
fn a_late_release_of_an_old_epoch_does_not_touch_the_new_one() {
    let mut guard = open_guard();
    assert_eq!(guard.step(START, release(2)), [released(2)]);
    assert_eq!(guard.phase(WEB), Some((Epoch(3), Phase::Open)));
}

#[test]
fn a_lower_epoch_and_another_sessions_grant_are_refused() {
    let mut guard = open_guard();
    let actions = guard.step(START, prepare(2));
    assert!(matches!(actions[..], [GuardAction::Notify(GuardNotice::Refused { .. })]));
    let deadlines = vec![(WEB, Epoch(3), START + ms(400))];
    let foreign = VipOrder::Extend { incarnation: Incarnation(8), deadlines };
    assert_eq!(guard.step(START, GuardEvent::Order(foreign)), []);
}

#[test]
fn when_the_agent_goes_every_gate_is_shut_before_any_address_is_deleted() {
    let mut guard = open_guard();
    let addresses = vec![address(101)];
    let vip = VipUid(2);
    let (epoch, probe, known) = (Epoch(1), Probe::No, [].into());
    let other = VipOrder::Prepare { vip, epoch, addresses, probe, known };
    guard.step(START, GuardEvent::Order(other));
    let kinds: Vec<_> = guard
        .step(START, GuardEvent::AgentGone)
        .iter()
        .map(|a| matches!(a, GuardAction::Gate { entry: SHUT, .. }))
        .collect();
    assert_eq!(kinds, [true, true, false, false]);
    guard.step(START, came(Incarnation(8), "lab"));
    let actions = guard.step(START, prepare(3));
    assert!(matches!(actions[..], [GuardAction::Notify(GuardNotice::Refused { .. })]));
}

#[test]
fn no_deadline_reaches_further_than_the_guards_own_limit() {
    let mut guard = open_guard();
    let actions = guard.step(START, extend(3, START + ms(10_000)));
    assert_eq!(actions, [gate(START + ms(500))]);
}

#[test]
fn a_deadline_can_be_moved_back() {
    let mut guard = open_guard();
    assert_eq!(guard.step(START, extend(3, START + ms(100))), [gate(START + ms(100))]);
    let actions = guard.step(START + ms(100), GuardEvent::Tick);
    assert!(actions.contains(&GuardAction::DeleteAddress(address(100))));
}

#[test]
fn an_address_that_something_else_deleted_comes_back_and_is_announced() {
    let mut guard = open_guard();
    let gone = GuardEvent::AddressGone(address(100).ip);
    let add = GuardAction::AddAddress(address(100));
    assert_eq!(guard.step(START + ms(50), gone.clone()), [add]);
    let actions = guard.step(START + ms(50), GuardEvent::Tick);
    assert!(actions.contains(&GuardAction::Announce(vec![address(100)])));
    guard.step(START, release(3));
    assert_eq!(guard.step(START, gone), []);
}

/// Only what may answer, or is kept silent by the gate.
#[test]
fn an_address_comes_back_only_where_it_is_to_be_there() {
    let gone = || GuardEvent::AddressGone(address(100).ip);
    let add = || GuardAction::AddAddress(address(100));
    let deadline = START + ms(300);
    assert_eq!(open_guard().step(deadline - ms(1), gone()), [add()]);
    assert_eq!(open_guard().step(deadline, gone()), [], "it has run out");
    let mut guard = guard(true);
    guard.step(START, prepare(3));
    assert_eq!(guard.step(START, gone()), [add()], "the gate keeps it silent");
    let mut guard = self::guard(false);
    guard.step(START, prepare(3));
    assert_eq!(guard.step(START, gone()), [], "nothing would");
}

#[test]
fn a_refused_address_ends_the_epoch_here() {
    let mut guard = guard(true);
    guard.step(START, prepare(3));
    let refused =
        GuardEvent::AddressRefused(Obstacle { ip: address(100).ip, why: Why::NotAllowed });
    let actions = guard.step(START, refused);
    assert!(matches!(actions.last(), Some(GuardAction::Notify(GuardNotice::Refused { .. }))));
    assert_eq!(guard.phase(WEB), None);
}
