//! Those who have to know where VIPs are: asked and told for as long as this node has the
//! lease, and not a moment longer.

use crate::node::Member;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::sleep;
use vip_core::{
    CallId, Cloud, CloudAction, CloudReply, Epoch, LeaseEvent, Obstacle, State, Verb, Via, VipUid,
    Why,
};
use vip_guard::boottime;
use vip_probe::exec::{Move, run_mover};

/// How often leases are looked at while a call rests on one.
const LOOK: Duration = Duration::from_millis(20);
/// And while none does: what changes says so.
const IDLE: Duration = Duration::from_secs(1);

/// Calls that are under way.
#[derive(Default)]
struct Calls {
    tasks: JoinSet<(CallId, CloudReply)>,
    handles: BTreeMap<CallId, AbortHandle>,
}

impl Calls {
    fn start(&mut self, id: CallId, call: impl Future<Output = CloudReply> + Send + 'static) {
        let handle = self.tasks.spawn(async move { (id, call.await) });
        self.handles.insert(id, handle);
    }

    fn cut_off(&mut self, id: CallId) {
        if let Some(handle) = self.handles.remove(&id) {
            handle.abort();
        }
    }

    /// The next that has its answer; for ever, if none is under way.
    async fn next(&mut self) -> (CallId, CloudReply) {
        loop {
            match self.tasks.join_next().await {
                Some(Ok((id, reply))) => {
                    self.handles.remove(&id);
                    return (id, reply);
                }
                // It was cut off.
                Some(Err(_)) => {}
                None => std::future::pending().await,
            }
        }
    }
}

/// Sees to VIPs that somebody has to be told of, until the member stops. `programs`: where
/// they are run.
pub(crate) async fn move_vips(member: Arc<Member>, programs: PathBuf) {
    let (mut cloud, mut calls) = (Cloud::default(), Calls::default());
    let (mut leases, mut applied) = (member.leases.changes(), member.log.applied());
    let stop = member.stopped();
    loop {
        let state = member.log.state();
        let leased = member.leases.told_of(&state);
        let now = boottime();
        let token = |vip: VipUid| state.vip(vip)?.token.as_ref();
        let due = cloud.step(now, &leased, token);
        carry_out(&member, &programs, &state, due, &mut calls).await;
        let look = if calls.handles.is_empty() { IDLE } else { LOOK };
        // What a call rests on ends by time alone.
        let ends = leased.values().filter(|_| !calls.handles.is_empty()).map(|lease| lease.until);
        let next = cloud.next().into_iter().chain(ends).min();
        let next = next.map_or(look, |at| at.since(boottime()).min(look));
        tokio::select! {
            () = stop.cancelled() => return,
            _ = leases.changed() => {}
            _ = applied.changed() => {}
            (id, reply) = calls.next() => {
                let now = boottime();
                let open = leased.get(&id.vip).is_some_and(|lease| lease.open);
                let due = cloud.replied(now, id, reply, open);
                carry_out(&member, &programs, &state, due, &mut calls).await;
            }
            () = sleep(next) => {}
        }
    }
}

async fn carry_out(
    member: &Arc<Member>,
    programs: &Path,
    state: &State,
    due: Vec<CloudAction>,
    calls: &mut Calls,
) {
    for action in due {
        let event = match action {
            CloudAction::Call { id, epoch, verb, limit } => {
                if let Some(wanted) = wanted(member, state, id.vip, (epoch, verb, limit)) {
                    let programs = programs.to_owned();
                    calls.start(id, async move { run_mover(&programs, &wanted).await });
                }
                continue;
            }
            CloudAction::CutOff(id) => {
                calls.cut_off(id);
                continue;
            }
            CloudAction::MovedAway(vip) => {
                let name = state.vip(vip).map(|vip| vip.spec.name.to_string()).unwrap_or_default();
                tracing::warn!(vip = name, "somebody else moved a VIP away; it is taken back");
                continue;
            }
            CloudAction::Saw(vip, token) => LeaseEvent::Saw(vip, token),
            CloudAction::Taken(vip, epoch) => LeaseEvent::Taken(vip, epoch),
            CloudAction::NotTaken(vip, epoch, why) => {
                let Some(first) = state.vip(vip).and_then(|vip| vip.spec.addresses.first()) else {
                    continue;
                };
                LeaseEvent::NotTaken(vip, epoch, Obstacle { ip: first.ip, why: Why::NotTaken(why) })
            }
        };
        // The lease thread takes what comes, or is gone and with it this process.
        let _ = member.lease_events.send(event).await;
    }
}

/// What a program is told of a VIP; `None`: it is moved in another way by now.
fn wanted(
    member: &Member,
    state: &State,
    vip: VipUid,
    (epoch, verb, limit): (Epoch, Verb, Duration),
) -> Option<Move> {
    let spec = &state.vip(vip)?.spec;
    let file = match spec.via {
        Via::Exec => spec.params.get("file")?.clone(),
        Via::Garp | Via::Lb => return None,
    };
    let node = state.nodes.get(&member.meta.node)?;
    Some(Move {
        file,
        vip: spec.name.clone(),
        addresses: spec.addresses.iter().map(|address| address.ip).collect(),
        node: node.name.clone(),
        advertise: node.advertise.clone(),
        epoch,
        verb,
        limit,
    })
}
