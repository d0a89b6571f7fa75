//! What worlds begin with: nodes and a VIP, and what else may be made of its addresses.

use crate::scenario::{Manners, Scenario, node};
use std::sync::Arc;
use vip_core::{
    Actor, Command, Mac, Name, Node, NodeState, Placement, Runs, State, Via, VipAddress, VipOp,
    VipSpec,
};

/// The interface of a host.
pub(super) fn mac(at: usize) -> Mac {
    let [a, b, ..] = at.to_le_bytes();
    Mac([2, 0, 0, 0, b, a])
}

pub(super) fn vip_name() -> Name {
    "web".parse().expect("a valid name")
}

/// The addresses that VIPs may have.
pub(super) fn addresses() -> [VipAddress; 2] {
    ["192.0.2.100/24", "192.0.2.101/24"].map(|text| text.parse().expect("a valid address"))
}

/// Of a VIP that takes what another one gave up.
pub(super) fn other_name() -> Name {
    "other".parse().expect("a valid name")
}

/// A VIP of its own, with the second address, until that joins the other.
pub(super) fn guest_spec(scenario: &Scenario) -> VipSpec {
    let [_, second] = addresses();
    VipSpec {
        name: "guest".parse().expect("a valid name"),
        addresses: vec![second],
        placement: Placement::Sticky,
        ..vip_spec(scenario)
    }
}

pub(super) fn vip_spec(scenario: &Scenario) -> VipSpec {
    let [first, _] = addresses();
    VipSpec {
        name: vip_name(),
        addresses: vec![first],
        interface: None,
        placement: if scenario.sticky { Placement::Sticky } else { Placement::Leader },
        no_probe: false,
        via: match scenario.called {
            None => Via::Garp,
            Some(Manners { announces: true, .. }) => Via::Bgp,
            Some(_) => Via::Exec,
        },
        params: match scenario.called {
            Some(Manners { announces: false, .. }) => [("file".into(), "move".into())].into(),
            _ => [].into(),
        },
    }
}

pub(super) fn genesis(scenario: &Scenario) -> State {
    let mut state = State::default();
    for (at, shape) in scenario.hosts.iter().enumerate() {
        let id = node(at);
        let entry = Node {
            id,
            name: format!("n{id}").parse().expect("a valid name"),
            advertise: format!("192.0.2.{id}:7400"),
            role: shape.role,
            state: NodeState::Active,
            spki: String::new(),
            leaving_by: None,
            since_ms: 0,
            macs: [mac(at)].into(),
            runs: Runs::here(),
            no_say: None,
        };
        Arc::make_mut(&mut state.nodes).insert(id, entry);
    }
    let op = VipOp::Add { spec: vip_spec(scenario) }.into();
    state.apply(0, &Command { time_ms: 0, actor: Actor("genesis".into()), term: None, op });
    state
}
