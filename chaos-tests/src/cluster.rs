//! A cluster of hosts.

use crate::command::{GAVE_UP, binaries, wait_for};
use crate::host::Host;
use crate::net::{Lab, Mac};
use crate::probe::Trace;
use crate::unwell::Unwell;
use anyhow::{Context, Result};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Time for a takeover on a busy machine; how fast it is, the bench tells.
const TAKEOVER: Duration = Duration::from_secs(10);
/// From the start of a process until its guard is in use, on a busy machine.
const GUARD_COMES: Duration = Duration::from_secs(10);

/// How a cluster is made.
#[derive(Clone, Debug)]
pub struct Options {
    /// Hosts.
    pub nodes: u8,
    /// Timing profile.
    pub profile: String,
    /// More settings for every host.
    pub settings: Vec<String>,
    /// Disks and clocks that can be unwell.
    pub unwell: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { nodes: 3, profile: "lan".into(), settings: vec![], unwell: false }
    }
}

/// What `vipctl status` says, as far as tests look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Leader, if one is known.
    pub leader: Option<String>,
    /// Whether commands can be committed.
    pub quorum: bool,
    /// Name and state of each node.
    pub nodes: Vec<(String, String)>,
    /// Name, holder and epoch of each VIP.
    pub vips: Vec<(String, Option<String>, u64)>,
}

impl Status {
    fn of(json: &serde_json::Value) -> Option<Self> {
        let text = |v: &serde_json::Value| v.as_str().map(str::to_owned);
        let nodes = json["nodes"].as_array()?.iter();
        let vips = json["vips"].as_array()?.iter();
        Some(Self {
            leader: text(&json["leader"]),
            quorum: json["quorum"].as_bool()?,
            nodes: nodes
                .map(|n| Some((text(&n["name"])?, text(&n["state"])?)))
                .collect::<Option<_>>()?,
            vips: vips
                .map(|v| Some((text(&v["name"])?, text(&v["holder"]), v["epoch"].as_u64()?)))
                .collect::<Option<_>>()?,
        })
    }
}

/// Hosts that run vipd, and the network between them.
#[derive(Debug)]
pub struct Cluster {
    /// The hosts. Dropped before the network.
    pub hosts: Vec<Host>,
    /// The network.
    pub lab: Lab,
    dir: PathBuf,
    keep: bool,
}

impl Cluster {
    /// Hosts that run vipd, none of them in a cluster yet.
    ///
    /// # Errors
    /// The lab cannot be made.
    pub fn bare(options: &Options) -> Result<Self> {
        let lab = Lab::new(options.nodes)?;
        let dir = std::env::temp_dir().join(lab.namespace("files"));
        let mut cluster = Self { hosts: vec![], lab, dir, keep: false };
        // Before the first process that loads it: none may find half of it.
        let unwell = options.unwell.then(|| Unwell::build(&cluster.dir)).transpose()?;
        for number in 1..=options.nodes {
            cluster.add(number, options, unwell.clone())?;
        }
        Ok(cluster)
    }

    /// Starts vipd on a host that the lab has.
    fn add(&mut self, number: u8, options: &Options, unwell: Option<Unwell>) -> Result<()> {
        let (name, address) = (format!("n{number}"), format!("10.77.0.{number}"));
        let settings =
            [format!("node.advertise={address}:7400"), format!("node.profile={}", options.profile)];
        let settings = [&settings, options.settings.as_slice()].concat();
        let namespace = self.lab.namespace(&name);
        let mut host = Host::new(&name, namespace, address, self.dir.join(&name), &settings)?;
        if let Some(unwell) = unwell {
            host.give(unwell);
        }
        host.start()?;
        self.hosts.push(host);
        Ok(())
    }

    /// A cluster of all hosts, every one a voter.
    ///
    /// # Errors
    /// A step failed.
    pub fn formed(options: &Options) -> Result<Self> {
        let cluster = Self::bare(options)?;
        cluster.form()?;
        // A guard takes a while to load its programs. Before it is there its node can hold
        // nothing, and what a test adds is at another.
        for host in &cluster.hosts {
            let is_there = || host.log().contains("guard connected").then_some(());
            wait_for(&format!("{} has its guard", host.name), GUARD_COMES, is_there)?;
        }
        Ok(cluster)
    }

    /// Makes a cluster of the bare hosts, led by the first.
    ///
    /// # Errors
    /// A step failed.
    pub fn form(&self) -> Result<()> {
        self.host("n1").ctl_ok(&["init", "--name", "test"])?;
        for host in &self.hosts[1..] {
            self.join(host, "voter")?;
        }
        // Or nothing would ever be unwell, and no test the wiser.
        let ignored = self.hosts.iter().find(|host| host.log().contains("cannot be preloaded"));
        anyhow::ensure!(ignored.is_none(), "the loader ignored the library");
        Ok(())
    }

    /// Joins a host with a fresh token.
    ///
    /// # Errors
    /// The join failed.
    pub fn join(&self, host: &Host, role: &str) -> Result<()> {
        let token = self.token(role)?;
        let joined = host.ctl_ok(&["join", "10.77.0.1:7400", "--token-file", &token]);
        if joined.is_err() {
            GAVE_UP.store(true, Ordering::Relaxed);
        }
        joined.map(|_| ())
    }

    /// A file with a fresh token.
    ///
    /// # Errors
    /// None can be made.
    pub fn token(&self, role: &str) -> Result<String> {
        let text = self.host("n1").ctl_ok(&["token", "create", "-q", "--role", role])?;
        let path = self.dir.join(format!("token-{role}"));
        std::fs::write(&path, text)?;
        Ok(path.display().to_string())
    }

    /// The host with this name.
    ///
    /// # Panics
    /// There is none: a mistake in the test.
    #[must_use]
    pub fn host(&self, name: &str) -> &Host {
        self.hosts.iter().find(|h| h.name == name).expect("a host of this cluster")
    }

    /// The host with this name, to start or stop it.
    ///
    /// # Panics
    /// There is none: a mistake in the test.
    pub fn host_mut(&mut self, name: &str) -> &mut Host {
        self.hosts.iter_mut().find(|h| h.name == name).expect("a host of this cluster")
    }

    /// What a host says of the cluster.
    ///
    /// # Errors
    /// It does not answer.
    pub fn status(&self, host: &str) -> Result<Status> {
        let json = self.host(host).ctl_json(&["status"])?;
        Status::of(&json).with_context(|| format!("not a status: {json}"))
    }

    /// Waits until a host's status is as wanted.
    ///
    /// # Errors
    /// It is not in time.
    pub fn wait_for_status<T>(
        &self,
        host: &str,
        what: &str,
        mut look: impl FnMut(&Status) -> Option<T>,
    ) -> Result<T> {
        let mut last = None;
        let found = wait_for(what, Duration::from_secs(15), || {
            let status = self.status(host).ok()?;
            let found = look(&status);
            last = Some(status);
            found
        });
        found.with_context(|| format!("{host} says {last:?}"))
    }

    /// Waits until a host sees a leader and every VIP held.
    ///
    /// # Errors
    /// It does not in time.
    pub fn wait_until_settled(&self, host: &str) -> Result<Status> {
        self.wait_for_status(host, "a leader, and a holder for every VIP", |status| {
            let held = status.vips.iter().all(|(_, holder, _)| holder.is_some());
            (status.quorum && status.leader.is_some() && held).then(|| status.clone())
        })
    }

    /// Waits until `from` says that another node than `old` holds the VIP
    /// `web` and answers; returns its name.
    ///
    /// # Errors
    /// None does in time.
    pub fn wait_for_takeover(&self, from: &str, old: &str) -> Result<String> {
        wait_for("a takeover", TAKEOVER, || {
            let json = self.host(from).ctl_json(&["vip", "show", "web"]).ok()?;
            let holder = json["holder"].as_str()?.to_owned();
            (json["answers"].as_bool()? && holder != old).then_some(holder)
        })
    }

    /// Waits until `from` says that the VIP `web` answers at the leader, where
    /// its placement wants it, and so will not move by itself; returns the
    /// holder's name.
    ///
    /// # Errors
    /// It does not in time.
    pub fn wait_until_at_leader(&self, from: &str) -> Result<String> {
        wait_for("the VIP to answer at the leader", TAKEOVER, || {
            let leader = self.status(from).ok()?.leader?;
            let json = self.host(from).ctl_json(&["vip", "show", "web"]).ok()?;
            let there = json["holder"].as_str()? == leader;
            (there && json["answers"].as_bool()?).then_some(leader)
        })
    }

    /// The hosts that answered, as [`Trace::holders`], by name.
    ///
    /// # Errors
    /// One of them is none of ours.
    pub fn holders(&self, trace: &Trace) -> Result<Vec<String>> {
        self.names(trace.holders())
    }

    /// The hosts that answered or claimed the VIP, as [`Trace::claimants`], by
    /// name.
    ///
    /// # Errors
    /// One of them is none of ours.
    pub fn claimants(&self, trace: &Trace) -> Result<Vec<String>> {
        self.names(trace.claimants())
    }

    fn names(&self, macs: Vec<Mac>) -> Result<Vec<String>> {
        let all = self.macs()?;
        let name = |mac: Mac| {
            let host = all.iter().find(|(_, m)| *m == mac).context("a host of ours")?;
            Ok(host.0.clone())
        };
        macs.into_iter().map(name).collect()
    }

    /// The Ethernet addresses of all hosts, by name.
    ///
    /// # Errors
    /// A host has none.
    pub fn macs(&self) -> Result<Vec<(String, Mac)>> {
        let mac = |host: &Host| Ok((host.name.clone(), self.lab.mac(&host.name)?));
        self.hosts.iter().map(mac).collect()
    }

    /// Runs `add.sh` of a worked example on n1, twice, as it says of itself that one may.
    ///
    /// # Errors
    /// It failed.
    pub fn add_example(&self, folder: &str, vip: &str) -> Result<()> {
        let script = Path::new(folder).join("add.sh").display().to_string();
        let n1 = self.host("n1");
        let ctl = binaries()?.join("vipctl").display().to_string();
        let vipctl = format!("VIPCTL={ctl} --socket {}", n1.admin_socket().display());
        for _ in 0..2 {
            n1.exec("env", &[&vipctl, &format!("VIP={vip}"), "sh", &script])?.ok()?;
        }
        Ok(())
    }

    /// Where the hosts' files and logs are.
    #[must_use]
    pub fn dir(&self) -> &PathBuf {
        &self.dir
    }

    /// Leaves the files there when the cluster is dropped.
    pub fn keep_files(&mut self) {
        self.keep = true;
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if GAVE_UP.swap(false, Ordering::Relaxed) || std::thread::panicking() {
            eprintln!("logs of the failed test: {}", self.dir.display());
            for host in &self.hosts {
                let log = host.log();
                let tail: Vec<_> = log.lines().rev().take(40).collect();
                eprintln!("--- {}", host.name);
                for line in tail.iter().rev() {
                    eprintln!("{line}");
                }
            }
            self.keep = true;
        }
        self.hosts.clear();
        if !self.keep {
            let _ = std::fs::remove_dir_all(&self.dir);
        }
    }
}
