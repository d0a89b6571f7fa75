//! Telling those who have to know where a VIP is: what is asked and told next.
//!
//! ```text
//!  leased, gate shut ──> Observe ──┬─> it is here ───────────────> confirmed
//!                          ^       └─> elsewhere, with a token ──> the log takes it down
//!                          │                                            │
//!                          └──────────── Take with that token <─────────┘
//! ```
//!
//! A call is cut off the moment the lease ends, and no call is made again before what it
//! may have done was looked at. The token is written down under the holder's epoch before
//! it is used: whoever lost the lease and looks afresh gets no word of his into the log.

use crate::mix::mix_all;
use crate::{CalledLease, Epoch, Mono, State, ViaToken, VipSpec, VipUid};
use std::collections::BTreeMap;
use std::time::Duration;

/// Calls in a row that fail may weigh so much, and somebody else may have more luck.
const PATIENCE: u32 = 16;
/// What one weighs that failed, and one of which they have too many: others ask the same.
const FAILED: u32 = 4;
const BUSY: u32 = 1;
/// So often it is said once more that nobody has a VIP that was removed.
const RELEASES: u32 = 8;

/// How often they are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// After a call that failed, at first and at most: they may be throttling.
    pub pause: Duration,
    /// See [`Self::pause`].
    pub pause_max: Duration,
    /// How often a holder looks whether it is here yet, at first: what an earlier holder
    /// asked for may be done late. Each look doubles it.
    pub watch: Duration,
    /// And at most.
    pub watch_max: Duration,
    /// For so long they may say something else after a change that they say is done: what was
    /// before, or what was in between.
    pub settles: Duration,
    /// Until a look, or a change, is given up, whatever the lease.
    pub longest: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            pause: Duration::from_millis(200),
            pause_max: Duration::from_secs(5),
            watch: Duration::from_secs(1),
            watch_max: Duration::from_secs(10),
            settles: Duration::from_secs(5),
            longest: Duration::from_secs(30),
        }
    }
}

/// What they are asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verb {
    /// Where is it?
    Observe,
    /// Have it here, if it is as it was by this token.
    Take(String),
    /// It is nobody's any more: forget it, if it is here.
    Release,
}

impl Verb {
    /// As programs and people are told it.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Observe => "observe",
            Self::Take(_) => "take",
            Self::Release => "release",
        }
    }
}

/// What the log has of a VIP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Logged<'a> {
    /// Nothing, or that nobody is told of it.
    Nothing,
    /// The same, and another VIP has what it had.
    Reused,
    /// The epoch, and what a holder saw last.
    Held(Epoch, Option<&'a ViaToken>),
}

impl<'a> Logged<'a> {
    /// `told`: what it was when somebody was told of it last.
    #[must_use]
    pub fn of(state: &'a State, uid: VipUid, told: Option<&VipSpec>) -> Self {
        match state.vip(uid) {
            Some(vip) if vip.spec.via.is_called() => Self::Held(vip.epoch, vip.token.as_ref()),
            Some(_) | None if told.is_some_and(|told| is_reused(state, told)) => Self::Reused,
            Some(_) | None => Self::Nothing,
        }
    }
}

/// Whether another VIP has by now what one had that is none any more.
fn is_reused(state: &State, told: &VipSpec) -> bool {
    let (how, ips) = ((told.via, &told.params), told.ips());
    let mut others = state.all_vips().map(|vip| &vip.spec);
    others.any(|other| {
        (other.via, &other.params) == how && other.ips().iter().any(|ip| ips.contains(ip))
    })
}

/// What they say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CloudReply {
    /// It is here.
    Here,
    /// It is elsewhere, or nowhere: as this token says.
    Elsewhere(String),
    /// Done. It is looked at before it counts.
    Done,
    /// Nothing came of it, or nobody knows.
    Failed(String),
    /// They have too much to do, for this reason.
    Busy(String),
}

/// Of which call something is heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CallId {
    pub vip: VipUid,
    pub number: u64,
}

/// What is due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CloudAction {
    /// Ask, and hear no longer than this. It is cut off earlier when [`Self::CutOff`] says so.
    Call { id: CallId, epoch: Epoch, verb: Verb, limit: Duration },
    /// Nobody waits for that any more.
    CutOff(CallId),
    /// Have the log take it down.
    Saw(VipUid, ViaToken),
    /// They confirm that it is here.
    Taken(VipUid, Epoch),
    /// They will not have it here.
    NotTaken(VipUid, Epoch, String),
    /// They may have it here still, though there is no such VIP any more.
    NotReleased(VipUid, String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Stage {
    /// Until then nothing is done.
    Rests(Mono),
    /// A call is under way.
    Calls(CallId),
    /// The log is to say this, of that look.
    Waits(u64, String),
}

/// One that this node has leased.
#[derive(Clone, Debug)]
struct Told {
    epoch: Epoch,
    stage: Stage,
    /// What the calls in a row weigh that failed.
    failed: u32,
    pause: Duration,
    watch: Duration,
    /// They may have it here: they said so, or were asked for it.
    asked: bool,
    /// It was seen elsewhere since it was here last.
    away: bool,
    /// They said that it is done, and it was not seen here yet: until then it need not be.
    settles: Option<Mono>,
}

/// One that was here last, as far as this node knows, and is not leased any more.
#[derive(Clone, Debug)]
struct Left {
    epoch: Epoch,
    stage: Stage,
    failed: u32,
}

/// All VIPs of a node whose place somebody has to be told.
#[derive(Clone, Debug)]
pub struct Cloud {
    pace: Pace,
    /// Keeps nodes from looking at the same time.
    seed: u64,
    told: BTreeMap<VipUid, Told>,
    left: BTreeMap<VipUid, Left>,
    calls: u64,
}

impl Cloud {
    /// `seed`: the node's.
    #[must_use]
    pub fn new(pace: Pace, seed: u64) -> Self {
        Self { pace, seed, told: BTreeMap::new(), left: BTreeMap::new(), calls: 0 }
    }

    /// Time passed, or what is leased or in the log changed.
    pub fn step<'a>(
        &mut self,
        now: Mono,
        leased: &BTreeMap<VipUid, CalledLease>,
        logged: impl Fn(VipUid) -> Logged<'a>,
    ) -> Vec<CloudAction> {
        let mut actions = self.end_others(now, leased);
        self.release(now, &logged, &mut actions);
        for (vip, lease) in leased.iter().filter(|(_, lease)| now < lease.until) {
            let first = || Told::of(now + self.pace.watch, now, lease, &self.pace);
            let told = self.told.entry(*vip).or_insert_with(first);
            let verb = match &told.stage {
                Stage::Rests(at) if *at <= now => Verb::Observe,
                Stage::Waits(number, text) => {
                    let seen = ViaToken { epoch: lease.epoch, number: *number, text: text.clone() };
                    if !matches!(logged(*vip), Logged::Held(_, Some(token)) if *token == seen) {
                        continue;
                    }
                    told.asked = true;
                    Verb::Take(seen.text)
                }
                Stage::Rests(_) | Stage::Calls(_) => continue,
            };
            self.calls += 1;
            let id = CallId { vip: *vip, number: self.calls };
            told.stage = Stage::Calls(id);
            let limit = self.pace.longest;
            actions.push(CloudAction::Call { id, epoch: lease.epoch, verb, limit });
        }
        actions
    }

    /// What is not leased any more, or under another epoch, nobody waits for.
    fn end_others(
        &mut self,
        now: Mono,
        leased: &BTreeMap<VipUid, CalledLease>,
    ) -> Vec<CloudAction> {
        let mut actions = vec![];
        let left = &mut self.left;
        self.told.retain(|vip, told| {
            let goes_on =
                leased.get(vip).is_some_and(|lease| lease.epoch == told.epoch && now < lease.until);
            if let (false, Stage::Calls(id)) = (goes_on, &told.stage) {
                actions.push(CloudAction::CutOff(*id));
            }
            if !goes_on && told.asked {
                let stage = Stage::Rests(now);
                left.insert(*vip, Left { epoch: told.epoch, stage, failed: 0 });
            }
            goes_on
        });
        actions
    }

    /// Whatever is nobody's any more is let go of by who had it last. What somebody else has
    /// by now, or this node again, is theirs.
    fn release<'a>(
        &mut self,
        now: Mono,
        logged: impl Fn(VipUid) -> Logged<'a>,
        actions: &mut Vec<CloudAction>,
    ) {
        let told = &self.told;
        self.left.retain(|vip, left| match (logged(*vip), &left.stage) {
            (Logged::Nothing, _) => true,
            (Logged::Held(epoch, _), _) => epoch == left.epoch && !told.contains_key(vip),
            (Logged::Reused, Stage::Calls(id)) => {
                actions.push(CloudAction::CutOff(*id));
                false
            }
            (Logged::Reused, _) => false,
        });
        let limit = self.pace.longest;
        for (vip, left) in &mut self.left {
            let due = matches!(left.stage, Stage::Rests(at) if at <= now);
            if due && matches!(logged(*vip), Logged::Nothing) {
                self.calls += 1;
                let id = CallId { vip: *vip, number: self.calls };
                left.stage = Stage::Calls(id);
                let (epoch, verb) = (left.epoch, Verb::Release);
                actions.push(CloudAction::Call { id, epoch, verb, limit });
            }
        }
    }

    /// When [`Self::step`] is due by time alone, beside the ends of leases.
    #[must_use]
    pub fn next(&self) -> Option<Mono> {
        let rests = |stage: &Stage| match stage {
            Stage::Rests(at) => Some(*at),
            Stage::Calls(_) | Stage::Waits(..) => None,
        };
        let told = self.told.values().filter_map(|told| rests(&told.stage));
        // Of those the log says when they are due, and time only once they failed.
        let failed = self.left.values().filter(|left| left.failed > 0);
        told.chain(failed.filter_map(|left| rests(&left.stage))).min()
    }

    /// Whether more may be asked about a VIP.
    #[must_use]
    pub fn knows(&self, vip: VipUid) -> bool {
        self.told.contains_key(&vip) || self.left.contains_key(&vip)
    }

    /// A call has its answer. Of one that was cut off, or whose lease is over, nothing counts.
    pub fn replied(
        &mut self,
        now: Mono,
        id: CallId,
        reply: CloudReply,
        leased: &BTreeMap<VipUid, CalledLease>,
    ) -> Vec<CloudAction> {
        if self.left.get(&id.vip).is_some_and(|left| left.stage == Stage::Calls(id)) {
            return self.released(now, id.vip, reply);
        }
        let Some(told) = self.told.get_mut(&id.vip) else { return vec![] };
        if told.stage != Stage::Calls(id) {
            return vec![];
        }
        let (vip, epoch, pace) = (id.vip, told.epoch, &self.pace);
        let leased = leased.get(&vip).filter(|lease| lease.epoch == epoch && now < lease.until);
        let Some(CalledLease { open, .. }) = leased.copied() else {
            told.stage = Stage::Rests(now);
            return vec![];
        };
        match reply {
            CloudReply::Here => {
                let watch = told.watch;
                told.watch = (watch * 2).min(pace.watch_max);
                (told.failed, told.pause) = (0, pace.pause);
                (told.asked, told.away, told.settles) = (true, false, None);
                told.stage = Stage::Rests(now + jittered(self.seed, watch, id));
                if open { vec![] } else { vec![CloudAction::Taken(vip, epoch)] }
            }
            CloudReply::Elsewhere(_) if told.settles.is_some_and(|until| now < until) => {
                told.rests(now, self.seed, pace, id);
                vec![]
            }
            // They had time. It is looked at, and done, once more.
            CloudReply::Elsewhere(_) if told.settles.take().is_some() => {
                let why = "it is not here after it was moved here".to_owned();
                self.failed(now, id, (why, FAILED), open)
            }
            CloudReply::Elsewhere(text) => {
                if open && !told.away {
                    // Whatever failed before was no failure to take it back.
                    (told.away, told.failed, told.pause) = (true, 0, pace.pause);
                }
                told.stage = Stage::Waits(id.number, text.clone());
                vec![CloudAction::Saw(vip, ViaToken { epoch, number: id.number, text })]
            }
            // What it did is looked at, whatever it says.
            CloudReply::Done => {
                (told.stage, told.settles) = (Stage::Rests(now), Some(now + pace.settles));
                vec![]
            }
            CloudReply::Failed(why) => self.failed(now, id, (why, FAILED), open),
            CloudReply::Busy(why) => self.failed(now, id, (why, BUSY), open),
        }
    }

    fn failed(
        &mut self,
        now: Mono,
        id: CallId,
        (why, weight): (String, u32),
        open: bool,
    ) -> Vec<CloudAction> {
        let Some(told) = self.told.get_mut(&id.vip) else { return vec![] };
        told.failed += weight;
        told.rests(now, self.seed, &self.pace, id);
        // A holder that cannot ask goes on; one that saw it elsewhere is none to anybody.
        let given_up = told.failed >= PATIENCE && (!open || told.away);
        let not = CloudAction::NotTaken(id.vip, told.epoch, why);
        given_up.then_some(not).into_iter().collect()
    }

    fn released(&mut self, now: Mono, vip: VipUid, reply: CloudReply) -> Vec<CloudAction> {
        let (CloudReply::Failed(why) | CloudReply::Busy(why)) = reply else {
            self.left.remove(&vip);
            return vec![];
        };
        let Some(left) = self.left.get_mut(&vip) else { return vec![] };
        left.failed += 1;
        if left.failed >= RELEASES {
            self.left.remove(&vip);
            return vec![CloudAction::NotReleased(vip, why)];
        }
        let pause = self.pace.pause * 2_u32.pow(left.failed);
        left.stage = Stage::Rests(now + pause.min(self.pace.pause_max));
        vec![]
    }
}

/// Between three quarters of it and all: nodes that were told no at the same time do not come
/// back at the same time.
fn jittered(seed: u64, wait: Duration, id: CallId) -> Duration {
    let share = mix_all(seed, [id.vip.0, id.number]) % 1000;
    wait * 3 / 4 + wait / 4 * u32::try_from(share).unwrap_or(0) / 1000
}

impl Told {
    fn of(watch_at: Mono, now: Mono, lease: &CalledLease, pace: &Pace) -> Self {
        let at = if lease.open { watch_at } else { now };
        Self {
            epoch: lease.epoch,
            stage: Stage::Rests(at),
            failed: 0,
            pause: pace.pause,
            watch: pace.watch,
            asked: lease.open,
            away: false,
            settles: None,
        }
    }

    /// For longer each time, until it is seen here.
    fn rests(&mut self, now: Mono, seed: u64, pace: &Pace, id: CallId) {
        self.stage = Stage::Rests(now + jittered(seed, self.pause, id));
        self.pause = (self.pause * 2).min(pace.pause_max);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WEB: VipUid = VipUid(1);
    const START: Mono = Mono(10_000_000_000);
    const EPOCH: Epoch = Epoch(3);
    const SECOND: Duration = Duration::from_secs(1);
    const PACE: Pace = Pace {
        pause: SECOND,
        pause_max: Duration::from_secs(5),
        watch: SECOND,
        watch_max: Duration::from_secs(10),
        settles: Duration::from_secs(5),
        longest: Duration::from_secs(30),
    };

    struct Node {
        cloud: Cloud,
        leased: BTreeMap<VipUid, CalledLease>,
        token: Option<ViaToken>,
        is_gone: bool,
    }

    fn node() -> Node {
        let until = START + Duration::from_secs(600);
        let leased = [(WEB, CalledLease { epoch: EPOCH, until, open: false })].into();
        let cloud = Cloud::new(PACE, 7);
        Node { cloud, leased, token: None, is_gone: false }
    }

    impl Node {
        fn at(&mut self, now: Mono) -> Vec<CloudAction> {
            let token = self.token.clone();
            let logged = Logged::Held(EPOCH, token.as_ref());
            let logged = if self.is_gone { Logged::Nothing } else { logged };
            self.cloud.step(now, &self.leased, |_| logged)
        }

        fn replied(&mut self, now: Mono, number: u64, reply: CloudReply) -> Vec<CloudAction> {
            self.cloud.replied(now, CallId { vip: WEB, number }, reply, &self.leased)
        }

        fn holds(&mut self) {
            self.leased.get_mut(&WEB).expect("leased").open = true;
        }
    }

    fn call(number: u64, verb: Verb) -> CloudAction {
        let id = CallId { vip: WEB, number };
        CloudAction::Call { id, epoch: EPOCH, verb, limit: PACE.longest }
    }

    /// By a look of that number.
    fn saw(number: u64, text: &str) -> ViaToken {
        ViaToken { epoch: EPOCH, number, text: text.into() }
    }

    #[test]
    fn what_was_seen_is_written_down_before_it_is_changed_and_looked_at_after() {
        let mut node = node();
        assert_eq!(node.at(START), [call(1, Verb::Observe)]);
        assert_eq!(node.at(START), [], "it is under way");
        let elsewhere = node.replied(START, 1, CloudReply::Elsewhere("e7".into()));
        assert_eq!(elsewhere, [CloudAction::Saw(WEB, saw(1, "e7"))]);
        let earlier = ViaToken { epoch: Epoch(2), ..saw(1, "e7") };
        for other in [None, Some(earlier), Some(saw(1, "e6")), Some(saw(0, "e7"))] {
            node.token = other;
            assert_eq!(node.at(START), [], "{:?}", node.token);
        }
        node.token = Some(saw(1, "e7"));
        assert_eq!(node.at(START), [call(2, Verb::Take("e7".into()))]);
        assert_eq!(node.replied(START, 2, CloudReply::Done), []);
        assert_eq!(node.at(START), [call(3, Verb::Observe)], "an answer is not believed");
        assert_eq!(node.replied(START, 3, CloudReply::Here), [CloudAction::Taken(WEB, EPOCH)]);
    }

    #[test]
    fn a_call_is_made_again_only_after_a_look_and_a_while() {
        let mut node = node();
        node.at(START);
        node.replied(START, 1, CloudReply::Elsewhere("e7".into()));
        node.token = Some(saw(1, "e7"));
        node.at(START);
        assert_eq!(node.replied(START, 2, CloudReply::Failed("throttled".into())), []);
        assert_eq!(node.at(START), []);
        let next = node.cloud.next().expect("it is tried again");
        assert!(START + PACE.pause * 3 / 4 <= next && next <= START + PACE.pause, "{next:?}");
        assert_eq!(node.at(next), [call(3, Verb::Observe)], "it may have done it");
        // It had: the answer was lost.
        assert_eq!(node.replied(next, 3, CloudReply::Here), [CloudAction::Taken(WEB, EPOCH)]);
    }

    #[test]
    fn what_they_said_is_done_is_waited_for_and_not_for_ever() {
        let mut node = node();
        node.at(START);
        node.replied(START, 1, CloudReply::Elsewhere("e7".into()));
        node.token = Some(saw(1, "e7"));
        node.at(START);
        node.replied(START, 2, CloudReply::Done);
        let mut now = START;
        let mut takes = 1;
        let mut last = vec![];
        for number in 3..60 {
            assert!(last.is_empty(), "{last:?}");
            let due = node.at(now);
            let CloudAction::Call { verb, .. } = &due[0] else { panic!("{due:?}") };
            last = match verb {
                Verb::Take(_) => {
                    takes += 1;
                    node.replied(now, number, CloudReply::Done)
                }
                _ => node.replied(now, number, CloudReply::Elsewhere(format!("e{number}"))),
            };
            if let [CloudAction::Saw(_, token)] = &last[..] {
                node.token = Some(token.clone());
                last.clear();
                continue;
            }
            if !last.is_empty() {
                break;
            }
            now = node.cloud.next().expect("it looks again").max(now);
        }
        // Each time they had as long as they may take, and others are let after a minute.
        assert!(matches!(last[..], [CloudAction::NotTaken(WEB, EPOCH, _)]), "{last:?}");
        assert_eq!(takes, PATIENCE / FAILED);
        let spent = now.since(START);
        assert!(PACE.settles * takes <= spent && spent < SECOND * 60, "{spent:?}");
    }

    /// It may be the one before who is late.
    #[test]
    fn what_was_seen_here_and_is_where_it_was_before_is_taken_back() {
        let mut node = node();
        node.at(START);
        node.replied(START, 1, CloudReply::Elsewhere("e7".into()));
        node.token = Some(saw(1, "e7"));
        node.at(START);
        node.replied(START, 2, CloudReply::Done);
        node.at(START);
        node.replied(START, 3, CloudReply::Here);
        let next = node.cloud.next().expect("it looks again");
        assert_eq!(node.at(next), [call(4, Verb::Observe)]);
        let late = node.replied(next, 4, CloudReply::Elsewhere("e7".into()));
        assert_eq!(late, [CloudAction::Saw(WEB, saw(4, "e7"))]);
        node.token = Some(saw(4, "e7"));
        assert_eq!(node.at(next), [call(5, Verb::Take("e7".into()))]);
    }

    #[test]
    fn a_lease_that_ends_cuts_off_what_is_under_way() {
        let mut node = node();
        node.at(START);
        let id = CallId { vip: WEB, number: 1 };
        let until = node.leased[&WEB].until;
        assert_eq!(node.at(until), [CloudAction::CutOff(id)]);
        assert_eq!(node.replied(until, 1, CloudReply::Here), [], "it comes too late");
        // The next epoch looks for itself.
        let lease = CalledLease { epoch: Epoch(4), until: until + PACE.longest, open: false };
        node.leased.insert(WEB, lease);
        assert_eq!(node.at(until).len(), 1);
        node.leased.clear();
        assert_eq!(node.at(until), [CloudAction::CutOff(CallId { vip: WEB, number: 2 })]);
    }

    /// Its lease may have gone on meanwhile.
    #[test]
    fn an_answer_that_came_too_late_for_its_lease_is_asked_for_again() {
        let mut node = node();
        node.at(START);
        let until = node.leased[&WEB].until;
        assert_eq!(node.replied(until, 1, CloudReply::Here), []);
        node.leased.get_mut(&WEB).expect("leased").until = until + PACE.longest;
        assert_eq!(node.at(until), [call(2, Verb::Observe)]);
    }

    #[test]
    fn whoever_is_refused_again_and_again_leaves_it_to_others() {
        let not = || CloudAction::NotTaken(WEB, EPOCH, "no".into());
        for (reply, calls) in [
            (CloudReply::Failed("no".into()), PATIENCE / FAILED),
            (CloudReply::Busy("no".into()), PATIENCE / BUSY),
        ] {
            let (mut node, mut now) = (node(), START);
            for number in 1..=u64::from(calls) {
                assert_eq!(node.at(now), [call(number, Verb::Observe)]);
                let failed = node.replied(now, number, reply.clone());
                let last = number == u64::from(calls);
                assert_eq!(failed, if last { vec![not()] } else { vec![] });
                now = now + PACE.pause_max;
            }
        }
    }

    #[test]
    fn a_holder_that_cannot_take_back_what_was_moved_away_leaves_it_to_others() {
        let (mut node, mut now) = (node(), START + PACE.watch);
        node.holds();
        node.at(START);
        node.at(now);
        // Nobody could be asked for a while, which is another matter.
        for number in 1..20 {
            assert_eq!(node.replied(now, number, CloudReply::Failed("no answer".into())), []);
            now = now + PACE.pause_max;
            node.at(now);
        }
        node.replied(now, 20, CloudReply::Elsewhere("e9".into()));
        node.token = Some(saw(20, "e9"));
        let mut last = vec![];
        for number in 21..=20 + u64::from(PATIENCE / FAILED) {
            assert_eq!(last, []);
            assert_eq!(node.at(now).len(), 1);
            last = node.replied(now, number, CloudReply::Failed("no permission".into()));
            now = now + PACE.pause_max;
        }
        assert!(matches!(last[..], [CloudAction::NotTaken(WEB, EPOCH, _)]), "{last:?}");
    }

    #[test]
    fn a_holder_looks_now_and_then_and_takes_back_what_was_moved_away() {
        let mut node = node();
        node.holds();
        assert_eq!(node.at(START), [], "it was confirmed just now");
        let mut now = START;
        // What an earlier holder asked for may be done late: it looks soon, then less often.
        for (number, wait) in (1..).zip([1, 1, 2, 4, 8, 10, 10]) {
            let next = node.cloud.next().expect("it looks again");
            assert!(now + SECOND * wait * 3 / 4 <= next && next <= now + SECOND * wait, "{number}");
            assert_eq!(node.at(next), [call(number, Verb::Observe)]);
            assert_eq!(node.replied(next, number, CloudReply::Here), []);
            now = next;
        }
        now = now + PACE.watch_max;
        node.at(now);
        for number in 8..20 {
            let failed = node.replied(now, number, CloudReply::Failed("no answer".into()));
            assert_eq!(failed, [], "it goes on");
            now = now + PACE.pause_max;
            assert_eq!(node.at(now), [call(number + 1, Verb::Observe)]);
        }
        let saw_it = CloudAction::Saw(WEB, saw(20, "e9"));
        assert_eq!(node.replied(now, 20, CloudReply::Elsewhere("e9".into())), [saw_it]);
        node.token = Some(saw(20, "e9"));
        assert_eq!(node.at(now), [call(21, Verb::Take("e9".into()))]);
        node.replied(now, 21, CloudReply::Done);
        node.at(now);
        assert_eq!(node.replied(now, 22, CloudReply::Here), []);
    }

    #[test]
    fn what_is_nobodys_any_more_is_let_go_of_by_who_had_it_last() {
        let mut node = node();
        node.at(START);
        node.replied(START, 1, CloudReply::Here);
        node.leased.clear();
        assert_eq!(node.at(START), [], "it may be leased here again");
        node.is_gone = true;
        assert_eq!(node.at(START), [call(2, Verb::Release)]);
        assert_eq!(node.at(START), []);
        node.replied(START, 2, CloudReply::Failed("throttled".into()));
        let mut now = node.cloud.next().expect("it is tried again");
        assert_eq!(node.at(now), [call(3, Verb::Release)]);
        let last = 1 + u64::from(RELEASES);
        for number in 3..=last {
            let said = node.replied(now, number, CloudReply::Failed("no permission".into()));
            let not = CloudAction::NotReleased(WEB, "no permission".into());
            assert_eq!(said, if number == last { vec![not] } else { vec![] });
            now = now + PACE.pause_max;
            assert_eq!(node.at(now).len(), usize::from(number < last));
        }
    }

    #[test]
    fn what_somebody_else_has_by_now_is_theirs() {
        let mut node = node();
        node.at(START);
        node.replied(START, 1, CloudReply::Here);
        node.leased.clear();
        node.at(START);
        let logged = |_| Logged::Held(Epoch(4), None);
        assert_eq!(node.cloud.step(START, &node.leased, logged), []);
        node.is_gone = true;
        assert_eq!(node.at(START), []);
    }

    #[test]
    fn what_another_vip_has_by_now_is_not_let_go_of() {
        let mut node = node();
        node.at(START);
        node.replied(START, 1, CloudReply::Here);
        node.leased.clear();
        node.is_gone = true;
        assert_eq!(node.at(START), [call(2, Verb::Release)]);
        let id = CallId { vip: WEB, number: 2 };
        let reused = node.cloud.step(START, &node.leased, |_| Logged::Reused);
        assert_eq!(reused, [CloudAction::CutOff(id)]);
        assert!(!node.cloud.knows(WEB));
    }

    #[test]
    fn what_was_asked_for_and_no_more_is_let_go_of_too() {
        let mut node = node();
        node.at(START);
        let mut looked = node.cloud.clone();
        node.replied(START, 1, CloudReply::Elsewhere("e7".into()));
        node.token = Some(saw(1, "e7"));
        node.at(START);
        node.leased.clear();
        node.is_gone = true;
        let cut_off = |number| CloudAction::CutOff(CallId { vip: WEB, number });
        assert_eq!(node.at(START), [cut_off(2), call(3, Verb::Release)]);
        let only = looked.step(START, &node.leased, |_| Logged::Nothing);
        assert_eq!(only, [cut_off(1)], "it was only looked at");
    }
}
