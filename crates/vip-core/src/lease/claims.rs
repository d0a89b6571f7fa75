//! The holder's side on the agent: what to ask of the leader and of the guard.
//!
//! ```text
//!  log: this node holds (vip, epoch) ──> Prepare to the guard
//!  guard: Prepared ──> ask the leader, again at each heartbeat
//!  leader: granted ──> Extend to the guard
//!  log: somebody else holds ──> Release to the guard
//!  guard: Released ──> report to the leader until the log knows
//!
//!  Where somebody has to be told where the VIP is, who takes a while:
//!  log: this node holds (vip, epoch) ──> ask the leader, gate shut
//!  leader: granted ──> tell them, and have the lease go on meanwhile
//!  they confirm ──> Prepare to the guard
//! ```

mod answering;
mod conflicts;
mod questions;
mod refusals;
mod stage;

use super::grants::waits;
use crate::{
    Address, Conflict, Cover, Denial, Epoch, Grantee, GuardNotice, Incarnation, Mono, NodeId,
    Obstacle, Probe, State, ViaToken, Vip, VipOrder, VipUid, Why,
};
pub use answering::Answering;
use conflicts::Conflicts;
pub use questions::CalledLease;
use refusals::RefusedHere;
use serde::{Deserialize, Serialize};
use stage::{Happened, Stage, Then};
use std::cell::LazyCell;
use std::collections::{BTreeMap, BTreeSet};

/// So many times what is left of a lease may pass from when this node's own announcement is
/// confirmed until the gate opens, before that is taken back: nobody else is told by it, and the
/// gate has a lease of its own.
const OPENS: u32 = 32;

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Claim {
    epoch: Epoch,
    stage: Stage,
    probe: Probe,
    /// Of the spec that the guard was told of; `None`: it is to hear it again.
    revision: Option<u32>,
    /// Of the spec that the guard has all addresses of.
    ready: u32,
    /// While somebody is told: until when it is leased, with the gate shut. And until the gate
    /// opens: until when it counts as that.
    taking_until: Mono,
    /// What was seen of where it was, for the log.
    token: Option<ViaToken>,
}

impl Claim {
    /// Whether addresses joined the VIP since the guard was told of it, under the
    /// epoch that it is claimed by.
    fn is_behind(&self, vip: &Vip) -> bool {
        self.stage.is_ready() && self.epoch == vip.epoch && self.revision != Some(vip.revision)
    }
}

/// What a claim is about to tell or be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClaimEvent {
    /// A guard accepted this agent.
    GuardUp(Incarnation),
    /// The guard is gone.
    GuardDown,
    /// The guard says.
    Notice(GuardNotice),
    /// The leader granted, until the deadline.
    Granted(Grantee, Mono),
    /// The leader did not.
    Denied(Grantee, Denial),
    /// What could not be held here, as things are: all of it.
    Hindered(BTreeMap<VipUid, Obstacle>),
    /// Who had to be told where a VIP is confirmed that it is here.
    Taken(VipUid, Epoch),
    /// They will not hear of it.
    NotTaken(VipUid, Epoch, Obstacle),
    /// This is what they have, to be written down before it is changed.
    Saw(VipUid, ViaToken),
}

/// What to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClaimAction {
    /// To the guard.
    Order(VipOrder),
    /// Ask the leader at once, rather than at the next heartbeat.
    AskNow,
    /// There is something to report to the leader.
    ReportNow,
    /// The guard has another set open: each is to be renewed by itself, once.
    NameAll,
}

/// What this node answers for, for status and metrics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holding {
    pub vip: VipUid,
    pub epoch: Epoch,
    /// The guard answers.
    pub open: bool,
}

/// All claims of one node.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Claims {
    me: NodeId,
    session: Option<Incarnation>,
    claims: BTreeMap<VipUid, Claim>,
    releases: BTreeSet<Grantee>,
    refused: BTreeMap<VipUid, RefusedHere>,
    /// What the guard knows that it could not have, without trying.
    hindered: BTreeMap<VipUid, Obstacle>,
    conflicts: Conflicts,
    answering: Answering,
    /// What is asked of each claim at every heartbeat, if none changed since.
    #[serde(skip)]
    known: Option<Known>,
    /// A claim changed since the log was compared.
    differs: bool,
}

/// Of a thousand claims that do not change nothing is worked out anew.
#[derive(Clone, Debug, Default)]
struct Known {
    cover: Cover,
    waiting: Vec<Grantee>,
    /// The guard gives something up, and may have it open as yet.
    releasing: bool,
}

impl Claims {
    /// Of a node without a guard yet.
    #[must_use]
    pub fn new(me: NodeId) -> Self {
        let (claims, releases, refused, hindered) = Default::default();
        let session = None;
        Self {
            me,
            session,
            claims,
            releases,
            refused,
            hindered,
            conflicts: Conflicts::default(),
            answering: Answering::default(),
            known: None,
            differs: true,
        }
    }

    /// The guard session, if there is one.
    #[must_use]
    pub fn session(&self) -> Option<Incarnation> {
        self.session
    }

    /// Compares what the log wants with what is claimed, and closes the
    /// difference. `addresses` maps a VIP's spec to this host's interfaces.
    pub fn sync(
        &mut self,
        now: Mono,
        state: &State,
        addresses: impl Fn(&Vip) -> Vec<Address>,
    ) -> Vec<ClaimAction> {
        self.look_at_refusals(now, state);
        self.conflicts.forget(now, |uid| state.vip(uid).is_some());
        self.forget_known_releases(state);
        self.differs = false;
        let Some(session) = self.session else { return vec![] };
        let mut actions = self.release_unwanted(state);
        let me = self.me;
        let known = LazyCell::new(|| state.macs_beside(me));
        for vip in state.all_vips().filter(|vip| vip.holder == Some(me)) {
            if let Some(claim) = self.claims.get_mut(&vip.uid) {
                if claim.stage == Stage::Taken && claim.epoch == vip.epoch {
                    let (uid, epoch) = (vip.uid, vip.epoch);
                    (claim.revision, claim.probe) = (Some(vip.revision), probe(vip, state));
                    let (addresses, probe, known) = (addresses(vip), claim.probe, known.clone());
                    let order = VipOrder::Prepare { vip: uid, epoch, addresses, probe, known };
                    actions.push(ClaimAction::Order(order));
                    self.goes_on((uid, epoch), Happened::Ordered, &mut actions);
                } else if claim.is_behind(vip) {
                    claim.revision = Some(vip.revision);
                    let (uid, epoch, addresses) = (vip.uid, vip.epoch, addresses(vip));
                    let (probe, known) = (Probe::No, known.clone());
                    let order = VipOrder::Prepare { vip: uid, epoch, addresses, probe, known };
                    actions.push(ClaimAction::Order(order));
                }
                continue;
            }
            if self.hindered.contains_key(&vip.uid) || self.is_refused(now, vip.uid) {
                continue;
            }
            match vip.bound(vip.epoch) {
                // Held by an earlier session of this node's guard, which is
                // over: sessions never overlap, and each starts by letting go.
                Some(earlier) if earlier != session => {
                    self.release(vip.uid, vip.epoch, earlier, &mut actions);
                }
                _ if vip.fenced >= vip.epoch => {}
                _ => {
                    let probe = probe(vip, state);
                    let (epoch, revision) = (vip.epoch, Some(vip.revision));
                    let called = vip.spec.via.is_called();
                    let stage = if called { Stage::Seeking } else { Stage::Preparing };
                    let taking_until = Mono::ZERO;
                    let claim = Claim {
                        epoch,
                        stage,
                        probe,
                        revision,
                        ready: 0,
                        taking_until,
                        token: None,
                    };
                    self.claims.insert(vip.uid, claim);
                    self.known = None;
                    if called {
                        actions.push(ClaimAction::AskNow);
                        continue;
                    }
                    let (uid, epoch, addresses) = (vip.uid, vip.epoch, addresses(vip));
                    let known = known.clone();
                    let order = VipOrder::Prepare { vip: uid, epoch, addresses, probe, known };
                    actions.push(ClaimAction::Order(order));
                }
            }
        }
        actions
    }

    fn release(
        &mut self,
        vip: VipUid,
        epoch: Epoch,
        incarnation: Incarnation,
        actions: &mut Vec<ClaimAction>,
    ) {
        if self.releases.insert(Grantee { vip, epoch, incarnation }) {
            actions.push(ClaimAction::ReportNow);
        }
    }

    fn release_unwanted(&mut self, state: &State) -> Vec<ClaimAction> {
        let me = self.me;
        let wanted = |uid: VipUid, claim: &Claim| {
            state.vip(uid).is_some_and(|vip| {
                let mine = vip.holder == Some(me) && vip.epoch <= claim.epoch;
                // A planned move: answers until the leader says that the next
                // holder is ready, or the deadline passes.
                let handing_over = claim.stage == Stage::Open
                    && vip.holder.is_some_and(|h| h != me)
                    && vip.epoch == claim.epoch.next();
                vip.fenced < claim.epoch && (mine || handing_over)
            })
        };
        let unwanted = self.claims.iter().filter(|(uid, claim)| !wanted(**uid, claim));
        let unwanted: Vec<_> = unwanted.map(|(uid, claim)| (*uid, claim.epoch)).collect();
        let mut actions = vec![];
        for claim in unwanted {
            self.goes_on(claim, Happened::Unwanted, &mut actions);
        }
        actions
    }

    fn forget_known_releases(&mut self, state: &State) {
        self.releases.retain(|release| {
            state.vip_or_retired(release.vip).is_some_and(|vip| {
                vip.fenced < release.epoch && vip.settled.is_none_or(|s| s.epoch <= release.epoch)
            })
        });
    }

    /// Something happened; returns what to do, in order.
    pub fn step(&mut self, now: Mono, state: &State, event: ClaimEvent) -> Vec<ClaimAction> {
        match event {
            ClaimEvent::GuardUp(incarnation) => {
                self.lose_session();
                self.session = Some(incarnation);
                // What an earlier guard could not do this one may.
                self.refused.clear();
                vec![]
            }
            ClaimEvent::GuardDown => {
                self.lose_session();
                vec![ClaimAction::ReportNow]
            }
            ClaimEvent::Notice(notice) => self.notice(now, state, notice),
            ClaimEvent::Granted(grantee, deadline) => self.granted(grantee, deadline),
            ClaimEvent::Denied(grantee, denial) => self.denied(grantee, denial),
            ClaimEvent::Hindered(hindered) => {
                self.hindered = hindered;
                vec![]
            }
            ClaimEvent::Taken(vip, epoch) => {
                let mut actions = vec![];
                self.goes_on((vip, epoch), Happened::Confirmed, &mut actions);
                let is_announced =
                    state.vip(vip).is_some_and(|vip| vip.spec.via.is_announced_by_each());
                if let Some(claim) = self.claim(vip, epoch)
                    && is_announced
                    && claim.stage == Stage::Taken
                {
                    let left = claim.taking_until.since(now);
                    claim.taking_until = claim.taking_until + left * OPENS;
                }
                actions
            }
            ClaimEvent::Saw(vip, token) => {
                let claim = self.claim(vip, token.epoch);
                let claim = claim.filter(|claim| claim.token.as_ref() != Some(&token));
                let Some(claim) = claim else { return vec![] };
                claim.token = Some(token);
                vec![ClaimAction::ReportNow]
            }
            ClaimEvent::NotTaken(vip, epoch, obstacle) => {
                self.not_taken(now, (vip, epoch), obstacle)
            }
        }
    }

    /// The guard is gone: a new one starts by shutting every gate, and an old
    /// one let go when the connection ended or was killed, in which case the
    /// gate's deadlines stand. Only the next session may report releases.
    fn lose_session(&mut self) {
        self.session = None;
        self.claims.clear();
        self.answering = Answering::default();
        self.changed();
        self.hindered.clear();
    }

    fn notice(&mut self, now: Mono, state: &State, notice: GuardNotice) -> Vec<ClaimAction> {
        let mut actions = vec![];
        match notice {
            GuardNotice::Prepared { vip, epoch } => {
                if let Some(claim) = self.claim(vip, epoch) {
                    claim.ready = claim.revision.unwrap_or(claim.ready);
                }
                self.goes_on((vip, epoch), Happened::Prepared, &mut actions);
            }
            GuardNotice::Opened { vip, epoch } => {
                self.goes_on((vip, epoch), Happened::Opened, &mut actions);
                if self.is_open(vip, epoch) {
                    self.refused.remove(&vip);
                }
            }
            GuardNotice::Expired { vip, epoch } => {
                self.goes_on((vip, epoch), Happened::Expired, &mut actions);
                // What was told before that lease is told no more.
                if let Some(claim) = self.claim(vip, epoch) {
                    claim.taking_until = Mono::ZERO;
                }
            }
            GuardNotice::Released { vip, epoch } => {
                if let Some(session) = self.session {
                    self.release(vip, epoch, session, &mut actions);
                }
                if self.claims.get(&vip).is_some_and(|c| c.epoch <= epoch) {
                    self.claims.remove(&vip);
                    self.answering.ended(vip);
                    self.changed();
                }
            }
            GuardNotice::Refused { vip, epoch, why } => {
                self.guard_refused(now, vip, epoch, &why, &mut actions);
            }
            GuardNotice::Conflict { vip, epoch, ip, mac } => {
                self.conflict(now, state, (vip, epoch), Conflict { ip, mac }, &mut actions);
            }
            GuardNotice::OtherCover => {
                self.answering.extended_in_vain();
                actions.push(ClaimAction::NameAll);
            }
            // What a host is like says nothing of who is told where its VIPs are.
            GuardNotice::TryAgain => {
                self.refused.retain(|_, refused| matches!(refused.why.why, Why::NotTaken(_)));
            }
        }
        actions
    }

    /// Something happened to the claim of this epoch, if it is there. What
    /// [`Then::Extend`], [`Then::ReleaseEarlier`] and [`Then::LeaveAlone`] take beside
    /// it the caller has.
    fn goes_on(
        &mut self,
        (vip, epoch): (VipUid, Epoch),
        happened: Happened,
        actions: &mut Vec<ClaimAction>,
    ) -> Then {
        let claim = self.claims.get_mut(&vip).filter(|claim| claim.epoch == epoch);
        let Some(claim) = claim else { return Then::Nothing };
        let (next, then) = claim.stage.after(happened);
        if then == Then::TellAgain {
            claim.revision = None;
        }
        let changes = next != Some(claim.stage) || then == Then::TellAgain;
        match next {
            Some(next) => claim.stage = next,
            None => drop(self.claims.remove(&vip)),
        }
        match next {
            Some(Stage::Open) => self.answering.opened(vip, epoch),
            Some(Stage::Asking) => self.answering.expired(vip, epoch),
            Some(stage) if stage.is_leased() => {}
            Some(_) | None => self.answering.ended(vip),
        }
        if changes {
            self.changed();
        }
        match then {
            Then::Nothing | Then::Take | Then::Extend | Then::TellAgain => {}
            Then::Ask => actions.push(ClaimAction::AskNow),
            Then::Release | Then::ReleaseEarlier => {
                actions.push(ClaimAction::Order(VipOrder::Release { vip, epoch }));
            }
            Then::Report | Then::LeaveAlone => {
                if let Some(session) = self.session {
                    self.release(vip, epoch, session, actions);
                }
            }
        }
        then
    }

    fn changed(&mut self) {
        self.known = None;
        self.differs = true;
    }

    /// Whether a look at the log could find something to do, though it is as it was
    /// at the last one.
    #[must_use]
    pub fn may_differ(&self) -> bool {
        self.differs || self.ages()
    }

    /// Whether something of it changes by time alone.
    #[must_use]
    pub fn ages(&self) -> bool {
        !self.refused.is_empty() || !self.conflicts.is_empty()
    }

    /// Somebody else claims an address. A member that must not have it keeps a
    /// VIP from being claimed here: both would answer. So does anybody at a
    /// first claim; later it would let anybody on the network, and each router
    /// with proxy ARP, keep a VIP down.
    fn conflict(
        &mut self,
        now: Mono,
        state: &State,
        (uid, epoch): (VipUid, Epoch),
        what: Conflict,
        actions: &mut Vec<ClaimAction>,
    ) {
        let Conflict { ip, mac } = what;
        // Where nobody resolves it, whoever answers is somebody else's matter.
        let is_meant = |vip: &&Vip| vip.spec.has(ip) && vip.spec.via.is_resolved();
        let Some(vip) = state.vip(uid).filter(is_meant) else { return };
        let Some(claim) = self.claims.get_mut(&uid).filter(|claim| claim.epoch == epoch) else {
            return;
        };
        let first = vip.answered == Epoch(0);
        let twin = || state.cut_off_node_with(mac);
        let node = state.node_with(mac).or_else(twin);
        // Another interface of this host on the same network; or the holder
        // before, whose lease may run: the leader waits for that.
        if node.is_some_and(|node| node == self.me || state.may_still_answer(vip, node)) {
            return;
        }
        let why = match node.and_then(|node| state.node_name(node)) {
            Some(name) => Some(Why::AnsweredBy(name.clone())),
            None => (first && !vip.spec.no_probe).then_some(Why::Answered(mac)),
        };
        let undecided = claim.stage.is_undecided();
        // The cluster that this one was made of is alive: it holds the VIP, and
        // knows nothing of us.
        let twin = claim.stage == Stage::Open
            && claim.probe == Probe::Always
            && state.cut_off_node_with(mac).is_some();
        let Some(why) = why.filter(|_| undecided || twin) else {
            self.conflicts.heard(now, uid, what);
            return;
        };
        self.goes_on((uid, epoch), Happened::Contested, actions);
        let revision = vip.revision;
        self.leave_alone(now, uid, Obstacle { ip, why }, revision);
    }

    fn claim(&mut self, vip: VipUid, epoch: Epoch) -> Option<&mut Claim> {
        self.claims.get_mut(&vip).filter(|c| c.epoch == epoch)
    }

    fn granted(&mut self, grantee: Grantee, deadline: Mono) -> Vec<ClaimAction> {
        let Some(incarnation) = self.session.filter(|s| *s == grantee.incarnation) else {
            return vec![];
        };
        let (mut actions, claim) = (vec![], (grantee.vip, grantee.epoch));
        match self.goes_on(claim, Happened::Granted, &mut actions) {
            Then::Extend => {
                let open = self.is_open(grantee.vip, grantee.epoch);
                self.answering.extended(grantee.vip, grantee.epoch, deadline, open);
                let deadlines = vec![(grantee.vip, grantee.epoch, deadline)];
                actions.push(ClaimAction::Order(VipOrder::Extend { incarnation, deadlines }));
            }
            Then::Take => {
                if let Some(claim) = self.claim(grantee.vip, grantee.epoch) {
                    claim.taking_until = deadline;
                }
            }
            _ => {}
        }
        actions
    }

    /// All that is leased was extended together.
    pub(super) fn granted_together(&mut self, deadline: Mono) {
        self.answering.extended_all(deadline);
    }

    /// The guard is asked for a sign of life.
    pub(super) fn guard_is_pinged(&mut self) {
        self.answering.pinged();
    }

    /// It gave one.
    pub(super) fn guard_is_heard(&mut self) {
        self.answering.heard();
    }

    fn denied(&mut self, grantee: Grantee, denial: Denial) -> Vec<ClaimAction> {
        let Grantee { vip, epoch, .. } = grantee;
        let earlier = match denial {
            Denial::OtherSession(earlier) => Some(earlier).filter(|s| Some(*s) != self.session),
            Denial::NotLeading | Denial::NotHolder | Denial::Ended => None,
        };
        let happened = match denial {
            Denial::Ended | Denial::NotHolder => Happened::Over,
            Denial::OtherSession(_) if earlier.is_some() => Happened::Bound,
            // The log tells the rest.
            Denial::OtherSession(_) | Denial::NotLeading => Happened::NotYet,
        };
        let mut actions = vec![];
        let then = self.goes_on((vip, epoch), happened, &mut actions);
        if let (Then::ReleaseEarlier, Some(earlier)) = (then, earlier) {
            self.release(vip, epoch, earlier, &mut actions);
        }
        actions
    }
}

/// Whether others are asked for the addresses. Before a VIP answered for the
/// first time there is time to; later only where the grant has to wait anyway.
fn probe(vip: &Vip, state: &State) -> Probe {
    if !vip.spec.via.is_resolved() {
        Probe::No
    } else if !state.cut_off_nodes().is_empty() {
        Probe::Always
    } else if vip.answered == Epoch(0) {
        Probe::Before
    } else if waits(vip, state) {
        Probe::Beside
    } else {
        Probe::No
    }
}

#[cfg(test)]
mod tests;
