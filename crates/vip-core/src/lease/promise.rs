//! The voter's side of the leader lease: whom this node must not vote for.
//!
//! Every node keeps one, learners and the leader too. A promise starts after
//! the lease message that asked for it was sent, so a leader that counts from
//! its send time always ends first (C1 in `profile`).
//!
//! ```text
//!  process start ──> quarantine: now + largest P ever promised
//!  Lease, AppendEntries of the vote on disk ──> promised until now + P
//!  RequestVote inside a promise ──> refused, with the time left
//!  Abdicate(term) ──> the promise to that term ends, no other; so does the
//!                     quarantine, if this process has promised to that term
//! ```

use crate::{Mono, NodeId, Term};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Raft's vote: term, candidate, and whether a quorum granted it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vote {
    pub term: Term,
    /// The candidate; the leader once committed.
    pub node: NodeId,
    /// Granted by a quorum.
    pub committed: bool,
}

impl Vote {
    /// Whether both are of the same candidacy.
    #[must_use]
    pub fn same_candidacy(&self, other: &Self) -> bool {
        (self.term, self.node) == (other.term, other.node)
    }
}

/// What a voter answers to a lease message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PromiseReply {
    /// Promised; the leader may count it from the time it sent the message.
    Promised,
    /// P is larger than any before: store it durably
    /// ([`Promise::longest_stored`]), then ask again.
    StoreFirst,
    /// Nothing was promised, and nothing is to be concluded from that: this node may
    /// have voted in that term and not know.
    Unheeded,
    /// The leader's vote is not the one on this node's disk, or it just gave up;
    /// nothing was promised. This is the latest one here. Higher: the leader was
    /// deposed. Equal or lower: it is not written yet.
    OtherVote(Vote),
}

/// No vote now: a promise, a quarantine or a lease still runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("bound by a promise for another {remaining:?}")]
pub struct Refused {
    /// For how long.
    pub remaining: Duration,
}

/// For so many promises a node that may have lost a vote bears with a leader that it does
/// not heed. Then it answers as Raft has it, which deposes that one: it may be the only
/// one with the whole log, and lack this node's voice.
pub const PATIENCE_IN_DOUBT: u32 = 10;

/// The kernel slews a clock by a tenth at most (`adjtimex(2)`: a tick of 9,000
/// to 11,000 microseconds, and 500 ppm), so an eighth of a promise covers it.
const SLEW_SHARE: u32 = 8;

/// Permission to let openraft grant a vote; void once a promise rose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PromiseTicket(u64);

/// The promises of one node.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Promise {
    /// The latest, perhaps on its way to the disk.
    saved: Vote,
    /// What a restart would find.
    durable: Vote,
    /// The saved vote stands for one that may be lost. Until the next one is saved
    /// nobody is promised, and nobody is told of it: it would depose a leader.
    in_doubt: bool,
    longest: Duration,
    quarantine_until: Mono,
    promised_to: Vote,
    promised_until: Mono,
    /// Who gave up last, and until when its messages may still be on their way.
    late: (Vote, Mono),
    clock_is_well: bool,
    /// For how much longer it is bound than its own clock says.
    margin: Duration,
    /// Counts promises, so that a vote that raced one is noticed.
    raised: u64,
}

impl Promise {
    /// At process start, with the saved vote and the largest P ever promised:
    /// what an earlier run promised is unknown, so nothing is granted until it
    /// has run out.
    #[must_use]
    pub fn at_start(now: Mono, saved: Vote, longest: Duration) -> Self {
        Self {
            saved,
            durable: saved,
            in_doubt: false,
            longest,
            quarantine_until: now + longest,
            promised_to: Vote::default(),
            promised_until: Mono::ZERO,
            late: (Vote::default(), Mono::ZERO),
            clock_is_well: true,
            margin: Duration::ZERO,
            raised: 0,
        }
    }

    /// The saved vote stands for one that may be lost: nobody was voted for in its term.
    pub fn doubt(&mut self) {
        self.in_doubt = true;
    }

    /// The latest vote, saved or being saved.
    #[must_use]
    pub fn saved_vote(&self) -> Vote {
        self.saved
    }

    /// openraft is about to save `vote`. Called before it is written, so that
    /// no promise to an older leader can follow it.
    pub fn saving_vote(&mut self, vote: Vote) {
        self.saved = vote;
    }

    /// `vote` is on the disk. Called after that, so that nothing is promised
    /// which a restart would not find: it ends its quarantine early if its vote
    /// is its own leadership's ([`Self::own_term_abdicated`]).
    pub fn vote_is_durable(&mut self, vote: Vote) {
        self.durable = vote;
        self.in_doubt = false;
    }

    /// The largest P on disk is now `longest`.
    pub fn longest_stored(&mut self, longest: Duration) {
        self.longest = self.longest.max(longest);
    }

    /// A lease message, or entries, of the leader elected by `vote` arrived.
    pub fn renew(&mut self, now: Mono, vote: Vote, promise: Duration) -> PromiseReply {
        if self.in_doubt && vote.term <= self.saved.term {
            return PromiseReply::Unheeded;
        }
        let known = vote.same_candidacy(&self.saved) && vote.same_candidacy(&self.durable);
        if !vote.committed || !known {
            return PromiseReply::OtherVote(self.saved);
        }
        let (ended, until) = self.late;
        if now < until && vote.same_candidacy(&ended) {
            return PromiseReply::OtherVote(self.saved);
        }
        if promise > self.longest {
            return PromiseReply::StoreFirst;
        }
        self.promised_to = vote;
        self.promised_until = self.promised_until.max(now + promise);
        if self.clock_is_well {
            self.margin = Duration::ZERO;
        }
        self.raised += 1;
        PromiseReply::Promised
    }

    /// Whether this node promised to the leader elected by `vote`, and to none
    /// since.
    #[must_use]
    pub fn is_to(&self, vote: Vote) -> bool {
        self.promised_to.same_candidacy(&vote)
    }

    /// The leader elected by `vote` gave up its lease and said so: what was
    /// promised to it, and only that, is void. It was elected, so the lease of
    /// every leader before it is over, and whatever this node promised to one of
    /// them, in this process or an earlier one. What it sent before may come
    /// after: for the largest P nothing is promised to it.
    pub fn abdicated(&mut self, now: Mono, vote: Vote) {
        if self.is_to(vote) {
            self.late = (vote, now + self.longest);
            self.promised_until = Mono::ZERO;
            self.quarantine_until = Mono::ZERO;
        }
    }

    /// This node itself led `term` until it stopped, and no other promise can
    /// be outstanding: its own committed vote is the last that its disk took, it
    /// was written when this node was bound to nobody
    /// ([`crate::Leases::candidacy_waits`]), and only to a vote on the disk is
    /// anything promised. Ends the quarantine.
    pub fn own_term_abdicated(&mut self, me: NodeId, term: Term) {
        if self.durable == (Vote { term, node: me, committed: true }) {
            self.quarantine_until = Mono::ZERO;
        }
    }

    /// Whether this node's clock runs as leases assume. On one that is slewed a
    /// promise would end too early for whoever counts on it: it lasts longer
    /// until one is given on a true clock again.
    pub fn clock(&mut self, is_well: bool) {
        self.clock_is_well = is_well;
        if !is_well {
            self.margin = self.longest / SLEW_SHARE;
        }
    }

    /// When this node is free to vote and to campaign.
    #[must_use]
    pub fn until(&self) -> Mono {
        match self.promised_until.max(self.quarantine_until) {
            Mono::ZERO => Mono::ZERO,
            until => until + self.margin,
        }
    }

    /// Whether a vote may be granted or asked for now. `lease_end` is this
    /// node's own, if it leads.
    ///
    /// # Errors
    /// [`Refused`], with the time left.
    pub fn free(&self, now: Mono, lease_end: Mono) -> Result<PromiseTicket, Refused> {
        let until = self.until().max(lease_end);
        if now < until {
            return Err(Refused { remaining: until.since(now) });
        }
        Ok(PromiseTicket(self.raised))
    }

    /// Whether no promise rose since the ticket; otherwise a vote that openraft
    /// granted meanwhile must be dropped.
    #[must_use]
    pub fn still_free(&self, ticket: PromiseTicket) -> bool {
        self.raised == ticket.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const P: Duration = Duration::from_millis(200);
    const START: Mono = Mono(1_000_000_000);
    const LEADER: Vote = Vote { term: Term(3), node: NodeId(1), committed: true };

    fn promised() -> Promise {
        let mut promise = Promise::at_start(Mono::ZERO, LEADER, P);
        assert_eq!(promise.renew(START, LEADER, P), PromiseReply::Promised);
        promise
    }

    #[test]
    fn a_started_process_is_bound_by_what_it_may_have_promised() {
        let promise = Promise::at_start(START, LEADER, P);
        assert_eq!(promise.free(START, Mono::ZERO), Err(Refused { remaining: P }));
        assert!(promise.free(START + P, Mono::ZERO).is_ok());
    }

    #[test]
    fn inside_a_promise_a_vote_is_refused_with_the_time_left() {
        let promise = promised();
        let later = START + Duration::from_millis(150);
        let left = Duration::from_millis(50);
        assert_eq!(promise.free(later, Mono::ZERO), Err(Refused { remaining: left }));
        assert!(promise.free(START + P, Mono::ZERO).is_ok());
    }

    #[test]
    fn a_live_leader_is_bound_by_its_own_lease() {
        let promise = promised();
        let late = START + P;
        assert!(promise.free(late, late + Duration::from_millis(1)).is_err());
    }

    #[test]
    fn a_promise_that_rose_during_a_vote_voids_it() {
        let mut promise = promised();
        let ticket = promise.free(START + P, Mono::ZERO).expect("free");
        assert!(promise.still_free(ticket));
        assert_eq!(promise.renew(START + P, LEADER, P), PromiseReply::Promised);
        assert!(!promise.still_free(ticket));
    }

    #[test]
    fn nothing_is_promised_to_a_vote_that_is_not_saved() {
        let mut promise = promised();
        let next = Vote { term: Term(4), node: NodeId(2), committed: false };
        promise.saving_vote(next);
        assert_eq!(promise.renew(START + P, LEADER, P), PromiseReply::OtherVote(next));
        let elected = Vote { committed: true, ..next };
        assert_eq!(promise.renew(START + P, elected, P), PromiseReply::OtherVote(next));
        promise.vote_is_durable(next);
        assert_eq!(promise.renew(START + P, LEADER, P), PromiseReply::OtherVote(next));
        assert_eq!(promise.renew(START + P, elected, P), PromiseReply::Promised);
    }

    /// The process is killed before its disk took the vote of a later leader,
    /// and finds the vote of its own leadership, which it then gives up.
    #[test]
    fn a_restart_finds_every_vote_that_was_promised_to() {
        let own = Vote { node: NodeId(7), ..LEADER };
        let mut promise = Promise::at_start(Mono::ZERO, own, P);
        let next = Vote { term: Term(4), node: NodeId(2), committed: true };
        promise.saving_vote(next);
        assert_ne!(promise.renew(START, next, P), PromiseReply::Promised);
        promise.own_term_abdicated(NodeId(7), Term(3));
        assert!(promise.free(START, Mono::ZERO).is_ok(), "it promised nobody");
    }

    /// It may have voted in a later term, and not know.
    #[test]
    fn a_voter_in_doubt_of_its_last_vote_promises_nobody_whom_it_may_betray() {
        let stand_in = Vote { term: Term(4), node: NodeId(1), committed: false };
        let mut promise = Promise::at_start(Mono::ZERO, stand_in, P);
        promise.doubt();
        let early = Mono::ZERO + P / 2;
        for term in [3, 4] {
            let leader = Vote { term: Term(term), node: NodeId(2), committed: true };
            assert_eq!(promise.renew(early, leader, P), PromiseReply::Unheeded);
        }
        promise.own_term_abdicated(NodeId(1), Term(4));
        assert!(promise.free(early, Mono::ZERO).is_err(), "whom it promised it does not know");
        let later = Vote { term: Term(5), node: NodeId(2), committed: true };
        promise.saving_vote(later);
        promise.vote_is_durable(later);
        assert_eq!(promise.renew(early, later, P), PromiseReply::Promised);
        assert!(promise.free(early + P / 2, Mono::ZERO).is_err());
    }

    /// Entries and lease messages travel beside the word that it is over.
    #[test]
    fn what_a_leader_sent_before_it_gave_up_binds_nobody_after() {
        let mut promise = promised();
        promise.abdicated(START, LEADER);
        let late = START + Duration::from_millis(1);
        assert_eq!(promise.renew(late, LEADER, P), PromiseReply::OtherVote(LEADER));
        assert!(promise.free(late, Mono::ZERO).is_ok());
        // It started again, and nobody else was elected.
        assert_eq!(promise.renew(START + P, LEADER, P), PromiseReply::Promised);
    }

    /// Nodes are restarted one after the other, as in an upgrade: the second
    /// hands over to the first, which had promised nobody else.
    #[test]
    fn a_started_process_is_free_once_the_leader_it_follows_gave_up() {
        let mut promise = Promise::at_start(START, LEADER, P);
        promise.abdicated(START, LEADER);
        assert!(promise.free(START, Mono::ZERO).is_err(), "it has not been heard yet");
        assert_eq!(promise.renew(START, LEADER, P), PromiseReply::Promised);
        promise.abdicated(START, Vote { term: Term(2), ..LEADER });
        assert!(promise.free(START, Mono::ZERO).is_err(), "another gave up");
        promise.abdicated(START, LEADER);
        assert!(promise.free(START, Mono::ZERO).is_ok());
    }

    #[test]
    fn a_longer_promise_is_stored_before_it_is_given() {
        let mut promise = promised();
        assert_eq!(promise.renew(START, LEADER, P * 2), PromiseReply::StoreFirst);
        promise.longest_stored(P * 2);
        assert_eq!(promise.renew(START, LEADER, P * 2), PromiseReply::Promised);
    }

    /// chrony slews by 8.3 %: P of this clock is 185 ms of everybody else's.
    #[test]
    fn a_promise_on_a_slewed_clock_lasts_longer() {
        let mut promise = promised();
        promise.clock(false);
        assert!(promise.free(START + P, Mono::ZERO).is_err());
        assert!(promise.free(START + P.mul_f64(1.1005), Mono::ZERO).is_err());
        assert!(promise.free(START + P * 9 / 8, Mono::ZERO).is_ok());
        // What was given before the slew ended is longer after it, too.
        promise.clock(true);
        assert!(promise.free(START + P, Mono::ZERO).is_err());
        assert_eq!(promise.renew(START + P, LEADER, P), PromiseReply::Promised);
        assert!(promise.free(START + P * 2, Mono::ZERO).is_ok());
        promise.clock(false);
        promise.abdicated(START, LEADER);
        assert!(promise.free(START, Mono::ZERO).is_ok(), "nothing is promised");
    }

    #[test]
    fn an_abdication_frees_only_from_its_own_term() {
        let mut promise = promised();
        promise.abdicated(START, Vote { term: Term(2), ..LEADER });
        promise.abdicated(START, Vote { node: NodeId(9), ..LEADER });
        assert!(promise.free(START, Mono::ZERO).is_err());
        promise.abdicated(START, LEADER);
        assert!(promise.free(START, Mono::ZERO).is_ok());
    }

    #[test]
    fn an_abdication_does_not_end_the_quarantine_of_a_follower_that_never_heard_it() {
        let mut promise = Promise::at_start(START, LEADER, P);
        promise.abdicated(START, LEADER);
        promise.own_term_abdicated(NodeId(2), Term(3));
        assert!(promise.free(START, Mono::ZERO).is_err());
        promise.own_term_abdicated(NodeId(1), Term(3));
        assert!(promise.free(START, Mono::ZERO).is_ok());
    }
}
