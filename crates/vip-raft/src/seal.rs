//! A lower bound of what the log must hold, beside the log.
//!
//! sled takes damage for the end of what was written, and opens with what
//! stands before it: a log that forgot acknowledged entries, or a vote, and
//! does not know. The seal does. It is written right after every vote, once a
//! second while entries come, and at the end.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Index, term, CRC-32 of the two.
const LEN: usize = 20;

/// What was acknowledged at least.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Extent {
    /// Index of the last entry.
    pub(crate) index: u64,
    /// Term of the vote.
    pub(crate) term: u64,
}

/// The seal's file.
#[derive(Debug)]
pub(crate) struct SealFile(File);

impl SealFile {
    /// Opens or makes it, and reads the bound. A new one has none.
    pub(crate) fn open(path: &Path) -> io::Result<(Self, Extent)> {
        let file =
            OpenOptions::new().create(true).truncate(false).read(true).write(true).open(path)?;
        if file.metadata()?.len() == 0 {
            return Ok((Self(file), Extent::default()));
        }
        let mut bytes = [0; LEN];
        file.read_exact_at(&mut bytes, 0)?;
        let damaged = || io::Error::new(io::ErrorKind::InvalidData, "the seal is damaged");
        let (body, sum) = bytes.split_at(16);
        if crc32fast::hash(body).to_le_bytes() != sum {
            return Err(damaged());
        }
        let (index, term) = body.split_at(8);
        let number = |part: &[u8]| part.try_into().map(u64::from_le_bytes).map_err(|_| damaged());
        Ok((Self(file), Extent { index: number(index)?, term: number(term)? }))
    }

    /// Writes it durably. It is smaller than a sector, so never half written.
    pub(crate) fn write(&self, bound: Extent) -> io::Result<()> {
        let mut bytes = [bound.index.to_le_bytes(), bound.term.to_le_bytes()].concat();
        bytes.extend_from_slice(&crc32fast::hash(&bytes).to_le_bytes());
        self.0.write_all_at(&bytes, 0)?;
        self.0.sync_data()
    }
}
