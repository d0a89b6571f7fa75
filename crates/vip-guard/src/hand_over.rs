//! Another program for the same process, and nothing is let go of between the two.
//!
//! ```text
//!  SIGHUP ──> the second lane has done what it was ordered, and stands still
//!         ──> a child with the program on disk reads all that this one has, and says
//!             whether it can go on with it
//!         ──> the agent is not read from, and has all that it was told
//!         ──> everything is written down, descriptors are left open, execve(2)
//!  the next program ──> reads it, and goes on: the agent notices a pause of some ms
//! ```
//!
//! Meanwhile the kernel goes by the deadlines that it has, and forwards by the tables that
//! it has. Whatever fails before the last step leaves everything as it was.

use crate::config::{GuardConfig, GuardError};
use crate::host::LeftHost;
use crate::lock::LeftNamespace;
use crate::session::LeftSession;
use crate::tables::{Resume, TableLane};
use crate::told::LeftForwarder;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, killpg, sigprocmask};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use std::ffi::{CString, OsString};
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use vip_core::{Guard, Mono};
use vip_datapath::{Inherited, object_name};

/// Of [`Estate`], as postcard writes it. Whoever changes anything that is in it counts on.
const FORMAT: u16 = 2;
/// The flag of the program that has it read what is written, and say whether it could go
/// on with it.
const ACCEPTS: &str = "--accepts";
/// The one that has it go on with it.
const RESUME: &str = "--resume";
/// A program that starts says so at once, also on a busy machine.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// More of an answer is not read.
const ANSWER_LEN: u64 = 256;
/// From a call to its end, one way or the other: a thousand tables take a second.
const APPROACH: Duration = Duration::from_secs(30);
/// An agent that reads takes what it was told at once; nothing else is done meanwhile.
pub(crate) const WRITTEN_TIMEOUT: Duration = Duration::from_millis(20);
/// A signal that came before it was held is heard of within it.
pub(crate) const LAST_WORD: Duration = Duration::from_millis(1);
/// Before it is tried again, where there was something to do just then.
const RETRY: Duration = Duration::from_millis(100);
/// `MFD_NOEXEC_SEAL`: where the host forbids any other (`vm.memfd_noexec`, Linux 6.3).
const NO_EXEC: libc::c_uint = 8;

/// How the next program of this process is begun, and when.
pub struct Succession {
    /// Somebody wants it.
    pub asked: mpsc::Receiver<()>,
    /// Where the next one is, by then.
    pub program: PathBuf,
    /// What this one was started with, this file's own flags not among it.
    pub arguments: Vec<OsString>,
}

/// Why the program stays the one that it is.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HandOverError {
    #[error("{program} does not start")]
    NoProgram { program: PathBuf, source: io::Error },
    #[error("{program} {what}")]
    Refuses { program: PathBuf, what: String },
    #[error("what {0} has in the kernel or writes down is not the same")]
    OtherGround(PathBuf),
    #[error("there is always something being done; try again")]
    Busy,
    #[error("the agent is gone, or does not read what it is told; try again")]
    Agent,
    #[error("the tables of virtual servers failed here")]
    Tables,
    #[error("what is here cannot be left to it")]
    Leave(#[source] io::Error),
}

impl HandOverError {
    /// Whether it may be otherwise a moment later.
    pub(crate) fn passes(&self) -> bool {
        matches!(self, Self::Busy | Self::Agent)
    }
}

/// What two programs must have in common.
fn accepts() -> String {
    format!("{FORMAT} {:016x}", object_name())
}

/// Reads what the program before wrote behind a descriptor, and tells it that this one, with
/// this configuration, could go on with it.
///
/// # Errors
/// It could not; or nobody reads that.
pub fn accept(config: &GuardConfig, number: RawFd, mut to: impl Write) -> Result<(), GuardError> {
    let resume = |why: &str| GuardError::Resume(io::Error::other(why));
    let estate = Estate::read(number).map_err(GuardError::Resume)?;
    if estate.socket != config.socket {
        return Err(resume("guard.socket is another one by now"));
    }
    if estate.session.is_some_and(|session| !session.is_understood()) {
        return Err(resume("its agent speaks another version of the guard's protocol"));
    }
    estate.host.try_on(config, estate.forwarder.engine)?;
    writeln!(to, "{}", accepts()).map_err(GuardError::Resume)
}

/// Everything that a guard's process has.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Estate {
    pub(crate) socket: PathBuf,
    pub(crate) socket_lock: Inherited,
    pub(crate) namespace: LeftNamespace,
    pub(crate) door: Inherited,
    pub(crate) guard: Guard,
    pub(crate) host: LeftHost,
    pub(crate) session: Option<LeftSession>,
    /// When there was an agent.
    pub(crate) agent_seen_at: Mono,
    pub(crate) forwarder: LeftForwarder,
}

/// A file without a name, which another program of this process can read.
fn unnamed() -> io::Result<File> {
    let no_exec = MFdFlags::from_bits_retain(NO_EXEC);
    let made = memfd_create("vipd-guard", no_exec);
    Ok(made.or_else(|_| memfd_create("vipd-guard", MFdFlags::empty()))?.into())
}

impl Estate {
    fn write(&self) -> io::Result<File> {
        let written = postcard::to_stdvec(&(accepts(), self)).map_err(io::Error::other)?;
        let mut file = unnamed()?;
        file.write_all(&written)?;
        Ok(file)
    }

    /// What an earlier program of this process, or its parent, wrote down.
    ///
    /// # Errors
    /// It is nothing that this one goes on from.
    pub(crate) fn read(number: RawFd) -> io::Result<Self> {
        let mut file = File::from(Inherited::numbered(number)?.take()?);
        file.rewind()?;
        let mut written = vec![];
        file.read_to_end(&mut written)?;
        let other = || io::Error::other("another version wrote it");
        let (accepted, rest): (String, _) =
            postcard::take_from_bytes(&written).map_err(|_| other())?;
        if accepted != accepts() {
            return Err(other());
        }
        postcard::from_bytes(rest).map_err(io::Error::other)
    }

    /// Begins the next program, which has this. Returns only if it does not. Signals are
    /// held.
    pub(crate) fn pass_on(&self, succession: &Succession) -> HandOverError {
        match self.begin_next(succession) {
            Ok(never) => match never {},
            Err(error) => HandOverError::Leave(error),
        }
    }

    fn begin_next(&self, succession: &Succession) -> io::Result<std::convert::Infallible> {
        let file = self.write()?;
        let program = succession.program.as_os_str();
        let resume = [OsString::from(RESUME), file.as_raw_fd().to_string().into()];
        let all = succession.arguments.iter().chain(&resume).map(OsString::as_os_str);
        let all = std::iter::once(program).chain(all);
        let all: Result<Vec<_>, _> = all.map(|text| CString::new(text.as_bytes())).collect();
        Ok(nix::unistd::execv(&CString::new(program.as_bytes())?, &all?)?)
    }
}

/// Signals that wait for as long as this lives, and for the next program where there is one:
/// one that came before that listens would end the process.
pub(crate) struct HeldSignals(SigSet);

/// Those that a process of vipd listens to.
fn ours() -> SigSet {
    [Signal::SIGHUP, Signal::SIGTERM, Signal::SIGINT, Signal::SIGUSR1].into_iter().collect()
}

impl HeldSignals {
    /// Of this thread, and of those that it starts.
    pub(crate) fn hold() -> io::Result<Self> {
        let mut before = SigSet::empty();
        sigprocmask(SigmaskHow::SIG_BLOCK, Some(&ours()), Some(&mut before))?;
        Ok(Self(before))
    }

    /// Those that the program before held: this one listens by now.
    pub(crate) fn let_come() -> io::Result<()> {
        Ok(sigprocmask(SigmaskHow::SIG_UNBLOCK, Some(&ours()), None)?)
    }
}

impl Drop for HeldSignals {
    fn drop(&mut self) {
        let _ = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&self.0), None);
    }
}

/// What the second lane leaves, and its word to go on.
pub(crate) type OfTables = (LeftForwarder, Resume);

/// How far it has come.
pub(crate) enum Step {
    /// The second lane stands still.
    Still(OfTables),
    /// And the next program can go on with what there is.
    Accepted(OfTables),
}

pub(crate) type Left = Result<Box<Step>, HandOverError>;

/// The way there, as far as nothing else has to wait for it.
pub(crate) struct Approach {
    going: Option<Pin<Box<dyn Future<Output = Left>>>>,
    until: Instant,
}

impl Approach {
    pub(crate) fn new() -> Self {
        Self { going: None, until: Instant::now() }
    }

    /// Sets out, from where it began if it is on its way: what there was to be found may be
    /// another one by now.
    pub(crate) fn begin(&mut self, tables: &Arc<TableLane>) {
        self.until = Instant::now() + APPROACH;
        self.going = Some(Box::pin(stand_still(tables.clone(), self.until)));
    }

    /// Tries again after a moment, while there is time.
    pub(crate) fn begin_again(&mut self, tables: &Arc<TableLane>) -> bool {
        let (tables, until) = (tables.clone(), self.until);
        let goes_on = Instant::now() + RETRY < until;
        if goes_on {
            self.going = Some(Box::pin(async move {
                sleep(RETRY).await;
                stand_still(tables, until).await
            }));
        }
        goes_on
    }

    /// Has a child try whether it could go on with this.
    pub(crate) fn ask(&mut self, succession: &Succession, estate: Estate, resume: Resume) {
        let (program, arguments) = (succession.program.clone(), succession.arguments.clone());
        self.going = Some(Box::pin(async move {
            let written = estate.write().map_err(HandOverError::Leave)?;
            ask(&program, &arguments, written.as_raw_fd()).await?;
            Ok(Box::new(Step::Accepted((estate.forwarder, resume))))
        }));
    }

    /// Waits for the next step; for ever, if it is not on its way.
    pub(crate) async fn next(&mut self) -> Left {
        let Some(going) = &mut self.going else { return std::future::pending().await };
        let step = going.await;
        self.going = None;
        step
    }
}

async fn stand_still(tables: Arc<TableLane>, until: Instant) -> Left {
    if tables.counters().failed {
        return Err(HandOverError::Tables);
    }
    let left = timeout_at(until, tables.leave()).await.ok().flatten();
    left.map(|left| Box::new(Step::Still(left))).ok_or(HandOverError::Busy)
}

/// Whether the program starts with these arguments, and can go on with what is written.
async fn ask(program: &Path, arguments: &[OsString], number: RawFd) -> Result<(), HandOverError> {
    let program = program.to_owned();
    let child = Command::new(&program)
        .args(arguments)
        .args([ACCEPTS, &number.to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn();
    let mut child = match child {
        Ok(child) => child,
        Err(source) => return Err(HandOverError::NoProgram { program, source }),
    };
    let group = child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw);
    let answer = timeout(ANSWER_TIMEOUT, answer_of(&mut child)).await;
    // What it started, too.
    let _ = group.map(|group| killpg(group, Signal::SIGKILL));
    let refuses = |what: String| HandOverError::Refuses { program: program.clone(), what };
    let (status, said, why) = match answer {
        Err(_) => return Err(refuses("does not say whether it can go on from here".into())),
        Ok(Err(source)) => return Err(HandOverError::NoProgram { program, source }),
        Ok(Ok(answer)) => answer,
    };
    if !status.success() {
        return Err(refuses(format!("ended with {status}: {why}")));
    }
    if said != accepts() {
        return Err(HandOverError::OtherGround(program));
    }
    Ok(())
}

/// How a child ends, and the first lines of what it says.
async fn answer_of(child: &mut Child) -> io::Result<(std::process::ExitStatus, String, String)> {
    let (out, err) = (child.stdout.take(), child.stderr.take());
    let (said, why) = tokio::join!(first_line(out), first_line(err));
    Ok((child.wait().await?, said, why))
}

async fn first_line(from: Option<impl AsyncRead + Unpin>) -> String {
    let mut text = vec![];
    if let Some(from) = from {
        let _ = from.take(ANSWER_LEN).read_to_end(&mut text).await;
    }
    String::from_utf8_lossy(&text).lines().next().unwrap_or_default().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ways::Ways;
    use std::os::unix::fs::PermissionsExt;
    use vip_core::{
        Address, Epoch, Forward, Forwarding, Generation, GuardEvent, GuardFailure, Incarnation,
        Limits, Mac, Mono, Plan, Probe, Protocol, RealServer, Scheduler, ServerUid, TableSize,
        VipOrder, VipUid,
    };
    use vip_datapath::{ForwardEngine, Gate};

    fn script(dir: &tempfile::TempDir, text: &str) -> PathBuf {
        let path = dir.path().join("vipd");
        std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).expect("written");
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).expect("made");
        path
    }

    #[tokio::test]
    async fn a_program_that_does_not_go_on_from_here_is_told_from_one_that_does() {
        let dir = tempfile::tempdir().expect("a directory");
        let arguments = || vec![OsString::from("guard")];
        let asked = async |text: &str| ask(&script(&dir, text), &arguments(), 7).await;
        asked(&format!("test \"$*\" = 'guard --accepts 7' && echo {}", accepts()))
            .await
            .expect("accepted");
        for (text, why) in [
            ("echo 0 0 0 0", "is not the same"),
            ("echo no such key >&2; exit 2", "exit status: 2: no such key"),
            ("kill -9 $$", "signal: 9"),
            ("exec cat /dev/zero", "signal: 13"),
            ("sleep 100", "does not say whether"),
        ] {
            let error = asked(text).await.expect_err(text).to_string();
            assert!(error.contains(why), "{text}: {error}");
        }
        let none = ask(&dir.path().join("none"), &arguments(), 7).await.expect_err("none");
        assert!(none.to_string().contains("does not start"), "{none}");
        // An archive of another processor, or half a download.
        std::fs::write(dir.path().join("vipd"), b"\x7fELF").expect("written");
        let half = ask(&dir.path().join("vipd"), &arguments(), 7).await.expect_err("half");
        assert!(matches!(half, HandOverError::NoProgram { .. }), "{half}");
    }

    /// A guard that answers, prepares, and has let go of something that lingers.
    fn sample_guard() -> Guard {
        let now = Mono(1_000_000_000);
        let limit = Duration::from_secs(1);
        let limits = Limits { longest_grant: limit, gate_to_wire: limit, gated: true };
        let mut guard = Guard::new(limits);
        let incarnation = Incarnation(7);
        let came = GuardEvent::AgentCame { incarnation, cluster: "lab".into() };
        guard.step(now, came);
        let address =
            |last| Address { ip: [10, 0, 0, last].into(), prefix: 24, interface: "eth0".into() };
        for (vip, probe) in [(1, Probe::No), (2, Probe::Always), (3, Probe::No)] {
            let addresses = vec![address(vip)];
            let (vip, epoch, known) = (VipUid(vip.into()), Epoch(4), [Mac([2; 6])].into());
            let order = VipOrder::Prepare { vip, epoch, addresses, probe, known };
            guard.step(now, GuardEvent::Order(order));
        }
        let deadlines =
            vec![(VipUid(1), Epoch(4), now + limit), (VipUid(3), Epoch(4), now + limit)];
        guard.step(now, GuardEvent::Order(VipOrder::Extend { incarnation, deadlines }));
        guard.step(now, GuardEvent::ForeignClaim { ip: address(1).ip, mac: Mac([2; 6]) });
        let release = VipOrder::Release { vip: VipUid(3), epoch: Epoch(4) };
        let actions = guard.step(now, GuardEvent::Order(release));
        let _ =
            guard.failed(&GuardFailure::Gate { ip: address(3).ip, text: "a word".into() }, actions);
        guard
    }

    /// Two real servers by NAT, and a table before. Needs root.
    fn sample_forwarder() -> LeftForwarder {
        let mut gate = Gate::load().expect("loaded");
        let mut engine = ForwardEngine::new(gate.take_forward_maps().expect("its maps"), true);
        let ways = Ways::open(Arc::default(), vec!["10.0.0.0/8".parse().expect("a prefix")]);
        let plan = |weight| {
            let real = |last| RealServer { ip: [10, 0, 0, last].into(), port: 80, weight };
            Plan::new(9, TableSize::Tiny, vec![real(11), real(12)]).expect("a plan")
        };
        let vip = Address { ip: [10, 0, 0, 100].into(), prefix: 24, interface: String::new() };
        let forwarding = Forwarding {
            generation: Generation(5),
            vips: vec![vip],
            protocol: Protocol::Tcp,
            ports: 80.into(),
            scheduler: Scheduler::Mh,
            forward: Forward::Nat,
            plan: plan(1),
            before: Some(plan(2)),
            resets: true,
        };
        let ways = ways.expect("netlink");
        let put = engine.put(Mono(6), &ways, vec![(ServerUid(1), forwarding)]);
        assert!(put.iter().all(|(_, done)| done.is_ok()), "{put:?}");
        LeftForwarder::sample(engine.leave())
    }

    /// Of whoever changes what is written down this asks for another [`FORMAT`]: a program of
    /// before would read it as something else.
    #[test]
    fn what_is_written_down_is_of_this_format() {
        let estate = (sample_guard(), LeftHost::sample(), sample_forwarder());
        let mut written = postcard::to_stdvec(&estate).expect("written");
        written.extend(format!("{estate:?}").bytes());
        let name = written.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
        });
        assert_eq!((FORMAT, name), (2, 12_126_081_680_294_530_431), "it is written in another way");
    }
}
