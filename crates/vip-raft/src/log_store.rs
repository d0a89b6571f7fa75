//! Raft's log on a disk, and the votes beside it. Each record is as [`crate::frame`]
//! says.

use crate::disk::{Disk, DiskClock};
use crate::frame::{
    Newer, RecordError, damaged, entry_from, entry_to, place_from, record_from, record_to,
};
use crate::log_disk::{Beside, Change, LogDisk};
use crate::network::LeaseRules;
use crate::seal::SealFile;
use crate::sled_disk::SledDisk;
use crate::sync::{Seal, Syncer};
use crate::types::{LogEntry, LogId, RaftVote, TypeConfig, core_vote, raft_vote};
use crate::votes::Votes;
use crate::votes_file::{Saved, VotesFile};
use openraft::storage::{IOFlushed, LogState, RaftLogStorage};
use openraft::{OptionalSend, RaftLogReader};
use serde::de::DeserializeOwned;
use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;
use vip_core::NodeId;

/// Entries that are read at once when a log is checked.
const CHECKED_AT_ONCE: u64 = 1024;
/// Why a node does not take part.
pub const DOUBT: &str =
    "a record of this node's votes is damaged; it takes part again from the next election on";
/// The file of the votes.
const VOTES: &str = "votes";

/// Why a log store cannot be used. Nothing was changed in it.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Its disk cannot be opened.
    #[error(
        "the log in {path} cannot be opened: {why}. If another vipd runs on this directory, stop it. \
         If the disk damaged the log, remove this node from the cluster, move the data directory \
         away and join again"
    )]
    Open {
        /// The directory.
        path: PathBuf,
        /// What was said of it.
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
    disk: Arc<dyn LogDisk>,
    syncer: Arc<Syncer>,
    /// Index of the last entry.
    last: Arc<Mutex<u64>>,
    votes: Votes,
    owner: Arc<OnceLock<Owner>>,
}

/// Whose votes are saved, and by which rules.
struct Owner {
    node: NodeId,
    /// When a node in doubt heeds leaders again.
    heeds_from: Instant,
    rules: Arc<dyn LeaseRules>,
}

fn beside<T: DeserializeOwned>(disk: &dyn LogDisk, what: Beside) -> Result<Option<T>, RecordError> {
    disk.beside(what)?.map(|bytes| record_from(&bytes)).transpose()
}

/// Every record parses, and the entries follow each other without a hole.
/// Returns how far they go; `None`: nothing was ever written.
fn check(disk: &dyn LogDisk) -> Result<Option<u64>, RecordError> {
    let mut last: Option<LogId> = beside(disk, Beside::Purged)?;
    let mut from = last.map_or(0, |id| id.index + 1);
    loop {
        let entries = match disk.entries(from, from + CHECKED_AT_ONCE - 1)? {
            // Before the first purge the log may begin anywhere.
            none if none.is_empty() && last.is_none() => disk.entries(from, u64::MAX)?,
            some => some,
        };
        if entries.is_empty() {
            break;
        }
        for bytes in entries {
            let entry = entry_from(&bytes)?;
            let expected = last.map_or(entry.log_id.index, |id| id.index + 1);
            if entry.log_id.index != expected {
                return Err(damaged(format!("entry {expected} is missing")));
            }
            last = Some(entry.log_id);
        }
        from = last.map_or(from, |id| id.index + 1);
    }
    // What stands behind a hole.
    let end = disk.last()?.map(|bytes| place_from(&bytes)).transpose()?;
    match (end, last) {
        (Some(end), Some(last)) if end.index > last.index => {
            Err(damaged(format!("entry {} is missing", last.index + 1)))
        }
        (_, last) => Ok(last.map(|id| id.index)),
    }
}

fn sled_disk(dir: &Path) -> Result<SledDisk, StoreError> {
    SledDisk::open(dir).map_err(|why| StoreError::Open { path: dir.to_owned(), why })
}

/// What is known of a log when its votes are opened.
struct Opened {
    /// Nothing was ever written.
    is_empty: bool,
    /// The term of a vote that was acknowledged when votes were in the log.
    sealed_term: u64,
}

/// The votes in the file. Without one: those that are in the log still, or, if it shows
/// that there never were any, none.
fn votes(
    path: &Path,
    unmoved: Option<vip_core::Vote>,
    log: &Opened,
) -> Result<VotesFile, RecordError> {
    if let Some(votes) = VotesFile::open(path)? {
        return Ok(votes);
    }
    let Opened { is_empty, sealed_term } = *log;
    if sealed_term > unmoved.map_or(0, |vote| vote.term.0) {
        return Err(damaged(format!("a vote of term {sealed_term} was acknowledged, and is gone")));
    }
    let (vote, longest) = match unmoved {
        Some(vote) => (vote, None),
        None if is_empty => (vip_core::Vote::default(), Some(Duration::ZERO)),
        None => return Err(damaged("the file of its votes is gone")),
    };
    Ok(VotesFile::create(path, vote, longest)?)
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
        let disk = Arc::new(sled_disk(dir)?);
        let sync = |source| StoreError::Sync { path: dir.to_owned(), source };
        VotesFile::create(&dir.join(VOTES), vote, longest).map_err(sync)?;
        let purged = record_to(&last).map_err(sync)?;
        disk.change(Change::PurgeTo(last.index, purged)).map_err(sync)?;
        let (seal, ..) = SealFile::open(&dir.join("seal")).map_err(sync)?;
        let syncer = Syncer::start(disk, seal, 0).map_err(sync)?;
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
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        let disk = Arc::new(sled_disk(dir)?);
        let log = disk.clone();
        Self::over(dir, disk, |path, opened| {
            let Some(bytes) = log.unmoved_vote()? else { return votes(path, None, opened) };
            let unmoved: RaftVote = record_from(&bytes)?;
            let votes = votes(path, Some(core_vote(&unmoved)), opened)?;
            log.forget_vote()?;
            Ok(votes)
        })
    }

    /// The same over any disk, whose votes are in `dir`: for tests of others than the
    /// one that is used.
    ///
    /// # Errors
    /// [`StoreError`].
    #[doc(hidden)]
    pub fn open_on(dir: &Path, disk: Arc<dyn LogDisk>) -> Result<Self, StoreError> {
        Self::over(dir, disk, |path, opened| votes(path, None, opened))
    }

    fn over(
        dir: &Path,
        disk: Arc<dyn LogDisk>,
        votes: impl FnOnce(&Path, &Opened) -> Result<VotesFile, RecordError>,
    ) -> Result<Self, StoreError> {
        let unusable = |e: RecordError| StoreError::of(dir, e);
        let there = check(&*disk).map_err(unusable)?;
        let seal = SealFile::open(&dir.join("seal"));
        let (seal, sealed, sealed_term) = seal.map_err(|e| unusable(damaged(e)))?;
        let opened = Opened { is_empty: there.is_none(), sealed_term };
        let there = there.unwrap_or_default();
        if there < sealed {
            let what =
                format!("entries up to {sealed} were acknowledged, those to {there} are there");
            return Err(StoreError::Damaged { path: dir.to_owned(), what });
        }
        let votes = votes(&dir.join(VOTES), &opened).map_err(unusable)?;
        let syncer = Syncer::start(disk.clone(), seal, there)
            .map_err(|source| StoreError::Sync { path: dir.to_owned(), source })?;
        let (syncer, votes, last) = (Arc::new(syncer), Votes::of(votes), Arc::default());
        let store = Self { disk, syncer, last, votes, owner: Arc::default() };
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

    /// Whether a vote of this node may be lost ([`Saved::lost_up_to`]), and it heeds
    /// no leader whom it might betray.
    #[must_use]
    pub fn is_in_doubt(&self) -> bool {
        self.votes.lost_up_to().is_some()
    }

    /// Saves durably that no promise which is given from now on, or runs now, is of
    /// more than this.
    ///
    /// # Errors
    /// The disk failed.
    pub async fn longest_promise(&self, longest: Duration) -> io::Result<()> {
        self.votes.longest(longest).await
    }

    /// A leader of this term, or an earlier one, is to be left alone for now.
    pub(crate) fn unheeded_up_to(&self) -> Option<vip_core::Term> {
        let lost = self.votes.lost_up_to()?;
        let heeds_from = self.owner.get()?.heeds_from;
        // That after it is the one that this node is in.
        (Instant::now() < heeds_from).then_some(lost.next())
    }

    /// Whose log it is, for how long a node in doubt deposes nobody, and by which
    /// rules votes are saved from now on. To be said once.
    pub fn belongs_to(&self, node: NodeId, patience: Duration, rules: Arc<dyn LeaseRules>) {
        let heeds_from = Instant::now() + patience;
        let is_first = self.owner.set(Owner { node, heeds_from, rules }).is_ok();
        debug_assert!(is_first, "a store has one owner");
    }

    fn rules(&self) -> Option<&dyn LeaseRules> {
        self.owner.get().map(|owner| &*owner.rules)
    }

    fn purged(&self) -> io::Result<Option<LogId>> {
        Ok(beside(&*self.disk, Beside::Purged)?)
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
            Bound::Included(index) => *index,
            Bound::Excluded(0) => return Ok(vec![]),
            Bound::Excluded(index) => index - 1,
            Bound::Unbounded => u64::MAX,
        };
        if start > end {
            return Ok(vec![]);
        }
        let entries = self.disk.entries(start, end)?;
        entries.into_iter().map(|bytes| Ok(entry_from(&bytes)?)).collect()
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
        let node = self.owner.get().map(|owner| owner.node).unwrap_or_default();
        let vote = self.saved().goes_on(node);
        Ok((vote != vip_core::Vote::default()).then(|| raft_vote(vote)))
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, io::Error> {
        let last_purged_log_id = self.purged()?;
        let last = self.disk.last()?.map(|bytes| place_from(&bytes)).transpose()?;
        let last_log_id = last.or(last_purged_log_id);
        Ok(LogState { last_purged_log_id, last_log_id })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &RaftVote) -> Result<(), io::Error> {
        // No promise to an older leader may follow this.
        if let Some(rules) = self.rules() {
            rules.saving_vote(core_vote(vote));
        }
        let wait = || self.rules().map(|rules| rules.candidacy_waits(core_vote(vote)));
        while let Some(wait) = wait().filter(|wait| !wait.is_zero()) {
            tokio::time::sleep(wait).await;
        }
        self.votes.save(core_vote(vote)).await?;
        // What is promised from now on a restart will find a reason for.
        if let Some(rules) = self.rules() {
            rules.vote_is_durable(core_vote(vote));
        }
        Ok(())
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        // Only spares a restarted node some waiting; may be lost.
        if let Some(id) = committed {
            self.disk.change(Change::Commit(record_to(&id)?))?;
        }
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        Ok(beside(&*self.disk, Beside::Committed)?)
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
        let bytes = |entry: LogEntry| Ok((entry.log_id.index, entry_to(&entry)?));
        let entries: Vec<_> = entries.into_iter().map(bytes).collect::<io::Result<_>>()?;
        let last = entries.last().map_or(0, |(index, _)| *index);
        self.disk.change(Change::Append(entries))?;
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
        self.disk.change(Change::TruncateFrom(from))?;
        self.synced(bound, Seal::First).await
    }

    async fn purge(&mut self, id: LogId) -> Result<(), io::Error> {
        self.disk.change(Change::PurgeTo(id.index, record_to(&id)?))
    }
}
