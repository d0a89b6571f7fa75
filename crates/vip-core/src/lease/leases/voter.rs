//! As voter: whom this node promised, when it votes, when it campaigns.

use super::{LeaseAction, Leases, Scene};
use crate::lease::authority;
use crate::{
    Detector, Mono, NodeId, Presumption, Promise, PromiseReply, PromiseTicket, Refused, ReportId,
    Role, Speaker, Term, Vote, rank,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::time::Duration;

/// What binds this node's vote, and whom it heard.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Voter {
    pub(super) promise: Promise,
    detector: Detector,
    /// The leader that this node promised to last, and when it heard of it.
    heard: Option<(Vote, Mono)>,
    /// The leader heard last gave up its lease.
    abdicated: bool,
    /// The end of the lease that this node's own leaderships have relied on at
    /// most. Its vote is bound until then, also after it stepped down.
    relied_until: Mono,
}

impl Voter {
    pub(super) fn bound_by(promise: Promise) -> Self {
        let (detector, relied_until) = (Detector::default(), Mono::ZERO);
        Self { promise, detector, heard: None, abdicated: false, relied_until }
    }

    /// The leader that this node promised to last, and when.
    pub(super) fn heard(&self) -> Option<(Vote, Mono)> {
        self.heard
    }

    /// A leader's message arrived. Whether it was promised something, and is another
    /// one than before.
    fn leader_heard(&mut self, now: Mono, vote: Vote, promise: Duration) -> (PromiseReply, bool) {
        let reply = self.promise.renew(now, vote, promise);
        if reply != PromiseReply::Promised {
            return (reply, false);
        }
        let is_another = self.heard.is_none_or(|(heard, _)| heard != vote);
        self.heard = Some((vote, now));
        self.detector.leader_heard();
        self.abdicated = false;
        (reply, is_another)
    }

    /// The leader of this vote is certainly over: its promise ends, and this
    /// node may campaign in its turn at once.
    fn leadership_is_over(&mut self, now: Mono, vote: Vote) {
        self.promise.abdicated(now, vote);
        if self.promise.free(now, Mono::ZERO).is_ok() && self.promise.saved_vote().term <= vote.term
        {
            self.detector = Detector::freed(now);
            self.abdicated = true;
        }
        if self.heard.is_none_or(|(heard, _)| heard.term <= vote.term) {
            self.heard = Some((vote, Mono::ZERO));
        }
    }

    /// This node leads.
    pub(super) fn is_elected(&mut self) {
        self.detector.leader_heard();
    }

    /// Its own lease may be relied on until `end`, and for the time that the last
    /// packet under it takes to the wire: the promises of others have that in reserve
    /// (C1), this node's own word has not.
    pub(super) fn rely(&mut self, end: Mono, gate_to_wire: Duration) {
        if end > Mono::ZERO {
            self.relied_until = self.relied_until.max(end + gate_to_wire);
        }
    }

    /// The lease that it relied on was given up, with nothing held by it.
    pub(super) fn relies_on_nothing(&mut self) {
        self.relied_until = Mono::ZERO;
    }

    /// Until when it is bound, by its word or by a lease of its own.
    pub(super) fn bound_until(&self) -> Mono {
        self.promise.until().max(self.relied_until)
    }

    fn give_way(&mut self, now: Mono, to: NodeId, scene: &Scene) {
        let voters = scene.voters.all();
        let rank = self.rank(scene, &voters).unwrap_or(0);
        self.detector.gave_way(now, to, voters.len(), rank, &scene.timing);
    }

    /// This node's place among the candidates.
    fn rank(&self, scene: &Scene, voters: &BTreeSet<NodeId>) -> Option<u32> {
        let is_witness =
            |id: &NodeId| scene.state.nodes.get(id).is_some_and(|n| n.role == Role::Witness);
        let witnesses = voters.iter().copied().filter(is_witness).collect();
        rank(scene.me, voters, &witnesses, self.heard.map(|(vote, _)| vote.node))
    }

    /// This node's turn to campaign. One that is about to stop comes after all
    /// others, but it does come: it may be the only one with the whole log.
    fn turn(&self, scene: &Scene) -> Option<u32> {
        let voters = scene.voters.all();
        let late = if scene.stopping { u32::try_from(voters.len()).ok()? } else { 0 };
        Some(self.rank(scene, &voters)? + late)
    }

    /// When it would campaign, if nobody leads until then.
    fn campaign_due(&self, scene: &Scene) -> Option<Mono> {
        if !scene.disk_is_well || !scene.clock_is_well {
            return None;
        }
        let rank = self.turn(scene)?;
        Some(self.detector.due(self.bound_until(), rank, &scene.timing))
    }

    fn campaign(&mut self, now: Mono, scene: &Scene) -> Option<LeaseAction> {
        let rank = self.turn(scene)?;
        let place = scene.voters.all().iter().position(|id| *id == scene.me).unwrap_or(0);
        let place = u32::try_from(place).unwrap_or(u32::MAX);
        self.detector.campaigned(now, rank, place, &scene.timing);
        // openraft would not pre-vote inside its own lease, which knows of no
        // abdication.
        let pre_vote = !std::mem::take(&mut self.abdicated);
        Some(LeaseAction::Elect { pre_vote })
    }
}

impl Leases {
    /// A lease message of the leader elected by `vote` arrived. It has this report
    /// of this node.
    pub(super) fn on_renewal(
        &mut self,
        now: Mono,
        vote: Vote,
        promise: Duration,
        known: ReportId,
    ) -> PromiseReply {
        let reply = self.on_leader_heard(now, vote, promise);
        if reply == PromiseReply::Promised {
            self.reporting.taken(vote, known);
        }
        reply
    }

    /// A lease message, or entries, of the leader elected by `vote` arrived.
    pub(super) fn on_leader_heard(
        &mut self,
        now: Mono,
        vote: Vote,
        promise: Duration,
    ) -> PromiseReply {
        let (reply, is_another) = self.voter.leader_heard(now, vote, promise);
        if reply == PromiseReply::Promised {
            self.leader.led_after_all(vote.node);
        }
        if is_another {
            // It knows nothing of this node.
            (self.changed, self.reporting.due) = (true, true);
        }
        reply
    }

    /// The leader of this vote says that it is over. Counts only if this node
    /// promised to it last: of a leadership that it never took part in anybody
    /// could say so, and each time it would campaign.
    pub(super) fn on_abdication(&mut self, now: Mono, vote: Vote) {
        if self.voter.promise.is_to(vote) {
            self.leadership_is_over(now, vote);
        }
    }

    pub(super) fn leadership_is_over(&mut self, now: Mono, vote: Vote) {
        self.voter.leadership_is_over(now, vote);
        self.changed = true;
    }

    /// Whether a member may lead or campaign in this term, as far as the log is
    /// known here.
    ///
    /// # Errors
    /// [`Presumption`]: what it says must not even be stored.
    pub fn may_lead(&self, speaker: Speaker, term: Term) -> Result<(), Presumption> {
        let saved = self.voter.promise.saved_vote();
        authority::may_lead(&self.scene.state, saved.term, speaker, term)
    }

    /// The leader of this vote, to which this node promised last, hands over to
    /// another, who campaigns now.
    pub(super) fn on_hand_over(&mut self, now: Mono, vote: Vote) {
        if !self.voter.promise.is_to(vote) {
            return;
        }
        self.voter.promise.abdicated(now, vote);
        self.voter.give_way(now, vote.node, &self.scene);
        self.changed = true;
    }

    /// openraft is about to save `vote`. A vote for anybody else ends this
    /// node's leadership here and now: its lease counted on its own voice.
    pub(super) fn on_saving_vote(&mut self, now: Mono, vote: Vote) {
        self.rely(now);
        self.voter.promise.saving_vote(vote);
        if self.own_leadership().is_some_and(|own| !own.same_candidacy(&vote)) {
            self.leader.steps_down();
            self.changed = true;
        }
        if vote.node != self.scene.me {
            self.voter.give_way(now, vote.node, &self.scene);
        }
    }

    /// How long the write of `vote` has to wait: a candidacy of this node's own
    /// reaches the disk only when it is bound to nobody. openraft asks no one
    /// before it elects a lone voter; and a restart that finds its own vote last
    /// concludes from it that nothing was promised before either.
    pub(super) fn on_candidacy(&mut self, now: Mono, vote: Vote) -> Duration {
        if vote.node != self.scene.me || vote.committed {
            return Duration::ZERO;
        }
        self.on_vote_asked(now).err().map(|bound| bound.remaining).unwrap_or_default()
    }

    /// The disk has `vote`: whoever it elects may be promised.
    pub(super) fn on_durable_vote(&mut self, vote: Vote) {
        self.voter.promise.vote_is_durable(vote);
    }

    /// Another candidate heard that it would get this node's vote.
    pub(super) fn on_promised_vote(&mut self, now: Mono, candidate: NodeId) {
        self.voter.give_way(now, candidate, &self.scene);
    }

    /// Whether this node may grant a vote.
    ///
    /// # Errors
    /// [`Refused`]: bound by a promise, or by a lease that it relied on.
    pub(super) fn on_vote_asked(&mut self, now: Mono) -> Result<PromiseTicket, Refused> {
        self.rely(now);
        self.voter.promise.free(now, self.voter.relied_until)
    }

    /// Whether no promise rose since the ticket, and no lease of its own ran
    /// on until the vote was saved.
    #[must_use]
    pub fn still_may_vote(&self, now: Mono, ticket: PromiseTicket) -> bool {
        self.voter.promise.still_free(ticket) && now >= self.voter.relied_until
    }

    /// Another voter is bound for that long.
    pub(super) fn on_peer_bound(&mut self, now: Mono, remaining: Duration) {
        // The rank among all; close enough for a pause.
        let all = self.scene.state.nodes.keys().copied().collect();
        let rank = self.voter.rank(&self.scene, &all).unwrap_or(0);
        self.voter.detector.refused(now, remaining, rank, &self.scene.timing);
    }

    pub(super) fn campaign_due(&self) -> Option<Mono> {
        if self.leader.is_leading() { None } else { self.voter.campaign_due(&self.scene) }
    }

    pub(super) fn campaign(&mut self, now: Mono, actions: &mut Vec<LeaseAction>) {
        actions.extend(self.voter.campaign(now, &self.scene));
    }
}
