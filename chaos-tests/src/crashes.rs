//! kill -9 at each change of the data directory, in whatever changes it: the next
//! start finds nothing that it cannot go on with.

use crate::cluster::{Cluster, Options};
use crate::command::{run, wait_for};
use crate::host::Host;
use anyhow::{Context, Result, bail, ensure};
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long a node may take to be well again.
const WELL: Duration = Duration::from_secs(30);
/// How long a leader may take no joins from one address.
const PATIENCE: Duration = Duration::from_secs(90);
/// A snapshot is made after so many commands; the last of them are written in
/// each round.
const SNAPSHOT_AFTER: u32 = 2000;
const NEARLY: u32 = 30;
/// No work changes the data directory more often.
const MOST: u32 = 2000;

/// What is interrupted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// `vipctl init`.
    Init,
    /// `vipctl join`.
    Join,
    /// `vipctl leave`.
    Leave,
    /// `vipctl ca rotate`, on the node that makes the new issuer.
    Rotate,
    /// The same, on a voter that takes it and renews its certificate.
    Renew,
    /// Commands until the log is replaced by a snapshot.
    Snapshot,
}

impl Work {
    /// All of it.
    pub const ALL: [Self; 6] =
        [Self::Init, Self::Join, Self::Leave, Self::Rotate, Self::Renew, Self::Snapshot];

    fn nodes(self) -> u8 {
        match self {
            Self::Init | Self::Snapshot => 1,
            Self::Join | Self::Leave => 2,
            Self::Rotate | Self::Renew => 3,
        }
    }

    /// Who is killed.
    fn victim(self) -> &'static str {
        match self {
            Self::Init | Self::Rotate | Self::Snapshot => "n1",
            Self::Join | Self::Leave | Self::Renew => "n2",
        }
    }
}

/// What a run was.
#[derive(Clone, Copy, Debug)]
pub struct Crashed {
    /// What was interrupted.
    pub work: Work,
    /// How often.
    pub kills: u32,
    /// The last change at which it was.
    pub last: u32,
    /// The longest that a node took to be well again.
    pub worst: Duration,
}

impl fmt::Display for Crashed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { work, kills, last, worst } = self;
        write!(
            f,
            "{work:?}: killed {kills} times, the last at change {last}; well within {worst:?}"
        )
    }
}

/// Interrupts some work at its changes `first`, `first + step` and so on, until
/// it comes to its end.
///
/// # Errors
/// A node was not well again.
pub fn crash(work: Work, first: u32, step: u32) -> Result<Crashed> {
    let options = Options { nodes: work.nodes(), unwell: true, ..Options::default() };
    let mut scene = Scene { cluster: Cluster::bare(&options)?, work, root_key: PathBuf::new() };
    scene.prepare()?;
    let mut crashed = Crashed { work, kills: 0, last: 0, worst: Duration::ZERO };
    let mut at = first;
    while at < MOST {
        let round = scene.round(at).inspect_err(|_| scene.cluster.keep_files());
        let Some(took) = round.with_context(|| format!("{work:?}, killed at change {at}"))? else {
            return Ok(crashed);
        };
        crashed.worst = crashed.worst.max(took);
        (crashed.kills, crashed.last) = (crashed.kills + 1, at);
        at += step;
    }
    bail!("{work:?} makes {MOST} changes and does not end")
}

struct Scene {
    cluster: Cluster,
    work: Work,
    root_key: PathBuf,
}

/// What a node says of itself after it was killed.
enum Found {
    Nothing,
    Member,
    Removed,
}

impl Scene {
    fn victim(&self) -> &Host {
        self.cluster.host(self.work.victim())
    }

    fn prepare(&mut self) -> Result<()> {
        if self.work == Work::Init {
            return Ok(());
        }
        self.cluster.host("n1").ctl_ok(&["init", "--name", "test"])?;
        match self.work {
            Work::Init | Work::Join => {}
            Work::Leave => self.cluster.join(self.cluster.host("n2"), "voter")?,
            Work::Rotate | Work::Renew => {
                for name in ["n2", "n3"] {
                    self.cluster.join(self.cluster.host(name), "voter")?;
                }
                self.root_key = self.cluster.dir().join("root.pem");
                let kept = self.cluster.host("n1").dir().join("data/recovery-root-key.pem");
                std::fs::rename(kept, &self.root_key)?;
            }
            Work::Snapshot => {
                for _ in 0..SNAPSHOT_AFTER - NEARLY {
                    self.write()?;
                }
                self.cluster.host_mut("n1").stop()?;
                copy(&self.data(), &self.template())?;
                self.cluster.host_mut("n1").start()?;
            }
        }
        Ok(())
    }

    fn data(&self) -> PathBuf {
        self.victim().dir().join("data")
    }

    fn template(&self) -> PathBuf {
        self.cluster.dir().join("template")
    }

    /// A command that changes nothing is in the log all the same.
    fn write(&self) -> Result<()> {
        self.cluster.host("n1").ctl_ok(&["node", "undrain", "n1"]).map(|_| ())
    }

    /// `None`: it came to its end before that change. Else how long the node took
    /// to be well again.
    fn round(&mut self, at: u32) -> Result<Option<Duration>> {
        self.victim().kill_at_change(at)?;
        let worked = self.work();
        if self.victim().kill_no_more()? {
            worked?;
            return Ok(None);
        }
        let begun = Instant::now();
        self.mend()?;
        let took = begun.elapsed();
        self.tidy()?;
        Ok(Some(took))
    }

    fn work(&self) -> Result<()> {
        let victim = self.victim();
        match self.work {
            Work::Init => victim.ctl_ok(&["init"]).map(|_| ()),
            Work::Join => self.join(),
            Work::Leave => victim.ctl_ok(&["leave"]).map(|_| ()),
            Work::Rotate | Work::Renew => self.rotate(),
            Work::Snapshot => {
                let snapshot = self.data().join("raft/snapshot");
                for _ in 0..5 * NEARLY {
                    self.write()?;
                    if snapshot.exists() {
                        return Ok(());
                    }
                }
                bail!("no snapshot was made")
            }
        }
    }

    fn join(&self) -> Result<()> {
        let token = self.cluster.token("voter")?;
        let join = ["join", "10.77.0.1", "--token-file", &token];
        // No machine joins as often as this one.
        wait_for("a request that is not one too many", PATIENCE, || {
            let joined = self.victim().ctl(&join).ok()?;
            if joined.stderr.contains("wait a minute") {
                // Nor as fast.
                std::thread::sleep(Duration::from_secs(2));
                return None;
            }
            Some(joined.ok())
        })?
        .map(|_| ())
    }

    fn rotate(&self) -> Result<()> {
        let key = self.root_key.display().to_string();
        self.cluster.host("n1").ctl_ok(&["ca", "rotate", "--root-key-file", &key]).map(|_| ())
    }

    fn found(&self) -> Result<Found> {
        let victim = self.victim();
        wait_for("the killed node to say what it is", WELL, || {
            let status = victim.ctl(&["status"]).ok()?;
            if status.stderr.contains("in no cluster") {
                return Some(Found::Nothing);
            }
            if status.stdout.starts_with("REMOVED") {
                return Some(Found::Removed);
            }
            let is_led = status.code == Some(0) && !status.stdout.starts_with("NO QUORUM");
            is_led.then_some(Found::Member)
        })
    }

    /// What a person would do.
    fn mend(&self) -> Result<()> {
        let (n1, victim) = (self.cluster.host("n1"), self.victim());
        match (self.work, self.found()?) {
            (Work::Init, Found::Nothing) => victim.ctl_ok(&["init"]).map(|_| ())?,
            (Work::Join, Found::Nothing) => self.join_again()?,
            (Work::Leave, Found::Nothing) => {}
            (Work::Leave, Found::Removed) => victim.ctl_ok(&["leave", "--force"]).map(|_| ())?,
            (Work::Leave, Found::Member) => victim.ctl_ok(&["leave"]).map(|_| ())?,
            (Work::Rotate | Work::Renew, Found::Member) => self.finish_rotation()?,
            (Work::Init | Work::Join | Work::Snapshot, Found::Member) => {}
            (work, _) => bail!("{work:?}: it is no member any more"),
        }
        if self.work == Work::Leave {
            return Ok(());
        }
        self.wait_until_all_active()?;
        // It can sign: its issuer is whole.
        n1.ctl_ok(&["token", "create", "-q"])?;
        if self.work == Work::Snapshot {
            self.write()?;
        }
        Ok(())
    }

    fn join_again(&self) -> Result<()> {
        let joined = self.join();
        let Err(why) = &joined else { return Ok(()) };
        // Admitted before it was killed: the error says what to do.
        ensure!(format!("{why:#}").contains("vipctl node remove n2"), "{why:#}");
        self.cluster.host("n1").ctl_ok(&["node", "remove", "n2"])?;
        self.join()
    }

    fn finish_rotation(&self) -> Result<()> {
        self.rotate()?;
        wait_for("every member to have a certificate of one issuer", WELL, || {
            let status = self.cluster.host("n1").ctl_json(&["status"]).ok()?;
            let warnings = status["warnings"].to_string();
            (!warnings.contains("issuing CA")).then_some(())
        })
    }

    fn wait_until_all_active(&self) -> Result<()> {
        let count = usize::from(self.work.nodes());
        let n1 = self.cluster.host("n1");
        wait_for("every node to be active, and every voter to have the issuer", WELL, || {
            let nodes = n1.ctl_json(&["node", "list"]).ok()?;
            let nodes = nodes.as_array()?;
            let active = nodes.len() == count && nodes.iter().all(|n| n["state"] == "active");
            let issuer = |host: &Host| {
                let pki = host.dir().join("data/pki");
                ["issuer.key", "issuer.crt"].iter().all(|file| pki.join(file).exists())
            };
            (active && self.cluster.hosts.iter().all(issuer)).then_some(())
        })
    }

    /// As before the round, by an orderly restart in between.
    fn tidy(&mut self) -> Result<()> {
        let (data, template) = (self.data(), self.template());
        match self.work {
            Work::Init | Work::Snapshot => {
                self.cluster.host_mut("n1").stop()?;
                std::fs::remove_dir_all(&data)?;
                if self.work == Work::Snapshot {
                    copy(&template, &data)?;
                }
                self.cluster.host_mut("n1").start()?;
                let first = if self.work == Work::Init { "in no cluster" } else { "all well" };
                wait_for("the next round", WELL, || {
                    let status = self.cluster.host("n1").ctl(&["status"]).ok()?;
                    (status.stderr + &status.stdout).contains(first).then_some(())
                })
            }
            Work::Join => {
                self.cluster.host_mut("n2").stop()?;
                self.cluster.host_mut("n2").start()?;
                self.wait_until_all_active()?;
                self.cluster.host("n2").ctl_ok(&["leave"]).map(|_| ())
            }
            Work::Leave => {
                wait_for("n2 to be out", WELL, || {
                    let nodes = self.cluster.host("n1").ctl_json(&["node", "list"]).ok()?;
                    (nodes.as_array()?.len() == 1).then_some(())
                })?;
                self.cluster.join(self.cluster.host("n2"), "voter")
            }
            Work::Rotate | Work::Renew => Ok(()),
        }
    }
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    let (from, to) = (from.display().to_string(), to.display().to_string());
    run("cp", &["-a", &from, &to])?.ok().map(|_| ())
}
