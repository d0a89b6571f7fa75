//! Running commands and waiting for conditions.

use anyhow::{Context, Result, bail};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How a command ended.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Exit code; `None`: by a signal.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl From<Output> for Outcome {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

impl Outcome {
    /// Standard output of a command that succeeded.
    ///
    /// # Errors
    /// It did not; with its standard error.
    pub fn ok(self) -> Result<String> {
        if self.code != Some(0) {
            bail!("exit code {:?}: {}{}", self.code, self.stdout, self.stderr);
        }
        Ok(self.stdout)
    }
}

/// Runs a command to its end.
///
/// # Errors
/// It cannot be started.
pub fn run(program: &str, arguments: &[&str]) -> Result<Outcome> {
    let output = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("starting {program}"))?;
    Ok(output.into())
}

/// Where `vipd` and `vipctl` are: beside this program's build.
///
/// # Errors
/// They were not built.
pub fn binaries() -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    let dir =
        own.ancestors().find(|dir| dir.join("vipd").is_file() && dir.join("vipctl").is_file());
    let dir = dir.context("vipd and vipctl are not built; run `cargo build` first")?;
    Ok(dir.to_owned())
}

/// A wait ended without success: the next cluster that goes shows its logs.
pub(crate) static GAVE_UP: AtomicBool = AtomicBool::new(false);

/// Waits until `condition` holds.
///
/// # Errors
/// It does not within `limit`; `what` is in the message.
pub fn wait_for<T>(
    what: &str,
    limit: Duration,
    mut condition: impl FnMut() -> Option<T>,
) -> Result<T> {
    let until = Instant::now() + limit;
    loop {
        if let Some(found) = condition() {
            return Ok(found);
        }
        if Instant::now() >= until {
            GAVE_UP.store(true, Ordering::Relaxed);
            bail!("not within {limit:?}: {what}");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}
