//! The thread that makes writes durable before they are acknowledged.
//!
//! Writes that wait are synced together.

use crate::disk::DiskClock;
use crate::log_disk::LogDisk;
use crate::seal::SealFile;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
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
    /// Before the write is acknowledged.
    First,
}

/// A write that waits for the disk.
struct Waiting {
    /// Index of the log's last entry with it.
    bound: u64,
    seal: Seal,
    done: Done,
}

/// Syncs a log's disk on its own thread.
#[derive(Debug)]
pub(crate) struct Syncer {
    queue: Option<SyncSender<Waiting>>,
    thread: Option<JoinHandle<()>>,
    clock: DiskClock,
}

impl Syncer {
    pub(crate) fn start(disk: Arc<dyn LogDisk>, seal: SealFile, bound: u64) -> io::Result<Self> {
        let clock = DiskClock::default();
        let (queue, waiting) = sync_channel(QUEUED);
        let run = {
            let clock = clock.clone();
            move || {
                let thread = SyncThread { disk, seal, sealed: bound, bound, clock };
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
    pub(crate) fn after_sync(&self, bound: u64, seal: Seal, done: Done) {
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
    disk: Arc<dyn LogDisk>,
    seal: SealFile,
    /// What the seal says.
    sealed: u64,
    /// What is durable.
    bound: u64,
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
            let seal = batch.iter().map(|w| w.seal).max().unwrap_or(Seal::Later);
            // After a failed sync the kernel may have dropped the dirty pages,
            // so a later success would prove nothing. Nothing is acknowledged
            // any more.
            if broken.is_none() && !batch.is_empty() {
                broken = self.disk.sync().err();
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
            if broken.is_none() && sealed_at.elapsed() >= SEAL_INTERVAL {
                broken = self.write_seal().err();
                broken.iter().for_each(|error| self.clock.failed(error));
                sealed_at = Instant::now();
            }
        }
        if broken.is_none() {
            let _ = self.write_seal();
        }
    }

    fn write_seal(&mut self) -> io::Result<()> {
        if self.sealed != self.bound {
            self.seal.write(self.bound)?;
            self.sealed = self.bound;
        }
        Ok(())
    }
}
