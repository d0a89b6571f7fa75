//! `vipd run` without systemd: a minimal parent that keeps agent and guard
//! running and ends with both. It has no runtime and no sockets.

use crate::{FAILED, Options, USAGE, agent};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use signal_hook::consts::{SIGCHLD, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};
use vip_agent::Config;

/// A child that lived shorter than this, twice in a row, is started again after
/// a pause, so that a broken host does not spin.
const SHORT_LIFE: Duration = Duration::from_secs(1);
/// The pause.
const PAUSE: Duration = Duration::from_millis(500);
/// How long children may take to end in order.
const END: Duration = Duration::from_millis(1900);

/// Tells a child whose child it is.
const PARENT: &str = "VIPD_PARENT";

/// In a child: end in order when the parent is gone, however it went.
pub(crate) fn end_with_parent() {
    let Some(parent) = std::env::var(PARENT).ok().and_then(|p| p.parse().ok()) else { return };
    let _ = nix::sys::prctl::set_pdeathsig(Signal::SIGTERM);
    if nix::unistd::getppid() != Pid::from_raw(parent) {
        std::process::exit(i32::from(FAILED));
    }
}

struct Kept {
    what: &'static str,
    options: Options,
    child: Child,
    started: Instant,
    /// Short lives in a row.
    failures: u32,
}

impl Kept {
    fn start(what: &'static str, options: &Options) -> std::io::Result<Self> {
        let child = spawn(what, options)?;
        tracing::info!(pid = child.id(), "{what} started");
        Ok(Self { what, options: options.clone(), child, started: Instant::now(), failures: 0 })
    }

    /// Starts it again if it ended. An end that a restart cannot mend is
    /// returned.
    fn look(&mut self) -> std::io::Result<Option<ExitStatus>> {
        let Some(status) = self.child.try_wait()? else { return Ok(None) };
        if status.code() == Some(i32::from(USAGE)) {
            return Ok(Some(status));
        }
        tracing::warn!(%status, "{} ended; starting it again", self.what);
        let failures = if self.started.elapsed() < SHORT_LIFE { self.failures + 1 } else { 0 };
        if failures > 1 {
            std::thread::sleep(PAUSE);
        }
        *self = Self { failures, ..Self::start(self.what, &self.options)? };
        Ok(None)
    }

    fn signal(&self, signal: Signal) {
        if let Ok(pid) = i32::try_from(self.child.id()) {
            let _ = kill(Pid::from_raw(pid), signal);
        }
    }

    fn wait_until(&mut self, until: Instant) -> bool {
        while Instant::now() < until {
            match self.child.try_wait() {
                Ok(None) => std::thread::sleep(Duration::from_millis(5)),
                _ => return true,
            }
        }
        false
    }
}

fn spawn(what: &str, options: &Options) -> std::io::Result<Child> {
    use std::os::unix::process::CommandExt;
    let mut command = Command::new(std::env::current_exe()?);
    command.arg(what).args(options.arguments());
    if what == "guard" {
        command.arg("--standby");
    }
    // A group of its own: ctrl-C reaches the parent, which ends both in order.
    command.process_group(0);
    command.env(PARENT, std::process::id().to_string());
    command.spawn()
}

pub(crate) fn run(options: &Options, config: Config) -> anyhow::Result<()> {
    // systemd keeps both units itself.
    if std::env::var_os("INVOCATION_ID").is_some() && std::env::var_os("NOTIFY_SOCKET").is_some() {
        return agent::run(options, config);
    }
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGCHLD])?;
    let mut kept = vec![];
    // Where a guard runs already this one waits in line, and takes over if that
    // one goes.
    kept.push(Kept::start("guard", options)?);
    kept.push(Kept::start("agent", options)?);
    for signal in signals.forever() {
        match signal {
            SIGCHLD => {
                for index in 0..kept.len() {
                    if let Some(status) = kept[index].look()? {
                        end(&mut kept);
                        let code = status.code().unwrap_or(i32::from(FAILED));
                        std::process::exit(code);
                    }
                }
            }
            _ => break,
        }
    }
    end(&mut kept);
    Ok(())
}

/// The agent first, which hands over what it holds; then the guard, which lets
/// go of what is left.
fn end(kept: &mut [Kept]) {
    let until = Instant::now() + END;
    for child in kept.iter_mut().rev() {
        child.signal(Signal::SIGTERM);
        if !child.wait_until(until) {
            child.signal(Signal::SIGKILL);
            let _ = child.child.wait();
        }
    }
}
