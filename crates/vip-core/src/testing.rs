//! What tests of several modules start from.

use crate::{
    Actor, Assignment, Cause, Command, Engine, Forward, Node, NodeId, NodeState, Op, Outcome,
    Placement, Policy, Protocol, Role, Runs, Scheduler, ServerSpec, State, VipOp, VipSpec, VipUid,
};
use std::sync::Arc;

/// An active voter `n<id>` at 10.0.0.`id`.
pub(crate) fn voter(id: u64) -> Node {
    Node {
        id: NodeId(id),
        name: format!("n{id}").parse().expect("valid"),
        advertise: format!("10.0.0.{id}:7400"),
        role: Role::Voter,
        state: NodeState::Active,
        spki: format!("s{id}"),
        since_ms: 0,
        leaving_by: None,
        macs: [].into(),
        runs: Runs::here(),
        no_say: None,
    }
}

/// A log that knows these members and nothing else.
pub(crate) fn state_of(nodes: impl IntoIterator<Item = Node>) -> State {
    let mut state = State::default();
    Arc::make_mut(&mut state.nodes).extend(nodes.into_iter().map(|node| (node.id, node)));
    state
}

/// A VIP with one address in 10.0.0.0/24.
pub(crate) fn vip(name: &str, last: u8) -> VipSpec {
    VipSpec {
        name: name.parse().expect("valid"),
        addresses: vec![format!("10.0.0.{last}/24").parse().expect("valid")],
        interface: None,
        placement: Placement::Sticky,
        no_probe: false,
        via: crate::Via::default(),
        params: Default::default(),
    }
}

/// `front` on TCP port 80 of VIP `web`.
pub(crate) fn server(reals: &[&str]) -> ServerSpec {
    ServerSpec {
        name: "front".parse().expect("a name"),
        vip: "web".parse().expect("a name"),
        ports: 80.into(),
        protocol: Protocol::Tcp,
        scheduler: Scheduler::Mh,
        forward: Forward::Auto,
        engine: Engine::Auto,
        table_size: None,
        reals: reals.iter().map(|real| real.parse().expect("a real server")).collect(),
        names: vec![],
        real_nodes: None,
        check: None,
        policy: Policy::default(),
    }
}

/// Applies what must not be refused.
pub(crate) fn apply(state: &mut State, op: impl Into<Op>) {
    let command = Command { time_ms: 1, actor: Actor("test".into()), term: None, op: op.into() };
    let outcome = state.apply(1, &command);
    assert!(!matches!(outcome, Outcome::Refused(_)), "{outcome:?}");
}

/// Moves a VIP by command.
pub(crate) fn move_to(state: &mut State, vip: VipUid, node: u64) {
    let seen = state.vip(vip).expect("added").epoch;
    let to = Some(NodeId(node));
    let moves = vec![Assignment { vip, seen, to, cause: Cause::Command }];
    apply(state, VipOp::Assign { moves });
}
