//! `vip.v1.Admin`: each call finds out who asks, goes to the leader if only it
//! can answer, and answers when its effect holds.

use super::call::{ANSWER_MARGIN, AdminService, POLL, Route, timeout};
use crate::access::Caller;
use crate::errors::{from_call, from_refusal, from_relay};
use std::pin::Pin;
use tokio::time::sleep;
use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status};
use vip_core::{LoginOp, TokenOp, excerpt};
use vip_pki::Identity;
use vip_proto::v1;
use vip_proto::v1::admin_server::Admin;
use zeroize::Zeroizing;

/// Runs to its end also when the caller goes away: half a membership is worse
/// than none.
async fn to_its_end<T: Send + 'static>(
    work: impl Future<Output = Result<T, Status>> + Send + 'static,
) -> Result<Response<T>, Status> {
    let done = tokio::spawn(work).await;
    done.map_err(|e| crate::errors::internal("the command failed", &e))?.map(Response::new)
}

/// Passes a call on to the leader, or goes on here.
macro_rules! on_leader {
    ($call:ident, $message:ident, $method:ident) => {
        while let Route::There(mut client) = $call.route().await? {
            match client.$method($call.relay($message.clone())).await {
                Err(status) if $call.goes_on_after(&status) => sleep(POLL).await,
                result => return result.map_err(from_relay),
            }
        }
    };
}

/// Looks at the leader's state, which is the newest; at this node's where no
/// leader answers.
macro_rules! ask_leader {
    ($call:ident, $message:ident, $method:ident) => {
        if let Some(mut leader) = $call.leader()
            && let Ok(reply) = leader.$method($call.read($message)).await
        {
            return Ok(reply);
        }
    };
}

#[tonic::async_trait]
impl Admin for AdminService {
    async fn init(&self, r: Request<v1::InitRequest>) -> Result<Response<v1::InitReply>, Status> {
        let (this, message) = (self.clone(), r.into_inner());
        to_its_end(async move { this.do_init(message).await }).await
    }

    async fn join(
        &self,
        request: Request<v1::JoinClusterRequest>,
    ) -> Result<Response<v1::JoinClusterReply>, Status> {
        let limit = timeout(request.metadata()).saturating_sub(ANSWER_MARGIN);
        let (this, message) = (self.clone(), request.into_inner());
        to_its_end(async move { this.do_join(message, limit).await }).await
    }

    async fn leave(
        &self,
        request: Request<v1::LeaveRequest>,
    ) -> Result<Response<v1::LeaveReply>, Status> {
        let call = self.call(&request)?;
        let (this, force) = (self.clone(), request.into_inner().force);
        to_its_end(async move { this.do_leave(&call, force).await }).await
    }

    async fn create_token(
        &self,
        request: Request<v1::CreateTokenRequest>,
    ) -> Result<Response<v1::CreateTokenReply>, Status> {
        let (call, message) = (self.change(&request)?, request.into_inner());
        on_leader!(call, message, create_token);
        self.do_create_token(&call, &message).await.map(Response::new)
    }

    async fn list_tokens(
        &self,
        request: Request<v1::ListTokensRequest>,
    ) -> Result<Response<v1::ListTokensReply>, Status> {
        let (call, message) = (self.call(&request)?, request.into_inner());
        ask_leader!(call, message, list_tokens);
        Ok(Response::new(super::views::tokens(&call.member)))
    }

    async fn revoke_token(
        &self,
        request: Request<v1::RevokeTokenRequest>,
    ) -> Result<Response<v1::RevokeTokenReply>, Status> {
        let (call, message) = (self.change(&request)?, request.into_inner());
        on_leader!(call, message, revoke_token);
        let id = vip_core::TokenId(excerpt(&message.id));
        #[cfg(feature = "next-version")]
        if id.0 == "next-version" {
            let nodes = call.member.raft.state().nodes.clone();
            let marks = nodes.iter().map(|(id, node)| (*id, node.name.to_string())).collect();
            call.propose(vip_core::NodeOp::Mark { marks }).await?;
            return Ok(Response::new(v1::RevokeTokenReply {}));
        }
        // What is not there is not written to the log, either.
        if !call.member.raft.state().tokens.contains_key(&id) {
            return Err(from_refusal(&vip_core::Refusal::UnknownToken { token: id }));
        }
        call.propose(TokenOp::Revoke { id }).await?;
        Ok(Response::new(v1::RevokeTokenReply {}))
    }

    async fn status(
        &self,
        request: Request<v1::StatusRequest>,
    ) -> Result<Response<v1::StatusReply>, Status> {
        let (call, message) = (self.call(&request)?, request.into_inner());
        let mut own = super::views::status(&call.member);
        if let Some(mut leader) = call.leader()
            && let Ok(reply) = leader.status(call.read(message)).await
        {
            // The cluster as the leader sees it, this host as it is.
            let (node, gate, warnings) = (own.node, own.gate, own.warnings);
            let reply = v1::StatusReply { node, gate, warnings, ..reply.into_inner() };
            return Ok(Response::new(reply));
        }
        if own.quorum && !own.fresh {
            let text = "The leader did not answer: this is what this node knew last.";
            own.warnings.push(text.into());
        }
        Ok(Response::new(own))
    }

    async fn list_nodes(
        &self,
        request: Request<v1::ListNodesRequest>,
    ) -> Result<Response<v1::ListNodesReply>, Status> {
        let (call, message) = (self.call(&request)?, request.into_inner());
        ask_leader!(call, message, list_nodes);
        let nodes = super::views::nodes(&call.member);
        Ok(Response::new(v1::ListNodesReply { nodes }))
    }

    async fn drain_node(
        &self,
        request: Request<v1::DrainNodeRequest>,
    ) -> Result<Response<v1::DrainNodeReply>, Status> {
        let (call, message) = (self.change(&request)?, request.into_inner());
        on_leader!(call, message, drain_node);
        self.do_drain(&call, &message).await.map(Response::new)
    }

    async fn remove_node(
        &self,
        request: Request<v1::RemoveNodeRequest>,
    ) -> Result<Response<v1::RemoveNodeReply>, Status> {
        let own = match request.extensions().get::<Caller>() {
            Some(Caller::Peer(Identity::Node(node))) => {
                let state = self.agent.member().map(|m| m.raft.state());
                state.and_then(|s| Some(s.nodes.get(node)?.name.to_string()))
                    == Some(request.get_ref().name.clone())
            }
            _ => false,
        };
        // Everybody may go.
        let call = if own { self.call(&request)? } else { self.change(&request)? };
        let message = request.into_inner();
        on_leader!(call, message, remove_node);
        self.do_remove(&call, &message).await.map(Response::new)
    }

    async fn add_vip(
        &self,
        request: Request<v1::AddVipRequest>,
    ) -> Result<Response<v1::AddVipReply>, Status> {
        let (call, message) = (self.change(&request)?, request.into_inner());
        // What makes no sense nobody has to lead for.
        super::vips::check(message.spec.as_ref())?;
        on_leader!(call, message, add_vip);
        self.do_add_vip(&call, message).await.map(Response::new)
    }

    async fn list_vips(
        &self,
        request: Request<v1::ListVipsRequest>,
    ) -> Result<Response<v1::ListVipsReply>, Status> {
        let (call, message) = (self.call(&request)?, request.into_inner());
        ask_leader!(call, message, list_vips);
        let vips = super::views::vips(&call.member);
        Ok(Response::new(v1::ListVipsReply { vips }))
    }

    async fn move_vip(
        &self,
        request: Request<v1::MoveVipRequest>,
    ) -> Result<Response<v1::MoveVipReply>, Status> {
        let (call, message) = (self.change(&request)?, request.into_inner());
        on_leader!(call, message, move_vip);
        self.do_move_vip(&call, &message).await.map(Response::new)
    }

    async fn set_vip(
        &self,
        request: Request<v1::SetVipRequest>,
    ) -> Result<Response<v1::SetVipReply>, Status> {
        let (call, message) = (self.change(&request)?, request.into_inner());
        on_leader!(call, message, set_vip);
        to_its_end(async move { super::reshape::set_vip(&call, &message).await }).await
    }

    async fn remove_vip(
        &self,
        request: Request<v1::RemoveVipRequest>,
    ) -> Result<Response<v1::RemoveVipReply>, Status> {
        let (call, message) = (self.change(&request)?, request.into_inner());
        on_leader!(call, message, remove_vip);
        self.do_remove_vip(&call, &message.name).await.map(Response::new)
    }

    type EventsStream = Pin<Box<dyn Stream<Item = Result<v1::Event, Status>> + Send>>;

    async fn events(
        &self,
        request: Request<v1::EventsRequest>,
    ) -> Result<Response<Self::EventsStream>, Status> {
        let call = self.call(&request)?;
        let place = self.desk.streams.enter(request.extensions().get::<Caller>());
        let message = request.into_inner();
        let events = super::events::events(&call.member, message.after, message.follow, place);
        Ok(Response::new(events))
    }

    async fn login(
        &self,
        request: Request<v1::LoginRequest>,
    ) -> Result<Response<v1::LoginReply>, Status> {
        let (call, message) = (self.change(&request)?, request.into_inner());
        // Its key is what both wait for.
        let spki = vip_pki::spki_of_csr(&message.csr).map_err(crate::errors::invalid)?;
        let reply = match call.route().await? {
            Route::There(mut client) => {
                client.login(call.relay(message)).await.map_err(from_relay)?.into_inner()
            }
            Route::Here => super::membership::login(&call, message).await?,
        };
        let reply = super::membership::logged_in_here(&call, &spki, reply).await?;
        Ok(Response::new(reply))
    }

    async fn list_logins(
        &self,
        request: Request<v1::ListLoginsRequest>,
    ) -> Result<Response<v1::ListLoginsReply>, Status> {
        let (call, message) = (self.call(&request)?, request.into_inner());
        ask_leader!(call, message, list_logins);
        Ok(Response::new(super::views::logins(&call.member)))
    }

    async fn revoke_login(
        &self,
        request: Request<v1::RevokeLoginRequest>,
    ) -> Result<Response<v1::RevokeLoginReply>, Status> {
        let (call, message) = (self.change(&request)?, request.into_inner());
        on_leader!(call, message, revoke_login);
        let user = message.user.parse().map_err(crate::errors::invalid)?;
        call.propose(LoginOp::Revoke { user }).await?;
        Ok(Response::new(v1::RevokeLoginReply {}))
    }

    async fn rotate_ca(
        &self,
        request: Request<v1::RotateCaRequest>,
    ) -> Result<Response<v1::RotateCaReply>, Status> {
        let call = self.call(&request)?;
        let root_key = Zeroizing::new(request.into_inner().root_key);
        super::ca::rotate(&call, &root_key).await.map(Response::new)
    }

    async fn recover(
        &self,
        request: Request<v1::RecoverRequest>,
    ) -> Result<Response<v1::RecoverReply>, Status> {
        let (this, message) = (self.clone(), request.into_inner());
        to_its_end(async move { this.do_recover(message).await }).await
    }

    type BackupStream = super::recovery::Parts;

    async fn backup(
        &self,
        request: Request<v1::BackupRequest>,
    ) -> Result<Response<Self::BackupStream>, Status> {
        let (call, message) = (self.call(&request)?, request.into_inner());
        if let Some(mut leader) = call.leader()
            && let Ok(parts) = leader.backup(call.relay(message)).await
        {
            let parts = parts.into_inner().map(|part| part.map_err(from_call));
            return Ok(Response::new(Box::pin(parts)));
        }
        super::recovery::backup(&call).map(Response::new)
    }

    async fn restore(
        &self,
        request: Request<tonic::Streaming<v1::BackupPart>>,
    ) -> Result<Response<v1::InitReply>, Status> {
        let (this, parts) = (self.clone(), request.into_inner());
        to_its_end(async move { this.do_restore(parts).await }).await
    }

    async fn doctor(
        &self,
        _request: Request<v1::DoctorRequest>,
    ) -> Result<Response<v1::DoctorReply>, Status> {
        // It makes connections: one at a time, whoever asks.
        let _one = self.desk.examination.lock().await;
        Ok(Response::new(super::doctor::examine(&self.agent).await))
    }
}
