//! The lease gate: it outlives its guard, needs few rights, and stands before
//! everybody else's programs.

use anyhow::{Context, Result};
use aya::programs::tc::{TcAttachOptions, TcAttachType};
use aya::programs::{LinkOrder, SchedClassifier};
use chaos_tests::{Cluster, Lab, Options, Probe, Process, binaries, greet_guard, run, wait_for};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::io::Read;
use std::net::Ipv4Addr;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const VIP: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 100);
const SOON: Duration = Duration::from_secs(10);
/// L of profile `lan`, and what a probe and a busy machine add.
const LEASE: Duration = Duration::from_millis(190 + 60);
const FOREIGN: &[u8] = aya::include_bytes_aligned!("../../crates/vip-datapath/tests/foreign.o");

fn now_ns() -> Result<u64> {
    Ok(u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos())?)
}

/// Puts a program before all others that lets everything pass and ends the
/// chain. Stays for as long as the value lives.
fn attach_foreign(lab: &Lab, host: &str) -> Result<aya::Ebpf> {
    std::thread::scope(|scope| {
        let attach = scope.spawn(|| -> Result<aya::Ebpf> {
            lab.enter(host)?;
            let mut bpf = aya::Ebpf::load(FOREIGN)?;
            let program: &mut SchedClassifier =
                bpf.program_mut("foreign").context("in the object")?.try_into()?;
            program.load()?;
            for hook in [TcAttachType::Ingress, TcAttachType::Egress] {
                let first = TcAttachOptions::TcxOrder(LinkOrder::first());
                program.attach_with_options("eth0", hook, first)?;
            }
            Ok(bpf)
        });
        attach.join().expect("no panic")
    })
}

/// Names of the programs on a hook, first one first.
fn chain(lab: &Lab, host: &str, hook: TcAttachType) -> Result<Vec<String>> {
    std::thread::scope(|scope| {
        let query = scope.spawn(|| -> Result<Vec<String>> {
            lab.enter(host)?;
            let (_, programs) = SchedClassifier::query_tcx("eth0", hook)?;
            Ok(programs.iter().filter_map(|p| p.name_as_str().map(str::to_owned)).collect())
        });
        query.join().expect("no panic")
    })
}

#[test]
fn a_foreign_program_that_passes_everything_does_not_open_the_gate() -> Result<()> {
    let cluster = Cluster::formed(&Options::default())?;
    cluster.host("n1").ctl_ok(&["vip", "add", "web", "--address", "10.77.0.100/24"])?;
    let _foreign = attach_foreign(&cluster.lab, "n1")?;
    for hook in [TcAttachType::Ingress, TcAttachType::Egress] {
        wait_for("the gate is first again", SOON, || {
            let chain = chain(&cluster.lab, "n1", hook).ok()?;
            let first = chain.first()?.starts_with("vipd_");
            (first && chain.len() == 2 && chain[1] == "foreign").then_some(())
        })?;
    }
    let probe = Probe::start(&cluster.lab, VIP)?;
    wait_for("the client knows the VIP", SOON, || {
        let all = cluster.lab.ip("client", &["neigh", "show", "10.77.0.100"]).ok()?;
        all.contains("lladdr").then_some(())
    })?;
    cluster.host("n1").signal(&[Process::Agent, Process::Guard], Signal::SIGSTOP)?;
    let new = wait_for("a takeover", SOON, || {
        let json = cluster.host("n2").ctl_json(&["vip", "show", "web"]).ok()?;
        let holder = json["holder"].as_str()?.to_owned();
        (json["answers"].as_bool()? && holder != "n1").then_some(holder)
    })?;
    // The frozen node still has the address, and a client keeps asking it.
    assert!(cluster.lab.has_address("n1", "10.77.0.100")?);
    std::thread::sleep(Duration::from_millis(500));
    let trace = probe.finish()?;
    assert_eq!(trace.holders(), [cluster.lab.mac("n1")?, cluster.lab.mac(&new)?]);
    Ok(())
}

/// vipd in two processes with the rights that the units give: the guard three
/// capabilities, the agent none.
struct Bare<'a> {
    lab: &'a Lab,
    settings: Vec<String>,
}

impl<'a> Bare<'a> {
    fn new(lab: &'a Lab, dir: &Path) -> Self {
        let path = |name: &str| dir.join(name).display().to_string();
        let settings = vec![
            format!("node.data_dir={}", path("data")),
            "node.name=n1".into(),
            "node.advertise=10.77.0.1:7400".into(),
            format!("admin.socket={}", path("admin.sock")),
            format!("guard.socket={}", path("guard.sock")),
        ];
        Self { lab, settings }
    }

    fn start(&self, what: &str, capabilities: &str) -> Result<Child> {
        let log =
            std::fs::OpenOptions::new().create(true).append(true).open(self.dir().join("log"))?;
        let mut command = Command::new("ip");
        command
            .args(["netns", "exec", &self.lab.namespace("n1"), "setpriv"])
            .arg(format!("--bounding-set=-all{capabilities}"))
            .arg(format!("--inh-caps=-all{capabilities}"))
            .arg(binaries()?.join("vipd"))
            .arg(what);
        for setting in &self.settings {
            command.args(["--set", setting]);
        }
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        Ok(command.spawn()?)
    }

    fn guard(&self) -> Result<Child> {
        self.start("guard", ",+net_admin,+net_raw,+bpf")
    }

    fn agent(&self) -> Result<Child> {
        self.start("agent", "")
    }

    fn dir(&self) -> &Path {
        Path::new(self.settings[0].trim_start_matches("node.data_dir=")).parent().expect("a parent")
    }

    fn ctl(&self, arguments: &[&str]) -> Result<String> {
        let program = binaries()?.join("vipctl").display().to_string();
        let socket = self.dir().join("admin.sock").display().to_string();
        run(&program, &[&["--socket", &socket], arguments].concat())?.ok()
    }
}

fn end(mut child: Child) -> Result<()> {
    kill(Pid::from_raw(i32::try_from(child.id())?), Signal::SIGKILL)?;
    child.wait()?;
    Ok(())
}

/// An agent that gave its session up, because its guard was too slow, comes
/// back before the guard has read the end of it. Another agent is refused.
#[test]
fn an_agent_that_begins_anew_replaces_its_own_session_only() -> Result<()> {
    let lab = Lab::new(1)?;
    let dir = std::env::temp_dir().join(lab.namespace("files"));
    std::fs::create_dir_all(&dir)?;
    let host = Bare::new(&lab, &dir);
    let guard = host.guard()?;
    let connect = || -> Result<UnixStream> {
        let mut stream = greet_guard(&dir.join("guard.sock"))?;
        // Its decision.
        stream.read_exact(&mut [0])?;
        Ok(stream)
    };
    let mut first = connect()?;
    let second = connect()?;
    first.read_to_end(&mut vec![]).context("the first session goes on")?;

    let agent = host.agent()?;
    host.ctl(&["init"])?;
    wait_for("a stranger to be refused", SOON, || {
        let log = std::fs::read_to_string(dir.join("log")).ok()?;
        log.contains("serves another agent").then_some(())
    })?;
    drop(second);
    wait_for("the agent to be served", SOON, || {
        let status = host.ctl(&["-o", "json", "status"]).ok()?;
        let status: serde_json::Value = serde_json::from_str(&status).ok()?;
        (status["gate"] == "enforced").then_some(())
    })?;
    end(agent)?;
    end(guard)?;
    std::fs::remove_dir_all(&dir)?;
    Ok(())
}

#[test]
fn the_gate_outlives_its_guard_and_the_next_guard_replaces_it_with_few_rights() -> Result<()> {
    let lab = Lab::new(1)?;
    let dir = std::env::temp_dir().join(lab.namespace("files"));
    std::fs::create_dir_all(&dir)?;
    let path = |name: &str| dir.join(name).display().to_string();
    let host = Bare::new(&lab, &dir);
    let (guard, agent) = (host.guard()?, host.agent()?);
    host.ctl(&["init"])?;
    host.ctl(&["vip", "add", "web", "--address", "10.77.0.100/24"])?;
    let status: serde_json::Value = serde_json::from_str(&host.ctl(&["-o", "json", "status"])?)?;
    assert_eq!(status["gate"], "enforced", "{}", std::fs::read_to_string(path("log"))?);

    let probe = Probe::start(&lab, VIP)?;
    wait_for("the client knows the VIP", SOON, || {
        lab.ip("client", &["neigh", "show", "10.77.0.100"]).ok()?.contains("lladdr").then_some(())
    })?;
    std::thread::sleep(Duration::from_millis(200));
    let killed_at = now_ns()?;
    // Frozen first, so that neither of them can let go.
    for child in [&guard, &agent] {
        kill(Pid::from_raw(i32::try_from(child.id())?), Signal::SIGSTOP)?;
    }
    end(guard)?;
    end(agent)?;
    std::thread::sleep(LEASE * 2);
    assert!(lab.has_address("n1", "10.77.0.100")?, "the address is still there");
    let trace = probe.finish()?;
    let last = trace.replies.last().context("it answered before")?.at_ns;
    let after = Duration::from_nanos(last.saturating_sub(killed_at));
    assert!(after < LEASE, "answered for {after:?} after everybody was dead");
    assert!(trace.replies.iter().any(|r| r.at_ns < killed_at));

    // A new guard cannot write the old map; it takes the old program off.
    let (guard, agent) = (host.guard()?, host.agent()?);
    let probe = Probe::start(&lab, VIP)?;
    wait_for("it holds again", SOON, || {
        let json: serde_json::Value =
            serde_json::from_str(&host.ctl(&["-o", "json", "vip", "show", "web"]).ok()?).ok()?;
        (json["epoch"].as_u64()? > 1 && json["answers"].as_bool()?).then_some(())
    })?;
    std::thread::sleep(Duration::from_millis(500));
    let trace = probe.finish()?;
    assert!(!trace.replies.is_empty(), "{}", std::fs::read_to_string(path("log"))?);
    for hook in [TcAttachType::Ingress, TcAttachType::Egress] {
        assert_eq!(chain(&lab, "n1", hook)?.len(), 1, "one gate, not two");
    }
    end(agent)?;
    end(guard)?;
    std::fs::remove_dir_all(&dir)?;
    Ok(())
}

#[test]
fn an_address_that_something_else_deletes_comes_back() -> Result<()> {
    let cluster = Cluster::formed(&Options { nodes: 1, ..Options::default() })?;
    let n1 = cluster.host("n1");
    n1.ctl_ok(&["vip", "add", "web", "--address", "10.77.0.100/24", "--address", "fd77::100/64"])?;
    for address in ["10.77.0.100/32", "fd77::100/128"] {
        cluster.lab.ip("n1", &["address", "del", address, "dev", "eth0"])?;
        let ip = address.split('/').next().expect("an address");
        wait_for("it is back", SOON, || cluster.lab.has_address("n1", ip).ok()?.then_some(()))?;
    }
    Ok(())
}

#[test]
fn an_address_outside_the_hosts_allowlist_is_refused_whoever_asks() -> Result<()> {
    let settings = vec!["guard.allow=[\"10.77.0.96/28\"]".to_owned()];
    let cluster = Cluster::formed(&Options { nodes: 1, settings, ..Options::default() })?;
    let n1 = cluster.host("n1");
    n1.ctl_ok(&["vip", "add", "in", "--address", "10.77.0.100/24"])?;
    let out = n1.ctl(&["--timeout", "2s", "vip", "add", "out", "--address", "10.77.0.200/24"])?;
    assert_eq!(out.code, Some(1), "{}", out.stderr);
    assert!(!cluster.lab.has_address("n1", "10.77.0.200")?);
    assert!(n1.log().contains("allow"), "the log says why");
    Ok(())
}
