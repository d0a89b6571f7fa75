//! As leader: the lease, what is known of the others, what they are granted,
//! what the log should say.

use super::{GrantAnswer, Leading, LeaseAction, Leases, RaftView, Wanted};
use crate::{
    Assignment, ConflictChange, Denial, Epoch, Fitness, Grantee, Grants, LeaderLease, Level, Mac,
    Mono, NodeId, NodeOp, NodeView, ObstacleChange, Op, Report, ReportId, Request, Runs, Settled,
    State, Term, Verdict, Vip, VipOp, VipUid, Vote, decide, target,
};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// How long a lost guard may take to come back before its node is passed over.
const GUARD_GRACE: Duration = Duration::from_millis(500);

/// A member's answer to a lease message, when it promised.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acknowledgement {
    /// Who.
    pub from: NodeId,
    /// The vote of the message.
    pub vote: Vote,
    /// When the message was sent.
    pub sent_at: Mono,
    /// The latest report that it has to make.
    pub report: ReportId,
}

/// What a leader looks at that changes by time alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    term: Term,
    /// No deadline of before its election can be left at its gate.
    outlived: bool,
    views: BTreeMap<NodeId, NodeView>,
}

/// What this node, leading, knows of another.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct PeerView {
    last_ack: Mono,
    /// What it says of itself, if it did.
    report: Option<Report>,
    /// Its process, and those before: their messages may come late.
    run: u64,
    earlier: [u64; EARLIER],
}

/// No message is on its way for longer than so many restarts.
const EARLIER: usize = 4;

impl PeerView {
    /// A message came from this process of it. What an earlier one said it would
    /// not say again.
    fn is_of(&mut self, run: u64) -> bool {
        if run == self.run || self.earlier.contains(&run) {
            return run == self.run;
        }
        self.earlier.rotate_right(1);
        self.earlier[0] = std::mem::replace(&mut self.run, run);
        self.report = None;
        true
    }
}

/// Whether a VIP answers where it should and only there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answers {
    /// Its holder says that it answers.
    pub open: bool,
    /// With every address that it is to have.
    pub whole: bool,
    /// Every epoch before the current one has ended.
    pub before_ended: bool,
}

/// Where what nodes say of VIPs differs from what the log says of that. Of nodes
/// that were not heard nothing is known; and one that was removed meanwhile has
/// no place in the log any more.
fn differences<'a, T: Clone + PartialEq + 'a>(
    state: &'a State,
    logged: &'a BTreeMap<VipUid, BTreeMap<NodeId, T>>,
    said: impl Iterator<Item = (NodeId, &'a BTreeMap<VipUid, T>)>,
) -> impl Iterator<Item = (VipUid, NodeId, Option<T>)> {
    said.filter(|(node, _)| state.nodes.contains_key(node)).flat_map(move |(node, said)| {
        let known = move |vip: &VipUid| logged.get(vip)?.get(&node);
        let is_new = move |(vip, what): &(&VipUid, &T)| {
            state.vip(**vip).is_some() && known(vip) != Some(*what)
        };
        let new =
            said.iter().filter(is_new).map(move |(vip, what)| (*vip, node, Some(what.clone())));
        let over = logged.keys().filter(move |vip| known(vip).is_some() && !said.contains_key(vip));
        new.chain(over.map(move |vip| (*vip, node, None)))
    })
}

/// Changes of the log that are due.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeaderWork {
    /// The term that they are due in, and void in any other.
    pub term: Term,
    /// Changes of holder.
    pub moves: Vec<Assignment>,
    /// Grants of this node to itself that nest in its lease.
    pub own: Vec<Grantee>,
    /// Grants to others.
    pub others: Vec<Grantee>,
    /// Epochs that ended.
    pub releases: Vec<Grantee>,
    /// What came to hinder nodes, or hinders them no more.
    pub obstacles: Vec<ObstacleChange>,
    /// Removed VIPs that nobody can answer for any more.
    pub outwaited: Vec<VipUid>,
    /// Epochs whose holder says that it answers.
    pub answered: Vec<Grantee>,
    /// Who came to claim addresses beside holders, or does no more.
    pub conflicts: Vec<ConflictChange>,
    /// Nodes whose interfaces changed.
    pub interfaces: Vec<(NodeId, BTreeSet<Mac>)>,
    /// Nodes that run another version than the log says.
    pub runs: Vec<(NodeId, Runs)>,
}

impl LeaderWork {
    fn is_nothing(&self) -> bool {
        *self == Self { term: self.term, ..Self::default() }
    }

    /// The commands, to be proposed in [`Self::term`], in order of urgency: a
    /// VIP without a holder is what hurts.
    #[must_use]
    pub fn ops(self) -> Vec<Op> {
        let Self {
            term: _,
            moves,
            own,
            others,
            releases,
            obstacles,
            outwaited,
            answered,
            conflicts,
            interfaces,
            runs,
        } = self;
        let settle = |grants: Vec<Grantee>, nested| {
            (!grants.is_empty()).then_some(VipOp::Settle { grants, nested })
        };
        let moves = (!moves.is_empty()).then_some(VipOp::Assign { moves });
        let releases = (!releases.is_empty()).then_some(VipOp::Released { releases });
        let obstacles = (!obstacles.is_empty()).then_some(VipOp::Obstacles { changes: obstacles });
        let outwaited = (!outwaited.is_empty()).then_some(VipOp::Outwaited { vips: outwaited });
        let answered = (!answered.is_empty()).then_some(VipOp::Answered { grants: answered });
        let conflicts = (!conflicts.is_empty()).then_some(VipOp::Conflicts { changes: conflicts });
        let interfaces =
            interfaces.into_iter().map(|(node, macs)| NodeOp::Interfaces { node, macs });
        let runs = runs.into_iter().map(|(node, runs)| NodeOp::Runs { node, runs });
        let urgent = [moves, settle(own, true), settle(others, false), releases];
        let rest = [obstacles, outwaited, answered, conflicts];
        let of_vips = urgent.into_iter().chain(rest).flatten().map(Op::from);
        of_vips.chain(interfaces.chain(runs).map(Op::from)).collect()
    }
}

impl Leases {
    /// Takes over what Raft says about leadership and membership.
    pub(super) fn raft(&mut self, now: Mono, view: RaftView) {
        // Whatever changes now, what was held by the lease so far still may be.
        self.rely(now);
        self.voters.clone_from(&view.voters);
        // What Raft shows lags behind what it saved.
        let saved = self.promise.saved_vote();
        let own = |term: &Term| saved == Vote { term: *term, node: self.me, committed: true };
        let leads = view.leads.filter(own);
        let known = self.leading.as_ref().map(|l| l.lease.term());
        match (leads, known) {
            (Some(term), Some(known)) if known == term => {
                if let Some(leading) = &mut self.leading {
                    if *leading.lease.voters() == view.voters {
                        return;
                    }
                    leading.lease.membership_changed(view.voters, now);
                }
            }
            (Some(term), _) => {
                // Nobody but itself may have been asked for a vote.
                let bound = self.promise.until().max(self.relied_until);
                let (me, voters) = (self.me, view.voters);
                let lease = LeaderLease::elected(me, term, now, bound, voters, &self.timing);
                self.leading = Some(Leading { lease, grants: Grants::default() });
                self.views.clear();
                self.detector.leader_heard();
            }
            (None, Some(_)) => self.leading = None,
            (None, None) => return,
        }
        if self.leading.is_some() {
            // The lease begins anew: ask at once.
            self.heartbeat_at = Mono::ZERO;
        }
        self.changed = true;
    }

    /// Takes note of the lease as far as it goes now, and of the time that the
    /// last packet under it takes to the wire: the promises of others have that
    /// in reserve (C1), this node's own word has not.
    pub(super) fn rely(&mut self, now: Mono) {
        let end = self.lease_end(now);
        if end > Mono::ZERO {
            self.relied_until = self.relied_until.max(end + self.timing.gate_to_wire);
        }
    }

    /// Until when no other leader can exist, if this node leads.
    #[must_use]
    pub fn lease_end(&self, now: Mono) -> Mono {
        self.leading.as_ref().map(|l| l.lease.end(now)).unwrap_or_default()
    }

    /// Whether this node leads and its lease runs.
    #[must_use]
    pub fn has_lease(&self, now: Mono) -> bool {
        self.leading.as_ref().is_some_and(|l| l.lease.is_valid(now))
    }

    /// Whether this node leads with a lease, and its own entry is applied.
    #[must_use]
    pub fn leads_applied(&self, now: Mono) -> bool {
        let term = self.leading.as_ref().map(|l| l.lease.term());
        self.has_lease(now) && term == Some(self.state.term)
    }

    /// The committed vote of this node's own leadership.
    #[must_use]
    pub fn own_leadership(&self) -> Option<Vote> {
        let term = self.leading.as_ref()?.lease.term();
        Some(Vote { term, node: self.me, committed: true })
    }

    /// Whether this node, if it leads, may send what renews promises.
    pub(super) fn on_renewal_due(&mut self, now: Mono) -> bool {
        // Elected, but not yet observed: the first entries must go out.
        self.leading.as_mut().is_none_or(|leading| leading.lease.may_renew(now))
    }

    /// Ends the lease of this leadership for good, in favour of `successor`, if
    /// nothing is held by it any more: with the lease given up, another leader
    /// may grant at once. Not while the log lacks a grant or a release that only
    /// this leader knows of: the next one would have to wait for W, and the
    /// holder would fall silent. Returns whether it was ended: leadership by
    /// exactly this vote may be transferred then ([`Self::may_transfer`]).
    pub(super) fn on_close(&mut self, now: Mono, successor: NodeId) -> bool {
        let work = self.find_work(now);
        if self.leading.is_none()
            || !self.gates_are_shut(now)
            || !work.others.is_empty()
            || !work.releases.is_empty()
        {
            return false;
        }
        self.relied_until = Mono::ZERO;
        self.handed_to.insert(successor, now);
        self.given_up = self.own_leadership();
        if let Some(leading) = &mut self.leading {
            leading.lease.close(now);
        }
        self.changed = true;
        true
    }

    /// Whether the voters may be told that leadership by `vote` is handed over,
    /// which frees them from what they promised it: its lease was closed.
    /// Raft transfers whatever leadership it has when it gets there, and also
    /// on its own account, when it finds itself removed.
    pub(super) fn on_transfer(&mut self, now: Mono, vote: Vote) -> bool {
        let closed = self.given_up == Some(vote);
        if !closed {
            self.transfer_withheld = Some((vote, now));
        }
        closed
    }

    /// Whether Raft gave leadership away, so that it proposes nothing any more,
    /// and still has it: the successor must be dead, or it was never told
    /// ([`Self::may_transfer`]). The agent has to start over.
    #[must_use]
    pub fn transferred_in_vain(&self, now: Mono) -> bool {
        let own = self.own_leadership();
        let withheld = self.transfer_withheld.filter(|(vote, _)| own == Some(*vote));
        withheld.is_some_and(|(_, at)| LeaderLease::is_in_vain(self.timing.promise, at, now))
            || self.leading.as_ref().is_some_and(|leading| leading.lease.closed_in_vain(now))
    }

    /// Whether no gate of this host can be open: nothing is claimed, and a
    /// guard says so, or has been gone for longer than any grant.
    fn gates_are_shut(&self, now: Mono) -> bool {
        let certain =
            self.guard.present || self.guard.lost_at.is_none_or(|at| now >= at + self.timing.grant);
        certain && self.claims.holdings().is_empty()
    }

    pub(super) fn heartbeat(&mut self, now: Mono, actions: &mut Vec<LeaseAction>) {
        // A node whose disk stalls, or whose clock is not true, lets its lease lapse.
        let well = self.disk_is_well && self.clock_is_well;
        if self.leading.is_none() || !well || !self.on_renewal_due(now) {
            return;
        }
        if let Some(vote) = self.own_leadership() {
            let known = self.reports().map(|(node, report)| (node, report.id)).collect();
            actions.push(LeaseAction::Renew { vote, promise: self.timing.promise, known });
        }
    }

    pub(super) fn acknowledged(&mut self, ack: Acknowledgement, actions: &mut Vec<LeaseAction>) {
        let Acknowledgement { from, vote, sent_at, report } = ack;
        if self.own_leadership() != Some(vote) {
            return;
        }
        let Some(leading) = &mut self.leading else { return };
        leading.lease.acknowledged(from, sent_at);
        self.changed |= !self.views.contains_key(&from);
        let view = self.views.entry(from).or_default();
        view.is_of(report.run);
        // What was released may have been unknown when it was said: a release counts
        // from the session alone that the epoch is bound to.
        let released = view.report.iter().flat_map(|report| report.released.iter().copied());
        let released: Vec<_> = released.collect();
        // After a partition its neighbours may know another holder's address.
        if view.last_ack > Mono::ZERO && sent_at > view.last_ack + self.timing.promise {
            actions.push(LeaseAction::Confirm);
        }
        view.last_ack = view.last_ack.max(sent_at);
        self.take_releases(from, &released);
    }

    /// Another node says of itself. Of messages that overtook each other the latest
    /// counts.
    pub(super) fn on_report(&mut self, node: NodeId, report: Report) -> bool {
        if self.leading.is_none() {
            return false;
        }
        // A release is true for good, whatever else was said since.
        let released: Vec<_> = report.released.iter().copied().collect();
        let view = self.views.entry(node).or_default();
        let of_now = view.is_of(report.id.run);
        match &view.report {
            _ if !of_now => {}
            Some(known) if !report.follows(known) => {}
            known => {
                self.changed |= known.as_ref().is_none_or(|known| !report.says_the_same(known));
                view.report = Some(report);
            }
        }
        self.take_releases(node, &released);
        true
    }

    /// Whether this node can hold VIPs, or is about to.
    #[must_use]
    pub fn fitness(&self, now: Mono) -> Fitness {
        let restarting = self.guard.lost_at.is_some_and(|at| now < at + GUARD_GRACE);
        if !self.guard.present && !restarting {
            Fitness::NoGuard
        } else if !self.disk_is_well {
            Fitness::Disk
        } else if !self.clock_is_well {
            Fitness::Clock
        } else {
            Fitness::Fit
        }
    }

    /// The same of any node, as far as this one knows: the leader hears them.
    #[must_use]
    pub fn fitness_of(&self, now: Mono, node: NodeId) -> Option<Fitness> {
        if node == self.me {
            return Some(self.fitness(now));
        }
        let heard = self.leading.as_ref().and(self.views.get(&node));
        let lately = |view: &&PeerView| now < view.last_ack + self.timing.promise;
        heard.filter(lately)?.report.as_ref().map(|report| report.fitness)
    }

    /// Whether this node asks to be relieved of its VIPs.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.stopping
    }

    fn node_views(&self, now: Mono) -> BTreeMap<NodeId, NodeView> {
        let own = NodeView {
            alive: true,
            able: self.fitness(now) == Fitness::Fit,
            stopping: self.stopping,
            unable: self.claims.unable(now).into_iter().collect(),
        };
        let mut views = BTreeMap::from([(self.me, own)]);
        let Some(leading) = &self.leading else { return views };
        // A new leader has heard nobody yet; that says nothing about them.
        let grace = now < leading.lease.elected_at() + self.timing.promise;
        for id in self.others() {
            let view = self.views.get(&id);
            let alive = view.is_some_and(|view| now < view.last_ack + self.timing.promise);
            let alive = grace || alive;
            let view = match view.and_then(|view| view.report.as_ref()) {
                Some(report) => NodeView {
                    alive,
                    able: report.fitness == Fitness::Fit,
                    stopping: report.stopping,
                    unable: report.unable.clone(),
                },
                None => NodeView { alive, able: grace, ..Default::default() },
            };
            views.insert(id, view);
        }
        views
    }

    /// The node that a VIP is to be on, as things are. For the leader.
    #[must_use]
    pub fn target(&self, now: Mono, vip: &Vip) -> Option<NodeId> {
        target(&self.state, self.me, &self.node_views(now), vip)
    }

    /// Nodes that acknowledged within a promise. For the leader.
    #[must_use]
    pub fn alive(&self, now: Mono) -> BTreeSet<NodeId> {
        let views = self.node_views(now);
        views.into_iter().filter(|(_, view)| view.alive).map(|(id, _)| id).collect()
    }

    /// Decides on another node's requests. Returns the answer, and when the
    /// earliest undecided one is due if nothing else can be said now.
    pub(super) fn on_request(
        &mut self,
        now: Mono,
        node: NodeId,
        wanted: &Wanted,
    ) -> (GrantAnswer, Option<Mono>) {
        let (answer, free_at) = self.decide_grants(now, node, wanted);
        // Something was granted: it must not wait for the rest.
        let free_at = free_at.filter(|_| answer.granted.is_empty());
        (answer, free_at)
    }

    pub(super) fn decide_grants(
        &mut self,
        now: Mono,
        node: NodeId,
        wanted: &Wanted,
    ) -> (GrantAnswer, Option<Mono>) {
        let mut answer = GrantAnswer::default();
        let named = wanted.named();
        let Some(Leading { lease, grants }) = &mut self.leading else {
            let no = |grantee: &Grantee| (*grantee, Denial::NotLeading);
            answer.denied = named.iter().map(no).collect();
            return (answer, None);
        };
        let (state, timing) = (&self.state, &self.timing);
        match wanted {
            Wanted::First(_) => {}
            Wanted::All(all) => grants.has_only(node, all),
            Wanted::Cover(cover) => {
                let renewed = grants.renew(now, node, *cover, lease, state);
                answer.covered = renewed.then_some(*cover);
            }
        }
        if !named.is_empty() {
            self.idle_as = None;
        }
        let requests = named.iter().map(|grantee| Request { node, grantee: *grantee });
        let mut free_at: Option<Mono> = None;
        for (grantee, verdict) in grants.request(now, requests, lease, state, timing) {
            match verdict {
                Verdict::Granted => answer.granted.push(grantee),
                Verdict::Denied(denial) => answer.denied.push((grantee, denial)),
                Verdict::Wait(at) => free_at = Some(free_at.map_or(at, |f| f.min(at))),
            }
        }
        (answer, free_at)
    }

    /// Takes note of what `node` let go of.
    pub(super) fn take_releases(&mut self, node: NodeId, releases: &[Grantee]) {
        let Some(leading) = &mut self.leading else { return };
        for release in releases {
            let Some(vip) = self.state.vip_or_retired(release.vip) else { continue };
            let before = leading.grants.ended(vip);
            leading.grants.released(vip, node, *release);
            self.changed |= leading.grants.ended(vip) > before;
        }
    }

    /// What the leader should change in the log, in order of urgency.
    #[must_use]
    pub fn leader_work(&mut self, now: Mono) -> LeaderWork {
        let seen = self.seen(now);
        if seen.is_some() && seen == self.idle_as {
            debug_assert!(self.find_work(now).is_nothing(), "work that nobody announced");
            return LeaderWork::default();
        }
        let work = self.find_work(now);
        self.idle_as = seen.filter(|_| work.is_nothing());
        work
    }

    /// What work can come from by time alone, if that can be told.
    fn seen(&self, now: Mono) -> Option<Seen> {
        let leading = self.leading.as_ref()?;
        let ages = self.claims.ages() || self.state.retired_vips().next().is_some();
        let outlived = now >= leading.lease.elected_at() + self.timing.grant;
        let seen = || Seen { term: leading.lease.term(), outlived, views: self.node_views(now) };
        (self.leads_applied(now) && !ages).then(seen)
    }

    fn find_work(&self, now: Mono) -> LeaderWork {
        if !self.leads_applied(now) {
            return LeaderWork::default();
        }
        let Some(leading) = &self.leading else { return LeaderWork::default() };
        let views = self.node_views(now);
        let ended = |vip: &Vip| leading.grants.ended(vip);
        let moves = decide(&self.state, self.me, &views, ended);
        let elected_at = leading.lease.elected_at();
        let (own, others) =
            leading.grants.unsettled(now, &self.state, self.me, elected_at, &self.timing);
        let releases = leading.grants.unlogged_releases(&self.state);
        let (term, obstacles) = (leading.lease.term(), self.unlogged_obstacles());
        let outwaited = leading.grants.outwaited(now, &leading.lease, &self.state, &self.timing);
        let answered = self.unlogged_answers();
        let (conflicts, interfaces) = (self.unlogged_conflicts(), self.unlogged_interfaces());
        LeaderWork {
            term,
            moves,
            own,
            others,
            releases,
            obstacles,
            outwaited,
            answered,
            conflicts,
            interfaces,
            runs: self.unlogged_versions(),
        }
    }

    /// Whether the holder of this epoch says that it answers, and whether
    /// every epoch before it has ended. For the leader.
    #[must_use]
    pub fn answers(&self, vip: &Vip) -> Answers {
        let revision = |all: &BTreeMap<VipUid, u32>| all.get(&vip.uid).copied().unwrap_or(0);
        let (open, revision) = match vip.holder {
            Some(holder) if holder == self.me => {
                let open = self.claims.is_open(vip.uid, vip.epoch);
                (open, revision(&self.claims.revisions()))
            }
            Some(holder) => self.report_of(holder).map_or((false, 0), |report| {
                let open = report.open.iter().any(|g| g.vip == vip.uid && g.epoch == vip.epoch);
                (open, revision(&report.revisions))
            }),
            None => (false, 0),
        };
        let before_ended = self.ended(vip) >= vip.epoch.previous();
        Answers { open, whole: open && revision == vip.revision, before_ended }
    }

    fn report_of(&self, node: NodeId) -> Option<&Report> {
        self.views.get(&node)?.report.as_ref()
    }

    fn reports(&self) -> impl Iterator<Item = (NodeId, &Report)> {
        self.views.iter().filter_map(|(node, view)| Some((*node, view.report.as_ref()?)))
    }

    fn unlogged_obstacles(&self) -> Vec<ObstacleChange> {
        let own = self.claims.obstacles();
        let others = self.reports().map(|(node, report)| (node, &report.obstacles));
        let said = others.chain([(self.me, &own)]);
        let changes = differences(&self.state, &self.state.obstacles, said);
        changes.map(|(vip, node, why)| ObstacleChange { vip, node, why }).collect()
    }

    fn unlogged_conflicts(&self) -> Vec<ConflictChange> {
        let own = self.claims.conflicts();
        let others = self.reports().map(|(node, report)| (node, &report.conflicts));
        let said = others.chain([(self.me, &own)]);
        let changes = differences(&self.state, &self.state.conflicts, said);
        changes.map(|(vip, node, what)| ConflictChange { vip, node, what }).collect()
    }

    fn unlogged_interfaces(&self) -> Vec<(NodeId, BTreeSet<Mac>)> {
        let others = self.reports().map(|(node, report)| (node, &report.macs));
        let said = others.chain([(self.me, &self.macs)]);
        let new = said.filter(|(node, macs)| {
            let logged = self.state.nodes.get(node).map(|node| &node.macs);
            // A guard that is not there says of no interface.
            !macs.is_empty() && logged.is_some_and(|logged| logged != *macs)
        });
        new.map(|(node, macs)| (node, macs.clone())).collect()
    }

    fn unlogged_versions(&self) -> Vec<(NodeId, Runs)> {
        let others = self.reports().map(|(node, report)| (node, &report.runs));
        let new = others.chain([(self.me, &self.runs)]).filter(|(node, runs)| {
            let logged = self.state.nodes.get(node);
            runs.level >= Level::FIRST && logged.is_some_and(|logged| logged.runs != **runs)
        });
        new.map(|(node, runs)| (node, runs.clone())).collect()
    }

    fn unlogged_answers(&self) -> Vec<Grantee> {
        let new = |vip: &&Vip| vip.answered < vip.epoch;
        let answers = |vip: &Vip| {
            let Settled { epoch, incarnation, node } = vip.settled_at(vip.epoch)?;
            let grantee = Grantee { vip: vip.uid, epoch, incarnation };
            let open = if node == self.me {
                self.claims.is_open(vip.uid, epoch)
            } else {
                self.report_of(node).is_some_and(|report| report.open.contains(&grantee))
            };
            open.then_some(grantee)
        };
        self.state.all_vips().filter(new).filter_map(answers).collect()
    }

    /// Up to which epoch a VIP is known to answer nowhere.
    #[must_use]
    pub fn ended(&self, vip: &Vip) -> Epoch {
        self.leading.as_ref().map_or(vip.fenced, |leading| leading.grants.ended(vip))
    }
}
