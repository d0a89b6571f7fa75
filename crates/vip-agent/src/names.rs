//! DNS names of real servers: the leader resolves them, again and again by their TTL, and what
//! changed goes into the log.

use crate::node::Member;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep_until};
use vip_core::{HostName, Op, Resolutions};
use vip_probe::resolve;

/// Questions at once.
const AT_ONCE: usize = 16;
/// A name is asked for no more often, whatever its TTL: each answer may be an entry of the log.
const LEAST: Duration = Duration::from_secs(5);
/// And no less often: who changes a record waits no longer than that.
const MOST: Duration = Duration::from_secs(300);
/// After a failure.
const AGAIN: Duration = Duration::from_secs(10);
/// Without a name.
const IDLE: Duration = Duration::from_secs(3600);

/// Runs for as long as the member does.
pub(crate) async fn resolve_names(member: Arc<Member>) {
    let stop = member.stopped();
    let (mut applied, mut changes) = (member.log.applied(), member.leases.changes());
    let mut due: BTreeMap<HostName, Instant> = BTreeMap::new();
    let mut asking = FuturesUnordered::new();
    let mut seen = None;
    loop {
        let state = applied.borrow_and_update().state.clone();
        changes.borrow_and_update();
        if !member.leases.leads_applied() {
            // What the next leader learns is not known here.
            due.clear();
            seen = None;
        } else if !seen.as_ref().is_some_and(|servers| Arc::ptr_eq(servers, &state.servers)) {
            follow(&mut due, &state.names());
            seen = Some(state.servers.clone());
        }
        while asking.len() < AT_ONCE
            && let Some(name) = next(&due, Instant::now())
        {
            // Until it is answered it is not due.
            due.insert(name.clone(), Instant::now() + IDLE);
            asking.push(async move {
                let answer = resolve(&name).await;
                (name, answer)
            });
        }
        let first = due.values().min().copied().filter(|_| asking.len() < AT_ONCE);
        let wake = first.unwrap_or_else(|| Instant::now() + IDLE);
        tokio::select! {
            () = stop.cancelled() => return,
            changed = applied.changed() => if changed.is_err() { return },
            changed = changes.changed() => if changed.is_err() { return },
            Some((name, answer)) = asking.next() => {
                let Some(at) = due.get_mut(&name) else { continue };
                *at = Instant::now() + answer.as_ref().map_or(AGAIN, |(_, ttl)| (*ttl).clamp(LEAST, MOST));
                let answer = answer.map(|(addresses, _)| addresses);
                propose(&member, &name, &answer).await;
            }
            () = sleep_until(wake) => {}
        }
    }
}

fn follow(due: &mut BTreeMap<HostName, Instant>, names: &BTreeSet<HostName>) {
    due.retain(|name, _| names.contains(name));
    for name in names {
        due.entry(name.clone()).or_insert_with(Instant::now);
    }
}

fn next(due: &BTreeMap<HostName, Instant>, now: Instant) -> Option<HostName> {
    due.iter().find(|(_, at)| **at <= now).map(|(name, _)| name.clone())
}

/// By the term that it was learnt in, or not at all.
async fn propose(member: &Member, name: &HostName, answer: &Result<Vec<IpAddr>, String>) {
    let Some(vote) = member.leases.own_leadership() else { return };
    for op in member.log.state().resolutions(name, answer) {
        if let Err(error) = member.log.propose(vote.term, Op::from(op)).await {
            // It is asked for again.
            tracing::debug!(%error, %name, "what a name resolves to was not committed");
        }
    }
}

/// What names resolve to now, for whoever wants real servers by them.
///
/// # Errors
/// One does not: the rest of a sentence that names it.
pub(crate) async fn resolve_all(
    names: impl IntoIterator<Item = HostName>,
) -> Result<Resolutions, String> {
    let asked = names.into_iter().map(|name| async move {
        match resolve(&name).await {
            Ok((addresses, _)) => Ok((name, addresses)),
            Err(why) => Err(format!("{name} cannot be resolved: {why}")),
        }
    });
    futures_util::future::join_all(asked).await.into_iter().collect()
}
