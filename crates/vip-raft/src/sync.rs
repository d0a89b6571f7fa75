//! The thread that makes writes durable before they are acknowledged.
//!
//! sled's own `flush` starts the write-out but never asks the disk to finish
//! it, so its file is synced here. Writes that wait are synced together.

use crate::seal::{Extent, SealFile};
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Writes that may wait for the disk; beyond it the writer waits too.
const QUEUED: usize = 1024;

/// How far the seal may lag behind entries.
const SEAL_INTERVAL: Duration = Duration::from_secs(1);

type Done = Box<dyn FnOnce(Result<(), io::Error>) + Send>;

/// When the seal follows a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Seal {
    /// Within [`SEAL_INTERVAL`].
    Later,
    /// Next. The write is acknowledged first: an election waits for it.
    Next,
    /// Before the write is acknowledged.
    First,
}

/// A write that waits for the disk.
struct Waiting {
    /// What the log holds with it.
    bound: Extent,
    seal: Seal,
    done: Done,
}

/// Since when the disk has been asked for something it has not done.
#[derive(Clone, Debug, Default)]
pub struct DiskClock(Arc<Mutex<DiskState>>);

#[derive(Debug, Default)]
struct DiskState {
    waiting: usize,
    waiting_since: Option<Instant>,
    failed: Option<String>,
}

impl DiskClock {
    /// For how long the oldest write has been waiting to become durable.
    #[must_use]
    pub fn oldest_wait(&self) -> Duration {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.waiting_since.map(|since| since.elapsed()).unwrap_or_default()
    }

    /// The failure after which nothing is acknowledged any more.
    #[must_use]
    pub fn failure(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).failed.clone()
    }

    fn waiting(&self) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.waiting += 1;
        state.waiting_since.get_or_insert_with(Instant::now);
    }

    /// The disk has done, or failed to do, the oldest `writes`.
    fn done(&self, writes: usize) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.waiting = state.waiting.saturating_sub(writes);
        // The next ones have been waiting for this one rather than the disk.
        state.waiting_since = (state.waiting > 0).then(Instant::now);
    }

    fn failed(&self, error: &io::Error) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.failed.get_or_insert_with(|| error.to_string());
    }
}

/// Syncs a sled database on its own thread.
#[derive(Debug)]
pub(crate) struct Syncer {
    queue: Option<SyncSender<Waiting>>,
    thread: Option<JoinHandle<()>>,
    clock: DiskClock,
}

impl Syncer {
    pub(crate) fn start(
        db: sled::Db,
        dir: &Path,
        seal: SealFile,
        bound: Extent,
    ) -> io::Result<Self> {
        let file = File::open(dir.join("db"))?;
        let clock = DiskClock::default();
        let (queue, waiting) = sync_channel(QUEUED);
        let run = {
            let clock = clock.clone();
            move || {
                let thread = SyncThread { db, file, seal, sealed: bound, bound, clock };
                thread.serve(&waiting);
            }
        };
        let thread = std::thread::Builder::new().name("log-sync".into()).spawn(run)?;
        Ok(Self { queue: Some(queue), thread: Some(thread), clock })
    }

    pub(crate) fn clock(&self) -> DiskClock {
        self.clock.clone()
    }

    /// Calls `done` once everything written before this call is durable, or
    /// cannot be made so. `bound` is what the log holds then.
    pub(crate) fn after_sync(&self, bound: Extent, seal: Seal, done: Done) {
        self.clock.waiting();
        let waiting = Waiting { bound, seal, done };
        let gone = match &self.queue {
            Some(queue) => queue.send(waiting).err().map(|e| e.0),
            None => Some(waiting),
        };
        if let Some(waiting) = gone {
            (waiting.done)(Err(io::Error::other("the log store is closed")));
        }
    }
}

impl Drop for Syncer {
    fn drop(&mut self) {
        self.queue = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct SyncThread {
    db: sled::Db,
    file: File,
    seal: SealFile,
    /// What the seal says.
    sealed: Extent,
    /// What is durable.
    bound: Extent,
    clock: DiskClock,
}

impl SyncThread {
    fn serve(mut self, waiting: &Receiver<Waiting>) {
        let mut broken: Option<io::Error> = None;
        let mut sealed_at = Instant::now();
        loop {
            let first = match waiting.recv_timeout(SEAL_INTERVAL) {
                Ok(first) => Some(first),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => break,
            };
            let batch: Vec<_> = first.into_iter().chain(waiting.try_iter()).collect();
            let mut seal = batch.iter().map(|w| w.seal).max().unwrap_or(Seal::Later);
            if sealed_at.elapsed() >= SEAL_INTERVAL {
                seal = seal.max(Seal::Next);
            }
            // After a failed sync the kernel may have dropped the dirty pages,
            // so a later success would prove nothing. Nothing is acknowledged
            // any more.
            if broken.is_none() && !batch.is_empty() {
                broken = self.sync().err();
                self.bound = batch.last().map_or(self.bound, |w| w.bound);
            }
            if broken.is_none() && seal == Seal::First {
                broken = self.write_seal().err();
                sealed_at = Instant::now();
            }
            self.clock.done(batch.len());
            broken.iter().for_each(|error| self.clock.failed(error));
            for write in batch {
                (write.done)(match &broken {
                    None => Ok(()),
                    Some(e) => Err(io::Error::new(e.kind(), e.to_string())),
                });
            }
            if broken.is_none() && seal == Seal::Next {
                broken = self.write_seal().err();
                broken.iter().for_each(|error| self.clock.failed(error));
                sealed_at = Instant::now();
            }
        }
        if broken.is_none() {
            let _ = self.write_seal();
        }
    }

    fn sync(&self) -> io::Result<()> {
        self.db.flush().map_err(io::Error::other)?;
        self.file.sync_data()
    }

    fn write_seal(&mut self) -> io::Result<()> {
        if self.sealed != self.bound {
            self.seal.write(self.bound)?;
            self.sealed = self.bound;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_that_came_while_another_was_synced_still_waits() {
        let clock = DiskClock::default();
        clock.waiting();
        clock.waiting();
        clock.done(1);
        assert!(clock.0.lock().is_ok_and(|state| state.waiting_since.is_some()));
        clock.done(1);
        assert_eq!(clock.oldest_wait(), Duration::ZERO);
    }
}
