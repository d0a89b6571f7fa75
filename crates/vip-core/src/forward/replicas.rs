//! Nodes that applied the same log come to the same real server for the same connection,
//! however they came to that log; and one from before all changes stays where it is.

use crate::testing::{apply, server, state_of, vip, voter};
use crate::{
    Actor, Command, NodeId, NodeOp, Op, Plan, RealPlace, RealServer, RealSpec, ServerOp,
    ServerSpec, State, TableSize, VipOp,
};
use proptest::prelude::*;
use std::net::IpAddr;

/// What somebody may do to the real servers of one virtual server.
#[derive(Clone, Debug)]
enum Change {
    Add(u8, u16),
    Remove(u8),
    Drain(u8, bool),
    Weigh(u8, u16),
    DrainNode(u64, bool),
    Retire,
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
    ]
}

fn op(state: &State, change: &Change) -> Op {
    let server = || "front".parse().expect("a name");
    let place = |last| RealPlace { ip: ip(last), port: None };
    match *change {
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
    let spec = ServerSpec { table_size: Some(TableSize::Tiny), ..spec };
    apply(&mut state, ServerOp::Add { spec: spec.clone() });
    let nodes = ServerSpec {
        name: "nodes".parse().expect("a name"),
        ports: 6443.into(),
        reals: vec![],
        real_nodes: Some(6443),
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
