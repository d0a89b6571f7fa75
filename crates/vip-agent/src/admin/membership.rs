//! Calls about membership: init, join, leave, tokens, drain, remove, login.

use super::call::{AdminService, Call, Route};
use crate::errors::not_a_member;
use crate::errors::{from_write, internal, invalid, no_issuer};
use crate::hand_over::hand_over_leadership;
use crate::membership::{Initialised, create_token, forget_membership, init, join};
use crate::node::{COMMIT_TIMEOUT, Member};
use std::time::Duration;
use tonic::{Code, Status};
use vip_core::{
    Actor, AdminRole, Login, LoginOp, Name, NodeId, NodeOp, NodeState, Role, State, excerpt,
};
use vip_pki::{USER_LIFE, node_server_name, spki_of_csr};
use vip_proto::v1;

/// Default and largest life of a token (research: kubeadm's and our cap).
const TOKEN_TTL_S: u64 = 3600;
const MAX_TOKEN_TTL_S: u64 = 24 * 3600;
/// Most nodes that one token may admit.
const MAX_TOKEN_USES: u32 = 100;
/// Between two attempts to leave while leadership moves.
const LEAVE_PAUSE: Duration = Duration::from_millis(50);
const DEFAULT_CLUSTER_NAME: &str = "vipd";

fn join_command(member: &Member) -> String {
    let state = member.raft.state();
    let addresses: Vec<_> = state.nodes.values().map(|n| n.advertise.clone()).collect();
    format!("vipctl join {} --token-file -", addresses.join(","))
}

/// What a new cluster's first node says, with a token for the second.
pub(super) async fn founded(made: Initialised) -> Result<v1::InitReply, Status> {
    let Initialised { member, recovery_file } = made;
    let actor = Actor(format!("root@{}", member.meta.name));
    let expires_ms = member.time_ms() + TOKEN_TTL_S * 1000;
    let token = create_token(&member, actor, Role::Voter, expires_ms, 1).await?;
    Ok(v1::InitReply {
        cluster: member.meta.cluster_name.to_string(),
        node: member.meta.name.to_string(),
        join_command: join_command(&member),
        token: token.reveal(),
        recovery_file: recovery_file.display().to_string(),
    })
}

impl AdminService {
    pub(super) async fn do_init(&self, request: v1::InitRequest) -> Result<v1::InitReply, Status> {
        let name = match request.name.as_str() {
            "" => DEFAULT_CLUSTER_NAME,
            name => name,
        };
        let name: Name = name.parse().map_err(invalid)?;
        founded(init(&self.agent, name).await?).await
    }

    pub(super) async fn do_join(
        &self,
        request: v1::JoinClusterRequest,
        limit: Duration,
    ) -> Result<v1::JoinClusterReply, Status> {
        let (member, role) = join(&self.agent, &request.addresses, &request.token, limit).await?;
        Ok(v1::JoinClusterReply {
            cluster: member.meta.cluster_name.to_string(),
            node: member.meta.name.to_string(),
            role: role.to_string(),
        })
    }

    pub(super) async fn do_leave(
        &self,
        call: &Call,
        force: bool,
    ) -> Result<v1::LeaveReply, Status> {
        let _one = self.agent.begin_forming().await?;
        if self.agent.member().is_none() {
            return Err(not_a_member());
        }
        let name = call.member.meta.name.to_string();
        let request = v1::RemoveNodeRequest { name, for_cause: false };
        let mut asked = false;
        loop {
            let result = match call.route().await {
                Ok(Route::Here) => self.do_remove(call, &request).await.map(|_| ()),
                Ok(Route::There(mut client)) => {
                    client.remove_node(call.relay(request.clone())).await.map(|_| ())
                }
                // Nobody leads, and nobody was asked to remove it.
                Err(status) if !asked && !force => return Err(status),
                Err(status) => Err(status),
            };
            asked = true;
            let out = || {
                let member = &call.member;
                let state = member.raft.state();
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
        forget_membership(&self.agent).await?;
        Ok(v1::LeaveReply {})
    }

    pub(super) async fn do_create_token(
        &self,
        call: &Call,
        request: &v1::CreateTokenRequest,
    ) -> Result<v1::CreateTokenReply, Status> {
        let role: Role = match request.role.as_str() {
            "" => Role::Voter,
            role => role.parse().map_err(invalid)?,
        };
        let ttl_s = if request.ttl_s == 0 { TOKEN_TTL_S } else { request.ttl_s };
        if ttl_s > MAX_TOKEN_TTL_S {
            return Err(invalid("a token lives for 24 h at most"));
        }
        let uses = request.uses.max(1);
        if uses > MAX_TOKEN_USES {
            return Err(invalid(format!("a token admits {MAX_TOKEN_USES} nodes at most")));
        }
        call.member.may_date()?;
        let expires_ms = call.member.time_ms() + ttl_s * 1000;
        let token = create_token(&call.member, call.actor.clone(), role, expires_ms, uses).await?;
        Ok(v1::CreateTokenReply {
            id: token.id.to_string(),
            token: token.reveal(),
            expires_ms,
            join_command: join_command(&call.member),
        })
    }

    pub(super) async fn do_drain(
        &self,
        call: &Call,
        request: &v1::DrainNodeRequest,
    ) -> Result<v1::DrainNodeReply, Status> {
        let node = known_node(&call.member.raft.state(), &request.name)?;
        call.propose(NodeOp::Drain { node, drained: request.drain }).await?;
        if request.drain {
            wait_until_relieved(call, node).await?;
        }
        Ok(v1::DrainNodeReply {})
    }

    pub(super) async fn do_remove(
        &self,
        call: &Call,
        request: &v1::RemoveNodeRequest,
    ) -> Result<v1::RemoveNodeReply, Status> {
        let (member, name) = (&call.member, request.name.as_str());
        let state = member.raft.state();
        if let Some(node) = state.cut_off_node_named(name) {
            if request.for_cause {
                return Err(Status::failed_precondition(
                    "it is of the cluster that this one was made of, and none of its keys is good \
                     here but the issuing CA's, if it voted: `vipctl ca rotate --root-key-file \
                     FILE`. Nothing was changed",
                ));
            }
            // Of the cluster that this one was made of: it is said to be gone.
            call.propose(NodeOp::Remove { node }).await?;
            return Ok(v1::RemoveNodeReply::default());
        }
        let node = known_node(&state, name)?;
        may_go(member, node)?;
        let for_cause = request.for_cause;
        call.propose(NodeOp::Leaving { node, for_cause }).await?;
        // A node that answers hands over first; for one that does not, the
        // leases run out.
        wait_until_relieved(call, node).await?;
        if node == member.meta.node {
            let to = member.shared.successor().ok_or_else(|| {
                Status::failed_precondition(
                    "no other voter is alive to lead the cluster. Nothing was removed",
                )
            })?;
            hand_over_leadership(member, to).await;
            return Err(Status::aborted("leadership was handed over first; asking the new leader"));
        }
        let waiting = tokio::time::timeout(call.time_left(), member.membership.lock());
        let _one = waiting.await.map_err(|_| {
            Status::deadline_exceeded(format!(
                "another change of members is under way, and {name} waits for it: it is leaving \
                 and holds nothing, but is still a member; try again"
            ))
        })?;
        let term = member.own_term()?;
        match member.raft.state().nodes.get(&node).map(|n| n.state) {
            Some(NodeState::Leaving) => {}
            Some(_) => {
                let undone = format!("{name} was to leave, but that was undone meanwhile");
                return Err(Status::aborted(undone));
            }
            // Somebody else came to the end of it.
            None => return Ok(removed(member, node, for_cause)),
        }
        let limit = || call.time_left().max(COMMIT_TIMEOUT);
        member.raft.finish_change(term, limit()).await.map_err(|e| from_write(&e))?;
        let removal = member.raft.remove_member(term, node, limit());
        removal.await.map_err(|e| from_write(&e))?;
        call.propose(NodeOp::Remove { node }).await?;
        Ok(removed(member, node, for_cause))
    }
}

/// What is left to do after a removal.
fn removed(member: &Member, node: NodeId, for_cause: bool) -> v1::RemoveNodeReply {
    let state = member.raft.state();
    let had_root = state.issuers().is_some_and(|issuers| issuers.had_root(node));
    let root = "the root CA's key was once on it. If anybody may have kept a copy, a new issuing \
                CA is not enough: make a new cluster, and move the VIPs there";
    let warnings = if for_cause && had_root { vec![root.to_owned()] } else { vec![] };
    v1::RemoveNodeReply { warnings }
}

fn known_node(state: &State, name: &str) -> Result<NodeId, Status> {
    let unknown = || vip_core::Refusal::UnknownNode { name: excerpt(name) };
    let node = state.node_named(name).map(|n| n.id);
    node.ok_or_else(|| crate::errors::from_refusal(&unknown()))
}

/// Refuses what could not be finished, before anything is changed.
fn may_go(member: &Member, node: NodeId) -> Result<(), Status> {
    let state = member.raft.state();
    let alive = member.shared.alive();
    let refuse =
        |why: &str| Err(Status::failed_precondition(format!("{why}. Nothing was changed")));
    let last = state.nodes.values().filter(|n| n.role.votes()).count() == 1;
    if node == member.meta.node && !last && member.shared.successor().is_none() {
        return refuse("it leads, and no other voter that can hold VIPs is alive to take over");
    }
    let holds = state.all_vips().any(|vip| vip.holder == Some(node));
    let other = |n: &vip_core::Node| n.id != node && n.may_hold() && alive.contains(&n.id);
    if holds && !last && !state.nodes.values().any(other) {
        return refuse("it holds VIPs, and no other node is alive to take them over");
    }
    Ok(())
}

/// Waits until a node holds nothing, and what it held is certainly silent.
async fn wait_until_relieved(call: &Call, node: NodeId) -> Result<(), Status> {
    let member = &call.member;
    let held = |state: &State| {
        let still = |vip: &&vip_core::Vip| {
            let before_ended = member.shared.answers(vip).before_ended;
            vip.holder == Some(node) || (vip.holder.is_none() && !before_ended)
        };
        state.all_vips().filter(still).map(|v| v.spec.name.to_string()).collect::<Vec<_>>()
    };
    let look = |state: &State| held(state).is_empty().then_some(());
    call.wait(look, |state| {
        format!("it still holds {}, and no other node can take over", held(state).join(", "))
    })
    .await
}

/// Issues a certificate for a person, as leader: what the log does not list is
/// none.
pub(super) async fn login(
    call: &Call,
    request: v1::LoginRequest,
) -> Result<v1::LoginReply, Status> {
    let member = &call.member;
    let user: Name = request.user.parse().map_err(invalid)?;
    let role: AdminRole = request.role.parse().map_err(invalid)?;
    let spki = spki_of_csr(&request.csr).map_err(invalid)?;
    member.may_date()?;
    let issuer = member.issuer().ok_or_else(no_issuer)?;
    let signed = issuer.sign_user(&request.csr, &user, role, &member.meta.cluster);
    let chain = signed.map_err(|e| internal("signing", &e))?;
    let life_ms = u64::try_from(USER_LIFE.whole_milliseconds()).unwrap_or(0);
    let expires_ms = member.time_ms() + life_ms;
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
pub(super) async fn logged_in_here(
    call: &Call,
    spki: &str,
    reply: v1::LoginReply,
) -> Result<v1::LoginReply, Status> {
    let member = &call.member;
    let listed = |state: &State| state.logins.contains_key(spki).then_some(());
    call.wait(listed, |_| "the login is issued, and this node has not heard of it yet".into())
        .await?;
    Ok(v1::LoginReply {
        address: member.meta.advertise.clone(),
        server_name: node_server_name(member.meta.node, &member.meta.cluster),
        ..reply
    })
}
