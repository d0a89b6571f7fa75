//! Snapshots as files: a line with the state, a line with what belongs to it.
//! They come and go in parts, and none is in memory whole beside its state.

use crate::types::{SnapshotMeta, TypeConfig};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use tempfile::TempPath;
use vip_core::State;

/// The second line.
#[derive(Serialize, Deserialize)]
struct Facts {
    meta: SnapshotMeta,
    /// Of the first line, without its end.
    crc32: u32,
    bytes: u64,
}

fn damaged(why: impl std::fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why.to_string())
}

/// The state of a snapshot: in a file, to be read in parts; and what it is.
pub struct SnapshotData {
    /// Stays what it is when another one takes its place.
    file: Arc<File>,
    /// Where it is until it is stored.
    path: Option<TempPath>,
    bytes: u64,
    crc32: u32,
    state: Option<Arc<State>>,
}

pub(crate) type Snapshot = openraft::alias::SnapshotOf<TypeConfig, SnapshotData>;

/// Where one is on its way: beside the one that it will replace.
pub(crate) fn directory(path: &Path) -> &Path {
    path.parent().unwrap_or_else(|| Path::new("."))
}

/// Before the name of one that is not stored yet.
const UNFINISHED: &str = "snapshot-";

impl SnapshotData {
    /// An empty one that takes parts, beside where it will be.
    ///
    /// # Errors
    /// Whatever the file system says.
    pub(crate) fn new(directory: &Path) -> io::Result<Self> {
        let file = tempfile::Builder::new().prefix(UNFINISHED).tempfile_in(directory)?;
        let (file, path) = file.into_parts();
        Ok(Self { file: Arc::new(file), path: Some(path), bytes: 0, crc32: 0, state: None })
    }

    /// Of a state.
    ///
    /// # Errors
    /// Whatever the file system says.
    pub(crate) fn of(state: Arc<State>, directory: &Path) -> io::Result<Self> {
        let mut data = Self::new(directory)?;
        let mut writer = io::BufWriter::new(&mut data);
        serde_json::to_writer(&mut writer, &*state).map_err(io::Error::other)?;
        writer.flush()?;
        drop(writer);
        data.state = Some(state);
        Ok(data)
    }

    /// How long it is.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The parts, from the first.
    pub(crate) fn reader(&self) -> Parts {
        Parts { file: self.file.clone(), at: 0, end: self.bytes }
    }

    /// Reads the state.
    ///
    /// # Errors
    /// It is none.
    pub(crate) fn parse(&mut self) -> io::Result<Arc<State>> {
        if let Some(state) = &self.state {
            return Ok(state.clone());
        }
        let state: State =
            serde_json::from_reader(BufReader::new(self.reader())).map_err(damaged)?;
        let state = Arc::new(state);
        self.state = Some(state.clone());
        Ok(state)
    }

    /// Puts it where the next start finds it, durably.
    ///
    /// # Errors
    /// Whatever the file system says; what was there stays there.
    pub(crate) fn store(mut self, meta: &SnapshotMeta, path: &Path) -> io::Result<()> {
        let directory = directory(path);
        let Some(unfinished) = self.path.take() else {
            let mut copy = Self::new(directory)?;
            io::copy(&mut self.reader(), &mut copy)?;
            return copy.store(meta, path);
        };
        let facts = Facts { meta: meta.clone(), crc32: self.crc32, bytes: self.bytes };
        let facts = serde_json::to_vec(&facts).map_err(io::Error::other)?;
        (&*self.file).write_all(&[b"\n", &facts[..], b"\n"].concat())?;
        self.file.sync_all()?;
        unfinished.persist(path).map_err(|e| e.error)?;
        File::open(directory)?.sync_all()
    }
}

/// Takes the next part.
impl Write for SnapshotData {
    fn write(&mut self, part: &[u8]) -> io::Result<usize> {
        let written = (&*self.file).write(part)?;
        let mut crc = crc32fast::Hasher::new_with_initial_len(self.crc32, self.bytes);
        crc.update(&part[..written]);
        self.crc32 = crc.finalize();
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// See [`SnapshotData::reader`].
pub(crate) struct Parts {
    file: Arc<File>,
    at: u64,
    end: u64,
}

impl Read for Parts {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end - self.at).unwrap_or(usize::MAX);
        let wanted = left.min(buffer.len());
        let read = self.file.read_at(&mut buffer[..wanted], self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}

/// Opens the stored snapshot, if there is one.
///
/// # Errors
/// It is damaged, or cannot be read.
pub(crate) fn load(path: &Path) -> io::Result<Option<(SnapshotMeta, SnapshotData)>> {
    let file = match File::open(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        result => result?,
    };
    let in_file = |e: io::Error| match e.kind() {
        io::ErrorKind::InvalidData => {
            damaged(format!("the snapshot {} is damaged: {e}", path.display()))
        }
        _ => e,
    };
    read(file).map(Some).map_err(in_file)
}

fn read(file: File) -> io::Result<(SnapshotMeta, SnapshotData)> {
    let Facts { meta, crc32, bytes } = facts(&file)?;
    let mut data = SnapshotData { file: Arc::new(file), path: None, bytes, crc32, state: None };
    let (mut reader, mut crc) = (BufReader::new(data.reader()), crc32fast::Hasher::new());
    let mut length = 0;
    loop {
        let part = reader.fill_buf()?;
        if part.is_empty() {
            break;
        }
        crc.update(part);
        let read = part.len();
        length += read as u64;
        reader.consume(read);
    }
    if length != bytes || crc.finalize() != crc32 {
        return Err(damaged("its checksum is wrong"));
    }
    data.parse()?;
    Ok((meta, data))
}

/// The last line.
fn facts(mut file: &File) -> io::Result<Facts> {
    /// Longer than any: the members' addresses are in it.
    const LONGEST: u64 = 1 << 20;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(LONGEST)))?;
    let mut last = vec![];
    for line in BufReader::new(file).split(b'\n') {
        last = line?;
    }
    serde_json::from_slice(&last).map_err(|_| damaged("its end is missing"))
}

/// Removes what a process that ended left on its way.
///
/// # Errors
/// Whatever the file system says.
pub(crate) fn clear(directory: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(UNFINISHED) {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// What snapshots were before they came in parts.
#[derive(Deserialize)]
struct Earlier {
    meta: SnapshotMeta,
    crc32: u32,
    state: String,
}

/// Makes one of an earlier version (`snapshot.json`) one of this.
///
/// # Errors
/// It is damaged, or cannot be written.
pub(crate) fn take_over(earlier: &Path, path: &Path) -> io::Result<()> {
    let bytes = match std::fs::read(earlier) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        result => result?,
    };
    let name = earlier.display();
    let Earlier { meta, crc32, state } = serde_json::from_slice(&bytes)
        .map_err(|e| damaged(format!("the snapshot {name} is damaged: {e}")))?;
    if crc32fast::hash(state.as_bytes()) != crc32 {
        return Err(damaged(format!("the snapshot {name} is damaged: its checksum is wrong")));
    }
    let mut data = SnapshotData::new(directory(path))?;
    data.write_all(state.as_bytes())?;
    data.store(&meta, path)?;
    std::fs::remove_file(earlier)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::sync::LazyLock;

    fn state(time_ms: u64) -> Arc<State> {
        let mut state = State::default();
        state.time_ms = time_ms;
        Arc::new(state)
    }

    #[test]
    fn what_was_stored_is_read_and_the_next_one_replaces_it() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("snapshot");
        assert!(load(&path).expect("no error").is_none());
        let mut kept = vec![];
        for time_ms in [1, 2] {
            let data = SnapshotData::of(state(time_ms), dir.path()).expect("written");
            data.store(&SnapshotMeta::default(), &path).expect("stored");
            let (_, mut data) = load(&path).expect("read").expect("there");
            assert_eq!(data.parse().expect("a state"), state(time_ms));
            kept.push(data);
        }
        // The first one can still be sent.
        let mut sent = vec![];
        kept[0].reader().read_to_end(&mut sent).expect("read");
        assert_eq!(sent, serde_json::to_vec(&*state(1)).expect("text"));
        drop(kept);
        let left = std::fs::read_dir(dir.path()).expect("readable").count();
        assert_eq!(left, 1, "nothing else stays");
    }

    #[test]
    fn one_of_an_earlier_version_is_taken_over_and_what_was_left_is_cleared() {
        let dir = tempfile::tempdir().expect("a directory");
        let (old, new) = (dir.path().join("snapshot.json"), dir.path().join("snapshot"));
        take_over(&old, &new).expect("nothing to do");
        let text = serde_json::to_string(&*state(3)).expect("text");
        let (meta, crc32) = (SnapshotMeta::default(), crc32fast::hash(text.as_bytes()));
        let earlier = serde_json::json!({ "meta": meta, "crc32": crc32, "state": text });
        std::fs::write(&old, earlier.to_string()).expect("written");
        std::fs::write(dir.path().join("snapshot-left"), "half").expect("written");
        take_over(&old, &new).expect("taken over");
        clear(dir.path()).expect("cleared");
        let (_, mut data) = load(&new).expect("read").expect("there");
        assert_eq!(data.parse().expect("a state"), state(3));
        assert_eq!(std::fs::read_dir(dir.path()).expect("readable").count(), 1);
    }

    #[test]
    fn parts_make_a_whole_and_garbage_makes_no_state() {
        let dir = tempfile::tempdir().expect("a directory");
        let text = serde_json::to_vec(&*state(7)).expect("text");
        let mut data = SnapshotData::new(dir.path()).expect("made");
        for part in text.chunks(5) {
            data.write_all(part).expect("written");
        }
        assert_eq!(data.bytes(), text.len() as u64);
        assert_eq!(data.parse().expect("a state"), state(7));
        let mut data = SnapshotData::new(dir.path()).expect("made");
        data.write_all(b"{\"time_ms\":").expect("written");
        assert_eq!(data.parse().expect_err("none").kind(), io::ErrorKind::InvalidData);
    }

    static STORED: LazyLock<Vec<u8>> = LazyLock::new(|| {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("snapshot");
        let data = SnapshotData::of(state(1_000_000), dir.path()).expect("written");
        data.store(&SnapshotMeta::default(), &path).expect("stored");
        std::fs::read(&path).expect("read")
    });

    proptest! {
        /// A disk may have changed any byte, and a crash cut anything off.
        #[test]
        fn a_damaged_file_is_found(at in any::<prop::sample::Index>(), cut in any::<bool>()) {
            let mut bytes = STORED.clone();
            // The end of the last line may go.
            let at = at.index(bytes.len() - 1);
            if cut { bytes.truncate(at) } else { bytes[at] ^= 0x40 }
            let mut file = tempfile::tempfile().expect("a file");
            file.write_all(&bytes).expect("written");
            if let Ok((meta, mut data)) = read(file) {
                prop_assert_eq!(data.parse().expect("a state"), state(1_000_000));
                prop_assert_eq!(meta.last_log_id, None);
            }
        }
    }
}
