//! Clients of virtual servers: who opens connections, and speaks on them.

use super::{What, World, addresses};
use crate::invariant::{Connection, Holder};
use crate::tables::Sent;
use std::net::IpAddr;
use vip_core::{Flow, ServerUid};

/// So many are open at a time; each new one takes the place of the oldest.
const OPEN: usize = 24;
/// How often somebody speaks, in parts of a promise.
const PACE: u32 = 4;

#[derive(Default)]
pub(super) struct Clients {
    open: Vec<Connection>,
    opened: u64,
    /// Connections that lived through a packet.
    pub(super) spoke: u64,
}

impl Clients {
    fn next(&mut self) -> Flow {
        self.opened += 1;
        let [.., a, b, c] = self.opened.to_be_bytes();
        Flow { ip: [198, 51, 100, a].into(), port: u16::from_be_bytes([b, c]) }
    }
}

impl World {
    /// From now on clients come.
    pub(super) fn clients_come(&mut self) {
        self.after(self.timing.promise / PACE, 0, What::Clients);
    }

    pub(super) fn clients(&mut self) {
        let pause = (self.timing.promise / PACE).mul_f64(0.2 + self.rng.f64());
        self.after(pause, 0, What::Clients);
        let [first, _] = addresses();
        let Some(host) = self.answering_host(first.ip) else { return };
        let holder = Holder { host, guard: self.hosts[host].guards };
        for mut connection in std::mem::take(&mut self.clients.open) {
            let Connection { vip, port, flow, server, .. } = connection;
            let tables = &mut self.hosts[host].kernel.tables;
            let sent = tables.send(vip, port, flow, false);
            let has = tables.get(server).map(|has| &has.forwarding);
            let agreed = self.tables.agreed(server);
            agreed.iter().for_each(|agreed| connection.log_says(agreed));
            match connection.spoke(self.now, holder, has, sent, agreed) {
                Ok(true) => {
                    self.clients.spoke += 1;
                    self.clients.open.push(connection);
                }
                Ok(false) => {}
                Err(violation) => return self.check(Err(violation)),
            }
        }
        // Who comes while first answers do is early; a holder that is behind the log may be
        // there yet.
        let in_force = self.hosts[host].kernel.tables.in_force();
        let servers = self.tables.servers().filter(|server| {
            let in_step = in_force.get(&server.uid) == Some(&server.generation);
            !server.is_new(self.tables.time_ms()) && (server.spec.check.is_none() || in_step)
        });
        let servers: Vec<(ServerUid, Option<u16>)> =
            servers.map(|server| (server.uid, server.spec.ports.single())).collect();
        for (server, port) in servers {
            self.connect(host, first.ip, server, port.unwrap_or_default());
        }
        let beyond = self.clients.open.len().saturating_sub(OPEN);
        self.clients.open.drain(..beyond);
    }

    fn answering_host(&self, ip: IpAddr) -> Option<usize> {
        (0..self.hosts.len()).find(|at| {
            let host = &self.hosts[*at];
            host.powered && host.kernel.answers_until(ip) > host.clock.local(self.now)
        })
    }

    fn connect(&mut self, host: usize, vip: IpAddr, server: ServerUid, port: u16) {
        let flow = self.clients.next();
        let tables = &mut self.hosts[host].kernel.tables;
        let sent = tables.send(vip, port, flow, true);
        // One that has it for the VIP's addresses of before follows them some time later.
        let has_none = tables.get(server).is_none();
        let known = self.hosts[host].owed.contains(&server) && self.knows(host, server);
        if sent == Sent::ToTheHost && has_none && known {
            let result = self.tables.opened_without(self.now, host, server);
            return self.check(result);
        }
        let Sent::To(real) = sent else { return };
        let tables = &self.hosts[host].kernel.tables;
        // Another one may have had the port.
        let Some(began) = tables.in_force().get(&server).copied() else { return };
        let heard = Some((Holder { host, guard: self.hosts[host].guards }, began));
        let known_to_holder_alone = false;
        let mut connection =
            Connection { vip, port, flow, server, real, began, known_to_holder_alone, heard };
        // The holder may be behind the log.
        for agreed in [self.tables.agreed(server), self.tables.agreed_once(server, began)] {
            agreed.iter().for_each(|agreed| connection.log_says(agreed));
        }
        self.clients.open.push(connection);
    }

    fn knows(&self, host: usize, server: ServerUid) -> bool {
        let agent = self.hosts[host].agent.as_ref();
        agent.is_some_and(|agent| agent.state().server(server).is_some())
    }

    /// The log says something else of virtual servers.
    pub(super) fn log_moved_on(&mut self) {
        for connection in &mut self.clients.open {
            let agreed = self.tables.agreed(connection.server);
            agreed.iter().for_each(|agreed| connection.log_says(agreed));
        }
    }
}
