//! vipd on three or five hosts.

use super::case::{Case, System};
use anyhow::Result;
use chaos_tests::{Cluster, Fault, Faults, Lab, Options, Process};
use nix::sys::signal::Signal;

pub(super) struct Nodes {
    cluster: Cluster,
    faults: Faults,
    holder: &'static str,
}

impl Nodes {
    /// Led by n1, which also holds the VIP, unless the case wants it elsewhere.
    pub(super) fn new(profile: &str, case: Case) -> Result<Self> {
        let apart = [Case::PowerOffElsewhere, Case::LeaderLost, Case::LeaderAndHolder];
        let apart = apart.contains(&case);
        let nodes = if case == Case::LeaderAndHolder { 5 } else { 3 };
        let options = Options { nodes, profile: profile.into(), ..Options::default() };
        let cluster = Cluster::formed(&options)?;
        let placement = if apart { "sticky" } else { "leader" };
        let add = ["vip", "add", "web", "--address", "10.77.0.100/24", "--placement", placement];
        cluster.host("n1").ctl_ok(&add)?;
        if apart {
            cluster.host("n1").ctl_ok(&["vip", "move", "web", "--to", "n2"])?;
            cluster.host("n1").ctl_ok(&["vip", "move", "web", "--auto"])?;
        }
        let holder = if apart { "n2" } else { "n1" };
        Ok(Self { cluster, faults: Faults::default(), holder })
    }

    fn inject(&mut self, fault: Fault) -> Result<()> {
        self.faults.inject(&mut self.cluster, fault)
    }

    fn power_off(&mut self, name: &str) -> Result<()> {
        self.cluster.lab.cable(name, false)?;
        self.cluster.host_mut(name).kill_all();
        Ok(())
    }
}

impl System for Nodes {
    fn lab(&self) -> &Lab {
        &self.cluster.lab
    }

    fn hosts(&self) -> Vec<String> {
        self.cluster.hosts.iter().map(|host| host.name.clone()).collect()
    }

    fn holder(&self) -> &'static str {
        self.holder
    }

    fn prepare(&mut self, case: Case) -> Result<()> {
        match case {
            Case::Heal => self.inject(Fault::Isolate("n1".into())),
            Case::Restart => {
                self.cluster.hosts.iter_mut().for_each(chaos_tests::Host::kill_all);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn lose(&mut self, percent: u8) -> Result<()> {
        self.inject(Fault::Loss(percent))
    }

    fn hurt(&mut self, case: Case) -> Result<()> {
        let holder = self.holder.to_owned();
        match case {
            Case::Planned => {
                let to = ["vip", "move", "web", "--to", "n2"];
                self.cluster.host("n1").ctl_ok(&to).map(|_| ())
            }
            Case::PowerOff | Case::PowerOffElsewhere => self.power_off(&holder),
            Case::Isolation => self.cluster.lab.isolate("n1"),
            Case::Freeze => {
                let both = [Process::Agent, Process::Guard];
                self.cluster.host("n1").signal(&both, Signal::SIGSTOP)
            }
            Case::Killed => self.cluster.host("n1").signal(&[Process::Agent], Signal::SIGKILL),
            Case::LeaderLost => self.power_off("n1"),
            Case::LeaderAndHolder => {
                self.power_off("n1")?;
                self.power_off("n2")
            }
            Case::Restart => self.cluster.hosts.iter_mut().try_for_each(chaos_tests::Host::start),
            Case::Deaf => self.inject(Fault::Deaf(holder)),
            Case::Mute => self.inject(Fault::Mute(holder)),
            Case::Heal => self.faults.heal(&mut self.cluster),
        }
    }
}
