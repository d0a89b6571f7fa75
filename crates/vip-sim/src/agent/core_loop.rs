//! openraft's core: one loop that takes up one thing after the other, and
//! stands still while a vote is being saved or the log is cut.
//!
//! ```text
//!  RPC ── ticket ──┐
//!  elect, propose ─┼──> tasks ──> Raft ──> effects ──> disk, network
//!  flushed writes ─┘                          │
//!   a vote, or a cut, on its way to the disk: nothing goes on before it is there
//! ```

use super::{Agent, Input, Message, Out, Task};
use crate::disk::{Write, Written};
use crate::mutant::Mutant;
use crate::raft::{After, Effect, Index, Payload, RaftMessage};
use std::collections::VecDeque;
use std::time::Duration;
use vip_core::{Mono, NodeId, PromiseTicket, Term};

/// A proposal of the leader's task, which waits for all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Proposal {
    Queued(u64),
    Appended(Term, Index),
}

#[derive(Debug, Default)]
pub(crate) struct CoreLoop {
    tasks: VecDeque<Task>,
    effects: VecDeque<Effect>,
    /// A write that it waits for is on its way to the disk.
    saving: bool,
    /// Of the vote request that is being handled.
    ticket: Option<PromiseTicket>,
    removed_since: Option<Mono>,
}

/// openraft's `removed_leader_step_down`, and that with its heartbeat.
const REMOVED_TRANSFERS: Duration = Duration::from_millis(150);
const REMOVED_RETIRES: Duration = Duration::from_millis(270);

impl Agent {
    /// Hands something to the core.
    pub(super) fn enqueue(&mut self, now: Mono, task: Task) {
        self.core.tasks.push_back(task);
        self.turn(now);
    }

    /// One heartbeat waits at most.
    pub(super) fn heartbeat_due(&mut self, now: Mono) {
        if !self.core.saving {
            self.enqueue(now, Task::Heartbeat);
        }
        self.step_down_if_removed(now);
    }

    /// openraft's own watcher: a leader that was removed transfers leadership,
    /// unasked, and stops some time later.
    fn step_down_if_removed(&mut self, now: Mono) {
        if !self.raft.is_removed_leader() {
            self.core.removed_since = None;
            return;
        }
        let since = *self.core.removed_since.get_or_insert(now);
        if now >= since + REMOVED_RETIRES {
            self.enqueue(now, Task::Retire);
        } else if now >= since + REMOVED_TRANSFERS
            && let Some(to) = self.raft.best_voter()
        {
            self.enqueue(now, Task::Transfer(to));
        }
    }

    /// Whoever wanted other voters does not want them any more.
    pub(crate) fn forget_voters(&mut self) {
        self.core.tasks.retain(|task| !matches!(task, Task::Voters(_)));
        self.raft.forget_change();
    }

    /// A write is on the disk.
    pub(super) fn durable(&mut self, now: Mono, written: Written, after: After) {
        if !written.is_waited_for() {
            return self.enqueue(now, Task::Flushed(after));
        }
        self.core.saving = false;
        if let Written::Vote(vote) = written {
            if self.is(Mutant::OlderPromisedMeanwhile) {
                self.leases.saving_vote(now, vote);
            }
            self.leases.vote_is_durable(now, vote);
            self.lost_up_to = None;
        }
        for effect in self.raft.durable(after).into_iter().rev() {
            self.core.effects.push_front(effect);
        }
        self.turn(now);
    }

    /// Goes on for as long as nothing has to be waited for.
    fn turn(&mut self, now: Mono) {
        while !self.core.saving {
            if let Some(effect) = self.core.effects.pop_front() {
                self.perform(now, effect);
            } else if let Some(task) = self.core.tasks.pop_front() {
                let effects = self.take_up(now, task);
                self.core.effects.extend(effects);
            } else {
                // What others get to see of Raft.
                self.shown = self.raft.view();
                break;
            }
        }
        self.soon_observe();
        self.take_commits();
    }

    fn take_up(&mut self, now: Mono, task: Task) -> Vec<Effect> {
        self.core.ticket = None;
        match task {
            Task::Message { from, message, ticket } => {
                self.core.ticket = ticket;
                self.raft.receive(from, message)
            }
            Task::Flushed(after) => self.raft.durable(after),
            Task::Elect { pre } => self.raft.elect(pre),
            Task::Propose { number, command } => {
                let (index, effects) = self.raft.propose(Payload::Command(command));
                let term = self.raft.vote.term;
                if let Some(number) = number {
                    self.appended(number, index.map(|index| (term, index)));
                }
                effects
            }
            Task::Voters(voters) => self.raft.change_voters(voters),
            Task::Transfer(to) => {
                self.transfer(now, to);
                vec![]
            }
            Task::TransferredBy(vote) if self.raft.vote == vote => self.raft.elect(false),
            Task::TransferredBy(_) => vec![],
            Task::Retire => {
                self.raft.retire();
                vec![]
            }
            Task::Heartbeat => self.raft.heartbeat(),
        }
    }

    fn appended(&mut self, number: u64, at: Option<(Term, Index)>) {
        for proposal in &mut self.batch {
            if *proposal == Proposal::Queued(number) {
                let (term, index) = at.unwrap_or_default();
                *proposal = Proposal::Appended(term, index);
            }
        }
    }

    /// openraft hands over whatever it leads now.
    fn transfer(&mut self, now: Mono, to: NodeId) {
        if !self.raft.transfer() {
            return;
        }
        let vote = self.raft.vote;
        let lax = self.is(Mutant::TransferUnbound) || self.is(Mutant::AbdicatedWhileOpen);
        if self.leases.may_transfer(now, vote) || lax {
            self.broadcast(&Message::HandOver { vote, to });
        }
    }

    fn perform(&mut self, now: Mono, effect: Effect) {
        match effect {
            Effect::Saving(vote) => {
                if self.is(Mutant::OlderPromisedMeanwhile) {
                    let free = |ticket: &PromiseTicket| !self.leases.still_may_vote(now, *ticket);
                    self.core.ticket = self.core.ticket.filter(free);
                } else {
                    self.leases.saving_vote(now, vote);
                }
                if self.is(Mutant::PromisedBeforeDurable) {
                    self.leases.vote_is_durable(now, vote);
                }
            }
            Effect::Write(write, after) => {
                self.core.saving = write.sort().is_waited_for();
                self.write(now, write, after);
            }
            Effect::Installed(snapshot) => {
                self.state = snapshot.state.clone();
                self.applied = snapshot.index;
                self.keep_snapshot(snapshot);
                self.soon_apply();
            }
            Effect::Send(to, message) => {
                if self.may_send(now, &message) {
                    self.out.push(Out::Send(to, Message::Raft(message)));
                }
            }
        }
    }

    /// What the log store does with a write of its core's.
    pub(super) fn write(&mut self, now: Mono, write: Write, after: After) {
        let wait = match write {
            Write::Vote(_) if self.is(Mutant::BoundCandidacy) => Duration::ZERO,
            Write::Vote(vote) => self.leases.candidacy_waits(now, vote),
            Write::Truncate(_) | Write::Log { .. } => Duration::ZERO,
        };
        self.out.push(if wait.is_zero() {
            Out::Write(write, after)
        } else {
            Out::After(wait, Input::Write(write, after))
        });
    }

    /// What the lease rules say at the moment of sending.
    fn may_send(&mut self, now: Mono, message: &RaftMessage) -> bool {
        match message {
            RaftMessage::RequestVote { .. } => self.leases.may_campaign(now).is_ok(),
            RaftMessage::VoteReply { granted: true, pre: false, .. } => {
                let ticket = self.core.ticket.filter(|_| !self.is(Mutant::RacedVoteKept));
                ticket.is_none_or(|ticket| self.leases.still_may_vote(now, ticket))
            }
            RaftMessage::VoteReply { granted: true, pre: true, vote, .. } => {
                self.leases.promised_vote(now, vote.node);
                true
            }
            RaftMessage::Append { .. } | RaftMessage::Install { .. } => {
                self.is(Mutant::RenewAfterLeaseEnd) || self.leases.may_renew(now)
            }
            RaftMessage::VoteReply { .. } | RaftMessage::AppendReply { .. } => true,
        }
    }

    fn soon_observe(&mut self) {
        if !self.observing && self.shown != self.observed {
            self.observing = true;
            self.out.push(Out::Soon(Input::Observe));
        }
    }
}
