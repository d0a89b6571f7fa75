//! The deadline that all of a host share.

use super::*;

const OTHER: GuardAction = GuardAction::Notify(GuardNotice::OtherCover);

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
    let (known, all) = open_for_two();
    let mut renewed = known.clone();
    renewed.step(START + ms(20), extend_all(&all, START + ms(320)));
    let now = START + ms(40);
    for late in [ms(0), ms(1)] {
        for mut guard in [known.clone(), renewed.clone()] {
            assert_eq!(guard.step(now, extend_all(&all, now - late)), []);
            guard.step(now, GuardEvent::Tick);
            assert_eq!(guard.phase(WEB), Some((Epoch(3), Phase::Expired)));
            assert_eq!(guard.phase(DB), Some((Epoch(1), Phase::Expired)));
        }
    }
}

/// No tick came in between, and it is the very set that is shared.
#[test]
fn what_ran_out_unseen_is_not_brought_back_by_its_name() {
    let (mut guard, all) = open_for_two();
    let deadline = START + ms(320);
    assert_eq!(guard.step(START + ms(20), extend_all(&all, deadline)).len(), 3);
    let renewed_at = |now| guard.clone().step(now, extend_all(&all, START + ms(620)));
    let extended = [shared(1, START + ms(620))];
    assert_eq!(renewed_at(deadline - Duration::from_nanos(1)), extended);
    assert_eq!(renewed_at(deadline), [OTHER]);
    assert_eq!(renewed_at(deadline + ms(10)), [OTHER]);
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
