//! `vip.v1.Tokens`.

use super::call::{AdminService, Call, ask_leader, on_leader};
use crate::errors::{from_refusal, invalid};
use crate::membership::create_token;
use crate::node::Member;
use std::sync::Arc;
use tonic::{Request, Response, Status};
use vip_core::{Refusal, Role, Token, TokenId, TokenOp, excerpt};
use vip_proto::v1::tokens_client::TokensClient;
use vip_proto::{read, v1};

/// Default and largest life of a token (research: kubeadm's and our cap).
pub(super) const TOKEN_TTL_S: u64 = 3600;
const MAX_TOKEN_TTL_S: u64 = 24 * 3600;
/// Most nodes that one token may admit.
const MAX_TOKEN_USES: u32 = 100;

#[tonic::async_trait]
impl v1::tokens_server::Tokens for AdminService {
    async fn create_token(
        &self,
        request: Request<v1::CreateTokenRequest>,
    ) -> Result<Response<v1::CreateTokenReply>, Status> {
        let (call, message) = (self.change(&request)?, request.into_inner());
        on_leader!(call, message, TokensClient, create_token);
        create(&call, &message).await.map(Response::new)
    }

    async fn list_tokens(
        &self,
        request: Request<v1::ListTokensRequest>,
    ) -> Result<Response<v1::ListTokensReply>, Status> {
        let (call, message) = (self.call(&request)?, request.into_inner());
        ask_leader!(call, message, TokensClient, list_tokens);
        Ok(Response::new(all(&call.member)))
    }

    async fn revoke_token(
        &self,
        request: Request<v1::RevokeTokenRequest>,
    ) -> Result<Response<v1::RevokeTokenReply>, Status> {
        let (call, message) = (self.change(&request)?, request.into_inner());
        on_leader!(call, message, TokensClient, revoke_token);
        let id = TokenId(excerpt(&message.id));
        #[cfg(feature = "next-version")]
        if id.0 == "next-version" {
            let nodes = call.member.log.state().nodes.clone();
            let marks = nodes.iter().map(|(id, node)| (*id, node.name.to_string())).collect();
            call.propose(vip_core::NodeOp::Mark { marks }).await?;
            return Ok(Response::new(v1::RevokeTokenReply {}));
        }
        // What is not there is not written to the log, either.
        if !call.member.log.state().tokens.contains_key(&id) {
            return Err(from_refusal(&Refusal::UnknownToken { token: id }));
        }
        call.propose(TokenOp::Revoke { id }).await?;
        Ok(Response::new(v1::RevokeTokenReply {}))
    }
}

/// How another machine joins.
pub(super) fn join_command(member: &Member) -> String {
    let state = member.log.state();
    let addresses: Vec<_> = state.nodes.values().map(|n| n.advertise.clone()).collect();
    format!("vipctl join {} --token-file -", addresses.join(","))
}

async fn create(
    call: &Call,
    request: &v1::CreateTokenRequest,
) -> Result<v1::CreateTokenReply, Status> {
    let role = read::<v1::Role, Role>("role", request.role).map_err(invalid)?;
    let role = role.unwrap_or(Role::Voter);
    let ttl_s = request.ttl_s.unwrap_or(TOKEN_TTL_S);
    if ttl_s == 0 {
        return Err(invalid("a token lives for 1 s at least"));
    }
    if ttl_s > MAX_TOKEN_TTL_S {
        return Err(invalid("a token lives for 24 h at most"));
    }
    let uses = request.uses.unwrap_or(1);
    if uses == 0 {
        return Err(invalid("a token admits one node at least"));
    }
    if uses > MAX_TOKEN_USES {
        return Err(invalid(format!("a token admits {MAX_TOKEN_USES} nodes at most")));
    }
    call.member.log.may_date()?;
    let expires_ms = call.member.log.time_ms() + ttl_s * 1000;
    let token = create_token(&call.member, call.actor.clone(), role, expires_ms, uses).await?;
    Ok(v1::CreateTokenReply {
        id: token.id.to_string(),
        token: token.reveal(),
        expires_ms,
        join_command: join_command(&call.member),
    })
}

fn all(member: &Member) -> v1::ListTokensReply {
    let (state, now) = (member.log.state(), member.log.time_ms());
    let token = |token: &Arc<Token>| {
        let uses = u32::try_from(token.used.len()).unwrap_or(u32::MAX);
        let state = if token.revoked {
            v1::TokenState::Revoked
        } else if uses >= token.max_uses {
            v1::TokenState::Used
        } else if now >= token.expires_ms {
            v1::TokenState::Expired
        } else {
            v1::TokenState::Open
        };
        v1::Token {
            id: token.id.to_string(),
            role: v1::Role::from(token.role).into(),
            expires_ms: token.expires_ms,
            uses,
            max_uses: token.max_uses,
            state: state.into(),
            created_by: token.created_by.clone(),
        }
    };
    v1::ListTokensReply { tokens: state.tokens.values().map(token).collect() }
}
