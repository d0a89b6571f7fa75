//! A lower bound of what the log must hold, beside the log.
//!
//! sled takes damage for the end of what was written, and opens with what
//! stands before it: a log that forgot acknowledged entries and does not know.
//! The seal does. It is written once a second while entries come, and at the end.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Index, the term of the vote where that was in the log, CRC-32 of both.
const LEN: usize = 20;

/// The seal's file.
#[derive(Debug)]
pub(crate) struct SealFile(File);

impl SealFile {
    /// Opens or makes it, and reads the bound, and the term of a vote that was in the
    /// log. A new one has neither.
    pub(crate) fn open(path: &Path) -> io::Result<(Self, u64, u64)> {
        let file =
            OpenOptions::new().create(true).truncate(false).read(true).write(true).open(path)?;
        if file.metadata()?.len() == 0 {
            return Ok((Self(file), 0, 0));
        }
        let mut bytes = [0; LEN];
        file.read_exact_at(&mut bytes, 0)?;
        let damaged = || io::Error::new(io::ErrorKind::InvalidData, "the seal is damaged");
        let (body, sum) = bytes.split_at(16);
        if crc32fast::hash(body).to_le_bytes() != sum {
            return Err(damaged());
        }
        let index = body.first_chunk().ok_or_else(damaged)?;
        let term = body.last_chunk().ok_or_else(damaged)?;
        Ok((Self(file), u64::from_le_bytes(*index), u64::from_le_bytes(*term)))
    }

    /// Writes it durably. It is smaller than a sector, so never half written.
    pub(crate) fn write(&self, index: u64) -> io::Result<()> {
        let mut bytes = [index.to_le_bytes(), [0; 8]].concat();
        bytes.extend_from_slice(&crc32fast::hash(&bytes).to_le_bytes());
        self.0.write_all_at(&bytes, 0)?;
        self.0.sync_data()
    }
}
