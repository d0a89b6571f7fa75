//! From an admitted node to a member, as the leader sees it.
//!
//! A vote is a promise about availability: a node that does not keep up, given
//! one, can cost the cluster its majority. So it is seen to have the log, to
//! have applied it and to answer leases, before it counts.

use crate::errors::{from_refusal, from_write, no_quorum};
use crate::node::{COMMIT_TIMEOUT, Member};
use std::time::Duration;
use tonic::Status;
use vip_core::{Actor, NodeId, NodeOp, NodeState, Speaker};
use vip_proto::v1;

/// How long one request waits for a node to catch up; the node asks again.
const KEEP_UP_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a change of who votes may take.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(60);

/// Takes a node in, or says what it has to do before. See `Activate` in
/// cluster.proto.
///
/// # Errors
/// Not now; with what it lacks.
pub(crate) async fn activate(
    member: &Member,
    speaker: Speaker,
    message: &v1::ActivateRequest,
) -> Result<v1::ActivateReply, Status> {
    if member.leases.leader() != Some(member.meta.node) {
        return Err(no_quorum("the leader changed during the join; trying again helps"));
    }
    let done = v1::ActivateReply::default();
    let node = speaker.node;
    let Some(record) = joining(member, node)? else { return Ok(done) };
    let learned = member.log.index();
    let asked_at = member.joins.asked(node, learned);
    if !member.raft.learner_ids().contains(&node) && !member.raft.voter_ids().contains(&node) {
        let _one = member.membership.lock().await;
        let address = record.advertise.clone();
        let learner =
            member.raft.add_learner(member.log.own_term()?, node, address, COMMIT_TIMEOUT);
        learner.await.map_err(|e| from_write(&e))?;
    }
    let kept_up = keeps_up(member, node, asked_at).await;
    let kept_up = kept_up.and_then(|()| match speaker.role {
        Some(_) if message.applied < asked_at => {
            Err(format!("it has applied {} of {asked_at} entries of the log", message.applied))
        }
        _ => Ok(()),
    });
    member.joins.lack(node, kept_up.as_ref().err().cloned().unwrap_or_default());
    kept_up.map_err(|lacks| {
        let why = format!("{} stays joining: {lacks}", record.name);
        tracing::info!(%node, name = %record.name, %lacks, "does not join yet");
        Status::unavailable(why)
    })?;
    if speaker.role != Some(record.role) {
        let chain = member.authority.sign(node, Some(record.role), &message.csr)?;
        return Ok(v1::ActivateReply { chain, through: asked_at });
    }
    take_in(member, node).await?;
    member.joins.forget(node);
    Ok(done)
}

/// The node's record, as long as it joins.
fn joining(member: &Member, node: NodeId) -> Result<Option<vip_core::Node>, Status> {
    let state = member.log.state();
    let record = state.nodes.get(&node);
    let record = record.ok_or_else(|| Status::not_found("this node is not admitted"))?;
    Ok(Some(record.clone()).filter(|node| node.state == NodeState::Joining))
}

/// Waits until the node has the log up to `index` and answers leases. The error
/// says what is missing.
async fn keeps_up(member: &Member, node: NodeId, index: u64) -> Result<(), String> {
    let has_log = || member.raft.has(node, index);
    let answers = || member.leases.alive().contains(&node);
    if member.comes_true(KEEP_UP_TIMEOUT, || has_log() && answers()).await {
        return Ok(());
    }
    Err(match has_log() {
        false => "its log does not follow the leader's; is its port open?",
        true => "it acknowledges no lease message of the leader",
    }
    .to_owned())
}

/// Makes the node what its role says.
async fn take_in(member: &Member, node: NodeId) -> Result<(), Status> {
    // One after the other: each membership change must be committed before the
    // next begins.
    let _one = member.membership.lock().await;
    let term = member.log.own_term()?;
    let Some(record) = joining(member, node)? else { return Ok(()) };
    if record.role.votes() {
        member.raft.finish_change(term, CHANGE_TIMEOUT).await.map_err(|e| from_write(&e))?;
        let mut voters = member.raft.voter_ids();
        voters.insert(node);
        let alive = member.leases.alive();
        let answering = voters.iter().filter(|voter| alive.contains(voter)).count();
        if !alive.contains(&node) || 2 * answering <= voters.len() {
            return Err(Status::unavailable(format!(
                "of {} voters with {} only {answering} would answer now, and that is no \
                 majority. Nothing was changed",
                voters.len(),
                record.name
            )));
        }
        let change = member.raft.set_voters(term, voters, true, CHANGE_TIMEOUT);
        change.await.map_err(|e| from_write(&e))?;
    }
    // Good in every term: Raft's own membership says that it takes part.
    let (actor, activate) = (Actor::leader(&member.meta.name), NodeOp::Activate { node });
    let outcome = member.log.propose_as(actor, activate, COMMIT_TIMEOUT).await;
    outcome.map_err(|e| from_write(&e))?.accepted().map_err(|e| from_refusal(&e))?;
    tracing::info!(%node, name = %record.name, role = %record.role, "joined");
    Ok(())
}
