//! The votes of a running node: written off the threads that serve, one after the
//! other, and watched as the log's writes are.

use crate::disk::DiskClock;
use crate::votes_file::{Saved, VotesFile};
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use vip_core::{Term, Vote};

/// See the module. Clones share it.
#[derive(Clone)]
pub(crate) struct Votes {
    file: Arc<Mutex<VotesFile>>,
    /// [`Saved::lost_up_to`]; 0 for none. Read while the file is being written.
    lost_up_to: Arc<AtomicU64>,
    clock: DiskClock,
}

impl Votes {
    pub(crate) fn of(file: VotesFile) -> Self {
        let lost_up_to = file.saved().lost_up_to.unwrap_or_default();
        let lost_up_to = Arc::new(AtomicU64::new(lost_up_to.0));
        Self { file: Arc::new(Mutex::new(file)), lost_up_to, clock: DiskClock::default() }
    }

    pub(crate) fn saved(&self) -> Saved {
        self.file.lock().unwrap_or_else(PoisonError::into_inner).saved()
    }

    pub(crate) fn lost_up_to(&self) -> Option<Term> {
        Some(Term(self.lost_up_to.load(Ordering::Acquire))).filter(|term| *term > Term(0))
    }

    pub(crate) fn clock(&self) -> &DiskClock {
        &self.clock
    }

    /// Returns when it is durable.
    pub(crate) async fn save(&self, vote: Vote) -> io::Result<()> {
        self.write(move |file| file.vote(vote)).await?;
        self.lost_up_to.store(0, Ordering::Release);
        Ok(())
    }

    /// Returns when it is durable.
    pub(crate) async fn longest(&self, longest: Duration) -> io::Result<()> {
        self.write(move |file| file.longest(longest)).await
    }

    async fn write(
        &self,
        write: impl FnOnce(&mut VotesFile) -> io::Result<()> + Send + 'static,
    ) -> io::Result<()> {
        let (file, clock) = (self.file.clone(), self.clock.clone());
        clock.waiting();
        let written = tokio::task::spawn_blocking(move || {
            let written = write(&mut file.lock().unwrap_or_else(PoisonError::into_inner));
            clock.done(1);
            written.inspect_err(|error| clock.failed(error))
        });
        written.await.map_err(io::Error::other)?
    }
}
