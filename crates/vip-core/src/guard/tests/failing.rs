//! A kernel and a gate that refuse.

use super::*;

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

/// Whoever hears that an epoch cannot be here takes it, and all before it, for silent.
#[test]
fn no_epoch_is_refused_while_one_of_its_vip_may_answer_yet() {
    for epoch in [3, 4] {
        let mut guard = open_guard();
        // A deadline that is not taken ends the epoch, and the kernel does not let go.
        let instead = failed(&mut guard, &gate_failed()).expect("it is let go of");
        assert_eq!(guard.failed(&gate_failed(), instead[1..].to_vec()), instead[1..]);
        assert_eq!(guard.failed(&delete_failed(), instead[2..].to_vec()), [], "nobody is told");
        assert_eq!(guard.step(START, prepare_all(epoch, &[100, 101])), [], "nor now: {epoch}");
        assert_eq!(guard.step(START + ms(319), GuardEvent::Tick), []);
        let told = guard.step(START + ms(320), GuardEvent::Tick);
        let refuses = |told: &GuardAction| {
            matches!(told, GuardAction::Notify(GuardNotice::Refused { epoch: of, .. })
                if *of == Epoch(epoch))
        };
        assert!(told.iter().any(refuses), "{told:?}");
        assert!(guard.is_silent());
    }
}

/// Another address of the VIP, which it had before, is part of what is said of it.
#[test]
fn a_vip_is_not_told_silent_while_an_address_that_it_had_lingers() {
    let mut guard = open_guard();
    guard.step(START, prepare_only(4, 101));
    let gone = guard.failed(&gate_failed(), vec![GuardAction::DeleteAddress(address(100))]);
    assert_eq!(guard.failed(&delete_failed(), gone), [GuardAction::DeleteAddress(address(100))]);
    for event in
        [release(4), GuardEvent::AddressRefused(Obstacle { ip: address(101).ip, why: Why::NoLink })]
    {
        let mut guard = guard.clone();
        let told = guard.step(START, event);
        assert!(!told.iter().any(|action| matches!(action, GuardAction::Notify(_))), "{told:?}");
        let told = guard.step(START + ms(320), GuardEvent::Tick);
        assert!(told.iter().any(|action| matches!(action, GuardAction::Notify(_))), "{told:?}");
    }
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
