//! Raft's log in sled, and the votes beside it.
//!
//! One tree, so that a batch is atomic and everything is in one order on disk:
//! `l` + index (big endian) holds an entry, `p` the last purged id, `c` the last
//! committed one, each as [`crate::frame`] says.

use crate::disk::{Disk, DiskClock};
use crate::frame::{
    Newer, RecordError, damaged, entry_from, entry_to, place_from, record_from, record_to,
};
use crate::network::LeaseRules;
use crate::seal::SealFile;
use crate::sync::{Seal, Syncer};
use crate::types::{LogEntry, LogId, RaftVote, TypeConfig, core_vote, raft_vote};
use crate::votes::Votes;
use crate::votes_file::{Saved, VotesFile};
use openraft::storage::{IOFlushed, LogState, RaftLogStorage};
use openraft::{OptionalSend, RaftLogReader};
use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::oneshot;

/// Where the vote was before it had a file: it is moved there.
const VOTE: &[u8] = b"v";
const PURGED: &[u8] = b"p";
const COMMITTED: &[u8] = b"c";
const ENTRY: u8 = b'l';
/// Why a node does not take part.
pub const DOUBT: &str =
    "a record of this node's votes is damaged; it takes part again once a later leader is elected";
/// The file of the votes.
const VOTES: &str = "votes";
/// sled's page cache: the live log is small and read rarely.
const CACHE_BYTES: u64 = 1 << 20;

/// Why a log store cannot be used. Nothing was changed in it.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// sled cannot open it.
    #[error(
        "the log in {path} cannot be opened: {why}. If another vipd runs on this directory, stop it. \
         If the disk damaged the log, remove this node from the cluster, move the data directory \
         away and join again"
    )]
    Open {
        /// The directory.
        path: PathBuf,
        /// What sled said.
        why: String,
    },
    /// An entry or record is damaged or missing.
    #[error(
        "the log in {path} is damaged: {what}. Nothing was served from it. Remove this node from the \
         cluster, move the data directory away and join again; the other nodes have the log"
    )]
    Damaged {
        /// The directory.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// A later version of vipd wrote some of it.
    #[error(
        "the log in {path} was written by a newer vipd: {newer}. Nothing was changed; install that \
         version again"
    )]
    Newer {
        /// The directory.
        path: PathBuf,
        /// What is new.
        #[source]
        newer: Newer,
    },
    /// The file cannot be synced.
    #[error("{path}")]
    Sync {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl StoreError {
    pub(crate) fn of(dir: &Path, error: RecordError) -> Self {
        let path = dir.to_owned();
        match error {
            RecordError::Newer(newer) => Self::Newer { path, newer },
            RecordError::Damaged(what) => Self::Damaged { path, what },
            RecordError::Io(source) => Self::Damaged { path, what: source.to_string() },
        }
    }
}

/// The log store of one node. Clones share it.
#[derive(Clone)]
pub struct LogStore {
    tree: sled::Tree,
    syncer: Arc<Syncer>,
    /// Index of the last entry.
    last: Arc<Mutex<u64>>,
    votes: Votes,
    rules: Arc<dyn LeaseRules>,
}

fn key(index: u64) -> [u8; 9] {
    let mut key = [ENTRY; 9];
    key[1..].copy_from_slice(&index.to_be_bytes());
    key
}

fn record<T: serde::de::DeserializeOwned>(
    tree: &sled::Tree,
    key: &[u8],
) -> Result<Option<T>, RecordError> {
    tree.get(key)?.map(|bytes| record_from(&bytes)).transpose()
}

/// Every record parses, and the entries follow each other without a hole.
/// Returns how far they go; `None`: nothing was ever written.
fn check(tree: &sled::Tree) -> Result<Option<u64>, RecordError> {
    let mut last: Option<LogId> = record(tree, PURGED)?;
    for item in tree.scan_prefix([ENTRY]) {
        let entry = entry_from(&item?.1)?;
        let expected = last.map_or(entry.log_id.index, |id| id.index + 1);
        if entry.log_id.index != expected {
            return Err(damaged(format!("entry {expected} is missing")));
        }
        last = Some(entry.log_id);
    }
    Ok(last.map(|id| id.index))
}

/// The votes in `dir`, beside this log.
fn votes(dir: &Path, tree: &sled::Tree, empty: bool) -> Result<VotesFile, RecordError> {
    let path = dir.join(VOTES);
    let moved: Option<RaftVote> = record(tree, VOTE)?;
    let votes = match (VotesFile::open(&path)?, moved) {
        (Some(votes), _) => votes,
        (None, Some(vote)) => VotesFile::create(&path, core_vote(&vote), None)?,
        (None, None) if empty => {
            VotesFile::create(&path, vip_core::Vote::default(), Some(Duration::ZERO))?
        }
        (None, None) => return Err(damaged("the file of its votes is gone")),
    };
    // An older version would take it for the latest.
    tree.remove(VOTE)?;
    Ok(votes)
}

/// Removes what sled was writing when it was killed: it takes half a snapshot of
/// its page table for a damaged one, and opens nothing. Whole ones have another
/// name, and what the table says is in the log as well.
fn forget_unfinished(dir: &Path) -> io::Result<()> {
    let files = match std::fs::read_dir(dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        files => files?,
    };
    for file in files {
        let file = file?;
        if file.file_name().to_string_lossy().ends_with(".generating") {
            std::fs::remove_file(file.path())?;
        }
    }
    Ok(())
}

/// The database in `dir`, made if it is not there.
fn database(dir: &Path) -> Result<(sled::Db, sled::Tree), StoreError> {
    let open = |why: String| StoreError::Open { path: dir.to_owned(), why };
    forget_unfinished(dir).map_err(|e| open(e.to_string()))?;
    let config = sled::Config::new()
        .path(dir)
        .cache_capacity(CACHE_BYTES)
        // We flush, and sync, before each acknowledgement.
        .flush_every_ms(None);
    // sled panics on some damage that it finds.
    let db = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| config.open()))
        .map_err(|_| open("sled found damage that it cannot handle".into()))?
        .map_err(|e| open(e.to_string()))?;
    let tree = db.open_tree("raft").map_err(|e| open(e.to_string()))?;
    Ok((db, tree))
}

impl LogStore {
    /// Makes a store in `dir` whose log ends with `last` and has no entry left:
    /// a snapshot has what came before. Durable when it returns.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn found(
        dir: &Path,
        vote: vip_core::Vote,
        longest: Option<Duration>,
        last: LogId,
    ) -> Result<(), StoreError> {
        let (db, tree) = database(dir)?;
        let sync = |source| StoreError::Sync { path: dir.to_owned(), source };
        VotesFile::create(&dir.join(VOTES), vote, longest).map_err(sync)?;
        let written = tree.insert(PURGED, record_to(&last).map_err(sync)?);
        written.map_err(|e| sync(io::Error::other(e)))?;
        let (seal, _) = SealFile::open(&dir.join("seal")).map_err(sync)?;
        let syncer = Syncer::start(db, dir, seal, 0).map_err(sync)?;
        let (send, done) = oneshot::channel();
        let tell = Box::new(move |result| drop(send.send(result)));
        syncer.after_sync(last.index, Seal::First, tell);
        done.await.map_err(|e| sync(io::Error::other(e)))?.map_err(sync)
    }

    /// Every entry after this one, committed or not.
    ///
    /// # Errors
    /// One cannot be read.
    pub(crate) fn entries_after(&self, index: u64) -> io::Result<Vec<LogEntry>> {
        self.entries(index + 1..)
    }

    /// Opens the store in `dir`, made if it is not there, and checks it whole.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn open(dir: &Path, rules: Arc<dyn LeaseRules>) -> Result<Self, StoreError> {
        let (db, tree) = database(dir)?;
        let unusable = |e: RecordError| StoreError::of(dir, e);
        let there = check(&tree).map_err(unusable)?;
        let votes = votes(dir, &tree, there.is_none()).map_err(unusable)?;
        let there = there.unwrap_or_default();
        let sealed = SealFile::open(&dir.join("seal"));
        let (seal, sealed) = sealed.map_err(|e| unusable(damaged(e)))?;
        if there < sealed {
            let what =
                format!("entries up to {sealed} were acknowledged, those to {there} are there");
            return Err(StoreError::Damaged { path: dir.to_owned(), what });
        }
        let syncer = Syncer::start(db, dir, seal, there)
            .map_err(|source| StoreError::Sync { path: dir.to_owned(), source })?;
        let (syncer, votes, last) = (Arc::new(syncer), Votes::of(votes), Arc::default());
        let store = Self { tree, syncer, last, votes, rules };
        store.ends(|_| there);
        Ok(store)
    }

    /// Takes note of where the log ends now.
    fn ends(&self, change: impl FnOnce(u64) -> u64) -> u64 {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        *last = change(*last);
        *last
    }

    /// How the disk does.
    #[must_use]
    pub fn disk(&self) -> Disk {
        let votes: &DiskClock = self.votes.clock();
        Disk([self.syncer.clock(), votes.clone()])
    }

    /// Makes everything durable, the seal included: damage done to the files
    /// from now on will be noticed.
    ///
    /// # Errors
    /// The disk failed.
    pub async fn close(&self) -> io::Result<()> {
        self.synced(self.ends(|last| last), Seal::First).await
    }

    /// The vote that was saved last, and what bounds promises.
    #[must_use]
    pub fn saved(&self) -> Saved {
        self.votes.saved()
    }

    /// Whether this node heeds nobody yet, because a vote of its may be lost
    /// ([`Saved::heeds_from`]).
    #[must_use]
    pub fn is_in_doubt(&self) -> bool {
        self.heeds_from() > vip_core::Term(0)
    }

    /// Saves durably that no promise which is given from now on, or runs now, is of
    /// more than this.
    ///
    /// # Errors
    /// The disk failed.
    pub async fn longest_promise(&self, longest: Duration) -> io::Result<()> {
        self.votes.longest(longest).await
    }

    /// Of which term a leader has to be to be heard; 0 if nothing is in doubt.
    pub(crate) fn heeds_from(&self) -> vip_core::Term {
        self.votes.heeds_from()
    }

    fn purged(&self) -> io::Result<Option<LogId>> {
        Ok(record(&self.tree, PURGED)?)
    }

    /// Waits until everything is durable, the seal included.
    async fn synced(&self, bound: u64, seal: Seal) -> io::Result<()> {
        let (send, done) = oneshot::channel();
        let tell = Box::new(move |result| {
            let _ = send.send(result);
        });
        self.syncer.after_sync(bound, seal, tell);
        done.await.map_err(io::Error::other)?
    }

    fn entries(&self, range: impl RangeBounds<u64>) -> io::Result<Vec<LogEntry>> {
        let start = match range.start_bound() {
            Bound::Included(index) => *index,
            Bound::Excluded(index) => index + 1,
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(index) => Bound::Included(key(*index)),
            Bound::Excluded(index) => Bound::Excluded(key(*index)),
            Bound::Unbounded => Bound::Included(key(u64::MAX)),
        };
        let items = self.tree.range((Bound::Included(key(start)), end));
        items.map(|item| Ok(entry_from(&item.map_err(io::Error::other)?.1)?)).collect()
    }
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<LogEntry>, io::Error> {
        self.entries(range)
    }

    async fn read_vote(&mut self) -> Result<Option<RaftVote>, io::Error> {
        let vote = self.saved().vote;
        Ok((vote != vip_core::Vote::default()).then(|| raft_vote(vote)))
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, io::Error> {
        let last_purged_log_id = self.purged()?;
        let last = self.tree.range(key(0)..=key(u64::MAX)).next_back();
        let last = last.map(|item| Ok::<_, io::Error>(item.map_err(io::Error::other)?.1));
        let last = last.transpose()?.map(|bytes| place_from(&bytes)).transpose()?;
        let last_log_id = last.or(last_purged_log_id);
        Ok(LogState { last_purged_log_id, last_log_id })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &RaftVote) -> Result<(), io::Error> {
        // No promise to an older leader may follow this.
        self.rules.saving_vote(core_vote(vote));
        loop {
            let wait = self.rules.candidacy_waits(core_vote(vote));
            if wait.is_zero() {
                break;
            }
            tokio::time::sleep(wait).await;
        }
        self.votes.save(core_vote(vote)).await?;
        // What is promised from now on a restart will find a reason for.
        self.rules.vote_is_durable(core_vote(vote));
        Ok(())
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        // Only spares a restarted node some waiting; may be lost.
        if let Some(id) = committed {
            self.tree.insert(COMMITTED, record_to(&id)?).map_err(io::Error::other)?;
        }
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        Ok(record(&self.tree, COMMITTED)?)
    }

    async fn append<I>(
        &mut self,
        entries: I,
        callback: IOFlushed<TypeConfig>,
    ) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = LogEntry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut batch = sled::Batch::default();
        let mut last = 0;
        for entry in entries {
            last = entry.log_id.index;
            batch.insert(&key(last), entry_to(&entry)?);
        }
        self.tree.apply_batch(batch).map_err(io::Error::other)?;
        let bound = self.ends(|before| before.max(last));
        let done = Box::new(move |result| callback.io_completed(result));
        self.syncer.after_sync(bound, Seal::Later, done);
        Ok(())
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> Result<(), io::Error> {
        let from = last.map_or(0, |id| id.index + 1);
        // The seal comes down before the entries go.
        let bound = self.ends(|_| last.map_or(0, |id| id.index));
        self.synced(bound, Seal::First).await?;
        let mut batch = sled::Batch::default();
        for item in self.tree.range(key(from)..=key(u64::MAX)).keys() {
            batch.remove(item.map_err(io::Error::other)?);
        }
        self.tree.apply_batch(batch).map_err(io::Error::other)?;
        self.synced(bound, Seal::First).await
    }

    async fn purge(&mut self, id: LogId) -> Result<(), io::Error> {
        let mut batch = sled::Batch::default();
        batch.insert(PURGED, record_to(&id)?);
        for item in self.tree.range(key(0)..=key(id.index)).keys() {
            batch.remove(item.map_err(io::Error::other)?);
        }
        self.tree.apply_batch(batch).map_err(io::Error::other)
    }
}
