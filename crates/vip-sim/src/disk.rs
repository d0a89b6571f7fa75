//! What survives a crash. Writes are durable one after the other, some time
//! after they were issued; a crash loses any suffix of those under way.

use crate::raft::{Entry, Snapshot};
use std::collections::VecDeque;
use std::sync::Arc;
use vip_core::Vote;

/// One write of Raft's.
#[derive(Clone, Debug)]
pub(crate) enum Write {
    Vote(Vote),
    /// Replaces the log from `from` on.
    Log {
        from: usize,
        entries: Vec<Arc<Entry>>,
    },
}

#[derive(Debug, Default)]
pub(crate) struct Disk {
    pub(crate) vote: Vote,
    pub(crate) log: Vec<Arc<Entry>>,
    pub(crate) snapshot: Option<Snapshot>,
    under_way: VecDeque<Write>,
}

impl Disk {
    pub(crate) fn issue(&mut self, write: Write) {
        self.under_way.push_back(write);
    }

    /// A file of its own, in place at once: openraft purges the log only behind
    /// one that is.
    pub(crate) fn keep(&mut self, snapshot: Snapshot) {
        self.snapshot = Some(snapshot);
    }

    /// The oldest write became durable.
    pub(crate) fn complete(&mut self) {
        match self.under_way.pop_front() {
            Some(Write::Vote(vote)) => self.vote = vote,
            Some(Write::Log { from, entries }) => {
                self.log.truncate(from);
                self.log.extend(entries);
            }
            None => {}
        }
    }

    /// The process or the host is gone; so is any number of the latest writes.
    pub(crate) fn crash(&mut self, rng: &mut fastrand::Rng) {
        for _ in 0..rng.usize(0..=self.under_way.len()) {
            self.complete();
        }
        self.under_way.clear();
    }
}
