//! What a guard refuses, and what it does not wait for.

use anyhow::{Context, Result, ensure};
use chaos_tests::{Cluster, Lab, Options, Probe, Process, binaries, greet_guard, run, wait_for};
use nix::sys::ptrace;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use std::io::{Read, Write};
use std::net::Ipv4Addr;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const VIP: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 100);
const SOON: Duration = Duration::from_secs(10);
/// `ToGuard::Ping` in a frame.
const PING: &[u8] = &[1, 0, 0, 0, 2];

/// A guard by itself, in a host that runs nothing else.
struct Alone {
    child: Child,
    dir: PathBuf,
}

impl Alone {
    fn start(lab: &Lab, name: &str, before: &[&str]) -> Result<Self> {
        let dir = std::env::temp_dir().join(lab.namespace(name));
        std::fs::create_dir_all(&dir)?;
        let log = std::fs::File::create(dir.join("log"))?;
        let child = Command::new("ip")
            .args(["netns", "exec", &lab.namespace("n1")])
            .args(before)
            .arg(binaries()?.join("vipd"))
            .args(["guard", "--set", &format!("guard.socket={}", dir.join("guard.sock").display())])
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        Ok(Self { child, dir })
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.join("log")).unwrap_or_default()
    }

    fn connect(&self) -> Result<UnixStream> {
        greet_guard(&self.dir.join("guard.sock"))
    }

    fn end(&mut self) -> Result<Option<i32>> {
        let status = wait_for("it ends", SOON, || self.child.try_wait().ok().flatten());
        Ok(status.with_context(|| self.log())?.code())
    }
}

impl Drop for Alone {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// Each would take the other's addresses for leftovers.
#[test]
fn a_second_guard_in_one_network_namespace_is_refused() -> Result<()> {
    let cluster = Cluster::formed(&Options { nodes: 1, ..Options::default() })?;
    cluster.host("n1").ctl_ok(&["vip", "add", "web", "--address", "10.77.0.100/24"])?;
    let probe = Probe::start(&cluster.lab, VIP)?;
    wait_for("the client knows the VIP", SOON, || {
        let all = cluster.lab.ip("client", &["neigh", "show", "10.77.0.100"]).ok()?;
        all.contains("lladdr").then_some(())
    })?;
    let mut second = Alone::start(&cluster.lab, "second", &[])?;
    assert_eq!(second.end()?, Some(1));
    let log = second.log();
    assert!(log.contains("network namespace of its own"), "{log}");
    // Not even one that does not see the first one's files, in a container say.
    let apart =
        ["unshare", "--mount", "sh", "-c", "mount -t tmpfs none /run && exec \"$0\" \"$@\""];
    let mut third = Alone::start(&cluster.lab, "third", &apart)?;
    assert_eq!(third.end()?, Some(1), "{}", third.log());
    let log = third.log();
    assert!(log.contains("network namespace of its own"), "{log}");
    // Neither does a purge by hand.
    let vipd = binaries()?.join("vipd").display().to_string();
    let purge = cluster.lab.exec("n1", &vipd, &["purge"])?;
    assert_eq!(purge.code, Some(1), "{}", purge.stdout);
    let trace = probe.finish()?;
    assert_eq!(trace.outages(Duration::from_millis(100)), [], "nothing was taken away");
    Ok(())
}

/// With another clock the kernel would open and shut at another time than the
/// guard believes, and everybody would be told that leases are enforced.
#[test]
fn a_guard_on_another_clock_than_the_kernels_does_not_run() -> Result<()> {
    let lab = Lab::new(1)?;
    for offset in ["1000", "-1"] {
        let before = ["unshare", "--time", "--fork", "--boottime", offset];
        let mut guard = Alone::start(&lab, "shifted", &before)?;
        assert_eq!(guard.end()?, Some(1), "{offset}: {}", guard.log());
        assert!(guard.log().contains("CLOCK_BOOTTIME"), "{}", guard.log());
    }
    let mut guard = Alone::start(&lab, "straight", &["unshare", "--time", "--fork"])?;
    guard.connect()?;
    kill(Pid::from_raw(i32::try_from(guard.child.id())?), Signal::SIGKILL)?;
    guard.child.wait()?;
    Ok(())
}

/// Nor does an agent hold anything by a guard whose clock is not its own.
#[test]
fn an_agent_on_another_clock_than_its_guards_holds_nothing() -> Result<()> {
    let lab = Lab::new(1)?;
    let guard = Alone::start(&lab, "straight", &[])?;
    drop(guard.connect()?);
    let file = |name: &str| guard.dir.join(name).display().to_string();
    let log = std::fs::File::create(guard.dir.join("agent-log"))?;
    let vipd = binaries()?.join("vipd").display().to_string();
    let mut agent = Command::new("ip");
    agent.args(["netns", "exec", &lab.namespace("n1")]);
    agent.args([
        "unshare",
        "--time",
        "--fork",
        "--kill-child",
        "--boottime",
        "1000",
        &vipd,
        "agent",
    ]);
    for setting in [
        "node.name=n1".to_owned(),
        "node.advertise=10.77.0.1:7400".to_owned(),
        format!("node.data_dir={}", file("data")),
        format!("admin.socket={}", file("admin.sock")),
        format!("guard.socket={}", file("guard.sock")),
    ] {
        agent.args(["--set", &setting]);
    }
    agent.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    let mut agent = agent.spawn()?;
    let vipctl = binaries()?.join("vipctl").display().to_string();
    let ctl = |arguments: &[&str]| {
        run(&vipctl, &[&["--socket", &file("admin.sock")], arguments].concat())
    };
    let tried = || -> Result<()> {
        ctl(&["init"])?.ok()?;
        let added = ["--timeout", "3s", "vip", "add", "web", "--address", "10.77.0.100/24"];
        let added = ctl(&added)?;
        ensure!(added.code == Some(1), "{}", added.stdout);
        wait_for("it says why", SOON, || {
            let log = std::fs::read_to_string(guard.dir.join("agent-log")).ok()?;
            log.contains("reads another clock").then_some(())
        })?;
        ensure!(!lab.has_address("n1", "10.77.0.100")?, "it has the address");
        Ok(())
    };
    let tried = tried();
    agent.kill()?;
    agent.wait()?;
    tried
}

/// A client that asks and does not read fills every buffer on the way.
#[test]
fn a_guard_does_not_wait_for_a_client_that_does_not_read() -> Result<()> {
    let lab = Lab::new(1)?;
    let mut guard = Alone::start(&lab, "asked", &[])?;
    let mut deaf = guard.connect()?;
    let pings = PING.repeat(1000);
    deaf.set_write_timeout(Some(Duration::from_millis(500)))?;
    // Until it is given up, or nothing more fits in.
    while deaf.write_all(&pings).is_ok() {}
    let given_up = "the agent does not read what it is told";
    wait_for("it to be given up", SOON, || guard.log().contains(given_up).then_some(()))?;
    let pid = run("ip", &["netns", "pids", &lab.namespace("n1")])?.ok()?;
    let pid = pid.split_whitespace().next().context("a guard")?.parse()?;
    kill(Pid::from_raw(pid), Signal::SIGTERM)?;
    assert_eq!(guard.end()?, Some(0), "{}", guard.log());
    Ok(())
}

/// Epochs begin anew with a cluster; a guard that was told of higher ones must
/// not hold that against it.
#[test]
fn a_new_cluster_of_the_same_host_answers_at_once() -> Result<()> {
    let mut cluster = Cluster::formed(&Options { nodes: 1, ..Options::default() })?;
    let n1 = cluster.host("n1");
    n1.ctl_ok(&["vip", "add", "web", "--address", "10.77.0.100/24"])?;
    let epoch = || n1.ctl_json(&["vip", "show", "web"]).ok()?["epoch"].as_u64();
    // One that nobody was granted goes on, whoever is killed.
    let answering = || {
        let vip = n1.ctl_json(&["vip", "show", "web"]).ok()?;
        vip["epoch"].as_u64().filter(|_| vip["answers"] == true)
    };
    for _ in 0..4 {
        let before = wait_for("an epoch that answers", SOON, answering)?;
        let agent = n1.find(Process::Agent).context("an agent")?;
        n1.signal(&[Process::Agent], Signal::SIGKILL)?;
        n1.wait_for_process(Process::Agent, agent)?;
        wait_for("the next epoch", SOON, || epoch().filter(|epoch| *epoch > before))?;
    }
    n1.ctl_ok(&["leave", "--force"])?;
    n1.ctl_ok(&["init", "--name", "again"])?;
    n1.ctl_ok(&["vip", "add", "web", "--address", "10.77.0.100/24"])?;
    assert_eq!(epoch(), Some(1));
    cluster.hosts.clear();
    Ok(())
}

/// A lease on such a clock lasts longer than others wait for it.
#[test]
fn a_holder_whose_clock_is_slewed_lets_go_and_says_what_to_set() -> Result<()> {
    let cluster = Cluster::formed(&Options { unwell: true, ..Options::default() })?;
    let n1 = cluster.host("n1");
    n1.ctl_ok(&["vip", "add", "web", "--address", "10.77.0.100/24"])?;
    let steered = || n1.ctl(&["doctor"]).is_ok_and(|out| out.stdout.contains("is steered by"));
    assert!(!steered(), "nothing is wrong yet");
    // As fast as chrony slews by default.
    n1.slew(Some(10_833))?;
    let new = cluster.wait_for_takeover("n2", "n1")?;
    assert_ne!(new, "n1");
    assert!(steered(), "doctor says so");
    assert!(n1.log().contains("Set `maxslewrate 500` in chrony.conf"), "and so does the log");
    n1.slew(None)?;
    cluster.host("n2").ctl_ok(&["vip", "move", "web", "--to", "n1"])?;
    Ok(())
}

/// What keeps an interface silent that appears while the guard stands still.
#[test]
fn settings_are_kept_while_the_guard_runs_and_put_back_also_after_a_kill() -> Result<()> {
    let mut cluster = Cluster::bare(&Options { nodes: 1, ..Options::default() })?;
    let ignore = "/proc/sys/net/ipv4/conf/all/arp_ignore";
    let announce = "/proc/sys/net/ipv4/conf/all/arp_announce";
    let settings = |cluster: &Cluster| {
        let read = |path| cluster.lab.exec("n1", "cat", &[path]).ok()?.ok().ok();
        Some([read(ignore)?.trim().to_owned(), read(announce)?.trim().to_owned()])
    };
    let are = |cluster: &Cluster, wanted: [&str; 2]| {
        wait_for("the settings", SOON, || settings(cluster).filter(|found| *found == wanted))
    };
    are(&cluster, ["1", "2"])?;
    cluster.lab.exec("n1", "sh", &["-c", &format!("echo 0 > {ignore}")])?.ok()?;
    are(&cluster, ["1", "2"]).context("somebody else lowered one")?;
    let guard = cluster.host("n1").find(Process::Guard).context("a guard")?;
    cluster.host("n1").signal(&[Process::Guard], Signal::SIGKILL)?;
    cluster.host("n1").wait_for_process(Process::Guard, guard)?;
    are(&cluster, ["1", "2"])?;
    // The socket of the one before is there all the while.
    wait_for("the next guard", SOON, || {
        (cluster.host("n1").log().matches("guard ready").count() == 2).then_some(())
    })?;
    cluster.host_mut("n1").stop()?;
    are(&cluster, ["0", "0"]).context("put back")?;
    Ok(())
}

/// A signal that comes while the kernel looks at the gate's programs interrupts
/// that.
#[test]
fn a_guard_that_is_stopped_while_it_starts_leaves_nothing() -> Result<()> {
    let mut cluster = Cluster::bare(&Options { nodes: 1, ..Options::default() })?;
    let ignore = "/proc/sys/net/ipv4/conf/all/arp_ignore";
    for after_ms in (10..40).chain(10..40) {
        cluster.host_mut("n1").stop()?;
        cluster.host_mut("n1").start()?;
        std::thread::sleep(Duration::from_millis(after_ms));
        cluster.host_mut("n1").stop()?;
        let left = cluster.lab.exec("n1", "cat", &[ignore])?.ok()?;
        assert_eq!(left.trim(), "0", "stopped after {after_ms} ms: {}", cluster.host("n1").log());
    }
    let log = cluster.host("n1").log();
    assert!(!log.contains("the kernel refused"), "{log}");
    Ok(())
}

/// After an upgrade over several versions the one may have been restarted, and the
/// other not.
#[test]
fn an_agent_of_another_age_is_turned_away_with_the_reason() -> Result<()> {
    let lab = Lab::new(1)?;
    let guard = Alone::start(&lab, "aged", &[])?;
    let path = guard.dir.join("guard.sock");
    let mut stream = wait_for("the guard", SOON, || UnixStream::connect(&path).ok())?;
    stream.write_all(b"vipd\x08\0\x09\0")?;
    let mut greeting = vec![];
    // Its own versions, and no more.
    stream.read_to_end(&mut greeting)?;
    assert_eq!(greeting, b"vipd\x01\0\x06\0");
    wait_for("the reason", SOON, || {
        guard
            .log()
            .contains("the agent speaks versions 8 to 9 of the guard's protocol")
            .then_some(())
    })
}

/// One thread of a process that stands still; it goes on with the end of the value,
/// which is to be on the thread that made it.
struct Halted(Pid);

impl Halted {
    fn thread(process: i32, name: &str) -> Result<Self> {
        let tasks = std::fs::read_dir(format!("/proc/{process}/task"))?;
        let is_it = |task: &PathBuf| {
            std::fs::read_to_string(task.join("comm")).is_ok_and(|comm| comm.trim() == name)
        };
        let thread = tasks.flatten().map(|task| task.path()).find(is_it);
        let thread = thread.with_context(|| format!("no thread {name}"))?;
        let thread = thread.file_name().context("a number")?.display().to_string();
        let thread = Pid::from_raw(thread.parse()?);
        ptrace::seize(thread, ptrace::Options::empty())?;
        let halted = Self(thread);
        ptrace::interrupt(thread)?;
        waitpid(thread, Some(WaitPidFlag::__WALL))?;
        Ok(halted)
    }
}

impl Drop for Halted {
    fn drop(&mut self) {
        let _ = ptrace::detach(self.0, None);
    }
}

/// The second lane has something to do, and does not do it.
#[test]
fn a_thread_for_tables_that_stands_still_delays_no_lease() -> Result<()> {
    let cluster = Cluster::formed(&Options::default())?;
    let (n1, n2) = (cluster.host("n1"), cluster.host("n2"));
    n1.ctl_ok(&["vip", "add", "web", "--address", "10.77.0.100/24"])?;
    cluster.wait_until_settled("n3")?;
    let guards = [n1, n2].map(|host| host.find(Process::Guard));
    let of_n1 = Halted::thread(guards[0].context("a guard")?, "tables")?;
    let of_n2 = Halted::thread(guards[1].context("a guard")?, "tables")?;
    // An agent that comes is to be told what is in force.
    let before = n2.find(Process::Agent).context("an agent")?;
    n2.signal(&[Process::Agent], Signal::SIGKILL)?;
    n2.wait_for_process(Process::Agent, before)?;
    cluster.wait_until_settled("n3")?;
    let said = |host: &chaos_tests::Host, what: &str| {
        host.ctl(&["doctor"]).is_ok_and(|doctor| doctor.stdout.contains(what)).then_some(())
    };
    wait_for("n2 to say so", SOON, || said(n2, "orders wait; leases go on"))?;

    let probe = Probe::start(&cluster.lab, VIP)?;
    for to in ["n2", "n1", "n2"] {
        n1.ctl_ok(&["vip", "move", "web", "--to", to])?;
    }
    drop((of_n1, of_n2));
    wait_for("n2 to be well again", SOON, || said(n2, "0 orders carried out, 0 wait"))?;
    let trace = probe.finish()?;
    assert_eq!(cluster.holders(&trace)?, ["n1", "n2", "n1", "n2"]);
    assert_eq!(trace.outages(Duration::from_millis(150)), []);
    Ok(())
}

/// The next message from a guard: Welcome is the first of its kinds, Alive the second.
fn next_frame(stream: &mut UnixStream) -> Result<Vec<u8>> {
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let mut body = vec![0; u32::from_le_bytes(length).try_into()?];
    stream.read_exact(&mut body)?;
    Ok(body)
}

/// Has a guard's program replaced by itself, and waits until it is.
fn replace(guard: &Alone) -> Result<()> {
    let went_on = || guard.log().matches("goes on from the program before").count();
    let before = went_on();
    kill(Pid::from_raw(i32::try_from(guard.child.id())?), Signal::SIGHUP)?;
    wait_for("the next program", SOON, || (went_on() > before).then_some(()))
        .with_context(|| guard.log())
}

/// Wherever in a message it is when its guard's program is replaced.
#[test]
fn an_agent_does_not_notice_that_its_guards_program_is_replaced() -> Result<()> {
    let lab = Lab::new(1)?;
    let guard = Alone::start(&lab, "followed", &[])?;
    let mut agent = guard.connect()?;
    assert_eq!(next_frame(&mut agent)?.first(), Some(&0), "it is welcome");
    assert_eq!(next_frame(&mut agent)?.first(), Some(&4), "and told of interfaces");
    for cut in 0..=PING.len() {
        agent.write_all(&PING[..cut])?;
        replace(&guard)?;
        agent.write_all(&PING[cut..])?;
        assert_eq!(next_frame(&mut agent)?, [1], "cut after {cut} bytes: {}", guard.log());
    }
    // Many at once, and many replacements: each is answered, and once.
    let stop = Arc::new(AtomicBool::new(false));
    let pinger = {
        let (stop, mut agent) = (stop.clone(), agent.try_clone()?);
        std::thread::spawn(move || -> Result<u64> {
            let mut answered = 0;
            while !stop.load(Ordering::Relaxed) {
                agent.write_all(&PING.repeat(100))?;
                for _ in 0..100 {
                    ensure!(next_frame(&mut agent)? == [1], "after {answered} answers");
                    answered += 1;
                }
            }
            // Of the last one it is the last word.
            agent.set_read_timeout(Some(Duration::from_millis(100)))?;
            let more = next_frame(&mut agent);
            ensure!(more.is_err(), "one answer too many: {more:?}");
            agent.set_read_timeout(Some(SOON))?;
            Ok(answered)
        })
    };
    for _ in 0..20 {
        replace(&guard)?;
    }
    stop.store(true, Ordering::Relaxed);
    let answered = pinger.join().ok().context("it panicked")?.with_context(|| guard.log())?;
    println!("{answered} pings beside 20 replacements");
    assert!(answered > 1000, "{answered}");
    // It knows the process that it serves: that may begin anew.
    let mut again = guard.connect()?;
    assert_eq!(next_frame(&mut again)?.first(), Some(&0), "it is welcome");
    assert!(guard.log().contains("the agent begins anew"), "{}", guard.log());
    Ok(())
}

/// At any moment of a replacement.
#[test]
fn a_guard_whose_program_is_being_replaced_can_be_stopped() -> Result<()> {
    let lab = Lab::new(1)?;
    for delay_us in [0, 500, 2000, 5000, 10_000, 15_000, 20_000, 25_000, 30_000, 40_000] {
        let mut guard = Alone::start(&lab, "stopped", &[])?;
        drop(guard.connect()?);
        let pid = Pid::from_raw(i32::try_from(guard.child.id())?);
        kill(pid, Signal::SIGHUP)?;
        let begun = std::time::Instant::now();
        while begun.elapsed() < Duration::from_micros(delay_us) {
            std::hint::spin_loop();
        }
        kill(pid, Signal::SIGHUP)?;
        kill(pid, Signal::SIGTERM)?;
        assert_eq!(guard.end()?, Some(0), "after {delay_us} us: {}", guard.log());
    }
    Ok(())
}
