//! vipd on one host.

use crate::command::{Outcome, binaries, run, wait_for, within};
use crate::net::exec;
use crate::unwell::{Unwell, say};
use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// How long a process may take to appear or to end.
const PROCESS_TIMEOUT: Duration = Duration::from_secs(10);

/// Which process of a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Process {
    /// `vipd run` itself.
    Parent,
    /// The agent.
    Agent,
    /// The guard.
    Guard,
}

/// A host that can run vipd.
#[derive(Debug)]
pub struct Host {
    /// Its name, `n1`….
    pub name: String,
    /// Where other nodes reach it.
    pub address: String,
    namespace: String,
    dir: PathBuf,
    settings: Vec<String>,
    environment: Vec<(String, String)>,
    unwell: Option<Unwell>,
    version: Version,
    child: Option<Child>,
}

/// A version of vipd.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Version {
    /// This one.
    #[default]
    This,
    /// One with an operation more.
    Next,
}

impl Version {
    /// Where its vipd is.
    ///
    /// # Errors
    /// It was not built.
    pub fn vipd(self) -> Result<PathBuf> {
        let built = binaries()?;
        let vipd = match self {
            Self::This => built.join("vipd"),
            Self::Next => built.join("next-version/vipd"),
        };
        anyhow::ensure!(vipd.is_file(), "{} is not built; `cargo xtask test` does", vipd.display());
        Ok(vipd)
    }
}

/// The admin socket of a host.
#[derive(Clone, Debug)]
pub struct Control {
    socket: String,
}

impl Control {
    /// Runs vipctl against it.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn ctl(&self, arguments: &[&str]) -> Result<Outcome> {
        let program = binaries()?.join("vipctl").display().to_string();
        run(&program, &[&["--socket", &self.socket], arguments].concat())
    }
}

impl Host {
    /// A host in `namespace` with its files in `dir`.
    ///
    /// # Errors
    /// The directory cannot be made.
    pub fn new(
        name: &str,
        namespace: String,
        address: String,
        dir: PathBuf,
        settings: &[String],
    ) -> Result<Self> {
        std::fs::create_dir_all(&dir)?;
        let path = |file: &str| dir.join(file).display().to_string();
        let mut all = vec![
            format!("node.name={name}"),
            format!("node.data_dir={}", path("data")),
            format!("admin.socket={}", path("admin.sock")),
            format!("guard.socket={}", path("guard.sock")),
            format!("probe.exec_socket={}", path("exec.sock")),
        ];
        all.extend_from_slice(settings);
        let name = name.to_owned();
        let (unwell, version) = (None, Version::default());
        let environment = vec![];
        Ok(Self {
            name,
            address,
            namespace,
            dir,
            settings: all,
            environment,
            unwell,
            version,
            child: None,
        })
    }

    /// Where its files are.
    #[must_use]
    pub fn dir(&self) -> &PathBuf {
        &self.dir
    }

    /// What it runs from its next start on.
    pub fn install(&mut self, version: Version) {
        self.version = version;
    }

    /// From its next start on its disk and its clock can be unwell.
    pub(crate) fn give(&mut self, unwell: Unwell) {
        self.unwell = Some(unwell);
    }

    /// Each write of its processes takes so much longer from now on, and is
    /// lost if its process is killed before; of an unwell cluster.
    ///
    /// # Errors
    /// It cannot be said.
    pub fn slow_disk(&self, by: Duration) -> Result<()> {
        say(&self.delay(), Some(by.as_micros()).filter(|us| *us > 0))
    }

    /// Its clock seems to be steered: a tick takes so many microseconds instead
    /// of 10,000. `None`: it is straight. Of an unwell cluster.
    ///
    /// # Errors
    /// It cannot be said.
    pub fn slew(&self, tick_us: Option<u128>) -> Result<()> {
        say(&self.tick(), tick_us)
    }

    /// Its wall clock is ahead by so much. Of an unwell cluster.
    ///
    /// # Errors
    /// It cannot be said.
    pub fn set_ahead(&self, by: Duration) -> Result<()> {
        say(&self.ahead(), Some(u128::from(by.as_secs())).filter(|s| *s > 0))
    }

    /// From now on the process that makes the so many-th change of its data
    /// directory is killed at it, once; of an unwell cluster.
    ///
    /// # Errors
    /// It cannot be said.
    pub fn kill_at_change(&self, number: u32) -> Result<()> {
        say(&self.kill_at(), Some(number.into()))
    }

    /// Nobody is to be killed any more. Returns whether nobody was.
    ///
    /// # Errors
    /// It cannot be said.
    pub fn kill_no_more(&self) -> Result<bool> {
        let nobody = self.kill_at().exists();
        say(&self.kill_at(), None)?;
        Ok(nobody)
    }

    fn kill_at(&self) -> PathBuf {
        self.dir.join("kill-at")
    }

    fn ahead(&self) -> PathBuf {
        self.dir.join("ahead-s")
    }

    fn delay(&self) -> PathBuf {
        self.dir.join("slow-disk-us")
    }

    fn tick(&self) -> PathBuf {
        self.dir.join("tick-us")
    }

    /// Starts `vipd run`.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(&mut self) -> Result<()> {
        let log = OpenOptions::new().create(true).append(true).open(self.dir.join("log"))?;
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.namespace]).arg(self.version.vipd()?).arg("run");
        for setting in &self.settings {
            command.args(["--set", setting]);
        }
        if let Some(unwell) = &self.unwell {
            let files = [self.delay(), self.tick(), self.ahead()];
            unwell.preload(&mut command, files.each_ref().map(PathBuf::as_path));
            unwell.kill(&mut command, &self.kill_at(), &self.dir.join("data"));
        }
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        self.child = Some(command.spawn().context("starting vipd")?);
        Ok(())
    }

    /// Runs another command of vipd or another program inside the host.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn exec(&self, program: &str, arguments: &[&str]) -> Result<Outcome> {
        exec(&self.namespace, program, arguments)
    }

    /// Has vipd started with a variable of the environment from now on.
    pub fn set_variable(&mut self, name: &str, value: &str) {
        self.environment.push((name.to_owned(), value.to_owned()));
    }

    /// The settings that vipd is started with.
    #[must_use]
    pub fn settings(&self) -> &[String] {
        &self.settings
    }

    /// Where its agent listens for local commands.
    #[must_use]
    pub fn admin_socket(&self) -> PathBuf {
        self.dir.join("admin.sock")
    }

    /// A way to run vipctl against this host from another thread.
    #[must_use]
    pub fn control(&self) -> Control {
        Control { socket: self.admin_socket().display().to_string() }
    }

    /// Runs vipctl against this host.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn ctl(&self, arguments: &[&str]) -> Result<Outcome> {
        self.control().ctl(arguments)
    }

    /// Runs vipctl, which must succeed.
    ///
    /// # Errors
    /// It did not.
    pub fn ctl_ok(&self, arguments: &[&str]) -> Result<String> {
        let what = || format!("vipctl {} on {}", arguments.join(" "), self.name);
        self.ctl(arguments)?.ok().with_context(what)
    }

    /// Runs vipctl with JSON output.
    ///
    /// # Errors
    /// It failed, or printed something else.
    pub fn ctl_json(&self, arguments: &[&str]) -> Result<serde_json::Value> {
        let text = self.ctl_ok(&[&["-o", "json"], arguments].concat())?;
        serde_json::from_str(&text).with_context(|| format!("not JSON: {text}"))
    }

    /// Has `vipctl login` here keep the context `test` of a user in `home`, where
    /// `XDG_CONFIG_HOME` would point. Returns the context.
    ///
    /// # Errors
    /// The login failed.
    pub fn login(&self, home: &Path, user: &str, role: &str) -> Result<serde_json::Value> {
        let program = binaries()?.join("vipctl").display().to_string();
        let variable = format!("XDG_CONFIG_HOME={}", home.display());
        let socket = self.admin_socket().display().to_string();
        let begin = [variable.as_str(), &program, "--socket", &socket];
        let login = ["login", "--user", user, "--role", role, "--name", "test"];
        run("env", &[&begin[..], &login].concat())?.ok()?;
        Ok(serde_json::from_str(&std::fs::read_to_string(home.join("vipctl/test.json"))?)?)
    }

    fn pid(&self) -> Option<i32> {
        i32::try_from(self.child.as_ref()?.id()).ok()
    }

    /// The pid of one of its processes, if it runs.
    #[must_use]
    pub fn find(&self, process: Process) -> Option<i32> {
        let parent = self.pid()?;
        let what = match process {
            Process::Parent => return Some(parent),
            Process::Agent => "agent",
            Process::Guard => "guard",
        };
        let children = format!("/proc/{parent}/task/{parent}/children");
        let children = std::fs::read_to_string(children).ok()?;
        children.split_whitespace().filter_map(|pid| pid.parse::<i32>().ok()).find(|pid| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            line.split(|b| *b == 0).nth(1) == Some(what.as_bytes())
        })
    }

    /// What its agent wrote of its lease decisions, at SIGUSR1.
    #[must_use]
    pub fn recordings(&self) -> Vec<PathBuf> {
        let files = std::fs::read_dir(self.dir.join("data/recordings"));
        let files = files.into_iter().flatten().filter_map(Result::ok);
        files.map(|file| file.path()).collect()
    }

    /// A figure of the agent's, bytes: `what` as in `/proc/PID/status`.
    ///
    /// # Errors
    /// There is no agent, or no such figure.
    pub fn memory(&self, what: &str) -> Result<u64> {
        let agent = self.find(Process::Agent).context("an agent")?;
        let status = std::fs::read_to_string(format!("/proc/{agent}/status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix(what)).context("a figure")?;
        let kilobytes: u64 = line.trim_matches(|c: char| !c.is_ascii_digit()).parse()?;
        Ok(kilobytes << 10)
    }

    /// Sends a signal to some of its processes, in the order given.
    ///
    /// # Errors
    /// One of them does not run.
    pub fn signal(&self, processes: &[Process], signal: Signal) -> Result<()> {
        let pids = processes.iter().map(|process| {
            self.find(*process).with_context(|| format!("{process:?} of {} runs not", self.name))
        });
        for pid in pids.collect::<Result<Vec<_>>>()? {
            kill(Pid::from_raw(pid), signal)?;
        }
        Ok(())
    }

    /// Waits until a process runs that is another one than `old`.
    ///
    /// # Errors
    /// None does in time.
    pub fn wait_for_process(&self, process: Process, old: i32) -> Result<i32> {
        wait_for("a new process", PROCESS_TIMEOUT, || self.find(process).filter(|p| *p != old))
    }

    /// Changes a setting, from its next start on.
    pub fn set(&mut self, key: &str, value: &str) {
        self.unset(key);
        self.settings.push(format!("{key}={value}"));
    }

    /// Says nothing of a setting, from its next start on.
    pub fn unset(&mut self, key: &str) {
        let begins = format!("{key}=");
        self.settings.retain(|setting| !setting.starts_with(&begins));
    }

    /// Kills all of its processes at once.
    pub fn kill_all(&mut self) {
        let all = [Process::Parent, Process::Agent, Process::Guard].map(|p| self.find(p));
        let all: Vec<i32> = all.into_iter().flatten().collect();
        // The parent last, which must not start them again: its end asks them to stop, and one
        // that has a moment left hands its VIPs over.
        let parent = self.find(Process::Parent);
        if let Some(pid) = parent {
            let _ = kill(Pid::from_raw(pid), Signal::SIGSTOP);
        }
        for pid in all.iter().rev() {
            let _ = kill(Pid::from_raw(*pid), Signal::SIGKILL);
        }
        if let Some(mut child) = self.child.take() {
            let _ = child.wait();
        }
        // Until then a socket of it takes connections, and answers none: a process has no files
        // any more a moment before they are closed, and is a zombie (proc_pid_stat(5)) after it.
        let closed = |pid: &i32| {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"));
            let state = stat.ok().and_then(|stat| stat.rsplit(')').next()?.trim().chars().next());
            // Its threads have the same files.
            let threads = std::fs::read_dir(format!("/proc/{pid}/task"));
            let alone = threads.map_or(true, |threads| threads.count() <= 1);
            state.is_none_or(|state| matches!(state, 'Z' | 'X') && alone)
        };
        let _ = within(PROCESS_TIMEOUT, || all.iter().all(closed).then_some(()));
    }

    /// Asks it to end and waits until it did; returns how long that took.
    ///
    /// # Errors
    /// It does not end.
    pub fn stop(&mut self) -> Result<Duration> {
        let begin = std::time::Instant::now();
        let Some(mut child) = self.child.take() else { return Ok(Duration::ZERO) };
        let pid = Pid::from_raw(i32::try_from(child.id())?);
        kill(pid, Signal::SIGTERM)?;
        wait_for("vipd ends", PROCESS_TIMEOUT, || child.try_wait().ok().flatten())?;
        Ok(begin.elapsed())
    }

    /// Waits until `vipd run` ended by itself; returns its exit code.
    ///
    /// # Errors
    /// It does not end.
    pub fn wait_for_end(&mut self) -> Result<Option<i32>> {
        let child = self.child.as_mut().context("not started")?;
        let status = wait_for("vipd ends", PROCESS_TIMEOUT, || child.try_wait().ok().flatten())?;
        self.child = None;
        Ok(status.code())
    }

    /// Whether `vipd run` was started and has not ended.
    pub fn runs(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    /// What it logged.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.join("log")).unwrap_or_default()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.kill_all();
    }
}
