//! What the leader finishes for others: joins that never ended, leaves and
//! changes of who votes that somebody began and nobody ended: its leader was
//! lost, or its caller hung up. On a task of its own, because a change of
//! membership may wait for seconds, and VIPs do not.

use crate::member::{COMMIT_TIMEOUT, Member, wall_clock_ms};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::sleep;
use vip_core::{Node, NodeState, Op, Term};
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
        let Some(vote) = member.shared.own_leadership() else { continue };
        if !member.shared.leads_applied() {
            continue;
        }
        if let Err(error) = work(&member, vote.term).await {
            tracing::debug!(%error, "a join or leave is not finished yet");
        }
    }
}

async fn work(member: &Member, term: Term) -> Result<(), WriteError> {
    // Somebody changes the membership already.
    let Ok(_one) = member.membership.try_lock() else { return Ok(()) };
    let raft = &member.raft;
    if let Some(voters) = raft.finish_change(term, COMMIT_TIMEOUT).await? {
        tracing::info!(?voters, "finished a change of who votes that was interrupted");
    }
    let state = raft.state();
    let now = wall_clock_ms();
    let late = |n: &&Node| n.state == NodeState::Joining && n.since_ms + JOIN_TIMEOUT_MS < now;
    if let Some(node) = state.nodes.values().find(late) {
        tracing::warn!(node = %node.name, "its join was never finished; undoing it");
        remove(member, term, node).await?;
    }
    let (voters, learners) = (raft.voter_ids(), raft.learner_ids());
    let half_gone = |n: &&Node| {
        let was_voter = n.role.votes() && n.state == NodeState::Leaving;
        was_voter && !voters.contains(&n.id) && learners.contains(&n.id)
    };
    if let Some(node) = state.nodes.values().find(half_gone) {
        tracing::info!(node = %node.name, "it votes no more, but its leave was interrupted; finishing it");
        remove(member, term, node).await?;
    }
    // Left Raft, but not the log: nobody else would say so, because the node
    // itself hears no leader any more.
    let members = raft.voter_ids().union(&raft.learner_ids()).copied().collect();
    if let Some(node) = raft.state().left(&members) {
        tracing::info!(node = %node.name, "it left, but its removal was interrupted; finishing it");
        member.propose(term, Op::RemoveNode { node: node.id }).await?;
    }
    Ok(())
}

async fn remove(member: &Member, term: Term, node: &Node) -> Result<(), WriteError> {
    let mut voters = member.raft.voter_ids();
    if voters.remove(&node.id) {
        member.raft.set_voters(term, voters, false, COMMIT_TIMEOUT).await?;
    }
    if member.raft.learner_ids().contains(&node.id) {
        member.raft.remove_learner(term, node.id, COMMIT_TIMEOUT).await?;
    }
    member.propose(term, Op::RemoveNode { node: node.id }).await.map(|_| ())
}
