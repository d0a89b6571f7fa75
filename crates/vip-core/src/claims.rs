//! The holder's side on the agent: what to ask of the leader and of the guard.
//!
//! ```text
//!  log: this node holds (vip, epoch) ──> Prepare to the guard
//!  guard: Prepared ──> ask the leader, again at each heartbeat
//!  leader: granted ──> Extend to the guard
//!  log: somebody else holds ──> Release to the guard
//!  guard: Released ──> report to the leader until the log knows
//! ```

mod conflicts;

use crate::grants::waits;
use crate::{
    Address, Conflict, Denial, Epoch, Grantee, GuardNotice, GuardRefusal, Incarnation, Mono,
    NodeId, Obstacle, Probe, State, Vip, VipOrder, VipUid, Why,
};
use conflicts::Conflicts;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// How long a VIP that the guard could not claim is not tried again here: at
/// first, because most of what a kernel refuses it refuses for a moment; and at
/// most, because each attempt may move the VIP here and away again.
const RETRY_REFUSED: Duration = Duration::from_secs(1);
const RETRY_REFUSED_MAX: Duration = Duration::from_secs(30);

/// A VIP that the guard could not claim.
#[derive(Clone, Debug)]
struct RefusedHere {
    why: Obstacle,
    retry_at: Mono,
    /// The pause before the next attempt, if this one fails too.
    pause: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Ordered from the guard.
    Preparing,
    /// Ready; the leader is asked.
    Asking,
    /// The guard answers, as far as this agent knows.
    Open,
    /// The guard refuses this epoch for good, but only the leader knows which
    /// session held it. Asked for, never used, then released.
    Doomed,
    /// Release ordered from the guard.
    Releasing,
}

#[derive(Clone, Debug)]
struct Claim {
    epoch: Epoch,
    stage: Stage,
    probe: Probe,
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
}

/// What to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClaimAction {
    /// To the guard.
    Order(VipOrder),
    /// Ask the leader at once, rather than at the next heartbeat.
    AskNow,
    /// Report releases to the leader at once.
    ReportNow,
}

/// What this node answers for, for status and metrics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holding {
    /// The VIP.
    pub vip: VipUid,
    /// Its epoch.
    pub epoch: Epoch,
    /// The guard answers.
    pub open: bool,
}

/// All claims of one node.
#[derive(Clone, Debug)]
pub struct Claims {
    me: NodeId,
    session: Option<Incarnation>,
    claims: BTreeMap<VipUid, Claim>,
    releases: BTreeSet<Grantee>,
    refused: BTreeMap<VipUid, RefusedHere>,
    /// What the guard knows that it could not have, without trying.
    hindered: BTreeMap<VipUid, Obstacle>,
    conflicts: Conflicts,
}

impl Claims {
    /// Of a node without a guard yet.
    #[must_use]
    pub fn new(me: NodeId) -> Self {
        let (claims, releases, refused, hindered, conflicts) = Default::default();
        Self { me, session: None, claims, releases, refused, hindered, conflicts }
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
        self.refused.retain(|uid, refused| {
            // Somebody said since that a foreign host is meant to be there.
            let meant = matches!(refused.why.why, Why::Answered(_));
            let answered = meant || matches!(refused.why.why, Why::AnsweredBy(_));
            // Nobody else has it, or its holder would not.
            let elsewhere = |vip: &Vip| vip.holder != Some(self.me) && vip.answered == vip.epoch;
            let over = |vip: &Vip| (meant && vip.spec.no_probe) || (answered && elsewhere(vip));
            state.vip(*uid).is_some_and(|vip| !over(vip))
        });
        self.conflicts.forget(now, |uid| state.vip(uid).is_some());
        self.forget_known_releases(state);
        let Some(session) = self.session else { return vec![] };
        let mut actions = self.release_unwanted(state);
        let me = self.me;
        for vip in state.vips.values().filter(|vip| vip.holder == Some(me)) {
            let hindered = self.hindered.contains_key(&vip.uid);
            if self.claims.contains_key(&vip.uid) || hindered || self.is_refused(now, vip.uid) {
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
                    let claim = Claim { epoch: vip.epoch, stage: Stage::Preparing, probe };
                    self.claims.insert(vip.uid, claim);
                    let (uid, epoch, addresses) = (vip.uid, vip.epoch, addresses(vip));
                    let known = state.macs_beside(me);
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
        let mut actions = vec![];
        for (uid, claim) in &mut self.claims {
            if claim.stage != Stage::Releasing && !wanted(*uid, claim) {
                claim.stage = Stage::Releasing;
                let order = VipOrder::Release { vip: *uid, epoch: claim.epoch };
                actions.push(ClaimAction::Order(order));
            }
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
        }
    }

    /// The guard is gone: a new one starts by shutting every gate, and an old
    /// one let go when the connection ended or was killed, in which case the
    /// gate's deadlines stand. Only the next session may report releases.
    fn lose_session(&mut self) {
        self.session = None;
        self.claims.clear();
        self.hindered.clear();
    }

    fn notice(&mut self, now: Mono, state: &State, notice: GuardNotice) -> Vec<ClaimAction> {
        let mut actions = vec![];
        match notice {
            GuardNotice::Prepared { vip, epoch } => {
                if let Some(claim) = self.claim(vip, epoch)
                    && claim.stage == Stage::Preparing
                {
                    claim.stage = Stage::Asking;
                    actions.push(ClaimAction::AskNow);
                }
            }
            GuardNotice::Opened { vip, epoch } => {
                if let Some(claim) = self.claim(vip, epoch)
                    && claim.stage == Stage::Asking
                {
                    claim.stage = Stage::Open;
                    self.refused.remove(&vip);
                }
            }
            GuardNotice::Expired { vip, epoch } => {
                if let Some(claim) = self.claim(vip, epoch)
                    && claim.stage == Stage::Open
                {
                    claim.stage = Stage::Asking;
                }
            }
            GuardNotice::Released { vip, epoch } => {
                if let Some(session) = self.session {
                    self.release(vip, epoch, session, &mut actions);
                }
                if self.claims.get(&vip).is_some_and(|c| c.epoch <= epoch) {
                    self.claims.remove(&vip);
                }
            }
            GuardNotice::Refused { vip, epoch, why } => {
                self.guard_refused(now, vip, epoch, &why, &mut actions);
            }
            GuardNotice::Conflict { vip, epoch, ip, mac } => {
                self.conflict(now, state, (vip, epoch), Conflict { ip, mac }, &mut actions);
            }
            GuardNotice::TryAgain => self.refused.clear(),
        }
        actions
    }

    fn guard_refused(
        &mut self,
        now: Mono,
        vip: VipUid,
        epoch: Epoch,
        why: &GuardRefusal,
        actions: &mut Vec<ClaimAction>,
    ) {
        let Some(claim) = self.claims.get_mut(&vip).filter(|c| c.epoch == epoch) else { return };
        match why {
            GuardRefusal::Ended(_) => {
                claim.stage = Stage::Doomed;
                actions.push(ClaimAction::AskNow);
            }
            // The other VIP is being released; the next sync tries again.
            GuardRefusal::InUse(_) => {
                self.claims.remove(&vip);
            }
            GuardRefusal::Address(obstacle) => {
                self.claims.remove(&vip);
                self.leave_alone(now, vip, obstacle.clone());
                if let Some(session) = self.session {
                    self.release(vip, epoch, session, actions);
                }
            }
        }
    }

    /// It is not tried here again for a while.
    fn leave_alone(&mut self, now: Mono, vip: VipUid, why: Obstacle) {
        let pause = self.refused.get(&vip).map_or(RETRY_REFUSED, |before| before.pause);
        let next = (pause * 2).min(RETRY_REFUSED_MAX);
        self.refused.insert(vip, RefusedHere { why, retry_at: now + pause, pause: next });
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
        let Some(vip) = state.vip(uid).filter(|vip| vip.spec.has(ip)) else { return };
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
        let undecided = matches!(claim.stage, Stage::Preparing | Stage::Asking);
        // The cluster that this one was made of is alive: it holds the VIP, and
        // knows nothing of us.
        let twin = claim.stage == Stage::Open
            && claim.probe == Probe::Always
            && state.cut_off_node_with(mac).is_some();
        let Some(why) = why.filter(|_| undecided || twin) else {
            self.conflicts.heard(now, uid, what);
            return;
        };
        claim.stage = Stage::Releasing;
        actions.push(ClaimAction::Order(VipOrder::Release { vip: uid, epoch }));
        self.leave_alone(now, uid, Obstacle { ip, why });
    }

    fn claim(&mut self, vip: VipUid, epoch: Epoch) -> Option<&mut Claim> {
        self.claims.get_mut(&vip).filter(|c| c.epoch == epoch)
    }

    fn granted(&mut self, grantee: Grantee, deadline: Mono) -> Vec<ClaimAction> {
        let Some(incarnation) = self.session.filter(|s| *s == grantee.incarnation) else {
            return vec![];
        };
        let Some(claim) = self.claim(grantee.vip, grantee.epoch) else { return vec![] };
        match claim.stage {
            Stage::Asking | Stage::Open => {
                let deadlines = vec![(grantee.vip, grantee.epoch, deadline)];
                vec![ClaimAction::Order(VipOrder::Extend { incarnation, deadlines })]
            }
            Stage::Doomed => {
                let mut actions = vec![];
                self.claims.remove(&grantee.vip);
                self.release(grantee.vip, grantee.epoch, incarnation, &mut actions);
                actions
            }
            Stage::Preparing | Stage::Releasing => vec![],
        }
    }

    fn denied(&mut self, grantee: Grantee, denial: Denial) -> Vec<ClaimAction> {
        let session = self.session;
        let Some(claim) = self.claim(grantee.vip, grantee.epoch) else { return vec![] };
        match denial {
            Denial::OtherSession(earlier) if Some(earlier) != session => {
                claim.stage = Stage::Releasing;
                let (vip, epoch) = (grantee.vip, grantee.epoch);
                let mut actions = vec![ClaimAction::Order(VipOrder::Release { vip, epoch })];
                self.release(vip, epoch, earlier, &mut actions);
                actions
            }
            // The leader's log holds every assignment that this claim can rest on.
            Denial::Ended | Denial::NotHolder if claim.stage != Stage::Releasing => {
                claim.stage = Stage::Releasing;
                let (vip, epoch) = (grantee.vip, grantee.epoch);
                vec![ClaimAction::Order(VipOrder::Release { vip, epoch })]
            }
            // The log tells the rest.
            Denial::NotLeading | Denial::NotHolder | Denial::OtherSession(_) | Denial::Ended => {
                vec![]
            }
        }
    }

    /// What to renew at each heartbeat.
    #[must_use]
    pub fn renewals(&self) -> Vec<Grantee> {
        self.in_stage(|stage| stage == Stage::Open)
    }

    /// What waits for a first grant, or one after an expiry.
    #[must_use]
    pub fn waiting(&self) -> Vec<Grantee> {
        self.in_stage(|stage| matches!(stage, Stage::Asking | Stage::Doomed))
    }

    fn in_stage(&self, is_in: impl Fn(Stage) -> bool) -> Vec<Grantee> {
        let Some(incarnation) = self.session else { return vec![] };
        let grantee = |(vip, claim): (&VipUid, &Claim)| {
            is_in(claim.stage).then_some(Grantee { vip: *vip, epoch: claim.epoch, incarnation })
        };
        self.claims.iter().filter_map(grantee).collect()
    }

    /// What to report to the leader until the log knows it.
    #[must_use]
    pub fn releases(&self) -> Vec<Grantee> {
        self.releases.iter().copied().collect()
    }

    /// VIPs that this node's guard could not claim lately.
    #[must_use]
    pub fn unable(&self, now: Mono) -> Vec<VipUid> {
        let refused = self.refused.keys().filter(|vip| self.is_refused(now, **vip));
        let hindered = self.hindered.keys().filter(|vip| !self.claims.contains_key(vip));
        refused.chain(hindered).copied().collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// Why the guard could not claim VIPs when it last tried, or could not if it
    /// did.
    #[must_use]
    pub fn obstacles(&self) -> BTreeMap<VipUid, Obstacle> {
        let refused = self.refused.iter().map(|(vip, refused)| (*vip, refused.why.clone()));
        let hindered = self.hindered.iter().map(|(vip, why)| (*vip, why.clone()));
        refused.chain(hindered).collect()
    }

    /// Whom this node heard claim addresses of what it holds, or is about to.
    #[must_use]
    pub fn conflicts(&self) -> BTreeMap<VipUid, Conflict> {
        self.conflicts.all()
    }

    fn is_refused(&self, now: Mono, vip: VipUid) -> bool {
        self.refused.get(&vip).is_some_and(|refused| now < refused.retry_at)
    }

    /// Whether the guard answers for this epoch.
    #[must_use]
    pub fn is_open(&self, vip: VipUid, epoch: Epoch) -> bool {
        let claim = self.claims.get(&vip);
        claim.is_some_and(|claim| claim.epoch == epoch && claim.stage == Stage::Open)
    }

    /// What is claimed here.
    #[must_use]
    pub fn holdings(&self) -> Vec<Holding> {
        let holding = |(vip, claim): (&VipUid, &Claim)| Holding {
            vip: *vip,
            epoch: claim.epoch,
            open: claim.stage == Stage::Open,
        };
        self.claims.iter().map(holding).collect()
    }
}

/// Whether others are asked for the addresses. Before a VIP answered for the
/// first time there is time to; later only where the grant has to wait anyway.
fn probe(vip: &Vip, state: &State) -> Probe {
    if !state.cut_off_nodes().is_empty() {
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
mod tests {
    use super::*;
    use crate::testing::{apply, move_to, state_of, vip, voter};
    use crate::*;

    const START: Mono = Mono(10_000_000_000);
    const SESSION: Incarnation = Incarnation(7);
    const WEB: VipUid = VipUid(1);

    fn state() -> State {
        let mut state = state_of([voter(1), voter(2)]);
        apply(&mut state, Op::AddVip { spec: vip("web", 100) });
        move_to(&mut state, WEB, 1);
        state
    }

    fn obstacle() -> Obstacle {
        Obstacle { ip: [10, 0, 0, 100].into(), why: Why::NoLink }
    }

    fn grantee(epoch: u64, incarnation: u64) -> Grantee {
        Grantee { vip: WEB, epoch: Epoch(epoch), incarnation: Incarnation(incarnation) }
    }

    fn sync(claims: &mut Claims, state: &State) -> Vec<ClaimAction> {
        sync_at(START, claims, state)
    }

    /// Who is known is looked at by itself.
    fn sync_at(now: Mono, claims: &mut Claims, state: &State) -> Vec<ClaimAction> {
        let mut actions = claims.sync(now, state, |_| vec![]);
        for action in &mut actions {
            if let ClaimAction::Order(VipOrder::Prepare { known, .. }) = action {
                known.clear();
            }
        }
        actions
    }

    fn notice(claims: &mut Claims, notice: GuardNotice) -> Vec<ClaimAction> {
        claims.step(START, &state(), ClaimEvent::Notice(notice))
    }

    fn prepare(epoch: u64) -> ClaimAction {
        let (epoch, addresses, probe) = (Epoch(epoch), vec![], Probe::Before);
        ClaimAction::Order(VipOrder::Prepare {
            vip: WEB,
            epoch,
            addresses,
            probe,
            known: [].into(),
        })
    }

    fn release(epoch: u64) -> ClaimAction {
        ClaimAction::Order(VipOrder::Release { vip: WEB, epoch: Epoch(epoch) })
    }

    fn claims() -> Claims {
        let mut claims = Claims::new(NodeId(1));
        claims.step(START, &state(), ClaimEvent::GuardUp(SESSION));
        claims
    }

    /// Node 1 answers for epoch 1.
    fn open(state: &State) -> Claims {
        let mut claims = claims();
        assert_eq!(sync(&mut claims, state), [prepare(1)]);
        let prepared = GuardNotice::Prepared { vip: WEB, epoch: Epoch(1) };
        assert_eq!(notice(&mut claims, prepared), [ClaimAction::AskNow]);
        notice(&mut claims, GuardNotice::Opened { vip: WEB, epoch: Epoch(1) });
        claims
    }

    #[test]
    fn nothing_is_asked_before_the_guard_is_ready() {
        let mut claims = claims();
        sync(&mut claims, &state());
        assert_eq!(claims.waiting(), []);
        let prepared = GuardNotice::Prepared { vip: WEB, epoch: Epoch(1) };
        notice(&mut claims, prepared);
        assert_eq!(claims.waiting(), [grantee(1, 7)]);
    }

    #[test]
    fn losing_the_assignment_releases_and_reports_until_the_log_knows() {
        let mut state = state();
        apply(&mut state, Op::Settle { grants: vec![grantee(1, 7)], nested: false });
        let mut claims = open(&state);
        move_to(&mut state, WEB, 2);
        assert_eq!(sync(&mut claims, &state), [], "the next one is not ready yet");
        assert_eq!(claims.renewals(), [grantee(1, 7)]);
        let no = ClaimEvent::Denied(grantee(1, 7), Denial::NotHolder);
        assert_eq!(claims.step(START, &state, no), [release(1)]);
        assert_eq!(claims.renewals(), []);
        let released = GuardNotice::Released { vip: WEB, epoch: Epoch(1) };
        assert_eq!(notice(&mut claims, released), [ClaimAction::ReportNow]);
        sync(&mut claims, &state);
        assert_eq!(claims.releases(), [grantee(1, 7)]);
        apply(&mut state, Op::Released { releases: vec![grantee(1, 7)] });
        sync(&mut claims, &state);
        assert_eq!(claims.releases(), []);
    }

    #[test]
    fn a_holder_without_a_successor_releases_at_once() {
        let mut state = state();
        let mut claims = open(&state);
        let moves = vec![Assignment { vip: WEB, seen: Epoch(1), to: None, cause: Cause::Drain }];
        apply(&mut state, Op::Assign { moves });
        assert_eq!(sync(&mut claims, &state), [release(1)]);
    }

    #[test]
    fn a_restarted_agent_releases_in_the_name_of_the_session_before() {
        let mut state = state();
        apply(&mut state, Op::Settle { grants: vec![grantee(1, 5)], nested: false });
        let mut claims = claims();
        assert_eq!(sync(&mut claims, &state), [ClaimAction::ReportNow]);
        assert_eq!(claims.releases(), [grantee(1, 5)]);
        assert_eq!(claims.waiting(), []);
    }

    #[test]
    fn an_epoch_that_the_guard_refuses_is_asked_for_only_to_be_released() {
        let mut claims = claims();
        sync(&mut claims, &state());
        let (vip, epoch, why) = (WEB, Epoch(1), GuardRefusal::Ended(Epoch(1)));
        notice(&mut claims, GuardNotice::Refused { vip, epoch, why });
        assert_eq!(claims.waiting(), [grantee(1, 7)]);
        let granted = ClaimEvent::Granted(grantee(1, 7), START);
        assert_eq!(claims.step(START, &state(), granted), [ClaimAction::ReportNow]);
        assert_eq!(claims.releases(), [grantee(1, 7)]);
    }

    #[test]
    fn a_grant_to_another_session_is_dropped() {
        let state = state();
        let mut claims = open(&state);
        claims.step(START, &state, ClaimEvent::GuardUp(Incarnation(8)));
        assert_eq!(claims.step(START, &state, ClaimEvent::Granted(grantee(1, 7), START)), []);
    }

    #[test]
    fn an_address_that_cannot_be_had_is_left_alone_for_a_while() {
        let state = state();
        let mut claims = claims();
        sync(&mut claims, &state);
        let why = || GuardRefusal::Address(obstacle());
        let mut at = START;
        for pause in [1, 2, 4, 8, 16, 30, 30].map(Duration::from_secs) {
            let why = why();
            let refused = GuardNotice::Refused { vip: WEB, epoch: Epoch(1), why };
            claims.step(at, &state, ClaimEvent::Notice(refused));
            assert_eq!(claims.unable(at), [WEB]);
            let early = at + pause - Duration::from_millis(1);
            assert_eq!(sync_at(early, &mut claims, &state), []);
            at = at + pause;
            assert_eq!(claims.unable(at), []);
            assert_eq!(sync_at(at, &mut claims, &state), [prepare(1)]);
        }
    }

    const STRANGER: Mac = Mac([2, 0, 0, 0, 0, 99]);

    /// Node n has the interface 02:00:00:00:00:0n.
    fn with_interfaces(mut state: State) -> State {
        for node in state.nodes.values_mut() {
            node.macs.insert(Mac([2, 0, 0, 0, 0, node.id.0.to_le_bytes()[0]]));
        }
        state
    }

    fn answer(claims: &mut Claims, state: &State, epoch: u64, mac: Mac) -> Vec<ClaimAction> {
        let ip = [10, 0, 0, 100].into();
        let conflict = GuardNotice::Conflict { vip: WEB, epoch: Epoch(epoch), ip, mac };
        claims.step(START, state, ClaimEvent::Notice(conflict))
    }

    fn member(id: u8) -> Mac {
        Mac([2, 0, 0, 0, 0, id])
    }

    /// Node 2 answered at epoch 1 and is lost; node 1 waits to take over.
    fn taking_over() -> (State, Claims) {
        let mut state = with_interfaces(state_of([voter(1), voter(2), voter(3)]));
        apply(&mut state, Op::AddVip { spec: vip("web", 100) });
        move_to(&mut state, WEB, 2);
        apply(&mut state, Op::Settle { grants: vec![grantee(1, 5)], nested: false });
        apply(&mut state, Op::Answered { grants: vec![grantee(1, 5)] });
        let (seen, to, cause) = (Epoch(1), Some(NodeId(1)), Cause::HolderLost);
        apply(&mut state, Op::Assign { moves: vec![Assignment { vip: WEB, seen, to, cause }] });
        let mut claims = claims();
        let (epoch, addresses, probe) = (Epoch(2), vec![], Probe::Beside);
        let order = VipOrder::Prepare { vip: WEB, epoch, addresses, probe, known: [].into() };
        assert_eq!(sync(&mut claims, &state), [ClaimAction::Order(order)]);
        (state, claims)
    }

    #[test]
    fn a_first_claim_is_refused_for_anybody_who_answers_and_tried_again_later() {
        let state = with_interfaces(state());
        let mut claims = claims();
        sync(&mut claims, &state);
        assert_eq!(answer(&mut claims, &state, 1, member(1)), [], "another own interface");
        assert_eq!(answer(&mut claims, &state, 1, STRANGER), [release(1)]);
        let why = Why::Answered(STRANGER);
        assert_eq!(claims.obstacles()[&WEB].why, why);
        assert_eq!(claims.unable(START), [WEB]);
        notice(&mut claims, GuardNotice::Released { vip: WEB, epoch: Epoch(1) });
        let later = START + RETRY_REFUSED;
        assert_eq!(sync_at(later, &mut claims, &state), [prepare(1)]);
    }

    #[test]
    fn a_stranger_that_is_meant_to_be_there_refuses_nothing_and_a_member_still_does() {
        let mut state = with_interfaces(state());
        let mut before = claims();
        sync(&mut before, &state);
        answer(&mut before, &state, 1, STRANGER);
        notice(&mut before, GuardNotice::Released { vip: WEB, epoch: Epoch(1) });
        apply(&mut state, Op::AddVip { spec: VipSpec { no_probe: true, ..vip("web", 100) } });
        assert_eq!(sync(&mut before, &state), [prepare(1)], "at once");
        assert_eq!(answer(&mut before, &state, 1, STRANGER), []);
        assert_eq!(before.conflicts()[&WEB].mac, STRANGER, "it is said all the same");
        assert_eq!(answer(&mut before, &state, 1, member(2)), [release(1)]);
        let name = state.nodes[&NodeId(2)].name.clone();
        assert_eq!(before.obstacles()[&WEB].why, Why::AnsweredBy(name));
    }

    #[test]
    fn a_takeover_is_refused_for_a_member_alone_and_not_for_the_holder_before() {
        let (state, mut claims) = taking_over();
        assert_eq!(answer(&mut claims, &state, 2, member(2)), [], "its lease may run");
        assert_eq!(claims.conflicts(), [].into());
        assert_eq!(answer(&mut claims, &state, 2, STRANGER), []);
        assert_eq!(claims.conflicts()[&WEB].mac, STRANGER);
        assert_eq!(answer(&mut claims, &state, 2, member(3)), [release(2)]);
    }

    #[test]
    fn what_answers_here_is_not_given_up_for_anybody() {
        let state = with_interfaces(state());
        let mut claims = open(&state);
        for mac in [STRANGER, member(2)] {
            assert_eq!(answer(&mut claims, &state, 1, mac), []);
        }
        assert_eq!(claims.conflicts()[&WEB].mac, STRANGER);
    }

    #[test]
    fn whose_answer_may_decide_is_told_to_the_guard() {
        let mut state = with_interfaces(state());
        apply(&mut state, Op::RemoveNode { node: NodeId(2) });
        state.nodes.insert(NodeId(3), Node { macs: [member(3)].into(), ..voter(3) });
        let known = |state: &State| match claims().sync(START, state, |_| vec![]).as_slice() {
            [ClaimAction::Order(VipOrder::Prepare { known, .. })] => known.clone(),
            other => panic!("{other:?}"),
        };
        assert_eq!(known(&state), [member(3)].into(), "not of whom was removed in order");
        state.tombstones.get_mut(&NodeId(2)).expect("there").cut_off = true;
        assert_eq!(known(&state), [member(2), member(3)].into());
    }

    #[test]
    fn what_others_answered_is_forgotten_once_the_vip_answers_elsewhere() {
        let mut state = with_interfaces(state());
        let mut claims = claims();
        sync(&mut claims, &state);
        answer(&mut claims, &state, 1, STRANGER);
        move_to(&mut state, WEB, 2);
        sync(&mut claims, &state);
        assert_eq!(claims.obstacles().len(), 1);
        apply(&mut state, Op::Settle { grants: vec![grantee(2, 5)], nested: false });
        apply(&mut state, Op::Answered { grants: vec![grantee(2, 5)] });
        sync(&mut claims, &state);
        assert_eq!(claims.obstacles(), [].into());
    }

    #[test]
    fn while_the_old_cluster_may_be_alive_a_stranger_stops_the_first_claim_alone() {
        let mut state = with_interfaces(state());
        apply(&mut state, Op::RemoveNode { node: NodeId(2) });
        state.tombstones.get_mut(&NodeId(2)).expect("there").cut_off = true;
        let mut first = claims();
        sync(&mut first, &state);
        assert_eq!(answer(&mut first, &state, 1, STRANGER), [release(1)]);
        state.vips.get_mut(&WEB).expect("there").answered = Epoch(1);
        let mut later = claims();
        sync(&mut later, &state);
        assert_eq!(answer(&mut later, &state, 1, STRANGER), []);
        assert_eq!(answer(&mut later, &state, 1, member(2)), [release(1)]);
    }

    #[test]
    fn a_vip_is_let_go_of_when_the_cluster_that_was_given_up_comes_back() {
        let mut state = with_interfaces(state());
        apply(&mut state, Op::RemoveNode { node: NodeId(2) });
        state.tombstones.get_mut(&NodeId(2)).expect("there").cut_off = true;
        let mut claims = claims();
        let (epoch, addresses, probe) = (Epoch(1), vec![], Probe::Always);
        let order = VipOrder::Prepare { vip: WEB, epoch, addresses, probe, known: [].into() };
        assert_eq!(sync(&mut claims, &state), [ClaimAction::Order(order)]);
        notice(&mut claims, GuardNotice::Prepared { vip: WEB, epoch: Epoch(1) });
        notice(&mut claims, GuardNotice::Opened { vip: WEB, epoch: Epoch(1) });
        assert_eq!(answer(&mut claims, &state, 1, STRANGER), []);
        assert_eq!(answer(&mut claims, &state, 1, member(2)), [release(1)]);
        let name = state.tombstones[&NodeId(2)].name.clone();
        assert_eq!(claims.obstacles()[&WEB].why, Why::AnsweredBy(name));
    }

    #[test]
    fn a_move_and_a_takeover_without_a_wait_ask_nobody() {
        let (mut state, _) = taking_over();
        let ordered = |state: &State| {
            let mut claims = claims();
            let actions = sync(&mut claims, state);
            let [ClaimAction::Order(VipOrder::Prepare { probe, .. })] = actions[..] else {
                panic!("{actions:?}");
            };
            probe
        };
        let waits = state.clone();
        apply(&mut state, Op::Released { releases: vec![grantee(1, 5)] });
        assert_eq!(ordered(&state), Probe::No, "the holder before let go");
        let mut nested = waits.clone();
        nested.vips.get_mut(&WEB).expect("there").nested =
            Some(Nested { term: nested.previous_term, epoch: Epoch(1) });
        assert_eq!(ordered(&nested), Probe::No, "it ended with its leader lease");
        let mut planned = waits;
        planned.vips.get_mut(&WEB).expect("there").cause = Some(Cause::Command);
        assert_eq!(ordered(&planned), Probe::No);
    }

    #[test]
    fn what_could_not_be_held_here_is_said_and_not_tried() {
        let state = state();
        let mut claims = claims();
        let hindered =
            |map: &[(VipUid, Obstacle)]| ClaimEvent::Hindered(map.iter().cloned().collect());
        claims.step(START, &state, hindered(&[(WEB, obstacle())]));
        assert_eq!(sync(&mut claims, &state), []);
        assert_eq!((claims.unable(START), claims.obstacles().len()), (vec![WEB], 1));
        claims.step(START, &state, hindered(&[]));
        assert_eq!(sync(&mut claims, &state), [prepare(1)]);
        assert_eq!((claims.unable(START), claims.obstacles().len()), (vec![], 0));
    }

    #[test]
    fn an_address_that_could_not_be_had_is_tried_again_when_a_link_comes_back() {
        let state = state();
        let mut claims = claims();
        sync(&mut claims, &state);
        let why = GuardRefusal::Address(obstacle());
        notice(&mut claims, GuardNotice::Refused { vip: WEB, epoch: Epoch(1), why });
        notice(&mut claims, GuardNotice::TryAgain);
        assert_eq!(claims.unable(START), []);
        assert_eq!(sync(&mut claims, &state), [prepare(1)]);
    }
}
