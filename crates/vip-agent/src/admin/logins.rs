//! `vip.v1.Logins`.

use super::call::{AdminService, Call, Look, Route, ask_leader, on_leader};
use crate::errors::{from_relay, internal, invalid, no_issuer};
use crate::node::Member;
use tonic::{Request, Response, Status};
use vip_core::{AdminRole, Login, LoginOp, Name};
use vip_pki::{USER_LIFE, node_server_name, spki_of_csr};
use vip_proto::v1::logins_client::LoginsClient;
use vip_proto::{read, v1};

#[tonic::async_trait]
impl v1::logins_server::Logins for AdminService {
    async fn login(
        &self,
        request: Request<v1::LoginRequest>,
    ) -> Result<Response<v1::LoginReply>, Status> {
        let (call, message) = (self.change(&request)?, request.into_inner());
        // Its key is what both wait for.
        let spki = spki_of_csr(&message.csr).map_err(invalid)?;
        let reply = match call.route().await? {
            Route::There(leader) => {
                let issued = LoginsClient::new(leader).login(call.relay(message)).await;
                issued.map_err(from_relay)?.into_inner()
            }
            Route::Here => issue(&call, message).await?,
        };
        logged_in_here(&call, &spki, reply).await.map(Response::new)
    }

    async fn list_logins(
        &self,
        request: Request<v1::ListLoginsRequest>,
    ) -> Result<Response<v1::ListLoginsReply>, Status> {
        let (call, message) = (self.call(&request)?, request.into_inner());
        ask_leader!(call, message, LoginsClient, list_logins);
        Ok(Response::new(all(&call.member)))
    }

    async fn revoke_login(
        &self,
        request: Request<v1::RevokeLoginRequest>,
    ) -> Result<Response<v1::RevokeLoginReply>, Status> {
        let (call, message) = (self.change(&request)?, request.into_inner());
        on_leader!(call, message, LoginsClient, revoke_login);
        let user = message.user.parse().map_err(invalid)?;
        call.propose(LoginOp::Revoke { user }).await?;
        Ok(Response::new(v1::RevokeLoginReply {}))
    }
}

/// Issues a certificate for a person, as leader: what the log does not list is
/// none.
async fn issue(call: &Call, request: v1::LoginRequest) -> Result<v1::LoginReply, Status> {
    let member = &call.member;
    let user: Name = request.user.parse().map_err(invalid)?;
    let role = read::<v1::AdminRole, AdminRole>("role", request.role).map_err(invalid)?;
    let role = role.ok_or_else(|| invalid("no role"))?;
    let spki = spki_of_csr(&request.csr).map_err(invalid)?;
    member.log.may_date()?;
    let issuer = member.authority.issuer().ok_or_else(no_issuer)?;
    let signed = issuer.sign_user(&request.csr, &user, role, &member.meta.cluster);
    let chain = signed.map_err(|e| internal("signing", &e))?;
    let life_ms = u64::try_from(USER_LIFE.whole_milliseconds()).unwrap_or(0);
    let expires_ms = member.log.time_ms() + life_ms;
    let (issuer, issued_by) = (issuer.spki().unwrap_or_default(), String::new());
    let login = Login { user, role, spki, expires_ms, issuer, issued_by };
    call.propose(LoginOp::Issue { login }).await?;
    Ok(v1::LoginReply {
        root: chain.last().map(|c| c.to_vec()).unwrap_or_default(),
        chain: chain.iter().map(|c| c.to_vec()).collect(),
        address: member.meta.advertise.clone(),
        server_name: node_server_name(member.meta.node, &member.meta.cluster),
        expires_ms,
    })
}

/// The leader's reply for a person at this node: it is used here first, and it
/// answers when the log here lists it.
async fn logged_in_here(
    call: &Call,
    spki: &str,
    reply: v1::LoginReply,
) -> Result<v1::LoginReply, Status> {
    let member = &call.member;
    call.wait(|state| match state.logins.contains_key(spki) {
        true => Look::Found(()),
        false => {
            Look::Missing("the login is issued, and this node has not heard of it yet".to_owned())
        }
    })
    .await?;
    Ok(v1::LoginReply {
        address: member.meta.advertise.clone(),
        server_name: node_server_name(member.meta.node, &member.meta.cluster),
        ..reply
    })
}

fn all(member: &Member) -> v1::ListLoginsReply {
    let (state, now) = (member.log.state(), member.log.time_ms());
    let good = state.logins.values().filter(|login| login.expires_ms > now);
    v1::ListLoginsReply { logins: good.map(v1::Login::from).collect() }
}
