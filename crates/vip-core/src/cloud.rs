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
//!
//! What each node announces for itself it takes back whenever its lease is over, however often
//! it has to try: nobody else can. And once more after a while, as a call that was cut off may
//! be done later than the one that took back what it says.

mod logged;
mod pace;
#[cfg(test)]
mod tests;

pub use logged::Logged;
pub use pace::Pace;

use crate::{CalledLease, Epoch, Mono, ViaToken, VipUid};
use pace::jittered;
use std::collections::BTreeMap;
use std::time::Duration;

/// Calls in a row that fail may weigh so much, and somebody else may have more luck.
const PATIENCE: u32 = 16;
/// What one weighs that failed, and one of which they have too many: others ask the same.
const FAILED: u32 = 4;
const BUSY: u32 = 1;
/// So often it is said once more that nobody has a VIP that was removed.
const RELEASES: u32 = 8;

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
    Call {
        id: CallId,
        epoch: Epoch,
        verb: Verb,
        limit: Duration,
        /// As in [`CalledLease`].
        announced: Option<u64>,
    },
    /// Nobody waits for that any more.
    CutOff(CallId),
    /// Have the log take it down.
    Saw(VipUid, ViaToken),
    /// They confirm that it is here.
    Taken(VipUid, Epoch),
    /// They will not have it here.
    NotTaken(VipUid, Epoch, String),
    /// They may have it here still, though there is no such VIP any more, or this node
    /// announces it still. What it announces it goes on to take back.
    NotReleased(VipUid, Epoch, String),
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
    announced: Option<u64>,
    /// It is announced no more, and is to be.
    is_silent: bool,
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
    announced: Option<u64>,
    stage: Stage,
    failed: u32,
    /// They let go of it, and are told so once more.
    again: bool,
}

impl Left {
    /// Whether this node is to let go of it, as the log has it.
    fn is_due(&self, logged: Logged<'_>) -> bool {
        self.announced.is_some() || logged == Logged::Nothing
    }
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
        for (vip, lease) in leased.iter().filter(|(_, lease)| now < lease.until) {
            let is_back =
                |left: &Left| (left.epoch, left.announced) == (lease.epoch, lease.announced);
            // Its lease had ended for a moment: what is let go of is its own.
            let back = self.left.extract_if(*vip..=*vip, |_, left| is_back(left)).next();
            if let Some((_, Left { stage: Stage::Calls(id), .. })) = back {
                actions.push(CloudAction::CutOff(id));
            }
            let watch_at = if back.is_some() { now } else { now + self.pace.watch };
            let first = || Told::of(watch_at, now, lease, &self.pace);
            let told = self.told.entry(*vip).or_insert_with(first);
            told.asked |= back.is_some();
            let verb = match &told.stage {
                // Nobody else's change can be in the way.
                Stage::Rests(_) if told.is_silent || told.announced != lease.announced => {
                    (told.announced, told.asked) = (lease.announced, true);
                    told.is_silent = false;
                    Verb::Take(String::new())
                }
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
            let (epoch, announced, limit) = (lease.epoch, told.announced, self.pace.longest);
            actions.push(CloudAction::Call { id, epoch, verb, limit, announced });
        }
        self.release(now, &logged, &mut actions);
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
                let (stage, Told { epoch, announced, .. }) = (Stage::Rests(now), told);
                let (epoch, announced) = (*epoch, *announced);
                left.insert(*vip, Left { epoch, announced, stage, failed: 0, again: false });
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
            // Whoever is told knows by the rank what was announced later.
            (_, _) if left.announced.is_some() => true,
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
            if due && left.is_due(logged(*vip)) {
                self.calls += 1;
                let id = CallId { vip: *vip, number: self.calls };
                left.stage = Stage::Calls(id);
                let Left { epoch, announced, .. } = *left;
                actions.push(CloudAction::Call {
                    id,
                    epoch,
                    verb: Verb::Release,
                    limit,
                    announced,
                });
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
        // Of those the log says when they are due, and time only once they were told.
        let left = self.left.values().filter(|left| left.failed > 0 || left.again);
        told.chain(left.filter_map(|left| rests(&left.stage))).min()
    }

    /// Whether more may be asked about a VIP under that epoch.
    #[must_use]
    pub fn knows(&self, vip: VipUid, epoch: Epoch) -> bool {
        self.told.get(&vip).is_some_and(|told| told.epoch == epoch)
            || self.left.get(&vip).is_some_and(|left| left.epoch == epoch)
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
                let most = if told.announced.is_some() { pace.watch_near } else { pace.watch_max };
                told.watch = (watch * 2).min(most);
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
            // What this node alone says needs no word in the log: it says it again.
            CloudReply::Elsewhere(_) if told.announced.is_some() => {
                (told.stage, told.is_silent) = (Stage::Rests(now), true);
                vec![]
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
        // A holder that cannot ask goes on; one that saw it elsewhere is none to anybody, and
        // neither is one that alone could say that it is here.
        let is_nowhere = told.away || told.announced.is_some();
        let given_up = told.failed >= PATIENCE && (!open || is_nowhere);
        let not = CloudAction::NotTaken(id.vip, told.epoch, why);
        given_up.then_some(not).into_iter().collect()
    }

    fn released(&mut self, now: Mono, vip: VipUid, reply: CloudReply) -> Vec<CloudAction> {
        let Some(left) = self.left.get_mut(&vip) else { return vec![] };
        let (CloudReply::Failed(why) | CloudReply::Busy(why)) = reply else {
            if left.announced.is_some() && !left.again {
                left.again = true;
                left.stage = Stage::Rests(now + self.pace.settles);
            } else {
                self.left.remove(&vip);
            }
            return vec![];
        };
        left.failed = left.failed.saturating_add(1);
        let (epoch, failed) = (left.epoch, left.failed);
        let pause = self.pace.pause * 2_u32.pow(failed.min(RELEASES));
        left.stage = Stage::Rests(now + pause.min(self.pace.pause_max));
        if failed >= RELEASES && left.announced.is_none() {
            self.left.remove(&vip);
        }
        let not = CloudAction::NotReleased(vip, epoch, why);
        (failed == RELEASES).then_some(not).into_iter().collect()
    }
}

impl Told {
    fn of(watch_at: Mono, now: Mono, lease: &CalledLease, pace: &Pace) -> Self {
        let at = if lease.open { watch_at } else { now };
        Self {
            epoch: lease.epoch,
            announced: lease.announced,
            is_silent: false,
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
