//! Guards, their sockets, and what the kernel does for them.

use super::{LOCAL, LOOP, RESTART, What, World, micros, vip_spec};
use crate::agent::Input;
use crate::clock::Real;
use crate::guard::{Connection, FromGuard, GuardProcess, ToGuard};
use crate::host::Frozen;
use crate::mutant::Mutant;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;
use vip_core::{GuardAction, GuardNotice, Mono};

/// An agent without a guard tries to connect again after this long.
const RECONNECT: Duration = Duration::from_millis(10);

impl World {
    pub(super) fn start_guard(&mut self, at: usize, run: u64) {
        let host = &mut self.hosts[at];
        if host.guard_run != run || !host.powered || host.guard.is_some() {
            return;
        }
        let purged = if self.options.mutant == Some(Mutant::NoPurge) {
            BTreeSet::new()
        } else {
            host.kernel.purge()
        };
        host.guard = Some(GuardProcess::new());
        self.trace(at, &"the guard starts");
        for ip in purged {
            self.answering_changed(at, ip);
        }
    }

    pub(super) fn guard(&mut self, at: usize, message: Option<(Connection, ToGuard)>) {
        let host = &mut self.hosts[at];
        let Some(guard) = &mut host.guard else { return };
        if host.guard_frozen.times > 0 {
            host.guard_frozen.backlog.push_back(message);
            return;
        }
        let now = host.clock.local(self.now);
        let connection = message.as_ref().map(|(c, _)| *c).or(guard.connection);
        let (actions, answer) = match message {
            Some((connection, message)) => guard.receive(now, &mut self.rng, connection, message),
            None => (guard.tick(now), None),
        };
        let next = guard.next_tick();
        host.guard_tick += 1;
        let (tick, clock) = (host.guard_tick, host.clock);
        if let Some(next) = next {
            let due = clock.real(next).max(self.now.plus(LOOP));
            self.at(due, at, What::GuardTick { tick });
        }
        if let (Some(answer), Some(connection)) = (answer, connection) {
            self.answer(at, connection, answer);
        }
        self.act(at, connection, actions);
    }

    fn answer(&mut self, at: usize, connection: Connection, message: FromGuard) {
        let delay = micros(&mut self.rng, LOCAL);
        let host = &mut self.hosts[at];
        host.to_agent_at = host.to_agent_at.max(self.now.plus(delay));
        let (run, due) = (host.agent_run, host.to_agent_at);
        self.at(due, at, What::FromGuard { run, connection, message });
    }

    pub(super) fn act(
        &mut self,
        at: usize,
        connection: Option<Connection>,
        actions: Vec<GuardAction>,
    ) {
        let mut notices = vec![];
        for action in actions {
            if let Some(ip) = self.hosts[at].kernel.act(&action) {
                self.answering_changed(at, ip);
            }
            let GuardAction::Notify(notice) = action else { continue };
            self.trace(at, &notice);
            match notice {
                GuardNotice::Opened { vip, epoch } => {
                    self.stats.opened += 1;
                    let result = self.epochs.opened(self.now, at, vip, epoch);
                    self.check(result);
                }
                GuardNotice::Expired { .. } => self.stats.expired += 1,
                GuardNotice::Released { .. } => {
                    for address in vip_spec(false).addresses {
                        self.one.released(self.now, at, address.ip);
                    }
                }
                _ => {}
            }
            notices.push(notice);
        }
        if let (Some(connection), false) = (connection, notices.is_empty()) {
            self.answer(at, connection, FromGuard::Notices(notices));
        }
    }

    fn answering_changed(&mut self, at: usize, ip: IpAddr) {
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
        self.at(due, at, What::Guard { run, connection, message });
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
            FromGuard::Notices(_) | FromGuard::Alive => {}
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
