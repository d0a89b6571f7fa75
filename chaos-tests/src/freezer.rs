//! The kernel's freezer, cgroup v2: stops processes without a signal that they
//! or their parent could see.

use crate::command::within;
use anyhow::{Context, Result};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

static FREEZERS: AtomicU32 = AtomicU32::new(0);
/// How long the last process of a cgroup may take to go.
const EMPTYING: Duration = Duration::from_secs(2);

/// Frozen processes; they go on when this is dropped.
#[derive(Debug)]
pub(crate) struct Freezer {
    dir: PathBuf,
    parent: PathBuf,
}

fn mount_point() -> Result<PathBuf> {
    let mounts = std::fs::read_to_string("/proc/mounts")?;
    let mut mounts = mounts.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let mount = mounts.find(|m| m.get(2) == Some(&"cgroup2")).context("no cgroup v2 is mounted")?;
    Ok(PathBuf::from(mount[1]))
}

impl Freezer {
    /// Freezes `pids` in a cgroup called after `name`.
    ///
    /// # Errors
    /// There is no cgroup v2, or no right to it.
    pub(crate) fn freeze(name: &str, pids: impl IntoIterator<Item = i32>) -> Result<Self> {
        let parent = mount_point()?;
        let number = FREEZERS.fetch_add(1, Ordering::Relaxed);
        let freezer = Self { dir: parent.join(format!("{name}-{number}")), parent };
        std::fs::create_dir(&freezer.dir).context("making a cgroup")?;
        for pid in pids {
            std::fs::write(freezer.dir.join("cgroup.procs"), pid.to_string())?;
        }
        std::fs::write(freezer.dir.join("cgroup.freeze"), "1")?;
        Ok(freezer)
    }
}

impl Freezer {
    /// Moves everything out, also what was started in it meanwhile.
    fn empty(&self) -> Option<()> {
        let pids = std::fs::read_to_string(self.dir.join("cgroup.procs")).ok()?;
        for pid in pids.lines() {
            let _ = std::fs::write(self.parent.join("cgroup.procs"), pid);
        }
        std::fs::remove_dir(&self.dir).ok()
    }
}

impl Drop for Freezer {
    fn drop(&mut self) {
        let _ = std::fs::write(self.dir.join("cgroup.freeze"), "0");
        // A killed process stays until its parent took note.
        let _ = within(EMPTYING, || self.empty());
    }
}
