//! Which addresses are ours, on a kernel that keeps no mark of it.

use crate::records::{Placed, record_addresses, recorded_addresses};
use std::collections::BTreeSet;
use std::path::PathBuf;
use tracing::warn;

/// The addresses of a kernel that does not say whose they are.
pub(crate) struct Ledger {
    path: PathBuf,
    pub(crate) placed: BTreeSet<Placed>,
    /// Whether the kernel says so, once that is known.
    pub(crate) marks: Option<bool>,
}

impl Ledger {
    pub(crate) fn open(path: PathBuf) -> Self {
        let placed = recorded_addresses(&path);
        Self { path, placed, marks: None }
    }

    pub(crate) fn store(&self) {
        if let Err(error) = record_addresses(&self.path, &self.placed) {
            warn!(path = %self.path.display(), %error, "addresses not recorded");
        }
    }

    /// It is not ours any more.
    pub(crate) fn remove(&mut self, placed: Placed) {
        if self.placed.remove(&placed) {
            self.store();
        }
    }

    pub(crate) fn clear(&mut self) {
        self.placed.clear();
        let _ = std::fs::remove_file(&self.path);
    }
}
