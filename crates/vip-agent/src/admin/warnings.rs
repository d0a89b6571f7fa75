//! Things a person should know, in whole sentences.

use super::servers::short;
use super::sight::named;
use super::vips::hindered;
use crate::config::HttpSection;
use crate::lease::GuardStatus;
use crate::node::Member;
use std::net::SocketAddr;
use vip_core::{Mac, Node, NodeState, Real, Server, State, Via, unsaid};
use vip_guard::GateReport;
use vip_proto::v1;

/// A text that ends no sentence yet, as one.
pub(super) fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    let first = letters.next().map(|first| first.to_uppercase().to_string());
    format!("{}{}.", first.unwrap_or_default(), letters.as_str())
}

/// Most real servers that are named in one sentence.
const NAMED: usize = 3;

/// What is wrong with the real servers of a virtual one, if something is.
fn unwell(state: &State, server: &Server) -> Option<String> {
    let is_down = |real: &&Real| real.health.is_up == Some(false);
    let down: Vec<_> = server.reals.iter().filter(is_down).collect();
    let (name, all) = (&server.spec.name, server.reals.len());
    if server.spec.check.is_none() || down.is_empty() {
        return None;
    }
    let one = |real: &&Real| {
        format!("{} ({})", real.spec.ip, real.health.why(|node, one| state.counts(node, one)))
    };
    let named: Vec<_> = down.iter().take(NAMED).map(one).collect();
    let more = if down.len() > NAMED { ", and others" } else { "" };
    Some(format!(
        "Virtual server {name} has {} of {all} real servers down: {}{more}.",
        down.len(),
        named.join(", ")
    ))
}

/// What is wrong with virtual servers, on any node.
fn of_servers(member: &Member, state: &State) -> Vec<String> {
    let mut warnings = vec![];
    for server in state.servers_by_name() {
        warnings.extend(unwell(state, server));
        let name = &server.spec.name;
        warnings.extend(short(server).map(|why| format!("Virtual server {name}: {why}.")));
        let failing =
            server.answers.iter().filter_map(|(name, it)| Some((name, it.failing.as_ref()?)));
        warnings.extend(failing.map(|(host, why)| {
            format!("Virtual server {name}: the real servers of {host} stay as they were: {why}.")
        }));
        let unable = || {
            let why = |real: &Real| {
                real.health.unable(&state.observers_of(server, real)).map(ToOwned::to_owned)
            };
            server.reals.iter().filter_map(why)
        };
        warnings.extend(unable().next().map(|why| {
            let count = unable().count();
            format!("Virtual server {name}: no observer can look at {count} real servers: {why}.")
        }));
        let unseen = |real: &&Real| state.observers_of(server, real).is_empty();
        if server.spec.check.is_some() && server.reals.iter().any(|real| unseen(&real)) {
            let name = &server.spec.name;
            warnings.push(format!(
                "Nobody observes the real servers of virtual server {name}: who is up stays so. \
                 Name active nodes with `vipctl vs set {name} --observe`, or `--observe all`."
            ));
        }
    }
    for server in state.servers_by_name() {
        for (node, what) in state.hindrances.get(&server.uid).into_iter().flatten() {
            let (node, name) = (named(state, *node), &server.spec.name);
            warnings.push(format!("On {node}, virtual server {name} {what}."));
        }
    }
    // What the log does not have of this node yet, or cannot.
    for (uid, what) in unsaid(state, member.meta.node, |server| member.forward.how(server.uid)) {
        if let Some((what, server)) = what.zip(state.server(uid)) {
            let (node, name) = (&member.meta.name, &server.spec.name);
            warnings.push(format!("On {node}, virtual server {name} {what}."));
        }
    }
    warnings
}

pub(super) fn warnings(member: &Member) -> Vec<String> {
    let mut warnings = vec![];
    if let Some(text) = member.removal() {
        warnings.push(sentence(&text));
    } else if member.leases.leader().is_none() {
        warnings.push(
            "No leader is known here: nothing can be changed, and what is shown of other nodes \
             may be old."
                .to_owned(),
        );
    }
    match member.leases.guard() {
        GuardStatus::Absent => warnings.push(
            "This node's guard is not there: it can hold no VIP. Is `vipd guard` running?".into(),
        ),
        GuardStatus::Present(GateReport::Missing(why)) => warnings.push(format!(
            "This node has no lease gate ({why}): if it freezes, it may answer beyond its lease."
        )),
        GuardStatus::Present(GateReport::Enforced { .. }) => {}
    }
    warnings.extend(member.certificate_trouble().map(|why| sentence(&why)));
    warnings.extend(member.leases.clock_trouble().map(|why| format!("{why}.")));
    let state = member.log.state();
    warnings.extend(wall_clocks(member).iter().map(|why| sentence(why)));
    for vip in state.vips_by_name() {
        // Cut off, and there all the same: pinned, or no other is better.
        let stays = vip.holder.filter(|holder| {
            let is_cut_off =
                state.cut_off.get(&vip.uid).is_some_and(|all| all.contains_key(holder));
            let is_held_up =
                state.obstacles.get(&vip.uid).is_some_and(|all| all.contains_key(holder));
            is_cut_off && !is_held_up
        });
        for v1::Hindrance { node, why, .. } in hindered(&state, vip) {
            let is_there = stays.is_some_and(|holder| named(&state, holder) == node);
            let how = if is_there { "is" } else { "cannot be" };
            warnings.push(format!("VIP {} {how} on {node}: {why}.", vip.spec.name));
        }
    }
    for vip in state.vips_by_name() {
        for (node, what) in state.conflicts.get(&vip.uid).into_iter().flatten() {
            let at = named(&state, *node);
            let by = claimant(&state, what.mac);
            let (vip, ip) = (&vip.spec.name, what.ip);
            warnings.push(format!("VIP {vip}: {by} claims {ip} as well, as {at} hears."));
        }
    }
    warnings.extend(of_servers(member, &state));
    for node in state.nodes.values().filter(|node| node.state == NodeState::Joining) {
        let lacks = member.joins.lacks(node.id);
        warnings.extend(lacks.map(|lacks| format!("{} stays joining: {lacks}.", node.name)));
    }
    warnings.extend(state.nodes.values().filter_map(no_say_warning));
    warnings.extend(twin_warning(&state));
    warnings.extend(issuer_warning(member, &state));
    warnings.extend(root_warning(&state));
    let voters = member.raft.voter_ids().len();
    if voters == 2 {
        warnings.push(
            "Two voters survive the loss of neither; a third, or a witness, would help.".into(),
        );
    }
    if let Some(why) = member.raft.store.disk().failure() {
        warnings.push(format!("The log's disk failed: {why}"));
    }
    if member.raft.store.is_in_doubt() {
        warnings.push(format!("{}: {}.", member.meta.name, vip_raft::DOUBT));
    }
    warnings
}

/// That a node's own network is broken, as far as others see.
fn no_say_warning(node: &Node) -> Option<String> {
    let why = node.no_say.as_ref()?;
    Some(format!(
        "{} has no say in which real servers are down: it saw none of those that others see up \
         ({why}), so its network is broken, or was a minute ago.",
        node.name
    ))
}

/// That the cluster which this one was made of may be alive.
fn twin_warning(state: &State) -> Option<String> {
    let names = state.cut_off_nodes();
    (!names.is_empty()).then(|| {
        format!(
            "This cluster was made of another one, and {} of that may be alive: a VIP that they \
             answer for is let go of here. Join them again (`vipctl leave --force` on them first), \
             or say that they are gone for good: `vipctl node remove NAME`.",
            names.join(", ")
        )
    })
}

/// What is left to do about the CA that signs.
fn issuer_warning(member: &Member, state: &State) -> Option<String> {
    let issuers = state.issuers()?;
    if issuers.is_rotating() {
        let missing = crate::node::reissue::missing(member);
        let whom = if missing.is_empty() { "members".into() } else { missing.join(", ") };
        return Some(format!(
            "The issuing CA is being replaced; {whom} have to take certificates."
        ));
    }
    let names: Vec<_> = issuers.suspects.iter().map(|s| s.name.to_string()).collect();
    (!names.is_empty()).then(|| {
        format!(
            "{} was removed for cause and may have kept the issuing key, which signs \
             certificates: run `vipctl ca rotate --root-key-file FILE` on a voter.",
            names.join(", ")
        )
    })
}

/// That a new issuer is not enough.
fn root_warning(state: &State) -> Option<String> {
    let exposed = &state.issuers()?.root_exposed;
    let names: Vec<_> = exposed.iter().map(ToString::to_string).collect();
    (!names.is_empty()).then(|| {
        format!(
            "The root CA's key was once on {}, which was removed for cause: make a new cluster, \
             and move the VIPs there.",
            names.join(", ")
        )
    })
}

/// What is wrong with the members' wall clocks, as far as this node sees.
pub(super) fn wall_clocks(member: &Member) -> Vec<String> {
    let own = member.log.own_clock_is_far().map(|far| far.to_string());
    own.into_iter().chain(member.log.clock_differences()).collect()
}

/// VIPs that load balancers send clients to, and that no other host can ask this one for.
pub(super) fn nobody_can_ask(http: &HttpSection, state: &State) -> Vec<String> {
    let is_open = |at: Option<&SocketAddr>| at.is_some_and(|at| !at.ip().is_loopback());
    let unasked = state.vips_by_name().into_iter().filter(|vip| {
        let name = vip.spec.name.as_str();
        vip.spec.via == Via::Lb && !is_open(http.listen.as_ref()) && !is_open(http.tcp.get(name))
    });
    let told = unasked.map(|vip| {
        format!(
            "VIP {} goes to whoever a load balancer finds well, and none can ask this node: set \
             http.listen in vipd.toml to an address of this host.",
            vip.spec.name
        )
    });
    told.collect()
}

/// Who has an interface with this address.
pub(super) fn claimant(state: &State, mac: Mac) -> String {
    match state.node_with(mac) {
        Some(node) => format!("{} ({mac})", named(state, node)),
        None => format!("another host ({mac})"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use vip_core::{Vip, VipSpec, VipUid};

    #[test]
    fn a_balancer_has_to_be_able_to_ask() {
        let spec = VipSpec {
            name: "web".parse().expect("a name"),
            addresses: vec![],
            interface: None,
            placement: vip_core::Placement::Leader,
            no_probe: false,
            via: Via::Lb,
            params: [].into(),
        };
        let vip = Vip::new(VipUid(1), spec);
        let with = |via| {
            let mut vip = vip.clone();
            vip.spec.via = via;
            let mut state = State::default();
            state.vips = Arc::new([(VipUid(1), Arc::new(vip))].into());
            state
        };
        let at = |text: &str| text.parse::<SocketAddr>().ok();
        let own = HttpSection::default();
        let warned = nobody_can_ask(&own, &with(Via::Lb));
        assert!(warned[0].contains("VIP web") && warned[0].contains("http.listen"), "{warned:?}");
        assert!(nobody_can_ask(&own, &with(Via::Garp)).is_empty());
        let open = HttpSection { listen: at("10.0.0.1:7480"), ..HttpSection::default() };
        assert!(nobody_can_ask(&open, &with(Via::Lb)).is_empty());
        let tcp = at("0.0.0.0:9000").map(|at| ("web".to_owned(), at)).into_iter().collect();
        let by_tcp = HttpSection { tcp, ..HttpSection::default() };
        assert!(nobody_can_ask(&by_tcp, &with(Via::Lb)).is_empty());
    }
}
