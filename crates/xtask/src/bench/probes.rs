//! What it costs one node to probe many real servers, by kind of check; and what leases feel of
//! it when all of them end at once.

use super::case::VIP;
use super::felt::{self, felt};
use super::idle::used;
use super::vipd::of_each;
use super::{figures, load, results};
use anyhow::{Context, Result};
use chaos_tests::{Cluster, Daemon, Options, V4, WellByGrpc, within};
use serde_json::{Value, json};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The README shows what so many cost, with ten real servers each.
pub(super) const SERVERS: u16 = 1000;
const REALS: u16 = 10;
/// How long a node is watched: some rounds.
const WATCHED: Duration = Duration::from_secs(20);
const ALL_UP: Duration = Duration::from_secs(120);
/// A question for a name, by hand: example.com, A.
const QUESTION: &str = "udp:000101000001000000000000076578616d706c6503636f6d0000010001";
const KINDS: [(&str, &[&str]); 7] = [
    ("tcp", &["tcp"]),
    ("http", &["http:/ready"]),
    ("https", &["https:/ready", "--check-tls", "skip", "--check-port", "443"]),
    ("grpc", &["grpc", "--check-port", "81"]),
    ("dns", &["dns:site.home.arpa/A", "--check-port", "53"]),
    ("udp", &[QUESTION, "--check-port", "53"]),
    ("icmp", &["icmp"]),
];

/// A host that is ten thousand, with servers of all sorts.
struct Many {
    nginx: Option<Daemon>,
    _dnsmasq: Daemon,
    _grpc: WellByGrpc,
}

impl Many {
    fn start(cluster: &mut Cluster) -> Result<Self> {
        drop(V4.by_dr(&mut cluster.lab, "r1", 11)?);
        let lab = &cluster.lab;
        lab.ip("r1", &["route", "add", "local", "10.80.0.0/16", "dev", "lo"])?;
        for host in &cluster.hosts {
            lab.ip(&host.name, &["route", "add", "10.80.0.0/16", "via", "10.77.0.11"])?;
            lab.exec(&host.name, "sysctl", &["-qw", "net.ipv4.ping_group_range=0 2147483647"])?
                .ok()?;
        }
        let dir = cluster.dir().join("many");
        std::fs::create_dir_all(dir.join("html"))?;
        let home = super::root().join("deploy/home");
        let https = "listen 80;\n listen 443 ssl;\n ssl_certificate cert.pem;\n \
                     ssl_certificate_key key.pem;";
        let conf = std::fs::read_to_string(home.join("nginx.conf"))?;
        // Each probe is a connection of its own.
        let conf = conf.replace("listen 80;", https).replace(
            "events {}",
            "worker_rlimit_nofile 60000;\nevents { worker_connections 50000; }",
        );
        std::fs::write(dir.join("nginx.conf"), conf)?;
        let own = rcgen::generate_simple_self_signed(["many".to_owned()])?;
        std::fs::write(dir.join("cert.pem"), own.cert.pem())?;
        std::fs::write(dir.join("key.pem"), own.signing_key.serialize_pem())?;
        let names = dir.join("names");
        std::fs::create_dir_all(&names)?;
        std::fs::copy(home.join("dnsmasq.conf"), names.join("dnsmasq.conf"))?;
        let nginx = Some(Daemon::nginx(lab, "r1", &dir)?);
        let _grpc = WellByGrpc::start(lab, "r1", "0.0.0.0:81".parse()?)?;
        Ok(Self { nginx, _dnsmasq: Daemon::dnsmasq(lab, "r1", &names)?, _grpc })
    }

    fn start_again(&mut self, cluster: &Cluster) -> Result<()> {
        self.nginx = Some(Daemon::nginx(&cluster.lab, "r1", &cluster.dir().join("many"))?);
        Ok(())
    }
}

fn add(cluster: &Cluster, servers: u16, check: &[&str]) -> Result<()> {
    let n1 = cluster.host("n1").control();
    of_each(servers, |number| {
        let (name, port) = (format!("s{number}"), (1000 + number).to_string());
        let real = |n| {
            let n = number * REALS + n;
            format!("10.80.{}.{}:80", n / 250, n % 250 + 1)
        };
        let reals: Vec<String> = (0..REALS).map(real).collect();
        let reals = reals.iter().flat_map(|real| ["--real", real]);
        let add = ["vs", "add", &name, "--vip", "web", "--port", &port, "--forward", "nat"];
        let timing = ["--check-interval", "5s", "--no-wait", "--check"];
        let all: Vec<&str> =
            add.into_iter().chain(reals).chain(timing).chain(check.iter().copied()).collect();
        n1.ctl(&all)?.ok().map(drop)
    })
}

fn remove(cluster: &Cluster, servers: u16) -> Result<()> {
    let n1 = cluster.host("n1").control();
    of_each(servers, |number| n1.ctl(&["vs", "remove", &format!("s{number}")])?.ok().map(drop))
}

/// How many real servers are up.
fn up(cluster: &Cluster) -> Result<usize> {
    let all = cluster.host("n1").ctl_json(&["vs", "list"])?;
    let servers = all.as_array().context("virtual servers")?;
    let reals = servers.iter().filter_map(|server| server["reals"].as_array()).flatten();
    Ok(reals.filter(|real| real["state"] == "up").count())
}

fn wait_until_up(cluster: &Cluster, wanted: usize, limit: Duration) -> Result<()> {
    within(limit, || (up(cluster).ok()? == wanted).then_some(()))
        .with_context(|| format!("{:?} are up, not {wanted}", up(cluster)))
}

/// Per cent of a core, and memory in MB, of the agent.
fn cost(cluster: &Cluster) -> Result<(f64, u64)> {
    let agents = || -> Result<Duration> {
        let all = used(&cluster.lab, "n1")?;
        Ok(all.iter().filter(|(name, _)| name.starts_with("agent/")).map(|(_, spent)| *spent).sum())
    };
    let before = agents()?;
    std::thread::sleep(WATCHED);
    let spent = agents()?.saturating_sub(before);
    Ok((spent.as_secs_f64() / WATCHED.as_secs_f64() * 100.0, memory(cluster)?))
}

/// The process of the node that does this part of its work.
fn process(cluster: &Cluster, role: &str) -> Result<String> {
    let pids = chaos_tests::run("ip", &["netns", "pids", &cluster.lab.namespace("n1")])?.ok()?;
    let does = |pid: &&str| {
        let line = std::fs::read_to_string(Path::new("/proc").join(pid).join("cmdline"));
        line.is_ok_and(|line| line.split('\0').nth(1) == Some(role))
    };
    Ok(pids.lines().find(does).with_context(|| format!("no {role}"))?.to_owned())
}

fn memory(cluster: &Cluster) -> Result<u64> {
    let pid = process(cluster, "agent")?;
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no size")?;
    let kb: u64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kb / 1000)
}

pub(super) fn run(servers: u16) -> Result<()> {
    let all = usize::from(servers) * usize::from(REALS);
    let mut found = json!({});
    {
        let mut cluster = Cluster::formed(&Options { nodes: 1, ..Options::default() })?;
        cluster.host("n1").ctl_ok(&["vip", "add", "web", "--address", &format!("{VIP}/24")])?;
        let _many = Many::start(&mut cluster)?;
        for (kind, check) in KINDS {
            add(&cluster, servers, check)?;
            wait_until_up(&cluster, all, ALL_UP).with_context(|| kind.to_owned())?;
            let (core, mb) = cost(&cluster)?;
            println!("{kind}: {core:.1} % of a core, {mb} MB");
            found[kind] = json!({ "core": core, "mb": mb });
            remove(&cluster, servers)?;
        }
    }
    found["exec"] = programs()?;
    found["ended"] = ended(servers, all)?;
    found["load"] = json!(load()?);
    std::fs::write(results("probes.json"), serde_json::to_vec_pretty(&found)?)?;
    let text = told(&found, all);
    println!("\n{text}");
    figures::show("probes", servers < SERVERS, &text)
}

/// Each check by a program is a process, of which few run at once.
const PROGRAM_SERVERS: u16 = 30;

/// A folder that is root's alone, as `[probe] exec_dir` has to be; it goes with the value.
struct Programs(PathBuf);

impl Programs {
    fn new() -> Result<Self> {
        let dir = std::env::temp_dir().join(format!("vipd-bench-programs-{}", std::process::id()));
        std::fs::create_dir(&dir)?;
        let programs = Self(dir);
        let well = programs.0.join("well");
        std::fs::write(&well, "#!/bin/sh\nexit 0\n")?;
        for path in [&programs.0, &well] {
            std::fs::set_permissions(path, PermissionsExt::from_mode(0o755))?;
        }
        Ok(programs)
    }
}

impl Drop for Programs {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Time that the process that runs programs spent, with all of these that ended (proc(5)).
fn spent_by_programs(cluster: &Cluster) -> Result<Duration> {
    let pid = process(cluster, "exec")?;
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let behind_name = stat.rsplit_once(')').context("no such process")?.1;
    // utime, stime, cutime, cstime: 14 to 17, and the third is the first behind the name.
    let ticks = behind_name.split_whitespace().skip(11).take(4).map(str::parse::<u64>);
    let ticks = ticks.sum::<Result<u64, _>>()?;
    let a_second = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK)?.unwrap_or(100);
    Ok(Duration::from_secs_f64(ticks as f64 / a_second as f64))
}

fn programs() -> Result<Value> {
    let folder = Programs::new()?;
    let settings = vec![format!("probe.exec_dir={}", folder.0.display())];
    let mut cluster = Cluster::formed(&Options { nodes: 1, settings, ..Options::default() })?;
    cluster.host("n1").ctl_ok(&["vip", "add", "web", "--address", &format!("{VIP}/24")])?;
    let _many = Many::start(&mut cluster)?;
    add(&cluster, PROGRAM_SERVERS, &["exec:well"])?;
    let all = usize::from(PROGRAM_SERVERS) * usize::from(REALS);
    wait_until_up(&cluster, all, ALL_UP)?;
    let before = spent_by_programs(&cluster)?;
    let (core, mb) = cost(&cluster)?;
    let own = spent_by_programs(&cluster)?.saturating_sub(before);
    let own = own.as_secs_f64() / WATCHED.as_secs_f64() * 100.0;
    println!("exec, {all} of them: {core:.1} and {own:.1} % of a core, {mb} MB");
    Ok(json!({ "real servers": all, "core": core + own, "mb": mb }))
}

/// Three nodes, and all real servers end at once and come back.
fn ended(servers: u16, all: usize) -> Result<Value> {
    let mut cluster = Cluster::formed(&Options::default())?;
    cluster.host("n1").ctl_ok(&["vip", "add", "web", "--address", &format!("{VIP}/24")])?;
    let mut many = Many::start(&mut cluster)?;
    add(&cluster, servers, &["tcp"])?;
    wait_until_up(&cluster, all, ALL_UP)?;
    let (took, leases) = felt(&cluster, WATCHED, || {
        let begun = Instant::now();
        many.nginx = None;
        wait_until_up(&cluster, 0, ALL_UP)?;
        let took = begun.elapsed();
        many.start_again(&cluster)?;
        wait_until_up(&cluster, all, ALL_UP)?;
        Ok(took)
    })?;
    Ok(json!({ "known down after, s": took.as_secs_f64(), "leases": leases }))
}

fn told(found: &Value, all: usize) -> String {
    let mut text =
        format!("| {all} real servers every 5 s, one node | of a core | memory |\n|---|---|---|\n");
    for (kind, _) in KINDS {
        let core = found[kind]["core"].as_f64().unwrap_or(f64::NAN);
        text += &format!("| `{kind}` | {core:.0} % | {} MB |\n", found[kind]["mb"]);
    }
    let programs = &found["exec"];
    text += &format!(
        "| `exec`, {} of them, its processes with it | {:.0} % | {} MB |\n",
        programs["real servers"],
        programs["core"].as_f64().unwrap_or(f64::NAN),
        programs["mb"]
    );
    let ended = &found["ended"];
    text + &format!(
        "\n- All of them end at once and come back, three nodes on this machine: known after \
         {:.1} s; {} (load {}).",
        ended["known down after, s"].as_f64().unwrap_or(f64::NAN),
        felt::told(&ended["leases"]),
        found["load"].as_str().unwrap_or_default()
    )
}
