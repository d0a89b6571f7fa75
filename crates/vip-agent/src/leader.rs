//! What the leader writes to the log on its own account: who holds what, which
//! epochs were granted, which ended.

use crate::hand_over::try_to_hand_over_leadership;
use crate::node::Member;
use futures_util::future::join_all;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::sleep;
use vip_core::{LEADER_LOOKS, Op};
use vip_raft::WriteError;

/// After a failed proposal.
const PAUSE: Duration = Duration::from_millis(20);

/// Runs for as long as the member does.
pub(crate) async fn lead(member: Arc<Member>) {
    let stop = member.stopped();
    let mut changes = member.leases.changes();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = changes.changed() => {}
            () = sleep(LEADER_LOOKS) => {}
        }
        changes.borrow_and_update();
        if !member.leases.leads_applied() {
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
    for step in &work.moves {
        let state = member.log.state();
        let vip = state.vip(step.vip).map(|vip| vip.spec.name.to_string()).unwrap_or_default();
        let to = step.to.and_then(|node| state.node_name(node)).map(ToString::to_string);
        tracing::info!(vip, to, cause = %step.cause, "assigning");
    }
    let term = work.term;
    let retirements = member.log.state().retirements(member.log.time_ms());
    let ops = work.ops().into_iter().chain(retirements.into_iter().map(Op::from));
    join_all(ops.map(|op| member.log.propose(term, op)))
        .await
        .into_iter()
        .try_for_each(|outcome| outcome.map(|_| ()))?;
    if let Some(to) = member.leases.leads_instead_of() {
        // If it cannot be now, the next look tries again.
        try_to_hand_over_leadership(member, to).await;
    }
    Ok(())
}
