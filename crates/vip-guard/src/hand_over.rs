//! Another program for the same process, and nothing is let go of between the two.
//!
//! ```text
//!  SIGHUP ──> does the program on disk start, and does it go on from here?   (a child says)
//!         ──> the second lane has done what it was ordered, and stands still
//!         ──> the agent is not read from, and has all that it was told
//!         ──> everything is written down, descriptors are left open, execve(2)
//!  the next program ──> reads it, and goes on: the agent notices a pause of some ms
//! ```
//!
//! Meanwhile the kernel goes by the deadlines that it has, and forwards by the tables that
//! it has. Whatever fails before the last step leaves everything as it was.

use crate::host::LeftHost;
use crate::lock::LeftNamespace;
use crate::protocol::VERSIONS;
use crate::session::LeftSession;
use crate::tables::{Resume, TableLane};
use crate::told::LeftForwarder;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use serde::{Deserialize, Serialize};
use std::ffi::{CString, OsString};
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::pin::Pin;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;
use tokio::process::Command;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use vip_core::Guard;
use vip_datapath::{Inherited, object_name};

/// Of [`Estate`], as postcard writes it. Whoever changes anything that is in it counts on.
const FORMAT: u16 = 1;
/// The flag of the program that says what it goes on from, and nothing else.
const ACCEPTS: &str = "--accepts";
/// The one that names where that is written.
const RESUME: &str = "--resume";
/// A program that starts says so at once, also on a busy machine.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// No line of an answer is longer.
const ANSWER_LEN: usize = 256;
/// A thousand tables take a second.
const TABLES_TIMEOUT: Duration = Duration::from_secs(30);
/// An agent that reads takes what it was told at once; nothing else is done meanwhile.
pub(crate) const WRITTEN_TIMEOUT: Duration = Duration::from_millis(20);
/// Before it is tried again, where there was something to do just then.
const RETRY: Duration = Duration::from_millis(100);
/// How often that is.
const TRIALS: u32 = 100;

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
    #[error(
        "{0} cannot go on from where this one is: what they have in the kernel or write down is \
         not the same. Restart the guard instead (`systemctl restart vipd-guard vipd`): VIPs \
         move to other nodes before"
    )]
    OtherGround(PathBuf),
    #[error("there is always something being done; try again")]
    Busy,
    #[error("the agent is gone, or does not read what it is told; try again")]
    Agent,
    #[error("what is here cannot be left to it")]
    Leave(#[source] io::Error),
}

/// What a program says of what it goes on from.
fn accepts() -> String {
    format!("{FORMAT} {:016x} {} {}", object_name(), VERSIONS.lowest, VERSIONS.highest)
}

/// Says what [`crate::run`] goes on from, for the program before.
///
/// # Errors
/// Nobody reads it.
pub fn say_what_is_accepted(mut to: impl Write) -> io::Result<()> {
    writeln!(to, "{}", accepts())
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
    pub(crate) forwarder: LeftForwarder,
}

impl Estate {
    /// Begins the next program, which has this. Returns only if it does not.
    pub(crate) fn pass_on(&self, succession: &Succession) -> HandOverError {
        match self.begin_next(succession) {
            Ok(never) => match never {},
            Err(error) => HandOverError::Leave(error),
        }
    }

    fn begin_next(&self, succession: &Succession) -> io::Result<std::convert::Infallible> {
        let written = postcard::to_stdvec(&(accepts(), self)).map_err(io::Error::other)?;
        let mut file = File::from(memfd_create("vipd-guard", MFdFlags::empty())?);
        file.write_all(&written)?;
        let program = succession.program.as_os_str();
        let resume = [OsString::from(RESUME), file.as_raw_fd().to_string().into()];
        let all = succession.arguments.iter().chain(&resume).map(OsString::as_os_str);
        let all = std::iter::once(program).chain(all);
        let all: Result<Vec<_>, _> = all.map(|text| CString::new(text.as_bytes())).collect();
        let (program, all) = (CString::new(program.as_bytes())?, all?);
        // One that came before the next program listens would end the process.
        let before = hold_signals(SigmaskHow::SIG_BLOCK)?;
        let failed = nix::unistd::execv(&program, &all);
        sigprocmask(SigmaskHow::SIG_SETMASK, Some(&before), None)?;
        Ok(failed?)
    }

    /// What an earlier program of this process wrote down. It listens to signals by now.
    ///
    /// # Errors
    /// It is nothing that this one goes on from.
    pub(crate) fn read(number: RawFd) -> io::Result<Self> {
        hold_signals(SigmaskHow::SIG_UNBLOCK)?;
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
}

/// Those that a process of vipd listens to. Returns which were held before.
fn hold_signals(how: SigmaskHow) -> io::Result<SigSet> {
    let ours = [Signal::SIGHUP, Signal::SIGTERM, Signal::SIGINT];
    let (ours, mut before): (SigSet, _) = (ours.into_iter().collect(), SigSet::empty());
    sigprocmask(how, Some(&ours), Some(&mut before))?;
    Ok(before)
}

/// What the second lane leaves, and its word to go on.
pub(crate) type Left = Result<Box<(LeftForwarder, Resume)>, HandOverError>;

/// The way there, as far as nothing else has to wait for it.
#[derive(Default)]
pub(crate) struct Approach {
    going: Option<Pin<Box<dyn Future<Output = Left>>>>,
    trials: u32,
}

impl Approach {
    /// Sets out, unless it is on its way.
    pub(crate) fn begin(&mut self, succession: &Succession, tables: &Arc<TableLane>) {
        if self.going.is_some() {
            return;
        }
        let (program, arguments) = (succession.program.clone(), succession.arguments.clone());
        let tables = tables.clone();
        self.trials = TRIALS;
        self.going = Some(Box::pin(async move {
            ask(program, arguments).await?;
            stand_still(&tables).await
        }));
    }

    /// Tries again after a while, if that was not often.
    pub(crate) fn begin_again(&mut self, tables: &Arc<TableLane>) -> Result<(), HandOverError> {
        self.trials = self.trials.checked_sub(1).ok_or(HandOverError::Busy)?;
        let tables = tables.clone();
        self.going = Some(Box::pin(async move {
            sleep(RETRY).await;
            stand_still(&tables).await
        }));
        Ok(())
    }

    /// Waits for its end; for ever, if it is not on its way.
    pub(crate) async fn end(&mut self) -> Left {
        let Some(going) = &mut self.going else { return std::future::pending().await };
        let end = going.await;
        self.going = None;
        end
    }
}

async fn stand_still(tables: &TableLane) -> Left {
    let left = timeout(TABLES_TIMEOUT, tables.leave()).await;
    left.ok().flatten().map(Box::new).ok_or(HandOverError::Busy)
}

/// Whether the program starts with these arguments, and goes on from what this one has.
async fn ask(program: PathBuf, arguments: Vec<OsString>) -> Result<(), HandOverError> {
    let child = Command::new(&program)
        .args(arguments)
        .arg(ACCEPTS)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let refuses = |what: String| HandOverError::Refuses { program: program.clone(), what };
    let output = match timeout(ANSWER_TIMEOUT, child).await {
        Err(_) => return Err(refuses("does not say what it goes on from".into())),
        Ok(Err(source)) => return Err(HandOverError::NoProgram { program, source }),
        Ok(Ok(output)) => output,
    };
    let line = |text: &[u8]| {
        let text = String::from_utf8_lossy(&text[..text.len().min(ANSWER_LEN)]).into_owned();
        text.lines().next().unwrap_or_default().trim().to_owned()
    };
    if !output.status.success() {
        let (status, why) = (output.status, line(&output.stderr));
        return Err(refuses(format!("ended with {status}: {why}")));
    }
    if line(&output.stdout) != accepts() {
        return Err(HandOverError::OtherGround(program));
    }
    Ok(())
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
        let asked = |text: &str| ask(script(&dir, text), arguments());
        asked(&format!("test \"$*\" = 'guard --accepts' && echo {}", accepts()))
            .await
            .expect("accepted");
        for (text, why) in [
            ("echo 0 0 0 0", "cannot go on from where this one is"),
            ("echo no such key >&2; exit 2", "exit status: 2: no such key"),
            ("kill -9 $$", "signal: 9"),
        ] {
            let error = asked(text).await.expect_err(text).to_string();
            assert!(error.contains(why), "{text}: {error}");
        }
        let none = ask(dir.path().join("none"), arguments()).await.expect_err("none");
        assert!(none.to_string().contains("does not start"), "{none}");
        // An archive of another processor, or half a download.
        std::fs::write(dir.path().join("vipd"), b"\x7fELF").expect("written");
        let half = ask(dir.path().join("vipd"), arguments()).await.expect_err("half");
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
        assert_eq!((FORMAT, name), (1, 10_444_747_711_707_820_219), "it is written in another way");
    }
}
