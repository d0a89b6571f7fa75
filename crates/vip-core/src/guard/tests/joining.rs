//! Addresses that join a claim, and what replaces one.

use super::*;

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
