//! As leader: the lease, what is known of the others, what they are granted.

use super::{GrantAnswer, LeaseAction, Leases, RaftView, Scene, Wanted};
use crate::{
    Denial, Epoch, Fitness, Grantee, Grants, LeaderLease, Mono, NodeId, NodeView, Report, ReportId,
    Request, State, Term, Verdict, Vip, VipUid, Vote,
};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// A member's answer to a lease message, when it promised.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acknowledgement {
    pub from: NodeId,
    /// The vote of the message.
    pub vote: Vote,
    /// When the message was sent.
    pub sent_at: Mono,
    /// The latest report that it has to make.
    pub report: ReportId,
}

/// What this node, leading, knows of another.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct PeerView {
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

    /// It promised within the last promise.
    fn is_heard(&self, now: Mono, promise: Duration) -> bool {
        now < self.last_ack + promise
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

/// A leadership of this node.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Leading {
    pub(super) lease: LeaderLease,
    pub(super) grants: Grants,
    views: BTreeMap<NodeId, PeerView>,
}

/// What is to be done about an acknowledgement.
struct Heard {
    /// It was not heard in this term before.
    is_new: bool,
    /// It was out of reach: after a partition its neighbours may know another
    /// holder's address.
    is_back: bool,
    /// What it let go of, as it said before: then its epoch may have been unknown.
    released: Vec<Grantee>,
}

impl Leading {
    fn acknowledged(&mut self, ack: &Acknowledgement, promise: Duration) -> Heard {
        let Acknowledgement { from, vote: _, sent_at, report } = *ack;
        self.lease.acknowledged(from, sent_at);
        let is_new = !self.views.contains_key(&from);
        let view = self.views.entry(from).or_default();
        view.is_of(report.run);
        let released = view.report.iter().flat_map(|report| report.released.iter().copied());
        let released = released.collect();
        let is_back = view.last_ack > Mono::ZERO && sent_at > view.last_ack + promise;
        view.last_ack = view.last_ack.max(sent_at);
        Heard { is_new, is_back, released }
    }

    /// Of messages that overtook each other the latest counts. Returns whether it
    /// says anything new.
    fn reported(&mut self, node: NodeId, report: Report) -> bool {
        let view = self.views.entry(node).or_default();
        let of_now = view.is_of(report.id.run);
        match &view.report {
            _ if !of_now => false,
            Some(known) if !report.follows(known) => false,
            known => {
                let is_new = known.as_ref().is_none_or(|known| !report.says_the_same(known));
                view.report = Some(report);
                is_new
            }
        }
    }

    /// Takes note of what `node` let go of. Returns whether an epoch ended by that.
    fn take_releases(&mut self, scene: &Scene, node: NodeId, releases: &[Grantee]) -> bool {
        let mut ended = false;
        for release in releases {
            let Some(vip) = scene.state.vip_or_retired(release.vip) else { continue };
            let before = self.grants.ended(vip);
            self.grants.released(vip, node, *release);
            ended |= self.grants.ended(vip) > before;
        }
        ended
    }

    fn decide(
        &mut self,
        now: Mono,
        scene: &Scene,
        node: NodeId,
        wanted: &Wanted,
    ) -> (GrantAnswer, Option<Mono>) {
        let mut answer = GrantAnswer::default();
        let (state, timing) = (&scene.state, &scene.timing);
        match wanted {
            Wanted::First(_) | Wanted::Shut(_) | Wanted::StayShut(_) => {}
            Wanted::All(all) => self.grants.has_only(node, all),
            Wanted::Cover(cover) => {
                let renewed = self.grants.renew(now, node, *cover, &self.lease, state);
                answer.covered = renewed.then_some(*cover);
            }
        }
        let named = wanted.named().iter();
        let shut = matches!(wanted, Wanted::Shut(_) | Wanted::StayShut(_));
        let requests = named.map(|grantee| Request { node, grantee: *grantee, shut });
        let mut free_at: Option<Mono> = None;
        for (grantee, verdict) in self.grants.request(now, requests, &self.lease, state, timing) {
            match verdict {
                Verdict::Granted => answer.granted.push(grantee),
                Verdict::Denied(denial) => answer.denied.push((grantee, denial)),
                Verdict::Wait(at) => free_at = Some(free_at.map_or(at, |f| f.min(at))),
            }
        }
        (answer, free_at)
    }

    /// What is known of another node, for placement.
    fn view_of(&self, now: Mono, node: NodeId, promise: Duration) -> NodeView {
        let grace = self.lease.is_new(now);
        let view = self.views.get(&node);
        let alive = grace || view.is_some_and(|view| view.is_heard(now, promise));
        match view.and_then(|view| view.report.as_ref()) {
            Some(report) => NodeView {
                alive,
                able: report.fitness == Fitness::Fit,
                stopping: report.stopping,
                unable: report.unable.clone(),
            },
            None => NodeView { alive, able: grace, ..Default::default() },
        }
    }

    fn fitness_of(&self, now: Mono, node: NodeId, promise: Duration) -> Option<Fitness> {
        let view = self.views.get(&node).filter(|view| view.is_heard(now, promise))?;
        view.report.as_ref().map(|report| report.fitness)
    }

    /// When each was heard last.
    pub(super) fn heard(&self) -> BTreeMap<NodeId, Mono> {
        self.views.iter().map(|(node, view)| (*node, view.last_ack)).collect()
    }

    fn report_of(&self, node: NodeId) -> Option<&Report> {
        self.views.get(&node)?.report.as_ref()
    }

    fn reports(&self) -> impl Iterator<Item = (NodeId, &Report)> {
        self.views.iter().filter_map(|(node, view)| Some((*node, view.report.as_ref()?)))
    }
}

/// This node's leaderships: the one of now, and what is remembered of those before.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Leader {
    leading: Option<Leading>,
    /// The leadership of this node whose lease was closed last.
    given_up: Option<Vote>,
    /// A transfer that was not passed on, and when.
    transfer_withheld: Option<(Vote, Mono)>,
    /// Whom this node handed leadership to, and when, unless they led since.
    handed_to: BTreeMap<NodeId, Mono>,
}

/// What Raft's view changes.
enum Turn {
    Nothing,
    /// The voters are others.
    Members,
    Elected,
    Deposed,
}

impl Leader {
    pub(super) fn is_leading(&self) -> bool {
        self.leading.is_some()
    }

    pub(super) fn leading(&self) -> Option<&Leading> {
        self.leading.as_ref()
    }

    /// What earlier leaders left is in this state, if it has an entry of this term.
    pub(super) fn inherits(&mut self, state: &State) {
        if let Some(Leading { lease, grants, .. }) = &mut self.leading {
            grants.inherit(lease, state);
        }
    }

    pub(super) fn steps_down(&mut self) {
        self.leading = None;
    }

    fn term(&self) -> Option<Term> {
        self.leading.as_ref().map(|leading| leading.lease.term())
    }

    /// Raft leads in this term, which is that of the vote saved last, or not at all.
    /// `bound`: until when this node's vote may have been asked for by nobody else.
    fn turn(&mut self, now: Mono, term: Option<Term>, bound: Mono, scene: &Scene) -> Turn {
        let Scene { me, timing, voters, .. } = scene;
        match (term, &mut self.leading) {
            // Of this very term: the vote for another one ended it as it was saved.
            (Some(_), Some(leading)) => {
                if leading.lease.voters() == voters {
                    return Turn::Nothing;
                }
                leading.lease.membership_changed(voters.clone(), now);
                Turn::Members
            }
            (Some(term), None) => {
                let lease = LeaderLease::elected(*me, term, now, bound, voters.clone(), timing);
                let (grants, views) = (Grants::default(), BTreeMap::new());
                self.leading = Some(Leading { lease, grants, views });
                Turn::Elected
            }
            (None, Some(_)) => {
                self.leading = None;
                Turn::Deposed
            }
            (None, None) => Turn::Nothing,
        }
    }

    /// A node leads that this one handed leadership to, perhaps.
    pub(super) fn led_after_all(&mut self, node: NodeId) {
        self.handed_to.remove(&node);
    }

    /// Whom it handed leadership to in vain, and when.
    pub(super) fn handed_to(&self) -> &BTreeMap<NodeId, Mono> {
        &self.handed_to
    }

    fn close(&mut self, now: Mono, own: Option<Vote>, successor: NodeId) {
        self.handed_to.insert(successor, now);
        self.given_up = own;
        if let Some(leading) = &mut self.leading {
            leading.lease.close(now);
        }
    }

    /// Whether this leadership was given up; if not, the transfer is withheld.
    fn may_transfer(&mut self, now: Mono, vote: Vote) -> bool {
        let closed = self.given_up == Some(vote);
        if !closed {
            self.transfer_withheld = Some((vote, now));
        }
        closed
    }

    fn transferred_in_vain(&self, now: Mono, own: Option<Vote>, promise: Duration) -> bool {
        let withheld = self.transfer_withheld.filter(|(vote, _)| own == Some(*vote));
        withheld.is_some_and(|(_, at)| LeaderLease::is_in_vain(promise, at, now))
            || self.leading.as_ref().is_some_and(|leading| leading.lease.closed_in_vain(now))
    }
}

impl Leases {
    /// Takes over what Raft says about leadership and membership.
    pub(super) fn raft(&mut self, now: Mono, view: RaftView) {
        // Whatever changes now, what was held by the lease so far still may be.
        self.rely(now);
        let RaftView { leads, voters } = view;
        self.scene.voters = voters;
        // What Raft shows lags behind what it saved.
        let (me, saved) = (self.scene.me, self.voter.promise.saved_vote());
        let own = |term: &Term| saved == Vote { term: *term, node: me, committed: true };
        // Nobody but itself may have been asked for a vote.
        let bound = self.voter.bound_until();
        match self.leader.turn(now, leads.filter(own), bound, &self.scene) {
            Turn::Nothing => return,
            Turn::Members | Turn::Deposed => {}
            Turn::Elected => self.voter.is_elected(),
        }
        if self.leader.is_leading() {
            // The lease begins anew: ask at once.
            self.heartbeat_at = Mono::ZERO;
        }
        self.changed = true;
    }

    /// Takes note of the lease as far as it goes now.
    pub(super) fn rely(&mut self, now: Mono) {
        self.voter.rely(self.lease_end(now), self.scene.timing.gate_to_wire);
    }

    /// Until when no other leader can exist, if this node leads.
    #[must_use]
    pub fn lease_end(&self, now: Mono) -> Mono {
        self.leader.leading().map(|l| l.lease.end(now)).unwrap_or_default()
    }

    /// Whether this node leads and its lease runs.
    #[must_use]
    pub fn has_lease(&self, now: Mono) -> bool {
        self.leader.leading().is_some_and(|l| l.lease.is_valid(now))
    }

    /// Whether this node leads with a lease, and its own entry is applied.
    #[must_use]
    pub fn leads_applied(&self, now: Mono) -> bool {
        self.has_lease(now) && self.leader.term() == Some(self.scene.state.term)
    }

    /// The committed vote of this node's own leadership.
    #[must_use]
    pub fn own_leadership(&self) -> Option<Vote> {
        let term = self.leader.term()?;
        Some(Vote { term, node: self.scene.me, committed: true })
    }

    /// Whether this node, if it leads, may send what renews promises.
    pub(super) fn on_renewal_due(&mut self, now: Mono) -> bool {
        // Elected, but not yet observed: the first entries must go out.
        self.leader.leading.as_mut().is_none_or(|leading| leading.lease.may_renew(now))
    }

    /// Ends the lease of this leadership for good, in favour of `successor`, if
    /// nothing is held by it any more: with the lease given up, another leader
    /// may grant at once. Not while the log lacks a grant or a release that only
    /// this leader knows of: the next one would have to wait for W, and the
    /// holder would fall silent. Returns whether it was ended: leadership by
    /// exactly this vote may be transferred then ([`Self::may_transfer`]).
    pub(super) fn on_close(&mut self, now: Mono, successor: NodeId) -> bool {
        let work = self.find_work(now);
        if !self.leader.is_leading()
            || !self.gates_are_shut(now)
            || !work.others.is_empty()
            || !work.releases.is_empty()
        {
            return false;
        }
        self.voter.relies_on_nothing();
        self.leader.close(now, self.own_leadership(), successor);
        self.changed = true;
        true
    }

    /// Whether the voters may be told that leadership by `vote` is handed over,
    /// which frees them from what they promised it: its lease was closed.
    /// Raft transfers whatever leadership it has when it gets there, and also
    /// on its own account, when it finds itself removed.
    pub(super) fn on_transfer(&mut self, now: Mono, vote: Vote) -> bool {
        self.leader.may_transfer(now, vote)
    }

    /// Whether Raft gave leadership away, so that it proposes nothing any more,
    /// and still has it: the successor must be dead, or it was never told
    /// ([`Self::may_transfer`]). The agent has to start over.
    #[must_use]
    pub fn transferred_in_vain(&self, now: Mono) -> bool {
        self.leader.transferred_in_vain(now, self.own_leadership(), self.scene.timing.promise)
    }

    /// Whether no gate of this host can be open: nothing is claimed, and a
    /// guard says so, or has been gone for longer than any grant.
    fn gates_are_shut(&self, now: Mono) -> bool {
        let certain = self.guard.is_certain(now, self.scene.timing.grant);
        certain && self.holder.claims.holdings().is_empty()
    }

    pub(super) fn heartbeat(&mut self, now: Mono, actions: &mut Vec<LeaseAction>) {
        // A node whose disk stalls, or whose clock is not true, lets its lease lapse.
        let well = self.scene.disk_is_well && self.scene.clock_is_well;
        if !self.leader.is_leading() || !well || !self.on_renewal_due(now) {
            return;
        }
        if let Some(vote) = self.own_leadership() {
            let known = self.reports().map(|(node, report)| (node, report.id)).collect();
            actions.push(LeaseAction::Renew { vote, promise: self.scene.timing.promise, known });
        }
    }

    /// What the others say of themselves, to this node as leader.
    pub(super) fn reports(&self) -> impl Iterator<Item = (NodeId, &Report)> {
        self.leader.leading().into_iter().flat_map(Leading::reports)
    }

    pub(super) fn acknowledged(&mut self, ack: &Acknowledgement, actions: &mut Vec<LeaseAction>) {
        if self.own_leadership() != Some(ack.vote) {
            return;
        }
        let Some(leading) = &mut self.leader.leading else { return };
        let heard = leading.acknowledged(ack, self.scene.timing.promise);
        self.changed |= heard.is_new;
        if heard.is_back {
            actions.push(LeaseAction::Confirm);
        }
        self.take_releases(ack.from, &heard.released);
    }

    /// Another node says of itself. Returns whether there is a leader here to hear
    /// it.
    pub(super) fn on_report(&mut self, node: NodeId, report: Report) -> bool {
        let Some(leading) = &mut self.leader.leading else { return false };
        // A release is true for good, whatever else was said since.
        let released: Vec<_> = report.released.iter().copied().collect();
        self.changed |= leading.reported(node, report);
        self.take_releases(node, &released);
        true
    }

    /// Whether a node can hold VIPs, as far as this one knows: the leader hears them.
    #[must_use]
    pub fn fitness_of(&self, now: Mono, node: NodeId) -> Option<Fitness> {
        if node == self.scene.me {
            return Some(self.fitness(now));
        }
        self.leader.leading()?.fitness_of(now, node, self.scene.timing.promise)
    }

    /// Whether this node asks to be relieved of its VIPs.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.scene.stopping
    }

    /// Every node, for placement.
    pub(super) fn node_views(&self, now: Mono) -> BTreeMap<NodeId, NodeView> {
        let own = NodeView {
            alive: true,
            able: self.fitness(now) == Fitness::Fit,
            stopping: self.scene.stopping,
            unable: self.holder.claims.unable(now).into_iter().collect(),
        };
        let mut views = BTreeMap::from([(self.scene.me, own)]);
        if let Some(leading) = self.leader.leading() {
            let promise = self.scene.timing.promise;
            let others = self.scene.others();
            views.extend(others.map(|node| (node, leading.view_of(now, node, promise))));
        }
        views
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
        let Some(leading) = &mut self.leader.leading else {
            let no = |grantee: &Grantee| (*grantee, Denial::NotLeading);
            let denied = wanted.named().iter().map(no).collect();
            return (GrantAnswer { denied, ..GrantAnswer::default() }, None);
        };
        if !wanted.named().is_empty() {
            self.idle_as = None;
        }
        leading.decide(now, &self.scene, node, wanted)
    }

    pub(super) fn take_releases(&mut self, node: NodeId, releases: &[Grantee]) {
        if let Some(leading) = &mut self.leader.leading {
            self.changed |= leading.take_releases(&self.scene, node, releases);
        }
    }

    /// Whether the holder of this epoch says that it answers, and whether
    /// every epoch before it has ended. For the leader.
    #[must_use]
    pub fn answers(&self, vip: &Vip) -> Answers {
        let revision = |all: &BTreeMap<VipUid, u32>| all.get(&vip.uid).copied().unwrap_or(0);
        let (open, revision) = match vip.holder {
            Some(holder) if holder == self.scene.me => {
                let open = self.holder.claims.is_open(vip.uid, vip.epoch);
                (open, revision(&self.holder.claims.revisions()))
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

    pub(super) fn report_of(&self, node: NodeId) -> Option<&Report> {
        self.leader.leading()?.report_of(node)
    }

    /// Up to which epoch a VIP is known to answer nowhere.
    #[must_use]
    pub fn ended(&self, vip: &Vip) -> Epoch {
        self.leader.leading().map_or(vip.fenced, |leading| leading.grants.ended(vip))
    }
}
