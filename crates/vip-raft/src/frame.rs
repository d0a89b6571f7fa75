//! What the log is made of: records, each behind a head that every version reads,
//! so that what is damaged and what is only new look different.
//!
//! ```text
//!  on the wire:  format (1) | level (4, big endian) | body
//!  on the disk:  CRC-32 (4, big endian) of what follows | the same
//! ```
//!
//! The body is JSON. The level is that of the operation in it: a version of a
//! lower one does not even try to read the body.

use crate::types::{LogEntry, LogId, TypeConfig, log_id, term_of};
use openraft::EntryPayload;
use openraft::alias::EntryPayloadOf;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io;
use vip_core::Level;

type Payload = EntryPayloadOf<TypeConfig>;

/// Of records, and of snapshots.
pub(crate) const FORMAT: u8 = 1;
/// Of the head.
const HEAD: usize = 5;

/// Something of a later version of vipd.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Newer {
    /// It is written in another way.
    #[error("it has format {0}, and this vipd knows {FORMAT}")]
    Format(u8),
    /// What it says is not known here.
    #[error("it takes a vipd that understands level {0}, and this one understands {here}", here = Level::HERE)]
    Level(Level),
}

/// Why a record is not taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RecordError {
    /// Its bytes are not what was written.
    #[error("{0}")]
    Damaged(String),
    /// A later version wrote it.
    #[error(transparent)]
    Newer(#[from] Newer),
    /// It cannot be read.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl From<RecordError> for io::Error {
    fn from(error: RecordError) -> Self {
        match error {
            RecordError::Io(error) => error,
            other => io::Error::new(io::ErrorKind::InvalidData, other),
        }
    }
}

pub(crate) fn damaged(what: impl std::fmt::Display) -> RecordError {
    RecordError::Damaged(what.to_string())
}

/// Whether this version reads what was written so.
pub(crate) fn known(format: u8, level: Level) -> Result<(), Newer> {
    if format != FORMAT {
        return Err(Newer::Format(format));
    }
    if level > Level::HERE {
        return Err(Newer::Level(level));
    }
    Ok(())
}

/// A value behind its head.
fn framed<T: Serialize>(level: Level, value: &T) -> io::Result<Vec<u8>> {
    let mut bytes = vec![FORMAT];
    bytes.extend_from_slice(&level.0.to_be_bytes());
    serde_json::to_writer(&mut bytes, value).map_err(io::Error::other)?;
    Ok(bytes)
}

fn unframed<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, RecordError> {
    let (head, body) =
        bytes.split_first_chunk::<HEAD>().ok_or_else(|| damaged("a record is cut off"))?;
    let [format, level @ ..] = *head;
    known(format, Level(u32::from_be_bytes(level)))?;
    serde_json::from_slice(body).map_err(|e| damaged(format!("a record does not parse: {e}")))
}

/// What an entry says, for the wire.
pub(crate) fn payload_to(payload: &Payload) -> io::Result<Vec<u8>> {
    let level = match payload {
        EntryPayload::Normal(command) => command.0.op.since(),
        EntryPayload::Blank | EntryPayload::Membership(_) => Level::FIRST,
    };
    framed(level, payload)
}

/// From the wire.
pub(crate) fn payload_from(bytes: &[u8]) -> Result<Payload, RecordError> {
    unframed(bytes)
}

fn sealed(body: &[u8]) -> Vec<u8> {
    [&crc32fast::hash(body).to_be_bytes(), body].concat()
}

fn unsealed(bytes: &[u8]) -> Result<&[u8], RecordError> {
    let (sum, body) = bytes.split_first_chunk().ok_or_else(|| damaged("a record is cut off"))?;
    if crc32fast::hash(body) != u32::from_be_bytes(*sum) {
        return Err(damaged("a record's checksum is wrong"));
    }
    Ok(body)
}

/// A record of the store that is no entry.
pub(crate) fn record_to<T: Serialize>(value: &T) -> io::Result<Vec<u8>> {
    Ok(sealed(&framed(Level::FIRST, value)?))
}

/// From the disk.
pub(crate) fn record_from<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, RecordError> {
    unframed(unsealed(bytes)?)
}

/// An entry, for the disk: its place, then what it says.
pub(crate) fn entry_to(entry: &LogEntry) -> io::Result<Vec<u8>> {
    let (term, index) = (term_of(&entry.log_id).0, entry.log_id.index);
    let place = [term.to_be_bytes(), index.to_be_bytes()].concat();
    Ok(sealed(&[place, payload_to(&entry.payload)?].concat()))
}

fn place(body: &[u8]) -> Result<(LogId, &[u8]), RecordError> {
    let cut = || damaged("a record is cut off");
    let (term, body) = body.split_first_chunk().ok_or_else(cut)?;
    let (index, body) = body.split_first_chunk().ok_or_else(cut)?;
    Ok((log_id(u64::from_be_bytes(*term), u64::from_be_bytes(*index)), body))
}

/// From the disk.
pub(crate) fn entry_from(bytes: &[u8]) -> Result<LogEntry, RecordError> {
    let (log_id, body) = place(unsealed(bytes)?)?;
    Ok(LogEntry { log_id, payload: payload_from(body)? })
}

/// Where in the log an entry stands, whatever it says.
pub(crate) fn place_from(bytes: &[u8]) -> Result<LogId, RecordError> {
    Ok(place(unsealed(bytes)?)?.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::LogCommand;
    use proptest::prelude::*;
    use vip_core::{Actor, Command, NodeId, NodeOp};

    fn entry() -> LogEntry {
        let op = NodeOp::Activate { node: NodeId(2) }.into();
        let command = Command { time_ms: 1, actor: Actor("root@n1".into()), term: None, op };
        LogEntry { log_id: log_id(3, 7), payload: EntryPayload::Normal(LogCommand(command)) }
    }

    #[test]
    fn an_entry_comes_back_as_it_went() {
        let bytes = entry_to(&entry()).expect("written");
        assert_eq!(entry_from(&bytes).expect("read"), entry());
        assert_eq!(place_from(&bytes).expect("read"), log_id(3, 7));
    }

    /// Numbers as keys are texts in JSON, and have to become numbers again.
    #[cfg(feature = "next-version")]
    #[test]
    fn a_map_with_an_id_as_key_comes_back_as_it_went() {
        let marks = [(NodeId(1), "a".to_owned()), (NodeId(2), "b".to_owned())].into();
        let op = NodeOp::Mark { marks }.into();
        let command = Command { time_ms: 1, actor: Actor("root@n1".into()), term: None, op };
        let payload = EntryPayload::Normal(LogCommand(command));
        let marked = LogEntry { payload, ..entry() };
        let bytes = entry_to(&marked).expect("written");
        assert_eq!(entry_from(&bytes).expect("read"), marked);
    }

    #[test]
    fn what_is_new_is_not_called_damaged_and_the_other_way_round() {
        let payload = payload_to(&entry().payload).expect("written");
        let head = |format: u8, level: u32| {
            [&[format], &level.to_be_bytes()[..], &payload[HEAD..]].concat()
        };
        let next = Level(Level::HERE.0 + 1);
        let known = payload_from(&head(FORMAT, Level::HERE.0));
        assert_eq!(known.expect("of this version"), entry().payload);
        let newer = payload_from(&head(FORMAT, next.0));
        assert!(matches!(newer, Err(RecordError::Newer(Newer::Level(level))) if level == next));
        let other = payload_from(&head(FORMAT + 1, 1));
        assert!(matches!(other, Err(RecordError::Newer(Newer::Format(2)))));
        let garbage = [&[FORMAT, 0, 0, 0, 1], &b"{\"Normal\":"[..]].concat();
        assert!(matches!(payload_from(&garbage), Err(RecordError::Damaged(_))));
    }

    proptest! {
        /// A bit that fell over is damage, wherever it is: in the format, in the
        /// level, in the text.
        #[test]
        fn a_changed_byte_on_the_disk_is_damage(
            at in any::<prop::sample::Index>(),
            change in 1_u8..,
            cut in any::<bool>(),
        ) {
            let mut bytes = entry_to(&entry()).expect("written");
            let at = at.index(bytes.len());
            if cut { bytes.truncate(at) } else { bytes[at] ^= change }
            prop_assert!(matches!(entry_from(&bytes), Err(RecordError::Damaged(_))));
        }
    }
}
