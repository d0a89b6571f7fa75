//! What the lease thread, the gRPC handlers and Raft's storage share: short
//! critical sections under one lock, and a counter that tells that something
//! changed.

use openraft::ServerState;
use openraft::async_runtime::WatchReceiver;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use vip_core::{
    Claims, Detector, Grantee, Grants, LeaderLease, Mono, NodeId, NodeView, Promise, PromiseReply,
    PromiseTicket, Refused, Request, Role, State, Timing, Verdict, Vip, VipUid, Vote, decide, rank,
};
use vip_guard::{GateReport, boottime};
use vip_raft::{DiskClock, LeaseRules, VipRaft, voters};

/// A disk that keeps a write waiting for longer than this many promises costs
/// the node its leadership and its VIPs.
const DISK_PATIENCE_PROMISES: u32 = 5;

/// How long a lost guard may take to come back before its node is passed over.
const GUARD_GRACE: Duration = Duration::from_millis(500);

/// The guard as status shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum GuardStatus {
    Absent,
    Present(GateReport),
}

/// A leadership of this node.
pub(super) struct Leading {
    pub(super) lease: LeaderLease,
    pub(super) grants: Grants,
}

/// What this node, leading, knows of another.
#[derive(Clone, Debug)]
pub(super) struct PeerView {
    pub(super) last_ack: Mono,
    pub(super) able: bool,
    pub(super) stopping: bool,
    pub(super) unable: BTreeSet<VipUid>,
    pub(super) open: BTreeSet<Grantee>,
}

pub(super) struct Inner {
    pub(super) me: NodeId,
    pub(super) timing: Timing,
    pub(super) promise: Promise,
    pub(super) detector: Detector,
    pub(super) leading: Option<Leading>,
    /// The end of the lease that this node's own leaderships have relied on at
    /// most. Its vote is bound until then, also after it stepped down.
    relied_until: Mono,
    pub(super) views: BTreeMap<NodeId, PeerView>,
    /// The leader that this node promised to last, and when it heard of it.
    pub(super) heard: Option<(Vote, Mono)>,
    pub(super) state: Arc<State>,
    pub(super) claims: Claims,
    pub(super) guard: GuardStatus,
    /// When the guard was lost; it is restarted at once, and its node then
    /// reclaims faster than another could take over.
    pub(super) guard_lost_at: Option<Mono>,
    pub(super) stopping: bool,
    /// The leader heard last gave up its lease.
    abdicated: bool,
    disk: DiskClock,
}

/// See the module.
pub(crate) struct LeaseShared {
    inner: Mutex<Inner>,
    changed: watch::Sender<u64>,
}

impl LeaseShared {
    /// At process start, in quarantine for `longest`.
    pub(crate) fn new(
        me: NodeId,
        timing: Timing,
        saved: Vote,
        longest: Duration,
        disk: DiskClock,
    ) -> Arc<Self> {
        let mut promise = Promise::at_start(boottime(), saved, longest);
        // The caller stored this one before it started us.
        promise.longest_stored(timing.promise);
        let inner = Inner {
            me,
            timing,
            promise,
            detector: Detector::default(),
            leading: None,
            relied_until: Mono::ZERO,
            views: BTreeMap::new(),
            heard: None,
            state: Arc::default(),
            claims: Claims::new(me),
            guard: GuardStatus::Absent,
            guard_lost_at: None,
            stopping: false,
            abdicated: false,
            disk,
        };
        Arc::new(Self { inner: Mutex::new(inner), changed: watch::Sender::new(0) })
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells waiters that something they may wait for changed.
    pub(crate) fn touch(&self) {
        self.changed.send_modify(|n| *n = n.wrapping_add(1));
    }

    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Takes over what Raft says about leadership and membership. Returns
    /// whether lease messages should go out at once: the lease begins anew.
    pub(super) fn observe(&self, raft: &VipRaft) -> bool {
        let (leads, term) = {
            let metrics = raft.metrics();
            let metrics = metrics.borrow_watched();
            let own = metrics.vote.committed && metrics.vote.leader_id.voted_for == metrics.id;
            (metrics.state == ServerState::Leader && own, metrics.vote.leader_id.term)
        };
        let voters = voters(raft);
        let now = boottime();
        let mut inner = self.lock();
        // Whatever changes now, what was held by the lease so far still may be.
        inner.rely(now);
        let known = inner.leading.as_ref().map(|l| l.lease.term().0);
        match (leads, known) {
            (true, Some(known)) if known == term => {
                if let Some(leading) = &mut inner.leading {
                    if *leading.lease.voters() == voters {
                        return false;
                    }
                    leading.lease.membership_changed(voters, now);
                }
            }
            (true, _) => {
                let (me, timing) = (inner.me, inner.timing);
                let lease = LeaderLease::elected(me, vip_core::Term(term), now, voters, &timing);
                inner.leading = Some(Leading { lease, grants: Grants::default() });
                inner.views.clear();
                inner.detector.leader_heard();
                tracing::info!(term, "this node leads");
            }
            (false, Some(term)) => {
                inner.leading = None;
                tracing::info!(term, "this node does not lead any more");
            }
            (false, None) => return false,
        }
        drop(inner);
        self.touch();
        leads
    }

    /// Who leads, as far as this node can be sure: itself with a lease, or the
    /// leader that it promised to and that promise still runs.
    pub(crate) fn leader(&self) -> Option<NodeId> {
        self.lock().leader(boottime())
    }

    /// Whether this node leads and its lease runs.
    pub(crate) fn has_lease(&self) -> bool {
        self.lock().has_lease(boottime())
    }

    /// The term that this node leads, with its own entry applied.
    pub(crate) fn leads_applied(&self) -> bool {
        let inner = self.lock();
        let term = inner.leading.as_ref().map(|l| l.lease.term());
        inner.has_lease(boottime()) && term == Some(inner.state.term)
    }

    /// The committed vote of this node's own leadership.
    pub(crate) fn own_leadership(&self) -> Option<Vote> {
        let inner = self.lock();
        let term = inner.leading.as_ref()?.lease.term();
        Some(Vote { term, node: inner.me, committed: true })
    }

    /// Ends the lease of this leadership for good, if nothing is held by it any
    /// more: with the lease given up, another leader may grant at once. Returns
    /// whether it was.
    pub(crate) fn close_lease(&self) -> bool {
        let mut inner = self.lock();
        if !inner.gates_are_shut(boottime()) {
            return false;
        }
        inner.relied_until = Mono::ZERO;
        if let Some(leading) = &mut inner.leading {
            leading.lease.close();
        }
        drop(inner);
        self.touch();
        true
    }

    /// From now on this node asks to be relieved of its VIPs.
    pub(crate) fn stop_holding(&self) {
        self.lock().stopping = true;
        self.touch();
    }

    pub(crate) fn holds_nothing(&self) -> bool {
        self.lock().claims.holdings().is_empty()
    }

    pub(crate) fn guard(&self) -> GuardStatus {
        self.lock().guard.clone()
    }

    /// What the leader should change in the log, in order of urgency.
    pub(crate) fn leader_work(&self) -> LeaderWork {
        let now = boottime();
        let inner = self.lock();
        let Some(leading) = &inner.leading else { return LeaderWork::default() };
        if inner.state.term != leading.lease.term() || !leading.lease.is_valid(now) {
            return LeaderWork::default();
        }
        let views = inner.node_views(now);
        let ended = |vip: &Vip| leading.grants.ended(vip);
        let moves = decide(&inner.state, inner.me, &views, ended);
        let elected_at = leading.lease.elected_at();
        let (own, others) =
            leading.grants.unsettled(now, &inner.state, inner.me, elected_at, &inner.timing);
        let releases = leading.grants.unlogged_releases(&inner.state);
        LeaderWork { moves, own, others, releases }
    }

    /// Whether the holder of this epoch says that it answers, and whether
    /// every epoch before it has ended. For the leader.
    pub(crate) fn answers(&self, vip: &Vip) -> Answers {
        let inner = self.lock();
        let open = match vip.holder {
            None => false,
            Some(holder) if holder == inner.me => inner
                .claims
                .holdings()
                .iter()
                .any(|h| h.vip == vip.uid && h.epoch == vip.epoch && h.open),
            Some(holder) => inner.views.get(&holder).is_some_and(|view| {
                view.open.iter().any(|g| g.vip == vip.uid && g.epoch == vip.epoch)
            }),
        };
        let ended = match &inner.leading {
            Some(leading) => leading.grants.ended(vip),
            None => vip.fenced,
        };
        Answers { open, before_ended: ended >= vip.epoch.previous() }
    }

    /// Up to which epoch a VIP is known to answer nowhere.
    pub(crate) fn ended(&self, vip: &Vip) -> vip_core::Epoch {
        match &self.lock().leading {
            Some(leading) => leading.grants.ended(vip),
            None => vip.fenced,
        }
    }

    /// Nodes that acknowledged within a promise. For the leader.
    pub(crate) fn alive(&self) -> BTreeSet<NodeId> {
        let inner = self.lock();
        let views = inner.node_views(boottime());
        views.into_iter().filter(|(_, v)| v.alive).map(|(id, _)| id).collect()
    }
}

/// Whether a VIP answers where it should and only there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Answers {
    pub(crate) open: bool,
    pub(crate) before_ended: bool,
}

/// Changes of the log that are due.
#[derive(Default)]
pub(crate) struct LeaderWork {
    pub(crate) moves: Vec<vip_core::Assignment>,
    pub(crate) own: Vec<Grantee>,
    pub(crate) others: Vec<Grantee>,
    pub(crate) releases: Vec<Grantee>,
}

impl Inner {
    pub(super) fn disk_is_well(&self) -> bool {
        let patience = self.timing.promise * DISK_PATIENCE_PROMISES;
        self.disk.failure().is_none() && self.disk.oldest_wait() < patience
    }

    pub(super) fn has_lease(&self, now: Mono) -> bool {
        self.leading.as_ref().is_some_and(|l| l.lease.is_valid(now))
    }

    pub(super) fn lease_end(&self, now: Mono) -> Mono {
        self.leading.as_ref().map(|l| l.lease.end(now)).unwrap_or_default()
    }

    /// Takes note of the lease as far as it goes now.
    fn rely(&mut self, now: Mono) {
        self.relied_until = self.relied_until.max(self.lease_end(now));
    }

    /// Whether no gate of this host can be open: nothing is claimed, and a
    /// guard says so, or has been gone for longer than any grant.
    fn gates_are_shut(&self, now: Mono) -> bool {
        let guard = match self.guard {
            GuardStatus::Present(_) => true,
            GuardStatus::Absent => {
                self.guard_lost_at.is_none_or(|at| now >= at + self.timing.grant)
            }
        };
        guard && self.claims.holdings().is_empty()
    }

    pub(super) fn leader(&self, now: Mono) -> Option<NodeId> {
        if self.has_lease(now) {
            return Some(self.me);
        }
        let (vote, at) = self.heard?;
        (now < at + self.timing.promise).then_some(vote.node)
    }

    /// Whether this node's guard can hold VIPs, or is about to.
    pub(super) fn able(&self) -> bool {
        let restarting = self.guard_lost_at.is_some_and(|at| boottime() < at + GUARD_GRACE);
        let present = matches!(self.guard, GuardStatus::Present(_));
        (present || restarting) && self.disk_is_well()
    }

    fn node_views(&self, now: Mono) -> BTreeMap<NodeId, NodeView> {
        let own = NodeView {
            alive: true,
            able: self.able(),
            stopping: self.stopping,
            unable: self.claims.unable().into_iter().collect(),
        };
        let mut views = BTreeMap::from([(self.me, own)]);
        let Some(leading) = &self.leading else { return views };
        // A new leader has heard nobody yet; that says nothing about them.
        let grace = now < leading.lease.elected_at() + self.timing.promise;
        for id in self.state.nodes.keys().filter(|id| **id != self.me) {
            let view = match self.views.get(id) {
                Some(view) => NodeView {
                    alive: grace || now < view.last_ack + self.timing.promise,
                    able: view.able,
                    stopping: view.stopping,
                    unable: view.unable.clone(),
                },
                None => NodeView { alive: grace, able: grace, ..Default::default() },
            };
            views.insert(*id, view);
        }
        views
    }

    /// Decides on a request for a grant; this node leads, or it is denied.
    pub(super) fn decide_grant(&mut self, now: Mono, request: Request) -> Verdict {
        let Some(leading) = &mut self.leading else {
            return Verdict::Denied(vip_core::Denial::NotLeading);
        };
        leading.grants.request(now, request, &leading.lease, &self.state, &self.timing)
    }

    /// Takes note of releases; returns whether any was news.
    pub(super) fn take_releases(&mut self, node: NodeId, releases: &[Grantee]) -> bool {
        let Some(leading) = &mut self.leading else { return false };
        let mut news = false;
        for release in releases {
            let Some(vip) = self.state.vip_or_retired(release.vip) else { continue };
            let before = leading.grants.ended(vip);
            if leading.grants.released(vip, node, *release) && leading.grants.ended(vip) > before {
                tracing::info!(%node, vip = %vip.spec.name, epoch = %release.epoch, "released");
                news = true;
            }
        }
        news
    }

    /// This node's place among the candidates.
    pub(super) fn rank(&self, voters: &BTreeSet<NodeId>) -> Option<u32> {
        let is_witness =
            |id: &NodeId| self.state.nodes.get(id).is_some_and(|n| n.role == Role::Witness);
        let witnesses = voters.iter().copied().filter(is_witness).collect();
        rank(self.me, voters, &witnesses, self.heard.map(|(vote, _)| vote.node))
    }

    /// Answers a lease message.
    pub(super) fn renew_promise(&mut self, now: Mono, vote: Vote, p: Duration) -> PromiseReply {
        let reply = self.promise.renew(now, vote, p);
        if reply == PromiseReply::Promised {
            self.heard = Some((vote, now));
            self.detector.leader_heard();
            self.abdicated = false;
        }
        reply
    }

    /// The leader of this vote is certainly over: its promise ends, and this
    /// node may campaign in its turn at once.
    pub(super) fn leader_gone(&mut self, now: Mono, vote: Vote) {
        self.promise.abdicated(vote);
        if self.promise.free(now, Mono::ZERO).is_ok() && self.promise.saved_vote().term <= vote.term
        {
            self.detector = Detector::default();
            self.abdicated = true;
        }
        if self.heard.is_some_and(|(heard, _)| heard.term <= vote.term) {
            self.heard = Some((vote, Mono::ZERO));
        }
    }

    /// Whether the last leader gave up, asked once per campaign.
    pub(super) fn take_abdicated(&mut self) -> bool {
        std::mem::take(&mut self.abdicated)
    }

    pub(super) fn epoch_open(&self) -> Vec<Grantee> {
        self.claims.renewals()
    }
}

impl LeaseRules for LeaseShared {
    fn saving_vote(&self, vote: Vote) {
        self.lock().promise.saving_vote(vote);
    }

    fn may_campaign(&self) -> Result<(), Refused> {
        let inner = self.lock();
        inner.promise.free(boottime(), Mono::ZERO).map(|_| ())
    }

    fn may_vote(&self) -> Result<PromiseTicket, Refused> {
        let mut inner = self.lock();
        let now = boottime();
        inner.rely(now);
        inner.promise.free(now, inner.relied_until)
    }

    fn still_may_vote(&self, ticket: PromiseTicket) -> bool {
        self.lock().promise.still_free(ticket)
    }

    fn may_renew(&self) -> bool {
        let mut inner = self.lock();
        match &mut inner.leading {
            Some(leading) => leading.lease.may_renew(boottime()),
            // Elected, but not yet observed: the first entries must go out.
            None => true,
        }
    }

    fn leader_heard(&self, vote: Vote) {
        let mut inner = self.lock();
        let promise = inner.timing.promise;
        inner.renew_promise(boottime(), vote, promise);
    }

    fn peer_bound(&self, remaining: Duration) {
        let mut inner = self.lock();
        let (now, timing) = (boottime(), inner.timing);
        // The rank among all; close enough for a pause.
        let rank = inner.rank(&inner.state.nodes.keys().copied().collect()).unwrap_or(0);
        inner.detector.refused(now, remaining, rank, &timing);
    }

    fn abdicated(&self, vote: Vote) {
        let mut inner = self.lock();
        inner.promise.abdicated(vote);
        // The one it hands over to campaigns; the others give it time.
        let (now, timing) = (boottime(), inner.timing);
        inner.detector.refused(now, timing.election, 0, &timing);
        drop(inner);
        self.touch();
    }
}
