//! `vip.v1.Admin`: each call finds out who asks, goes to the leader if only it
//! can answer, and answers when its effect holds.

use super::access::Caller;
use crate::errors::{from_call, from_refusal, from_relay, from_write, no_quorum};
use crate::member::Member;
use crate::serve::Agent;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep};
use tokio_stream::{Stream, StreamExt};
use tonic::transport::Channel;
use tonic::{Request, Response, Status};
use vip_core::{Actor, NodeState, Op, Outcome, Role, State, excerpt};
use vip_pki::{Identity, PeerInfo};
use vip_proto::v1;
use vip_proto::v1::admin_client::AdminClient;
use vip_proto::v1::admin_server::Admin;
use zeroize::Zeroizing;

/// What a node that leads no more answers to a relayed command.
const LEADER_MOVED: &str = "the leader changed while the command was relayed";
/// Carries the actor from a relaying member to the leader.
const ACTOR_HEADER: &str = "vipd-actor";
/// For callers that set no deadline.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);
/// The answer has to leave before the caller's own timer fires.
const ANSWER_MARGIN: Duration = Duration::from_millis(150);
/// How long the leader may take to answer a read.
const READ_TIMEOUT: Duration = Duration::from_millis(300);
const POLL: Duration = Duration::from_millis(5);
/// For so long a command waits for a leader: several elections. What does not
/// have one then needs somebody's hands.
const LEADER_PATIENCE: Duration = Duration::from_secs(6);

/// Runs to its end also when the caller goes away: half a membership is worse
/// than none.
async fn to_its_end<T: Send + 'static>(
    work: impl Future<Output = Result<T, Status>> + Send + 'static,
) -> Result<Response<T>, Status> {
    let done = tokio::spawn(work).await;
    done.map_err(|e| crate::errors::internal("the command failed", &e))?.map(Response::new)
}

/// See the module.
#[derive(Clone)]
pub(crate) struct AdminService {
    pub(super) agent: Arc<Agent>,
}

/// One call.
pub(super) struct Call {
    pub(super) member: Arc<Member>,
    pub(super) actor: Actor,
    pub(super) deadline: Instant,
    relayed: bool,
}

/// Where a call is carried out.
pub(super) enum Route {
    Here,
    There(AdminClient<Channel>),
}

/// The time that a caller allows (gRPC over HTTP/2, "Timeout").
fn timeout(metadata: &tonic::metadata::MetadataMap) -> Duration {
    let parse = || {
        let text = metadata.get("grpc-timeout")?.to_str().ok()?;
        let (value, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
        let value: u64 = value.parse().ok()?;
        Some(match unit {
            "H" => Duration::from_secs(value.saturating_mul(3600)),
            "M" => Duration::from_secs(value.saturating_mul(60)),
            "S" => Duration::from_secs(value),
            "m" => Duration::from_millis(value),
            "u" => Duration::from_micros(value),
            "n" => Duration::from_nanos(value),
            _ => return None,
        })
    };
    parse().unwrap_or(DEFAULT_TIMEOUT).min(Duration::from_secs(3600))
}

pub(crate) fn not_a_member() -> Status {
    Status::failed_precondition(
        "this node is in no cluster. `vipctl init` makes one of it; `vipctl join` joins one",
    )
}

impl AdminService {
    pub(crate) fn new(agent: Arc<Agent>) -> Self {
        Self { agent }
    }

    pub(super) fn call<T>(&self, request: &Request<T>) -> Result<Call, Status> {
        let member = self.agent.member().ok_or_else(not_a_member)?;
        let caller = request.extensions().get::<Caller>();
        let caller = caller.ok_or_else(|| Status::permission_denied("unknown caller"))?;
        let (actor, relayed) = match caller {
            Caller::LocalRoot => (format!("root@{}", member.meta.name), false),
            Caller::Peer(Identity::User { name, role }) => {
                let peer = request.extensions().get::<PeerInfo>().map(|p| p.address.ip());
                let from = peer.map(|ip| ip.to_string()).unwrap_or_default();
                (format!("{name} ({role}) from {from}"), false)
            }
            Caller::Peer(Identity::Node(node)) => {
                let state = member.raft.state();
                let relay = state.nodes.get(node);
                let relay = relay.ok_or_else(|| Status::permission_denied("not a member"))?;
                let text = request.metadata().get(ACTOR_HEADER).and_then(|v| v.to_str().ok());
                (format!("{} via {}", excerpt(text.unwrap_or("unknown")), relay.name), true)
            }
            Caller::Peer(Identity::Anonymous) => {
                return Err(Status::permission_denied("no certificate"));
            }
        };
        let deadline = Instant::now() + timeout(request.metadata()).saturating_sub(ANSWER_MARGIN);
        Ok(Call { member, actor: Actor(actor), deadline, relayed })
    }

    /// As [`Self::call`], for calls that change something: a member that is no
    /// voter relays none of them.
    pub(super) fn change<T>(&self, request: &Request<T>) -> Result<Call, Status> {
        let call = self.call(request)?;
        if let Some(Caller::Peer(Identity::Node(node))) = request.extensions().get::<Caller>() {
            let state = call.member.raft.state();
            let may = state
                .nodes
                .get(node)
                .is_some_and(|n| n.role == Role::Voter && n.state != NodeState::Joining);
            if !may {
                return Err(Status::permission_denied(
                    "learners and witnesses relay no changes; run the command on a voter",
                ));
            }
        }
        Ok(call)
    }
}

impl Call {
    pub(super) fn time_left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    /// Waits for a leader and says whether that is this node.
    pub(super) async fn route(&self) -> Result<Route, Status> {
        let member = &self.member;
        let until = Instant::now() + self.time_left().min(LEADER_PATIENCE);
        loop {
            member.refuse_if_removed()?;
            match member.shared.leader() {
                Some(leader) if leader == member.meta.node => {
                    let ready = member.shared.leads_applied();
                    if ready {
                        return Ok(Route::Here);
                    }
                }
                Some(_) if self.relayed => return Err(Status::aborted(LEADER_MOVED)),
                Some(leader) => {
                    if let Some(channel) = member.channel(leader) {
                        return Ok(Route::There(AdminClient::new(channel)));
                    }
                }
                None => {}
            }
            if Instant::now() >= until {
                return Err(no_quorum("this node knows of no leader, so nothing was done"));
            }
            sleep(POLL).await;
        }
    }

    /// Whether a relayed command met a node that leads no more: nothing was done,
    /// and the one that does is known soon.
    fn goes_on_after(&self, status: &Status) -> bool {
        let moved = status.code() == tonic::Code::Aborted && status.message() == LEADER_MOVED;
        moved && !self.time_left().is_zero()
    }

    /// The leader, if it is another node.
    fn leader(&self) -> Option<AdminClient<Channel>> {
        let leader = self.member.shared.leader().filter(|l| *l != self.member.meta.node)?;
        Some(AdminClient::new(self.member.channel(leader).filter(|_| !self.relayed)?))
    }

    /// As [`Self::relay`], for reads: a leader that was just lost must not keep
    /// a person waiting.
    fn read<T>(&self, message: T) -> Request<T> {
        let mut request = self.relay(message);
        request.set_timeout(self.time_left().min(READ_TIMEOUT));
        request
    }

    /// The same call, for the leader.
    pub(super) fn relay<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.set_timeout(self.time_left());
        if let Ok(actor) = self.actor.0.parse() {
            request.metadata_mut().insert(ACTOR_HEADER, actor);
        }
        request
    }

    /// Writes to the log as this caller.
    pub(super) async fn propose(&self, op: Op) -> Result<Outcome, Status> {
        let write = self.member.propose_as(self.actor.clone(), op, self.time_left());
        let outcome = write.await.map_err(|e| from_write(&e))?;
        outcome.accepted().map_err(|refusal| from_refusal(&refusal))
    }

    /// Waits until `look` finds something in the state; `missing` says what is
    /// still awaited.
    pub(super) async fn wait<T>(
        &self,
        mut look: impl FnMut(&State) -> Option<T>,
        missing: impl Fn(&State) -> String,
    ) -> Result<T, Status> {
        let mut changes = self.member.shared.changes();
        loop {
            let state = self.member.raft.state();
            if let Some(found) = look(&state) {
                return Ok(found);
            }
            if self.time_left().is_zero() {
                return Err(Status::deadline_exceeded(format!(
                    "{}. The command was accepted and goes on",
                    missing(&state)
                )));
            }
            tokio::select! {
                _ = changes.changed() => {}
                () = sleep(POLL) => {}
            }
        }
    }
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
        // What is not there is not written to the log, either.
        if !call.member.raft.state().tokens.contains_key(&id) {
            return Err(from_refusal(&vip_core::Refusal::UnknownToken { token: id }));
        }
        call.propose(Op::RevokeToken { id }).await?;
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
        let place = self.agent.streams.enter(request.extensions().get::<Caller>());
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
        call.propose(Op::RevokeLogin { user }).await?;
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
        let _one = self.agent.examination.lock().await;
        Ok(Response::new(super::doctor::examine(&self.agent).await))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_callers_timeout_is_read_in_every_unit() {
        for (text, expected) in [
            ("5S", Duration::from_secs(5)),
            ("1500m", Duration::from_millis(1500)),
            ("1H", Duration::from_secs(3600)),
            ("x", DEFAULT_TIMEOUT),
            ("", DEFAULT_TIMEOUT),
        ] {
            let mut metadata = tonic::metadata::MetadataMap::new();
            metadata.insert("grpc-timeout", text.parse().expect("ascii"));
            assert_eq!(timeout(&metadata), expected, "{text}");
        }
    }
}
