//! Checks by programs of the operator's own: run by nobody, and ended with all they start.

use anyhow::{Context, Result};
use chaos_tests::{Cluster, Lab, Options, RealServer, V4, run, wait_for};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(15);

/// A folder that is root's alone, as `[probe] exec_dir` has to be.
struct Folder(PathBuf);

impl Folder {
    fn new(lab: &str) -> Result<Self> {
        let folder =
            std::env::temp_dir().join(format!("vipd-programs-{lab}-{}", std::process::id()));
        std::fs::create_dir(&folder)?;
        std::fs::set_permissions(&folder, PermissionsExt::from_mode(0o755))?;
        Ok(Self(folder))
    }

    fn program(&self, name: &str, text: &str) -> Result<()> {
        let path = self.0.join(name);
        std::fs::write(&path, format!("#!/bin/sh\n{text}\n"))?;
        Ok(std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755))?)
    }

    fn cluster(&self) -> Result<Cluster> {
        let settings = vec![format!("probe.exec_dir={}", self.0.display())];
        Cluster::formed(&Options { settings, ..Options::default() })
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn real(cluster: &mut Cluster) -> Result<RealServer> {
    drop(V4.by_dr(&mut cluster.lab, "r1", 11)?);
    cluster.host("n1").ctl_ok(&["vip", "add", "web", "--address", "10.77.0.100/24"])?;
    RealServer::start(&cluster.lab, "r1", V4.target())
}

const ADD: [&str; 8] = ["vs", "add", "front", "--vip", "web", "--port", "80", "--real"];
const FAST: [&str; 5] = ["10.77.0.11", "--check-interval", "2s", "--check-timeout", "2s"];
const SLOW: [&str; 5] = ["10.77.0.11", "--check-interval", "10s", "--check-timeout", "10s"];

/// State and reason of its one real server.
fn state(cluster: &Cluster) -> Result<(String, String)> {
    let shown = cluster.host("n2").ctl_json(&["vs", "show", "front"])?;
    let real = &shown["reals"][0];
    let text = |key: &str| real[key].as_str().unwrap_or_default().to_owned();
    Ok((text("state"), text("reason")))
}

fn wait_until(cluster: &Cluster, wanted: &str) -> Result<String> {
    let is = || state(cluster).ok().filter(|(state, _)| state == wanted);
    let (_, why) = wait_for(wanted, SOON, is).with_context(|| format!("{:?}", state(cluster)))?;
    Ok(why)
}

/// Pids of the processes of a lab's hosts that run `what` of vipd.
fn processes(lab: &Lab, what: &str) -> Result<Vec<i32>> {
    let mut found = vec![];
    for host in ["n1", "n2", "n3"] {
        let pids = run("ip", &["netns", "pids", &lab.namespace(host)])?.ok()?;
        for pid in pids.lines() {
            let line = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            if line.split('\0').nth(1) == Some(what) {
                found.push(pid.parse()?);
            }
        }
    }
    Ok(found)
}

/// Its end is the verdict, and what it said is the reason. That who runs it ends changes
/// nothing.
#[test]
fn a_program_says_whether_a_server_is_well() -> Result<()> {
    let folder = Folder::new("verdict")?;
    let sick = folder.0.join("sick");
    let text = "[ \"$1\" = deep ] || exit 9\n[ -e $F ] || exit 0\n\
                echo \"no room left for $VIPD_ADDRESS $VIPD_PORT\"; exit 2";
    folder.program("room", &text.replace("$F", &sick.display().to_string()))?;
    folder.program("hangs", "sleep 1000; exit 0")?;
    let mut cluster = folder.cluster()?;
    let _r1 = real(&mut cluster)?;
    let n1 = cluster.host("n1").control();
    n1.ctl(&[&ADD[..], &FAST, &["--check", "exec:room,deep"]].concat())?.ok()?;
    wait_until(&cluster, "up")?;
    std::fs::write(&sick, "")?;
    let why = wait_until(&cluster, "down")?;
    assert_eq!(why, "room ended with 2: no room left for 10.77.0.11 80");

    let before = processes(&cluster.lab, "exec")?;
    assert_eq!(before.len(), 3, "one on each host");
    // What the one before ran goes with it.
    n1.ctl(&["vs", "set", "front", "--check", "exec:hangs", "--no-wait"])?.ok()?;
    let path = folder.0.join("hangs").display().to_string();
    let hanging = || -> Result<Vec<PathBuf>> {
        let all = std::fs::read_dir("/proc")?.flatten().map(|entry| entry.path());
        let line = |process: &PathBuf| std::fs::read_to_string(process.join("cmdline")).ok();
        let runs = |process: &PathBuf| line(process).is_some_and(|line| line.contains(&path));
        Ok(all.filter(runs).collect())
    };
    let left = wait_for("it is run", SOON, || hanging().ok().filter(|all| !all.is_empty()))?;
    for pid in &before {
        kill(Pid::from_raw(*pid), Signal::SIGKILL)?;
    }
    let is_new = |pids: Vec<i32>| pids.len() == 3 && pids.iter().all(|pid| !before.contains(pid));
    wait_for("they are started again", SOON, || {
        processes(&cluster.lab, "exec").is_ok_and(is_new).then_some(())
    })?;
    let is_gone = || (!left.iter().any(|process| process.exists())).then_some(());
    wait_for("nothing is left of what they ran", SOON, is_gone)?;
    n1.ctl(&["vs", "set", "front", "--check", "exec:room,deep", "--no-wait"])?.ok()?;
    std::fs::remove_file(&sick)?;
    wait_until(&cluster, "up")?;

    // What is not there is no server's failure, and is said.
    let set = n1.ctl(&["vs", "set", "front", "--check", "exec:rooms"])?.ok()?;
    assert!(set.contains("No observer can look at 10.77.0.11:80: "), "{set}");
    assert!(set.contains("rooms cannot be looked at: No such file"), "{set}");
    assert_eq!(state(&cluster)?.0, "up");
    n1.ctl(&["vs", "set", "front", "--check", "exec:room,shallow"])?.ok()?;
    assert_eq!(wait_until(&cluster, "down")?, "room ended with 9");
    Ok(())
}

/// As the script of somebody who was talked into it: it looks for all that vipd has.
#[test]
fn a_program_reaches_no_key_and_no_socket() -> Result<()> {
    let folder = Folder::new("secrets")?;
    let mut cluster = {
        folder.program("spies", "exit 0")?;
        folder.cluster()?
    };
    let _r1 = real(&mut cluster)?;
    let report = folder.0.join("report");
    std::fs::write(&report, "")?;
    std::fs::set_permissions(&report, PermissionsExt::from_mode(0o666))?;
    let dirs: Vec<_> = cluster.hosts.iter().map(|host| host.dir().clone()).collect();
    folder.program("spies", &spy(&dirs, &report))?;
    let n1 = cluster.host("n1").control();
    // Root can: else the test could not fail.
    let begun = run("sh", &[&folder.0.join("spies").display().to_string()])?;
    assert!(begun.stdout.contains("key of") && begun.stdout.contains("admin.sock"), "{begun:?}");
    std::fs::write(&report, "")?;
    n1.ctl(&[&ADD[..], &SLOW, &["--check", "exec:spies"]].concat())?.ok()?;
    let why = wait_for("it ran", SOON, || {
        let said = std::fs::read_to_string(&report).ok()?;
        said.contains("end").then_some(said)
    })?;
    let (is, reason) = state(&cluster)?;
    assert_eq!(is, "up", "{reason}, {why}");
    for line in ["CapEff: 0000000000000000", "CapPrm: 0000000000000000", "NoNewPrivs: 1"] {
        assert!(why.contains(line), "{line}: {why}");
    }
    assert!(!why.contains("uid 0") && !why.contains("VIPD_PARENT"), "{why}");
    Ok(())
}

/// Prints, and fails for, what it can read or reach.
fn spy(dirs: &[PathBuf], report: &Path) -> String {
    let mut text = format!("exec 2>/dev/null; found=0\nr={}\n", report.display());
    for dir in dirs {
        let dir = dir.display();
        text += &format!(
            "ls {dir}/data >/dev/null && {{ echo key of {dir}; found=1; }}\n\
             for s in admin guard exec; do\n\
             python3 -c \"import socket; socket.socket(socket.AF_UNIX).connect('{dir}/$s.sock')\" \
             && {{ echo {dir}/$s.sock; found=1; }}\ndone\n"
        );
    }
    text + "{ echo uid $(id -u) $(id -G); env; grep -E 'CapEff|CapPrm|NoNewPrivs' \
            /proc/self/status | tr '\\t' ' '; echo end; } >> $r\nexit $found"
}
