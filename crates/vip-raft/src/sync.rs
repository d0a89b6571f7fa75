//! The thread that makes writes durable before they are acknowledged.
//!
//! sled's own `flush` starts the write-out but never asks the disk to finish
//! it, so its file is synced here. Writes that wait are synced together.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Writes that may wait for the disk; beyond it the writer waits too.
const QUEUED: usize = 1024;

type Done = Box<dyn FnOnce(Result<(), io::Error>) + Send>;

/// Since when the disk has been asked for something it has not done.
#[derive(Clone, Debug, Default)]
pub struct DiskClock(Arc<Mutex<DiskState>>);

#[derive(Debug, Default)]
struct DiskState {
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
        state.waiting_since.get_or_insert_with(Instant::now);
    }

    fn done(&self, more_wait: bool, error: Option<&io::Error>) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.waiting_since = more_wait.then(Instant::now);
        if let Some(error) = error {
            state.failed.get_or_insert_with(|| error.to_string());
        }
    }
}

/// Syncs a sled database on its own thread.
#[derive(Debug)]
pub(crate) struct Syncer {
    queue: Option<SyncSender<Done>>,
    thread: Option<JoinHandle<()>>,
    clock: DiskClock,
}

impl Syncer {
    pub(crate) fn start(db: sled::Db, dir: &Path) -> io::Result<Self> {
        let file = File::open(dir.join("db"))?;
        let clock = DiskClock::default();
        let (queue, waiting) = sync_channel(QUEUED);
        let run = {
            let clock = clock.clone();
            move || serve(&db, &file, &waiting, &clock)
        };
        let thread = std::thread::Builder::new().name("log-sync".into()).spawn(run)?;
        Ok(Self { queue: Some(queue), thread: Some(thread), clock })
    }

    pub(crate) fn clock(&self) -> DiskClock {
        self.clock.clone()
    }

    /// Calls `done` once everything written before this call is durable, or
    /// cannot be made so.
    pub(crate) fn after_sync(&self, done: Done) {
        self.clock.waiting();
        let gone = match &self.queue {
            Some(queue) => queue.send(done).err().map(|e| e.0),
            None => Some(done),
        };
        if let Some(done) = gone {
            done(Err(io::Error::other("the log store is closed")));
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

fn serve(db: &sled::Db, file: &File, waiting: &Receiver<Done>, clock: &DiskClock) {
    let mut broken: Option<io::Error> = None;
    while let Ok(first) = waiting.recv() {
        let mut batch = vec![first];
        batch.extend(waiting.try_iter());
        // After a failed sync the kernel may have dropped the dirty pages, so a
        // later success would prove nothing. Nothing is acknowledged any more.
        if broken.is_none() {
            broken = sync(db, file).err();
        }
        clock.done(false, broken.as_ref());
        for done in batch {
            done(match &broken {
                None => Ok(()),
                Some(e) => Err(io::Error::new(e.kind(), e.to_string())),
            });
        }
    }
}

fn sync(db: &sled::Db, file: &File) -> io::Result<()> {
    db.flush().map_err(io::Error::other)?;
    file.sync_data()
}
