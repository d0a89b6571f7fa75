//! Who is served, by what observers say.

use super::*;
use crate::testing::{apply, server, state_of, vip, voter};
use crate::{
    Actor, CheckKind, CheckSpec, Command, EventKind, Forwarding, NodeOp, Op, RealCheck, RealPlace,
    VipOp,
};
use std::net::IpAddr;

const NOBODY: [u8; 0] = [];
const ONE: ServerUid = ServerUid(1);

fn at(state: &mut State, time_ms: u64, op: impl Into<Op>) -> Outcome {
    let command = Command { time_ms, actor: Actor("test".into()), term: None, op: op.into() };
    state.apply(1, &command)
}

fn observed(last: u8) -> Observed {
    Observed { server: ONE, ip: [10, 0, 0, last].into(), port: 80 }
}

fn down() -> Opinion {
    Opinion::Down("connection refused".into())
}

fn sees(state: &mut State, node: u64, last: u8, opinion: impl Into<Option<Opinion>>) -> Outcome {
    let seen = vec![(observed(last), opinion.into())];
    at(state, 100 * node, ServerOp::Observe { node: NodeId(node), seen })
}

fn checked(reals: &[&str]) -> ServerSpec {
    ServerSpec { check: Some(CheckSpec::from(CheckKind::Tcp)), ..server(reals) }
}

fn with(nodes: u64, spec: ServerSpec) -> State {
    let mut state = state_of((1..=nodes).map(voter));
    apply(&mut state, VipOp::Add { spec: vip("web", 100) });
    apply(&mut state, ServerOp::Add { spec });
    state
}

fn forwarding(state: &State) -> Forwarding {
    let server = state.server(ONE).expect("there");
    Forwarding::of(state, server, &BTreeMap::new()).expect("something to forward")
}

/// The last parts of who is sent anything.
fn served(state: &State) -> Vec<u8> {
    let last = |ip| match ip {
        IpAddr::V4(ip) => ip.octets()[3],
        IpAddr::V6(_) => panic!("v4"),
    };
    forwarding(state).places().into_iter().map(|(ip, _)| last(ip)).collect()
}

fn told(state: &State) -> Vec<String> {
    let events = state.events.after(0).into_iter().filter_map(|event| match &event.what {
        EventKind::Server(ServerEvent::RealUp { real, .. }) => Some(format!("{} up", real.ip)),
        EventKind::Server(ServerEvent::RealDown { real, why, .. }) => {
            Some(format!("{} down: {why}", real.ip))
        }
        _ => None,
    });
    events.collect()
}

#[test]
fn who_is_served_is_what_most_observers_see_up() {
    let mut state = with(3, checked(&["10.0.0.11", "10.0.0.12"]));
    assert_eq!(served(&state), NOBODY, "nobody has seen either");
    assert_eq!(sees(&mut state, 1, 11, Opinion::Up), Outcome::Done);
    assert_eq!(served(&state), [11], "the first answer is enough");
    assert_eq!(sees(&mut state, 1, 12, Opinion::Up), Outcome::Done);
    let generation = |state: &State| state.server(ONE).expect("there").generation;
    let before = generation(&state);
    for node in [2, 3] {
        sees(&mut state, node, 11, Opinion::Up);
        sees(&mut state, node, 12, Opinion::Up);
    }
    assert_eq!(generation(&state), before, "that changes nothing");
    assert_eq!(sees(&mut state, 1, 12, down()), Outcome::Done);
    assert_eq!(served(&state), [11, 12], "one of three");
    assert_eq!(sees(&mut state, 2, 12, down()), Outcome::Done);
    assert_eq!(served(&state), [11]);
    let known = state.server(ONE).expect("there");
    assert_eq!((known.reals[1].health.is_up, known.reals[1].health.since_ms), (Some(false), 300));
    // It leaves both tables at once, and comes back with the slots that it had.
    let forwarding = forwarding(&state);
    assert!(
        forwarding.before.is_some_and(|before| before.reals().len() == 2),
        "not of first answers"
    );
    sees(&mut state, 1, 12, Opinion::Up);
    assert_eq!(served(&state), [11, 12]);
    let all =
        ["10.0.0.11 up", "10.0.0.12 up", "10.0.0.12 down: connection refused", "10.0.0.12 up"];
    assert_eq!(told(&state), all);
    assert_eq!(sees(&mut state, 1, 12, Opinion::Up), Outcome::Unchanged, "that is known");
}

#[test]
fn what_comes_after_the_first_answers_is_a_change() {
    let mut state = with(1, checked(&["10.0.0.11", "10.0.0.12", "10.0.0.13"]));
    let two_tables = |state: &State| state.server(ONE).expect("there").before.is_some();
    let up = |state: &mut State, time_ms, last| {
        let seen = vec![(observed(last), Some(Opinion::Up))];
        at(state, time_ms, ServerOp::Observe { node: NodeId(1), seen });
    };
    up(&mut state, 2, 11);
    let until = CheckSpec::from(CheckKind::Tcp).timing.first_answers() + FIRST_ANSWERS;
    let until = u64::try_from(until.as_millis()).expect("some seconds");
    up(&mut state, until, 12);
    assert_eq!((served(&state), two_tables(&state)), (vec![11, 12], false));
    up(&mut state, until + 1, 13);
    assert_eq!((served(&state), two_tables(&state)), (vec![11, 12, 13], true));
}

#[test]
fn a_tie_and_observers_that_see_nothing_change_nothing() {
    let mut state = with(2, checked(&["10.0.0.11"]));
    sees(&mut state, 1, 11, Opinion::Up);
    sees(&mut state, 2, 11, down());
    assert_eq!(served(&state), [11]);
    sees(&mut state, 1, 11, Opinion::Blind);
    assert_eq!(served(&state), NOBODY, "the other one alone sees");
    sees(&mut state, 2, 11, None);
    assert_eq!(served(&state), NOBODY, "nobody knows better");
    sees(&mut state, 1, 11, Opinion::Up);
    assert_eq!(served(&state), [11]);
}

/// Two of five are gone, and the last that they saw is not what is so.
#[test]
fn what_was_seen_by_nodes_that_are_silent_does_not_count() {
    let mut state = with(3, checked(&["10.0.0.11"]));
    for node in [1, 2, 3] {
        sees(&mut state, node, 11, Opinion::Up);
    }
    sees(&mut state, 1, 11, down());
    assert_eq!(served(&state), [11]);
    assert_eq!(state.blinded(&[].into()), []);
    for op in state.blinded(&[NodeId(2), NodeId(3), NodeId(9)].into()) {
        assert_eq!(at(&mut state, 1, op), Outcome::Done);
    }
    assert_eq!(served(&state), NOBODY, "the one that sees says that it is down");
    assert_eq!(state.blinded(&[NodeId(2), NodeId(3)].into()), [], "once");
    // They are back, and say again what they see.
    let server = state.server(ONE).expect("there");
    let target = server.target(&server.reals[0].spec).expect("checked");
    let seen = |target| [(observed(11), (target, Opinion::Up))].into();
    assert_eq!(state.unsaid_sightings(NodeId(2), &seen(target.clone())).len(), 1);
    let elsewhere = Target { at: SocketAddr::new(target.at.ip(), 81), ..target };
    assert_eq!(state.unsaid_sightings(NodeId(2), &seen(elsewhere)), [], "of another check");
}

#[test]
fn only_observers_are_heard_and_only_of_what_is_checked() {
    let spec = checked(&["10.0.0.11"]);
    let check = spec
        .check
        .clone()
        .map(|check| CheckSpec { observers: vec!["n2".parse().expect("a name")], ..check });
    let mut state = with(3, ServerSpec { check, ..spec.clone() });
    for node in [1, 3, 9] {
        assert_eq!(sees(&mut state, node, 11, Opinion::Up), Outcome::Unchanged, "{node}");
    }
    assert_eq!(sees(&mut state, 2, 99, Opinion::Up), Outcome::Unchanged);
    assert_eq!((state.observed_by(NodeId(1)).len(), state.observed_by(NodeId(2)).len()), (0, 1));
    assert_eq!(sees(&mut state, 2, 11, Opinion::Up), Outcome::Done);
    let unknown = CheckSpec {
        observers: vec!["n7".parse().expect("a name")],
        ..CheckSpec::from(CheckKind::Tcp)
    };
    let spec = ServerSpec { check: Some(unknown), ..spec };
    let set = ServerOp::Set { spec, seen: state.server(ONE).expect("there").revision };
    assert!(matches!(at(&mut state, 1, set), Outcome::Refused(Refusal::UnknownNode { .. })));
    let mut unchecked = with(3, server(&["10.0.0.11"]));
    assert_eq!(sees(&mut unchecked, 1, 11, down()), Outcome::Unchanged);
    assert_eq!(served(&unchecked), [11]);
}

/// A service that runs is not stopped to be looked at.
#[test]
fn who_is_served_is_served_until_the_new_check_says_otherwise() {
    let mut state = with(1, server(&["10.0.0.11", "10.0.0.12"]));
    let set = |state: &mut State, spec: ServerSpec| {
        let seen = state.server(ONE).expect("there").revision;
        assert_eq!(at(state, 5, ServerOp::Set { spec, seen }), Outcome::Done);
    };
    let generation = |state: &State| state.server(ONE).expect("there").generation;
    let before = generation(&state);
    set(&mut state, checked(&["10.0.0.11", "10.0.0.12"]));
    assert_eq!(served(&state), [11, 12]);
    sees(&mut state, 1, 12, down());
    assert_eq!(served(&state), [11]);
    // However they are written, and whatever they weigh.
    let mut other = with(1, server(&["10.0.0.11", "10.0.0.12"]));
    set(&mut other, checked(&["10.0.0.11@5", "10.0.0.12:80"]));
    assert_eq!(served(&other), [11, 12]);
    // Another port says nothing of what is known.
    let spec = checked(&["10.0.0.11", "10.0.0.12", "10.0.0.13"]);
    let check = spec.check.clone().map(|check| CheckSpec { port: Some(81), ..check });
    set(&mut state, ServerSpec { check, ..spec });
    assert_eq!(served(&state), [11], "and a new one waits for its first answer");
    set(&mut state, server(&["10.0.0.11", "10.0.0.12"]));
    assert_eq!(served(&state), [11, 12], "nothing is checked any more");
    assert!(generation(&state) > before);
    let health = &state.server(ONE).expect("there").reals[1].health;
    assert!(health.is_unchecked(), "{health:?}");
}

#[test]
fn what_is_said_is_what_the_log_has_otherwise() {
    let mut state = with(3, checked(&["10.0.0.11", "10.0.0.12"]));
    let me = NodeId(1);
    let target = |state: &State| {
        let server = state.server(ONE).expect("there");
        server.target(&server.reals[0].spec).expect("checked")
    };
    let other =
        |state: &State| Target { at: SocketAddr::new(observed(12).ip, 80), ..target(state) };
    let mut sees: BTreeMap<_, _> = [(observed(11), (target(&state), Opinion::Up))].into();
    assert_eq!(state.unsaid_sightings(me, &sees), [(observed(11), Some(Opinion::Up))]);
    let say = |state: &mut State, sees: &BTreeMap<_, _>| {
        let seen = state.unsaid_sightings(me, sees);
        at(state, 1, ServerOp::Observe { node: me, seen });
        assert_eq!(state.unsaid_sightings(me, sees), []);
    };
    say(&mut state, &sees);
    // What it saw before it started anew stays until it has looked.
    assert_eq!(state.unsaid_sightings(me, &BTreeMap::new()), []);
    sees.insert(observed(12), (other(&state), Opinion::Down("\u{1}x".repeat(999))));
    say(&mut state, &sees);
    let why = state.server(ONE).expect("there").reals[1].health.why(|_, _| true).len();
    assert_eq!(why, MAX_WHY);
    // It is no observer any more.
    at(&mut state, 1, NodeOp::Drain { node: me, drained: true });
    assert_eq!(state.unsaid_sightings(me, &sees), []);
    let reals = &state.server(ONE).expect("there").reals;
    assert!(reals.iter().all(|real| real.health.seen.is_empty()), "{reals:?}");
    assert_eq!(served(&state), [11], "nobody knows better");
}

/// Whatever its observers see, if another one is up; and in the end it is let go.
#[test]
fn one_that_goes_up_and_down_is_held_down_for_a_while() {
    let mut state = with(1, checked(&["10.0.0.11", "10.0.0.12"]));
    let say = |state: &mut State, seconds: u64, last, opinion| {
        let seen = vec![(observed(last), Some(opinion))];
        at(state, seconds * 1000, ServerOp::Observe { node: NodeId(1), seen })
    };
    sees(&mut state, 1, 12, Opinion::Up);
    for times in 0..5 {
        say(&mut state, 1 + times * 10, 11, Opinion::Up);
        assert_eq!(served(&state), [11, 12], "{times}");
        say(&mut state, 5 + times * 10, 11, down());
    }
    say(&mut state, 50, 11, Opinion::Up);
    assert_eq!(served(&state), [12]);
    let health = &state.server(ONE).expect("there").reals[0].health;
    assert!(health.is_held() && health.why(|_, _| true).contains("again and again"), "{health:?}");
    let held =
        |event: &crate::Event| matches!(event.what, EventKind::Server(ServerEvent::Held { .. }));
    assert_eq!(state.events.after(0).iter().filter(|event| held(event)).count(), 1);
    // The other one ends: better one that comes and goes than none.
    say(&mut state, 51, 12, down());
    assert_eq!(served(&state), [11]);
    say(&mut state, 52, 12, Opinion::Up);
    assert_eq!(served(&state), [12]);
    let held = state.held();
    assert_eq!(held.iter().map(|(one, _)| *one).collect::<Vec<_>>(), [observed(11)]);
    let release = ServerOp::Release { reals: vec![observed(11)] };
    assert_eq!(at(&mut state, 60_000, release), Outcome::Done);
    assert_eq!((served(&state), state.held()), (vec![11, 12], vec![]));
    assert_eq!(state.needs, Level::KINDS, "an earlier version knows nothing of it");
}

/// A person who looks after it has not to wait.
#[test]
fn who_changes_the_check_or_lets_connections_back_lets_it_go() {
    let flapped = || {
        let mut state = with(1, checked(&["10.0.0.11", "10.0.0.12"]));
        sees(&mut state, 1, 12, Opinion::Up);
        for _ in 0..5 {
            sees(&mut state, 1, 11, Opinion::Up);
            sees(&mut state, 1, 11, down());
        }
        assert_eq!(state.held().len(), 1);
        state
    };
    let mut state = flapped();
    let place = RealPlace { ip: [10, 0, 0, 11].into(), port: None };
    for drained in [true, false] {
        let server = "front".parse().expect("a name");
        at(&mut state, 1, ServerOp::DrainReal { server, place, drained });
    }
    assert_eq!(state.held(), []);
    let mut state = flapped();
    let known = state.server(ONE).expect("there");
    let check = known.spec.check.clone().map(|mut check| {
        check.timing.fall = 5;
        check
    });
    let reals = known.reals.iter().map(|real| real.spec).collect();
    let spec = ServerSpec { check, reals, ..known.spec.clone() };
    let seen = known.revision;
    assert_eq!(at(&mut state, 1, ServerOp::Set { spec, seen }), Outcome::Done);
    assert_eq!(state.held(), []);
}

/// Another port for one of them: that one is looked at anew, and the others are left alone.
#[test]
fn one_real_server_is_checked_otherwise_than_the_others() {
    let mut state = with(1, checked(&["10.0.0.11", "10.0.0.12"]));
    for last in [11, 12] {
        sees(&mut state, 1, last, Opinion::Up);
    }
    let reals = |state: &State| state.server(ONE).expect("there").reals.clone();
    let set = |state: &mut State, last: u8| {
        let server = state.server(ONE).expect("there");
        let own = RealCheck::as_others([10, 0, 0, last].into(), Some(80));
        let own = RealCheck { check_port: Some(81), ..own };
        let check = CheckSpec { otherwise: vec![own], ..CheckKind::Tcp.into() };
        let spec = ServerSpec {
            reals: server.reals.iter().map(|real| real.spec).collect(),
            check: Some(check),
            ..server.spec.clone()
        };
        let seen = server.revision;
        at(state, 1, ServerOp::Set { spec, seen })
    };
    assert!(matches!(set(&mut state, 13), Outcome::Refused(_)), "there is no such real server");
    let before = reals(&state);
    assert_eq!(set(&mut state, 12), Outcome::Done);
    let probed = state.probed_by(NodeId(1));
    assert_eq!(probed[&observed(11)].at.port(), 80);
    assert_eq!(probed[&observed(12)].at.port(), 81);
    let after = reals(&state);
    assert_eq!(after[0], before[0]);
    assert_eq!((after[1].health.is_up, after[1].health.seen.len()), (Some(true), 0));
    // What it was does not come back with it.
    let name = || "front".parse::<Name>().expect("a name");
    let ip = [10, 0, 0, 12].into();
    let place = RealPlace { ip, port: None };
    apply(&mut state, ServerOp::RemoveReal { server: name(), place });
    let real = RealSpec { ip, port: None, weight: 1 };
    apply(&mut state, ServerOp::AddReal { server: name(), real });
    assert_eq!(state.probed_by(NodeId(1))[&observed(12)].at.port(), 80);
}

/// What an earlier version does with it: it is the same check.
#[test]
fn another_port_of_the_virtual_server_leaves_what_is_known() {
    let mut state = with(1, checked(&["10.0.0.11"]));
    sees(&mut state, 1, 11, Opinion::Up);
    let server = state.server(ONE).expect("there");
    let reals = server.reals.iter().map(|real| real.spec).collect();
    let spec = ServerSpec { ports: 443.into(), reals, ..server.spec.clone() };
    let seen = server.revision;
    at(&mut state, 1, ServerOp::Set { spec, seen });
    let health = &state.server(ONE).expect("there").reals[0].health;
    assert_eq!((health.is_up, health.seen.len()), (Some(true), 1));
}
