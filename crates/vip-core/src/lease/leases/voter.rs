//! As voter: whom this node promised, when it votes, when it campaigns.

use super::{LeaseAction, Leases};
use crate::lease::authority;
use crate::{
    Detector, Mono, NodeId, Presumption, PromiseReply, PromiseTicket, Refused, ReportId, Role,
    Speaker, Term, Vote, rank,
};
use std::collections::BTreeSet;
use std::time::Duration;

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
        let reply = self.promise.renew(now, vote, promise);
        if reply == PromiseReply::Promised {
            if self.heard.is_none_or(|(heard, _)| heard != vote) {
                // It knows nothing of this node.
                (self.changed, self.reporting.due) = (true, true);
            }
            self.heard = Some((vote, now));
            self.handed_to.remove(&vote.node);
            self.detector.leader_heard();
            self.abdicated = false;
        }
        reply
    }

    /// The leader of this vote says that it is over. Counts only if this node
    /// promised to it last: of a leadership that it never took part in anybody
    /// could say so, and each time it would campaign.
    pub(super) fn on_abdication(&mut self, now: Mono, vote: Vote) {
        if self.promise.is_to(vote) {
            self.leadership_is_over(now, vote);
        }
    }

    /// The leader of this vote is certainly over: its promise ends, and this
    /// node may campaign in its turn at once.
    pub(super) fn leadership_is_over(&mut self, now: Mono, vote: Vote) {
        self.promise.abdicated(now, vote);
        if self.promise.free(now, Mono::ZERO).is_ok() && self.promise.saved_vote().term <= vote.term
        {
            self.detector = Detector::freed(now);
            self.abdicated = true;
        }
        if self.heard.is_none_or(|(heard, _)| heard.term <= vote.term) {
            self.heard = Some((vote, Mono::ZERO));
        }
        self.changed = true;
    }

    /// Whether a member may lead or campaign in this term, as far as the log is
    /// known here.
    ///
    /// # Errors
    /// [`Presumption`]: what it says must not even be stored.
    pub fn may_lead(&self, speaker: Speaker, term: Term) -> Result<(), Presumption> {
        authority::may_lead(&self.state, self.promise.saved_vote().term, speaker, term)
    }

    /// The leader of this vote, to which this node promised last, hands over to
    /// another, who campaigns now.
    pub(super) fn on_hand_over(&mut self, now: Mono, vote: Vote) {
        if !self.promise.is_to(vote) {
            return;
        }
        self.promise.abdicated(now, vote);
        self.give_way(now, vote.node);
        self.changed = true;
    }

    /// openraft is about to save `vote`. A vote for anybody else ends this
    /// node's leadership here and now: its lease counted on its own voice.
    pub(super) fn on_saving_vote(&mut self, now: Mono, vote: Vote) {
        self.rely(now);
        self.promise.saving_vote(vote);
        if self.own_leadership().is_some_and(|own| !own.same_candidacy(&vote)) {
            self.leading = None;
            self.changed = true;
        }
        if vote.node != self.me {
            self.give_way(now, vote.node);
        }
    }

    /// How long the write of `vote` has to wait: a candidacy of this node's own
    /// reaches the disk only when it is bound to nobody. openraft asks no one
    /// before it elects a lone voter; and a restart that finds its own vote last
    /// concludes from it that nothing was promised before either.
    pub(super) fn on_candidacy(&mut self, now: Mono, vote: Vote) -> Duration {
        if vote.node != self.me || vote.committed {
            return Duration::ZERO;
        }
        self.on_vote_asked(now).err().map(|bound| bound.remaining).unwrap_or_default()
    }

    /// The disk has `vote`: whoever it elects may be promised.
    pub(super) fn on_durable_vote(&mut self, vote: Vote) {
        self.promise.vote_is_durable(vote);
    }

    /// Another candidate heard that it would get this node's vote.
    pub(super) fn on_promised_vote(&mut self, now: Mono, candidate: NodeId) {
        self.give_way(now, candidate);
    }

    fn give_way(&mut self, now: Mono, to: NodeId) {
        let voters = self.all_voters();
        let rank = self.rank(&voters).unwrap_or(0);
        self.detector.gave_way(now, to, voters.len(), rank, &self.timing);
    }

    /// Whether this node may grant a vote.
    ///
    /// # Errors
    /// [`Refused`]: bound by a promise, or by a lease that it relied on.
    pub(super) fn on_vote_asked(&mut self, now: Mono) -> Result<PromiseTicket, Refused> {
        self.rely(now);
        self.promise.free(now, self.relied_until)
    }

    /// Whether no promise rose since the ticket, and no lease of its own ran
    /// on until the vote was saved.
    #[must_use]
    pub fn still_may_vote(&self, now: Mono, ticket: PromiseTicket) -> bool {
        self.promise.still_free(ticket) && now >= self.relied_until
    }

    /// Another voter is bound for that long.
    pub(super) fn on_peer_bound(&mut self, now: Mono, remaining: Duration) {
        // The rank among all; close enough for a pause.
        let rank = self.rank(&self.state.nodes.keys().copied().collect()).unwrap_or(0);
        self.detector.refused(now, remaining, rank, &self.timing);
    }

    /// This node's place among the candidates.
    fn rank(&self, voters: &BTreeSet<NodeId>) -> Option<u32> {
        let is_witness =
            |id: &NodeId| self.state.nodes.get(id).is_some_and(|n| n.role == Role::Witness);
        let witnesses = voters.iter().copied().filter(is_witness).collect();
        rank(self.me, voters, &witnesses, self.heard.map(|(vote, _)| vote.node))
    }

    pub(super) fn campaign_due(&self) -> Option<Mono> {
        if self.leading.is_some() || !self.disk_is_well || !self.clock_is_well {
            return None;
        }
        let rank = self.turn()?;
        let free_at = self.promise.until().max(self.relied_until);
        Some(self.detector.due(free_at, rank, &self.timing))
    }

    /// This node's turn to campaign. One that is about to stop comes after all
    /// others, but it does come: it may be the only one with the whole log.
    fn turn(&self) -> Option<u32> {
        let voters = self.all_voters();
        let late = if self.stopping { u32::try_from(voters.len()).ok()? } else { 0 };
        Some(self.rank(&voters)? + late)
    }

    pub(super) fn campaign(&mut self, now: Mono, actions: &mut Vec<LeaseAction>) {
        let Some(rank) = self.turn() else { return };
        let place = self.all_voters().iter().position(|id| *id == self.me).unwrap_or(0);
        let place = u32::try_from(place).unwrap_or(u32::MAX);
        self.detector.campaigned(now, rank, place, &self.timing);
        // openraft would not pre-vote inside its own lease, which knows of no
        // abdication.
        let pre_vote = !std::mem::take(&mut self.abdicated);
        actions.push(LeaseAction::Elect { pre_vote });
    }
}
