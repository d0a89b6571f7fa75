//! Snapshots as files: a line with the state, and a line with what belongs to it
//! behind its CRC-32. They come and go in parts, and none is in memory whole beside
//! its state.

use crate::frame::{FORMAT, RecordError, damaged, known};
use crate::types::{SnapshotMeta, TypeConfig};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use tempfile::TempPath;
use vip_core::{Level, State};

/// How a snapshot is written, and what it takes to understand it. Every version
/// reads this part of the second line.
#[derive(Clone, Copy, Serialize, Deserialize)]
struct Head {
    format: u8,
    needs: Level,
}

/// The second line.
#[derive(Serialize, Deserialize)]
struct Facts {
    head: Head,
    meta: SnapshotMeta,
    /// Of the first line, without its end.
    crc32: u32,
    bytes: u64,
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

    /// What has to be understood to read it, once its state was read.
    pub(crate) fn needs(&self) -> Level {
        self.state.as_ref().map_or(Level::HERE, |state| state.needs)
    }

    /// The parts, from the first.
    pub(crate) fn reader(&self) -> Parts {
        Parts { file: self.file.clone(), at: 0, end: self.bytes }
    }

    /// Reads the state.
    ///
    /// # Errors
    /// It is none.
    pub(crate) fn parse(&mut self) -> Result<Arc<State>, RecordError> {
        if let Some(state) = &self.state {
            return Ok(state.clone());
        }
        let state: State =
            serde_json::from_reader(BufReader::new(self.reader())).map_err(damaged)?;
        known(FORMAT, state.needs)?;
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
            copy.state.clone_from(&self.state);
            io::copy(&mut self.reader(), &mut copy)?;
            return copy.store(meta, path);
        };
        let head = Head { format: FORMAT, needs: self.needs() };
        let facts = Facts { head, meta: meta.clone(), crc32: self.crc32, bytes: self.bytes };
        let facts = serde_json::to_string(&facts).map_err(io::Error::other)?;
        let sum = crc32fast::hash(facts.as_bytes());
        (&*self.file).write_all(format!("\n{sum:08x} {facts}\n").as_bytes())?;
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
/// It is damaged, of a later version, or cannot be read.
pub(crate) fn load(path: &Path) -> Result<Option<(SnapshotMeta, SnapshotData)>, RecordError> {
    let file = match File::open(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        result => result?,
    };
    let in_file = |e| match e {
        RecordError::Damaged(what) => damaged(format!("the snapshot {}: {what}", path.display())),
        other => other,
    };
    read(file).map(Some).map_err(in_file)
}

fn read(file: File) -> Result<(SnapshotMeta, SnapshotData), RecordError> {
    let Facts { head: _, meta, crc32, bytes } = facts(&file)?;
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
fn facts(mut file: &File) -> Result<Facts, RecordError> {
    #[derive(Deserialize)]
    struct Any {
        head: Head,
    }
    /// Longer than any: the members' addresses are in it.
    const LONGEST: u64 = 1 << 20;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(LONGEST)))?;
    let mut last = vec![];
    for line in BufReader::new(file).split(b'\n') {
        last = line?;
    }
    let missing = || damaged("its end is missing");
    let last = std::str::from_utf8(&last).map_err(|_| missing())?;
    let (sum, facts) = last.split_once(' ').ok_or_else(missing)?;
    if sum != format!("{:08x}", crc32fast::hash(facts.as_bytes())) {
        return Err(missing());
    }
    let does_not_parse = |e| damaged(format!("its end does not parse: {e}"));
    let Any { head } = serde_json::from_str(facts).map_err(does_not_parse)?;
    known(head.format, head.needs)?;
    serde_json::from_str(facts).map_err(does_not_parse)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::Newer;
    use proptest::prelude::*;
    use std::sync::LazyLock;

    fn state(time_ms: u64) -> Arc<State> {
        let mut state = State::default();
        state.time_ms = time_ms;
        state.needs = Level::FIRST;
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
    fn what_was_left_on_its_way_is_cleared() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("snapshot");
        let data = SnapshotData::of(state(3), dir.path()).expect("written");
        data.store(&SnapshotMeta::default(), &path).expect("stored");
        std::fs::write(dir.path().join("snapshot-left"), "half").expect("written");
        clear(dir.path()).expect("cleared");
        let (_, mut data) = load(&path).expect("read").expect("there");
        assert_eq!(data.parse().expect("a state"), state(3));
        assert_eq!(std::fs::read_dir(dir.path()).expect("readable").count(), 1);
    }

    #[test]
    fn one_of_a_later_version_is_not_called_damaged() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("snapshot");
        let next = Level(Level::HERE.0 + 1);
        let mut later = State::default();
        later.needs = next;
        let data = SnapshotData::of(Arc::new(later), dir.path()).expect("written");
        data.store(&SnapshotMeta::default(), &path).expect("stored");
        let loaded = load(&path).map(|_| ());
        assert!(matches!(loaded, Err(RecordError::Newer(Newer::Level(level))) if level == next));
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
        assert_eq!(data.needs(), Level::FIRST, "as its state says");
        let mut data = SnapshotData::new(dir.path()).expect("made");
        data.write_all(b"{\"time_ms\":").expect("written");
        assert!(matches!(data.parse(), Err(RecordError::Damaged(_))));
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
