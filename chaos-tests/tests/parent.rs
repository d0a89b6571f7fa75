//! `vipd run` without systemd: the parent of agent and guard, while its program
//! is replaced, is missing, or is stopped in between.

use anyhow::{Context, Result, ensure};
use chaos_tests::{Lab, Version, binaries, run, wait_for};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Secrets that whoever starts it has in the environment.
const KEYS: [(&str, &str); 2] =
    [("AWS_SECRET_ACCESS_KEY", "not-to-be-seen"), ("OS_PASSWORD", "not-to-be-seen")];
const SOON: Duration = Duration::from_secs(10);

/// A vipd from a copy of the program, in a host by itself.
struct Copied {
    child: Child,
    dir: PathBuf,
}

impl Copied {
    fn start(lab: &Lab) -> Result<Self> {
        let dir = std::env::temp_dir().join(format!("{}-files", lab.namespace("parent")));
        std::fs::create_dir_all(&dir)?;
        std::fs::copy(binaries()?.join("vipd"), dir.join("vipd"))?;
        let log = std::fs::File::create(dir.join("log"))?;
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &lab.namespace("n1")]).arg(dir.join("vipd")).arg("run");
        for (key, value) in [
            ("node.name", "n1".to_owned()),
            ("node.advertise", "10.77.0.1:7400".to_owned()),
            ("node.data_dir", dir.join("data").display().to_string()),
            ("admin.socket", dir.join("admin.sock").display().to_string()),
            ("guard.socket", dir.join("guard.sock").display().to_string()),
        ] {
            command.args(["--set", &format!("{key}={value}")]);
        }
        command.envs(KEYS);
        let child = command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn()?;
        let started = Self { child, dir };
        wait_for("the agent", SOON, || started.answers().then_some(()))
            .with_context(|| started.log())?;
        Ok(started)
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.join("log")).unwrap_or_default()
    }

    fn answers(&self) -> bool {
        let Ok(vipctl) = binaries().map(|dir| dir.join("vipctl").display().to_string()) else {
            return false;
        };
        let socket = self.dir.join("admin.sock").display().to_string();
        // Code 4: nobody is there.
        run(&vipctl, &["--socket", &socket, "--timeout", "1s", "status"])
            .is_ok_and(|outcome| outcome.code != Some(4))
    }

    /// Pids of its children that run `what`.
    fn find(&self, what: &str) -> Vec<i32> {
        let parent = self.child.id();
        let children = format!("/proc/{parent}/task/{parent}/children");
        let children = std::fs::read_to_string(children).unwrap_or_default();
        let pids = children.split_whitespace().filter_map(|pid| pid.parse().ok());
        let runs = |pid: &i32| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            line.split(|b| *b == 0).nth(1) == Some(what.as_bytes())
        };
        pids.filter(runs).collect()
    }

    fn ctl(&self, arguments: &[&str]) -> Result<String> {
        let vipctl = binaries()?.join("vipctl").display().to_string();
        let socket = self.dir.join("admin.sock").display().to_string();
        run(&vipctl, &[&["--socket", &socket], arguments].concat())?.ok()
    }

    fn kill_agent(&self) -> Result<()> {
        let agent = *self.find("agent").first().context("an agent")?;
        kill(Pid::from_raw(agent), Signal::SIGKILL)?;
        wait_for("it is gone", SOON, || (!self.find("agent").contains(&agent)).then_some(()))
    }
}

impl Drop for Copied {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// An upgrade moves the new program into the place of the old one.
#[test]
fn a_crash_after_an_upgrade_starts_the_new_program() -> Result<()> {
    let lab = Lab::new(1)?;
    let vipd = Copied::start(&lab)?;
    let (program, new) = (vipd.dir.join("vipd"), vipd.dir.join("new"));
    std::fs::copy(&program, &new)?;
    std::fs::rename(&new, &program)?;
    vipd.kill_agent()?;
    wait_for("the next agent", SOON, || vipd.answers().then_some(())).with_context(|| vipd.log())
}

/// The guard is root's, and calls nobody.
#[test]
fn keys_of_a_cloud_are_the_agents_alone() -> Result<()> {
    let lab = Lab::new(1)?;
    let vipd = Copied::start(&lab)?;
    let has_key = |what: &str| -> Result<bool> {
        let pid = wait_for("the process", SOON, || vipd.find(what).first().copied())?;
        let environment = std::fs::read(format!("/proc/{pid}/environ"))?;
        let mut each = environment.split(|b| *b == 0);
        Ok(each.any(|one| KEYS.iter().any(|(name, _)| one.starts_with(name.as_bytes()))))
    };
    ensure!(has_key("agent")? && !has_key("guard")?, "the guard has it, or the agent has not");
    Ok(())
}

/// What is no program, or one that would not go on, changes nothing; what would, goes on
/// with what the old one had.
#[test]
fn an_upgrade_goes_on_with_the_vips_that_the_guard_has_or_is_refused() -> Result<()> {
    let lab = Lab::new(1)?;
    let vipd = Copied::start(&lab)?;
    vipd.ctl(&["init"])?;
    vipd.ctl(&["vip", "add", "web", "--address", "10.77.0.100/24"])?;
    let has_vip = || {
        let shown = lab.ip("n1", &["address", "show", "dev", "eth0"]);
        shown.is_ok_and(|text| text.contains("10.77.0.100/32"))
    };
    wait_for("the VIP", SOON, || has_vip().then_some(()))?;
    let epoch = vipd.ctl(&["-o", "json", "vip", "show", "web"])?;
    let guard = *vipd.find("guard").first().context("a guard")?;
    let replaced_by = |bytes: &[u8], says: &str| -> Result<()> {
        let (program, new) = (vipd.dir.join("vipd"), vipd.dir.join("new"));
        std::fs::write(&new, bytes)?;
        std::fs::set_permissions(&new, PermissionsExt::from_mode(0o755))?;
        std::fs::rename(&new, &program)?;
        let said = || vipd.log().matches(says).count();
        let before = said();
        kill(Pid::from_raw(guard), Signal::SIGHUP)?;
        wait_for(says, SOON, || (said() > before).then_some(())).with_context(|| vipd.log())?;
        assert_eq!((vipd.find("guard"), has_vip()), (vec![guard], true), "{}", vipd.log());
        Ok(())
    };
    let (this, next) = (std::fs::read(Version::This.vipd()?)?, Version::Next.vipd()?);
    replaced_by(b"", "does not start")?;
    replaced_by(&this[..4096], "the guard stays the program that it is")?;
    replaced_by(b"#!/bin/sh\necho 0 0 0 0\n", "is not the same")?;
    // It could go on, and cannot be started when it should: everything is as it was.
    let real = Version::This.vipd()?;
    let vanishes = format!("#!/bin/sh\n{} \"$@\"\nrm \"$0\"\n", real.display());
    for _ in 0..3 {
        replaced_by(vanishes.as_bytes(), "what is here cannot be left to it")?;
    }
    replaced_by(b"#!/bin/sh\necho no such key >&2\nexit 2\n", "no such key")?;
    for program in [std::fs::read(next)?, this] {
        replaced_by(&program, "guard goes on from the program before")?;
        let runs = std::fs::read(format!("/proc/{guard}/exe"))?;
        assert!(runs == program, "it is another program's file");
    }
    assert_eq!(vipd.ctl(&["-o", "json", "vip", "show", "web"])?, epoch, "{}", vipd.log());
    Ok(())
}

/// The program is missing for a while, and then for longer than somebody waits.
#[test]
fn a_missing_program_is_waited_for_and_leaves_no_child_behind() -> Result<()> {
    let lab = Lab::new(1)?;
    let mut vipd = Copied::start(&lab)?;
    let (program, aside) = (vipd.dir.join("vipd"), vipd.dir.join("aside"));
    std::fs::rename(&program, &aside)?;
    vipd.kill_agent()?;
    wait_for("it says why", SOON, || vipd.log().contains("cannot be started").then_some(()))?;
    let guard = *vipd.find("guard").first().context("the guard stays")?;
    std::fs::rename(&aside, &program)?;
    wait_for("the next agent", SOON, || vipd.answers().then_some(()))
        .with_context(|| vipd.log())?;

    std::fs::rename(&program, &aside)?;
    vipd.kill_agent()?;
    kill(Pid::from_raw(i32::try_from(vipd.child.id())?), Signal::SIGTERM)?;
    let ended = wait_for("it ends", SOON, || vipd.child.try_wait().ok().flatten())?;
    ensure!(ended.success(), "{ended}: {}", vipd.log());
    ensure!(kill(Pid::from_raw(guard), None).is_err(), "its guard is gone too");
    Ok(())
}

/// Whoever can open the lock can hold it, and keep the next guard away.
#[test]
fn nobody_else_can_open_the_guards_lock() -> Result<()> {
    let lab = Lab::new(1)?;
    let vipd = Copied::start(&lab)?;
    let lock = std::fs::metadata(vipd.dir.join("guard.lock"))?;
    assert_eq!(lock.permissions().mode() & 0o777, 0o600);
    Ok(())
}
