//! The replicated state in memory, its snapshots on disk.

use crate::convert::command;
use crate::types::{LogId, Reply, Snapshot, SnapshotMeta, StoredMembership, TypeConfig, term_of};
use futures_util::{Stream, StreamExt};
use openraft::entry::RaftEntry;
use openraft::storage::{EntryResponder, RaftStateMachine};
use openraft::{EntryPayload, OptionalSend, RaftSnapshotBuilder};
use serde::{Deserialize, Serialize};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::sync::watch;
use vip_core::{Outcome, State};

/// The state at a point of the log, as everybody else sees it.
#[derive(Clone, Debug, Default)]
pub struct Applied {
    /// The state.
    pub state: Arc<State>,
    /// Index of the last applied entry.
    pub index: u64,
}

/// What a snapshot file holds.
#[derive(Serialize, Deserialize)]
struct SnapshotFile {
    meta: SnapshotMeta,
    crc32: u32,
    state: String,
}

/// openraft's state machine.
pub struct StateMachine {
    path: PathBuf,
    last: Option<LogId>,
    membership: StoredMembership,
    state: Arc<State>,
    applied: watch::Sender<Applied>,
}

impl StateMachine {
    /// From the snapshot in `dir`, or empty.
    ///
    /// # Errors
    /// A snapshot is there but damaged.
    pub fn open(dir: &Path) -> io::Result<(Self, watch::Receiver<Applied>)> {
        std::fs::create_dir_all(dir)?;
        let (applied, receiver) = watch::channel(Applied::default());
        let path = dir.join("snapshot.json");
        let mut machine = Self {
            path,
            last: None,
            membership: StoredMembership::default(),
            state: Arc::default(),
            applied,
        };
        if let Some(snapshot) = machine.read()? {
            machine.install(&snapshot.meta, &snapshot.snapshot)?;
        }
        Ok((machine, receiver))
    }

    fn read(&self) -> io::Result<Option<Snapshot>> {
        let bytes = match std::fs::read(&self.path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            result => result?,
        };
        let damaged = |why: String| {
            io::Error::new(
                io::ErrorKind::InvalidData,
                format!("the snapshot {} is damaged: {why}", self.path.display()),
            )
        };
        let file: SnapshotFile =
            serde_json::from_slice(&bytes).map_err(|e| damaged(e.to_string()))?;
        if crc32fast::hash(file.state.as_bytes()) != file.crc32 {
            return Err(damaged("its checksum is wrong".into()));
        }
        Ok(Some(Snapshot { meta: file.meta, snapshot: file.state.into_bytes() }))
    }

    fn install(&mut self, meta: &SnapshotMeta, bytes: &[u8]) -> io::Result<()> {
        let state: State = serde_json::from_slice(bytes)
            .map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))?;
        self.last = meta.last_log_id;
        self.membership = meta.last_membership.clone();
        self.state = Arc::new(state);
        self.publish();
        Ok(())
    }

    fn publish(&self) {
        let index = self.last.map_or(0, |id| id.index);
        self.applied.send_replace(Applied { state: self.state.clone(), index });
    }
}

fn write(path: &Path, meta: &SnapshotMeta, bytes: &[u8]) -> io::Result<()> {
    let state = String::from_utf8(bytes.to_vec())
        .map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))?;
    let crc32 = crc32fast::hash(state.as_bytes());
    let file = SnapshotFile { meta: meta.clone(), crc32, state };
    let new = path.with_extension("new");
    let mut out = std::fs::File::create(&new)?;
    out.write_all(&serde_json::to_vec(&file).map_err(io::Error::other)?)?;
    out.sync_all()?;
    std::fs::rename(&new, path)?;
    match path.parent() {
        Some(dir) => std::fs::File::open(dir)?.sync_all(),
        None => Ok(()),
    }
}

/// Builds a snapshot from a frozen copy of the state.
pub struct Builder {
    path: PathBuf,
    meta: SnapshotMeta,
    state: Arc<State>,
}

impl RaftSnapshotBuilder<TypeConfig> for Builder {
    type SnapshotData = Vec<u8>;

    async fn build_snapshot(&mut self) -> Result<Snapshot, io::Error> {
        let bytes = serde_json::to_vec(&*self.state).map_err(io::Error::other)?;
        let (path, meta, copy) = (self.path.clone(), self.meta.clone(), bytes.clone());
        let written = tokio::task::spawn_blocking(move || write(&path, &meta, &copy));
        written.await.map_err(io::Error::other)??;
        Ok(Snapshot { meta: self.meta.clone(), snapshot: bytes })
    }
}

impl RaftStateMachine<TypeConfig> for StateMachine {
    type SnapshotData = Vec<u8>;
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
        Builder { path: self.path.clone(), meta, state: self.state.clone() }
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        snapshot: Vec<u8>,
    ) -> Result<(), io::Error> {
        let (path, copy, bytes) = (self.path.clone(), meta.clone(), snapshot.clone());
        let written = tokio::task::spawn_blocking(move || write(&path, &copy, &bytes));
        written.await.map_err(io::Error::other)??;
        self.install(meta, &snapshot)
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, io::Error> {
        self.read()
    }
}
