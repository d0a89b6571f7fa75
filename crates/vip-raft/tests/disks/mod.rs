//! Other disks for a log than the one that is used, for comparison.

mod redb_disk;
mod segment_disk;

use redb_disk::RedbDisk;
use segment_disk::SegmentDisk;
use std::path::Path;
use std::sync::Arc;
use vip_raft::{LogStore, StoreError};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Sled,
    Redb,
    Segment,
}

impl Kind {
    pub(crate) const ALL: [Self; 3] = [Self::Sled, Self::Redb, Self::Segment];

    /// The file that the log is in.
    pub(crate) fn file(self) -> &'static str {
        match self {
            Self::Sled => "db",
            Self::Redb => "log.redb",
            Self::Segment => "log.segment",
        }
    }

    pub(crate) fn open(self, dir: &Path) -> Result<LogStore, StoreError> {
        std::fs::create_dir_all(dir).expect("made");
        let failed = |why: String| StoreError::Open { path: dir.to_owned(), why };
        let path = dir.join(self.file());
        match self {
            Self::Sled => LogStore::open(dir),
            Self::Redb => {
                let disk = RedbDisk::open(&path).map_err(|e| failed(e.to_string()))?;
                LogStore::open_on(dir, Arc::new(disk))
            }
            Self::Segment => {
                let disk = SegmentDisk::open(&path).map_err(|e| failed(e.to_string()))?;
                LogStore::open_on(dir, Arc::new(disk))
            }
        }
    }
}
