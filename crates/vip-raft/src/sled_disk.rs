//! The log's records in sled.
//!
//! One tree, so that a batch is atomic and everything is in one order on disk:
//! `l` + index (big endian) holds an entry, `p` the last purged id, `c` the last
//! committed one.

use crate::log_disk::{Beside, Change, LogDisk};
use std::fs::File;
use std::io;
use std::path::Path;

/// Where the vote was before it had a file.
const VOTE: &[u8] = b"v";
const PURGED: &[u8] = b"p";
const COMMITTED: &[u8] = b"c";
const ENTRY: u8 = b'l';
/// sled's page cache: the live log is small and read rarely.
const CACHE_BYTES: u64 = 1 << 20;

/// See the module.
pub(crate) struct SledDisk {
    db: sled::Db,
    tree: sled::Tree,
    file: File,
}

fn key(index: u64) -> [u8; 9] {
    let mut key = [ENTRY; 9];
    key[1..].copy_from_slice(&index.to_be_bytes());
    key
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

impl SledDisk {
    /// The database in `dir`, made if it is not there. Or why it cannot be opened.
    pub(crate) fn open(dir: &Path) -> Result<Self, String> {
        forget_unfinished(dir).map_err(|e| e.to_string())?;
        let config = sled::Config::new()
            .path(dir)
            .cache_capacity(CACHE_BYTES)
            // We flush, and sync, before each acknowledgement.
            .flush_every_ms(None);
        // sled panics on some damage that it finds.
        let db = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| config.open()))
            .map_err(|_| "sled found damage that it cannot handle")?
            .map_err(|e| e.to_string())?;
        let tree = db.open_tree("raft").map_err(|e| e.to_string())?;
        let file = File::open(dir.join("db")).map_err(|e| e.to_string())?;
        Ok(Self { db, tree, file })
    }

    /// The vote, if it has not been moved to its file yet.
    pub(crate) fn unmoved_vote(&self) -> io::Result<Option<Vec<u8>>> {
        self.get(VOTE)
    }

    /// It has a file now: an older version would take this one for the latest.
    pub(crate) fn forget_vote(&self) -> io::Result<()> {
        self.tree.remove(VOTE).map(drop).map_err(io::Error::other)
    }

    fn get(&self, key: &[u8]) -> io::Result<Option<Vec<u8>>> {
        Ok(self.tree.get(key).map_err(io::Error::other)?.map(|bytes| bytes.to_vec()))
    }

    fn remove(&self, from: u64, to: u64, batch: &mut sled::Batch) -> io::Result<()> {
        for item in self.tree.range(key(from)..=key(to)).keys() {
            batch.remove(item.map_err(io::Error::other)?);
        }
        Ok(())
    }
}

impl LogDisk for SledDisk {
    fn entries(&self, from: u64, to: u64) -> io::Result<Vec<Vec<u8>>> {
        let items = self.tree.range(key(from)..=key(to)).values();
        items.map(|item| Ok(item.map_err(io::Error::other)?.to_vec())).collect()
    }

    fn last(&self) -> io::Result<Option<Vec<u8>>> {
        let last = self.tree.range(key(0)..=key(u64::MAX)).next_back();
        last.map(|item| Ok(item.map_err(io::Error::other)?.1.to_vec())).transpose()
    }

    fn beside(&self, what: Beside) -> io::Result<Option<Vec<u8>>> {
        self.get(match what {
            Beside::Purged => PURGED,
            Beside::Committed => COMMITTED,
        })
    }

    fn change(&self, change: Change) -> io::Result<()> {
        let mut batch = sled::Batch::default();
        match change {
            Change::Append(entries) => {
                entries.into_iter().for_each(|(index, bytes)| batch.insert(&key(index), bytes));
            }
            Change::TruncateFrom(index) => self.remove(index, u64::MAX, &mut batch)?,
            Change::PurgeTo(index, purged) => {
                batch.insert(PURGED, purged);
                self.remove(0, index, &mut batch)?;
            }
            Change::Commit(committed) => batch.insert(COMMITTED, committed),
        }
        self.tree.apply_batch(batch).map_err(io::Error::other)
    }

    /// sled's own `flush` starts the write-out but never asks the disk to finish it.
    fn sync(&self) -> io::Result<()> {
        self.db.flush().map_err(io::Error::other)?;
        self.file.sync_data()
    }
}
