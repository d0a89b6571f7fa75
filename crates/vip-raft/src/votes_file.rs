//! The vote, and what bounds promises, in a file of their own: a log that is slow
//! delays no election.
//!
//! Two slots, each in a block of its own; the record of the higher sequence counts,
//! and the next one goes into the other slot, with one fdatasync. The file is as long
//! as it will ever be, so that the file system has nothing else to write for it.
//!
//! ```text
//!  CRC-32 of what follows (4) | format (1) | committed (1) | 0 0 | sequence (8) |
//!  term (8) | node (8) | longest promise in ms (8) | reserved term (8) | lost up to (8)
//! ```
//!
//! A slot that was torn while it was written, and one that was damaged after it was
//! acknowledged, look alike: the vote in it may have bound this node, or not. A record
//! therefore says how far the next one may go, its reserved term; beyond that, a record
//! that reserves more comes first. With a bad slot this node goes on as if it had come
//! to a term after that, and had voted for nobody: whatever the lost vote was, no later
//! one contradicts it.

use crate::frame::{Newer, RecordError, damaged};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::time::Duration;
use vip_core::{NodeId, Term, Vote};

/// Of the records.
const FORMAT: u8 = 1;
/// A record with its checksum.
const LEN: usize = 56;
/// From one slot to the next: no block of a disk has parts of two.
const SLOT: u16 = 4096;
/// So that the file says nothing of how long a promise may last.
const UNKNOWN: u64 = u64::MAX;

/// What a restart finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Saved {
    /// The latest vote that is known.
    pub vote: Vote,
    /// The largest P that may still be promised, unless that is lost.
    pub longest: Option<Duration>,
    /// A later vote may be lost; it is of this term at most.
    pub lost_up_to: Option<Term>,
}

impl Saved {
    /// The vote to go on from at `node`: if one may be lost, one for nobody else that
    /// stands for it.
    #[must_use]
    pub fn goes_on(&self, node: NodeId) -> Vote {
        let stand_in = |lost: Term| Vote { term: lost.next(), node, committed: false };
        self.lost_up_to.map_or(self.vote, stand_in)
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Record {
    sequence: u64,
    vote: Vote,
    longest_ms: u64,
    /// The next record's vote is of no later term.
    reserved: Term,
    lost_up_to: Term,
}

impl Record {
    fn bytes(&self) -> [u8; LEN] {
        let mut bytes = [0; LEN];
        bytes[4] = FORMAT;
        bytes[5] = u8::from(self.vote.committed);
        let numbers = [
            self.sequence,
            self.vote.term.0,
            self.vote.node.0,
            self.longest_ms,
            self.reserved.0,
            self.lost_up_to.0,
        ];
        for (place, number) in bytes[8..].chunks_exact_mut(8).zip(numbers) {
            place.copy_from_slice(&number.to_be_bytes());
        }
        let sum = crc32fast::hash(&bytes[4..]);
        bytes[..4].copy_from_slice(&sum.to_be_bytes());
        bytes
    }

    /// `None`: its bytes are not what was written.
    fn read(bytes: &[u8; LEN]) -> Result<Option<Self>, Newer> {
        let (sum, body) = bytes.split_at(4);
        if crc32fast::hash(body).to_be_bytes() != sum {
            return Ok(None);
        }
        if body[0] != FORMAT {
            return Err(Newer::Format(body[0]));
        }
        let mut numbers = body[4..]
            .chunks_exact(8)
            .map(|part| part.iter().fold(0_u64, |number, byte| number << 8 | u64::from(*byte)));
        let mut next = || numbers.next().unwrap_or_default();
        let (sequence, term, node) = (next(), Term(next()), NodeId(next()));
        let vote = Vote { term, node, committed: body[1] != 0 };
        let (longest_ms, reserved, lost_up_to) = (next(), Term(next()), Term(next()));
        Ok(Some(Self { sequence, vote, longest_ms, reserved, lost_up_to }))
    }

    /// What is known if the other slot may have had a later one.
    fn without_its_neighbour(self) -> Self {
        let lost_up_to = self.lost_up_to.max(self.reserved);
        Self { lost_up_to, longest_ms: UNKNOWN, ..self }
    }
}

/// The file, open.
#[derive(Debug)]
pub(crate) struct VotesFile {
    file: File,
    last: Record,
    /// Where the last record is.
    slot: u64,
    /// After a failed sync nothing is known of what the disk has.
    broken: bool,
}

impl VotesFile {
    /// Makes the file, whole or not at all, and durably.
    pub(crate) fn create(path: &Path, vote: Vote, longest: Option<Duration>) -> io::Result<Self> {
        let (reserved, longest_ms) = (vote.term.next(), ms(longest));
        let last = Record { vote, longest_ms, reserved, ..Record::default() };
        let new = path.with_extension("new");
        let mut options = OpenOptions::new();
        let file =
            options.create(true).truncate(true).read(true).write(true).mode(0o600).open(&new)?;
        let mut bytes = vec![0; 2 * usize::from(SLOT)];
        for slot in bytes.chunks_exact_mut(usize::from(SLOT)) {
            slot[..LEN].copy_from_slice(&last.bytes());
        }
        file.write_all_at(&bytes, 0)?;
        file.sync_all()?;
        std::fs::rename(&new, path)?;
        path.parent().map(|dir| File::open(dir)?.sync_all()).transpose()?;
        Ok(Self { file, last, slot: 0, broken: false })
    }

    /// Opens it; `None` if there is none.
    pub(crate) fn open(path: &Path) -> Result<Option<Self>, RecordError> {
        let file = match OpenOptions::new().read(true).write(true).open(path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file?,
        };
        let read = |slot: u64| {
            let mut bytes = [0; LEN];
            match file.read_exact_at(&mut bytes, slot * u64::from(SLOT)) {
                Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
                Err(e) => Err(RecordError::Io(e)),
                Ok(()) => Ok(Record::read(&bytes)?),
            }
        };
        let (last, slot) = match (read(0)?, read(1)?) {
            (Some(first), Some(second)) if first.sequence >= second.sequence => (first, 0),
            (Some(_), Some(second)) => (second, 1),
            (Some(good), None) => (good.without_its_neighbour(), 0),
            (None, Some(good)) => (good.without_its_neighbour(), 1),
            (None, None) => return Err(damaged("both records of its votes are damaged")),
        };
        Ok(Some(Self { file, last, slot, broken: false }))
    }

    pub(crate) fn saved(&self) -> Saved {
        let Record { vote, longest_ms, lost_up_to, .. } = self.last;
        let longest = (longest_ms != UNKNOWN).then(|| Duration::from_millis(longest_ms));
        Saved { vote, longest, lost_up_to: (lost_up_to > Term(0)).then_some(lost_up_to) }
    }

    /// Saves a vote durably; what was lost before does not matter then.
    pub(crate) fn vote(&mut self, vote: Vote) -> io::Result<()> {
        if vote.term > self.last.reserved {
            self.write(Record { reserved: vote.term, ..self.last })?;
        }
        let reserved = vote.term.next();
        self.write(Record { vote, reserved, lost_up_to: Term(0), ..self.last })
    }

    /// Saves durably how long a promise may last from now on.
    pub(crate) fn longest(&mut self, longest: Duration) -> io::Result<()> {
        self.write(Record { longest_ms: ms(Some(longest)), ..self.last })
    }

    fn write(&mut self, record: Record) -> io::Result<()> {
        if self.broken {
            return Err(io::Error::other("the file of votes failed before"));
        }
        let record = Record { sequence: self.last.sequence + 1, ..record };
        let slot = 1 - self.slot;
        let written = self.file.write_all_at(&record.bytes(), slot * u64::from(SLOT));
        let written = written.and_then(|()| self.file.sync_data());
        self.broken = written.is_err();
        written?;
        (self.last, self.slot) = (record, slot);
        Ok(())
    }
}

fn ms(longest: Option<Duration>) -> u64 {
    longest.and_then(|longest| u64::try_from(longest.as_millis()).ok()).unwrap_or(UNKNOWN)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::path::PathBuf;

    const LAN: Duration = Duration::from_millis(200);

    fn vote(term: u64) -> Vote {
        Vote { term: Term(term), node: NodeId(term % 3 + 1), committed: term.is_multiple_of(2) }
    }

    fn file() -> (tempfile::TempDir, PathBuf, VotesFile) {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("votes");
        let votes = VotesFile::create(&path, Vote::default(), Some(LAN)).expect("made");
        (dir, path, votes)
    }

    fn reopened(path: &Path) -> Saved {
        VotesFile::open(path).expect("readable").expect("there").saved()
    }

    fn flip(path: &Path, at: u64) {
        let file = OpenOptions::new().read(true).write(true).open(path).expect("opens");
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).expect("read");
        file.write_all_at(&[byte[0] ^ 0x20], at).expect("written");
    }

    #[test]
    fn the_last_vote_comes_back() {
        let (_dir, path, mut votes) = file();
        for term in [1, 2, 2, 3, 9] {
            votes.vote(vote(term)).expect("saved");
            let saved = Saved { vote: vote(term), longest: Some(LAN), lost_up_to: None };
            assert_eq!((votes.saved(), reopened(&path)), (saved, saved));
        }
        votes.longest(LAN * 2).expect("saved");
        let saved = reopened(&path);
        assert_eq!((saved.vote, saved.longest), (vote(9), Some(LAN * 2)));
        assert_eq!(std::fs::metadata(&path).expect("there").len(), 2 * u64::from(SLOT));
    }

    /// Nobody can tell whether the vote in it was acknowledged.
    #[test]
    fn with_any_byte_of_a_slot_flipped_the_lost_vote_is_bounded() {
        for slot in [0, u64::from(SLOT)] {
            for byte in 0..LEN as u64 {
                let (_dir, path, mut votes) = file();
                votes.vote(vote(4)).expect("saved");
                votes.vote(vote(5)).expect("saved");
                flip(&path, slot + byte);
                let saved = reopened(&path);
                let lost_up_to = saved.lost_up_to.expect("in doubt");
                let stand_in = saved.goes_on(NodeId(9));
                assert!(
                    lost_up_to >= Term(5) && stand_in.term > lost_up_to && !stand_in.committed,
                    "slot {slot}, byte {byte}: {saved:?}"
                );
                assert!(saved.vote == vote(4) || saved.vote == vote(5));
                assert_eq!(saved.longest, None, "slot {slot}, byte {byte}");
            }
        }
    }

    #[test]
    fn with_both_slots_bad_it_is_damaged() {
        let (_dir, path, mut votes) = file();
        votes.vote(vote(4)).expect("saved");
        flip(&path, 20);
        flip(&path, u64::from(SLOT) + 20);
        assert!(matches!(VotesFile::open(&path), Err(RecordError::Damaged(_))));
        std::fs::write(&path, []).expect("written");
        assert!(matches!(VotesFile::open(&path), Err(RecordError::Damaged(_))));
    }

    #[test]
    fn a_later_vote_ends_the_doubt() {
        let (_dir, path, mut votes) = file();
        votes.vote(vote(4)).expect("saved");
        flip(&path, if votes.slot == 0 { 20 } else { u64::from(SLOT) + 20 });
        let mut votes = VotesFile::open(&path).expect("readable").expect("there");
        let doubted = votes.saved().lost_up_to.expect("in doubt");
        // How long a promise lasts says nothing of the vote.
        votes.longest(LAN).expect("saved");
        assert_eq!(reopened(&path).lost_up_to, Some(doubted));
        votes.vote(vote(7)).expect("saved");
        let saved = Saved { vote: vote(7), longest: Some(LAN), lost_up_to: None };
        assert_eq!(reopened(&path), saved);
    }

    #[test]
    fn a_file_of_a_later_version_is_not_called_damaged() {
        let (_dir, path, votes) = file();
        let mut bytes = votes.last.bytes();
        bytes[4] = FORMAT + 1;
        let sum = crc32fast::hash(&bytes[4..]);
        bytes[..4].copy_from_slice(&sum.to_be_bytes());
        votes.file.write_all_at(&bytes, 0).expect("written");
        let newer = VotesFile::open(&path).expect_err("of a later version");
        assert!(matches!(newer, RecordError::Newer(Newer::Format(2))), "{newer}");
    }

    proptest! {
        // Each step is a sync.
        #![proptest_config(ProptestConfig::with_cases(32))]

        /// Whatever happens to the slot that is written last, before or after it is
        /// acknowledged: no term below that of the vote in it is heeded.
        #[test]
        fn a_lost_vote_is_never_betrayed(
            steps in prop::collection::vec(0_u64..5, 1..20),
            byte in 0..LEN as u64,
        ) {
            let (_dir, path, mut votes) = file();
            let mut term = 0;
            for step in steps {
                term += step;
                votes.vote(vote(term)).expect("saved");
            }
            flip(&path, votes.slot * u64::from(SLOT) + byte);
            let saved = reopened(&path);
            prop_assert!(saved.lost_up_to.is_some_and(|from| from >= Term(term)));
        }
    }
}
