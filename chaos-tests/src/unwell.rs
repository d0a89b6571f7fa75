//! Disks that are slow to take what is written, and clocks that are slewed or
//! ahead, by a preloaded library.

use crate::command::run;
use anyhow::{Context, Result};
use std::path::{Path, PathBuf};
use std::process::Command;

const SOURCE: &str = include_str!("unwell.c");

/// The library, built.
#[derive(Clone, Debug)]
pub(crate) struct Unwell(PathBuf);

impl Unwell {
    /// Builds it in `dir`.
    pub(crate) fn build(dir: &Path) -> Result<Self> {
        std::fs::create_dir_all(dir)?;
        let (source, library) = (dir.join("unwell.c"), dir.join("unwell.so"));
        std::fs::write(&source, SOURCE)?;
        let (from, to) = (source.display().to_string(), library.display().to_string());
        let built = run("cc", &["-shared", "-fPIC", "-O1", "-o", &to, &from])?.ok();
        built.context("building the preloaded library")?;
        Ok(Self(library))
    }

    /// Has a program obey these files: how long its disk takes, microseconds;
    /// how long its clock's ticks are, microseconds; by how much its wall clock is
    /// ahead, seconds.
    pub(crate) fn preload(&self, command: &mut Command, [delay, tick, ahead]: [&Path; 3]) {
        command.env("LD_PRELOAD", &self.0);
        command.env("SLOW_DISK", delay).env("SLEW", tick).env("AHEAD", ahead);
    }

    /// Has it be killed at the call that the file `at` says, of those that change
    /// something below `data`.
    pub(crate) fn kill(&self, command: &mut Command, at: &Path, data: &Path) {
        command.env("KILL_AT", at).env("DATA", data);
    }
}

/// Says a number to the preloaded library; none: nothing is wrong.
pub(crate) fn say(path: &Path, number: Option<u128>) -> Result<()> {
    let Some(number) = number else {
        return match std::fs::remove_file(path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e.into()),
            _ => Ok(()),
        };
    };
    // In one step: a reader finds the old text or the new one.
    let new = path.with_extension("new");
    std::fs::write(&new, number.to_string())?;
    Ok(std::fs::rename(&new, path)?)
}
