//! What the leader writes to the log on its own account: who holds what, which
//! epochs were granted, which ended.

use crate::hand_over::try_to_hand_over_leadership;
use crate::node::Member;
use futures_util::future::join_all;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep};
use vip_core::{
    Absences, LEADER_LOOKS, Lasting, NodeId, Op, Server, ServerOp, ServerUid, State, Vip, VipUid,
};
use vip_guard::boottime;
use vip_raft::WriteError;

/// After a failed proposal.
const PAUSE: Duration = Duration::from_millis(20);

/// Runs for as long as the member does.
pub(crate) async fn lead(member: Arc<Member>) {
    let stop = member.stopped();
    let mut changes = member.leases.changes();
    let mut silent = Silent::default();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = changes.changed() => {}
            () = sleep(LEADER_LOOKS) => {}
        }
        changes.borrow_and_update();
        if !member.leases.leads_applied() {
            silent = Silent::default();
            continue;
        }
        if let Err(error) = work(&member, &mut silent).await {
            tracing::debug!(%error, "the leader's proposal was not committed");
            sleep(PAUSE).await;
        }
    }
}

type Servers = Arc<BTreeMap<ServerUid, Arc<Server>>>;
/// What it follows from which ways are broken: virtual servers, and who holds VIPs.
type Seen = (Servers, Arc<BTreeMap<VipUid, Arc<Vip>>>);

/// What time brings is looked for as often, beside where there is news.
const LOOKS: Duration = Duration::from_secs(1);

#[derive(Default)]
struct Waits {
    looked: Option<(Seen, Instant)>,
    lasting: Lasting,
}

impl Waits {
    fn over(&mut self, state: &State) -> Vec<ServerOp> {
        let is_done = |((servers, vips), at): &(Seen, Instant)| {
            Arc::ptr_eq(servers, &state.servers)
                && Arc::ptr_eq(vips, &state.vips)
                && at.elapsed() < LOOKS
        };
        if self.looked.as_ref().is_some_and(is_done) {
            return vec![];
        }
        self.looked = Some(((state.servers.clone(), state.vips.clone()), Instant::now()));
        self.lasting.over(boottime(), state, 1)
    }
}

/// Nodes that the leader does not hear, and what it has taken back for them.
#[derive(Default)]
struct Silent {
    absences: Absences,
    waits: Waits,
    /// There was nothing more to take back.
    done: Option<(BTreeSet<NodeId>, Servers)>,
}

impl Silent {
    fn blinded(&mut self, member: &Member, state: &State) -> Vec<ServerOp> {
        let all = state.nodes.keys().copied().filter(|node| *node != member.meta.node);
        let silent = self.absences.of(boottime(), all, &member.leases.alive());
        let is_done = |(nodes, servers): &(BTreeSet<NodeId>, Servers)| {
            *nodes == silent && Arc::ptr_eq(servers, &state.servers)
        };
        if silent.is_empty() || self.done.as_ref().is_some_and(is_done) {
            return vec![];
        }
        let blinded = state.blinded(&silent);
        self.done = blinded.is_empty().then(|| (silent, state.servers.clone()));
        blinded
    }
}

async fn work(member: &Member, silent: &mut Silent) -> Result<(), WriteError> {
    let work = member.shared.leader_work();
    for step in &work.moves {
        let state = member.log.state();
        let vip = state.vip(step.vip).map(|vip| vip.spec.name.to_string()).unwrap_or_default();
        let to = step.to.and_then(|node| state.node_name(node)).map(ToString::to_string);
        tracing::info!(vip, to, cause = %step.cause, "assigning");
    }
    let term = work.term;
    let state = member.log.state();
    let mut of_servers = state.retirements(member.log.time_ms());
    of_servers.extend(silent.waits.over(&state));
    of_servers.extend(silent.blinded(member, &state));
    let ops = work.ops().into_iter().chain(of_servers.into_iter().map(Op::from));
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
