//! The kernel's freezer, cgroup v2: stops processes without a signal that they
//! or their parent could see.

use anyhow::{Context, Result};
use std::path::PathBuf;

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
    /// Freezes `pids` in a cgroup called `name`.
    ///
    /// # Errors
    /// There is no cgroup v2, or no right to it.
    pub(crate) fn freeze(name: &str, pids: impl IntoIterator<Item = i32>) -> Result<Self> {
        let parent = mount_point()?;
        let freezer = Self { dir: parent.join(name), parent };
        std::fs::create_dir(&freezer.dir).context("making a cgroup")?;
        for pid in pids {
            std::fs::write(freezer.dir.join("cgroup.procs"), pid.to_string())?;
        }
        std::fs::write(freezer.dir.join("cgroup.freeze"), "1")?;
        Ok(freezer)
    }
}

impl Drop for Freezer {
    fn drop(&mut self) {
        let _ = std::fs::write(self.dir.join("cgroup.freeze"), "0");
        let pids = std::fs::read_to_string(self.dir.join("cgroup.procs")).unwrap_or_default();
        for pid in pids.lines() {
            let _ = std::fs::write(self.parent.join("cgroup.procs"), pid);
        }
        let _ = std::fs::remove_dir(&self.dir);
    }
}
