//! The replicated state in memory, its snapshots on disk.

use crate::convert::command;
use crate::frame::RecordError;
use crate::log_store::StoreError;
use crate::snapshot::{self, Snapshot, SnapshotData};
use crate::types::{LogId, Reply, SnapshotMeta, StoredMembership, TypeConfig, term_of};
use futures_util::{Stream, StreamExt};
use openraft::entry::RaftEntry;
use openraft::storage::{EntryResponder, RaftStateMachine};
use openraft::{EntryPayload, OptionalSend, RaftSnapshotBuilder};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::watch;
use vip_core::{Outcome, State};

/// The file in the directory of Raft's data.
pub(crate) const SNAPSHOT: &str = "snapshot";

/// The state at a point of the log, as everybody else sees it.
#[derive(Clone, Debug, Default)]
pub struct Applied {
    pub state: Arc<State>,
    /// Index of the last applied entry.
    pub index: u64,
}

/// Up to where the snapshot on the disk goes. openraft builds one while another
/// is installed; the later one stays.
#[derive(Clone, Default)]
struct Stored(Arc<Mutex<Option<LogId>>>);

impl Stored {
    fn store(&self, data: SnapshotData, meta: &SnapshotMeta, path: &Path) -> io::Result<()> {
        let mut stored = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if *stored > meta.last_log_id {
            return Ok(());
        }
        data.store(meta, path)?;
        *stored = meta.last_log_id;
        Ok(())
    }
}

/// openraft's state machine.
pub struct StateMachine {
    path: PathBuf,
    stored: Stored,
    last: Option<LogId>,
    membership: StoredMembership,
    state: Arc<State>,
    applied: watch::Sender<Applied>,
    for_leases: watch::Sender<Arc<State>>,
}

/// How others see the state.
#[derive(Clone)]
pub struct Views {
    /// After each batch of entries.
    pub applied: watch::Receiver<Applied>,
    /// After a change of what leases depend on; all else in it may be old.
    pub for_leases: watch::Receiver<Arc<State>>,
}

impl StateMachine {
    /// From the snapshot in `dir`, or empty.
    ///
    /// # Errors
    /// A snapshot is there that is damaged, or of a later version.
    pub fn open(dir: &Path) -> Result<(Self, Views), StoreError> {
        Self::read(dir).map_err(|e| StoreError::of(dir, e))
    }

    fn read(dir: &Path) -> Result<(Self, Views), RecordError> {
        std::fs::create_dir_all(dir)?;
        let (applied, receiver) = watch::channel(Applied::default());
        let (for_leases, leases) = watch::channel(Arc::<State>::default());
        let path = dir.join(SNAPSHOT);
        snapshot::clear(dir)?;
        let mut machine = Self {
            path,
            stored: Stored::default(),
            last: None,
            membership: StoredMembership::default(),
            state: Arc::default(),
            applied,
            for_leases,
        };
        if let Some((meta, mut data)) = snapshot::load(&machine.path)? {
            machine.stored = Stored(Arc::new(Mutex::new(meta.last_log_id)));
            machine.install(&meta, data.parse()?);
        }
        Ok((machine, Views { applied: receiver, for_leases: leases }))
    }

    fn install(&mut self, meta: &SnapshotMeta, state: Arc<State>) {
        self.last = meta.last_log_id;
        self.membership = meta.last_membership.clone();
        self.state = state;
        self.publish();
    }

    fn publish(&self) {
        let index = self.last.map_or(0, |id| id.index);
        self.applied.send_replace(Applied { state: self.state.clone(), index });
        self.for_leases.send_if_modified(|shown| {
            let differs = !self.state.same_for_leases(shown);
            if differs {
                shown.clone_from(&self.state);
            }
            differs
        });
    }
}

/// The snapshot that was just stored.
fn there(path: &Path) -> io::Result<Snapshot> {
    let there = snapshot::load(path)?;
    let (meta, snapshot) = there.ok_or_else(|| io::Error::other("the snapshot is gone"))?;
    Ok(Snapshot { meta, snapshot })
}

/// Builds a snapshot from a frozen copy of the state.
pub struct Builder {
    path: PathBuf,
    stored: Stored,
    meta: SnapshotMeta,
    state: Arc<State>,
}

impl RaftSnapshotBuilder<TypeConfig> for Builder {
    type SnapshotData = SnapshotData;

    async fn build_snapshot(&mut self) -> Result<Snapshot, io::Error> {
        let (path, meta, state) = (self.path.clone(), self.meta.clone(), self.state.clone());
        let stored = self.stored.clone();
        let built = tokio::task::spawn_blocking(move || {
            let data = SnapshotData::of(state, snapshot::directory(&path))?;
            stored.store(data, &meta, &path)?;
            there(&path)
        });
        built.await.map_err(io::Error::other)?
    }
}

impl RaftStateMachine<TypeConfig> for StateMachine {
    type SnapshotData = SnapshotData;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        Ok((self.last, self.membership.clone()))
    }

    async fn apply<Strm>(&mut self, mut entries: Strm) -> Result<(), io::Error>
    where
        Strm: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + OptionalSend,
    {
        let mut answers = vec![];
        while let Some(item) = entries.next().await {
            let (entry, responder) = item?;
            let id = entry.log_id();
            // Copied once per batch, as the watchers hold the one before.
            let state = Arc::make_mut(&mut self.state);
            state.enter(term_of(&id));
            let outcome = match command(&entry) {
                Some(command) => state.apply(id.index, command),
                None => Outcome::Blank,
            };
            if let EntryPayload::Membership(membership) = entry.payload {
                self.membership = StoredMembership::new(Some(id), membership);
            }
            self.last = Some(id);
            answers.extend(responder.map(|responder| (responder, outcome)));
        }
        // Seen by the reconcilers before the proposer hears of it.
        self.publish();
        for (responder, outcome) in answers {
            responder.send(Reply(outcome));
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        let meta =
            SnapshotMeta { last_log_id: self.last, last_membership: self.membership.clone() };
        Builder {
            path: self.path.clone(),
            stored: self.stored.clone(),
            meta,
            state: self.state.clone(),
        }
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        mut snapshot: SnapshotData,
    ) -> Result<(), io::Error> {
        let (path, copy, stored) = (self.path.clone(), meta.clone(), self.stored.clone());
        let written = tokio::task::spawn_blocking(move || {
            let state = snapshot.parse()?;
            stored.store(snapshot, &copy, &path)?;
            Ok::<_, io::Error>(state)
        });
        let state = written.await.map_err(io::Error::other)??;
        self.install(meta, state);
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, io::Error> {
        let path = self.path.clone();
        let read = tokio::task::spawn_blocking(move || snapshot::load(&path));
        let read = read.await.map_err(io::Error::other)??;
        Ok(read.map(|(meta, snapshot)| Snapshot { meta, snapshot }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::log_id;

    #[test]
    fn an_older_snapshot_does_not_take_the_place_of_a_newer_one() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join(SNAPSHOT);
        let stored = Stored::default();
        for (index, stays) in [(5, 5), (9, 9), (7, 9)] {
            let data = SnapshotData::of(Arc::default(), dir.path()).expect("written");
            let meta = SnapshotMeta { last_log_id: Some(log_id(1, index)), ..Default::default() };
            stored.store(data, &meta, &path).expect("no error");
            let there = there(&path).expect("read").meta.last_log_id;
            assert_eq!(there.map(|id| id.index), Some(stays));
        }
    }
}
