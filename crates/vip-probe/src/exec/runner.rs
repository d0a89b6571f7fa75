//! The process that runs the programs of checks, and ends what they leave.

use super::{Folders, Ran, Run, Sort, folder, hear, leftovers, say};
use nix::sys::prctl;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::rc::Rc;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::net::{UnixListener, UnixStream};
use tokio::process::{Child, Command};
use tokio::sync::{Notify, Semaphore};
use tokio::task::LocalSet;
use tokio::time::{sleep, timeout};

/// Runs at once, each of which is some processes. Who asks for more waits a little, and is told
/// so.
const AT_ONCE: usize = 64;
const ROOM: Duration = Duration::from_millis(200);
/// In which a question has to come, once somebody connected.
const QUESTION: Duration = Duration::from_secs(1);
/// How often it is looked for what runs left, where there is reason to: it reads of every
/// process of the host.
const LOOK: Duration = Duration::from_millis(100);
/// How long this process waits at its end for what it runs to end.
const END: Duration = Duration::from_millis(500);
/// Between two looks then.
const SOON: Duration = Duration::from_millis(2);
/// Longest that a run may take, whoever asks: the longest timeout of a check.
const MAX_RUN: Duration = Duration::from_secs(3600);
/// Begins what programs are told.
const OURS: &str = "VIPD_";
/// What is kept of what a program says.
const MAX_SAYS: usize = 512;

/// Runs what it is asked for by whoever can connect, until `stop`.
///
/// # Errors
/// The kernel does not let it look after what it runs.
pub async fn serve(
    listener: UnixListener,
    folders: Folders,
    stop: impl Future<Output = ()>,
) -> io::Result<()> {
    // No program becomes more than this process by a bit of its file.
    prctl::set_no_new_privs()?;
    prctl::set_child_subreaper(true)?;
    let runner = Rc::new(Runner {
        folders,
        groups: RefCell::default(),
        ended: Notify::new(),
        room: [AT_ONCE; 2].map(Semaphore::new),
    });
    let all = LocalSet::new();
    all.spawn_local(end_leftovers(runner.clone()));
    let accepts = async {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    all.spawn_local(answer(runner.clone(), stream));
                }
                // As without descriptors left.
                Err(error) => {
                    tracing::warn!(%error, "nobody can be answered");
                    sleep(LOOK).await;
                }
            }
        }
    };
    all.run_until(async {
        tokio::select! {
            () = stop => {}
            () = accepts => {}
        }
    })
    .await;
    drop(all);
    let _ = timeout(END, runner.end_all()).await;
    Ok(())
}

struct Runner {
    folders: Folders,
    /// Of runs that go on: a run is the leader of its group.
    groups: RefCell<BTreeSet<Pid>>,
    ended: Notify,
    /// A failing network, for which all checks wait, keeps no VIP from being moved.
    room: [Semaphore; 2],
}

/// A run that goes on. Dropped: its group is killed.
struct Running<'a> {
    runner: &'a Runner,
    child: Child,
    group: Pid,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        // Only while its leader was not waited for is the number surely its own.
        if self.child.id().is_some() {
            let _ = killpg(self.group, Signal::SIGKILL);
        }
        self.runner.groups.borrow_mut().remove(&self.group);
        self.runner.ended.notify_one();
    }
}

async fn end_leftovers(runner: Rc<Runner>) {
    loop {
        runner.ended.notified().await;
        // Who is killed may leave some in turn.
        let is_left = |_, group: Pid| !runner.groups.borrow().contains(&group);
        while leftovers::end_left(is_left) > 0 {
            sleep(LOOK).await;
        }
        sleep(LOOK).await;
    }
}

async fn answer(runner: Rc<Runner>, mut stream: UnixStream) {
    let Ok(Ok(run)) = timeout(QUESTION, hear::<Run>(&mut stream)).await else { return };
    let ran = {
        let (mut reads, _) = stream.split();
        let mut nothing = [0];
        tokio::select! {
            ran = runner.run(run) => ran,
            // Nobody waits for it any more.
            _ = reads.read(&mut nothing) => return,
        }
    };
    let _ = say(&mut stream, &ran).await;
}

impl Runner {
    async fn run(&self, run: Run) -> Ran {
        let not = |why: String| Ran::NotRun { why };
        let Ok(Ok(_room)) = timeout(ROOM, self.room[run.sort as usize].acquire()).await else {
            return not(format!("{AT_ONCE} programs of this sort run here already"));
        };
        let (folder, key) = match run.sort {
            Sort::Check => (&self.folders.checks, "[probe] exec_dir"),
            Sort::Mover => (&self.folders.movers, "[cloud.exec] dir"),
        };
        let Some(folder) = folder else {
            return not(format!("{key} is not set where programs are run"));
        };
        let file = match folder::file(folder, &run.file) {
            Ok(file) => file,
            Err(why) => return not(why.to_string()),
        };
        let started = self.start(&file, &run);
        let (mut running, says) = match started {
            Ok(started) => started,
            Err(error) => return not(format!("{} cannot be started: {error}", file.display())),
        };
        let limit = Duration::from_millis(run.timeout_ms).min(MAX_RUN);
        let mut said = vec![];
        let status = {
            let ends = async {
                tokio::select! {
                    status = running.child.wait() => status,
                    never = keep(&says, &mut said) => never,
                }
            };
            timeout(limit, ends).await
        };
        drop(running);
        rest(&says, &mut said);
        let says = first_line(&said);
        match status {
            Err(_) => Ran::Late { says },
            Ok(Err(error)) => not(format!("{} cannot be waited for: {error}", file.display())),
            Ok(Ok(status)) => ended(status, says),
        }
    }

    fn start(&self, file: &Path, run: &Run) -> io::Result<(Running<'_>, pipe::Receiver)> {
        let (reads, writes) = io::pipe()?;
        let mut command = Command::new(file);
        command
            .args(&run.arguments)
            .env_clear()
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .env("LANG", "C.UTF-8")
            // Whoever asks chooses what a program is told, and not how it is run.
            .envs(run.env.iter().filter(|(key, _)| key.starts_with(OURS)))
            .env("VIPD_TIMEOUT_MS", run.timeout_ms.to_string())
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(writes.try_clone()?)
            .stderr(writes)
            .process_group(0);
        let child = command.spawn()?;
        let group = child.id().and_then(|pid| i32::try_from(pid).ok()).map(Pid::from_raw);
        let group = group.ok_or(io::ErrorKind::NotFound)?;
        self.groups.borrow_mut().insert(group);
        let running = Running { runner: self, child, group };
        Ok((running, pipe::Receiver::from_owned_fd(reads.into())?))
    }

    /// With this process everything ends that it runs.
    async fn end_all(&self) {
        for group in std::mem::take(&mut *self.groups.borrow_mut()) {
            let _ = killpg(group, Signal::SIGKILL);
        }
        // Who is killed may leave some in turn.
        while leftovers::end_left(|_, _| true) > 0 {
            sleep(SOON).await;
        }
    }
}

fn ended(status: ExitStatus, says: String) -> Ran {
    match (status.code(), status.signal()) {
        (Some(code), _) => Ran::Ended { code, says },
        (None, signal) => Ran::Killed { signal: signal.unwrap_or_default(), says },
    }
}

/// Keeps the beginning of what is said; all of it is read, so that nobody waits to be heard.
/// Ends with an error alone.
async fn keep<T>(says: &pipe::Receiver, said: &mut Vec<u8>) -> io::Result<T> {
    loop {
        says.readable().await?;
        match read(says, said) {
            // Nobody can say anything any more; the run goes on.
            Ok(0) => std::future::pending().await,
            Ok(_) => tokio::task::yield_now().await,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}

/// What is there now.
fn rest(says: &pipe::Receiver, said: &mut Vec<u8>) {
    while said.len() < MAX_SAYS && read(says, said).is_ok_and(|len| len > 0) {}
}

fn read(says: &pipe::Receiver, said: &mut Vec<u8>) -> io::Result<usize> {
    let mut buffer = [0; 4096];
    let len = says.try_read(&mut buffer)?;
    let room = MAX_SAYS - said.len();
    said.extend_from_slice(&buffer[..len.min(room)]);
    Ok(len)
}

/// The first that says something, as monitoring's plugins have it.
fn first_line(said: &[u8]) -> String {
    let text = String::from_utf8_lossy(said);
    let line = text.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default();
    line.chars().filter(|letter| !letter.is_control()).collect()
}
