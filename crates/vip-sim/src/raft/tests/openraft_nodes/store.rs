//! A log in memory that keeps vip-raft's promises: the core waits until a vote
//! or a truncation is durable, and is told later that entries are. A killed
//! node finds what was durable.

use super::{Entry, LogId, RealVote, Snapshot, SnapshotMeta, StoredMembership, Types, log_id};
use futures_util::{Stream, StreamExt};
use openraft::entry::RaftEntry;
use openraft::storage::{EntryResponder, IOFlushed, LogState, RaftLogStorage, RaftStateMachine};
use openraft::{
    EmptyNode, EntryPayload, Membership, OptionalSend, RaftLogReader, RaftSnapshotBuilder,
};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::io;
use std::ops::RangeBounds;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::Notify;
use vip_core::{NodeId, Term};

#[derive(Clone, Default)]
struct Content {
    vote: Option<RealVote>,
    log: BTreeMap<u64, Entry>,
}

#[derive(Default)]
struct Files {
    /// As the process sees it.
    written: Content,
    /// As the next one would.
    durable: Content,
    flushed: Vec<IOFlushed<Types>>,
    stalled: bool,
    dead: bool,
}

#[derive(Clone, Default)]
pub(super) struct Store {
    files: Arc<Mutex<Files>>,
    changed: Arc<Notify>,
}

impl Store {
    /// With the first membership, as entry 0.
    pub(super) fn new(all: &BTreeSet<NodeId>, voters: &BTreeSet<NodeId>) -> Self {
        let voters: BTreeSet<u64> = voters.iter().map(|id| id.0).collect();
        let nodes: BTreeMap<u64, EmptyNode> =
            all.iter().map(|id| (id.0, EmptyNode::default())).collect();
        let membership = Membership::new(vec![voters], nodes).expect("valid");
        let first = Entry::new(log_id(0, 0), EntryPayload::Membership(membership));
        let store = Self::default();
        store.with(|files| {
            files.written.log.insert(0, first);
            files.durable = files.written.clone();
        });
        store
    }

    fn with<R>(&self, f: impl FnOnce(&mut Files) -> R) -> R {
        f(&mut self.files.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Terms of the entries behind the first membership.
    pub(super) fn terms(&self) -> Vec<Term> {
        let term = |entry: &Entry| Term(entry.log_id().leader_id.term);
        self.with(|files| files.written.log.values().skip(1).map(term).collect())
    }

    pub(super) fn stall(&self) {
        self.with(|files| files.stalled = true);
    }

    pub(super) fn release(&self) {
        let flushed = self.with(|files| {
            files.stalled = false;
            files.durable = files.written.clone();
            std::mem::take(&mut files.flushed)
        });
        for callback in flushed {
            callback.io_completed(Ok(()));
        }
        self.changed.notify_waiters();
    }

    /// Ends what waits for it. Returns what the next process finds.
    pub(super) fn kill(&self) -> Self {
        let found = self.with(|files| {
            files.dead = true;
            files.flushed.clear();
            files.durable.clone()
        });
        self.changed.notify_waiters();
        let next = Self::default();
        next.with(|files| (files.written, files.durable) = (found.clone(), found));
        next
    }

    /// Waits until everything before is durable.
    async fn synced(&self) -> io::Result<()> {
        loop {
            let changed = self.changed.notified();
            let done = self.with(|files| {
                if files.dead {
                    return Some(Err(io::Error::other("killed")));
                }
                (!files.stalled).then(|| {
                    files.durable = files.written.clone();
                    Ok(())
                })
            });
            match done {
                Some(result) => return result,
                None => changed.await,
            }
        }
    }
}

impl RaftLogReader<Types> for Store {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, io::Error> {
        Ok(self.with(|files| files.written.log.range(range).map(|(_, e)| e.clone()).collect()))
    }

    async fn read_vote(&mut self) -> Result<Option<RealVote>, io::Error> {
        Ok(self.with(|files| files.written.vote))
    }
}

impl RaftLogStorage<Types> for Store {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<Types>, io::Error> {
        let last = self.with(|files| files.written.log.values().next_back().map(|e| e.log_id()));
        Ok(LogState { last_purged_log_id: None, last_log_id: last })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &RealVote) -> Result<(), io::Error> {
        self.with(|files| files.written.vote = Some(*vote));
        self.synced().await
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<Types>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<Entry> = entries.into_iter().collect();
        let callback = self.with(|files| {
            files.written.log.extend(entries.into_iter().map(|e| (e.log_id().index, e)));
            if files.stalled {
                files.flushed.push(callback);
                return None;
            }
            files.durable = files.written.clone();
            Some(callback)
        });
        if let Some(callback) = callback {
            callback.io_completed(Ok(()));
        }
        Ok(())
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> Result<(), io::Error> {
        let from = last.map_or(0, |id| id.index + 1);
        self.with(|files| drop(files.written.log.split_off(&from)));
        self.synced().await
    }

    async fn purge(&mut self, _: LogId) -> Result<(), io::Error> {
        Ok(())
    }
}

/// It applies nothing: what is committed is seen in the log.
#[derive(Clone, Default)]
pub(super) struct Machine {
    last: Option<LogId>,
    membership: StoredMembership,
}

impl RaftSnapshotBuilder<Types> for Machine {
    type SnapshotData = Vec<u8>;

    async fn build_snapshot(&mut self) -> Result<Snapshot, io::Error> {
        Err(io::Error::other("no snapshots here"))
    }
}

impl RaftStateMachine<Types> for Machine {
    type SnapshotData = Vec<u8>;
    type SnapshotBuilder = Self;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        Ok((self.last, self.membership.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> Result<(), io::Error>
    where
        S: Stream<Item = Result<EntryResponder<Types>, io::Error>> + Unpin + OptionalSend,
    {
        while let Some(item) = entries.next().await {
            let (entry, responder) = item?;
            let id = entry.log_id();
            self.last = Some(id);
            if let EntryPayload::Membership(membership) = entry.payload {
                self.membership = StoredMembership::new(Some(id), membership);
            }
            if let Some(responder) = responder {
                responder.send(0);
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Self {
        self.clone()
    }

    async fn install_snapshot(&mut self, _: &SnapshotMeta, _: Vec<u8>) -> Result<(), io::Error> {
        Err(io::Error::other("no snapshots here"))
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, io::Error> {
        Ok(None)
    }
}
