//! From a real server's end until no client is sent to it any more, as clients see it: vipd's
//! checks beside keepalived's, in turns.

use super::{figures, keep, spread};
use crate::lab;
use crate::shell::root;
use anyhow::{Context, Result};
use chaos_tests::{Cluster, Daemon, Lab, Options, Page, V4, unserved, wait_for};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Fewer say too little for the README.
pub(super) const RUNS: usize = 5;
/// Between two probes of either.
const INTERVAL: Duration = Duration::from_secs(2);
/// In which everything is as it should be, in a guest that is slow.
const SETTLE: Duration = Duration::from_secs(60);
/// Longest that it is watched.
const WATCHED: Duration = Duration::from_secs(40);
/// Requests of which each server gets some.
const MANY: usize = 20;

#[derive(Clone, Copy)]
enum Side {
    Keepalived,
    Vipd,
}

#[derive(Clone, Copy)]
enum Check {
    Tcp,
    Http,
}

#[derive(Clone, Copy)]
enum Fault {
    /// Its process is killed.
    Refuses,
    /// Its host takes nothing for it any more, and says nothing.
    Hangs,
}

const SIDES: [Side; 2] = [Side::Keepalived, Side::Vipd];
const CHECKS: [Check; 2] = [Check::Tcp, Check::Http];
const FAULTS: [Fault; 2] = [Fault::Refuses, Fault::Hangs];

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Keepalived => "keepalived",
            Self::Vipd => "vipd",
        })
    }
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "TCP",
            Self::Http => "HTTP",
        })
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Refuses => "it refuses",
            Self::Hangs => "it hangs",
        })
    }
}

pub(super) fn run(runs: usize, inside: bool) -> Result<()> {
    if inside {
        return measure_all(runs);
    }
    let own = std::env::current_exe()?.display().to_string();
    let words = [&own, "bench", "health", "--inside", "--runs", &runs.to_string()];
    let found = lab::run(&words.map(ToOwned::to_owned))?;
    figures::show("health", runs < RUNS, &found)
}

fn measure_all(runs: usize) -> Result<()> {
    let mut found = json!({});
    for round in 0..runs {
        for (check, fault) in cells() {
            for side in SIDES {
                let took = measure(side, check, fault, INTERVAL.mul_f64(phase(round, runs)))
                    .with_context(|| format!("{side}, {check}, {fault}"))?;
                println!("{round}: {side}, {check}, {fault}: {took:?}");
                let run = json!({ "ms": took.as_secs_f64() * 1000.0 });
                keep(&mut found[cell(side, check, fault)], run);
            }
        }
    }
    let table = table(&found);
    println!("\n{table}");
    match std::env::var_os(lab::FOUND) {
        Some(path) => Ok(std::fs::write(path, table)?),
        None => Ok(()),
    }
}

fn cells() -> impl Iterator<Item = (Check, Fault)> {
    FAULTS.into_iter().flat_map(|fault| CHECKS.map(|check| (check, fault)))
}

fn cell(side: Side, check: Check, fault: Fault) -> String {
    format!("{side} {check} {fault}")
}

/// Where between two probes the fault is, as a part of the interval: evenly, and alike for all.
fn phase(round: usize, runs: usize) -> f64 {
    let [round, runs] = [round, runs].map(|n| f64::from(u32::try_from(n).unwrap_or(u32::MAX)));
    (round + 0.5) / runs
}

fn table(found: &Value) -> String {
    let mut text = "| s | keepalived | vipd |\n|---|---|---|\n".to_owned();
    for (check, fault) in cells() {
        let figure = |side| {
            let runs = found[cell(side, check, fault)].as_array().map_or(&[][..], Vec::as_slice);
            spread(runs, "ms").map_or("-".to_owned(), |(least, middle, most)| {
                let [least, middle, most] = [least, middle, most].map(|ms| ms / 1000.0);
                format!("{middle:.1} ({least:.1} - {most:.1}) of {}", runs.len())
            })
        };
        text += &format!(
            "| {fault}, {check} check | {} | {} |\n",
            figure(Side::Keepalived),
            figure(Side::Vipd)
        );
    }
    text
}

/// Whoever forwards; it ends with the value.
enum Director {
    Keepalived(Lab, Child),
    Vipd(Box<Cluster>),
}

impl Drop for Director {
    fn drop(&mut self) {
        if let Self::Keepalived(_, child) = self {
            // Its halves end with it.
            let _ = kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGTERM);
            let _ = child.wait();
        }
    }
}

impl Director {
    fn lab(&self) -> &Lab {
        match self {
            Self::Keepalived(lab, _) => lab,
            Self::Vipd(cluster) => &cluster.lab,
        }
    }
}

const REALS: [(&str, u8); 2] = [("r1", 11), ("r2", 12)];

/// How long clients are sent to a server that ended so long after all was well.
fn measure(side: Side, check: Check, fault: Fault, after: Duration) -> Result<Duration> {
    let dir = std::env::temp_dir().join(format!("vipd-bench-health-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&dir);
    let measured = measure_in(&dir, side, check, fault, after);
    let _ = std::fs::remove_dir_all(&dir);
    measured
}

fn measure_in(
    dir: &Path,
    side: Side,
    check: Check,
    fault: Fault,
    after: Duration,
) -> Result<Duration> {
    let (director, mut servers) = match side {
        Side::Vipd => vipd(dir, check)?,
        Side::Keepalived => keepalived(dir, check)?,
    };
    let lab = director.lab();
    let page = Page { at: V4.target(), by_tls: false, from: [10, 77, 0, 250].into() };
    let both = || {
        let who: Result<BTreeSet<_>> = (0..MANY).map(|_| page.get(lab)).collect();
        (who.ok()?.len() == REALS.len()).then_some(())
    };
    wait_for("both servers get requests", SETTLE, both)?;
    std::thread::sleep(after);
    match fault {
        Fault::Refuses => drop(servers.pop()),
        Fault::Hangs => {
            let hang = "add table ip hang; \
                        add chain ip hang in { type filter hook input priority 0; }; \
                        add rule ip hang in tcp dport 80 drop";
            lab.exec("r2", "nft", &[hang])?.ok()?;
        }
    }
    unserved(lab, V4.target(), WATCHED)
}

/// A server that says its name, on each of the hosts.
fn serve(lab: &mut Lab, dir: &Path) -> Result<Vec<Daemon>> {
    let server = |(name, last): (&str, u8)| {
        drop(V4.by_dr(lab, name, last)?);
        let dir = dir.join(name);
        std::fs::create_dir_all(dir.join("html"))?;
        std::fs::copy(root().join("deploy/home/nginx.conf"), dir.join("nginx.conf"))?;
        std::fs::write(dir.join("html/index.html"), name)?;
        Daemon::nginx(lab, name, &dir)
    };
    REALS.into_iter().map(server).collect()
}

fn vipd(dir: &Path, check: Check) -> Result<(Director, Vec<Daemon>)> {
    // The guest is slow, and no leader is to be lost meanwhile.
    let mut cluster = Cluster::formed(&Options { profile: "wan".into(), ..Options::default() })?;
    let servers = serve(&mut cluster.lab, dir)?;
    let n1 = cluster.host("n1");
    n1.ctl_ok(&["vip", "add", "web", "--address", "10.77.0.100/24"])?;
    let add = ["vs", "add", "front", "--vip", "web", "--port", "80"];
    let kind = match check {
        Check::Tcp => "tcp",
        Check::Http => "http:/",
    };
    let reals = ["--real", "10.77.0.11", "--real", "10.77.0.12", "--check", kind];
    n1.ctl_ok(&[&add[..], &reals].concat())?;
    Ok((Director::Vipd(Box::new(cluster)), servers))
}

fn keepalived(dir: &Path, check: Check) -> Result<(Director, Vec<Daemon>)> {
    let mut lab = Lab::new(1)?;
    let servers = serve(&mut lab, dir)?;
    let check = match check {
        Check::Tcp => "TCP_CHECK {\n connect_timeout 1\n }",
        Check::Http => "HTTP_GET {\n url {\n path /\n status_code 200\n }\n connect_timeout 1\n }",
    };
    let real =
        |(_, last): (&str, u8)| format!("real_server {} 80 {{\n {check}\n }}\n", V4.at(last));
    let text = format!(
        "vrrp_instance web {{\n state MASTER\n interface eth0\n virtual_router_id 51\n \
         priority 150\n virtual_ipaddress {{\n 10.77.0.100/24\n }}\n}}\n\
         virtual_server 10.77.0.100 80 {{\n delay_loop {}\n lb_algo rr\n lb_kind DR\n \
         protocol TCP\n {}}}\n",
        INTERVAL.as_secs(),
        REALS.map(real).concat()
    );
    let path = |what: &str| dir.join(what);
    std::fs::write(path("conf"), text)?;
    let mut command = Command::new("ip");
    command.args(["netns", "exec", &lab.namespace("n1"), "keepalived"]);
    command.args(["--dont-fork", "--log-console", "-f"]).arg(path("conf"));
    command.arg("-p").arg(path("pid")).arg("-r").arg(path("vrrp")).arg("-c").arg(path("checkers"));
    let log = std::fs::File::create(path("log"))?;
    let child = command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn()?;
    Ok((Director::Keepalived(lab, child), servers))
}
