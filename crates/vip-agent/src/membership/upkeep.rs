//! What the leader finishes for others: joins that never ended, leaves, changes
//! of VIPs and of who votes that somebody began and nobody ended: its leader was
//! lost, or its caller hung up. On a task of its own, because a change of
//! membership may wait for seconds, and VIPs do not.

use crate::node::reissue::retire_issuers;
use crate::node::{COMMIT_TIMEOUT, Member};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::sleep;
use vip_core::{NodeId, NodeOp, Term, VipOp};
use vip_raft::WriteError;

/// A join that is not finished after so long is undone.
const JOIN_TIMEOUT_MS: u64 = 5 * 60 * 1000;
/// How often the leader looks for what was left unfinished.
const LOOK: Duration = Duration::from_millis(200);

/// Runs for as long as the member does.
pub(crate) async fn keep_up(member: Arc<Member>) {
    let stop = member.stopped();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = sleep(LOOK) => {}
        }
        // What is read from the state is decided in this term.
        let Some(vote) = member.leases.own_leadership() else { continue };
        if !member.leases.leads_applied() {
            continue;
        }
        if let Err(status) = retire_issuers(&member, vote.term).await {
            tracing::debug!(why = status.message(), "the old issuer is not retired yet");
        }
        if let Err(error) = end_guests(&member, vote.term).await {
            tracing::debug!(%error, "a change of a VIP is not undone yet");
        }
        if let Err(error) = work(&member, vote.term).await {
            tracing::debug!(%error, "a join or leave is not finished yet");
        }
    }
}

/// Ends the guests of changes that another leader began.
async fn end_guests(member: &Member, term: Term) -> Result<(), WriteError> {
    // Those of a change that is under way here are not left over.
    let Ok(_one) = member.reshaping.try_lock() else { return Ok(()) };
    let state = member.log.state();
    for guest in state.all_vips().filter(|vip| vip.guest.is_some()) {
        member.log.propose(term, VipOp::EndGuest { vip: guest.uid }).await?;
        tracing::info!(vip = %guest.spec.name, "ended what a change left that was interrupted");
    }
    Ok(())
}

async fn work(member: &Member, term: Term) -> Result<(), WriteError> {
    // Somebody changes the membership already.
    let Ok(_one) = member.membership.try_lock() else { return Ok(()) };
    let raft = &member.raft;
    if let Some(voters) = raft.finish_change(term, COMMIT_TIMEOUT).await? {
        tracing::info!(?voters, "finished a change of who votes that was interrupted");
    }
    if let Some(node) = raft.state().late_join(member.log.time_ms(), JOIN_TIMEOUT_MS) {
        remove(member, term, node.id).await?;
        let lacks = member.joins.lacks(node.id).unwrap_or_else(|| "it never asked".into());
        member.joins.forget(node.id);
        tracing::warn!(node = %node.name, %lacks, "its join was never finished, and is undone");
    }
    let learners = raft.learner_ids();
    if let Some(node) = raft.state().half_left(&raft.voter_ids(), &learners) {
        remove(member, term, node.id).await?;
        tracing::info!(node = %node.name, "finished its leave, which was interrupted");
    }
    if let Some(node) = raft.state().voteless(&learners)
        && member.leases.alive().contains(&node.id)
    {
        let voters = raft.voter_ids().into_iter().chain([node.id]).collect();
        raft.set_voters(term, voters, true, COMMIT_TIMEOUT).await?;
        tracing::info!(node = %node.name, "votes again: its leave was undone");
    }
    // Left Raft, but not the log: nobody else would say so, because the node
    // itself hears no leader any more.
    let members: BTreeSet<NodeId> = raft.voter_ids().union(&raft.learner_ids()).copied().collect();
    if let Some(node) = raft.state().left(&members) {
        remove(member, term, node.id).await?;
        tracing::info!(node = %node.name, "finished its removal, which was interrupted");
    }
    // Left the log, but not Raft.
    let state = raft.state();
    let unknown = |id: &NodeId| *id != member.meta.node && !state.nodes.contains_key(id);
    if let Some(node) = members.into_iter().find(unknown) {
        raft.remove_member(term, node, COMMIT_TIMEOUT).await?;
        tracing::warn!(%node, "took a member out of Raft that the log does not know any more");
    }
    Ok(())
}

async fn remove(member: &Member, term: Term, node: NodeId) -> Result<(), WriteError> {
    member.raft.remove_member(term, node, COMMIT_TIMEOUT).await?;
    let outcome = member.log.propose(term, NodeOp::Remove { node }).await?;
    if let Err(refusal) = outcome.accepted() {
        tracing::warn!(%node, %refusal, "it could not be removed");
    }
    Ok(())
}
