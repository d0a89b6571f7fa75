//! Nodes that applied the same log come to the same real server for the same connection,
//! however they came to that log; and one from before all changes stays where it is.

use crate::testing::{apply, server, state_of, vip, voter};
use crate::{
    Actor, AllDown, CheckKind, CheckSpec, Command, Name, NodeId, NodeOp, Observed, Op, Opinion,
    Plan, Policy, Quorum, Real, RealPlace, RealServer, RealSpec, ServerOp, ServerSpec, ServerUid,
    State, TableSize, VipOp, judge,
};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

/// What somebody may do to the real servers of one virtual server.
#[derive(Clone, Debug)]
enum Change {
    Add(u8, u16),
    Remove(u8),
    Drain(u8, bool),
    Weigh(u8, u16),
    DrainNode(u64, bool),
    Retire,
    /// Another check, by these observers, with a slow start or without; or none.
    Check(Option<u16>, Vec<u64>, bool),
    /// One that had so much of its share gets more.
    Raise(u8, u8),
    /// What a node sees of a real server, of either virtual server.
    See(u64, bool, u8, Option<Opinion>),
}

fn ip(last: u8) -> IpAddr {
    [10, 0, 0, last].into()
}

fn change() -> impl Strategy<Value = Change> {
    let last = || 11..20u8;
    prop_oneof![
        (last(), 0..9u16).prop_map(|(last, weight)| Change::Add(last, weight)),
        last().prop_map(Change::Remove),
        (last(), any::<bool>()).prop_map(|(last, drained)| Change::Drain(last, drained)),
        (last(), 0..9u16).prop_map(|(last, weight)| Change::Weigh(last, weight)),
        (1..4u64, any::<bool>()).prop_map(|(node, drained)| Change::DrainNode(node, drained)),
        Just(Change::Retire),
        (
            proptest::option::of(80..82u16),
            proptest::sample::subsequence(vec![1, 2, 3], 0..3),
            any::<bool>()
        )
            .prop_map(|(port, nodes, slowly)| Change::Check(port, nodes, slowly)),
        (last(), 0..5u8).prop_map(|(last, seen)| Change::Raise(last, seen)),
        (1..4u64, any::<bool>(), last(), seen())
            .prop_map(|(node, front, last, seen)| Change::See(node, front, last, seen)),
        (1..4u64, any::<bool>(), last(), seen())
            .prop_map(|(node, front, last, seen)| Change::See(node, front, last, seen)),
    ]
}

fn seen() -> impl Strategy<Value = Option<Opinion>> {
    let down = Opinion::Down("connection refused".into());
    let unable = Opinion::Unable("it may not".into());
    proptest::option::of(proptest::sample::select(vec![Opinion::Up, Opinion::Blind, unable, down]))
}

fn name(text: &str) -> Name {
    text.parse().expect("a name")
}

fn op(state: &State, change: &Change) -> Op {
    let server = || name("front");
    let place = |last| RealPlace { ip: ip(last), port: None };
    match *change {
        Change::Raise(last, seen) => {
            let one = Observed { server: ServerUid(1), ip: ip(last), port: 80 };
            ServerOp::from(vec![(one, seen)]).into()
        }
        Change::Check(port, ref nodes, slowly) => {
            let front = state.server_named("front").expect("there");
            let observers = nodes.iter().map(|node| name(&format!("n{node}"))).collect();
            let slow_start = Duration::from_secs(u64::from(slowly));
            let check = CheckSpec { port, observers, slow_start, ..CheckKind::Tcp.into() };
            let check = port.map(|_| check);
            let reals = front.reals.iter().map(|real| real.spec).collect();
            let spec = ServerSpec { check, reals, ..front.spec.clone() };
            ServerOp::Set { spec, seen: front.revision }.into()
        }
        Change::See(node, front, last, ref seen) => {
            // Members are at 1 to 3.
            let (server, last, port) = if front { (1, last, 80) } else { (2, last % 4, 6443) };
            let one = Observed { server: ServerUid(server), ip: ip(last), port };
            ServerOp::Observe { node: NodeId(node), seen: vec![(one, seen.clone())] }.into()
        }
        Change::Add(last, weight) => {
            let real = RealSpec { ip: ip(last), port: None, weight };
            ServerOp::AddReal { server: server(), real }.into()
        }
        Change::Remove(last) => {
            ServerOp::RemoveReal { server: server(), place: place(last) }.into()
        }
        Change::Drain(last, drained) => {
            ServerOp::DrainReal { server: server(), place: place(last), drained }.into()
        }
        Change::Weigh(last, weight) => {
            ServerOp::WeighReal { server: server(), place: place(last), weight }.into()
        }
        Change::DrainNode(node, drained) => NodeOp::Drain { node: NodeId(node), drained }.into(),
        Change::Retire => {
            let front = state.server_named("front").expect("there");
            ServerOp::Retire { server: front.uid, seen: front.generation }.into()
        }
    }
}

fn start() -> State {
    let mut state = state_of([1, 2, 3].map(voter));
    apply(&mut state, VipOp::Add { spec: vip("web", 100) });
    let spec = server(&["10.0.0.11", "10.0.0.12", "10.0.0.13"]);
    let quorum = Quorum { up: 2, hysteresis: 1 };
    let policy = Policy { quorum, all_down: AllDown::KeepLast, ..Policy::default() };
    let spec = ServerSpec { table_size: Some(TableSize::Tiny), policy, ..spec };
    apply(&mut state, ServerOp::Add { spec: spec.clone() });
    let nodes = ServerSpec {
        name: "nodes".parse().expect("a name"),
        ports: 6443.into(),
        reals: vec![],
        real_nodes: Some(6443),
        check: Some(CheckKind::Tcp.into()),
        policy: Policy {
            sorry: Some("10.0.0.99".parse().expect("one")),
            quorum,
            ..Policy::default()
        },
        ..spec
    };
    apply(&mut state, ServerOp::Add { spec: nodes });
    state
}

/// It may be refused.
fn offer(state: &mut State, index: u64, change: &Change) {
    let actor = Actor("somebody".into());
    let command = Command { time_ms: index, actor, term: None, op: op(state, change) };
    let _ = state.apply(index, &command);
}

/// Whose each slot is.
fn dealt(plan: &Plan) -> Vec<Option<(IpAddr, u16)>> {
    let reals: Vec<_> = plan.reals().iter().map(RealServer::place).collect();
    let slots = plan.slots();
    if slots.is_empty() {
        return vec![None; plan.size().slots().into()];
    }
    slots.iter().map(|real| reals.get(usize::from(*real)).copied()).collect()
}

fn tables(state: &State) -> Vec<Vec<Option<(IpAddr, u16)>>> {
    let plans = state.all_servers().flat_map(|server| {
        [Some(server.plan().expect("a plan")), server.plan_before().expect("a plan")]
    });
    plans.flatten().map(|plan| dealt(&plan)).collect()
}

proptest! {
    #[test]
    fn all_that_applied_the_same_log_have_the_same_tables(
        changes in proptest::collection::vec(change(), 1..30),
        snapshot_at in 0..30usize,
    ) {
        let (mut one, mut other) = (start(), start());
        for (index, change) in changes.iter().enumerate() {
            if index == snapshot_at {
                let written = serde_json::to_vec(&other).expect("written");
                other = serde_json::from_slice(&written).expect("read");
            }
            let at = 100 + index as u64;
            offer(&mut one, at, change);
            offer(&mut other, at, change);
        }
        prop_assert_eq!(tables(&one), tables(&other));
        prop_assert_eq!(one.forwardings(), other.forwardings());
    }

    /// Whoever observes, and whatever was said: those who do not observe have no opinion, the
    /// verdict is what most of the others say, and who is served is who is up.
    #[test]
    fn a_verdict_is_what_most_of_the_present_observers_say(
        changes in proptest::collection::vec(change(), 1..40),
    ) {
        let mut state = start();
        let mut ordered = BTreeMap::new();
        for (index, change) in changes.iter().enumerate() {
            offer(&mut state, 100 + index as u64, change);
            for server in state.all_servers() {
                // Hosts know them by that: nothing else is ordered under one name.
                let tables = (server.dealt(&server.reals), server.before.clone().map(|b| b.reals));
                let known = ordered.entry((server.uid, server.generation)).or_insert(tables.clone());
                prop_assert_eq!(&*known, &tables, "after {:?}", change);
                let served = server.plan().expect("a plan");
                for real in &server.reals {
                    let (health, observers) = (&real.health, state.watchers_of(server, real));
                    let strangers = health.seen.keys().filter(|node| !observers.contains(node));
                    prop_assert_eq!(strangers.count(), 0, "{:?} after {:?}", health, change);
                    let jury = state.observers_of(server, real);
                    let said = health.seen.iter().filter(|(node, _)| jury.contains(node));
                    let was = if health.is_held() { Some(true) } else { health.is_up };
                    let is_up = judge(was, said.map(|(_, opinion)| opinion));
                    let free = |one: &Real| {
                        one.health.is_up == Some(true) && one.weight() > 0 && !one.health.is_held()
                    };
                    let holds = health.is_held() && server.reals.iter().any(free);
                    let is_up = is_up.map(|is_up| is_up && !holds);
                    prop_assert_eq!(is_up, health.is_up, "{:?} after {:?}", health, change);
                    let has = served.reals().iter().any(|one| one.ip == real.spec.ip);
                    // With nobody up those that were last are, where that is wanted.
                    let last = server.spec.policy.all_down == AllDown::KeepLast && server.up() == 0;
                    let is_well = server.spec.check.is_none() || is_up == Some(true);
                    let may = is_well || (last && real.kept);
                    prop_assert_eq!(has, may, "{:?} after {:?}", real, change);
                }
            }
        }
    }

    /// Whatever is changed until the table before retires: it is the one that they began
    /// by. A real server that is removed is the only one that loses them.
    #[test]
    fn connections_from_before_all_changes_stay_where_they_are(
        changes in proptest::collection::vec(change(), 1..30),
    ) {
        let mut state = start();
        let began = dealt(&state.server_named("front").expect("there").plan().expect("a plan"));
        for (index, change) in changes.iter().enumerate() {
            if matches!(change, Change::Retire) {
                continue;
            }
            offer(&mut state, 100 + index as u64, change);
            let front = state.server_named("front").expect("there");
            let now = front.plan_before().expect("a plan");
            let now = dealt(&now.unwrap_or(front.plan().expect("a plan")));
            prop_assert_eq!(&now, &began, "after {:?}", change);
        }
    }
}
