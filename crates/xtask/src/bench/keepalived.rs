//! keepalived on three hosts.

use super::{Fault, System};
use anyhow::{Context, Result};
use chaos_tests::{Lab, wait_for};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// How long the first election may take.
const SETTLE: Duration = Duration::from_secs(20);

pub(super) struct Trio {
    daemons: Vec<Daemon>,
    lab: Lab,
    dir: PathBuf,
}

struct Daemon {
    child: Child,
    /// Where it says the process id of its VRRP half.
    vrrp: PathBuf,
}

impl Daemon {
    fn signal(&self, signal: Signal) -> Result<()> {
        let vrrp: i32 = std::fs::read_to_string(&self.vrrp)?.trim().parse()?;
        for pid in [i32::try_from(self.child.id())?, vrrp] {
            // One may be gone with the other.
            let _ = kill(Pid::from_raw(pid), signal);
        }
        Ok(())
    }
}

impl Trio {
    pub(super) fn new(interval: &str) -> Result<Self> {
        let lab = Lab::new(3)?;
        let dir = std::env::temp_dir().join(lab.namespace("keepalived"));
        std::fs::create_dir_all(&dir)?;
        let mut trio = Self { daemons: vec![], lab, dir };
        for (name, priority) in [("n1", 150), ("n2", 100), ("n3", 50)] {
            trio.start(name, priority, interval)?;
        }
        wait_for("n1 to be master", SETTLE, || {
            trio.lab.has_address("n1", "10.77.0.100").ok()?.then_some(())
        })?;
        Ok(trio)
    }

    fn start(&mut self, name: &str, priority: u8, interval: &str) -> Result<()> {
        let path = |what: &str| self.dir.join(format!("{name}.{what}"));
        // Version 3 (RFC 5798) alone knows intervals below a second; 1 s is
        // keepalived's default with its default version.
        let version = if interval == "1" { 2 } else { 3 };
        let config = format!(
            "global_defs {{\n vrrp_version {version}\n}}\n\
             vrrp_instance web {{\n state BACKUP\n interface eth0\n virtual_router_id 51\n \
             priority {priority}\n advert_int {interval}\n \
             virtual_ipaddress {{\n  10.77.0.100/24\n }}\n}}\n"
        );
        std::fs::write(path("conf"), config)?;
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.lab.namespace(name), "keepalived"]);
        command.args(["--dont-fork", "--log-console", "--vrrp", "-f"]).arg(path("conf"));
        command.arg("-p").arg(path("pid")).arg("-r").arg(path("vrrp"));
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        let vrrp = path("vrrp");
        wait_for("its VRRP process", SETTLE, || {
            (!std::fs::read_to_string(&vrrp).ok()?.trim().is_empty()).then_some(())
        })?;
        self.daemons.push(Daemon { child, vrrp });
        Ok(())
    }
}

impl Drop for Trio {
    fn drop(&mut self) {
        for daemon in &mut self.daemons {
            let _ = daemon.signal(Signal::SIGKILL);
            let _ = daemon.child.kill();
            let _ = daemon.child.wait();
        }
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

impl System for Trio {
    fn lab(&self) -> &Lab {
        &self.lab
    }

    fn hurt(&mut self, fault: Fault) -> Result<()> {
        let first = self.daemons.first().context("n1")?;
        match fault {
            Fault::Planned => first.signal(Signal::SIGTERM),
            Fault::PowerOff => {
                self.lab.cable("n1", false)?;
                first.signal(Signal::SIGKILL)
            }
            Fault::Isolation => self.lab.isolate("n1"),
            Fault::Freeze => first.signal(Signal::SIGSTOP),
            Fault::Killed => first.signal(Signal::SIGKILL),
        }
    }
}
