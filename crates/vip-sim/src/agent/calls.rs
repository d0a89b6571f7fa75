//! Who has to know where a VIP is, and is asked and told by whoever takes it over.

use super::{Agent, Out};
use crate::mutant::Mutant;
use std::collections::BTreeMap;
use vip_core::{
    CallId, CalledLease, Cloud, CloudAction, CloudReply, Epoch, LeaseEvent, Logged, Mono, NodeId,
    Obstacle, Pace, Timing, Verb, ViaToken, VipSpec, VipUid, Why,
};

/// What an agent knows of those whom it tells.
pub(super) struct Calls {
    cloud: Cloud,
    /// What each VIP was when somebody was told of it last.
    specs: BTreeMap<(VipUid, Epoch), VipSpec>,
    /// What it saw last, for the mutant that does not wait for the log.
    saw: BTreeMap<VipUid, ViaToken>,
    /// What it had leased, for the mutant that goes on after its lease.
    had: BTreeMap<VipUid, CalledLease>,
}

impl Calls {
    pub(super) fn new(me: NodeId, timing: &Timing, mutant: Option<Mutant>) -> Self {
        let pace = pace(timing);
        let once = Pace { watch: timing.promise * 1_000_000, ..pace };
        let pace = if mutant == Some(Mutant::LooksOnce) { once } else { pace };
        let (specs, saw, had) = Default::default();
        Self { cloud: Cloud::new(pace, me.0), specs, saw, had }
    }

    pub(super) fn next(&self) -> Option<Mono> {
        self.cloud.next()
    }
}

/// As promises are shorter here than those who are told take, so is this.
pub(crate) fn pace(timing: &Timing) -> Pace {
    let promise = timing.promise;
    Pace {
        pause: promise / 4,
        pause_max: promise,
        watch: promise,
        watch_max: promise * 4,
        watch_near: promise * 2,
        settles: promise * 2,
        longest: promise * 8,
    }
}

impl Agent {
    /// Asks and tells what is due.
    pub(super) fn call(&mut self, now: Mono) {
        let leased = self.told_of();
        let (state, saw, specs) = (self.state.clone(), &self.calls.saw, &self.calls.specs);
        let heedless = self.mutant == Some(Mutant::CallsWithoutLease);
        let logged = |uid: VipUid| match state.vip(uid) {
            Some(vip) if heedless => Logged::Held(vip.epoch, saw.get(&uid)),
            Some(_) | None => {
                let last = specs.range((uid, Epoch(0))..).next_back();
                let last = last.filter(|((vip, _), _)| *vip == uid);
                Logged::of(&state, uid, last.map(|(_, spec)| spec))
            }
        };
        let due = self.calls.cloud.step(now, &leased, logged);
        self.carry_out_calls(now, due);
        let Calls { cloud, specs, .. } = &mut self.calls;
        specs.retain(|(vip, epoch), _| cloud.knows(*vip, *epoch));
    }

    /// One of them answers.
    pub(super) fn called(&mut self, now: Mono, id: CallId, reply: CloudReply) {
        let leased = self.told_of();
        let due = self.calls.cloud.replied(now, id, reply, &leased);
        self.carry_out_calls(now, due);
    }

    fn told_of(&mut self) -> BTreeMap<VipUid, CalledLease> {
        let mut leased = self.leases.claims().told_of(&self.state);
        if self.mutant == Some(Mutant::CallsWithoutLease) {
            for (vip, lease) in &self.calls.had {
                leased.entry(*vip).or_insert(CalledLease { until: Mono(u64::MAX), ..*lease });
            }
            self.calls.had.clone_from(&leased);
        }
        leased
    }

    fn carry_out_calls(&mut self, now: Mono, due: Vec<CloudAction>) {
        let goes_on = self.mutant == Some(Mutant::GoesOnAnnouncing);
        for action in due {
            let event = match action {
                CloudAction::Call { id, epoch, verb, limit, announced } => {
                    if goes_on && verb == Verb::Release {
                        continue;
                    }
                    let key = (id.vip, epoch);
                    let now = self.state.vip(id.vip).map(|vip| (key, vip.spec.clone()));
                    self.calls.specs.extend(now.filter(|_| verb != Verb::Release));
                    let ip =
                        self.calls.specs.get(&key).and_then(|spec| spec.ips().first().copied());
                    let call = |ip| Out::Call { id, ip, epoch, verb, limit, announced };
                    self.out.extend(ip.map(call));
                    continue;
                }
                // Whoever was asked may do it all the same; and what is heard late is not heard.
                CloudAction::CutOff(_) | CloudAction::NotReleased(..) => continue,
                CloudAction::Saw(vip, token) => {
                    self.calls.saw.insert(vip, token.clone());
                    LeaseEvent::Saw(vip, token)
                }
                CloudAction::Taken(vip, epoch) => LeaseEvent::Taken(vip, epoch),
                CloudAction::NotTaken(vip, epoch, why) => {
                    let first = self.state.vip(vip).and_then(|vip| vip.spec.addresses.first());
                    let Some(ip) = first.map(|address| address.ip) else { continue };
                    LeaseEvent::NotTaken(vip, epoch, Obstacle { ip, why: Why::NotTaken(why) })
                }
            };
            self.step(now, event);
        }
    }
}
