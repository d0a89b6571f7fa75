//! Others who claim its addresses.

use super::*;

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

fn conflict(last: u64) -> GuardAction {
    notify(
        |vip, epoch| GuardNotice::Conflict { vip, epoch, ip: address(100).ip, mac: mac(last) },
        3,
    )
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
