//! What the leader writes to the log on its own account: who holds what, which
//! epochs were granted, which ended.

use crate::member::Member;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep};
use vip_core::{NodeId, NodeState, Op};
use vip_raft::WriteError;

/// Liveness changes by time alone, so the leader looks this often at least.
const LOOK: Duration = Duration::from_millis(20);
/// How long the guard may take to let the last VIP go before a hand-over.
const SHUT_TIMEOUT: Duration = Duration::from_millis(500);
const POLL: Duration = Duration::from_millis(2);
/// After a failed proposal.
const PAUSE: Duration = Duration::from_millis(20);
/// A join that is not finished after so long is undone.
const JOIN_TIMEOUT_MS: u64 = 5 * 60 * 1000;

/// Runs for as long as the member does.
pub(crate) async fn lead(member: Arc<Member>) {
    let stop = member.stopped();
    let mut changes = member.shared.changes();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = changes.changed() => {}
            () = sleep(LOOK) => {}
        }
        changes.borrow_and_update();
        if !member.shared.leads_applied() {
            continue;
        }
        if let Err(error) = work(&member).await {
            tracing::debug!(%error, "the leader's proposal was not committed");
            sleep(PAUSE).await;
        }
    }
}

async fn work(member: &Member) -> Result<(), WriteError> {
    let work = member.shared.leader_work();
    // Moves first: a VIP without a holder is what hurts.
    let moves = async {
        if work.moves.is_empty() {
            return Ok(());
        }
        for step in &work.moves {
            tracing::info!(vip = %step.vip, to = ?step.to, cause = %step.cause, "assigning");
        }
        member.propose(Op::Assign { moves: work.moves }).await.map(|_| ())
    };
    let own = async {
        if work.own.is_empty() {
            return Ok(());
        }
        member.propose(Op::Settle { grants: work.own, nested: true }).await.map(|_| ())
    };
    let others = async {
        if work.others.is_empty() {
            return Ok(());
        }
        member.propose(Op::Settle { grants: work.others, nested: false }).await.map(|_| ())
    };
    let releases = async {
        if work.releases.is_empty() {
            return Ok(());
        }
        member.propose(Op::Released { releases: work.releases }).await.map(|_| ())
    };
    let (moves, own, others, releases) = tokio::join!(moves, own, others, releases);
    moves.and(own).and(others).and(releases)?;
    expire_joins(member).await?;
    finish_leaves(member).await?;
    hand_leadership_away(member).await;
    Ok(())
}

async fn expire_joins(member: &Member) -> Result<(), WriteError> {
    let state = member.raft.state();
    let now = crate::member::wall_clock_ms();
    let late =
        |n: &&vip_core::Node| n.state == NodeState::Joining && n.since_ms + JOIN_TIMEOUT_MS < now;
    let Some(node) = state.nodes.values().find(late) else { return Ok(()) };
    let Ok(_guard) = member.membership.try_lock() else { return Ok(()) };
    tracing::warn!(node = %node.name, "its join was never finished; undoing it");
    let limit = crate::member::COMMIT_TIMEOUT;
    let mut voters = member.raft.voter_ids();
    if voters.remove(&node.id) {
        member.raft.set_voters(voters, false, limit).await?;
    }
    if member.raft.learner_ids().contains(&node.id) {
        member.raft.remove_learner(node.id, limit).await?;
    }
    member.propose(Op::RemoveNode { node: node.id }).await.map(|_| ())
}

/// A node that left Raft, and whose leader was lost before it could say so in
/// the log: nobody else would, because the node itself hears no leader any more.
async fn finish_leaves(member: &Member) -> Result<(), WriteError> {
    let state = member.raft.state();
    let members = member.raft.voter_ids().union(&member.raft.learner_ids()).copied().collect();
    let Some(node) = state.left(&members) else { return Ok(()) };
    let Ok(_guard) = member.membership.try_lock() else { return Ok(()) };
    tracing::info!(node = %node.name, "it left, but its removal was interrupted; finishing it");
    member.propose(Op::RemoveNode { node: node.id }).await.map(|_| ())
}

async fn hand_leadership_away(member: &Member) {
    if let Some(to) = member.shared.leads_instead_of() {
        // If it cannot be now, the next look tries again.
        try_to_abdicate(member, to).await;
    }
}

/// Ends this node's lease and hands leadership over. What it holds by that
/// lease must have been handed over before.
pub(crate) async fn abdicate_to(member: &Member, to: NodeId) {
    let until = Instant::now() + SHUT_TIMEOUT;
    while !try_to_abdicate(member, to).await {
        if Instant::now() >= until {
            tracing::warn!("a VIP is still held here, or its successor lags; leadership stays");
            return;
        }
        sleep(POLL).await;
    }
}

async fn try_to_abdicate(member: &Member, to: NodeId) -> bool {
    // Once the lease is closed nothing is replicated any more: the successor
    // has to have it all.
    if !member.raft.has_all(to) || !member.shared.close_lease(to) {
        return false;
    }
    tracing::info!(%to, "handing leadership over");
    let _ = member.raft.raft.trigger().transfer_leader(to.0).await;
    true
}
