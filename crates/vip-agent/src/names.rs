//! DNS names of real servers: the leader resolves them, again and again by their TTL, and what
//! changed goes into the log.

use crate::node::Member;
use futures_util::StreamExt;
use futures_util::future::join_all;
use futures_util::stream::FuturesUnordered;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::sleep;
use vip_core::{HostName, Mono, Op, Resolutions, Resolving, Vote, in_order};
use vip_guard::boottime;
use vip_probe::resolve;

/// Questions at once.
const AT_ONCE: usize = 16;
/// Without a name.
const IDLE: Duration = Duration::from_secs(3600);

/// Runs for as long as the member does.
pub(crate) async fn resolve_names(member: Arc<Member>) {
    let stop = member.stopped();
    let (mut applied, mut changes) = (member.log.applied(), member.leases.changes());
    let mut resolving = Resolving::default();
    let mut asking = FuturesUnordered::new();
    let mut proposing = FuturesUnordered::new();
    let mut seen = None;
    loop {
        let state = applied.borrow_and_update().state.clone();
        changes.borrow_and_update();
        let vote = member.leases.own_leadership().filter(|_| member.leases.leads_applied());
        if vote.is_none() {
            // What the next leader learns is not known here.
            (resolving, seen) = (Resolving::default(), None);
        } else if !seen.as_ref().is_some_and(|servers| Arc::ptr_eq(servers, &state.servers)) {
            resolving.follow(boottime(), state.names());
            seen = Some(state.servers.clone());
        }
        while asking.len() < AT_ONCE
            && let Some(vote) = vote
            && let Some(name) = resolving.next(boottime())
        {
            asking.push(async move {
                let answer = resolve(&name).await;
                (vote, name, answer)
            });
        }
        let next = resolving.next_at().filter(|_| asking.len() < AT_ONCE);
        let wait = next.map_or(IDLE, |at: Mono| at.since(boottime()));
        tokio::select! {
            () = stop.cancelled() => return,
            changed = applied.changed() => if changed.is_err() { return },
            changed = changes.changed() => if changed.is_err() { return },
            Some((vote, name, answer)) = asking.next() => {
                let answer = answer.map(|(addresses, ttl)| (in_order(&addresses), ttl));
                if let Some(answer) = resolving.answered(boottime(), &name, answer) {
                    proposing.push(propose(&member, vote, name, answer));
                }
            }
            Some(()) = proposing.next() => {}
            () = sleep(wait) => {}
        }
    }
}

/// By the term that it was asked in, or not at all.
async fn propose(member: &Member, vote: Vote, name: HostName, answer: Result<Vec<IpAddr>, String>) {
    let ops = member.log.state().resolutions(&name, &answer);
    let proposed = ops.into_iter().map(|op| member.log.propose(vote.term, Op::from(op)));
    for outcome in join_all(proposed).await {
        if let Err(error) = outcome {
            // It is asked for again.
            tracing::debug!(%error, %name, "what a name resolves to was not committed");
        }
    }
}

/// What names resolve to now, for whoever wants real servers by them.
///
/// # Errors
/// One does not: the rest of a sentence that names it.
pub(crate) async fn resolve_all(names: BTreeSet<HostName>) -> Result<Resolutions, String> {
    let asked = names.into_iter().map(|name| async move {
        match resolve(&name).await {
            Ok((addresses, _)) => Ok((name, in_order(&addresses))),
            Err(why) => Err(format!("{name} cannot be resolved: {why}")),
        }
    });
    join_all(asked).await.into_iter().collect()
}
