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

#[test]
fn a_foreign_claim_is_answered_once_in_ten_seconds() {
    let mut guard = open_guard();
    assert_eq!(guard.step(START, foreign(9)), [conflict(9), announce()]);
    for at in 1..1000 {
        assert_eq!(guard.step(START + ms(at), foreign(at)), [], "a flood costs nothing more");
    }
    guard.step(START + ms(290), extend(3, START + ms(400)));
    let mut guard = open_guard();
    guard.step(START, foreign(9));
    for at in (300..10_000).step_by(300) {
        guard.step(START + ms(at - 10), extend(3, START + ms(at + 300)));
    }
    assert_eq!(guard.step(START + ms(9_999), foreign(9)), [conflict(9)]);
    assert_eq!(guard.step(START + ms(10_000), foreign(9)), [announce()]);
}

/// Its answer is repeated after 10 ms, however long nothing else was due.
#[test]
fn an_answer_to_a_foreign_claim_brings_the_next_tick_near() {
    let mut guard = open_guard();
    for at in (0..6_000).step_by(100) {
        guard.step(START + ms(at), extend(3, START + ms(at + 300)));
        guard.step(START + ms(at), GuardEvent::Tick);
    }
    let now = START + ms(6_000);
    guard.step(now, GuardEvent::Tick);
    assert!(guard.next_tick().is_some_and(|at| at > now + ms(100)));
    assert_eq!(guard.step(now, foreign(9)), [conflict(9), announce()]);
    assert_eq!(guard.next_tick(), Some(now + ms(10)));
}

/// Renewals put deadlines off without a look at each claim. A tick that comes too
/// early by that does nothing, and is not due again at once.
#[test]
fn an_early_tick_finds_when_the_next_is_due() {
    let (mut guard, all) = open_for_two();
    for at in (0..6_100).step_by(100) {
        guard.step(START + ms(at), extend_all(&all, START + ms(at + 300)));
        guard.step(START + ms(at), GuardEvent::Tick);
    }
    guard.step(START + ms(6_150), extend_all(&all, START + ms(6_450)));
    let early = guard.next_tick().expect("it holds");
    assert_eq!(early, START + ms(6_300));
    assert_eq!(guard.step(early, GuardEvent::Tick), []);
    assert_eq!(guard.next_tick(), Some(START + ms(6_450)));
}

fn foreign(last: u64) -> GuardEvent {
    GuardEvent::ForeignClaim { ip: address(100).ip, mac: mac(last) }
}

fn mac(last: u64) -> Mac {
    Mac([2, 0, 0, 0, 0, last.to_le_bytes()[0]])
}

fn conflict(last: u64) -> GuardAction {
    notify(
        |vip, epoch| GuardNotice::Conflict { vip, epoch, ip: address(100).ip, mac: mac(last) },
        3,
    )
}

fn announce() -> GuardAction {
    GuardAction::Announce(vec![address(100)])
}

fn probe() -> GuardAction {
    GuardAction::Probe(vec![address(100)])
}

#[test]
fn nothing_is_on_the_host_before_the_last_probe_had_time_to_be_answered() {
    let mut guard = guard(true);
    assert_eq!(guard.step(START, prepare_probing(3, Probe::Before)), [probe()]);
    assert_eq!((guard.wanted_addresses(), guard.gate_entries()), (vec![], vec![]));
    assert_eq!(guard.step(START, extend(3, START + ms(300))), [], "nobody asked for it yet");
    for at in [10, 20] {
        assert_eq!(guard.next_tick(), Some(START + ms(at)));
        assert_eq!(guard.step(START + ms(at), GuardEvent::Tick), [probe()]);
    }
    assert_eq!(guard.step(START + ms(29), GuardEvent::Tick), []);
    let add = GuardAction::AddAddress(address(100));
    let ready = [gate(Mono::ZERO), add, prepared(3)];
    assert_eq!(guard.step(START + ms(30), GuardEvent::Tick), ready);
}

#[test]
fn who_answers_a_probe_is_told_and_who_says_so_unasked_is_not() {
    let mut asks = guard(true);
    asks.step(START, prepare_probing(3, Probe::Before));
    assert_eq!(asks.step(START + ms(1), foreign(9)), [conflict(9)]);
    let mut waits = guard(true);
    let actions = waits.step(START, prepare_probing(3, Probe::Beside));
    assert_eq!(actions[2..], [prepared(3), probe()], "nothing waits for an answer");
    assert_eq!(waits.step(START + ms(1), foreign(9)), [conflict(9)]);
    let mut knows = guard(true);
    knows.step(START, prepare(3));
    assert_eq!(knows.step(START + ms(1), foreign(9)), [], "the holder before answers still");
}

/// The old holder may die and another take over while the lease of the first is
/// waited for.
#[test]
fn a_first_claim_is_probed_for_until_it_answers() {
    for probe_ in [Probe::Before, Probe::Always] {
        let mut guard = guard(true);
        guard.step(START, prepare_probing(3, probe_));
        for at in [10, 20, 30] {
            guard.step(START + ms(at), GuardEvent::Tick);
        }
        let mut probed = vec![];
        for at in 31..400 {
            if guard.step(START + ms(at), GuardEvent::Tick).contains(&probe()) {
                probed.push(at);
            }
        }
        assert_eq!(probed, [80, 130, 180, 230, 280, 330, 380]);
        assert_eq!(guard.step(START + ms(399), foreign(9)), [conflict(9)]);
    }
}

#[test]
fn one_that_watches_lets_go_rather_than_hold_out() {
    let mut guard = guard(true);
    guard.step(START, prepare_probing(3, Probe::Always));
    for at in [10, 20, 30] {
        guard.step(START + ms(at), GuardEvent::Tick);
    }
    guard.step(START + ms(40), extend(3, START + ms(300)));
    assert_eq!(guard.step(START + ms(41), GuardEvent::Tick), [probe()]);
    assert_eq!(guard.step(START + ms(42), foreign(9)), [conflict(9)], "no announcement");
    assert!(guard.step(START + ms(241), GuardEvent::Tick).contains(&probe()));
}

#[test]
fn of_many_that_are_ready_each_is_made_so_by_itself() {
    let mut guard = guard(true);
    for (vip, last) in [(1, 101), (2, 102)] {
        let (vip, addresses) = (VipUid(vip), vec![address(last)]);
        let (epoch, probe, known) = (Epoch(1), Probe::Before, [].into());
        let order = VipOrder::Prepare { vip, epoch, addresses, probe, known };
        guard.step(START, GuardEvent::Order(order));
    }
    for at in [10, 20] {
        guard.step(START + ms(at), GuardEvent::Tick);
    }
    // What the kernel refuses of one ends its list of actions.
    for last in [101, 102] {
        assert_eq!(guard.next_tick(), Some(START + ms(30)));
        let actions = guard.step(START + ms(30), GuardEvent::Tick);
        let added = |a: &GuardAction| matches!(a, GuardAction::AddAddress(_));
        let added: Vec<_> = actions.iter().filter(|a| added(a)).collect();
        assert_eq!(added, [&GuardAction::AddAddress(address(last))]);
    }
}

#[test]
fn a_link_that_comes_back_is_announced_on_and_told() {
    let mut guard = open_guard();
    let announce = GuardAction::Announce(vec![address(100)]);
    let told = GuardAction::Notify(GuardNotice::TryAgain);
    assert_eq!(guard.step(START + ms(10), GuardEvent::LinkBack), [announce, told]);
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

#[test]
fn an_address_leaves_the_gate_once_it_is_certainly_gone() {
    let mut guard = open_guard();
    let (ip, gone) = (address(100).ip, GuardEvent::AddressDeleted(address(100).ip));
    // Expired, it is still claimed here.
    guard.step(START + ms(300), GuardEvent::Tick);
    assert_eq!(guard.step(START + ms(300), gone.clone()), []);
    guard.step(START + ms(300), release(3));
    assert_eq!(guard.departed(), [ip]);
    assert_eq!(guard.step(START + ms(300), gone), [GuardAction::Forget(ip)]);
    assert_eq!(guard.departed(), Vec::<IpAddr>::new());
}

#[test]
fn a_shut_gate_or_a_deleted_address_is_enough_for_a_release() {
    let mut guard = open_guard();
    guard.step(START, release(3));
    assert_eq!(failed(&mut guard, &delete_failed()), None, "the gate is shut");
    let mut guard = open_guard();
    guard.step(START, release(3));
    assert_eq!(failed(&mut guard, &gate_failed()), None, "it is deleted next");
    assert!(guard.is_silent());
}

#[test]
fn a_release_is_told_only_when_the_last_deadline_has_passed_if_the_kernel_refuses_both() {
    let mut guard = open_guard();
    guard.step(START, extend(3, START + ms(100)));
    guard.step(START, release(3));
    assert_eq!(failed(&mut guard, &gate_failed()), None);
    assert_eq!(failed(&mut guard, &delete_failed()), Some(vec![]), "nobody is told");
    assert!(!guard.is_silent());
    assert_eq!(guard.step(START, release(3)), [], "asked again, it still is not");
    // The deadline before the last one may be the one that stands.
    assert_eq!(guard.next_tick(), Some(START + ms(320)));
    assert_eq!(guard.step(START + ms(319), GuardEvent::Tick), []);
    assert_eq!(guard.step(START + ms(320), GuardEvent::Tick), [released(3)]);
    assert!(guard.is_silent());
}

/// That it was released nobody waits to hear any more.
#[test]
fn what_the_agent_before_waited_for_is_not_told_to_the_next() {
    let mut guard = open_guard();
    guard.step(START, release(3));
    failed(&mut guard, &gate_failed());
    failed(&mut guard, &delete_failed());
    guard.step(START, GuardEvent::AgentGone);
    assert_eq!(guard.step(START + ms(320), GuardEvent::Tick), []);
    assert!(guard.is_silent());
}

/// It would take what the session before held for silent.
#[test]
fn no_agent_is_welcome_before_the_last_deadline_if_the_kernel_refuses_both() {
    let mut guard = open_guard();
    guard.step(START, GuardEvent::AgentGone);
    assert!(guard.is_silent());
    failed(&mut guard, &gate_failed());
    failed(&mut guard, &delete_failed());
    assert!(!guard.is_silent());
    assert_eq!(guard.next_tick(), Some(START + ms(320)), "and the way to the wire");
    guard.step(START + ms(319), GuardEvent::Tick);
    assert!(!guard.is_silent());
    guard.step(START + ms(320), GuardEvent::Tick);
    assert!(guard.is_silent());
}

#[test]
fn a_lingering_address_that_is_deleted_after_all_ends_the_wait() {
    let mut guard = open_guard();
    guard.step(START, release(3));
    failed(&mut guard, &gate_failed());
    failed(&mut guard, &delete_failed());
    let ip = address(100).ip;
    let told = guard.step(START, GuardEvent::AddressDeleted(ip));
    assert_eq!(told, [released(3), GuardAction::Forget(ip)]);
}

#[test]
fn a_gate_that_does_not_take_a_deadline_ends_the_epoch_here() {
    let mut guard = open_guard();
    let instead = failed(&mut guard, &gate_failed()).expect("not as if nothing had happened");
    assert_eq!(instead[..2], [gate(Mono::ZERO), GuardAction::DeleteAddress(address(100))]);
    assert!(matches!(instead[2], GuardAction::Notify(GuardNotice::Refused { .. })));
    assert_eq!(guard.phase(WEB), None);
}

#[test]
fn without_a_gate_an_address_that_is_not_deleted_is_not_released() {
    let mut guard = guard(false);
    guard.step(START, prepare(3));
    guard.step(START, extend(3, START + ms(300)));
    guard.step(START, release(3));
    assert_eq!(failed(&mut guard, &delete_failed()), Some(vec![]));
    assert_eq!(guard.step(START + ms(9000), GuardEvent::Tick), []);
    let told = guard.step(START, GuardEvent::AddressDeleted(address(100).ip));
    assert_eq!(told[0], released(3));
}

#[test]
fn epochs_of_another_cluster_are_not_refused() {
    let mut guard = open_guard();
    guard.step(START, release(22));
    guard.step(START, GuardEvent::AgentGone);
    guard.step(START, came(Incarnation(8), "another"));
    assert!(guard.step(START, prepare(1)).contains(&prepared(1)));
}

fn prepare_all(epoch: u64, last: &[u8]) -> GuardEvent {
    let addresses = last.iter().map(|last| address(*last)).collect();
    let (epoch, probe, known) = (Epoch(epoch), Probe::No, [].into());
    GuardEvent::Order(VipOrder::Prepare { vip: WEB, epoch, addresses, probe, known })
}

/// There before it answers, and with the deadline that the others have.
#[test]
fn an_address_joins_a_claim_and_nothing_else_of_it_changes() {
    let mut guard = open_guard();
    let at = START + ms(10);
    let actions = guard.step(at, prepare_all(3, &[100, 101]));
    let deadline = START + ms(300);
    let expected = [
        gate_of(101, Mono::ZERO),
        GuardAction::AddAddress(address(101)),
        gate_of(101, deadline),
        GuardAction::Announce(vec![address(100), address(101)]),
        prepared(3),
    ];
    assert_eq!(actions, expected);
    assert_eq!(guard.phase(WEB), Some((Epoch(3), Phase::Open)));
    let actions = guard.step(at, extend(3, deadline + ms(10)));
    assert_eq!(actions.len(), 2, "both are renewed: {actions:?}");
    let actions = guard.step(deadline + ms(10), GuardEvent::Tick);
    assert!(actions.contains(&GuardAction::DeleteAddress(address(101))), "{actions:?}");
}

/// The guest that had it is on its way out: what is there stays, the rest comes
/// when it is asked for again.
#[test]
fn an_address_that_another_claim_has_joins_when_that_is_gone() {
    let mut guard = open_guard();
    let guest = VipUid(2);
    let (epoch, probe, known) = (Epoch(1), Probe::No, [].into());
    let addresses = vec![address(101)];
    let order = VipOrder::Prepare { vip: guest, epoch, addresses, probe, known };
    guard.step(START, GuardEvent::Order(order));
    let actions = guard.step(START, prepare_all(3, &[100, 101]));
    let why = GuardRefusal::InUse(address(101).ip);
    let refused = GuardNotice::Refused { vip: WEB, epoch: Epoch(3), why };
    assert_eq!(actions, [GuardAction::Notify(refused)]);
    assert_eq!(guard.phase(WEB), Some((Epoch(3), Phase::Open)));
    guard.step(START, GuardEvent::Order(VipOrder::Release { vip: guest, epoch }));
    guard.step(START, GuardEvent::AddressDeleted(address(101).ip));
    assert!(guard.step(START, prepare_all(3, &[100, 101])).contains(&prepared(3)));
}

/// Less than it has is another claim: everything is let go of first.
#[test]
fn what_gives_up_an_address_begins_anew() {
    let mut guard = open_guard();
    guard.step(START, prepare_all(3, &[100, 101]));
    let actions = guard.step(START, prepare_all(3, &[100]));
    let deleted = |last| GuardAction::DeleteAddress(address(last));
    assert!(actions.contains(&deleted(100)) && actions.contains(&deleted(101)), "{actions:?}");
    assert_eq!(guard.phase(WEB), Some((Epoch(3), Phase::Prepared)));
}

/// What the kernel and the gate are to have, phase by phase.
#[test]
fn what_is_to_be_there_follows_the_phase() {
    for gated in [true, false] {
        let mut guard = guard(gated);
        let there = |guard: &Guard| (guard.wanted_addresses(), guard.gate_entries());
        let (all, ip) = (vec![address(100)], address(100).ip);
        let shut = vec![(ip, Mono::ZERO)];
        guard.step(START, prepare_probing(3, Probe::Before));
        assert_eq!(there(&guard), (vec![], vec![]), "asked for");
        let mut guard = self::guard(gated);
        guard.step(START, prepare(3));
        let ready = if gated { all.clone() } else { vec![] };
        assert_eq!(there(&guard), (ready, shut.clone()), "ready");
        guard.step(START, extend(3, START + ms(300)));
        assert_eq!(there(&guard), (all, vec![(ip, START + ms(300))]), "open");
        guard.step(START + ms(300), GuardEvent::Tick);
        assert_eq!(there(&guard), (vec![], shut), "expired");
        guard.step(START + ms(300), release(3));
        assert_eq!(there(&guard), (vec![], vec![]), "released");
    }
}

#[test]
fn what_is_ordered_again_is_confirmed_and_not_done_again() {
    let mut guard = guard(true);
    guard.step(START, prepare_probing(3, Probe::Before));
    assert_eq!(guard.step(START, prepare_probing(3, Probe::Before)), [], "it is asked for still");
    let mut guard = open_guard();
    assert_eq!(guard.step(START, prepare(3)), [prepared(3)]);
    assert_eq!(guard.phase(WEB), Some((Epoch(3), Phase::Open)));
    // A probe that was due when it became ready readies nothing twice.
    let mut guard = self::guard(true);
    guard.step(START, prepare_probing(3, Probe::Beside));
    for at in 0..2000 {
        assert!(!guard.step(START + ms(at), GuardEvent::Tick).contains(&prepared(3)), "{at}");
    }
}

fn prepare_only(epoch: u64, last: u8) -> GuardEvent {
    prepare_all(epoch, &[last])
}

fn refused_as(epoch: u64, why: GuardRefusal) -> Vec<GuardAction> {
    let notice = GuardNotice::Refused { vip: WEB, epoch: Epoch(epoch), why };
    vec![GuardAction::Notify(notice)]
}

/// The claim before is gone whatever comes of the next one; its epoch is over if
/// the next is a later one, and may be tried again if it is the same.
#[test]
fn what_a_refused_claim_replaced_is_over_if_it_was_earlier() {
    for (next, over) in [(4, true), (3, false)] {
        let mut guard = open_guard();
        let addresses = vec![address(101)];
        let (vip, epoch, probe, known) = (VipUid(2), Epoch(1), Probe::No, [].into());
        let other = VipOrder::Prepare { vip, epoch, addresses, probe, known };
        guard.step(START, GuardEvent::Order(other));
        let actions = guard.step(START, prepare_only(next, 101));
        let in_use = refused_as(next, GuardRefusal::InUse(address(101).ip));
        assert_eq!(actions[actions.len() - 1..], in_use);
        assert_eq!(guard.phase(WEB), None);
        let again = guard.step(START, prepare(3));
        match over {
            true => assert_eq!(again, refused_as(3, GuardRefusal::Ended(Epoch(3)))),
            false => assert!(again.contains(&prepared(3)), "{again:?}"),
        }
    }
}

/// An address that another claim has, and one that is on its way out, are each
/// enough to wait for.
#[test]
fn an_address_that_lingers_is_in_use() {
    let mut guard = open_guard();
    guard.step(START, release(3));
    assert!(failed(&mut guard, &gate_failed()).is_none());
    assert_eq!(failed(&mut guard, &delete_failed()), Some(vec![]));
    let addresses = vec![address(100)];
    let (vip, epoch, probe, known) = (VipUid(2), Epoch(1), Probe::No, [].into());
    let other = VipOrder::Prepare { vip, epoch, addresses, probe, known };
    let actions = guard.step(START, GuardEvent::Order(other));
    let why = GuardRefusal::InUse(address(100).ip);
    let refused = GuardNotice::Refused { vip, epoch, why };
    assert_eq!(actions, [GuardAction::Notify(refused)]);
}

/// A new address is there as soon as the others are, and no earlier.
#[test]
fn an_address_joins_as_far_as_the_others_are() {
    let grown = prepare_all(3, &[100, 101]);
    let adds = |actions: &[GuardAction]| {
        actions.iter().any(|action| *action == GuardAction::AddAddress(address(101)))
    };
    let opens = |actions: &[GuardAction]| {
        let ip = address(101).ip;
        let open = |a: &GuardAction| matches!(a, GuardAction::Gate { ip: of, entry } if *of == ip && *entry != SHUT);
        actions.iter().any(open)
    };
    let mut gated = guard(true);
    gated.step(START, prepare(3));
    let actions = gated.step(START, grown.clone());
    assert_eq!((adds(&actions), opens(&actions)), (true, false), "ready, behind a gate");
    let mut ungated = guard(false);
    ungated.step(START, prepare(3));
    let actions = ungated.step(START, grown.clone());
    assert_eq!((adds(&actions), opens(&actions)), (false, false), "ready, without a gate");
    let mut open = open_guard();
    let actions = open.step(START + ms(299), grown.clone());
    assert_eq!((adds(&actions), opens(&actions)), (true, true), "it answers");
    // The deadline passed, and the guard did not look yet.
    let mut open = open_guard();
    let actions = open.step(START + ms(300), grown);
    assert_eq!((adds(&actions), opens(&actions)), (false, false), "its time is over");
}

/// A deadline that passed on its way: an open gate shuts, a shut one stays so.
#[test]
fn a_deadline_that_comes_too_late_shuts() {
    let now = START + ms(50);
    let mut guard = open_guard();
    assert_eq!(guard.step(now, extend(3, START + ms(40))), []);
    let expired = notify(|vip, epoch| GuardNotice::Expired { vip, epoch }, 3);
    assert!(guard.step(now, GuardEvent::Tick).contains(&expired));
    let mut guard = self::guard(true);
    guard.step(START, prepare(3));
    for late in [START + ms(40), now] {
        assert_eq!(guard.step(now, extend(3, late)), []);
        assert_eq!(guard.phase(WEB), Some((Epoch(3), Phase::Prepared)));
    }
    // Nor does a grant for what is asked for still open it.
    let mut guard = self::guard(true);
    guard.step(START, prepare_probing(3, Probe::Before));
    assert_eq!(guard.step(START, extend(3, START + ms(300))), []);
    assert_eq!(guard.phase(WEB), Some((Epoch(3), Phase::Probing)));
}

const DB: VipUid = VipUid(2);

fn grantee(vip: VipUid, epoch: u64) -> Grantee {
    Grantee { vip, epoch: Epoch(epoch), incarnation: SESSION }
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

const OTHER: GuardAction = GuardAction::Notify(GuardNotice::OtherCover);

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

#[test]
fn what_is_open_is_extended_by_one_write_once_it_shares_a_deadline() {
    let (mut guard, all) = open_for_two();
    let actions = guard.step(START + ms(40), extend_all(&all, START + ms(340)));
    assert_eq!(actions, [shared(1, START + ms(340)), with(100, 1), with(101, 1)]);
    let actions = guard.step(START + ms(80), extend_all(&all, START + ms(380)));
    assert_eq!(actions, [shared(1, START + ms(380))]);
    // It is what decides: both expire by it, and not before.
    assert_eq!(guard.next_tick().map(|at| at <= START + ms(380)), Some(true));
    guard.step(START + ms(379), GuardEvent::Tick);
    assert_eq!(guard.phase(DB), Some((Epoch(1), Phase::Open)));
    let actions = guard.step(START + ms(380), GuardEvent::Tick);
    assert!(actions.contains(&gate(Mono::ZERO)) && actions.contains(&gate_of(101, Mono::ZERO)));
    assert_eq!(guard.phase(WEB), Some((Epoch(3), Phase::Expired)));
}

/// Renewed by its name alone, it is looked at again after whatever may change it.
#[test]
fn what_changes_between_two_renewals_is_noticed_by_the_next() {
    let settled = || {
        let (mut guard, all) = open_for_two();
        for at in [40, 80] {
            guard.step(START + ms(at), extend_all(&all, START + ms(at + 300)));
        }
        (guard, all)
    };
    // Whatever comes; but what strangers send costs no look at everything.
    for event in [prepare_only(1, 102), GuardEvent::Confirmed, GuardEvent::HostChanged] {
        let (mut guard, _) = settled();
        guard.step(START + ms(90), event);
        assert_eq!(guard.common.settled, None);
    }
    let (mut guard, all) = settled();
    guard.step(START + ms(90), foreign(9));
    guard.step(START + ms(90), GuardEvent::Tick);
    assert_eq!(guard.common.settled, Some(Cover::of(all)));

    let now = START + ms(120);
    let renewed =
        |(mut guard, all): (Guard, [Grantee; 2])| guard.step(now, extend_all(&all, now + ms(300)));
    assert_eq!(renewed(settled()), [shared(1, now + ms(300))]);
    let (mut released, all) = settled();
    released.step(START + ms(90), release(3));
    assert_eq!(renewed((released, all)), [OTHER]);
    let (mut refused, all) = settled();
    assert!(failed(&mut refused, &gate_failed()).is_some());
    assert_eq!(renewed((refused, all)), [OTHER]);
    let (mut moved, all) = settled();
    moved.step(START + ms(90), extend(3, START + ms(300)));
    assert_eq!(renewed((moved, all)), [shared(1, now + ms(300)), with(100, 1)]);
    let (mut other, all) = settled();
    other.step(START + ms(90), came(Incarnation(8), "lab"));
    assert_eq!(renewed((other, all)), []);
    // No tick came since it ran out, or one did.
    for looked_at in [false, true] {
        let (mut expired, all) = settled();
        let late = START + ms(380);
        if looked_at {
            expired.step(late, GuardEvent::Tick);
        }
        assert_eq!(expired.step(late, extend_all(&all, late + ms(300))), [OTHER]);
    }
}

/// A VIP that the leader does not count is not kept open by its neighbours, and none
/// that it counts is kept open by a grant for fewer.
#[test]
fn a_grant_for_another_set_extends_nothing() {
    let (mut guard, all) = open_for_two();
    let now = START + ms(40);
    let stranger = Grantee { incarnation: Incarnation(8), ..all[1] };
    let earlier = grantee(WEB, 2);
    for set in [&all[..1], &[], &[all[0], stranger], &[earlier, all[1]]] {
        assert_eq!(guard.step(now, extend_all(set, START + ms(340))), [OTHER]);
    }
    let foreign = VipOrder::ExtendAll {
        incarnation: Incarnation(8),
        cover: Cover::of(all),
        deadline: START + ms(340),
    };
    assert_eq!(guard.step(now, GuardEvent::Order(foreign)), []);
    // What has run out is open no more, looked at or not.
    let late = START + ms(300);
    assert_eq!(guard.step(late, extend_all(&all, late + ms(300))), [OTHER]);
}

/// There are so many, and the kernel has no more.
#[test]
fn a_slot_that_there_is_not_is_never_written() {
    let (mut guard, all) = open_for_two();
    guard.step(START, extend_all(&all, START + ms(300)));
    (0..=SLOTS).for_each(|_| guard.common.retire());
    guard.common.unsettle();
    assert_eq!(guard.step(START, extend_all(&all, START + ms(300))), [OTHER]);
    let shared = |action: &GuardAction| matches!(action, GuardAction::Deadline { .. });
    let actions = guard.step(START, GuardEvent::AgentGone);
    assert!(!actions.is_empty() && !actions.iter().any(shared), "{actions:?}");
}

/// All that it names learns that it is over, though each had longer by itself.
#[test]
fn a_grant_for_all_that_comes_too_late_shuts_all() {
    let (mut guard, all) = open_for_two();
    let now = START + ms(40);
    assert_eq!(guard.step(now, extend_all(&all, now)), []);
    guard.step(now, GuardEvent::Tick);
    assert_eq!(guard.phase(WEB), Some((Epoch(3), Phase::Expired)));
    assert_eq!(guard.phase(DB), Some((Epoch(1), Phase::Expired)));
}

#[test]
fn one_vip_is_shut_at_once_and_the_others_go_on() {
    let (mut guard, all) = open_for_two();
    guard.step(START + ms(40), extend_all(&all, START + ms(340)));
    let delete = GuardAction::DeleteAddress(address(100));
    let actions = guard.step(START + ms(50), release(3));
    assert_eq!(actions, [gate(Mono::ZERO), delete, released(3)]);
    let actions = guard.step(START + ms(80), extend_all(&all[1..], START + ms(380)));
    assert_eq!(actions, [shared(1, START + ms(380))]);
}

#[test]
fn a_deadline_of_its_own_takes_a_vip_out_of_the_shared_one() {
    let (mut guard, all) = open_for_two();
    guard.step(START + ms(40), extend_all(&all, START + ms(340)));
    let earlier = START + ms(200);
    assert_eq!(guard.step(START + ms(50), extend(3, earlier)), [gate(earlier)]);
    guard.step(earlier, GuardEvent::Tick);
    assert_eq!(guard.phase(WEB), Some((Epoch(3), Phase::Expired)));
    assert_eq!(guard.phase(DB), Some((Epoch(1), Phase::Open)));
    // The gate may have the longer one still, if it took no other.
    let mut guard = open_for_two().0;
    guard.step(START + ms(40), extend_all(&all, START + ms(340)));
    guard.step(START + ms(50), extend(3, earlier));
    guard.step(START + ms(60), release(3));
    assert_eq!(failed(&mut guard, &gate_failed()), None);
    assert_eq!(failed(&mut guard, &delete_failed()), Some(vec![]));
    let silent_at = START + ms(340) + ms(20);
    assert!(!guard.step(silent_at - ms(1), GuardEvent::Tick).contains(&released(3)));
    assert!(guard.step(silent_at, GuardEvent::Tick).contains(&released(3)));
}

#[test]
fn an_address_that_joins_shares_what_the_others_share() {
    let (mut guard, all) = open_for_two();
    guard.step(START + ms(40), extend_all(&all, START + ms(340)));
    let actions = guard.step(START + ms(50), prepare_all(3, &[100, 102]));
    let add = GuardAction::AddAddress(address(102));
    assert_eq!(actions[..3], [gate_of(102, Mono::ZERO), add, with(102, 1)]);
}

/// What the gate did not let go of would be kept open by the others.
#[test]
fn a_slot_with_an_address_that_did_not_shut_is_not_extended_again() {
    let (mut guard, all) = open_for_two();
    guard.step(START + ms(40), extend_all(&all, START + ms(340)));
    guard.step(START + ms(50), release(3));
    assert_eq!(failed(&mut guard, &gate_failed()), None, "deleted, it is silent as well");
    let rest = &all[1..];
    let actions = guard.step(START + ms(80), extend_all(rest, START + ms(380)));
    assert_eq!(actions, [shared(2, START + ms(380)), with(101, 2)]);
    // Again and again: none comes back, as the gate may have what it had in it.
    let mut used = vec![1, 2];
    while let [GuardAction::Deadline { slot, .. }, ..] = {
        failed(&mut guard, &gate_failed());
        guard.step(START + ms(90), extend_all(rest, START + ms(390)))
    }[..]
    {
        assert!(!used.contains(&slot.0), "{used:?}");
        used.push(slot.0);
    }
    assert_eq!(used.len(), SLOTS as usize - 1, "all but the one that is none");
    let late = START + ms(389);
    assert_eq!(guard.step(late, extend_all(rest, START + ms(689))), [OTHER]);
    // What never shared one says nothing about any.
    let (mut guard, all) = open_for_two();
    failed(&mut guard, &GuardFailure::Gate { ip: address(222).ip, text: "full".into() });
    let actions = guard.step(START + ms(40), extend_all(&all, START + ms(340)));
    assert_eq!(actions[0], shared(1, START + ms(340)));
}

/// Its release may be queued behind others; by the next holder's W it is over.
#[test]
fn what_has_run_out_in_the_shared_deadline_is_not_brought_back_by_the_others() {
    let (mut guard, all) = open_for_two();
    guard.step(START + ms(40), extend_all(&all, START + ms(340)));
    guard.step(START + ms(50), extend(3, START + ms(400)));
    // `db` shares a deadline that has passed; no tick came yet.
    let late = START + ms(350);
    assert_eq!(guard.step(late, extend_all(&all[..1], late + ms(300))), [OTHER]);
    guard.step(late, GuardEvent::Tick);
    assert_eq!(guard.phase(DB), Some((Epoch(1), Phase::Expired)));
    let actions = guard.step(late, extend_all(&all[..1], late + ms(300)));
    assert_eq!(actions, [shared(1, late + ms(300)), with(100, 1)]);
}

/// A move into the shared deadline that fails leaves the others with theirs.
#[test]
fn what_the_gate_does_not_take_into_the_shared_deadline_is_let_go_of_alone() {
    let (mut guard, all) = open_for_two();
    guard.step(START + ms(40), extend_all(&all, START + ms(340)));
    let instead = failed(&mut guard, &gate_failed()).expect("instead of the rest");
    assert_eq!(instead[..2], [gate(Mono::ZERO), GuardAction::DeleteAddress(address(100))]);
    assert!(instead.contains(&with(101, 1)), "{instead:?}");
    assert_eq!((guard.phase(WEB), guard.phase(DB)), (None, Some((Epoch(1), Phase::Open))));
}

#[test]
fn a_shared_deadline_that_is_not_taken_costs_whatever_shares_it() {
    let (mut guard, all) = open_for_two();
    guard.step(START + ms(40), extend_all(&all, START + ms(340)));
    let failure = GuardFailure::Deadline { slot: Slot(1), text: "no memory".into() };
    let instead = failed(&mut guard, &failure).expect("instead of the rest");
    for last in [100, 101] {
        assert!(instead.contains(&gate_of(last, Mono::ZERO)), "{instead:?}");
        assert!(instead.contains(&GuardAction::DeleteAddress(address(last))));
    }
    assert_eq!((guard.phase(WEB), guard.phase(DB)), (None, None));
    assert_eq!(failed(&mut guard, &failure), None, "nothing is left to let go of");
}

/// The kernel refuses everything that is about one of the two.
#[test]
fn what_fails_of_one_vip_ends_nothing_of_the_others() {
    let (mut guard, all) = open_for_two();
    guard.step(START + ms(40), extend_all(&all, START + ms(340)));
    let text = || "no memory".to_owned();
    let failure = GuardFailure::Deadline { slot: Slot(1), text: text() };
    let mut rest = VecDeque::from(guard.failed(&failure, vec![]));
    let (mut done, mut of_web) = (vec![], 0);
    while let Some(action) = rest.pop_front() {
        let ip = address(100).ip;
        let failure = match &action {
            GuardAction::Gate { ip: shut, .. } if *shut == ip => {
                Some(GuardFailure::Gate { ip, text: text() })
            }
            GuardAction::DeleteAddress(address) if address.ip == ip => {
                Some(GuardFailure::Delete { ip })
            }
            _ => None,
        };
        match failure {
            Some(failure) => {
                of_web += 1;
                rest = guard.failed(&failure, rest.into()).into();
            }
            None => done.push(action),
        }
    }
    assert_eq!(of_web, 2);
    let [shut, deleted, GuardAction::Notify(told)] = &done[..] else { panic!("{done:?}") };
    assert_eq!(*shut, gate_of(101, Mono::ZERO));
    assert_eq!(*deleted, GuardAction::DeleteAddress(address(101)));
    assert_eq!(told.vip(), Some(DB), "that `web` is silent is not told");
    assert!(!guard.is_silent());
}

/// Each of its addresses may answer.
#[test]
fn a_vip_is_silent_when_all_its_addresses_are() {
    let mut guard = guard(true);
    guard.step(START, prepare_all(3, &[100, 101]));
    guard.step(START, extend(3, START + ms(300)));
    let mut rest = VecDeque::from(guard.step(START, release(3)));
    let mut asked = vec![];
    while let Some(action) = rest.pop_front() {
        let failure = match action {
            GuardAction::Gate { ip, .. } => GuardFailure::Gate { ip, text: "full".into() },
            GuardAction::DeleteAddress(address) => GuardFailure::Delete { ip: address.ip },
            other => panic!("{other:?}"),
        };
        asked.push(failure.clone());
        rest = guard.failed(&failure, rest.into()).into();
    }
    assert_eq!(asked.len(), 4, "{asked:?}");
    let gone = |last| GuardEvent::AddressDeleted(address(last).ip);
    assert!(!guard.step(START, gone(100)).contains(&released(3)), "the other one may answer");
    assert!(guard.step(START, gone(101)).contains(&released(3)));
}

#[test]
fn one_write_shuts_all_when_the_agent_goes() {
    let (mut guard, all) = open_for_two();
    guard.step(START + ms(40), extend_all(&all, START + ms(340)));
    let actions = guard.step(START + ms(50), GuardEvent::AgentGone);
    assert_eq!(actions[0], shared(1, Mono::ZERO));
    assert_eq!(actions[1..3], [gate(Mono::ZERO), gate_of(101, Mono::ZERO)]);
}

#[test]
fn a_shared_deadline_is_bounded_and_may_be_moved_back() {
    let (mut guard, all) = open_for_two();
    let actions = guard.step(START, extend_all(&all, START + ms(10_000)));
    assert_eq!(actions[0], shared(1, START + ms(500)));
    assert_eq!(guard.step(START, extend_all(&all, START + ms(200))), [shared(1, START + ms(200))]);
    assert_eq!(guard.step(START + ms(100), extend_all(&all, START + ms(100))), []);
    guard.step(START + ms(100), GuardEvent::Tick);
    assert_eq!(guard.phase(WEB), Some((Epoch(3), Phase::Expired)), "too late is over");
}

/// When the lives of addresses are renewed, from `from` on, for so long, while
/// something is prepared every 500 ms.
fn refreshes(guard: &mut Guard, lasting: Duration, prepares: bool) -> Vec<Duration> {
    let (mut now, mut all) = (START, vec![]);
    while now < START + lasting {
        now = now + ms(100);
        if prepares && now.since(START).as_millis().is_multiple_of(500) {
            let number = u64::try_from(now.since(START).as_millis()).expect("short") / 500 + 10;
            let (vip, epoch, probe, known) = (VipUid(number), Epoch(1), Probe::No, [].into());
            let addresses = vec![address(u8::try_from(number).expect("few"))];
            let order = VipOrder::Prepare { vip, epoch, addresses, probe, known };
            guard.step(now, GuardEvent::Order(order));
        }
        let refreshed = |a: &GuardAction| matches!(a, GuardAction::RefreshAddresses(_));
        if guard.step(now, GuardEvent::Tick).iter().any(refreshed) {
            all.push(now.since(START));
        }
    }
    all
}

/// The kernel would delete those that are there while others come.
#[test]
fn what_comes_does_not_put_off_that_addresses_live_on() {
    let mut guard = guard(true);
    guard.step(START, prepare(3));
    let all = refreshes(&mut guard, ms(10_000), true);
    let gaps = all.windows(2).map(|pair| pair[1] - pair[0]);
    let longest = gaps.chain(all.first().copied()).max().expect("some");
    assert!(longest < address_life(1, true) / 2, "{all:?}");
}

/// What a thousand cost must not be a thousand times what one costs.
#[test]
fn many_addresses_live_longer_and_are_renewed_as_much_less_often() {
    let mut guard = guard(true);
    let addresses = (0..200).map(address).collect();
    let (epoch, probe, known) = (Epoch(1), Probe::No, [].into());
    let order = VipOrder::Prepare { vip: WEB, epoch, addresses, probe, known };
    guard.step(START, GuardEvent::Order(order));
    let all = refreshes(&mut guard, ms(30_000), false);
    // As soon as one of them alone would be, then by the life that all have.
    assert!(all[0] < address_life(1, true) / 2, "{all:?}");
    assert!(all[1] - all[0] > address_life(200, true) / 4, "{all:?}");
    assert!(all[1] - all[0] < address_life(200, true) / 2, "{all:?}");
    // One that comes is renewed as one that is alone: so long it lives as yet.
    let late = START + ms(31_000);
    let (vip, addresses) = (VipUid(9), vec![address(250)]);
    let known = [].into();
    let order = VipOrder::Prepare { vip, epoch, addresses, probe, known };
    guard.step(late, GuardEvent::Order(order));
    assert!(guard.next_tick().is_some_and(|at| at <= late + address_life(1, true) / 2));
    assert_eq!(address_life(200, false), address_life(1, false), "nothing else lets go of it");
}
