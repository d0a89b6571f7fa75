//! Probes of real servers from this node: compares whom the log has it observe with whom
//! it probes, and keeps what it sees.

use crate::node::Member;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::sleep;
use vip_core::{
    CutOff, Failure, Mono, Node, NodeId, Rounds, ServerUid, State, Ticket, Vip, VipUid,
};
use vip_guard::boottime;

/// Probes at once, of which each has a descriptor: far from all that there may be. Where that
/// many hang, others begin as those end.
const AT_ONCE: usize = 4096;
/// Answers that wait to be looked at.
const ANSWERS: usize = 1024;
/// Without a probe to start.
const IDLE: Duration = Duration::from_secs(60);

/// What it follows from whom a node is to probe: members, who holds VIPs and where they put
/// members, and what is wanted of virtual servers.
struct Seen {
    nodes: Arc<BTreeMap<NodeId, Node>>,
    vips: Arc<BTreeMap<VipUid, Arc<Vip>>>,
    cut_off: Arc<BTreeMap<VipUid, BTreeMap<NodeId, CutOff>>>,
    revisions: Vec<(ServerUid, u32)>,
}

impl Seen {
    fn of(state: &State) -> Self {
        let checked = state.all_servers().filter(|server| server.spec.check.is_some());
        Self {
            nodes: state.nodes.clone(),
            vips: state.vips.clone(),
            cut_off: state.cut_off.clone(),
            revisions: checked.map(|server| (server.uid, server.revision)).collect(),
        }
    }

    fn is_as(&self, other: &Self) -> bool {
        let same_holders = || {
            let (one, other) = (self.vips.values(), other.vips.values());
            let is = |(one, other): (&Arc<Vip>, &Arc<Vip>)| {
                Arc::ptr_eq(one, other) || (one.holder == other.holder && one.spec == other.spec)
            };
            one.len() == other.len() && one.zip(other).all(is)
        };
        Arc::ptr_eq(&self.nodes, &other.nodes)
            && (Arc::ptr_eq(&self.vips, &other.vips) || same_holders())
            && Arc::ptr_eq(&self.cut_off, &other.cut_off)
            && self.revisions == other.revisions
    }
}

type Answer = (Ticket, Result<(), Failure>);

/// Runs for as long as the member does.
pub(crate) async fn look_after_real_servers(member: Arc<Member>) {
    let (me, stop) = (member.meta.node, member.stopped());
    let (mut applied, sights) = (member.log.applied(), &member.sights);
    let mut rounds = Rounds::new(me.0);
    let (answer, mut answers) = mpsc::channel::<Answer>(ANSWERS);
    let mut running = 0;
    let (mut looked_at, mut seen) = (None, None);
    let Some(mut hastened) = sights.hastened() else { return };
    loop {
        let state = applied.borrow_and_update().state.clone();
        if !looked_at.as_ref().is_some_and(|before| Arc::ptr_eq(before, &state)) {
            // Most entries of the log are about none of it, verdicts among them.
            let now = Seen::of(&state);
            if !seen.as_ref().is_some_and(|seen: &Seen| seen.is_as(&now)) {
                rounds.follow(boottime(), &state.probed_by(me));
                sights.are(rounds.sees());
                member.forward.listen_to(state.heard_by(me));
            }
            (looked_at, seen) = (Some(state), Some(now));
        }
        for start in rounds.start(boottime(), AT_ONCE - running) {
            running += 1;
            let (answer, prober) = (answer.clone(), sights.prober());
            let (forward, state) = (member.forward.clone(), looked_at.clone());
            tokio::spawn(async move {
                let (observed, target) = (start.ticket.observed(), &start.target);
                let mut result = prober.probe(target).await;
                if let (Ok(()), Some(state)) = (&result, state) {
                    result = forward.probe_at_vip(&state, (observed, target), false).await;
                }
                let _ = answer.send((start.ticket, result)).await;
            });
        }
        let wait = |at: Mono| at.since(boottime());
        let next = rounds.next_start().filter(|_| running < AT_ONCE);
        tokio::select! {
            () = stop.cancelled() => return,
            changed = applied.changed() => if changed.is_err() { return },
            Some(sooner) = hastened.recv() => {
                for observed in sooner {
                    rounds.hasten(boottime(), &observed);
                }
            }
            Some((ticket, result)) = answers.recv() => {
                running -= 1;
                let mut is_news = rounds.finished(boottime(), ticket, result);
                while let Ok((ticket, result)) = answers.try_recv() {
                    running -= 1;
                    is_news |= rounds.finished(boottime(), ticket, result);
                }
                if is_news {
                    sights.are(rounds.sees());
                }
            }
            () = sleep(next.map_or(IDLE, wait)) => {}
        }
    }
}
