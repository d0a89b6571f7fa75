//! Two tables: the one in force, and the one that connections from before the last
//! changes go by until it retires. Changes that come meanwhile are in force at once; the
//! older table stays the one before, since what began between is remembered on the
//! holder.

use super::{Real, Server, ServerEvent};
use crate::log::State;
use crate::{Generation, Outcome, RealServer, ServerOp, ServerUid};
use serde::{Deserialize, Serialize};

/// A table that was replaced goes after so long, log time: a connection that was silent
/// for as long has most often ended.
pub const RETIRE_AFTER_MS: u64 = 300_000;

/// The table before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Before {
    /// What it was dealt from. Who is a real server no more is in it all the same: others
    /// would get other slots without it.
    pub reals: Vec<RealServer>,
    /// Log time of the last change, ms since 1970.
    pub since_ms: u64,
}

impl Server {
    /// What a table of these is dealt from.
    pub(crate) fn dealt(&self, reals: &[Real]) -> Vec<RealServer> {
        // A port that is the client's says nothing of its own: with another one for the
        // virtual server connections stay where they are.
        let own = |port: &u16| self.spec.ports.single() != Some(*port);
        let dealt = reals.iter().map(|real| RealServer {
            ip: real.spec.ip,
            port: real.spec.port.filter(own).unwrap_or(0),
            weight: real.weight(),
        });
        dealt.collect()
    }

    /// What hosts are to forward by is another thing from now on.
    pub(super) fn is_another(&mut self) {
        self.generation = Generation(self.generation.0 + 1);
    }

    /// Has these real servers from now on, instead of what the table in force was dealt
    /// from. Where that is the same nothing has changed.
    pub(super) fn deal_anew(&mut self, old: Vec<RealServer>, reals: Vec<Real>, now_ms: u64) {
        let new = self.dealt(&reals);
        self.reals = reals;
        if old == new {
            return;
        }
        self.is_another();
        match &mut self.before {
            Some(before) => before.since_ms = now_ms,
            // Nobody was sent anywhere by an empty one.
            None if old.iter().all(|real| real.weight == 0) => {}
            None => self.before = Some(Before { reals: old, since_ms: now_ms }),
        }
    }
}

impl State {
    pub(super) fn retire(&mut self, actor: &str, uid: ServerUid, seen: Generation) -> Outcome {
        let known = self.servers.get(&uid).filter(|server| server.generation == seen);
        let Some(known) = known.filter(|server| server.before.is_some()) else {
            return Outcome::Unchanged;
        };
        let mut server = Server { before: None, ..Server::clone(known) };
        server.is_another();
        let name = server.spec.name.clone();
        self.put_server(server);
        self.record(actor, ServerEvent::Retired { server: name });
        Outcome::Done
    }

    /// The tables that have had their time, to be proposed by the leader.
    #[must_use]
    pub fn retirements(&self, now_ms: u64) -> Vec<ServerOp> {
        let over = |server: &&Server| {
            let before = server.before.as_ref();
            before.is_some_and(|before| now_ms >= before.since_ms.saturating_add(RETIRE_AFTER_MS))
        };
        let retire =
            |server: &Server| ServerOp::Retire { server: server.uid, seen: server.generation };
        self.all_servers().filter(over).map(retire).collect()
    }
}
