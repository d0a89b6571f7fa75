//! Guards, their sockets, and what the kernel does for them.

use super::{LOCAL, LOOP, RESTART, What, World, addresses, mac, micros};
use crate::agent::Input;
use crate::clock::Real;
use crate::guard::{Connection, FromGuard, GuardInput, GuardProcess, ToGuard};
use crate::host::Frozen;
use crate::mutant::Mutant;
use std::collections::{BTreeSet, VecDeque};
use std::net::IpAddr;
use std::time::Duration;
use vip_core::{
    Address, GuardAction, GuardEvent, GuardNotice, Mono, Obstacle, ServerUid, TableNotice,
    TableOrder, Why,
};

/// As in vip-guard.
const RECONCILE: Duration = Duration::from_secs(1);
/// What the second lane takes for one thing, microseconds.
const LANE: std::ops::Range<u64> = 50..20_000;
/// An agent without a guard tries to connect again after this long.
const RECONNECT: Duration = Duration::from_millis(10);

impl World {
    pub(super) fn start_guard(&mut self, at: usize, run: u64) {
        let host = &mut self.hosts[at];
        if host.guard_run != run || !host.powered || host.guard.is_some() {
            return;
        }
        let purged = if self.options.mutant == Some(Mutant::NoPurge) {
            Some(BTreeSet::new())
        } else {
            host.kernel.purge()
        };
        let Some(purged) = purged else {
            let delay = micros(&mut self.rng, RESTART);
            self.after(delay, at, What::StartGuard { run });
            return;
        };
        host.guard = Some(GuardProcess::new());
        host.owed.clear();
        host.guards += 1;
        self.tables.guard_started(at);
        self.trace(at, &"the guard starts");
        for ip in purged {
            self.answering_changed(at, ip);
        }
        self.after(RECONCILE, at, What::Guard { run, input: GuardInput::Reconcile });
    }

    pub(super) fn guard(&mut self, at: usize, input: GuardInput) {
        let host = &mut self.hosts[at];
        let Some(guard) = &mut host.guard else { return };
        if host.guard_frozen.times > 0 {
            host.guard_frozen.backlog.push_back(input);
            return;
        }
        let now = host.clock.local(self.now);
        let mut connection = guard.connection;
        let mut answer = None;
        let actions = match input {
            GuardInput::Message(from, ToGuard::Tables(orders)) => {
                for order in orders {
                    self.on_lane(at, GuardInput::Table(from, order));
                }
                return;
            }
            GuardInput::Message(from, message) => {
                connection = Some(from);
                let (actions, reply) = guard.receive(now, &mut self.rng, from, message);
                answer = reply;
                actions
            }
            GuardInput::Tick => guard.tick(now),
            GuardInput::Kernel(event) => guard.kernel(now, event),
            GuardInput::GateOn => {
                host.kernel.gate_on();
                for ip in host.kernel.addresses() {
                    self.answering_changed(at, ip);
                }
                return self.follow_links(at);
            }
            GuardInput::Links => return self.follow_links(at),
            GuardInput::Reconcile => return self.reconcile(at),
            GuardInput::TellTables(asked) if connection == Some(asked) => {
                let all = host.kernel.tables.in_force();
                return self.answer(at, asked, FromGuard::Tables(TableNotice::AllInForce(all)));
            }
            GuardInput::Table(by, order) if connection == Some(by) => {
                return self.carry_out_table(at, by, order);
            }
            GuardInput::TellTables(_) | GuardInput::Table(..) => return,
        };
        if let (Some(answer), Some(connection)) = (answer, connection) {
            if let FromGuard::Welcome(_) = answer {
                self.on_lane(at, GuardInput::TellTables(connection));
            }
            self.answer(at, connection, answer);
        }
        self.act(at, connection, actions);
        self.tick_guard(at);
    }

    /// The second lane comes to it, one thing after the other.
    fn on_lane(&mut self, at: usize, input: GuardInput) {
        let takes = micros(&mut self.rng, LANE);
        let host = &mut self.hosts[at];
        host.lane_at = host.lane_at.max(self.now).plus(takes);
        let (run, due) = (host.guard_run, host.lane_at);
        self.at(due, at, What::Guard { run, input });
    }

    fn carry_out_table(&mut self, at: usize, by: Connection, order: TableOrder) {
        let server = order.server();
        let swallowed = self.options.mutant == Some(Mutant::TableSwallowed);
        let tables = &mut self.hosts[at].kernel.tables;
        if swallowed && tables.get(server).is_some() {
            let generation = order.wanted();
            let notice = TableNotice::InForce { server, generation };
            return self.answer(at, by, FromGuard::Tables(notice));
        }
        if self.options.mutant == Some(Mutant::MovedForgotten) {
            tables.forget();
        }
        let notice = tables.carry_out(order);
        let result = match tables.get(server) {
            Some(has) => self.tables.in_force(self.now, at, server, &has.forwarding),
            None => self.tables.dropped(self.now, at, server),
        };
        self.check(result);
        self.answer(at, by, FromGuard::Tables(notice));
    }

    /// The virtual servers that a host's agent knows of.
    pub(super) fn forwarded(&self, at: usize) -> BTreeSet<ServerUid> {
        let agent = self.hosts[at].agent.as_ref();
        agent.into_iter().flat_map(|agent| agent.state().forwardings().into_keys()).collect()
    }

    fn tick_guard(&mut self, at: usize) {
        let host = &mut self.hosts[at];
        let next = host.guard.as_ref().and_then(GuardProcess::next_tick);
        host.guard_tick += 1;
        let (tick, clock) = (host.guard_tick, host.clock);
        if let Some(next) = next {
            let due = clock.real(next).max(self.now.plus(LOOP));
            self.at(due, at, What::GuardTick { tick });
        }
    }

    /// The guard is told of something, as if it had seen it.
    pub(super) fn kernel_event(&mut self, at: usize, input: GuardInput) {
        let delay = micros(&mut self.rng, LOCAL);
        let run = self.hosts[at].guard_run;
        self.after(delay, at, What::Guard { run, input });
    }

    fn step_guard(&mut self, at: usize, event: GuardEvent) {
        let host = &mut self.hosts[at];
        let now = host.clock.local(self.now);
        let Some(guard) = &mut host.guard else { return };
        let (connection, actions) = (guard.connection, guard.kernel(now, event));
        self.act(at, connection, actions);
        self.tick_guard(at);
    }

    /// As in vip-guard: an address is of no use without a link, and must not
    /// stay where no gate is.
    fn follow_links(&mut self, at: usize) {
        let kernel = &self.hosts[at].kernel;
        let (has_link, exposed) = (kernel.has_link, kernel.is_exposed());
        if has_link && !exposed {
            return self.step_guard(at, GuardEvent::LinkBack);
        }
        for ip in self.hosts[at].kernel.addresses() {
            let obstacle = Obstacle { ip, why: Why::NoLink };
            self.step_guard(at, GuardEvent::AddressRefused(obstacle));
        }
    }

    fn reconcile(&mut self, at: usize) {
        let run = self.hosts[at].guard_run;
        let there = self.hosts[at].kernel.addresses();
        let Some(guard) = &mut self.hosts[at].guard else { return };
        guard.hand_over();
        let (events, unwanted) = guard.compare(&there);
        for event in events {
            self.step_guard(at, event);
        }
        for ip in unwanted {
            let address = Address { ip, prefix: 32, interface: String::new() };
            if self.hosts[at].kernel.act(&GuardAction::DeleteAddress(address)).is_ok() {
                self.answering_changed(at, ip);
                self.step_guard(at, GuardEvent::AddressDeleted(ip));
            }
        }
        self.after(RECONCILE, at, What::Guard { run, input: GuardInput::Reconcile });
    }

    fn answer(&mut self, at: usize, connection: Connection, message: FromGuard) {
        let delay = micros(&mut self.rng, LOCAL);
        let host = &mut self.hosts[at];
        host.to_agent_at = host.to_agent_at.max(self.now.plus(delay));
        let (run, due) = (host.agent_run, host.to_agent_at);
        self.at(due, at, What::FromGuard { run, connection, message });
    }

    /// Carries out a list. A failure may end it, and what the guard says then
    /// takes the place of the rest.
    pub(super) fn act(
        &mut self,
        at: usize,
        connection: Option<Connection>,
        actions: Vec<GuardAction>,
    ) {
        let mut notices = vec![];
        let mut actions = VecDeque::from(actions);
        while let Some(action) = actions.pop_front() {
            match self.hosts[at].kernel.act(&action) {
                Ok(changed) => changed.into_iter().for_each(|ip| self.answering_changed(at, ip)),
                Err(failure) => {
                    self.trace(at, &failure);
                    let blind = self.options.mutant == Some(Mutant::FailureUnnoticed);
                    let guard = self.hosts[at].guard.as_mut().filter(|_| !blind);
                    if let Some(guard) = guard {
                        actions = guard.failed(&failure, actions.into()).into();
                    }
                    continue;
                }
            }
            if let GuardAction::DeleteAddress(address) = &action {
                let now = self.hosts[at].clock.local(self.now);
                let deleted = GuardEvent::AddressDeleted(address.ip);
                if let Some(guard) = &mut self.hosts[at].guard {
                    for follow_up in guard.kernel(now, deleted).into_iter().rev() {
                        actions.push_front(follow_up);
                    }
                }
            }
            if let GuardAction::Probe(addresses) = &action {
                self.probe(at, addresses);
            }
            let GuardAction::Notify(notice) = action else { continue };
            self.noticed(at, &notice);
            notices.push(notice);
        }
        if let (Some(connection), false) = (connection, notices.is_empty()) {
            self.answer(at, connection, FromGuard::Notices(notices));
        }
    }

    /// Every other host that answers hears the question: the network of the VIPs
    /// need not be that of the cluster, which may be cut.
    fn probe(&mut self, at: usize, addresses: &[Address]) {
        for other in (0..self.hosts.len()).filter(|other| *other != at) {
            let host = &self.hosts[other];
            let now = host.clock.local(self.now);
            let answers = |a: &&Address| host.powered && host.kernel.answers_until(a.ip) > now;
            let answering: Vec<_> = addresses.iter().filter(answers).map(|a| a.ip).collect();
            for ip in answering {
                let event = GuardEvent::ForeignClaim { ip, mac: mac(other) };
                self.kernel_event(at, GuardInput::Kernel(event));
            }
        }
    }

    fn noticed(&mut self, at: usize, notice: &GuardNotice) {
        self.trace(at, notice);
        match *notice {
            GuardNotice::Opened { vip, epoch } => {
                self.stats.opened += 1;
                let result = self.epochs.opened(self.now, at, vip, epoch);
                self.check(result);
            }
            GuardNotice::Expired { .. } => self.stats.expired += 1,
            // Refusing what it held lets go of it as well.
            GuardNotice::Released { .. } | GuardNotice::Refused { .. } => {
                for address in addresses() {
                    // It has to be true.
                    let now = self.hosts[at].clock.local(self.now);
                    if self.hosts[at].kernel.answers_until(address.ip) <= now {
                        self.one.released(self.now, at, address.ip);
                    }
                }
            }
            _ => {}
        }
    }

    pub(super) fn answering_changed(&mut self, at: usize, ip: IpAddr) {
        let host = &self.hosts[at];
        let until = host.kernel.answers_until(ip);
        let until = if until == Mono::ZERO { Real::default() } else { host.clock.real(until) };
        let result = self.one.changed(self.now, at, ip, until);
        self.check(result);
    }

    pub(super) fn tell_guard(&mut self, at: usize, message: ToGuard) {
        let Some((connection, true)) = self.hosts[at].link else { return };
        self.over_socket(at, connection, message);
    }

    pub(super) fn over_socket(&mut self, at: usize, connection: Connection, message: ToGuard) {
        let delay = micros(&mut self.rng, LOCAL);
        let host = &mut self.hosts[at];
        host.to_guard_at = host.to_guard_at.max(self.now.plus(delay));
        let (run, due) = (host.guard_run, host.to_guard_at);
        let input = GuardInput::Message(connection, message);
        self.at(due, at, What::Guard { run, input });
    }

    pub(super) fn guard_said(
        &mut self,
        at: usize,
        run: u64,
        connection: Connection,
        message: FromGuard,
    ) {
        let host = &mut self.hosts[at];
        if host.agent_run != run || host.link.map(|(c, _)| c) != Some(connection) {
            return;
        }
        match message {
            FromGuard::Welcome(_) => host.link = Some((connection, true)),
            FromGuard::Gone => {
                let welcomed = host.link.take().is_some_and(|(_, welcomed)| welcomed);
                self.after(RECONNECT, at, What::Reconnect { run });
                if !welcomed {
                    return;
                }
            }
            FromGuard::Notices(_) | FromGuard::Tables(_) | FromGuard::Alive => {}
        }
        self.agent(at, Input::Guard(message));
    }

    pub(super) fn hang_up(&mut self, at: usize) {
        let host = &mut self.hosts[at];
        let run = host.agent_run;
        if let Some((connection, _)) = host.link.take() {
            self.over_socket(at, connection, ToGuard::Gone);
        }
        let input = Input::Guard(FromGuard::Gone);
        self.after(Duration::ZERO, at, What::Agent { run, input });
        self.after(RECONNECT, at, What::Reconnect { run });
    }

    pub(super) fn reconnect(&mut self, at: usize, run: u64) {
        let host = &mut self.hosts[at];
        if host.agent_run != run || host.agent.is_none() || host.link.is_some() {
            return;
        }
        if host.guard.is_none() {
            self.after(RECONNECT, at, What::Reconnect { run });
            return;
        }
        self.connections += 1;
        let connection = self.connections;
        host.link = Some((connection, false));
        self.over_socket(at, connection, ToGuard::Connect);
    }

    pub(super) fn kill_guard(&mut self, at: usize) {
        let host = &mut self.hosts[at];
        if host.guard.take().is_none() {
            return;
        }
        self.guard_gone(at);
    }

    /// SIGTERM: it lets go first, unless it is frozen.
    pub(super) fn stop_guard(&mut self, at: usize) {
        let host = &mut self.hosts[at];
        let Some(mut guard) = host.guard.take() else { return };
        if host.guard_frozen.times == 0 {
            let now = host.clock.local(self.now);
            let actions = guard.stop(now);
            self.act(at, None, actions);
        }
        self.guard_gone(at);
    }

    fn guard_gone(&mut self, at: usize) {
        let host = &mut self.hosts[at];
        host.guard_run += 1;
        host.guard_frozen = Frozen::default();
        let (run, link) = (host.guard_run, host.link);
        if let Some((connection, _)) = link {
            self.answer(at, connection, FromGuard::Gone);
        }
        let delay = micros(&mut self.rng, RESTART);
        self.after(delay, at, What::StartGuard { run });
    }
}
