//! Calls about VIPs.

use super::service::{AdminService, Call};
use crate::errors::{from_refusal, invalid};
use tonic::Status;
use vip_core::{Name, NodeId, Obstacle, Op, Placement, Refusal, State, Vip, VipSpec, Why, excerpt};
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

fn unknown(name: &str) -> Status {
    from_refusal(&Refusal::UnknownVip { name: excerpt(name) })
}

fn find<'a>(state: &'a State, name: &str) -> Result<&'a Vip, Status> {
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
        call.propose(Op::AddVip { spec }).await?;
        let vip = wait_until_it_answers(call, &name, None).await?;
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
        call.propose(Op::PinVip { name: name.clone(), to }).await?;
        let vip = wait_until_it_answers(call, &name, to).await?;
        Ok(v1::MoveVipReply { vip: Some(vip) })
    }

    pub(super) async fn do_remove_vip(
        &self,
        call: &Call,
        name: &str,
    ) -> Result<v1::RemoveVipReply, Status> {
        let state = call.member.raft.state();
        let vip = find(&state, name)?.clone();
        call.propose(Op::RemoveVip { name: vip.spec.name.clone() }).await?;
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

/// That it answers nowhere because others have its addresses, if that is so: to
/// wait longer would help only if they went.
fn taken(state: &State, vip: &Vip) -> Option<Status> {
    let known = state.obstacles.get(&vip.uid)?;
    let mut may_hold = state.nodes.values().filter(|node| node.may_hold());
    let is_taken = |obstacle: &Obstacle| match obstacle.why {
        Why::AnsweredBy(_) => true,
        Why::Answered(_) => !vip.spec.no_probe,
        _ => false,
    };
    let nowhere = vip.answered < vip.epoch && may_hold.all(|node| known.contains_key(&node.id));
    (nowhere && known.values().any(is_taken)).then(|| {
        let (name, why) = (&vip.spec.name, super::views::hindrances(state, vip));
        Status::failed_precondition(format!(
            "no node can hold {name}{why}. The VIP stays, and is tried again from time to time"
        ))
    })
}

async fn wait_until_it_answers(
    call: &Call,
    name: &Name,
    at: Option<NodeId>,
) -> Result<v1::Vip, Status> {
    let member = &call.member;
    let look = |state: &State| {
        let Some(vip) = state.vip_named(name.as_str()) else {
            let text = format!("the command was carried out, but VIP {name} was removed after it");
            return Some(Err(Status::aborted(text)));
        };
        if let Some(taken) = taken(state, vip) {
            return Some(Err(taken));
        }
        let there = at.is_none_or(|at| vip.holder == Some(at));
        let answers = member.shared.answers(vip);
        // Also by the log, so that every other command says the same.
        let logged = vip.answered == vip.epoch;
        (there && logged && answers.open && answers.before_ended)
            .then(|| Ok(super::views::vip(state, vip)))
    };
    let missing = |state: &State| {
        let vip = state.vip_named(name.as_str());
        let why = vip.map(|vip| super::views::hindrances(state, vip)).unwrap_or_default();
        match vip.and_then(|vip| vip.holder).and_then(|holder| state.node_name(holder)) {
            Some(node) => format!("{name} is assigned to {node}, which does not answer yet{why}"),
            None => format!("no node can hold {name} at the moment{why}"),
        }
    };
    call.wait(look, missing).await?
}
