//! keepalived on three hosts.

use super::case::{Case, System};
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
    interval: String,
}

/// The hosts, by falling priority.
const HOSTS: [(&str, u8); 3] = [("n1", 150), ("n2", 100), ("n3", 50)];

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
        let mut trio = Self { daemons: vec![], lab, dir, interval: interval.to_owned() };
        trio.start_all()?;
        wait_for("n1 to be master", SETTLE, || {
            trio.lab.has_address("n1", "10.77.0.100").ok()?.then_some(())
        })?;
        Ok(trio)
    }

    fn start_all(&mut self) -> Result<()> {
        HOSTS.iter().try_for_each(|(name, priority)| self.start(name, *priority))
    }

    /// VRRP of one host, one way; `which` of it, all without.
    fn drop_vrrp(&self, name: &str, hook: &str, which: &str) -> Result<()> {
        let text = format!(
            "add table ip fault; \
             add chain ip fault {hook} {{ type filter hook {hook} priority 0; }}; \
             add rule ip fault {hook} ip protocol vrrp {which} drop"
        );
        self.lab.exec(name, "nft", &[&text])?.ok().map(|_| ())
    }

    fn start(&mut self, name: &str, priority: u8) -> Result<()> {
        let interval = &self.interval;
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

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.signal(Signal::SIGKILL);
        let _ = self.child.wait();
    }
}

impl Drop for Trio {
    fn drop(&mut self) {
        self.daemons.clear();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

impl System for Trio {
    fn lab(&self) -> &Lab {
        &self.lab
    }

    fn hosts(&self) -> Vec<String> {
        HOSTS.map(|(name, _)| name.to_owned()).to_vec()
    }

    fn holder(&self) -> &'static str {
        "n1"
    }

    fn prepare(&mut self, case: Case) -> Result<()> {
        match case {
            Case::Heal => self.lab.isolate("n1"),
            Case::Restart => {
                self.daemons.clear();
                for (name, _) in HOSTS {
                    for file in ["pid", "vrrp"] {
                        let _ = std::fs::remove_file(self.dir.join(format!("{name}.{file}")));
                    }
                }
                // It finds its address there and keeps it; a host that was
                // restarted has none.
                for (name, _) in HOSTS {
                    let address = ["address", "delete", "10.77.0.100/24", "dev", "eth0"];
                    let _ = self.lab.ip(name, &address);
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn lose(&mut self, percent: u8) -> Result<()> {
        let which = format!("numgen random mod 100 < {percent}");
        HOSTS.iter().try_for_each(|(name, _)| self.drop_vrrp(name, "input", &which))
    }

    fn hurt(&mut self, case: Case) -> Result<()> {
        if case == Case::Restart {
            return self.start_all();
        }
        let first = self.daemons.first().context("n1")?;
        match case {
            Case::Planned => first.signal(Signal::SIGTERM),
            Case::Isolation => self.lab.isolate("n1"),
            Case::Freeze => first.signal(Signal::SIGSTOP),
            Case::Killed => first.signal(Signal::SIGKILL),
            Case::Deaf => self.drop_vrrp("n1", "input", ""),
            Case::Mute => self.drop_vrrp("n1", "output", ""),
            Case::Heal => self.lab.heal("n1"),
            _ => {
                self.lab.cable("n1", false)?;
                first.signal(Signal::SIGKILL)
            }
        }
    }
}
