//! `vip.v1.Nodes`.

use super::call::{AdminService, Call, ask_leader, on_leader};
use super::sight::trouble;
use super::vips::hindrance;
use crate::access::Caller;
use crate::errors::{from_refusal, from_write};
use crate::hand_over::hand_over_leadership;
use crate::node::{COMMIT_TIMEOUT, Member};
use tonic::{Request, Response, Status};
use vip_core::{Goal, NodeId, NodeOp, NodeState, Refusal, State, excerpt};
use vip_pki::Identity;
use vip_proto::v1;
use vip_proto::v1::nodes_client::NodesClient;

#[tonic::async_trait]
impl v1::nodes_server::Nodes for AdminService {
    async fn list_nodes(
        &self,
        request: Request<v1::ListNodesRequest>,
    ) -> Result<Response<v1::ListNodesReply>, Status> {
        let (call, message) = (self.call(&request)?, request.into_inner());
        ask_leader!(call, message, NodesClient, list_nodes);
        Ok(Response::new(v1::ListNodesReply { nodes: all(&call.member) }))
    }

    async fn drain_node(
        &self,
        request: Request<v1::DrainNodeRequest>,
    ) -> Result<Response<v1::DrainNodeReply>, Status> {
        let (call, message) = (self.change(&request)?, request.into_inner());
        on_leader!(call, message, NodesClient, drain_node);
        let node = known_node(&call.member.log.state(), &message.name)?;
        call.propose(NodeOp::Drain { node, drained: message.drain }).await?;
        if message.drain {
            call.reach(Goal::Relieved(node)).await?;
        }
        Ok(Response::new(v1::DrainNodeReply {}))
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
        on_leader!(call, message, NodesClient, remove_node);
        remove(&call, &message).await.map(Response::new)
    }
}

/// Ends a membership, as leader.
pub(super) async fn remove(
    call: &Call,
    request: &v1::RemoveNodeRequest,
) -> Result<v1::RemoveNodeReply, Status> {
    let (member, name) = (&call.member, request.name.as_str());
    let state = member.log.state();
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
    call.reach(Goal::Relieved(node)).await?;
    if node == member.meta.node {
        let to = member.leases.successor().ok_or_else(|| {
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
    let term = member.log.own_term()?;
    match member.log.state().nodes.get(&node).map(|n| n.state) {
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

/// What is left to do after a removal.
fn removed(member: &Member, node: NodeId, for_cause: bool) -> v1::RemoveNodeReply {
    let state = member.log.state();
    let had_root = state.issuers().is_some_and(|issuers| issuers.had_root(node));
    let root = "the root CA's key was once on it. If anybody may have kept a copy, a new issuing \
                CA is not enough: make a new cluster, and move the VIPs there";
    let warnings = if for_cause && had_root { vec![root.to_owned()] } else { vec![] };
    v1::RemoveNodeReply { warnings }
}

fn known_node(state: &State, name: &str) -> Result<NodeId, Status> {
    let unknown = || Refusal::UnknownNode { name: excerpt(name) };
    let node = state.node_named(name).map(|n| n.id);
    node.ok_or_else(|| from_refusal(&unknown()))
}

/// Refuses what could not be finished, before anything is changed.
fn may_go(member: &Member, node: NodeId) -> Result<(), Status> {
    let state = member.log.state();
    let alive = member.leases.alive();
    let refuse =
        |why: &str| Err(Status::failed_precondition(format!("{why}. Nothing was changed")));
    let last = state.nodes.values().filter(|n| n.role.votes()).count() == 1;
    if node == member.meta.node && !last && member.leases.successor().is_none() {
        return refuse("it leads, and no other voter that can hold VIPs is alive to take over");
    }
    let holds = state.all_vips().any(|vip| vip.holder == Some(node));
    let other = |n: &vip_core::Node| n.id != node && n.may_hold() && alive.contains(&n.id);
    if holds && !last && !state.nodes.values().any(other) {
        return refuse("it holds VIPs, and no other node is alive to take them over");
    }
    Ok(())
}

/// Every node, by name.
pub(super) fn all(member: &Member) -> Vec<v1::Node> {
    let state = member.log.state();
    let leader = member.leases.leader();
    // Only the leader hears everybody.
    let alive = member.leases.has_lease().then(|| member.leases.alive());
    let vips = state.vips_by_name();
    let node = |node: &vip_core::Node| {
        let lost = alive.as_ref().is_some_and(|alive| !alive.contains(&node.id));
        let known = match node.state {
            NodeState::Active if lost => v1::NodeState::Lost,
            // Whoever hears nobody knows of itself alone.
            NodeState::Active if alive.is_none() && node.id != member.meta.node => {
                v1::NodeState::Unknown
            }
            other => other.into(),
        };
        let held = vips.iter().filter(|v| v.holder == Some(node.id));
        // Of itself it knows what it answers for, whoever leads.
        let own = node.id == member.meta.node && alive.is_none();
        let held = held.filter(|v| !own || member.leases.holds(v));
        v1::Node {
            id: node.id.0,
            name: node.name.to_string(),
            role: v1::Role::from(node.role).into(),
            state: known.into(),
            address: node.advertise.clone(),
            leader: leader == Some(node.id),
            vips: held.map(|v| v.spec.name.to_string()).collect(),
            since_ms: node.since_ms,
            fresh: alive.is_some(),
            trouble: trouble(member, node.id).filter(|_| node.role.holds()).map(ToOwned::to_owned),
            hindered: vips
                .iter()
                .filter_map(|vip| {
                    let why = state.obstacles.get(&vip.uid)?.get(&node.id)?;
                    Some(hindrance(&state, vip, node.id, why))
                })
                .collect(),
            version: Some(node.runs.version.clone()).filter(|version| !version.is_empty()),
        }
    };
    let mut all: Vec<v1::Node> = state.nodes.values().map(node).collect();
    all.sort_by(|a, b| a.name.cmp(&b.name));
    all
}
