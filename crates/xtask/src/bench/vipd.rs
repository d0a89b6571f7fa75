//! vipd on three or five hosts.

use super::case::{Case, System};
use anyhow::Result;
use chaos_tests::{Cluster, Fault, Faults, Lab, Options, Process, wait_for};
use nix::sys::signal::Signal;
use std::time::{Duration, Instant};

/// So many commands are on their way at once.
const AT_A_TIME: u16 = 8;
/// A guard's program is another one by then.
const REPLACED: Duration = Duration::from_secs(10);
/// Changes that are timed.
const CHANGES: u8 = 10;

/// Does something for each of so many virtual servers, several at once.
pub(super) fn of_each(servers: u16, act: impl Fn(u16) -> Result<()> + Sync) -> Result<()> {
    std::thread::scope(|scope| {
        let act = &act;
        let work = |hand| {
            let numbers = (hand..servers).step_by(AT_A_TIME.into());
            scope.spawn(move || numbers.into_iter().try_for_each(act))
        };
        let working: Vec<_> = (0..AT_A_TIME).map(work).collect();
        working
            .into_iter()
            .try_for_each(|work| work.join().unwrap_or_else(|_| anyhow::bail!("it panicked")))
    })
}

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

    /// Adds so many virtual servers with ten real servers each. Returns how long the holder
    /// took to forward to one more of the last of them, ms, several times.
    pub(super) fn add_servers(&self, count: u16) -> Result<Vec<f64>> {
        let n1 = self.cluster.host("n1").control();
        let add = |number: u16| -> Result<()> {
            let (name, port) = (format!("s{number}"), (1000 + number).to_string());
            let reals: Vec<String> = (0..10).map(|n| format!("10.77.0.{}", 150 + n)).collect();
            let reals = reals.iter().flat_map(|real| ["--real", real]);
            let add = ["vs", "add", &name, "--vip", "web", "--port", &port, "--forward", "dr"];
            let all: Vec<&str> = add.into_iter().chain(reals).collect();
            n1.ctl(&all)?.ok().map(|_| ())
        };
        // These real servers are nobody, and are sent nothing.
        of_each(count, add)?;
        let mut took = vec![];
        for last in (0..CHANGES).filter(|_| count > 0) {
            let (server, real) = (format!("s{}", count - 1), format!("10.77.0.{}", 200 + last));
            let begun = Instant::now();
            n1.ctl(&["real", "add", &server, &real])?.ok()?;
            took.push(begun.elapsed().as_secs_f64() * 1e3);
        }
        Ok(took)
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
            Case::Replaced => {
                let n1 = self.cluster.host("n1");
                n1.signal(&[Process::Guard], Signal::SIGHUP)?;
                let went_on = || n1.log().contains("goes on from the program before");
                wait_for("the next program", REPLACED, || went_on().then_some(()))
            }
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
