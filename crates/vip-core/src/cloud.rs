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

use crate::{Epoch, Mono, ViaToken, VipUid};
use std::collections::BTreeMap;
use std::time::Duration;

/// After a call that failed, at first and at most: they may be throttling.
const PAUSE: Duration = Duration::from_millis(200);
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// So many calls in a row that fail, and somebody else may have more luck.
const PATIENCE: u32 = 4;
/// How often a holder looks whether it is here yet.
const WATCH: Duration = Duration::from_secs(10);
/// Until a look, or a change, is given up, whatever the lease.
const LONGEST: Duration = Duration::from_secs(30);

/// A lease, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leased {
    pub epoch: Epoch,
    /// When it ends, if it is not renewed.
    pub until: Mono,
    /// The gate is open: it was confirmed before.
    pub open: bool,
}

/// What they are asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verb {
    /// Where is it?
    Observe,
    /// Have it here, if it is as it was by this token.
    Take(String),
}

/// What they say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CloudReply {
    /// It is here.
    Here,
    /// It is elsewhere, or nowhere: as this token says.
    Elsewhere(String),
    /// Done. It is looked at before it counts.
    Taken,
    /// Nothing came of it, or nobody knows.
    Failed(String),
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
    /// Somebody else moved it while this node answers for it.
    MovedAway(VipUid),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Stage {
    /// Until then nothing is done.
    Rests(Mono),
    /// A call is under way.
    Calls(CallId),
    /// The log is to say this.
    Waits(String),
}

#[derive(Clone, Debug)]
struct Told {
    epoch: Epoch,
    stage: Stage,
    failed: u32,
    pause: Duration,
    /// It was moved away from here, and that was said.
    away: bool,
    /// They said that it was done, and it was not seen here since.
    took: bool,
}

/// All VIPs of a node whose place somebody has to be told.
#[derive(Clone, Debug, Default)]
pub struct Cloud {
    told: BTreeMap<VipUid, Told>,
    calls: u64,
}

impl Cloud {
    /// Time passed, or what is leased or in the log changed: `token` is what the log has of a
    /// VIP.
    pub fn step<'a>(
        &mut self,
        now: Mono,
        leased: &BTreeMap<VipUid, Leased>,
        token: impl Fn(VipUid) -> Option<&'a ViaToken>,
    ) -> Vec<CloudAction> {
        let mut actions = self.end_others(now, leased);
        for (vip, lease) in leased.iter().filter(|(_, lease)| now < lease.until) {
            let told = self.told.entry(*vip).or_insert_with(|| Told::of(now, lease));
            let verb = match &told.stage {
                Stage::Rests(at) if *at <= now => Verb::Observe,
                Stage::Waits(text) => {
                    let has = |token: &ViaToken| token.epoch == lease.epoch && token.text == *text;
                    if !token(*vip).is_some_and(has) {
                        continue;
                    }
                    Verb::Take(text.clone())
                }
                Stage::Rests(_) | Stage::Calls(_) => continue,
            };
            self.calls += 1;
            let id = CallId { vip: *vip, number: self.calls };
            told.stage = Stage::Calls(id);
            actions.push(CloudAction::Call { id, epoch: lease.epoch, verb, limit: LONGEST });
        }
        actions
    }

    /// What is not leased any more, or under another epoch, nobody waits for.
    fn end_others(&mut self, now: Mono, leased: &BTreeMap<VipUid, Leased>) -> Vec<CloudAction> {
        let mut actions = vec![];
        self.told.retain(|vip, told| {
            let goes_on =
                leased.get(vip).is_some_and(|lease| lease.epoch == told.epoch && now < lease.until);
            if let (false, Stage::Calls(id)) = (goes_on, &told.stage) {
                actions.push(CloudAction::CutOff(*id));
            }
            goes_on
        });
        actions
    }

    /// When [`Self::step`] is due by time alone, beside the ends of leases.
    #[must_use]
    pub fn next(&self) -> Option<Mono> {
        let rests = |told: &Told| match told.stage {
            Stage::Rests(at) => Some(at),
            Stage::Calls(_) | Stage::Waits(_) => None,
        };
        self.told.values().filter_map(rests).min()
    }

    /// A call has its answer. Of one that was cut off nothing counts.
    pub fn replied(
        &mut self,
        now: Mono,
        id: CallId,
        reply: CloudReply,
        open: bool,
    ) -> Vec<CloudAction> {
        let Some(told) = self.told.get_mut(&id.vip) else { return vec![] };
        let Stage::Calls(of) = told.stage else { return vec![] };
        if of != id {
            return vec![];
        }
        let (vip, epoch) = (id.vip, told.epoch);
        match reply {
            CloudReply::Here => {
                (told.failed, told.pause, told.away, told.took) = (0, PAUSE, false, false);
                told.stage = Stage::Rests(now + WATCH);
                if open { vec![] } else { vec![CloudAction::Taken(vip, epoch)] }
            }
            // It may take them a while; done once more, it may take as long again.
            CloudReply::Elsewhere(_) if told.took => {
                told.fails(now, vip, "it is not here after it was moved here".to_owned(), open)
            }
            CloudReply::Elsewhere(text) => {
                told.stage = Stage::Waits(text.clone());
                let moved = (open && !told.away).then_some(CloudAction::MovedAway(vip));
                told.away |= open;
                let saw = CloudAction::Saw(vip, ViaToken { epoch, text });
                moved.into_iter().chain([saw]).collect()
            }
            // What it did is looked at, whatever it says.
            CloudReply::Taken => {
                (told.stage, told.took) = (Stage::Rests(now), true);
                vec![]
            }
            CloudReply::Failed(why) => told.fails(now, vip, why, open),
        }
    }
}

impl Told {
    fn of(now: Mono, lease: &Leased) -> Self {
        let at = if lease.open { now + WATCH } else { now };
        Self {
            epoch: lease.epoch,
            stage: Stage::Rests(at),
            failed: 0,
            pause: PAUSE,
            away: false,
            took: false,
        }
    }

    fn fails(&mut self, now: Mono, vip: VipUid, why: String, open: bool) -> Vec<CloudAction> {
        self.failed += 1;
        self.stage = Stage::Rests(now + self.pause);
        self.pause = (self.pause * 2).min(PAUSE_MAX);
        let enough = self.failed >= PATIENCE;
        self.took &= !enough;
        let given_up = enough && !open;
        given_up.then_some(CloudAction::NotTaken(vip, self.epoch, why)).into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WEB: VipUid = VipUid(1);
    const START: Mono = Mono(10_000_000_000);
    const EPOCH: Epoch = Epoch(3);

    struct Node {
        cloud: Cloud,
        leased: BTreeMap<VipUid, Leased>,
        token: Option<ViaToken>,
    }

    fn node() -> Node {
        let until = START + Duration::from_secs(60);
        let leased = [(WEB, Leased { epoch: EPOCH, until, open: false })].into();
        Node { cloud: Cloud::default(), leased, token: None }
    }

    impl Node {
        fn at(&mut self, now: Mono) -> Vec<CloudAction> {
            let token = self.token.clone();
            self.cloud.step(now, &self.leased, |_| token.as_ref())
        }

        fn replied(&mut self, now: Mono, number: u64, reply: CloudReply) -> Vec<CloudAction> {
            let open = self.leased.get(&WEB).is_some_and(|lease| lease.open);
            self.cloud.replied(now, CallId { vip: WEB, number }, reply, open)
        }

        fn holds(&mut self) {
            self.leased.get_mut(&WEB).expect("leased").open = true;
        }
    }

    fn call(number: u64, verb: Verb) -> CloudAction {
        let id = CallId { vip: WEB, number };
        CloudAction::Call { id, epoch: EPOCH, verb, limit: LONGEST }
    }

    fn saw(epoch: Epoch, text: &str) -> ViaToken {
        ViaToken { epoch, text: text.into() }
    }

    #[test]
    fn what_was_seen_is_written_down_before_it_is_changed_and_looked_at_after() {
        let mut node = node();
        assert_eq!(node.at(START), [call(1, Verb::Observe)]);
        assert_eq!(node.at(START), [], "it is under way");
        let elsewhere = node.replied(START, 1, CloudReply::Elsewhere("e7".into()));
        assert_eq!(elsewhere, [CloudAction::Saw(WEB, saw(EPOCH, "e7"))]);
        for other in [None, Some(saw(Epoch(2), "e7")), Some(saw(EPOCH, "e6"))] {
            node.token = other;
            assert_eq!(node.at(START), [], "{:?}", node.token);
        }
        node.token = Some(saw(EPOCH, "e7"));
        assert_eq!(node.at(START), [call(2, Verb::Take("e7".into()))]);
        assert_eq!(node.replied(START, 2, CloudReply::Taken), []);
        assert_eq!(node.at(START), [call(3, Verb::Observe)], "an answer is not believed");
        assert_eq!(node.replied(START, 3, CloudReply::Here), [CloudAction::Taken(WEB, EPOCH)]);
    }

    #[test]
    fn a_call_is_made_again_only_after_a_look_and_a_while() {
        let mut node = node();
        node.at(START);
        node.replied(START, 1, CloudReply::Elsewhere("e7".into()));
        node.token = Some(saw(EPOCH, "e7"));
        node.at(START);
        assert_eq!(node.replied(START, 2, CloudReply::Failed("throttled".into())), []);
        assert_eq!(node.at(START), []);
        assert_eq!(node.cloud.next(), Some(START + PAUSE));
        assert_eq!(node.at(START + PAUSE), [call(3, Verb::Observe)], "it may have done it");
        // It had: the answer was lost.
        assert_eq!(
            node.replied(START + PAUSE, 3, CloudReply::Here),
            [CloudAction::Taken(WEB, EPOCH)]
        );
    }

    #[test]
    fn what_they_said_is_done_is_waited_for_and_not_for_ever() {
        let mut node = node();
        node.at(START);
        node.replied(START, 1, CloudReply::Elsewhere("e7".into()));
        node.token = Some(saw(EPOCH, "e7"));
        node.at(START);
        node.replied(START, 2, CloudReply::Taken);
        let (mut now, mut last) = (START, vec![]);
        for number in 3..3 + u64::from(PATIENCE) {
            assert_eq!(node.at(now), [call(number, Verb::Observe)]);
            last = node.replied(now, number, CloudReply::Elsewhere("e7".into()));
            assert_eq!(node.at(now), [], "after a while");
            now = now + PAUSE_MAX;
        }
        assert!(matches!(last[..], [CloudAction::NotTaken(WEB, EPOCH, _)]), "{last:?}");
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
        let lease = Leased { epoch: Epoch(4), until: until + LONGEST, open: false };
        node.leased.insert(WEB, lease);
        assert_eq!(node.at(until).len(), 1);
        node.leased.clear();
        assert_eq!(node.at(until), [CloudAction::CutOff(CallId { vip: WEB, number: 2 })]);
    }

    #[test]
    fn whoever_is_refused_again_and_again_leaves_it_to_others() {
        let (mut node, mut now) = (node(), START);
        for number in 1..=u64::from(PATIENCE) {
            assert_eq!(node.at(now), [call(number, Verb::Observe)]);
            let failed = node.replied(now, number, CloudReply::Failed("no permission".into()));
            let last = number == u64::from(PATIENCE);
            let not = CloudAction::NotTaken(WEB, EPOCH, "no permission".into());
            assert_eq!(failed, if last { vec![not] } else { vec![] });
            now = now + PAUSE_MAX;
        }
    }

    #[test]
    fn a_holder_looks_now_and_then_and_takes_back_what_was_moved_away() {
        let mut node = node();
        node.holds();
        assert_eq!(node.at(START), [], "it was confirmed just now");
        let later = START + WATCH;
        assert_eq!(node.at(later), [call(1, Verb::Observe)]);
        assert_eq!(node.replied(later, 1, CloudReply::Here), []);
        let later = later + WATCH;
        node.at(later);
        let saw_it = CloudAction::Saw(WEB, saw(EPOCH, "e9"));
        let moved = node.replied(later, 2, CloudReply::Elsewhere("e9".into()));
        assert_eq!(moved, [CloudAction::MovedAway(WEB), saw_it]);
        node.token = Some(saw(EPOCH, "e9"));
        assert_eq!(node.at(later), [call(3, Verb::Take("e9".into()))]);
        node.replied(later, 3, CloudReply::Failed("throttled".into()));
        let later = later + PAUSE;
        node.at(later);
        let still = node.replied(later, 4, CloudReply::Elsewhere("e9".into()));
        assert_eq!(still, [CloudAction::Saw(WEB, saw(EPOCH, "e9"))], "it was said");
    }
}
