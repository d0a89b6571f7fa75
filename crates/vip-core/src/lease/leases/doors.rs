//! Every way into [`Leases`] that changes something, as one: so that what happened
//! can be kept, and happen again.

use super::{GrantAnswer, LeaseAction, LeaseEvent, Leases, Wanted};
use crate::{Mono, NodeId, PromiseReply, PromiseTicket, Refused, Report, ReportId, Vote};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// A disk that keeps a write waiting for longer than this many promises is not
/// well.
const DISK_PATIENCE_PROMISES: u32 = 5;

/// What comes in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LeaseInput {
    /// On the lease thread.
    Event(LeaseEvent),
    /// See [`Leases::renewed_by`].
    Renewed {
        /// The leader's.
        vote: Vote,
        /// P.
        promise: Duration,
        /// What it has of this node.
        known: ReportId,
    },
    /// See [`Leases::heard_of`].
    Heard {
        /// The leader's.
        vote: Vote,
        /// P.
        promise: Duration,
    },
    /// See [`Leases::abdicated_by`].
    Abdicated(Vote),
    /// See [`Leases::handed_over_by`].
    HandedOver(Vote),
    /// See [`Leases::saving_vote`].
    SavingVote(Vote),
    /// See [`Leases::candidacy_waits`].
    Candidacy(Vote),
    /// See [`Leases::vote_is_durable`].
    DurableVote(Vote),
    /// See [`Leases::promised_vote`].
    PromisedVote(NodeId),
    /// See [`Leases::may_vote`].
    VoteAsked,
    /// See [`Leases::peer_bound`].
    PeerBound(Duration),
    /// See [`Leases::may_renew`].
    RenewalDue,
    /// See [`Leases::close_lease`].
    Close(NodeId),
    /// See [`Leases::may_transfer`].
    Transfer(Vote),
    /// See [`Leases::reported_by`].
    Report(NodeId, Box<Report>),
    /// See [`Leases::granted_to`].
    Request(NodeId, Wanted),
    /// See [`Leases::stop_holding`].
    Stop,
    /// See [`Leases::disk`].
    Disk(bool),
    /// See [`Leases::clock`].
    Clock(bool),
}

impl LeaseInput {
    /// Whether what it changes is said to have changed, if it is anything that a
    /// leader could find work in: those that come many times a second and mostly
    /// change nothing.
    fn announces_itself(&self) -> bool {
        use LeaseEvent as E;
        matches!(
            self,
            Self::Event(E::Tick | E::Raft(_) | E::GuardAlive | E::Acknowledged(_))
                | Self::Request(_, Wanted::Cover(_))
                | Self::RenewalDue
        )
    }
}

/// What goes out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LeaseOutput {
    /// Nothing to say.
    Done,
    /// To be done, in order.
    Actions(Vec<LeaseAction>),
    /// To a lease message.
    Promise(PromiseReply),
    /// Whether it may vote.
    Vote(Result<PromiseTicket, Refused>),
    /// For how long.
    Wait(Duration),
    /// Yes or no.
    May(bool),
    /// To a request, and when more can be said.
    Answer(GrantAnswer, Option<Mono>),
}

impl Leases {
    /// The one way in.
    pub(super) fn enter(&mut self, now: Mono, input: LeaseInput) -> LeaseOutput {
        let Some(mut recorder) = self.recorder.take() else { return self.react(now, input) };
        if matches!(input, LeaseInput::Event(_)) {
            recorder.begin(now, self);
        }
        recorder.note(now, input.clone());
        // Kept here: a panic in the middle of it must not take it along.
        self.recorder = Some(recorder);
        let output = self.react(now, input);
        if let Some(recorder) = &mut self.recorder {
            recorder.decided(output.clone());
        }
        output
    }

    fn react(&mut self, now: Mono, input: LeaseInput) -> LeaseOutput {
        let changed_before = std::mem::take(&mut self.changed);
        let announces_itself = input.announces_itself();
        let output = self.take_in(now, input);
        if self.changed || !announces_itself {
            self.idle_as = None;
        }
        self.changed |= changed_before;
        output
    }

    fn take_in(&mut self, now: Mono, input: LeaseInput) -> LeaseOutput {
        use LeaseInput as In;
        use LeaseOutput as Out;
        match input {
            In::Event(event) => return Out::Actions(self.on_event(now, event)),
            In::Renewed { vote, promise, known } => {
                return Out::Promise(self.on_renewal(now, vote, promise, known));
            }
            In::Heard { vote, promise } => {
                return Out::Promise(self.on_leader_heard(now, vote, promise));
            }
            In::Candidacy(vote) => return Out::Wait(self.on_candidacy(now, vote)),
            In::VoteAsked => return Out::Vote(self.on_vote_asked(now)),
            In::RenewalDue => return Out::May(self.on_renewal_due(now)),
            In::Close(successor) => return Out::May(self.on_close(now, successor)),
            In::Transfer(vote) => return Out::May(self.on_transfer(now, vote)),
            In::Request(node, wanted) => {
                let (answer, free_at) = self.on_request(now, node, &wanted);
                return Out::Answer(answer, free_at);
            }
            In::Report(node, report) => return Out::May(self.on_report(node, *report)),
            In::Abdicated(vote) => self.on_abdication(now, vote),
            In::HandedOver(vote) => self.on_hand_over(now, vote),
            In::SavingVote(vote) => self.on_saving_vote(now, vote),
            In::DurableVote(vote) => self.on_durable_vote(vote),
            In::PromisedVote(candidate) => self.on_promised_vote(now, candidate),
            In::PeerBound(remaining) => self.on_peer_bound(now, remaining),
            In::Stop => self.on_stop(),
            In::Disk(is_well) => self.on_disk(is_well),
            In::Clock(is_well) => self.on_clock(is_well),
        }
        Out::Done
    }

    /// Takes note of an event and returns everything that is due now, in order.
    pub fn step(&mut self, now: Mono, event: LeaseEvent) -> Vec<LeaseAction> {
        match self.enter(now, LeaseInput::Event(event)) {
            LeaseOutput::Actions(actions) => actions,
            _ => vec![],
        }
    }

    /// A lease message of the leader elected by `vote` arrived. It has this report
    /// of this node.
    pub fn renewed_by(
        &mut self,
        now: Mono,
        vote: Vote,
        promise: Duration,
        known: ReportId,
    ) -> PromiseReply {
        self.promised(now, LeaseInput::Renewed { vote, promise, known })
    }

    /// A lease message, or entries, of the leader elected by `vote` arrived.
    pub fn heard_of(&mut self, now: Mono, vote: Vote, promise: Duration) -> PromiseReply {
        self.promised(now, LeaseInput::Heard { vote, promise })
    }

    fn promised(&mut self, now: Mono, input: LeaseInput) -> PromiseReply {
        match self.enter(now, input) {
            LeaseOutput::Promise(reply) => reply,
            _ => PromiseReply::StoreFirst,
        }
    }

    /// The leader of this vote says that it is over. Counts only if this node
    /// promised to it last.
    pub fn abdicated_by(&mut self, now: Mono, vote: Vote) {
        self.enter(now, LeaseInput::Abdicated(vote));
    }

    /// The leader of this vote, to which this node promised last, hands over to
    /// another, who campaigns now.
    pub fn handed_over_by(&mut self, now: Mono, vote: Vote) {
        self.enter(now, LeaseInput::HandedOver(vote));
    }

    /// openraft is about to save `vote`.
    pub fn saving_vote(&mut self, now: Mono, vote: Vote) {
        self.enter(now, LeaseInput::SavingVote(vote));
    }

    /// How long the write of `vote` has to wait.
    pub fn candidacy_waits(&mut self, now: Mono, vote: Vote) -> Duration {
        match self.enter(now, LeaseInput::Candidacy(vote)) {
            LeaseOutput::Wait(wait) => wait,
            _ => Duration::ZERO,
        }
    }

    /// The disk has `vote`: whoever it elects may be promised.
    pub fn vote_is_durable(&mut self, now: Mono, vote: Vote) {
        self.enter(now, LeaseInput::DurableVote(vote));
    }

    /// Another candidate heard that it would get this node's vote.
    pub fn promised_vote(&mut self, now: Mono, candidate: NodeId) {
        self.enter(now, LeaseInput::PromisedVote(candidate));
    }

    /// Whether this node may ask for votes, and so give itself one.
    ///
    /// # Errors
    /// [`Refused`]: bound by a promise, or by a lease that it relied on.
    pub fn may_campaign(&mut self, now: Mono) -> Result<(), Refused> {
        self.may_vote(now).map(|_| ())
    }

    /// Whether this node may grant a vote.
    ///
    /// # Errors
    /// [`Refused`]: bound by a promise, or by a lease that it relied on.
    pub fn may_vote(&mut self, now: Mono) -> Result<PromiseTicket, Refused> {
        match self.enter(now, LeaseInput::VoteAsked) {
            LeaseOutput::Vote(vote) => vote,
            _ => Err(Refused { remaining: self.scene.timing.promise }),
        }
    }

    /// Another voter is bound for that long.
    pub fn peer_bound(&mut self, now: Mono, remaining: Duration) {
        self.enter(now, LeaseInput::PeerBound(remaining));
    }

    /// Whether this node, if it leads, may send what renews promises.
    pub fn may_renew(&mut self, now: Mono) -> bool {
        self.enter(now, LeaseInput::RenewalDue) == LeaseOutput::May(true)
    }

    /// Ends the lease of this leadership for good, in favour of `successor`, if
    /// nothing is held by it any more. Returns whether it was ended: leadership by
    /// exactly this vote may be transferred then ([`Self::may_transfer`]).
    pub fn close_lease(&mut self, now: Mono, successor: NodeId) -> bool {
        self.enter(now, LeaseInput::Close(successor)) == LeaseOutput::May(true)
    }

    /// Whether the voters may be told that leadership by `vote` is handed over.
    pub fn may_transfer(&mut self, now: Mono, vote: Vote) -> bool {
        self.enter(now, LeaseInput::Transfer(vote)) == LeaseOutput::May(true)
    }

    /// Another node says of itself. Returns whether there is a leader here to hear
    /// it.
    pub fn reported_by(&mut self, now: Mono, node: NodeId, report: Report) -> bool {
        self.enter(now, LeaseInput::Report(node, Box::new(report))) == LeaseOutput::May(true)
    }

    /// Decides on another node's requests. Returns the answer, and when the
    /// earliest undecided one is due if nothing else can be said now.
    pub fn granted_to(
        &mut self,
        now: Mono,
        node: NodeId,
        wanted: &Wanted,
    ) -> (GrantAnswer, Option<Mono>) {
        match self.enter(now, LeaseInput::Request(node, wanted.clone())) {
            LeaseOutput::Answer(answer, free_at) => (answer, free_at),
            _ => Default::default(),
        }
    }

    /// From now on this node asks to be relieved of its VIPs.
    pub fn stop_holding(&mut self, now: Mono) {
        self.enter(now, LeaseInput::Stop);
    }

    /// How the disk does: for how long its oldest write has been waiting, and
    /// whether it failed. One that is not well costs the node its leadership and
    /// its VIPs.
    pub fn disk(&mut self, now: Mono, oldest_wait: Duration, failed: bool) {
        let patience = self.scene.timing.promise * DISK_PATIENCE_PROMISES;
        let is_well = !failed && oldest_wait < patience;
        if is_well != self.scene.disk_is_well {
            self.enter(now, LeaseInput::Disk(is_well));
        }
    }

    /// Whether its clock runs as leases assume. One that does not makes lease,
    /// grant and promise mean another time than to others: the lease lapses,
    /// nothing is asked for, and promises last longer.
    pub fn clock(&mut self, now: Mono, is_well: bool) {
        if is_well != self.scene.clock_is_well {
            self.enter(now, LeaseInput::Clock(is_well));
        }
    }
}
