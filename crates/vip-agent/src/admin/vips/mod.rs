//! `vip.v1.Vips`.

mod set;
mod view;

pub(super) use view::{all, hindered, hindrance};

use crate::admin::call::{AdminService, Call, ask_leader, on_leader, to_its_end};
use crate::admin::sight::Sight;
use crate::errors::{from_refusal, invalid};
use tonic::{Code, Request, Response, Status};
use view::view;
use vip_core::{Goal, Mono, Name, NodeId, Refusal, State, Vip, VipOp, VipSpec, Why, excerpt};
use vip_guard::boottime;
use vip_proto::v1;
use vip_proto::v1::vips_client::VipsClient;

#[tonic::async_trait]
impl v1::vips_server::Vips for AdminService {
    async fn add_vip(
        &self,
        request: Request<v1::AddVipRequest>,
    ) -> Result<Response<v1::AddVipReply>, Status> {
        let (call, message) = (self.change(&request)?, request.into_inner());
        // What makes no sense nobody has to lead for.
        let spec = message.spec.clone().ok_or_else(|| invalid("no spec"))?;
        let spec = VipSpec::try_from(spec).map_err(invalid)?;
        on_leader!(call, message, VipsClient, add_vip);
        add(&call, spec, message.no_wait).await.map(Response::new)
    }

    async fn list_vips(
        &self,
        request: Request<v1::ListVipsRequest>,
    ) -> Result<Response<v1::ListVipsReply>, Status> {
        let (call, message) = (self.call(&request)?, request.into_inner());
        ask_leader!(call, message, VipsClient, list_vips);
        Ok(Response::new(v1::ListVipsReply { vips: all(&Sight::of(&call.member)) }))
    }

    async fn move_vip(
        &self,
        request: Request<v1::MoveVipRequest>,
    ) -> Result<Response<v1::MoveVipReply>, Status> {
        let (call, message) = (self.change(&request)?, request.into_inner());
        on_leader!(call, message, VipsClient, move_vip);
        place(&call, &message).await.map(Response::new)
    }

    async fn set_vip(
        &self,
        request: Request<v1::SetVipRequest>,
    ) -> Result<Response<v1::SetVipReply>, Status> {
        let (call, message) = (self.change(&request)?, request.into_inner());
        on_leader!(call, message, VipsClient, set_vip);
        to_its_end(async move { set::set_vip(&call, message).await }).await
    }

    async fn remove_vip(
        &self,
        request: Request<v1::RemoveVipRequest>,
    ) -> Result<Response<v1::RemoveVipReply>, Status> {
        let (call, message) = (self.change(&request)?, request.into_inner());
        on_leader!(call, message, VipsClient, remove_vip);
        remove(&call, &message.name).await.map(Response::new)
    }
}

/// Whether those who have to know where a VIP is would hear of it from here.
async fn can_be_called(call: &Call, spec: &VipSpec) -> Result<(), Status> {
    let member = &call.member;
    // A leader that holds nothing need not be where they are.
    if spec.via.provider().is_none() || !member.holds(&member.log.state()) {
        return Ok(());
    }
    let checked = member.providers.check(spec).await;
    let refused = |why| format!("{}: {why}. Nothing was changed", member.meta.name);
    checked.map_err(|why| Status::failed_precondition(refused(why)))
}

async fn add(call: &Call, spec: VipSpec, no_wait: bool) -> Result<v1::AddVipReply, Status> {
    let name = spec.name.clone();
    let was_there = call.member.log.state().vip_named(name.as_str()).is_some();
    if !was_there && !no_wait {
        can_be_called(call, &spec).await?;
    }
    call.propose(VipOp::Add { spec }).await?;
    if no_wait {
        let state = call.member.log.state();
        let vip = state.vip_named(name.as_str());
        let vip = vip.map(|vip| view(&Sight::of(&call.member), &state, vip));
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

async fn place(call: &Call, request: &v1::MoveVipRequest) -> Result<v1::MoveVipReply, Status> {
    let state = call.member.log.state();
    let vip = find(&state, &request.name)?;
    let name = vip.spec.name.clone();
    let to = match request.to.as_deref() {
        None | Some("") => None,
        Some(node) => {
            let refusal = || Refusal::UnknownNode { name: excerpt(node) };
            let node = state.node_named(node).ok_or_else(|| from_refusal(&refusal()))?;
            if !call.member.leases.alive().contains(&node.id) {
                let why = "the leader does not hear it at the moment".to_owned();
                let refusal = Refusal::CannotHold { name: node.name.clone(), why };
                return Err(from_refusal(&refusal));
            }
            Some(node.id)
        }
    };
    // Who could not have it moved there may have been let since: it is tried.
    let told = to.is_some_and(|to| {
        let obstacle = state.obstacles.get(&vip.uid).and_then(|all| all.get(&to));
        matches!(obstacle.map(|obstacle| &obstacle.why), Some(Why::NotTaken(_)))
    });
    if let Some(why) = to.filter(|_| !told).and_then(|to| state.hindrance(vip, to)) {
        return Err(from_refusal(&why));
    }
    let settled = if told { boottime() + set::heard(&state) } else { Mono::ZERO };
    call.propose(VipOp::Pin { name: name.clone(), to }).await?;
    let unpinned = || call.member.log.state().vip_named(name.as_str()).cloned();
    // Where it goes now that nobody says it.
    let at = to.or_else(|| call.member.leases.target(&unpinned()?));
    let vip = match wait_until_it_answers_from(call, &name, at, settled).await {
        // Nobody should be surprised by it later.
        Err(status) if status.code() == Code::FailedPrecondition => {
            call.propose(VipOp::Pin { name, to: None }).await?;
            return Err(status);
        }
        result => result?,
    };
    Ok(v1::MoveVipReply { vip: Some(vip) })
}

async fn remove(call: &Call, name: &str) -> Result<v1::RemoveVipReply, Status> {
    let state = call.member.log.state();
    let vip = find(&state, name)?;
    let (uid, name) = (vip.uid, vip.spec.name.clone());
    call.propose(VipOp::Remove { name: name.clone() }).await?;
    call.reach(Goal::Gone(uid, name)).await?;
    Ok(v1::RemoveVipReply {})
}

fn find<'a>(state: &'a State, name: &str) -> Result<&'a Vip, Status> {
    let unknown = || from_refusal(&Refusal::UnknownVip { name: excerpt(name) });
    state.vip_named(name).ok_or_else(unknown)
}

async fn wait_until_it_answers(
    call: &Call,
    name: &Name,
    at: Option<NodeId>,
) -> Result<v1::Vip, Status> {
    wait_until_it_answers_from(call, name, at, Mono::ZERO).await
}

/// The same, for a VIP that was changed: until `settled` nodes may still say what
/// hindered them before.
async fn wait_until_it_answers_from(
    call: &Call,
    name: &Name,
    at: Option<NodeId>,
    settled: Mono,
) -> Result<v1::Vip, Status> {
    let state = call.reach(Goal::answers(name.clone(), at, settled)).await?;
    Ok(view(&Sight::of(&call.member), &state, find(&state, name.as_str())?))
}
