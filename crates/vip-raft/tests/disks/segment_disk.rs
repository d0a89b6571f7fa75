//! The log's records in one plain file that is appended to, and in memory.
//!
//! ```text
//!  length (4) | CRC-32 (4) | body: kind (1), then per entry index (8), length (4), bytes
//! ```
//!
//! A record that does not check is the end of what was written. Written anew when most
//! of it is of no use any more.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use vip_raft::{Beside, Change, LogDisk};

/// Below this it is not written anew.
const SMALL: u64 = 1 << 20;

#[derive(Default)]
struct Records {
    entries: BTreeMap<u64, Vec<u8>>,
    purged: Option<Vec<u8>>,
    committed: Option<Vec<u8>>,
}

impl Records {
    fn apply(&mut self, change: Change) {
        match change {
            Change::Append(entries) => self.entries.extend(entries),
            Change::TruncateFrom(index) => drop(self.entries.split_off(&index)),
            Change::PurgeTo(index, purged) => {
                self.entries = self.entries.split_off(&(index + 1));
                self.purged = Some(purged);
            }
            Change::Commit(committed) => self.committed = Some(committed),
        }
    }

    fn bytes(&self) -> u64 {
        self.entries.values().map(|entry| entry.len() as u64 + 20).sum()
    }
}

struct Open {
    file: File,
    end: u64,
    records: Records,
}

pub(crate) struct SegmentDisk {
    path: PathBuf,
    open: Mutex<Open>,
}

fn length(bytes: &[u8]) -> [u8; 4] {
    u32::try_from(bytes.len()).expect("less than 4 GiB").to_be_bytes()
}

fn record(change: &Change) -> Vec<u8> {
    let mut body = vec![];
    let mut put = |index: u64, bytes: &[u8]| {
        body.extend_from_slice(&index.to_be_bytes());
        body.extend_from_slice(&length(bytes));
        body.extend_from_slice(bytes);
    };
    let kind = match change {
        Change::Append(entries) => {
            entries.iter().for_each(|(index, bytes)| put(*index, bytes));
            0
        }
        Change::TruncateFrom(index) => {
            put(*index, &[]);
            1
        }
        Change::PurgeTo(index, purged) => {
            put(*index, purged);
            2
        }
        Change::Commit(committed) => {
            put(0, committed);
            3
        }
    };
    let body = [&[kind][..], &body].concat();
    let (len, sum) = (length(&body), crc32fast::hash(&body).to_be_bytes());
    [&len[..], &sum, &body].concat()
}

/// The change that the bytes begin with, and how long its record is.
fn parse(bytes: &[u8]) -> Option<(Change, usize)> {
    let number = |at: usize| bytes.get(at..at + 4)?.try_into().ok().map(u32::from_be_bytes);
    let (len, sum) = (number(0)? as usize, number(4)?);
    let body = bytes.get(8..8 + len)?;
    if crc32fast::hash(body) != sum {
        return None;
    }
    let (kind, mut rest) = body.split_first()?;
    let mut parts = vec![];
    while !rest.is_empty() {
        let index = u64::from_be_bytes(rest.get(..8)?.try_into().ok()?);
        let len = u32::from_be_bytes(rest.get(8..12)?.try_into().ok()?) as usize;
        parts.push((index, rest.get(12..12 + len)?.to_vec()));
        rest = &rest[12 + len..];
    }
    let one = parts.first().cloned();
    let change = match kind {
        0 => Change::Append(parts),
        1 => Change::TruncateFrom(one?.0),
        2 => one.map(|(index, purged)| Change::PurgeTo(index, purged))?,
        _ => Change::Commit(one?.1),
    };
    Some((change, 8 + len))
}

impl SegmentDisk {
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        let mut file = options.create(true).truncate(false).read(true).write(true).open(path)?;
        let mut bytes = vec![];
        file.read_to_end(&mut bytes)?;
        let (mut records, mut end) = (Records::default(), 0);
        while let Some((change, len)) = parse(&bytes[end..]) {
            records.apply(change);
            end += len;
        }
        file.set_len(end as u64)?;
        let open = Mutex::new(Open { file, end: end as u64, records });
        Ok(Self { path: path.to_owned(), open })
    }

    fn open_file<T>(&self, act: impl FnOnce(&mut Open) -> T) -> T {
        act(&mut self.open.lock().expect("no panic before"))
    }

    /// Everything that counts, in a new file.
    fn rewrite(&self, open: &mut Open) -> io::Result<()> {
        let Records { entries, purged, committed } = &open.records;
        let entries = entries.iter().map(|(index, bytes)| (*index, bytes.clone())).collect();
        let first = open.records.entries.keys().next().copied().unwrap_or(1);
        let purged = purged.clone().map(|p| Change::PurgeTo(first.saturating_sub(1), p));
        let all = purged
            .into_iter()
            .chain([Change::Append(entries)])
            .chain(committed.clone().map(Change::Commit));
        let bytes: Vec<u8> = all.flat_map(|change| record(&change)).collect();
        let new = self.path.with_extension("new");
        let mut file = File::create_new(&new).or_else(|_| {
            std::fs::remove_file(&new)?;
            File::create_new(&new)
        })?;
        file.write_all(&bytes)?;
        file.sync_data()?;
        std::fs::rename(&new, &self.path)?;
        self.path.parent().map(|dir| File::open(dir)?.sync_all()).transpose()?;
        (open.file, open.end) = (file, bytes.len() as u64);
        Ok(())
    }
}

impl LogDisk for SegmentDisk {
    fn entries(&self, from: u64, to: u64) -> io::Result<Vec<Vec<u8>>> {
        Ok(self.open_file(|open| {
            open.records.entries.range(from..=to).map(|(_, bytes)| bytes.clone()).collect()
        }))
    }

    fn last(&self) -> io::Result<Option<Vec<u8>>> {
        Ok(self.open_file(|open| open.records.entries.values().next_back().cloned()))
    }

    fn beside(&self, what: Beside) -> io::Result<Option<Vec<u8>>> {
        Ok(self.open_file(|open| match what {
            Beside::Purged => open.records.purged.clone(),
            Beside::Committed => open.records.committed.clone(),
        }))
    }

    fn change(&self, change: Change) -> io::Result<()> {
        self.open_file(|open| {
            let bytes = record(&change);
            open.file.write_all_at(&bytes, open.end)?;
            open.end += bytes.len() as u64;
            let purges = matches!(change, Change::PurgeTo(..));
            open.records.apply(change);
            if purges && open.end > SMALL && open.records.bytes() < open.end / 2 {
                self.rewrite(open)?;
            }
            Ok(())
        })
    }

    fn sync(&self) -> io::Result<()> {
        // Whoever appends does not wait for it.
        self.open_file(|open| open.file.try_clone())?.sync_data()
    }
}
