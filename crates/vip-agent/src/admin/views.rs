//! What the state looks like from outside.

use crate::lease::GuardStatus;
use crate::node::Member;
use std::collections::BTreeSet;
use vip_core::{Mac, NodeId, NodeState, Obstacle, State, Token, Vip};
use vip_guard::GateReport;
use vip_proto::v1;

pub(super) fn name(state: &State, node: Option<NodeId>) -> String {
    node.and_then(|id| state.node_name(id)).map(ToString::to_string).unwrap_or_default()
}

/// What a node can know of others.
pub(super) struct Sight<'a> {
    member: &'a Member,
    /// It leads, and its state is the newest.
    fresh: bool,
    alive: BTreeSet<NodeId>,
}

impl<'a> Sight<'a> {
    pub(super) fn of(member: &'a Member) -> Self {
        let (fresh, alive) = (member.shared.leads_applied(), member.shared.alive());
        Self { member, fresh, alive }
    }
}

/// Whether a VIP answers, as far as this node can know: the leader, which hears
/// its holder; and the holder itself.
fn answers(sight: &Sight<'_>, vip: &Vip) -> bool {
    let Sight { member, fresh, alive } = sight;
    let logged = vip.answered == vip.epoch && vip.fenced < vip.epoch;
    let here = vip.holder == Some(member.meta.node);
    let heard = || *fresh && vip.holder.is_some_and(|holder| alive.contains(&holder));
    logged && if here { member.shared.holds(vip) } else { heard() }
}

pub(super) fn vip(sight: &Sight<'_>, state: &State, vip: &Vip) -> v1::Vip {
    v1::Vip {
        fresh: sight.fresh,
        silent: vip.holder == Some(sight.member.meta.node) && !sight.member.shared.holds(vip),
        name: vip.spec.name.to_string(),
        addresses: vip.spec.addresses.iter().map(ToString::to_string).collect(),
        interface: vip.spec.interface.clone().unwrap_or_default(),
        placement: vip.spec.placement.as_str().to_owned(),
        holder: name(state, vip.holder),
        epoch: vip.epoch.0,
        since_ms: vip.since_ms,
        cause: vip.cause.map(|c| c.as_str().to_owned()).unwrap_or_default(),
        answers: answers(sight, vip),
        pinned: name(state, vip.pinned),
        no_probe: vip.spec.no_probe,
        hindered: hindered(state, vip),
    }
}

fn hindrance(state: &State, vip: &Vip, node: NodeId, why: &Obstacle) -> v1::Hindrance {
    v1::Hindrance {
        node: name(state, Some(node)),
        why: why.to_string(),
        vip: vip.spec.name.to_string(),
    }
}

fn hindered(state: &State, vip: &Vip) -> Vec<v1::Hindrance> {
    let nodes = state.obstacles.get(&vip.uid).into_iter().flatten();
    nodes.map(|(node, why)| hindrance(state, vip, *node, why)).collect()
}

/// Why a node can hold nothing at all, as far as this one knows.
pub(super) fn trouble(member: &Member, node: NodeId) -> Option<&'static str> {
    member.shared.fitness_of(node)?.trouble()
}

/// Who has an interface with this address.
pub(super) fn claimant(state: &State, mac: Mac) -> String {
    match state.node_with(mac) {
        Some(node) => format!("{} ({mac})", name(state, Some(node))),
        None => format!("another host ({mac})"),
    }
}

/// What hinders nodes from holding the VIP, as the end of a sentence.
pub(super) fn hindrances(member: &Member, state: &State, vip: &Vip) -> String {
    let mut reasons: Vec<(String, Vec<&str>)> = vec![];
    for node in state.nodes.values().filter(|node| node.may_hold()) {
        let obstacle = || state.obstacles.get(&vip.uid)?.get(&node.id).map(ToString::to_string);
        let why = trouble(member, node.id).map(ToOwned::to_owned).or_else(obstacle);
        let Some(why) = why else { continue };
        match reasons.iter_mut().find(|(known, _)| *known == why) {
            Some((_, nodes)) => nodes.push(node.name.as_str()),
            None => reasons.push((why, vec![node.name.as_str()])),
        }
    }
    reasons.iter().map(|(why, nodes)| format!("; on {}: {why}", nodes.join(", "))).collect()
}

pub(super) fn vips(member: &Member) -> Vec<v1::Vip> {
    let state = member.raft.state();
    let sight = Sight::of(member);
    state.vips_by_name().into_iter().map(|v| vip(&sight, &state, v)).collect()
}

pub(super) fn nodes(member: &Member) -> Vec<v1::Node> {
    let state = member.raft.state();
    let leader = member.shared.leader();
    // Only the leader hears everybody.
    let alive = member.shared.has_lease().then(|| member.shared.alive());
    let vips = state.vips_by_name();
    let node = |node: &vip_core::Node| {
        let lost = alive.as_ref().is_some_and(|alive| !alive.contains(&node.id));
        let state_text = match node.state {
            NodeState::Active if lost => "lost",
            // Whoever hears nobody knows of itself alone.
            NodeState::Active if alive.is_none() && node.id != member.meta.node => "unknown",
            other => other.as_str(),
        };
        let held = vips.iter().filter(|v| v.holder == Some(node.id));
        // Of itself it knows what it answers for, whoever leads.
        let own = node.id == member.meta.node && alive.is_none();
        let held = held.filter(|v| !own || member.shared.holds(v));
        v1::Node {
            id: node.id.0,
            name: node.name.to_string(),
            role: node.role.to_string(),
            state: state_text.to_owned(),
            address: node.advertise.clone(),
            leader: leader == Some(node.id),
            vips: held.map(|v| v.spec.name.to_string()).collect(),
            since_ms: node.since_ms,
            fresh: alive.is_some(),
            trouble: trouble(member, node.id)
                .filter(|_| node.role.holds())
                .unwrap_or_default()
                .to_owned(),
            hindered: vips
                .iter()
                .filter_map(|vip| {
                    let why = state.obstacles.get(&vip.uid)?.get(&node.id)?;
                    Some(hindrance(&state, vip, node.id, why))
                })
                .collect(),
            version: node.runs.version.clone(),
        }
    };
    let mut all: Vec<v1::Node> = state.nodes.values().map(node).collect();
    all.sort_by(|a, b| a.name.cmp(&b.name));
    all
}

pub(super) fn status(member: &Member) -> v1::StatusReply {
    // Before the state is looked at: nobody else can have committed anything
    // until now, so the state has it all.
    let fresh = member.shared.leads_applied();
    let state = member.raft.state();
    let leader = member.shared.leader();
    v1::StatusReply {
        cluster: member.meta.cluster_name.to_string(),
        term: state.term.0,
        leader: name(&state, leader),
        // The leader's lease, or this node's promise to it, is the proof.
        quorum: leader.is_some(),
        nodes: nodes(member),
        vips: vips(member),
        node: member.meta.name.to_string(),
        profile: state.profile().to_string(),
        warnings: warnings(member),
        gate: gate(&member.shared.guard()),
        fresh,
        removed: member.removal().unwrap_or_default(),
    }
}

fn gate(guard: &GuardStatus) -> String {
    match guard {
        GuardStatus::Absent => "no guard".into(),
        GuardStatus::Present(GateReport::Enforced { .. }) => "enforced".into(),
        GuardStatus::Present(GateReport::Missing(why)) => format!("missing: {why}"),
    }
}

/// A text that ends no sentence yet, as one.
fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    let first = letters.next().map(|first| first.to_uppercase().to_string());
    format!("{}{}.", first.unwrap_or_default(), letters.as_str())
}

fn warnings(member: &Member) -> Vec<String> {
    let mut warnings = vec![];
    if let Some(text) = member.removal() {
        warnings.push(sentence(&text));
    } else if member.shared.leader().is_none() {
        warnings.push(
            "No leader is known here: nothing can be changed, and what is shown of other nodes \
             may be old."
                .to_owned(),
        );
    }
    match member.shared.guard() {
        GuardStatus::Absent => warnings.push(
            "This node's guard is not there: it can hold no VIP. Is `vipd guard` running?".into(),
        ),
        GuardStatus::Present(GateReport::Missing(_)) => warnings.push(
            "This node has no lease gate: if it freezes, it may answer beyond its lease.".into(),
        ),
        GuardStatus::Present(GateReport::Enforced { .. }) => {}
    }
    warnings.extend(member.certificate_trouble().map(|why| sentence(&why)));
    warnings.extend(member.shared.clock_trouble().map(|why| format!("{why}.")));
    let state = member.raft.state();
    warnings.extend(wall_clocks(member).iter().map(|why| sentence(why)));
    for vip in state.vips_by_name() {
        for v1::Hindrance { node, why, .. } in hindered(&state, vip) {
            warnings.push(format!("VIP {} cannot be on {node}: {why}.", vip.spec.name));
        }
    }
    for vip in state.vips_by_name() {
        for (node, what) in state.conflicts.get(&vip.uid).into_iter().flatten() {
            let (at, by) = (name(&state, Some(*node)), claimant(&state, what.mac));
            let (vip, ip) = (&vip.spec.name, what.ip);
            warnings.push(format!("VIP {vip}: {by} claims {ip} as well, as {at} hears."));
        }
    }
    for node in state.nodes.values().filter(|node| node.state == NodeState::Joining) {
        let lacks = member.joins.lacks(node.id);
        warnings.extend(lacks.map(|lacks| format!("{} stays joining: {lacks}.", node.name)));
    }
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

pub(super) fn tokens(member: &Member) -> v1::ListTokensReply {
    let (state, now) = (member.raft.state(), member.time_ms());
    let token = |token: &Token| {
        let uses = u32::try_from(token.used.len()).unwrap_or(u32::MAX);
        let state = if token.revoked {
            "revoked"
        } else if uses >= token.max_uses {
            "used"
        } else if now >= token.expires_ms {
            "expired"
        } else {
            "open"
        };
        v1::Token {
            id: token.id.to_string(),
            role: token.role.to_string(),
            expires_ms: token.expires_ms,
            uses,
            max_uses: token.max_uses,
            state: state.to_owned(),
            created_by: token.created_by.clone(),
        }
    };
    v1::ListTokensReply { tokens: state.tokens.values().map(token).collect() }
}

pub(super) fn logins(member: &Member) -> v1::ListLoginsReply {
    let (state, now) = (member.raft.state(), member.time_ms());
    let good = state.logins.values().filter(|login| login.expires_ms > now);
    let login = |login: &vip_core::Login| v1::Login {
        user: login.user.to_string(),
        role: login.role.to_string(),
        expires_ms: login.expires_ms,
        issued_by: login.issued_by.clone(),
        key: login.spki.clone(),
    };
    v1::ListLoginsReply { logins: good.map(login).collect() }
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
    let own = member.own_clock_is_far().map(|far| far.to_string());
    own.into_iter().chain(member.clock_differences()).collect()
}
