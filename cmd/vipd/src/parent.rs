//! `vipd run` without systemd: a minimal parent that keeps agent and guard running, and who
//! runs the programs of checks, and ends with all of them. It has no runtime, and of sockets
//! the one that the last of these listens at.

use crate::{FAILED, Options, USAGE, agent};
use anyhow::Context;
use nix::sys::prctl::set_child_subreaper;
use nix::sys::signal::{Signal, kill};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{Pid, geteuid, getpgrp};
use signal_hook::consts::{SIGCHLD, SIGINT, SIGTERM, SIGUSR1};
use signal_hook::iterator::Signals;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};
use vip_agent::Config;
use vip_probe::exec::end_left;

/// A child that lived shorter than this, twice in a row, is started again after
/// a pause, so that a broken host does not spin.
const SHORT_LIFE: Duration = Duration::from_secs(1);
/// The pause.
const PAUSE: Duration = Duration::from_millis(500);
/// The same where nobody waits for it.
const EXEC_PAUSE: Duration = Duration::from_secs(30);
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

/// A child that is started again whenever it ended.
struct Kept {
    what: &'static str,
    child: Option<Child>,
    started: Instant,
    /// When to start it, if it does not run.
    due: Instant,
    /// Short lives in a row.
    failures: u32,
}

impl Kept {
    fn new(what: &'static str) -> Self {
        let now = Instant::now();
        Self { what, child: None, started: now, due: now, failures: 0 }
    }

    /// Starts it again if it ended. An end that a restart cannot mend is
    /// returned.
    fn look(&mut self, how: &How<'_>) -> Option<ExitStatus> {
        let ended = self.child.as_mut().and_then(|child| child.try_wait().ok().flatten());
        if let Some(status) = ended {
            self.child = None;
            // Without programs of checks there is a node all the same.
            if status.code() == Some(i32::from(USAGE)) && self.what != EXEC {
                return Some(status);
            }
            tracing::warn!(%status, "{} ended; starting it again", self.what);
            self.failures = if self.started.elapsed() < SHORT_LIFE { self.failures + 1 } else { 0 };
            let pause = match (self.failures, self.what) {
                (0 | 1, _) => Duration::ZERO,
                (_, EXEC) => EXEC_PAUSE,
                _ => PAUSE,
            };
            self.due = Instant::now() + pause;
        }
        if self.child.is_none() && Instant::now() >= self.due {
            self.start(how);
        }
        None
    }

    fn start(&mut self, how: &How<'_>) {
        self.started = Instant::now();
        match how.spawn(self.what) {
            Ok(child) => {
                tracing::info!(pid = child.id(), "{} started", self.what);
                self.child = Some(child);
            }
            // As while the program is being replaced.
            Err(error) => {
                let program = how.program.display();
                tracing::warn!(%program, %error, "{} cannot be started; trying again", self.what);
                self.due = Instant::now() + PAUSE;
            }
        }
    }

    /// How long nothing has to be done about it, if that is known.
    fn idle(&self) -> Option<Duration> {
        let due = self.due.saturating_duration_since(Instant::now());
        self.child.is_none().then_some(due)
    }

    fn pid(&self) -> Option<Pid> {
        let pid = self.child.as_ref().and_then(|child| i32::try_from(child.id()).ok());
        pid.map(Pid::from_raw)
    }

    fn signal(&self, signal: Signal) {
        if let Some(pid) = self.pid() {
            let _ = kill(pid, signal);
        }
    }

    fn wait_until(&mut self, until: Instant) -> bool {
        let Some(child) = &mut self.child else { return true };
        while Instant::now() < until {
            match child.try_wait() {
                Ok(None) => std::thread::sleep(Duration::from_millis(5)),
                _ => return true,
            }
        }
        false
    }
}

/// What children are made of.
struct How<'a> {
    programs: Option<Programs>,
    /// Where this program was when it was started. What the kernel says later is
    /// of no use once another one has taken its place.
    program: PathBuf,
    options: &'a Options,
}

/// Whether a process is this one's user's.
fn is_own(process: Pid) -> bool {
    std::fs::metadata(format!("/proc/{process}")).is_ok_and(|it| it.uid() == geteuid().as_raw())
}

/// Whether a variable of the environment is for those who call a cloud's API.
fn is_of_cloud(name: &std::ffi::OsStr) -> bool {
    [b"AWS_", b"OS_" as &[u8]].iter().any(|begins| name.as_encoded_bytes().starts_with(begins))
}

impl How<'_> {
    fn spawn(&self, what: &str) -> std::io::Result<Child> {
        use std::os::unix::process::CommandExt;
        let mut command = Command::new(&self.program);
        command.arg(what).args(self.options.arguments());
        if what == "guard" {
            command.arg("--standby");
        }
        if what != EXEC {
            // A group of its own: ctrl-C reaches the parent, which ends both in order. The other
            // makes itself a session.
            command.process_group(0);
        }
        if what != AGENT {
            // Keys of a cloud are the agent's alone.
            for (name, _) in std::env::vars_os().filter(|(name, _)| is_of_cloud(name)) {
                command.env_remove(name);
            }
        }
        command.env(PARENT, std::process::id().to_string());
        if let Some(programs) = self.programs.as_ref().filter(|_| what == EXEC) {
            programs.give_to(&mut command)?;
        }
        command.spawn()
    }
}

const AGENT: &str = "agent";
/// What is started beside agent and guard where there is a folder of programs.
const EXEC: &str = "exec";

/// Where the agent asks for programs of checks. It stays while who listens is started again.
struct Programs(UnixListener);

impl Programs {
    /// `None`: there are no such programs.
    fn of(config: &Config) -> anyhow::Result<Option<Self>> {
        let folder = config.probe.programs().or_else(|| config.cloud.exec.programs());
        let Some(folder) = folder else { return Ok(None) };
        anyhow::ensure!(
            geteuid().is_root(),
            "programs of {} are not run: that takes root, or a unit of their own",
            folder.display()
        );
        let socket = &config.probe.exec_socket;
        let why = || format!("programs of {} cannot be run", folder.display());
        if let Some(dir) = socket.parent() {
            std::fs::create_dir_all(dir).with_context(why)?;
        }
        let new = socket.with_extension("new");
        let _ = std::fs::remove_file(&new);
        // At no time may another than this user reach it.
        let before = umask(Mode::from_bits_truncate(0o177));
        let listener = UnixListener::bind(&new).with_context(why);
        umask(before);
        let listener = listener?;
        std::fs::rename(&new, socket).with_context(why)?;
        // Whoever outlives who ran it is this process's child then, and ends.
        set_child_subreaper(true).with_context(why)?;
        Ok(Some(Self(listener)))
    }

    fn give_to(&self, command: &mut Command) -> std::io::Result<()> {
        command.stdin(OwnedFd::from(self.0.try_clone()?));
        Ok(())
    }
}

pub(crate) fn run(options: &Options, config: Config) -> anyhow::Result<()> {
    // systemd keeps both units itself.
    if std::env::var_os("INVOCATION_ID").is_some() && std::env::var_os("NOTIFY_SOCKET").is_some() {
        return agent::run(options, config);
    }
    check_capabilities(&config)?;
    let signals = signals()?;
    let programs = Programs::of(&config).unwrap_or_else(|error| {
        tracing::warn!("{error:#}");
        None
    });
    // The last is the first to end. Where a guard runs already this one waits in line, and
    // takes over if that one goes.
    let mut kept: Vec<_> = programs.iter().map(|_| Kept::new(EXEC)).collect();
    kept.extend([Kept::new("guard"), Kept::new(AGENT)]);
    let how = How { programs, program: std::env::current_exe()?, options };
    loop {
        if let Some(status) = kept.iter_mut().find_map(|child| child.look(&how)) {
            end(&mut kept);
            std::process::exit(status.code().unwrap_or(i32::from(FAILED)));
        }
        if how.programs.is_some() {
            let groups: Vec<_> = kept.iter().filter_map(Kept::pid).chain([getpgrp()]).collect();
            // Of another user: who left it is no agent and no guard, nor somebody's who started
            // this one.
            end_left(|pid, group| !groups.contains(&group) && !is_own(pid));
        }
        let signal = match kept.iter().filter_map(Kept::idle).min() {
            Some(idle) => signals.recv_timeout(idle),
            None => signals.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        match signal {
            Ok(SIGCHLD) | Err(RecvTimeoutError::Timeout) => {}
            // The agent's: it has something to write out.
            Ok(SIGUSR1) => {
                kept.iter().filter(|kept| kept.what == AGENT).for_each(|agent| {
                    agent.signal(Signal::SIGUSR1);
                });
            }
            Ok(_) | Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    end(&mut kept);
    Ok(())
}

/// Signals, so that they can be waited for with a limit. Those that end us come
/// by a way of their own: children that end again and again do not stand before
/// them.
fn signals() -> anyhow::Result<Receiver<i32>> {
    let (send, receive) = mpsc::channel();
    for kind in [&[SIGTERM, SIGINT][..], &[SIGCHLD, SIGUSR1]] {
        let (mut signals, send) = (Signals::new(kind)?, send.clone());
        std::thread::spawn(move || {
            for signal in signals.forever() {
                if send.send(signal).is_err() {
                    return;
                }
            }
        });
    }
    Ok(receive)
}

/// What the guard cannot do without: no restart brings it.
fn check_capabilities(config: &Config) -> anyhow::Result<()> {
    /// `CAP_NET_ADMIN`, `CAP_NET_RAW`, `CAP_BPF` (linux/capability.h).
    const NEEDED: [(u32, &str); 3] = [(12, "CAP_NET_ADMIN"), (13, "CAP_NET_RAW"), (39, "CAP_BPF")];
    let status = std::fs::read_to_string("/proc/self/status")?;
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = u64::from_str_radix(effective.unwrap_or_default().trim(), 16)?;
    let needed = &NEEDED[..if config.guard.gate == "optional" { 2 } else { 3 }];
    let missing: Vec<_> =
        needed.iter().filter(|(bit, _)| effective >> bit & 1 == 0).map(|(_, name)| *name).collect();
    anyhow::ensure!(
        missing.is_empty(),
        "this process lacks {}, without which no VIP can be held: run vipd as root. Nothing was \
         started",
        missing.join(", ")
    );
    Ok(())
}

/// The agent first, which hands over what it holds; then the guard, which lets
/// go of what is left; then who runs programs.
fn end(kept: &mut [Kept]) {
    let until = Instant::now() + END;
    for child in kept.iter_mut().rev() {
        child.signal(Signal::SIGTERM);
        if !child.wait_until(until) {
            child.signal(Signal::SIGKILL);
            let _ = child.child.as_mut().map(Child::wait);
        }
    }
}
