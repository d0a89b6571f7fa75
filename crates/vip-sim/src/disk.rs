//! What survives a crash. Votes have a file of their own. In it, as in the log,
//! writes are durable one after the other, some time after they were issued; a crash
//! loses any suffix of those under way, of either.

use crate::entry::{Entry, Snapshot};
use std::collections::VecDeque;
use std::sync::Arc;
use vip_core::{Term, Vote};

/// One write of Raft's.
#[derive(Clone, Debug)]
pub(crate) enum Write {
    Vote(Vote),
    /// The log ends there from now on.
    Truncate(usize),
    /// Replaces the log from `from` on.
    Log {
        from: usize,
        entries: Vec<Arc<Entry>>,
    },
}

/// What sort of write became durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Written {
    Vote(Vote),
    Truncation,
    Entries,
}

impl Write {
    pub(crate) fn sort(&self) -> Written {
        match self {
            Self::Vote(vote) => Written::Vote(*vote),
            Self::Truncate(_) => Written::Truncation,
            Self::Log { .. } => Written::Entries,
        }
    }
}

impl Written {
    /// Whether openraft's core stands still until it is on the disk.
    pub(crate) fn is_waited_for(self) -> bool {
        self != Self::Entries
    }
}

#[derive(Debug, Default)]
pub(crate) struct Disk {
    pub(crate) vote: Vote,
    /// What the other slot of the votes has.
    before: Vote,
    /// The slot of a later vote is bad: in which term that may have been, at most.
    pub(crate) lost_up_to: Option<Term>,
    pub(crate) log: Vec<Arc<Entry>>,
    pub(crate) snapshot: Option<Snapshot>,
    votes_under_way: VecDeque<Vote>,
    under_way: VecDeque<Write>,
}

impl Disk {
    pub(crate) fn issue(&mut self, write: Write) {
        match write {
            Write::Vote(vote) => self.votes_under_way.push_back(vote),
            Write::Truncate(_) | Write::Log { .. } => self.under_way.push_back(write),
        }
    }

    /// A file of its own, in place at once: openraft purges the log only behind
    /// one that is.
    pub(crate) fn keep(&mut self, snapshot: Snapshot) {
        self.snapshot = Some(snapshot);
    }

    /// The oldest write of that sort became durable.
    pub(crate) fn complete(&mut self, written: Written) {
        match written {
            Written::Vote(_) => {
                if let Some(vote) = self.votes_under_way.pop_front() {
                    self.voted(vote);
                }
            }
            Written::Truncation | Written::Entries => self.complete_log(),
        }
    }

    fn voted(&mut self, vote: Vote) {
        (self.before, self.vote, self.lost_up_to) = (self.vote, vote, None);
    }

    /// The slot that was written last cannot be read any more. A record before it said
    /// how far the vote in it may have gone.
    pub(crate) fn damage_vote(&mut self) {
        if self.lost_up_to.is_none() {
            self.lost_up_to = Some(self.before.term.next().max(self.vote.term));
            self.vote = self.before;
        }
    }

    fn complete_log(&mut self) {
        match self.under_way.pop_front() {
            Some(Write::Truncate(keep)) => self.log.truncate(keep),
            Some(Write::Log { from, entries }) => {
                self.log.truncate(from);
                self.log.extend(entries);
            }
            Some(Write::Vote(_)) | None => {}
        }
    }

    /// The process or the host is gone; so is any number of the latest writes.
    pub(crate) fn crash(&mut self, rng: &mut fastrand::Rng) {
        let durable = rng.usize(0..=self.votes_under_way.len());
        for vote in self.votes_under_way.drain(..).take(durable).collect::<Vec<_>>() {
            self.voted(vote);
        }
        for _ in 0..rng.usize(0..=self.under_way.len()) {
            self.complete_log();
        }
        self.votes_under_way.clear();
        self.under_way.clear();
    }
}
