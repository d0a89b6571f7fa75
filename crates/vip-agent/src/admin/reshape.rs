//! `vip set`: a VIP is changed while it answers.
//!
//! Addresses to come are given to a VIP of their own first, on the holder: if they
//! cannot be there, or somebody has them, nothing of the other was touched.

use super::service::Call;
use super::vips::{find, hindrance, wait_until_it_answers, wait_until_it_answers_from};
use crate::errors::{from_refusal, invalid};
use std::time::Duration;
use tokio::time::{Instant, sleep};
use tonic::Status;
use vip_core::{Name, NodeId, Op, Placement, State, Vip, VipAddress, VipSpec, VipUid};
use vip_proto::v1;

/// Ends the name of a VIP that holds addresses until they join another.
const GUEST: &str = "-joining";
/// After so many heartbeats every node that is there has said what hinders it now.
const REPORTS: u32 = 10;
/// Longest name (RFC 1035 section 2.3.4).
const MAX_NAME: usize = 63;

fn wanted(old: &VipSpec, request: &v1::SetVipRequest) -> Result<VipSpec, Status> {
    let mut spec = old.clone();
    if !request.addresses.is_empty() {
        let addresses = request.addresses.iter().map(|a| a.parse::<VipAddress>());
        spec.addresses = addresses.collect::<Result<_, _>>().map_err(invalid)?;
    }
    if let Some(interface) = &request.interface {
        spec.interface = Some(interface.clone()).filter(|name| !name.is_empty());
    }
    if let Some(placement) = &request.placement {
        spec.placement = placement.parse().map_err(invalid)?;
    }
    spec.no_probe = request.no_probe.unwrap_or(spec.no_probe);
    spec.check().map_err(invalid)?;
    Ok(spec)
}

pub(super) async fn set_vip(
    call: &Call,
    request: &v1::SetVipRequest,
) -> Result<v1::SetVipReply, Status> {
    let state = call.member.raft.state();
    let old = find(&state, &request.name)?.clone();
    let spec = wanted(&old.spec, request)?;
    let guest = guest_name(&spec.name)?;
    if state.vip_named(guest.as_str()).is_some_and(|left| left.trial) {
        // The leader that asked was lost before it heard the answers.
        call.propose(Op::RemoveVip { name: guest }).await?;
    }
    let come: Vec<VipAddress> =
        spec.addresses.iter().copied().filter(|a| !old.spec.has(a.ip)).collect();
    let held = old.holder.filter(|_| old.answered == old.epoch && old.fenced < old.epoch);
    let heard = state.profile().timing().heartbeat * REPORTS;
    if let Some(holder) = held.filter(|_| spec.interface != old.spec.interface) {
        tried(call, &spec, holder, heard).await?;
    }
    match held.filter(|_| !come.is_empty()) {
        Some(holder) => joined(call, &old, &spec, come, holder).await?,
        None => {
            call.propose(Op::SetVip { spec: spec.clone(), guest: None }).await?;
        }
    }
    let settled = Instant::now() + heard;
    let vip = match wait_until_it_answers_from(call, &spec.name, None, settled).await {
        // What cannot be anywhere is not left to whoever is on call tonight.
        Err(status) if status.code() == tonic::Code::FailedPrecondition && spec != old.spec => {
            call.propose(Op::SetVip { spec: old.spec, guest: None }).await?;
            let text = format!("{}. It is as it was before", status.message());
            return Err(Status::failed_precondition(text));
        }
        result => result?,
    };
    Ok(v1::SetVipReply { vip: Some(vip) })
}

/// Asks the holder whether it could have the VIP where it is to be.
async fn tried(call: &Call, spec: &VipSpec, holder: NodeId, heard: Duration) -> Result<(), Status> {
    let name = guest_name(&spec.name)?;
    let trial = VipSpec { name: name.clone(), ..spec.clone() };
    call.propose(Op::TryVip { spec: trial }).await?;
    sleep(heard.min(call.time_left())).await;
    let state = call.member.raft.state();
    let why = state.vip_named(name.as_str()).and_then(|trial| hindrance(&state, trial, holder));
    call.propose(Op::RemoveVip { name }).await?;
    match why {
        Some(why) => Err(as_before(from_refusal(&why), &spec.name)),
        None => Ok(()),
    }
}

/// A refusal that left the VIP alone.
fn as_before(status: Status, vip: &Name) -> Status {
    Status::new(status.code(), format!("{}. VIP {vip} is as it was", status.message()))
}

/// Has the holder answer for the addresses to come before they join the VIP.
async fn joined(
    call: &Call,
    old: &Vip,
    spec: &VipSpec,
    come: Vec<VipAddress>,
    holder: NodeId,
) -> Result<(), Status> {
    let guest = guest_name(&old.spec.name)?;
    let prepared = prepare(call, &guest, spec, come, holder).await;
    let result = match prepared {
        Ok(uid) => {
            let change = Op::SetVip { spec: spec.clone(), guest: Some(guest.clone()) };
            call.propose(change).await.map(|_| uid)
        }
        Err(status) => Err(status),
    };
    match result {
        Ok(uid) => taken_over(call, uid).await,
        Err(status) => {
            if call.member.raft.state().vip_named(guest.as_str()).is_some() {
                call.propose(Op::RemoveVip { name: guest }).await?;
            }
            Err(as_before(status, &old.spec.name))
        }
    }
}

fn guest_name(name: &Name) -> Result<Name, Status> {
    let kept: String = name.as_str().chars().take(MAX_NAME - GUEST.len()).collect();
    format!("{kept}{GUEST}").parse().map_err(invalid)
}

async fn prepare(
    call: &Call,
    guest: &Name,
    spec: &VipSpec,
    addresses: Vec<VipAddress>,
    holder: NodeId,
) -> Result<VipUid, Status> {
    let name = guest.clone();
    // One that a leader left behind when it was lost is gone on with.
    let guest = VipSpec { name, addresses, placement: Placement::Sticky, ..spec.clone() };
    let name = guest.name.clone();
    call.propose(Op::AddVip { spec: guest }).await?;
    call.propose(Op::PinVip { name: name.clone(), to: Some(holder) }).await?;
    wait_until_it_answers(call, &name, Some(holder)).await?;
    let uid = call.member.raft.state().vip_named(name.as_str()).map(|vip| vip.uid);
    uid.ok_or_else(|| Status::aborted(format!("VIP {name} was removed meanwhile")))
}

/// Waits until the guest answers nowhere: its holder told so when what joined was
/// there.
async fn taken_over(call: &Call, guest: VipUid) -> Result<(), Status> {
    let gone = |state: &State| match state.vip_or_retired(guest) {
        None => Some(()),
        Some(left) => (call.member.shared.ended(left) >= left.epoch).then_some(()),
    };
    call.wait(gone, |_| "its holder has not taken over the new addresses yet".into()).await
}
