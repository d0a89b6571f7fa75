//! What keeps the log's records: entries by their index, and two records beside them,
//! all as bytes. What they mean is [`crate::LogStore`]'s.

use std::io;

/// A record beside the entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beside {
    /// Up to where entries were purged.
    Purged,
    /// Up to where they are known to be committed.
    Committed,
}

/// A change, which is made whole or not at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Puts entries at their indices, which follow each other.
    Append(Vec<(u64, Vec<u8>)>),
    /// Removes every entry from this index on.
    TruncateFrom(u64),
    /// Removes every entry up to this index, and puts the record of it.
    PurgeTo(u64, Vec<u8>),
    /// Puts the record.
    Commit(Vec<u8>),
}

/// A disk of a log. Its methods are called from one thread at a time or from several;
/// what one has written all see at once, durable or not.
pub trait LogDisk: Send + Sync + 'static {
    /// The entries from one index to another, both included, in order.
    ///
    /// # Errors
    /// They cannot be read.
    fn entries(&self, from: u64, to: u64) -> io::Result<Vec<Vec<u8>>>;

    /// The entry of the highest index.
    ///
    /// # Errors
    /// It cannot be read.
    fn last(&self) -> io::Result<Option<Vec<u8>>>;

    /// A record beside the entries.
    ///
    /// # Errors
    /// It cannot be read.
    fn beside(&self, what: Beside) -> io::Result<Option<Vec<u8>>>;

    /// Makes a change, which [`Self::sync`] makes durable.
    ///
    /// # Errors
    /// It was not made.
    fn change(&self, change: Change) -> io::Result<()>;

    /// Returns when every change before is durable. May take long.
    ///
    /// # Errors
    /// The disk failed; of what was changed since the last sync nothing is known.
    fn sync(&self) -> io::Result<()>;
}
