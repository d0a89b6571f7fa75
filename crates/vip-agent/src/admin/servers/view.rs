//! What a virtual server looks like from outside.

use crate::admin::sight::{name, named};
use crate::node::Member;
use std::net::IpAddr;
use vip_core::{
    Counter, Engine, Forward, NamedReal, NodeId, Opinion, Real, RealCount, Server, ServerSpec,
    State,
};
use vip_proto::v1;

/// As the log has it.
pub(super) fn view(member: &Member, state: &State, server: &Server) -> v1::Server {
    let ServerSpec {
        name: server_name,
        vip: _,
        ports,
        protocol,
        scheduler,
        forward: _,
        engine: _,
        table_size: _,
        reals: _,
        names,
        real_nodes,
        check,
        policy,
    } = &server.spec;
    let vip = state.vip(server.vip);
    let engine = server.spec.engine().unwrap_or(Engine::Ebpf);
    let is_v4 = server.reals.first().is_none_or(|real| real.spec.ip.is_ipv4());
    let addresses = vip.into_iter().flat_map(|vip| &vip.spec.addresses);
    let addresses = addresses.filter(|address| address.ip.is_ipv4() == is_v4);
    let reals = server.reals.iter().map(|real| real_view(state, server, real));
    v1::Server {
        name: server_name.to_string(),
        vip: vip.map_or_else(|| server.spec.vip.to_string(), |vip| vip.spec.name.to_string()),
        ports: ports.to_string(),
        protocol: v1::Protocol::from(*protocol).into(),
        scheduler: v1::Scheduler::from(*scheduler).into(),
        forward: v1::Forward::from(server.forward).into(),
        engine: v1::Engine::from(engine).into(),
        engine_reason: format!("it has {scheduler} and {}", server.forward),
        table_size: u16::from(server.table_size).into(),
        real_nodes: real_nodes.map(u32::from),
        reals: reals.chain(sorry_view(state, server)).collect(),
        addresses: addresses.map(|address| address.ip.to_string()).collect(),
        generation: server.generation.0,
        settling_since_ms: server.before.as_ref().map(|before| before.since_ms),
        holder: name(state, vip.and_then(|vip| vip.holder)),
        fresh: member.leases.leads_applied(),
        on_nodes: vec![],
        check: check.as_ref().map(Into::into),
        policy: Some(policy.into()).filter(|_| !policy.is_usual()),
        short: short(server),
        names: names.iter().map(|real| name_view(server, real)).collect(),
    }
}

fn name_view(server: &Server, real: &NamedReal) -> v1::RealName {
    let resolved = server.answers.get(&real.name);
    let addresses = resolved.into_iter().flat_map(|resolved| &resolved.addresses);
    let is_there = |ip: &&IpAddr| server.reals.iter().any(|real| real.spec.ip == **ip);
    let (there, left_out): (Vec<_>, Vec<_>) = addresses.partition(is_there);
    let texts = |all: Vec<&IpAddr>| all.into_iter().map(ToString::to_string).collect();
    v1::RealName {
        real: real.to_string(),
        addresses: texts(there),
        left_out: texts(left_out),
        failing: resolved.and_then(|resolved| resolved.failing.clone()),
    }
}

/// What it means for clients that too few real servers are up.
pub(in crate::admin) fn short(server: &Server) -> Option<String> {
    let (up, needed, instead) = (server.up(), server.spec.policy.quorum.up, server.lacks()?);
    Some(format!(
        "{up} of its real servers are up and take new connections, {needed} have to: {instead}"
    ))
}

/// The sorry server stands beside the real ones.
fn sorry_view(state: &State, server: &Server) -> Option<v1::Real> {
    let spec = server.spec.policy.sorry?;
    let shown = real_view(state, server, &Real::new(spec, false));
    let (is, reason) = if server.is_short {
        (v1::RealState::Sorry, "sorry server: too few real servers are up")
    } else {
        (v1::RealState::Standby, "sorry server")
    };
    Some(v1::Real { state: is.into(), reason: reason.to_owned(), ..shown })
}

/// What a node sees of a real server.
pub(super) fn seen(node: String, opinion: &Opinion) -> v1::Seen {
    let (is, why) = match opinion {
        Opinion::Up => (v1::RealState::Up, None),
        Opinion::Down(why) => (v1::RealState::Down, Some(why.clone())),
        Opinion::Blind => (v1::RealState::Unchecked, None),
        Opinion::Unable(why) => (v1::RealState::Unchecked, Some(why.clone())),
    };
    v1::Seen { node, state: is.into(), why }
}

fn real_view(state: &State, server: &Server, real: &Real) -> v1::Real {
    let seen = |(node, opinion): (&NodeId, &Opinion)| seen(named(state, *node), opinion);
    let (is, reason) = state_of(state, server, real);
    let health = Some(&real.health).filter(|_| server.spec.check.is_some());
    v1::Real {
        address: server.spec.place(&real.spec),
        weight: real.spec.weight.into(),
        state: is.into(),
        reason,
        node: state.node_at(real.spec.ip).map(|node| node.name.to_string()),
        packets: None,
        bytes: None,
        connections: None,
        replies: None,
        share_percent: server.share_percent(real),
        since_ms: health.filter(|health| health.is_up.is_some()).map(|health| health.since_ms),
        seen: health.into_iter().flat_map(|health| &health.seen).map(seen).collect(),
    }
}

fn state_of(state: &State, server: &Server, real: &Real) -> (v1::RealState, String) {
    let observers = state.observers_of(server, real);
    let checked = server.spec.check.as_ref().map(|_| real.health.is_up);
    let (is, reason) = match checked {
        Some(None) if let Some(why) = real.health.unable(&observers) => {
            return (v1::RealState::Unchecked, format!("no observer can look: {why}"));
        }
        Some(Some(true)) if let Some(why) = real.health.unable(&observers) => {
            return (
                v1::RealState::Up,
                format!("it was, and no observer can look any more: {why}"),
            );
        }
        Some(None) => (v1::RealState::Unchecked, "no observer has seen yet whether it answers"),
        Some(Some(false)) => {
            (v1::RealState::Down, real.health.why(|node, one| state.counts(node, one)))
        }
        Some(Some(true)) | None if real.drained => {
            (v1::RealState::Drained, "drained by hand: no new connections")
        }
        Some(Some(true)) | None if real.spec.weight == 0 => {
            (v1::RealState::Up, "its weight is 0: no new connections")
        }
        Some(Some(true)) => (v1::RealState::Up, "its observers see that it answers"),
        None => (v1::RealState::Up, "nothing checks it: its administrator says so"),
    };
    (is, reason.to_owned())
}

/// It was sent so many connections, and said nothing to them by this host.
const UNHEARD: u64 = 3;

fn is_unheard(counter: &Counter) -> bool {
    counter.connections >= UNHEARD && counter.replies == 0
}

/// With what the holder counted.
pub(super) fn add_counts(shown: &mut v1::Server, server: &Server, counts: &[RealCount]) {
    let all = server.reals.iter().map(|real| real.spec).chain(server.spec.policy.sorry);
    for (shown, real) in shown.reals.iter_mut().zip(all) {
        let own = server.spec.port_of(&real);
        let is_it = |count: &&RealCount| {
            count.ip == real.ip && (count.port == 0 || Some(count.port) == own)
        };
        if let Some(RealCount { counter, port, .. }) = counts.iter().find(is_it) {
            shown.packets = Some(counter.packets);
            shown.bytes = Some(counter.bytes);
            shown.connections = Some(counter.connections);
            shown.replies = Some(counter.replies);
            if server.forward == Forward::Nat && *port != 0 && is_unheard(counter) {
                shown.reason += "; nothing comes back from it: its way to the clients has to be \
                                 the holder (`vipctl vs show --setup`)";
            }
        }
    }
}
