//! `vip set`: a VIP is changed while it answers.
//!
//! Addresses to come are given to a guest first, a VIP that is there for this
//! change alone, on the holder: if they cannot be there, or somebody has them,
//! nothing of the other was touched. A new interface, or another way to be found, is
//! tried by a guest that nobody holds.

use super::{find, view, wait_until_it_answers, wait_until_it_answers_from};
use crate::admin::call::Call;
use crate::admin::sight::Sight;
use crate::errors::{from_refusal, from_write, invalid};
use crate::node::COMMIT_TIMEOUT;
use std::time::Duration;
use tokio::time::sleep;
use tonic::{Code, Status};
use vip_core::{
    Guest, Name, NodeId, Placement, Refusal, State, Vip, VipAddress, VipOp, VipSpec, VipUid,
};
use vip_guard::boottime;
use vip_proto::v1;

/// Ends the name of a guest.
const GUEST: &str = "-joining";
/// Longest name (RFC 1035 section 2.3.4), less a number.
const MAX_NAME: usize = 60;
/// After so many heartbeats every node that is there has said what hinders it now,
const REPORTS: u32 = 10;
/// and not before: it looks at its routes, and the leader writes down what it says.
const LEAST: Duration = Duration::from_millis(500);

/// Carries a change to its end, or leaves nothing of it.
pub(super) async fn set_vip(
    call: &Call,
    request: v1::SetVipRequest,
) -> Result<v1::SetVipReply, Status> {
    // One after the other: what one looked at the next must not have changed.
    let turn = tokio::time::timeout(call.time_left(), call.member.reshaping.lock());
    let _one = turn.await.map_err(|_| {
        Status::deadline_exceeded("another VIP is being changed. Nothing was changed; try again")
    })?;
    let state = call.member.log.state();
    let old = find(&state, &request.name)?.clone();
    let spec = request.changes(&old.spec).map_err(invalid)?;
    if (spec.via, &spec.params) != (old.spec.via, &old.spec.params) {
        super::can_be_called(call, &spec).await?;
    }
    end_guests(call, old.uid).await?;
    let heard = heard(&state);
    let held = old.holder.filter(|_| old.answered == old.epoch && old.fenced < old.epoch);
    let place = |spec: &VipSpec| (spec.interface.clone(), spec.via, spec.params.clone());
    let moves = place(&spec) != place(&old.spec) || spec.addresses != old.spec.addresses;
    let changed = async {
        if let Some(holder) = held.filter(|_| place(&spec) != place(&old.spec)) {
            tried(call, (&old, &spec), holder, heard).await?;
        }
        let guest = match held {
            // Who is told where a VIP is knows nothing of guests.
            Some(holder) if !spec.via.is_called() => joining(call, (&old, &spec), holder).await?,
            _ => None,
        };
        let (spec, seen) = (spec.clone(), old.revision);
        call.propose(VipOp::Set { spec, seen, guest }).await
    };
    if let Err(status) = changed.await {
        // Whatever the time that the caller allowed.
        end_guests(call, old.uid).await?;
        return Err(status);
    }
    if !moves {
        let state = call.member.log.state();
        let vip = find(&state, spec.name.as_str())?;
        let vip = view(&Sight::of(&call.member), &state, vip);
        return Ok(v1::SetVipReply { vip: Some(vip) });
    }
    let settled = boottime() + heard;
    match wait_until_it_answers_from(call, &spec.name, None, settled).await {
        Ok(vip) => Ok(v1::SetVipReply { vip: Some(vip) }),
        // What cannot be anywhere is not left to whoever is on call tonight.
        Err(status) if status.code() == Code::FailedPrecondition => {
            let (spec, seen) = (old.spec, old.revision + 1);
            call.propose(VipOp::Set { spec, seen, guest: None }).await?;
            let text = format!("{}. It is as it was before", status.message());
            Err(Status::failed_precondition(text))
        }
        Err(status) => Err(status),
    }
}

/// Until every node has said what hinders it as things are now.
pub(super) fn heard(state: &State) -> Duration {
    (state.profile().timing().heartbeat * REPORTS).max(LEAST)
}

/// Guests of a VIP that are left by a change that did not come to its end.
async fn end_guests(call: &Call, of: VipUid) -> Result<(), Status> {
    let state = call.member.log.state();
    let left = state.all_vips().filter(|vip| vip.guest.is_some_and(|guest| guest.of == of));
    for vip in left.map(|vip| vip.uid) {
        let end =
            call.member.log.propose_as(call.actor.clone(), VipOp::EndGuest { vip }, COMMIT_TIMEOUT);
        end.await.map_err(|e| from_write(&e))?;
    }
    Ok(())
}

/// A name that no VIP has.
fn guest_name(state: &State, name: &Name) -> Result<Name, Status> {
    let kept: String = name.as_str().chars().take(MAX_NAME - GUEST.len()).collect();
    let plain = format!("{kept}{GUEST}");
    let numbered = (2..100).map(|n| format!("{plain}{n}"));
    let mut free = [plain.clone()].into_iter().chain(numbered);
    let free = free.find(|name| state.vip_named(name).is_none());
    free.unwrap_or(plain).parse().map_err(invalid)
}

async fn add_guest(
    call: &Call,
    of: &Vip,
    spec: VipSpec,
    trial: bool,
) -> Result<(Name, VipUid), Status> {
    let name = guest_name(&call.member.log.state(), &of.spec.name)?;
    let (spec, guest) = (VipSpec { name, ..spec }, Guest { of: of.uid, trial });
    let name = spec.name.clone();
    call.propose(VipOp::AddGuest { spec, guest }).await?;
    let uid = call.member.log.state().vip_named(name.as_str()).map(|vip| vip.uid);
    let gone = || Refusal::VipChanged { vip: of.spec.name.clone() };
    Ok((name, uid.ok_or_else(|| from_refusal(&gone()))?))
}

/// A refusal that left the VIP alone, and in which it has its own name.
fn as_before(status: &Status, guest: &Name, vip: &Name) -> Status {
    let text = status.message().replace(guest.as_str(), vip.as_str());
    let text = text.trim_end_matches(". Nothing was changed");
    Status::new(status.code(), format!("{text}. VIP {vip} is as it was"))
}

/// Asks the holder whether it could have the VIP where it is to be.
async fn tried(
    call: &Call,
    (old, spec): (&Vip, &VipSpec),
    holder: NodeId,
    heard: Duration,
) -> Result<(), Status> {
    let (name, uid) = add_guest(call, old, spec.clone(), true).await?;
    sleep(heard.min(call.time_left())).await;
    let state = call.member.log.state();
    let why = state.vip(uid).and_then(|trial| state.hindrance(trial, holder));
    call.propose(VipOp::EndGuest { vip: uid }).await?;
    match why {
        Some(why) => Err(as_before(&from_refusal(&why), &name, &old.spec.name)),
        None => Ok(()),
    }
}

/// Has the holder answer for the addresses to come, if there are any. Returns the
/// guest that does.
async fn joining(
    call: &Call,
    (old, spec): (&Vip, &VipSpec),
    holder: NodeId,
) -> Result<Option<VipUid>, Status> {
    let come = spec.addresses.iter().copied().filter(|a| !old.spec.has(a.ip));
    let addresses: Vec<VipAddress> = come.collect();
    if addresses.is_empty() {
        return Ok(None);
    }
    let wanted = VipSpec { addresses, placement: Placement::Sticky, ..spec.clone() };
    let (name, uid) = add_guest(call, old, wanted, false).await?;
    let answers = async {
        call.propose(VipOp::Pin { name: name.clone(), to: Some(holder) }).await?;
        wait_until_it_answers(call, &name, Some(holder)).await
    };
    answers.await.map_err(|status| as_before(&status, &name, &old.spec.name))?;
    Ok(Some(uid))
}
