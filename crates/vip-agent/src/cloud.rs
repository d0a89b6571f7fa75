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
    CallId, Cloud, CloudAction, CloudReply, Epoch, LeaseEvent, Logged, Obstacle, Pace, State, Verb,
    Via, VipSpec, VipUid, Why,
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

/// A call that has its answer.
struct Answered {
    id: CallId,
    what: &'static str,
    reply: CloudReply,
    took: Duration,
}

impl Answered {
    /// For whoever asks later what was done: but a look that found it here, which changes
    /// nothing.
    fn write_down(&self, specs: &BTreeMap<VipUid, VipSpec>) {
        let Self { id, what, reply, took } = self;
        let vip = specs.get(&id.vip).map(|spec| spec.name.to_string());
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
    handles: BTreeMap<CallId, AbortHandle>,
}

impl Calls {
    fn start(
        &mut self,
        (id, what): (CallId, &'static str),
        call: impl Future<Output = CloudReply> + Send + 'static,
    ) {
        let handle = self.tasks.spawn(async move {
            let began = Instant::now();
            let reply = call.await;
            Answered { id, what, reply, took: began.elapsed() }
        });
        self.handles.insert(id, handle);
    }

    fn cut_off(&mut self, id: CallId) {
        if let Some(handle) = self.handles.remove(&id) {
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
                // It was cut off.
                Some(Err(_)) => {}
                None => std::future::pending().await,
            }
        }
    }
}

/// Who is asked or told.
enum By {
    Program(Move),
    Aws(Ask),
}

/// What is done about VIPs of which somebody has to be told.
struct Movers {
    member: Arc<Member>,
    /// Where programs are run.
    programs: PathBuf,
    calls: Calls,
    /// What each VIP was when somebody was told of it last: one that was removed is nowhere
    /// else.
    specs: BTreeMap<VipUid, VipSpec>,
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
    loop {
        let state = member.log.state();
        let is_told = member.holds(&state) && state.all_vips().any(|vip| vip.spec.via.is_aws());
        if is_told && warm_at <= Instant::now() {
            warm_at = Instant::now() + WARM;
            let aws = member.aws.clone();
            tokio::spawn(async move { aws.keep_warm().await });
        }
        let leased = member.leases.told_of(&state);
        let logged = |uid: VipUid| Logged::of(&state, uid, movers.specs.get(&uid));
        let due = cloud.step(boottime(), &leased, logged);
        movers.carry_out(&state, due).await;
        movers.specs.retain(|vip, _| cloud.knows(*vip));
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

impl Movers {
    async fn carry_out(&mut self, state: &State, due: Vec<CloudAction>) {
        for action in due {
            let event = match action {
                CloudAction::Call { id, epoch, verb, limit } => {
                    self.call(state, id, (epoch, verb, limit));
                    continue;
                }
                CloudAction::CutOff(id) => {
                    self.calls.cut_off(id);
                    continue;
                }
                CloudAction::NotReleased(vip, why) => {
                    let spec = self.specs.get(&vip);
                    let name = spec.map(|spec| spec.name.to_string());
                    let addresses: Vec<_> = spec.map(VipSpec::ips).unwrap_or_default();
                    tracing::warn!(
                        vip = name,
                        ?addresses,
                        why,
                        "a VIP that was removed may be moved here still: undo it by hand"
                    );
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

    fn call(&mut self, state: &State, id: CallId, (epoch, verb, limit): (Epoch, Verb, Duration)) {
        let spec = match (&verb, state.vip(id.vip)) {
            (Verb::Observe | Verb::Take(_), vip) => {
                let spec = vip.map(|vip| vip.spec.clone());
                self.specs.extend(spec.clone().map(|spec| (id.vip, spec)));
                spec
            }
            (Verb::Release, _) => self.specs.get(&id.vip).cloned(),
        };
        let is_release = verb == Verb::Release;
        let what = verb.as_str();
        let wanted = spec.and_then(|spec| self.wanted(state, spec, (epoch, verb, limit)));
        let (programs, aws) = (self.programs.clone(), self.member.aws.clone());
        self.calls.start((id, what), async move {
            match wanted {
                Some(By::Program(wanted)) => run_mover(&programs, &wanted).await,
                Some(By::Aws(ask)) => aws.call(&ask).await,
                None if is_release => CloudReply::Done,
                None => CloudReply::Failed("this node is not told yet how it is moved".to_owned()),
            }
        });
    }

    fn wanted(
        &self,
        state: &State,
        spec: VipSpec,
        (epoch, verb, limit): (Epoch, Verb, Duration),
    ) -> Option<By> {
        let file = match spec.via {
            Via::Exec => spec.params.get("file")?.clone(),
            Via::AwsRoute | Via::AwsPrivateIp => return Some(By::Aws(Ask { spec, verb, limit })),
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
