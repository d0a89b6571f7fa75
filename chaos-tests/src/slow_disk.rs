//! Disks that are slow to take what is written, by a preloaded library.

use crate::command::run;
use anyhow::{Context, Result};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const SOURCE: &str = include_str!("slow_disk.c");

/// The library, built.
#[derive(Clone, Debug)]
pub(crate) struct SlowDisk(PathBuf);

impl SlowDisk {
    /// Builds it in `dir`.
    pub(crate) fn build(dir: &Path) -> Result<Self> {
        std::fs::create_dir_all(dir)?;
        let (source, library) = (dir.join("slow_disk.c"), dir.join("slow_disk.so"));
        std::fs::write(&source, SOURCE)?;
        let (from, to) = (source.display().to_string(), library.display().to_string());
        let built = run("cc", &["-shared", "-fPIC", "-O1", "-o", &to, &from])?.ok();
        built.context("building the slow disk")?;
        Ok(Self(library))
    }

    /// Has a program obey the file `delay`.
    pub(crate) fn preload(&self, command: &mut Command, delay: &Path) {
        command.env("LD_PRELOAD", &self.0).env("SLOW_DISK", delay);
    }
}

/// From now on each write takes so much longer.
pub(crate) fn hold_back(delay: &Path, by: Duration) -> Result<()> {
    if by.is_zero() {
        return match std::fs::remove_file(delay) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e.into()),
            _ => Ok(()),
        };
    }
    // In one step: a reader finds the old text or the new one.
    let new = delay.with_extension("new");
    std::fs::write(&new, by.as_micros().to_string())?;
    Ok(std::fs::rename(&new, delay)?)
}
