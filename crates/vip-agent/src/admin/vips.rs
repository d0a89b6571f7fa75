//! Calls about VIPs.

use super::call::{AdminService, Call};
use super::views::{Sight, trouble};
use crate::errors::{from_refusal, invalid};
use crate::node::Member;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::Instant;
use tonic::{Code, Status};
use vip_core::{Epoch, Name, NodeId, Placement, Refusal, State, Vip, VipOp, VipSpec, Why, excerpt};
use vip_proto::v1;

fn spec(message: v1::VipSpec) -> Result<VipSpec, Status> {
    let placement = match message.placement.as_str() {
        "" => Placement::default(),
        text => text.parse().map_err(invalid)?,
    };
    let addresses = message.addresses.iter().map(|a| a.parse()).collect::<Result<_, _>>();
    let spec = VipSpec {
        name: message.name.parse().map_err(invalid)?,
        addresses: addresses.map_err(|e: vip_core::AddressError| invalid(e))?,
        interface: Some(message.interface).filter(|i| !i.is_empty()),
        placement,
        no_probe: message.no_probe,
    };
    spec.check().map_err(invalid)?;
    Ok(spec)
}

/// Whether a spec makes sense, whatever else there is.
pub(super) fn check(message: Option<&v1::VipSpec>) -> Result<(), Status> {
    spec(message.cloned().ok_or_else(|| invalid("no spec"))?).map(drop)
}

fn unknown(name: &str) -> Status {
    from_refusal(&Refusal::UnknownVip { name: excerpt(name) })
}

pub(super) fn find<'a>(state: &'a State, name: &str) -> Result<&'a Vip, Status> {
    state.vip_named(name).ok_or_else(|| unknown(name))
}

impl AdminService {
    pub(super) async fn do_add_vip(
        &self,
        call: &Call,
        request: v1::AddVipRequest,
    ) -> Result<v1::AddVipReply, Status> {
        let spec = spec(request.spec.ok_or_else(|| invalid("no spec"))?)?;
        let name = spec.name.clone();
        let was_there = call.member.raft.state().vip_named(name.as_str()).is_some();
        call.propose(VipOp::Add { spec }).await?;
        if request.no_wait {
            let state = call.member.raft.state();
            let vip = state
                .vip_named(name.as_str())
                .map(|vip| super::views::vip(&Sight::of(&call.member), &state, vip));
            return Ok(v1::AddVipReply { vip });
        }
        let vip = match wait_until_it_answers(call, &name, None).await {
            Err(status) if status.code() == Code::FailedPrecondition && !was_there => {
                call.propose(VipOp::Remove { name }).await?;
                let text = format!(
                    "{}. Nothing was left behind; with --no-wait it is kept, and tried again",
                    status.message()
                );
                return Err(Status::failed_precondition(text));
            }
            result => result?,
        };
        Ok(v1::AddVipReply { vip: Some(vip) })
    }

    pub(super) async fn do_move_vip(
        &self,
        call: &Call,
        request: &v1::MoveVipRequest,
    ) -> Result<v1::MoveVipReply, Status> {
        let state = call.member.raft.state();
        let name = find(&state, &request.name)?.spec.name.clone();
        let to = match request.to.as_str() {
            "" => None,
            node => {
                let refusal = || Refusal::UnknownNode { name: excerpt(node) };
                let node = state.node_named(node).ok_or_else(|| from_refusal(&refusal()))?;
                if !call.member.shared.alive().contains(&node.id) {
                    let why = "the leader does not hear it at the moment".to_owned();
                    let refusal = Refusal::CannotHold { name: node.name.clone(), why };
                    return Err(from_refusal(&refusal));
                }
                Some(node.id)
            }
        };
        if let Some(why) =
            to.and_then(|to| hindrance(&state, find(&state, &request.name).ok()?, to))
        {
            return Err(from_refusal(&why));
        }
        call.propose(VipOp::Pin { name: name.clone(), to }).await?;
        let unpinned = || call.member.raft.state().vip_named(name.as_str()).cloned();
        // Where it goes now that nobody says it.
        let at = to.or_else(|| call.member.shared.target(&unpinned()?));
        let vip = match wait_until_it_answers(call, &name, at).await {
            // Nobody should be surprised by it later.
            Err(status) if status.code() == Code::FailedPrecondition => {
                call.propose(VipOp::Pin { name, to: None }).await?;
                return Err(status);
            }
            result => result?,
        };
        Ok(v1::MoveVipReply { vip: Some(vip) })
    }

    pub(super) async fn do_remove_vip(
        &self,
        call: &Call,
        name: &str,
    ) -> Result<v1::RemoveVipReply, Status> {
        let state = call.member.raft.state();
        let vip = find(&state, name)?.clone();
        call.propose(VipOp::Remove { name: vip.spec.name.clone() }).await?;
        // Gone when nothing answers for it any more.
        let gone = |state: &State| match state.vip_or_retired(vip.uid) {
            None => Some(()),
            Some(left) => {
                let never_granted = left.settled.is_none();
                (never_granted || call.member.shared.ended(left) >= left.epoch).then_some(())
            }
        };
        call.wait(gone, |_| format!("the last holder of {name} has not released it yet")).await?;
        Ok(v1::RemoveVipReply {})
    }
}

/// Why a node cannot hold a VIP, as it says.
pub(super) fn hindrance(state: &State, vip: &Vip, node: NodeId) -> Option<Refusal> {
    let why = state.obstacles.get(&vip.uid)?.get(&node)?;
    cannot_hold(state, node, why.to_string())
}

fn cannot_hold(state: &State, node: NodeId, why: String) -> Option<Refusal> {
    let name = state.nodes.get(&node)?.name.clone();
    Some(Refusal::CannotHold { name, why })
}

/// Nodes that can hold nothing and could not for so long that it is for good, as
/// far as anybody can tell; `since` remembers from when.
fn unfit_for_long(
    member: &Member,
    state: &State,
    since: &mut BTreeMap<NodeId, Instant>,
) -> BTreeMap<NodeId, &'static str> {
    let troubles = state.nodes.keys().filter_map(|node| Some((*node, trouble(member, *node)?)));
    let troubles: BTreeMap<_, _> = troubles.collect();
    since.retain(|node, _| troubles.contains_key(node));
    let mut lasts =
        |node: &NodeId| since.entry(*node).or_insert_with(Instant::now).elapsed() >= GUARD_APPEARS;
    troubles.into_iter().filter(|(node, _)| lasts(node)).collect()
}

/// A guard that was just started, or started anew, is there within this time.
const GUARD_APPEARS: Duration = Duration::from_secs(2);

/// That no node can hold a VIP, if each of those that are there says so, or one
/// has an address of it for itself: to wait longer would help only if that
/// changed.
fn nowhere(
    member: &Member,
    state: &State,
    vip: &Vip,
    is_unfit: impl Fn(NodeId) -> bool,
) -> Option<Status> {
    let alive = member.shared.alive();
    let none = BTreeMap::new();
    let known = state.obstacles.get(&vip.uid).unwrap_or(&none);
    // What was refused before somebody said that it is meant to be.
    let is_meant = |why: &Why| matches!(why, Why::Answered(_)) && vip.spec.no_probe;
    let hindered = |node: &NodeId| {
        let obstacle = known.get(node).is_some_and(|what| !is_meant(&what.why));
        obstacle || is_unfit(*node)
    };
    let may_hold = |n: &&vip_core::Node| n.may_hold() && alive.contains(&n.id);
    let mut there = state.nodes.values().filter(may_hold).peekable();
    // Of none that is there nothing is known.
    let all = there.peek().is_some() && there.all(|node| hindered(&node.id));
    let own = known.values().any(|what| what.why == Why::HostHasIt) && vip.answered == Epoch(0);
    (vip.answered < vip.epoch.max(Epoch(1)) && (all || own)).then(|| {
        let (name, why) = (&vip.spec.name, super::views::hindrances(member, state, vip));
        Status::failed_precondition(format!("no node can hold {name}{why}"))
    })
}

pub(super) async fn wait_until_it_answers(
    call: &Call,
    name: &Name,
    at: Option<NodeId>,
) -> Result<v1::Vip, Status> {
    wait_until_it_answers_from(call, name, at, Instant::now()).await
}

/// The same, for a VIP that was changed: until then nodes may still say what
/// hindered them before.
pub(super) async fn wait_until_it_answers_from(
    call: &Call,
    name: &Name,
    at: Option<NodeId>,
    settled: Instant,
) -> Result<v1::Vip, Status> {
    let member = &call.member;
    let mut since = BTreeMap::new();
    let look = |state: &State| {
        let unfit = unfit_for_long(member, state, &mut since);
        let Some(vip) = state.vip_named(name.as_str()) else {
            let text = format!("the command was carried out, but VIP {name} was removed after it");
            return Some(Err(Status::aborted(text)));
        };
        let there = at.is_none_or(|at| vip.holder == Some(at));
        let answers = member.shared.answers(vip);
        // Also by the log, so that every other command says the same.
        let logged = vip.answered == vip.epoch;
        if there && logged && answers.whole && answers.before_ended {
            return Some(Ok(super::views::vip(&Sight::of(member), state, vip)));
        }
        if Instant::now() >= settled
            && let Some(nowhere) = nowhere(member, state, vip, |node| unfit.contains_key(&node))
        {
            return Some(Err(nowhere));
        }
        let is_unfit = |at| cannot_hold(state, at, (*unfit.get(&at)?).to_owned());
        let why = at.and_then(|at| hindrance(state, vip, at).or_else(|| is_unfit(at)))?;
        Some(Err(from_refusal(&why)))
    };
    let missing = |state: &State| {
        let vip = state.vip_named(name.as_str());
        let why = vip.map(|vip| super::views::hindrances(member, state, vip)).unwrap_or_default();
        match vip.and_then(|vip| vip.holder).and_then(|holder| state.node_name(holder)) {
            Some(node) => format!("{name} is assigned to {node}, which does not answer yet{why}"),
            None => format!("no node can hold {name} at the moment{why}"),
        }
    };
    call.wait(look, missing).await?
}
