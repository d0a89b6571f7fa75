//! Disks that fail.

use anyhow::{Context, Result};
use chaos_tests::{Cluster, Host, Options, Probe, Process, run, wait_for};
use std::net::Ipv4Addr;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const VIP: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 100);

const SOON: Duration = Duration::from_secs(15);
/// For so long a node in doubt of its vote deposes nobody: ten promises of `lan`.
const PATIENCE: Duration = Duration::from_secs(2);

/// A file system of 16 MiB, gone with the value.
struct SmallDisk(String);

impl SmallDisk {
    fn on(path: &str) -> Result<Self> {
        std::fs::create_dir_all(path)?;
        run("mount", &["-t", "tmpfs", "-o", "size=16m,mode=0700", "tmpfs", path])?.ok()?;
        Ok(Self(path.to_owned()))
    }

    /// Leaves no room at all.
    fn fill(&self) {
        let filler = std::path::Path::new(&self.0).join("filler");
        // Ends with the error that is wanted.
        let _ = std::fs::write(filler, vec![1u8; 32 << 20]);
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = run("umount", &["-l", &self.0]);
    }
}

#[test]
fn a_full_disk_costs_the_holder_its_vip_and_nobody_else_anything() -> Result<()> {
    let mut cluster = Cluster::bare(&Options::default())?;
    cluster.host_mut("n1").stop()?;
    let data = cluster.host("n1").dir().join("data").display().to_string();
    let disk = SmallDisk::on(&data)?;
    cluster.host_mut("n1").start()?;
    cluster.form()?;
    cluster.host("n1").ctl_ok(&["vip", "add", "web", "--address", "10.77.0.100/24"])?;
    disk.fill();
    // The last page of the log may have room for some commands more.
    wait_for("n1 to find its disk full", SOON, || {
        write_something(&cluster, "n2").ok()?;
        cluster.host("n1").log().contains("the log failed").then_some(())
    })?;
    let holder = wait_for("another holder", SOON, || {
        let json = cluster.host("n2").ctl_json(&["vip", "show", "web"]).ok()?;
        let holder = json["holder"].as_str()?.to_owned();
        (json["answers"].as_bool()? && holder != "n1").then_some(holder)
    })?;
    assert!(["n2", "n3"].contains(&holder.as_str()));
    assert!(!cluster.lab.has_address("n1", "10.77.0.100")?);
    // With room again it comes back by itself.
    std::fs::remove_file(std::path::Path::new(&data).join("filler"))?;
    cluster.wait_for_status("n1", "n1 follows", |s| s.quorum.then_some(()))?;
    cluster.hosts.clear();
    drop(disk);
    Ok(())
}

/// Changes what fdatasync does for the thread of an agent that syncs its log.
/// Only this thread is traced, so that the others are as fast as ever.
struct Injected(Child);

impl Injected {
    fn into(host: &Host, what: &str) -> Result<Self> {
        Self::attached(host, what, &[])
    }

    /// The agents that `vipd` starts after this one find the same.
    fn into_all(host: &Host, what: &str) -> Result<Self> {
        let parent = host.find(Process::Parent).context("a parent")?;
        Self::attached(host, what, &["-f", "-p", &parent.to_string()])
    }

    fn attached(host: &Host, what: &str, others: &[&str]) -> Result<Self> {
        let pid = host.find(Process::Agent).context("an agent")?;
        let tasks = std::fs::read_dir(format!("/proc/{pid}/task"))?;
        let thread = tasks.filter_map(Result::ok).map(|t| t.path()).find(|task| {
            std::fs::read_to_string(task.join("comm")).is_ok_and(|comm| comm.trim() == "log-sync")
        });
        let thread = thread.context("a thread that syncs")?;
        let thread = thread.file_name().context("a number")?.display().to_string();
        let mut strace = Command::new("strace");
        strace.args(["-e", "trace=fdatasync", "-e", &format!("inject=fdatasync:{what}")]);
        strace
            .args(others)
            .args(["-o", "/dev/null", "-p", &thread])
            .stdin(Stdio::null())
            .stderr(Stdio::null());
        let injected = Self(strace.spawn().context("starting strace")?);
        let status = format!("/proc/{pid}/task/{thread}/status");
        wait_for("strace to attach", SOON, || {
            let text = std::fs::read_to_string(&status).ok()?;
            let tracer = text.lines().find_map(|line| line.strip_prefix("TracerPid:"))?;
            (tracer.trim() != "0").then_some(())
        })?;
        Ok(injected)
    }
}

impl Drop for Injected {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn three_with_a_vip() -> Result<Cluster> {
    let cluster = Cluster::formed(&Options::default())?;
    cluster.host("n1").ctl_ok(&["vip", "add", "web", "--address", "10.77.0.100/24"])?;
    cluster.wait_until_settled("n3")?;
    Ok(cluster)
}

/// Something to write, so that the disk is needed. Nobody waits for it.
fn write_something(cluster: &Cluster, from: &str) -> Result<()> {
    cluster.host(from).ctl(&["--timeout", "1s", "token", "create", "-q"]).map(|_| ())
}

#[test]
fn a_leader_whose_disk_stalls_hands_over_and_stays_a_member() -> Result<()> {
    let cluster = three_with_a_vip()?;
    let probe = Probe::start(&cluster.lab, VIP)?;
    let stalled = Injected::into(cluster.host("n1"), "delay_exit=3000000")?;
    write_something(&cluster, "n2")?;
    let new = cluster.wait_for_takeover("n3", "n1")?;
    // It still promises, and so is heard: only its disk is slow.
    let status = cluster.wait_for_status(&new, "n1 is heard", |s| {
        s.nodes.iter().any(|n| n.0 == "n1" && n.1 == "active").then(|| s.clone())
    })?;
    assert_ne!(status.leader.as_deref(), Some("n1"));
    drop(stalled);
    cluster.wait_for_status("n1", "n1 follows", |s| {
        (s.leader.is_some() && s.vips[0].1.as_deref() == Some(&new)).then_some(())
    })?;
    let trace = probe.finish()?;
    assert_eq!(cluster.holders(&trace)?, ["n1", &new]);
    Ok(())
}

#[test]
fn a_follower_whose_disk_stalls_disturbs_nobody() -> Result<()> {
    let cluster = three_with_a_vip()?;
    let probe = Probe::start(&cluster.lab, VIP)?;
    let before = cluster.status("n1")?;
    let stalled = Injected::into(cluster.host("n2"), "delay_exit=2000000")?;
    for _ in 0..3 {
        cluster.host("n1").ctl_ok(&["token", "create", "-q"])?;
    }
    drop(stalled);
    let after = cluster.wait_until_settled("n2")?;
    let trace = probe.finish()?;
    assert_eq!((after.leader, after.vips), (before.leader, before.vips));
    assert_eq!(cluster.holders(&trace)?, ["n1"]);
    assert_eq!(trace.outages(Duration::from_millis(150)), []);
    Ok(())
}

#[test]
fn a_leader_whose_disk_fails_hands_over_and_says_why() -> Result<()> {
    let cluster = three_with_a_vip()?;
    let probe = Probe::start(&cluster.lab, VIP)?;
    let failing = Injected::into_all(cluster.host("n1"), "error=EIO")?;
    write_something(&cluster, "n2")?;
    let new = cluster.wait_for_takeover("n3", "n1")?;
    wait_for("n1 says why", SOON, || {
        cluster.host("n1").log().contains("the log failed").then_some(())
    })?;
    drop(failing);
    // The next agent has a disk that works.
    cluster.wait_for_status("n1", "n1 follows", |s| {
        (s.quorum && s.leader.as_deref() == Some(&new)).then_some(())
    })?;
    let trace = probe.finish()?;
    assert_eq!(cluster.holders(&trace)?, ["n1", &new]);
    Ok(())
}

/// The power failed while the log was written, and the disk lost the rest of
/// it: a voter that forgot what it said must not speak again.
#[test]
fn a_torn_log_keeps_its_node_out_until_it_joins_again() -> Result<()> {
    let mut cluster = three_with_a_vip()?;
    let probe = Probe::start(&cluster.lab, VIP)?;
    for _ in 0..20 {
        cluster.host("n1").ctl_ok(&["token", "create", "-q"])?;
    }
    cluster.host_mut("n3").stop()?;
    let data = cluster.host("n3").dir().join("data");
    let log = data.join("raft/db");
    let bytes = std::fs::read(&log)?;
    let used = bytes.iter().rposition(|byte| *byte != 0).context("not empty")?;
    std::fs::OpenOptions::new().write(true).open(&log)?.set_len(u64::try_from(used / 2)?)?;

    cluster.host_mut("n3").start()?;
    wait_for("n3 to refuse its log", SOON, || {
        let log = cluster.host("n3").log();
        (log.contains("the log in") && log.contains("join again")).then_some(())
    })?;
    cluster.wait_for_status("n1", "n3 is missed", |status| {
        status.nodes.iter().any(|n| n.0 == "n3" && n.1 == "lost").then_some(())
    })?;

    // What the message says.
    cluster.host_mut("n3").stop()?;
    cluster.host("n1").ctl_ok(&["node", "remove", "n3"])?;
    std::fs::rename(&data, data.with_extension("torn"))?;
    cluster.host_mut("n3").start()?;
    cluster.join(cluster.host("n3"), "voter")?;
    let status = cluster.wait_until_settled("n3")?;
    assert!(status.nodes.iter().all(|n| n.1 == "active"), "{:?}", status.nodes);
    let trace = probe.finish()?;
    assert_eq!(cluster.holders(&trace)?, ["n1"], "the others went on");
    Ok(())
}

/// The vote in it may have bound it to somebody, and it cannot know to whom.
#[test]
fn a_node_with_a_damaged_vote_promises_nobody_until_the_next_election() -> Result<()> {
    let mut cluster = three_with_a_vip()?;
    let probe = Probe::start(&cluster.lab, VIP)?;
    cluster.host_mut("n3").stop()?;
    let votes = cluster.host("n3").dir().join("data/raft/votes");
    let mut bytes = std::fs::read(&votes)?;
    // Of the record before the last one: nobody can know that it is.
    let sequence = |slot: usize| bytes[slot + 8..slot + 16].to_vec();
    let slot = if sequence(0) < sequence(4096) { 0 } else { 4096 };
    bytes[slot + 20] ^= 1;
    std::fs::write(&votes, bytes)?;
    let started = Instant::now();
    cluster.host_mut("n3").start()?;
    let doubt = "a record of this node's votes is damaged";
    wait_for("n3 to say that it is in doubt", SOON, || {
        cluster.host("n3").log().contains(doubt).then_some(())
    })?;
    // The others go on. After a while it has somebody elected.
    cluster.host("n1").ctl_ok(&["token", "create", "-q"])?;
    wait_for("n3 to take part again", SOON, || {
        let status = cluster.host("n3").ctl_json(&["status"]).ok()?;
        let doctor = cluster.host("n3").ctl(&["doctor"]).ok()?.stdout;
        let well = !status["warnings"].to_string().contains(doubt) && !doctor.contains(doubt);
        (well && doctor.contains("none is lost")).then_some(())
    })?;
    assert!(started.elapsed() > PATIENCE, "it deposed a leader at once");
    cluster.wait_until_settled("n3")?;
    let trace = probe.finish()?;
    println!("silent for more than 10 ms: {:?}", trace.outages(Duration::from_millis(10)));
    assert_eq!(cluster.holders(&trace)?[0], "n1");
    Ok(())
}
