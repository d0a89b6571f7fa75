//! What a VIP looks like from outside.

use crate::admin::sight::{Sight, name, named};
use std::fmt::Display;
use vip_core::{NodeId, State, Vip, VipSpec};
use vip_proto::v1;

pub(super) fn view(sight: &Sight<'_>, state: &State, vip: &Vip) -> v1::Vip {
    let VipSpec { name: vip_name, addresses, interface, placement, no_probe, via, params } =
        &vip.spec;
    v1::Vip {
        name: vip_name.to_string(),
        addresses: addresses.iter().map(ToString::to_string).collect(),
        holder: name(state, vip.holder),
        epoch: vip.epoch.0,
        since_ms: vip.since_ms,
        cause: vip.cause.map(|cause| v1::Cause::from(cause).into()),
        answers: sight.answers(vip),
        interface: interface.clone(),
        placement: v1::Placement::from(*placement).into(),
        pinned: name(state, vip.pinned),
        hindered: hindered(state, vip),
        no_probe: *no_probe,
        via: v1::Via::from(*via).into(),
        params: params.clone().into_iter().collect(),
        fresh: sight.fresh,
        silent: vip.holder == Some(sight.member.meta.node) && !sight.member.leases.holds(vip),
    }
}

/// Every VIP, by name.
pub(in crate::admin) fn all(sight: &Sight<'_>) -> Vec<v1::Vip> {
    let state = sight.member.log.state();
    state.vips_by_name().into_iter().map(|vip| view(sight, &state, vip)).collect()
}

/// Nodes that cannot hold it.
pub(in crate::admin) fn hindered(state: &State, vip: &Vip) -> Vec<v1::Hindrance> {
    let nodes = state.obstacles.get(&vip.uid).into_iter().flatten();
    let held_up = nodes.map(|(node, why)| hindrance(state, vip, *node, why));
    let cut_off = state.cut_off.get(&vip.uid).into_iter().flatten();
    let cut_off = cut_off.map(|(node, why)| hindrance(state, vip, *node, why));
    held_up.chain(cut_off).collect()
}

pub(in crate::admin) fn hindrance(
    state: &State,
    vip: &Vip,
    node: NodeId,
    why: &dyn Display,
) -> v1::Hindrance {
    v1::Hindrance { vip: vip.spec.name.to_string(), node: named(state, node), why: why.to_string() }
}
