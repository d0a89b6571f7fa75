//! The world: hosts, time, and one event after the other.

mod clients;
mod due;
mod faults;
mod genesis;
mod guards;
mod provider;
mod reals;
mod servers;

use crate::agent::{Agent, AgentStart, Conditions, Input, Message, Out, Task, pace};
use crate::clock::{Clock, Real};
use crate::disk::Written;
use crate::guard::{Connection, GuardInput, ToGuard};
use crate::host::{Frozen, Host};
use crate::invariant::{
    CommittedMoveStays, EpochNeverFalls, OneAnsweringNode, TablesFollowTheLog, Violation,
    health_after_heal, health_bound, progress_after_heal, provider_agrees_after_heal,
    provider_bound,
};
use crate::kernel::Kernel;
use crate::mutant::Mutant;
use crate::network::Network;
use crate::raft::Raft;
use crate::scenario::{Fault, Kind, Manners, Scenario, Scheme, host as host_of, node};
use clients::Clients;
use due::{Due, What};
use genesis::{addresses, genesis, guest_spec, mac, other_name, vip_name, vip_spec};
use provider::Provider;
use reals::Condition;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use vip_core::{NodeId, Recording, State, Term, Timing, Vote};

/// How a seed is run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// A broken rule.
    pub mutant: Option<Mutant>,
    /// Nothing goes wrong but by this scheme.
    pub only: Option<Scheme>,
    /// Open a gate without a right to it, once: the run has to fail.
    pub double_answer: bool,
    /// Print every event.
    pub trace: bool,
    /// Agents keep what happens to their leases.
    pub record: bool,
}

/// What happened in a world, so that nobody takes an empty one for a safe one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Events handled.
    pub events: u64,
    /// Leaders elected.
    pub elections: u64,
    /// Assignments of VIPs.
    pub moves: u64,
    /// Times that a gate opened.
    pub opened: u64,
    /// Times that a gate ran out.
    pub expired: u64,
    /// Faults injected.
    pub faults: u64,
    /// Tables of virtual servers that were put in force.
    pub tables: u64,
    /// Packets of connections that live.
    pub spoke: u64,
    /// Changes of where a VIP is that somebody was asked for, and did.
    pub told: u64,
}

/// The end of a world.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    pub seed: u64,
    /// What happened in it.
    pub stats: Stats,
    /// Some clocks were not true, and their nodes need hold nothing.
    pub slewed: bool,
    /// Kinds of faults, as often as they were injected.
    pub kinds: Vec<Kind>,
    /// The rule that did not hold.
    pub violation: Option<Violation>,
}

/// The shortest time between two looks of a process at its timers.
const LOOP: Duration = Duration::from_micros(50);
/// One crash in so many leaves the latest vote unreadable.
const VOTES_DAMAGED: u32 = 12;
/// A process is restarted after this long.
const RESTART: std::ops::Range<u64> = 5_000..60_000;
/// A message between processes of a host takes this long, microseconds.
const LOCAL: std::ops::Range<u64> = 20..400;

/// In one of so many worlds with virtual servers their real servers are checked: it goes on
/// for longer.
const CHECKED: u64 = 4;

struct World {
    seed: u64,
    now: Real,
    queue: BinaryHeap<Reverse<Due>>,
    ordered: u64,
    rng: fastrand::Rng,
    options: Options,
    scenario: Scenario,
    timing: Timing,
    genesis: Arc<State>,
    initial: BTreeSet<NodeId>,
    hosts: Vec<Host>,
    network: Network,
    connections: Connection,
    one: OneAnsweringNode,
    epochs: EpochNeverFalls,
    committed: CommittedMoveStays,
    tables: TablesFollowTheLog,
    clients: Clients,
    /// Of real servers that were ill once.
    conditions: BTreeMap<IpAddr, Condition>,
    cut_from_reals: Option<usize>,
    provider: Provider,
    stats: Stats,
    violation: Option<Violation>,
}

/// Runs the world of a seed to its end, or to the first broken rule.
#[must_use]
pub fn run(seed: u64, options: Options) -> Report {
    let scenario = Scenario::of(seed, options.only);
    let mut world = World::new(seed, scenario, options);
    world.start();
    world.play();
    let (moves, tables) = (world.committed.moves() as u64, world.tables.put());
    let (spoke, told) = (world.clients.spoke, world.provider.done);
    let stats = Stats { moves, tables, spoke, told, ..world.stats };
    let slewed = world.is_slewed();
    Report { seed, stats, slewed, kinds: world.scenario.kinds, violation: world.violation }
}

/// Runs the world of a seed and returns what its agents kept.
#[must_use]
pub fn recordings(seed: u64) -> Vec<Recording> {
    let options = Options { record: true, ..Options::default() };
    let mut world = World::new(seed, Scenario::of(seed, None), options);
    world.start();
    world.play();
    let agents = world.hosts.iter_mut().filter_map(|host| host.agent.as_mut());
    agents.flat_map(Agent::take_recordings).collect()
}

fn micros(rng: &mut fastrand::Rng, range: std::ops::Range<u64>) -> Duration {
    Duration::from_micros(rng.u64(range))
}

impl World {
    fn new(seed: u64, scenario: Scenario, options: Options) -> Self {
        let mut timing = scenario.profile.timing();
        let genesis = Arc::new(genesis(&scenario));
        let initial = (0..scenario.hosts.len()).filter(|at| scenario.hosts[*at].votes).map(node);
        let one = OneAnsweringNode::new(timing.gate_to_wire);
        match options.mutant {
            Some(Mutant::LeaseLongerThanPromise) => timing.lease = timing.promise * 3 / 2,
            Some(Mutant::NoWait) => timing.wait = Duration::ZERO,
            _ => {}
        }
        let kernel = Kernel::new(options.mutant != Some(Mutant::NoSecondGate));
        let clock =
            |h: &crate::scenario::HostShape| Clock { offset: h.offset, rate_ppm: h.rate_ppm };
        Self {
            seed,
            now: Real::default(),
            queue: BinaryHeap::new(),
            ordered: 0,
            rng: fastrand::Rng::with_seed(seed ^ 0x5eed),
            options,
            timing,
            genesis,
            initial: initial.collect(),
            hosts: scenario.hosts.iter().map(|h| Host::new(clock(h), kernel.clone())).collect(),
            network: Network::new(scenario.latency),
            connections: 0,
            one,
            epochs: EpochNeverFalls::default(),
            committed: CommittedMoveStays::default(),
            tables: TablesFollowTheLog::default(),
            clients: Clients::default(),
            conditions: BTreeMap::new(),
            cut_from_reals: None,
            provider: Provider::default(),
            stats: Stats::default(),
            violation: None,
            scenario,
        }
    }

    fn start(&mut self) {
        if self.options.trace {
            let Scenario { profile, sticky, hosts, latency, healed_at, .. } = &self.scenario;
            eprintln!("{profile}, sticky {sticky}, latency {latency:?}, healed at {healed_at}");
            eprintln!("{hosts:#?}");
        }
        for host in 0..self.hosts.len() {
            self.after(Duration::ZERO, host, What::StartGuard { run: 0 });
            let delay = micros(&mut self.rng, RESTART);
            self.after(delay, host, What::StartAgent { run: 0 });
        }
        for (at, fault) in std::mem::take(&mut self.scenario.faults) {
            self.at(at, 0, What::Fault(fault));
        }
        if self.scenario.kinds.contains(&Kind::Servers) {
            self.clients_come();
        }
        if self.is_checked() {
            let bound = health_bound(&self.timing, &servers::CHECK);
            self.scenario.ends_at = self.scenario.healed_at.plus(bound);
            self.reals_live();
        }
        if let Some(Manners { refuses, .. }) = self.scenario.called {
            let bound = provider_bound(&self.timing, &pace(&self.timing), refuses);
            self.scenario.ends_at = self.scenario.ends_at.plus(bound);
        }
        if self.options.double_answer {
            self.at(self.scenario.healed_at, 0, What::Fault(Fault::DoubleAnswer));
        }
    }

    fn at(&mut self, at: Real, host: usize, what: What) {
        self.ordered += 1;
        self.queue.push(Reverse(Due { at, order: self.ordered, host, what }));
    }

    fn after(&mut self, delay: Duration, host: usize, what: What) {
        self.at(self.now.plus(delay), host, what);
    }

    fn play(&mut self) {
        while self.violation.is_none() {
            let Some(Reverse(due)) = self.queue.pop() else { return };
            if due.at > self.scenario.ends_at {
                self.now = self.scenario.ends_at;
                self.judge_progress();
                return;
            }
            self.now = due.at;
            self.stats.events += 1;
            self.happen(due.host, due.what);
        }
    }

    /// Whether virtual servers are checked here.
    fn is_checked(&self) -> bool {
        self.scenario.kinds.contains(&Kind::Servers) && self.seed.is_multiple_of(CHECKED)
    }

    fn is_slewed(&self) -> bool {
        self.scenario.hosts.iter().any(|host| !host.clock_is_well())
    }

    fn judge_progress(&mut self) {
        // A node whose clock is not true need not lead or hold.
        if self.is_slewed() {
            return;
        }
        if self.options.trace {
            for (at, host) in self.hosts.iter().enumerate() {
                let raft = host.agent.as_ref().map(|agent| &agent.raft);
                let shown =
                    raft.map(|r| (r.vote, r.last(), r.commit, r.effective(), r.view().voters));
                eprintln!("host {at}: {shown:?}");
            }
        }
        let leads = self.leader();
        let state = leads.and_then(|at| self.hosts[at].agent.as_ref()).map(|a| a.state().clone());
        let ips = state.iter().flat_map(|s| s.all_vips()).flat_map(|vip| &vip.spec.addresses);
        let answering: Vec<_> = ips.map(|a| (a.ip, self.one.answering(self.now, a.ip))).collect();
        let result = progress_after_heal(self.now, leads, &answering, self.lags(leads));
        self.check(result);
        for vip in state.iter().flat_map(|s| s.all_vips()).filter(|vip| vip.spec.via.is_called()) {
            // Of several addresses one stands for all: the first, which stays its own.
            let ip = vip.spec.ips().first().copied();
            let answers = ip.and_then(|ip| self.one.answering(self.now, ip));
            let said = ip.and_then(|ip| self.provided(ip));
            let result = provider_agrees_after_heal(self.now, &vip.spec.name, answers, said);
            self.check(result);
        }
        if let Some(state) = state.filter(|_| self.is_checked()) {
            let is_well = |_: &_, ip| self.condition(ip) == Condition::Well;
            let result = health_after_heal(self.now, &state, is_well);
            self.check(result);
        }
    }

    /// A host whose agent leads with a lease.
    fn leader(&self) -> Option<usize> {
        (0..self.hosts.len()).find(|at| {
            let host = &self.hosts[*at];
            let now = host.clock.local(self.now);
            host.agent.as_ref().is_some_and(|agent| agent.has_lease(now))
        })
    }

    fn check(&mut self, result: Result<(), Violation>) {
        if let Err(violation) = result
            && self.violation.is_none()
        {
            self.violation = Some(violation);
        }
    }

    fn trace(&self, host: usize, what: &dyn std::fmt::Debug) {
        if self.options.trace {
            eprintln!("{:>14} host {host}: {what:?}", self.now.to_string());
        }
    }

    fn happen(&mut self, host: usize, what: What) {
        match what {
            What::Agent { input: Input::Enqueue(Task::Voters(_)), .. }
                if self.now >= self.scenario.healed_at => {}
            What::Agent { run, input } => {
                if self.hosts[host].agent_run == run {
                    if let Input::Durable(written, _) = &input {
                        // The disk goes on when its process is frozen.
                        self.hosts[host].written(*written);
                    }
                    self.agent(host, input);
                }
            }
            What::AgentTick { tick } => {
                if self.hosts[host].agent_tick == tick {
                    self.agent(host, Input::Tick);
                }
            }
            What::Guard { run, input } => {
                if self.hosts[host].guard_run == run {
                    self.guard(host, input);
                }
            }
            What::GuardTick { tick } => {
                if self.hosts[host].guard_tick == tick {
                    self.guard(host, GuardInput::Tick);
                }
            }
            What::FromGuard { run, connection, message } => {
                self.guard_said(host, run, connection, message);
            }
            What::StartAgent { run } => self.start_agent(host, run),
            What::StartGuard { run } => self.start_guard(host, run),
            What::Reconnect { run } => self.reconnect(host, run),
            What::Clients => self.clients(),
            What::Reals => self.reals(),
            What::Fault(fault) => self.fault(fault),
            What::Provider(reached) => self.provider(host, &reached),
        }
    }

    fn start_agent(&mut self, at: usize, run: u64) {
        let host = &self.hosts[at];
        if host.agent_run != run || !host.powered || host.agent.is_some() {
            return;
        }
        self.begins(at);
        let host = &self.hosts[at];
        let me = node(at);
        let peers: Vec<NodeId> = (0..self.hosts.len()).filter(|h| *h != at).map(node).collect();
        let (vote, log) = (host.disk.vote, host.disk.log.clone());
        let lost_up_to = host.disk.lost_up_to;
        let stand_in = |lost: Term| Vote { term: lost.next(), node: me, committed: false };
        let vote = lost_up_to.map_or(vote, stand_in);
        // One that went further than the log did is lost with the crash.
        let snapshot = host.disk.snapshot.clone().filter(|s| s.index <= log.len());
        let mut raft = Raft::new(me, peers.clone(), self.initial.clone(), vote, log);
        raft.snapshot = snapshot;
        let (timing, mutant, genesis) = (self.timing, self.options.mutant, self.genesis.clone());
        let record = self.options.record;
        let start =
            AgentStart { me, run, peers, timing, mutant, genesis, raft, lost_up_to, record };
        let now = host.clock.local(self.now);
        self.epochs.restarted(at);
        self.hosts[at].agent = Some(Agent::new(now, start));
        self.trace(at, &"the agent starts");
        self.agent(at, Input::Start);
    }

    fn agent(&mut self, at: usize, input: Input) {
        let host = &mut self.hosts[at];
        let Some(agent) = &mut host.agent else { return };
        if host.agent_frozen.times > 0 {
            // Whoever gives a command does not wait for a frozen node.
            let command = matches!(
                input,
                Input::Admin(_) | Input::Voters(_) | Input::Enqueue(Task::Voters(_))
            );
            if !command {
                host.agent_frozen.backlog.push_back(input);
            }
            return;
        }
        let oldest = host.writes.front().into_iter().chain(&host.vote_write).min();
        let issued = oldest.copied().unwrap_or(self.now);
        let oldest_write = Duration::from_nanos(self.now.0 - issued.0);
        let unseen = self.options.mutant == Some(Mutant::SlewUnnoticed);
        let clock_is_well = self.scenario.hosts[at].clock_is_well() || unseen;
        let conditions = Conditions { oldest_write, clock_is_well, stall: host.stall };
        let now = host.clock.local(self.now);
        if self.options.trace && !matches!(input, Input::Tick) {
            eprintln!("{:>14} host {at}: {input:?}", self.now.to_string());
        }
        let (out, next) = agent.handle(now, conditions, input);
        host.agent_tick += 1;
        let tick = host.agent_tick;
        let due = host.clock.real(next).max(self.now.plus(LOOP));
        self.at(due, at, What::AgentTick { tick });
        for out in out {
            self.carry_out(at, out);
        }
    }

    fn carry_out(&mut self, at: usize, out: Out) {
        let run = self.hosts[at].agent_run;
        match out {
            Out::Send(to, message) => self.send(at, host_of(to), &message),
            Out::Guard(ToGuard::Connect) => self.reconnect(at, run),
            Out::Guard(message) => self.tell_guard(at, message),
            Out::Hangup => self.hang_up(at),
            Out::Probe(start) => self.probe_real(at, &start),
            Out::Call { id, ip, epoch, verb, limit, announced } => {
                self.call(at, (id, ip, epoch), (verb, announced), limit);
            }
            Out::Write(write, after) => {
                let written = write.sort();
                let host = &mut self.hosts[at];
                host.disk.issue(write);
                let takes = self.scenario.write.mul_f64(0.2 + self.rng.f64()) + host.disk_delay;
                let mut done = self.now.plus(takes);
                if let Written::Vote(_) = written {
                    host.vote_write = Some(self.now);
                } else {
                    host.writes.push_back(self.now);
                    // One flush takes what waits along; order is kept.
                    done = done.max(host.disk_free_at.plus(LOOP));
                    host.disk_free_at = done;
                }
                let input = Input::Durable(written, after);
                self.at(done, at, What::Agent { run, input });
            }
            Out::Soon(input) => {
                let delay = micros(&mut self.rng, 10..1000);
                self.after(delay, at, What::Agent { run, input });
            }
            Out::After(delay, input) => self.after(delay, at, What::Agent { run, input }),
            Out::Committed(index, entry) => {
                let result = self.committed.committed(self.now, at, index, &entry);
                self.check(result);
            }
            Out::State(index, state) => {
                self.tables.applied(index, &state);
                self.log_moved_on();
                let result = self.epochs.applied(self.now, at, &state);
                self.check(result);
                let result = self.committed.applied(self.now, at, &state);
                self.check(result);
            }
            Out::Used => self.hosts[at].owed = self.forwarded(at),
            Out::Snapshot(snapshot) => self.hosts[at].disk.keep(snapshot),
            Out::Elected(term) => {
                self.stats.elections += 1;
                self.trace(at, &format!("leads term {term}"));
            }
            Out::StartOver => {
                self.trace(at, &"starts over");
                self.kill_agent(at);
            }
            Out::Exit => {
                self.trace(at, &"exits");
                self.kill_agent(at);
                self.stop_guard(at);
            }
        }
    }

    fn send(&mut self, from: usize, to: usize, message: &Message) {
        let run = self.hosts[to].agent_run;
        for delay in self.network.send(&mut self.rng, from, to) {
            let input = Input::Message(node(from), message.clone());
            self.after(delay, to, What::Agent { run, input });
        }
    }

    fn kill_agent(&mut self, at: usize) {
        // Of nobody whom no other could help out, and of one at a time.
        let elsewhere = self.hosts.iter().any(|host| host.disk.lost_up_to.is_some());
        let host = &mut self.hosts[at];
        let Some(agent) = host.agent.take() else { return };
        let alone = agent.votes_alone();
        host.agent_run += 1;
        host.agent_frozen = Frozen::default();
        host.disk.crash(&mut self.rng);
        let damaged = self.rng.u32(0..VOTES_DAMAGED) == 0;
        if damaged && !alone && !elsewhere {
            host.disk.damage_vote();
        }
        host.writes.clear();
        host.vote_write = None;
        host.disk_free_at = self.now;
        let link = host.link.take();
        let run = host.agent_run;
        if let Some((connection, _)) = link {
            self.over_socket(at, connection, ToGuard::Gone);
        }
        let delay = micros(&mut self.rng, RESTART);
        self.after(delay, at, What::StartAgent { run });
    }
}

/// Sums over many worlds.
impl std::ops::AddAssign for Stats {
    fn add_assign(&mut self, other: Self) {
        self.events += other.events;
        self.elections += other.elections;
        self.moves += other.moves;
        self.opened += other.opened;
        self.expired += other.expired;
        self.faults += other.faults;
        self.tables += other.tables;
        self.spoke += other.spoke;
        self.told += other.told;
    }
}
