//! vipd on three hosts.

use super::{Fault, System};
use anyhow::Result;
use chaos_tests::{Cluster, Lab, Options, Process};
use nix::sys::signal::Signal;

pub(super) struct Trio(Cluster);

impl Trio {
    pub(super) fn new(profile: &str) -> Result<Self> {
        let options = Options { profile: profile.into(), ..Options::default() };
        let cluster = Cluster::formed(&options)?;
        cluster.host("n1").ctl_ok(&["vip", "add", "web", "--address", "10.77.0.100/24"])?;
        Ok(Self(cluster))
    }
}

impl System for Trio {
    fn lab(&self) -> &Lab {
        &self.0.lab
    }

    fn hurt(&mut self, fault: Fault) -> Result<()> {
        match fault {
            Fault::Planned => {
                self.0.host("n1").ctl_ok(&["vip", "move", "web", "--to", "n2"])?;
            }
            Fault::PowerOff => {
                self.0.lab.cable("n1", false)?;
                self.0.host_mut("n1").kill_all();
            }
            Fault::Isolation => self.0.lab.isolate("n1")?,
            Fault::Freeze => {
                self.0.host("n1").signal(&[Process::Agent, Process::Guard], Signal::SIGSTOP)?;
            }
            Fault::Killed => self.0.host("n1").signal(&[Process::Agent], Signal::SIGKILL)?,
        }
        Ok(())
    }
}
