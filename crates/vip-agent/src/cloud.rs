//! Those who have to know where VIPs are: asked and told for as long as this node has the
//! lease, and not a moment longer.

use crate::node::Member;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep};
use vip_cloud::Ask;
use vip_core::{
    CallId, Cloud, CloudAction, CloudReply, Epoch, LeaseEvent, Logged, Obstacle, Pace, Provider,
    State, Verb, Via, VipSpec, VipUid, Why,
};
use vip_guard::boottime;
use vip_probe::exec::{Move, run_mover};

/// How often leases are looked at while a call rests on one.
const LOOK: Duration = Duration::from_millis(20);
/// And while none does: what changes says so.
const IDLE: Duration = Duration::from_secs(1);
/// How often a node that has nothing to tell an API keeps what it needs for that at hand:
/// connections are kept for longer, and credentials are good for longer.
const WARM: Duration = Duration::from_secs(30);

/// What VIPs were when somebody was told of them last, each under its epoch: one that was
/// removed is nowhere else, and one that was changed may be told of under both.
type Specs = BTreeMap<(VipUid, Epoch), VipSpec>;

/// What is due of one VIP.
struct Due {
    id: CallId,
    epoch: Epoch,
    verb: Verb,
    limit: Duration,
    announced: Option<u64>,
}

/// A call that has its answer.
struct Answered {
    id: CallId,
    epoch: Epoch,
    what: &'static str,
    reply: CloudReply,
    took: Duration,
}

impl Answered {
    /// For whoever asks later what was done: but a look that found it here, which changes
    /// nothing.
    fn write_down(&self, specs: &Specs) {
        let Self { id, epoch, what, reply, took } = self;
        let vip = specs.get(&(id.vip, *epoch)).map(|spec| spec.name.to_string());
        let took_ms = took.as_millis();
        match reply {
            CloudReply::Here => tracing::debug!(vip, what, took_ms, "it is here"),
            CloudReply::Elsewhere(token) => tracing::info!(vip, what, took_ms, token, "not here"),
            CloudReply::Done => tracing::info!(vip, what, took_ms, "done"),
            CloudReply::Failed(why) | CloudReply::Busy(why) => {
                tracing::warn!(vip, what, took_ms, why, "it failed");
            }
        }
    }
}

/// Calls that are under way.
#[derive(Default)]
struct Calls {
    tasks: JoinSet<Answered>,
    handles: BTreeMap<CallId, (AbortHandle, Epoch, &'static str)>,
}

impl Calls {
    fn start(
        &mut self,
        (id, epoch, what): (CallId, Epoch, &'static str),
        call: impl Future<Output = CloudReply> + Send + 'static,
    ) {
        let handle = self.tasks.spawn(async move {
            let began = Instant::now();
            let reply = call.await;
            Answered { id, epoch, what, reply, took: began.elapsed() }
        });
        self.handles.insert(id, (handle, epoch, what));
    }

    fn cut_off(&mut self, id: CallId) {
        if let Some((handle, ..)) = self.handles.remove(&id) {
            handle.abort();
        }
    }

    /// The next that has its answer; for ever, if none is under way.
    async fn next(&mut self) -> Answered {
        loop {
            match self.tasks.join_next().await {
                Some(Ok(answered)) => {
                    self.handles.remove(&answered.id);
                    return answered;
                }
                Some(Err(ended)) => {
                    // Of one that was cut off nobody waits for an answer.
                    let mut all = self.handles.iter();
                    let own = all.find(|(_, (handle, ..))| handle.id() == ended.id());
                    if let Some((id, (_, epoch, what))) = own.map(|(id, call)| (*id, call.clone()))
                    {
                        self.handles.remove(&id);
                        let reply = CloudReply::Failed(format!("a fault of vipd's: {ended}"));
                        return Answered { id, epoch, what, reply, took: Duration::ZERO };
                    }
                }
                None => std::future::pending().await,
            }
        }
    }
}

/// Who is asked or told.
enum By {
    Program(Move),
    Provider(Ask),
}

/// What is done about VIPs of which somebody has to be told.
struct Movers {
    member: Arc<Member>,
    /// Where programs are run.
    programs: PathBuf,
    calls: Calls,
    specs: Specs,
}

/// Sees to VIPs that somebody has to be told of, until the member stops. `programs`: where
/// they are run.
pub(crate) async fn move_vips(member: Arc<Member>, programs: PathBuf) {
    let mut cloud = Cloud::new(Pace::default(), member.meta.node.0);
    let (mut leases, mut applied) = (member.leases.changes(), member.log.applied());
    let stop = member.stopped();
    let (calls, specs) = (Calls::default(), BTreeMap::new());
    let mut movers = Movers { member: member.clone(), programs, calls, specs };
    let mut warm_at = Instant::now();
    let providers = member.providers.clone();
    tokio::spawn(async move { providers.begin().await });
    loop {
        let state = member.log.state();
        if member.holds(&state) && warm_at <= Instant::now() {
            warm_at = Instant::now() + WARM;
            keep_warm(&member, &state);
        }
        let leased = member.leases.told_of(&state);
        let last = |uid: VipUid| movers.specs.range((uid, Epoch(0))..).next_back();
        let last = |uid| last(uid).filter(|((vip, _), _)| *vip == uid).map(|(_, spec)| spec);
        let logged = |uid: VipUid| Logged::of(&state, uid, last(uid));
        let due = cloud.step(boottime(), &leased, logged);
        movers.carry_out(&state, due).await;
        movers.specs.retain(|(vip, epoch), _| cloud.knows(*vip, *epoch));
        let is_calling = !movers.calls.handles.is_empty();
        let look = if is_calling { LOOK } else { IDLE };
        // What a call rests on ends by time alone.
        let ends = leased.values().filter(|_| is_calling).map(|lease| lease.until);
        let next = cloud.next().into_iter().chain(ends).min();
        let next = next.map_or(look, |at| at.since(boottime()).min(look));
        tokio::select! {
            () = stop.cancelled() => return,
            _ = leases.changed() => {}
            _ = applied.changed() => {}
            answered = movers.calls.next() => {
                answered.write_down(&movers.specs);
                let leased = member.leases.told_of(&state);
                let Answered { id, reply, .. } = answered;
                let due = cloud.replied(boottime(), id, reply, &leased);
                movers.carry_out(&state, due).await;
            }
            () = sleep(next) => {}
        }
    }
}

fn keep_warm(member: &Arc<Member>, state: &State) {
    for provider in Provider::ALL.iter().copied() {
        let specs = state.all_vips().map(|vip| &vip.spec);
        let specs = specs.filter(|spec| spec.via.provider() == Some(provider));
        let (specs, providers): (Vec<_>, _) = (specs.cloned().collect(), member.providers.clone());
        if !specs.is_empty() {
            tokio::spawn(async move { providers.keep_warm(provider, &specs).await });
        }
    }
}

impl Movers {
    async fn carry_out(&mut self, state: &State, due: Vec<CloudAction>) {
        for action in due {
            let event = match action {
                CloudAction::Call { id, epoch, verb, limit, announced } => {
                    self.call(state, Due { id, epoch, verb, limit, announced });
                    continue;
                }
                CloudAction::CutOff(id) => {
                    self.calls.cut_off(id);
                    continue;
                }
                CloudAction::NotReleased(vip, epoch, why) => {
                    self.not_released(vip, epoch, &why);
                    continue;
                }
                CloudAction::Saw(vip, token) => LeaseEvent::Saw(vip, token),
                CloudAction::Taken(vip, epoch) => LeaseEvent::Taken(vip, epoch),
                CloudAction::NotTaken(vip, epoch, why) => {
                    let Some(first) = state.vip(vip).and_then(|vip| vip.spec.addresses.first())
                    else {
                        continue;
                    };
                    let why = Why::NotTaken(why);
                    LeaseEvent::NotTaken(vip, epoch, Obstacle { ip: first.ip, why })
                }
            };
            // The lease thread takes what comes, or is gone and with it this process.
            let _ = self.member.lease_events.send(event).await;
        }
    }

    fn not_released(&self, vip: VipUid, epoch: Epoch, why: &str) {
        let Some(spec) = self.specs.get(&(vip, epoch)) else { return };
        let (name, addresses) = (spec.name.to_string(), spec.ips());
        if spec.via.is_announced_by_each() {
            let text = "this node may announce a VIP still that it does not hold: trying on";
            tracing::warn!(vip = name, ?addresses, why, "{text}");
        } else {
            let text = "a VIP that was removed may be moved here still: undo it by hand";
            tracing::warn!(vip = name, ?addresses, why, "{text}");
        }
    }

    fn call(&mut self, state: &State, due: Due) {
        let Due { id, epoch, .. } = due;
        let is_release = due.verb == Verb::Release;
        if !is_release {
            let vip = state.vip(id.vip).filter(|vip| vip.epoch == epoch);
            self.specs.extend(vip.map(|vip| ((id.vip, epoch), vip.spec.clone())));
        }
        let what = due.verb.as_str();
        let spec = self.specs.get(&(id.vip, epoch)).cloned();
        let wanted = spec.and_then(|spec| self.wanted(state, spec, due));
        let (programs, providers) = (self.programs.clone(), self.member.providers.clone());
        self.calls.start((id, epoch, what), async move {
            match wanted {
                Some(By::Program(wanted)) => run_mover(&programs, &wanted).await,
                Some(By::Provider(ask)) => providers.call(&ask).await,
                None if is_release => CloudReply::Done,
                None => CloudReply::Failed("this node is not told yet how it is moved".to_owned()),
            }
        });
    }

    fn wanted(&self, state: &State, spec: VipSpec, due: Due) -> Option<By> {
        let Due { epoch, verb, limit, announced, .. } = due;
        let file = match spec.via {
            Via::Exec => spec.params.get("file")?.clone(),
            Via::AwsRoute
            | Via::AwsPrivateIp
            | Via::Bgp
            | Via::OpenstackPort
            | Via::OpenstackPair => {
                return Some(By::Provider(Ask { spec, verb, limit, announced }));
            }
            Via::Garp | Via::Lb => return None,
        };
        let node = state.nodes.get(&self.member.meta.node)?;
        Some(By::Program(Move {
            file,
            addresses: spec.ips(),
            vip: spec.name,
            node: node.name.clone(),
            advertise: node.advertise.clone(),
            epoch,
            verb,
            limit,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Else nobody asks any more where the VIP is.
    #[tokio::test]
    async fn a_call_that_breaks_is_one_that_failed_and_one_that_is_cut_off_is_none() {
        let mut calls = Calls::default();
        let id = |number| CallId { vip: VipUid(1), number };
        calls.start((id(1), Epoch(3), "take"), std::future::pending());
        calls.start((id(2), Epoch(3), "observe"), async { panic!("on purpose") });
        calls.cut_off(id(1));
        let Answered { id: of, epoch, what, reply, .. } = calls.next().await;
        assert_eq!((of, epoch, what), (id(2), Epoch(3), "observe"));
        assert!(matches!(&reply, CloudReply::Failed(why) if why.contains("fault")), "{reply:?}");
        assert!(calls.handles.is_empty());
        let more = tokio::time::timeout(Duration::from_millis(50), calls.next()).await;
        assert!(more.is_err(), "nothing is under way");
    }
}
