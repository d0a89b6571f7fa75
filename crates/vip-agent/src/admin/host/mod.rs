//! `vip.v1.Host`: what is about the host that is asked.

mod ca;
mod doctor;
mod recovery;

use crate::admin::call::{ANSWER_MARGIN, AdminService, Call, Route, timeout, to_its_end};
use crate::admin::tokens::{TOKEN_TTL_S, join_command};
use crate::errors::{invalid, not_a_member};
use crate::membership::{Initialised, Seat, create_token, forget_membership, init, join};
use recovery::{recover, restore};
use std::sync::Arc;
use std::time::Duration;
use tonic::{Code, Request, Response, Status};
use vip_core::{Actor, Name, Role};
use vip_proto::v1;
use vip_proto::v1::nodes_client::NodesClient;
use zeroize::Zeroizing;

/// Between two attempts to leave while leadership moves.
const LEAVE_PAUSE: Duration = Duration::from_millis(50);
const DEFAULT_CLUSTER_NAME: &str = "vipd";

#[tonic::async_trait]
impl v1::host_server::Host for AdminService {
    async fn init(&self, r: Request<v1::InitRequest>) -> Result<Response<v1::InitReply>, Status> {
        let (this, message) = (self.clone(), r.into_inner());
        to_its_end(async move { make(&this.agent, message).await }).await
    }

    async fn join(
        &self,
        request: Request<v1::JoinClusterRequest>,
    ) -> Result<Response<v1::JoinClusterReply>, Status> {
        let limit = timeout(request.metadata()).saturating_sub(ANSWER_MARGIN);
        let (this, message) = (self.clone(), request.into_inner());
        to_its_end(async move { become_member(&this.agent, message, limit).await }).await
    }

    async fn leave(
        &self,
        request: Request<v1::LeaveRequest>,
    ) -> Result<Response<v1::LeaveReply>, Status> {
        let call = self.call(&request)?;
        let (this, force) = (self.clone(), request.into_inner().force);
        to_its_end(async move { leave(&this.agent, &call, force).await }).await
    }

    async fn rotate_ca(
        &self,
        request: Request<v1::RotateCaRequest>,
    ) -> Result<Response<v1::RotateCaReply>, Status> {
        let call = self.call(&request)?;
        let root_key = Zeroizing::new(request.into_inner().root_key);
        ca::rotate(&call, &root_key).await.map(Response::new)
    }

    async fn recover(
        &self,
        request: Request<v1::RecoverRequest>,
    ) -> Result<Response<v1::RecoverReply>, Status> {
        let (this, message) = (self.clone(), request.into_inner());
        to_its_end(async move { recover(&this.agent, &message).await }).await
    }

    async fn restore(
        &self,
        request: Request<tonic::Streaming<v1::BackupPart>>,
    ) -> Result<Response<v1::InitReply>, Status> {
        let (this, parts) = (self.clone(), request.into_inner());
        to_its_end(async move { restore(&this.agent, parts).await }).await
    }

    async fn doctor(
        &self,
        _request: Request<v1::DoctorRequest>,
    ) -> Result<Response<v1::DoctorReply>, Status> {
        // It makes connections: one at a time, whoever asks.
        let _one = self.desk.examination.lock().await;
        Ok(Response::new(doctor::examine(&self.agent).await))
    }
}

/// What a new cluster's first node says, with a token for the second.
async fn founded(made: Initialised) -> Result<v1::InitReply, Status> {
    let Initialised { member, recovery_file } = made;
    let actor = Actor(format!("root@{}", member.meta.name));
    let expires_ms = member.log.time_ms() + TOKEN_TTL_S * 1000;
    let token = create_token(&member, actor, Role::Voter, expires_ms, 1).await?;
    Ok(v1::InitReply {
        cluster: member.meta.cluster_name.to_string(),
        node: member.meta.name.to_string(),
        join_command: join_command(&member),
        token: token.reveal(),
        recovery_file: recovery_file.display().to_string(),
    })
}

async fn make(agent: &Arc<Seat>, request: v1::InitRequest) -> Result<v1::InitReply, Status> {
    let name = match request.name.as_deref() {
        None | Some("") => DEFAULT_CLUSTER_NAME,
        Some(name) => name,
    };
    let name: Name = name.parse().map_err(invalid)?;
    founded(init(agent, name).await?).await
}

async fn become_member(
    agent: &Arc<Seat>,
    request: v1::JoinClusterRequest,
    limit: Duration,
) -> Result<v1::JoinClusterReply, Status> {
    let (member, role) = join(agent, &request.addresses, &request.token, limit).await?;
    Ok(v1::JoinClusterReply {
        cluster: member.meta.cluster_name.to_string(),
        node: member.meta.name.to_string(),
        role: v1::Role::from(role).into(),
    })
}

async fn leave(agent: &Arc<Seat>, call: &Call, force: bool) -> Result<v1::LeaveReply, Status> {
    let _one = agent.begin_forming().await?;
    if agent.member().is_none() {
        return Err(not_a_member());
    }
    let name = call.member.meta.name.to_string();
    let request = v1::RemoveNodeRequest { name, for_cause: false };
    let mut asked = false;
    loop {
        let result = match call.route().await {
            Ok(Route::Here) => crate::admin::nodes::remove(call, &request).await.map(|_| ()),
            Ok(Route::There(leader)) => {
                let request = call.relay(request.clone());
                NodesClient::new(leader).remove_node(request).await.map(|_| ())
            }
            // Nobody leads, and nobody was asked to remove it.
            Err(status) if !asked && !force => return Err(status),
            Err(status) => Err(status),
        };
        asked = true;
        let out = || {
            let member = &call.member;
            let state = member.log.state();
            state.tombstones.contains_key(&member.meta.node) || member.removal().is_some()
        };
        match result {
            Ok(()) => break,
            Err(_) if force || out() => break,
            // Leadership moved, or the connection was cut with the removal.
            Err(status)
                if matches!(
                    status.code(),
                    Code::Unavailable | Code::Unknown | Code::Aborted | Code::Cancelled
                ) && !call.time_left().is_zero() =>
            {
                tokio::time::sleep(LEAVE_PAUSE).await;
            }
            // The leader removed this node already and does not know it.
            Err(status) if status.code() == Code::NotFound => break,
            Err(status) => return Err(status),
        }
    }
    forget_membership(agent).await?;
    Ok(v1::LeaveReply {})
}
