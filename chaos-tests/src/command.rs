//! Running commands and waiting for conditions.

use anyhow::{Context, Result, anyhow, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
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

/// How long a command may run: the slowest, joining and leaving, give up by
/// themselves after 30 s.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(60);

/// Runs a command to its end.
///
/// # Errors
/// It cannot be started, or does not end; then it is killed, and what it wrote
/// is in the message.
pub fn run(program: &str, arguments: &[&str]) -> Result<Outcome> {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().with_context(|| format!("starting {program}"))?;
    let pid = Pid::from_raw(i32::try_from(child.id())?);
    let (ended, end) = mpsc::channel();
    std::thread::scope(|scope| {
        let reader = scope.spawn(move || {
            let output = child.wait_with_output();
            let _ = ended.send(());
            output
        });
        let in_time = end.recv_timeout(COMMAND_TIMEOUT).is_ok();
        if !in_time {
            let _ = kill(pid, Signal::SIGKILL);
        }
        let output = reader.join().map_err(|_| anyhow!("reading from {program} failed"))?;
        let outcome = Outcome::from(output?);
        if !in_time {
            GAVE_UP.store(true, Ordering::Relaxed);
            let line = arguments.join(" ");
            let Outcome { stdout, stderr, .. } = outcome;
            bail!("not ended within {COMMAND_TIMEOUT:?}: {program} {line}\n{stdout}{stderr}");
        }
        Ok(outcome)
    })
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

/// Waits until `condition` holds; `None` if it does not within `limit`.
pub fn within<T>(limit: Duration, mut condition: impl FnMut() -> Option<T>) -> Option<T> {
    let until = Instant::now() + limit;
    loop {
        let found = condition();
        if found.is_some() || Instant::now() >= until {
            return found;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Waits until `condition` holds.
///
/// # Errors
/// It does not within `limit`; `what` is in the message.
pub fn wait_for<T>(what: &str, limit: Duration, condition: impl FnMut() -> Option<T>) -> Result<T> {
    within(limit, condition).ok_or_else(|| {
        GAVE_UP.store(true, Ordering::Relaxed);
        anyhow!("not within {limit:?}: {what}")
    })
}
