//! `vip.v1.Servers`.

mod looking;
mod programmed;
mod view;

use crate::admin::call::{AdminService, Call, ask_leader, on_leader, to_its_end};
use crate::errors::{from_refusal, invalid};
use crate::names::resolve_all;
use looking::look_now;
use programmed::{everywhere, wait_until_gone, wait_until_programmed};
use std::collections::BTreeSet;
use tonic::{Code, Request, Response, Status};
pub(super) use view::short;
use view::view;
use vip_core::{
    CheckSpec, FIRST_ANSWERS, HostName, Name, Op, Outcome, Real, Resolutions, Server, ServerOp,
    ServerRefusal, ServerSpec, State, excerpt,
};
use vip_proto::v1;
use vip_proto::v1::servers_client::ServersClient;

#[tonic::async_trait]
impl v1::servers_server::Servers for AdminService {
    async fn add_server(
        &self,
        request: Request<v1::AddServerRequest>,
    ) -> Result<Response<v1::AddServerReply>, Status> {
        let (call, message) = (self.change(&request)?, request.into_inner());
        let spec = message.spec.clone().ok_or_else(|| invalid("no spec"))?;
        let spec = ServerSpec::try_from(spec).map_err(invalid)?;
        understood(&call, &adding(spec.clone(), Resolutions::new()))?;
        on_leader!(call, message, ServersClient, add_server);
        to_its_end(async move {
            let server = Some(add(&call, spec, !message.no_wait).await?);
            Ok(v1::AddServerReply { server })
        })
        .await
    }

    async fn set_server(
        &self,
        request: Request<v1::SetServerRequest>,
    ) -> Result<Response<v1::SetServerReply>, Status> {
        let (call, message) = (self.change(&request)?, request.into_inner());
        if let Some(old) = call.member.log.state().server_named(&message.name) {
            let spec = message.clone().changes(old).map_err(invalid)?;
            understood(&call, &setting(old, spec, Resolutions::new()))?;
        }
        on_leader!(call, message, ServersClient, set_server);
        let state = call.member.log.state();
        let spec = message.clone().changes(find(&state, &message.name)?).map_err(invalid)?;
        let answers = resolved(&call, &spec).await?;
        // Names may have been resolved otherwise meanwhile, which is nobody else's change.
        let old = find(&call.member.log.state(), &message.name)?.clone();
        let is_looked_at = message.check.is_some() || !message.reals.is_empty();
        let waits = is_looked_at && !message.no_wait;
        let spec = message.changes(&old).map_err(invalid)?;
        let (name, check) = (spec.name.clone(), spec.check.clone());
        call.propose(setting(&old, spec, answers)).await?;
        wait_until_checked(&call, &name, check.filter(|_| waits)).await;
        let server = in_force(&call, &name).await?;
        Ok(Response::new(v1::SetServerReply { server: Some(server) }))
    }

    async fn remove_server(
        &self,
        request: Request<v1::RemoveServerRequest>,
    ) -> Result<Response<v1::RemoveServerReply>, Status> {
        let (call, message) = (self.change(&request)?, request.into_inner());
        on_leader!(call, message, ServersClient, remove_server);
        let server = find(&call.member.log.state(), &message.name)?.clone();
        call.propose(ServerOp::Remove { name: server.spec.name.clone() }).await?;
        wait_until_gone(&call, &server).await?;
        Ok(Response::new(v1::RemoveServerReply {}))
    }

    async fn list_servers(
        &self,
        request: Request<v1::ListServersRequest>,
    ) -> Result<Response<v1::ListServersReply>, Status> {
        let (call, message) = (self.call(&request)?, request.into_inner());
        ask_leader!(call, message, ServersClient, list_servers);
        let state = call.member.log.state();
        let servers = state.servers_by_name();
        let servers = servers.iter().map(|server| view(&call.member, &state, server)).collect();
        Ok(Response::new(v1::ListServersReply { servers }))
    }

    async fn show_server(
        &self,
        request: Request<v1::ShowServerRequest>,
    ) -> Result<Response<v1::ShowServerReply>, Status> {
        let (call, message) = (self.call(&request)?, request.into_inner());
        let name = message.name.clone();
        ask_leader!(call, message, ServersClient, show_server);
        let state = call.member.log.state();
        let server = find(&state, &name)?;
        let (on_nodes, counts) = everywhere(&call.member, &state, server).await;
        let mut shown = view(&call.member, &state, server);
        view::add_counts(&mut shown, server, &counts);
        let server = Some(v1::Server { on_nodes, ..shown });
        Ok(Response::new(v1::ShowServerReply { server }))
    }

    async fn check_server(
        &self,
        request: Request<v1::CheckServerRequest>,
    ) -> Result<Response<v1::CheckServerReply>, Status> {
        // Any node can say: it takes no leader to look.
        let (call, message) = (self.call(&request)?, request.into_inner());
        let only = message.real.map(|real| real.parse().map_err(invalid)).transpose()?;
        let state = call.member.log.state();
        let server = find(&state, &message.name)?;
        if server.spec.check.is_none() {
            let text = format!("nothing checks virtual server {}", server.spec.name);
            return Err(Status::failed_precondition(text));
        }
        let reals = look_now(&call, &state, server, only).await;
        if reals.is_empty() {
            let text = format!("virtual server {} has no such real server", server.spec.name);
            return Err(Status::not_found(text));
        }
        Ok(Response::new(v1::CheckServerReply { reals }))
    }

    async fn add_real(
        &self,
        request: Request<v1::AddRealRequest>,
    ) -> Result<Response<v1::AddRealReply>, Status> {
        let (call, message) = (self.change(&request)?, request.into_inner());
        let op = ServerOp::try_from(message.clone()).map_err(invalid)?;
        on_leader!(call, message, ServersClient, add_real);
        let server = Some(change(&call, named(&message.server)?, op).await?);
        Ok(Response::new(v1::AddRealReply { server }))
    }

    async fn remove_real(
        &self,
        request: Request<v1::RemoveRealRequest>,
    ) -> Result<Response<v1::RemoveRealReply>, Status> {
        let (call, message) = (self.change(&request)?, request.into_inner());
        let op = ServerOp::try_from(message.clone()).map_err(invalid)?;
        on_leader!(call, message, ServersClient, remove_real);
        let server = Some(change(&call, named(&message.server)?, op).await?);
        Ok(Response::new(v1::RemoveRealReply { server }))
    }

    async fn drain_real(
        &self,
        request: Request<v1::DrainRealRequest>,
    ) -> Result<Response<v1::DrainRealReply>, Status> {
        let (call, message) = (self.change(&request)?, request.into_inner());
        let op = ServerOp::try_from(message.clone()).map_err(invalid)?;
        on_leader!(call, message, ServersClient, drain_real);
        let server = Some(change(&call, named(&message.server)?, op).await?);
        Ok(Response::new(v1::DrainRealReply { server }))
    }

    async fn weigh_real(
        &self,
        request: Request<v1::WeighRealRequest>,
    ) -> Result<Response<v1::WeighRealReply>, Status> {
        let (call, message) = (self.change(&request)?, request.into_inner());
        let op = ServerOp::try_from(message.clone()).map_err(invalid)?;
        on_leader!(call, message, ServersClient, weigh_real);
        let server = Some(change(&call, named(&message.server)?, op).await?);
        Ok(Response::new(v1::WeighRealReply { server }))
    }
}

/// Whether all members would understand it: a leader of an earlier version leaves out what it
/// does not know, and says that all is well.
fn understood(call: &Call, op: &ServerOp) -> Result<(), Status> {
    let op = Op::from(op.clone());
    call.member.log.state().may_take(&op).map_err(|refusal| from_refusal(&refusal))
}

fn named(name: &str) -> Result<Name, Status> {
    name.parse().map_err(invalid)
}

fn find<'a>(state: &'a State, name: &str) -> Result<&'a Server, Status> {
    let unknown = || from_refusal(&ServerRefusal::Unknown { name: excerpt(name) }.into());
    state.server_named(name).ok_or_else(unknown)
}

/// Waits until all observers have said of every real server whether it is up, or a while is
/// over: whoever adds a check that nobody passes is to hear of it.
async fn wait_until_checked(call: &Call, name: &Name, check: Option<CheckSpec>) {
    let Some(check) = check else { return };
    let limit = check.timing.first_answers() + FIRST_ANSWERS;
    // What follows has time left.
    let until = tokio::time::Instant::now() + limit.min(call.time_left() / 2);
    let mut news = call.member.news();
    let is_known = || {
        let state = call.member.log.state();
        // Who is not there will say nothing.
        let (me, alive) = (call.member.meta.node, call.member.leases.alive());
        let said = |server: &Server, real: &Real| {
            let observers = state.observers_of(server, real).into_iter();
            let mut here = observers.filter(|node| *node == me || alive.contains(node));
            here.all(|node| real.health.seen.contains_key(&node))
        };
        let server = state.server_named(name.as_str());
        server.is_none_or(|server| server.reals.iter().all(|real| said(server, real)))
    };
    while !is_known() && tokio::time::timeout_at(until, news.next()).await.is_ok() {}
}

/// What the log is told: earlier versions know no names.
fn adding(spec: ServerSpec, answers: Resolutions) -> ServerOp {
    if spec.names.is_empty() {
        return ServerOp::Add { spec };
    }
    ServerOp::AddNamed { spec, answers }
}

fn setting(old: &Server, spec: ServerSpec, answers: Resolutions) -> ServerOp {
    let seen = old.revision;
    if spec.names.is_empty() && old.spec.names.is_empty() {
        return ServerOp::Set { spec, seen };
    }
    ServerOp::SetNamed { spec, seen, answers }
}

/// What names resolve to that this one did not have before, by the leader: this node. Those
/// that it has stay as they are until the leader asks again.
async fn resolved(call: &Call, spec: &ServerSpec) -> Result<Resolutions, Status> {
    let state = call.member.log.state();
    let known = state.server_named(spec.name.as_str()).map(|there| &there.answers);
    let names = spec.names.iter().map(|real| &real.name);
    let new = names.filter(|name| known.is_none_or(|known| !known.contains_key(name)));
    let names: BTreeSet<HostName> = new.cloned().collect();
    let limit = call.time_left() / 2;
    let answers = tokio::time::timeout(limit, resolve_all(names)).await;
    let answers = answers.unwrap_or_else(|_| Err("names are not resolved in time".to_owned()));
    answers.map_err(|why| {
        Status::failed_precondition(format!(
            "{why}. Nothing was changed; the leader resolves names"
        ))
    })
}

/// Adds one; nothing is left of it where its VIP's holder refuses it.
async fn add(call: &Call, spec: ServerSpec, waits: bool) -> Result<v1::Server, Status> {
    let (name, check) = (spec.name.clone(), spec.check.clone());
    let answers = resolved(call, &spec).await?;
    let outcome = call.propose(adding(spec, answers)).await?;
    wait_until_checked(call, &name, check.filter(|_| waits)).await;
    match wait_until_programmed(call, &name).await {
        Err(status) if status.code() == Code::FailedPrecondition && outcome == Outcome::Done => {
            call.propose(ServerOp::Remove { name }).await?;
            let text = format!("{}. Nothing was left behind", status.message());
            Err(Status::failed_precondition(text))
        }
        result => result,
    }
}

async fn change(call: &Call, name: Name, op: ServerOp) -> Result<v1::Server, Status> {
    call.propose(op).await?;
    in_force(call, &name).await
}

/// Waits for what the log wants by now.
async fn in_force(call: &Call, name: &Name) -> Result<v1::Server, Status> {
    wait_until_programmed(call, name).await.map_err(|status| match status.code() {
        Code::FailedPrecondition => Status::failed_precondition(format!(
            "{}. The change is in the log, and until it can be carried out what was before stays \
             in force there: change that back, or what hinders it",
            status.message()
        )),
        _ => status,
    })
}
