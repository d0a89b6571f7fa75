//! What goes wrong, and how it is mended.

use super::{
    RESTART, What, World, addresses, guest_spec, mac, micros, other_name, vip_name, vip_spec,
};
use crate::agent::{Agent, Input};
use crate::guard::GuardInput;
use crate::invariant::progress_bound;
use crate::raft::Raft;
use crate::scenario::{Cast, Directed, Fault, Processes, Reshape, Scheme, Victim, node};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use vip_core::{
    Address, GateEntry, GuardAction, GuardEvent, Guest, Name, NodeId, NodeOp, Op, VipAddress,
    VipOp, VipSpec,
};

impl World {
    pub(super) fn fault(&mut self, fault: Fault) {
        self.trace(0, &fault);
        self.stats.faults += 1;
        match fault {
            Fault::Cut(links) => self.network.cut(&links),
            Fault::Mend(links) => self.network.mend(&links),
            Fault::Slow(links, delay) => self.network.slow(&links, delay),
            Fault::Weather(weather) => self.network.weather = weather,
            Fault::Freeze(at, who) => self.freeze(at, who),
            Fault::Thaw(at, who) => self.thaw(at, who),
            Fault::Kill(at, who) => {
                if who != Processes::Guard {
                    self.kill_agent(at);
                }
                if who != Processes::Agent {
                    self.kill_guard(at);
                }
            }
            Fault::PowerOff(at) => self.power_off(at),
            Fault::PowerOn(at) => self.power_on(at),
            Fault::SlowDisk(at, delay) => self.hosts[at].disk_delay = delay,
            Fault::Stall(at, stall) => self.hosts[at].stall = stall,
            Fault::NewInterface { host, takes_gate } => {
                self.hosts[host].kernel.ungated += 1;
                self.exposure_changed(host);
                if takes_gate {
                    self.kernel_event(host, GuardInput::GateOn);
                } else {
                    self.kernel_event(host, GuardInput::Links);
                }
            }
            Fault::Kernel(at, trouble) => self.hosts[at].kernel.trouble = trouble,
            Fault::Link(at, has_link) => {
                self.hosts[at].kernel.has_link = has_link;
                self.kernel_event(at, GuardInput::Links);
            }
            Fault::LoseAddress(at) => self.lose_address(at),
            Fault::ForeignClaim(at) => {
                for address in vip_spec(&self.scenario).addresses {
                    // A stranger, or one that calls itself a member.
                    let hosts = self.hosts.len();
                    let mac = mac(self.rng.usize(0..2 * hosts));
                    let event = GuardEvent::ForeignClaim { ip: address.ip, mac };
                    self.kernel_event(at, GuardInput::Kernel(event));
                }
            }
            Fault::Servers(salt) => self.change_servers(salt),
            Fault::Elect(at, pre) => self.agent(at, Input::Elect { pre }),
            Fault::Stop(at) => self.agent(at, Input::Stop),
            Fault::Voters(voters) => self.everybody(&Input::Voters(voters)),
            Fault::Move(at) => {
                self.command(VipOp::Pin { name: vip_name(), to: Some(node(at)) });
            }
            Fault::AutoPlace => self.command(VipOp::Pin { name: vip_name(), to: None }),
            Fault::Drain(at, drained) => self.command(NodeOp::Drain { node: node(at), drained }),
            Fault::Recreate => {
                self.command(VipOp::Remove { name: vip_name() });
                self.command(VipOp::Add { spec: vip_spec(&self.scenario) });
            }
            Fault::Reshape(how) => self.reshape(how),
            Fault::Scheme(scheme, salt) => self.scheme(scheme, salt),
            Fault::Heal(victim) => self.heal(victim),
            Fault::DoubleAnswer => self.double_answer(),
        }
    }

    /// Addresses come and go, of a VIP and of one beside it.
    fn reshape(&mut self, how: Reshape) {
        let [first, second] = addresses();
        let web = |addresses: &[VipAddress]| VipSpec {
            addresses: addresses.to_vec(),
            ..vip_spec(&self.scenario)
        };
        let guest = guest_spec(&self.scenario);
        let both = web(&[first, second]);
        // As a leader sees it that looked at it before.
        let state = self.hosts.iter().find_map(|host| Some(host.agent.as_ref()?.state()));
        let known = |name: &Name| state.and_then(|state| state.vip_named(name.as_str()));
        let Some((of, seen, holder)) =
            known(&vip_name()).map(|web| (web.uid, web.revision, web.holder))
        else {
            return;
        };
        let beside = known(&guest.name).map(|guest| guest.uid);
        let set = |spec, guest| vec![VipOp::Set { spec, seen, guest }];
        let pin = |name: &Name, to| VipOp::Pin { name: name.clone(), to };
        let other = VipSpec { name: other_name(), ..guest.clone() };
        let ops = match how {
            Reshape::Guest => {
                let of = Guest { of, trial: false };
                vec![VipOp::AddGuest { spec: guest, guest: of }]
            }
            Reshape::Together => vec![pin(&guest.name, holder)],
            Reshape::Apart(at) => {
                let to = Some(node(at));
                vec![pin(&guest.name, to), pin(&other.name, to)]
            }
            Reshape::Join => set(both, beside),
            Reshape::Both => set(both, None),
            Reshape::First => set(web(&[first]), None),
            Reshape::Second => set(web(&[second]), None),
            Reshape::Other => vec![VipOp::Add { spec: other }],
            Reshape::Gone => {
                vec![VipOp::Remove { name: other.name }, VipOp::Remove { name: guest.name }]
            }
        };
        ops.into_iter().for_each(|op| self.command(op));
    }

    /// Several faults, one after the other, around whoever leads now.
    fn scheme(&mut self, scheme: Scheme, salt: u64) {
        let mut rng = fastrand::Rng::with_seed(salt);
        let leader = self.leader().unwrap_or_else(|| rng.usize(0..self.hosts.len()));
        let votes = |at: &usize| *at != leader && self.scenario.hosts[*at].role.votes();
        let mut others: Vec<usize> = (0..self.hosts.len()).filter(votes).collect();
        rng.shuffle(&mut others);
        let cast = Cast { leader, others, hosts: self.hosts.len() };
        for (delay, fault) in Directed::of(scheme, &mut rng, self.timing.promise, cast) {
            // What begins before the heal must not break anything after it.
            if self.now.plus(delay) < self.scenario.healed_at {
                self.after(delay, 0, What::Fault(fault));
            }
        }
    }

    fn exposure_changed(&mut self, at: usize) {
        for ip in self.hosts[at].kernel.addresses() {
            self.answering_changed(at, ip);
        }
    }

    fn lose_address(&mut self, at: usize) {
        for address in addresses() {
            if self.hosts[at].kernel.lose(address.ip) {
                self.answering_changed(at, address.ip);
                let event = GuardEvent::AddressGone(address.ip);
                self.kernel_event(at, GuardInput::Kernel(event));
            }
        }
    }

    fn everybody(&mut self, input: &Input) {
        for at in 0..self.hosts.len() {
            self.agent(at, input.clone());
        }
    }

    pub(super) fn command(&mut self, op: impl Into<Op>) {
        self.everybody(&Input::Admin(Box::new(op.into())));
    }

    fn freeze(&mut self, at: usize, who: Processes) {
        let host = &mut self.hosts[at];
        host.agent_frozen.times += u32::from(who != Processes::Guard);
        host.guard_frozen.times += u32::from(who != Processes::Agent);
    }

    fn thaw(&mut self, at: usize, who: Processes) {
        let host = &mut self.hosts[at];
        if who != Processes::Guard {
            host.agent_frozen.times = host.agent_frozen.times.saturating_sub(1);
        }
        if who != Processes::Agent {
            host.guard_frozen.times = host.guard_frozen.times.saturating_sub(1);
        }
        self.catch_up(at);
    }

    /// What waited for a frozen process reaches it.
    fn catch_up(&mut self, at: usize) {
        if self.hosts[at].guard_frozen.times == 0 {
            for message in std::mem::take(&mut self.hosts[at].guard_frozen.backlog) {
                self.guard(at, message);
            }
        }
        if self.hosts[at].agent_frozen.times == 0 {
            for input in std::mem::take(&mut self.hosts[at].agent_frozen.backlog) {
                self.agent(at, input);
            }
        }
    }

    fn power_off(&mut self, at: usize) {
        if !self.hosts[at].powered {
            return;
        }
        self.kill_agent(at);
        self.kill_guard(at);
        let host = &mut self.hosts[at];
        host.powered = false;
        host.kernel = host.kernel.rebooted();
        host.link = None;
        self.one.host_gone(self.now, at);
        self.begins(at);
    }

    fn power_on(&mut self, at: usize) {
        let host = &mut self.hosts[at];
        if host.powered || host.dead {
            return;
        }
        host.powered = true;
        host.agent_run += 1;
        host.guard_run += 1;
        let (agent, guard) = (host.agent_run, host.guard_run);
        let delay = micros(&mut self.rng, RESTART);
        self.after(delay, at, What::StartGuard { run: guard });
        let delay = micros(&mut self.rng, RESTART);
        self.after(delay, at, What::StartAgent { run: agent });
    }

    fn heal(&mut self, victim: Option<Victim>) {
        self.network.mend_all();
        let owed = |v: &Victim| self.quorum_without(v.host) && self.electable_without(v.host);
        let victim = victim.filter(owed);
        let dead = victim.as_ref().filter(|v| v.dead).map(|v| v.host);
        self.network.cut(victim.as_ref().map_or(&[], |v| &v.cut));
        for at in 0..self.hosts.len() {
            let host = &mut self.hosts[at];
            host.disk_delay = Duration::ZERO;
            host.stall = Duration::ZERO;
            host.kernel.heal();
            // Progress is owed by the quorums that there are now.
            host.agent.iter_mut().for_each(Agent::forget_voters);
            host.agent_frozen.times = 0;
            host.guard_frozen.times = 0;
            // Whoever stops it has waited long enough.
            if self.hosts[at].agent.as_ref().is_some_and(Agent::is_stopping) {
                self.kill_agent(at);
                self.stop_guard(at);
            }
            if dead == Some(at) {
                self.hosts[at].dead = true;
                self.power_off(at);
            } else {
                self.power_on(at);
                self.catch_up(at);
                self.kernel_event(at, GuardInput::Links);
            }
        }
        // Asked for again and again: there may be no leader for long.
        let (patience, mut delay) = (progress_bound(&self.timing) * 3 / 4, Duration::ZERO);
        while delay < patience {
            for at in 0..self.hosts.len() {
                self.after(delay, 0, What::Fault(Fault::Drain(at, false)));
            }
            delay += self.timing.promise;
        }
    }

    /// Whether every configuration that anybody knows of has a quorum without
    /// this host, and somebody to hold the VIP.
    fn quorum_without(&self, victim: usize) -> bool {
        let known = self.hosts.iter().flat_map(|host| {
            let of_agent = host.agent.as_ref().map(|a| a.raft.effective()).unwrap_or_default();
            let log = host.disk.log.clone();
            let raft = Raft::new(node(0), vec![], self.initial.clone(), host.disk.vote, log);
            of_agent.into_iter().chain(raft.effective())
        });
        let victim = node(victim);
        let enough = |set: BTreeSet<NodeId>| {
            let left = set.iter().filter(|id| **id != victim).count();
            left > set.len() / 2
        };
        known.into_iter().all(enough)
    }

    /// Whether somebody can be elected without this host. Perhaps not where logs
    /// differ in who votes: one with a change that was never committed may be
    /// ahead of the others', and those that it names behind another. Raft itself
    /// waits for whoever is missing then, also if he goes on sending.
    fn electable_without(&self, victim: usize) -> bool {
        let logs = (0..self.hosts.len()).map(|at| {
            let host = &self.hosts[at];
            let log = host.agent.as_ref().map_or(&host.disk.log, |agent| &agent.raft.log);
            let (vote, initial) = (host.disk.vote, self.initial.clone());
            (node(at), Raft::new(node(at), vec![], initial, vote, log.clone()))
        });
        let logs: BTreeMap<NodeId, Raft> = logs.collect();
        let sent = &logs[&node(victim)];
        logs.values().all(|raft| raft.effective() == sent.effective())
            || logs.iter().filter(|(id, _)| **id != node(victim)).any(|(id, candidate)| {
                let others = logs.iter().filter(|(id, _)| **id != node(victim));
                let behind = others.filter(|(_, raft)| raft.last() <= candidate.last());
                let votes = candidate.effective().iter().any(|set| set.contains(id));
                let may = votes && sent.last() <= candidate.last();
                may && candidate.is_quorum(&behind.map(|(id, _)| *id).collect())
            })
    }

    /// Opens the gate of a host that has no right to.
    fn double_answer(&mut self) {
        let spec = vip_spec(&self.scenario);
        let wrong = spec.addresses.first().and_then(|address| {
            let holder = self.one.answering(self.now, address.ip)?;
            let other = (0..self.hosts.len()).find(|h| *h != holder && self.hosts[*h].powered)?;
            Some((other, address.ip, address.prefix))
        });
        let Some((at, ip, prefix)) = wrong else {
            self.after(self.timing.heartbeat, 0, What::Fault(Fault::DoubleAnswer));
            return;
        };
        let deadline = self.hosts[at].clock.local(self.now.plus(self.timing.promise));
        let address = Address { ip, prefix, interface: String::new() };
        let entry = GateEntry::Until(deadline);
        let actions = vec![GuardAction::AddAddress(address), GuardAction::Gate { ip, entry }];
        self.act(at, None, actions);
    }
}
