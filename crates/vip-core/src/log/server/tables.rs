//! Two tables: the one in force, and the one that connections from before the last
//! changes go by until it retires. Changes that come meanwhile are in force at once; the
//! older table stays the one before, since what began between is remembered on the
//! holder.

use super::{Real, Server, ServerEvent};
use crate::log::State;
use crate::{Generation, NodeId, Outcome, RealServer, RealSpec, ServerOp, ServerUid};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

/// A table that was replaced goes after so long, log time: a connection that was silent
/// for as long has most often ended.
pub const RETIRE_AFTER_MS: u64 = 300_000;

/// It goes sooner if nobody spoke by it for so long, on a host that was the holder all
/// the while: a connection may be silent for a minute, and does not end by that.
pub const IDLE_AFTER: Duration = Duration::from_secs(120);

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
        let served = reals.iter().filter(|real| self.serves(real));
        let takes = self.takes_new();
        let weight = |real: &Real| if takes { self.share(real) } else { 0 };
        let served = served.map(|real| self.dealt_one(&real.spec, weight(real)));
        let mut dealt: Vec<_> = served.collect();
        // Always: whoever may not be sent anything is found before it is needed, and who came
        // to it stays with it.
        if let Some(sorry) = &self.spec.policy.sorry {
            let sorry = self.dealt_one(sorry, u16::from(self.is_short));
            match dealt.iter_mut().find(|one| one.place() == sorry.place()) {
                Some(there) => there.weight = there.weight.max(sorry.weight),
                None => dealt.push(sorry),
            }
        }
        dealt
    }

    pub(super) fn dealt_one(&self, real: &RealSpec, weight: u16) -> RealServer {
        // A port that is the client's says nothing of its own: with another one for the
        // virtual server connections stay where they are.
        let own = |port: &u16| self.spec.ports.single() != Some(*port);
        RealServer { ip: real.ip, port: real.port.filter(own).unwrap_or(0), weight }
    }

    /// What hosts are to forward by is another thing from now on.
    pub(super) fn is_another(&mut self) {
        self.generation = Generation(self.generation.0 + 1);
    }

    /// Has these real servers from now on, instead of what the table in force was dealt
    /// from. Where that is the same nothing has changed. What there is to tell, if it counts
    /// as down by that, or does no more.
    pub(super) fn deal_anew(
        &mut self,
        old: Vec<RealServer>,
        reals: Vec<Real>,
        now_ms: u64,
    ) -> Option<ServerEvent> {
        self.reals = reals;
        let short = self.count_anew(&old);
        if old == self.dealt(&self.reals) {
            return short;
        }
        self.is_another();
        match &mut self.before {
            Some(before) => before.since_ms = now_ms,
            // Nobody was sent anywhere by an empty one.
            None if old.iter().all(|real| real.weight == 0) => {}
            None => self.before = Some(Before { reals: old, since_ms: now_ms }),
        }
        short
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

    /// Those of these tables, which nobody spoke by on this node for [`IDLE_AFTER`], that may
    /// retire for it: another node, or one that has not held the VIP for as long, has not
    /// heard who speaks.
    #[must_use]
    pub fn idle_retirements(
        &self,
        now_ms: u64,
        node: NodeId,
        idle: &BTreeMap<ServerUid, Generation>,
    ) -> Vec<ServerOp> {
        let idle_ms = u64::try_from(IDLE_AFTER.as_millis()).unwrap_or(u64::MAX);
        let may_retire = |(uid, seen): &(&ServerUid, &Generation)| {
            let server = self.server(**uid).filter(|server| server.generation == **seen);
            let before = server.and_then(|server| server.before.as_ref());
            let vip = server.and_then(|server| self.vip(server.vip));
            let held = vip.filter(|vip| vip.holder == Some(node));
            before.zip(held).is_some_and(|(before, vip)| {
                now_ms >= before.since_ms.max(vip.since_ms).saturating_add(idle_ms)
            })
        };
        let idle = idle.iter().filter(may_retire);
        idle.map(|(server, seen)| ServerOp::Retire { server: *server, seen: *seen }).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{apply, server, state_of, vip, voter};
    use crate::{Actor, Assignment, Cause, Command, Op, RealPlace, VipOp, VipUid};

    const IDLE_MS: u64 = 120_000;

    fn at(state: &mut State, time_ms: u64, op: impl Into<Op>) {
        let command = Command { time_ms, actor: Actor("test".into()), term: None, op: op.into() };
        assert_eq!(state.apply(1, &command), Outcome::Done);
    }

    fn assign(state: &mut State, time_ms: u64, to: u64) {
        let vip = VipUid(1);
        let seen = state.vip(vip).expect("added").epoch;
        let moves = vec![Assignment { vip, seen, to: Some(NodeId(to)), cause: Cause::Command }];
        at(state, time_ms, VipOp::Assign { moves });
    }

    /// What a node heard before it held the VIP says nothing.
    #[test]
    fn a_table_retires_when_its_holder_has_heard_nobody_for_long() {
        let mut state = state_of([voter(1), voter(2)]);
        apply(&mut state, VipOp::Add { spec: vip("web", 100) });
        apply(&mut state, ServerOp::Add { spec: server(&["10.0.0.11", "10.0.0.12"]) });
        assign(&mut state, 1_000, 1);
        let place = RealPlace { ip: [10, 0, 0, 11].into(), port: None };
        let server = "front".parse().expect("a name");
        at(&mut state, 200_000, ServerOp::DrainReal { server, place, drained: true });
        let (uid, seen) = state.forwardings().pop_first().expect("one");
        let idle = [(uid, seen)].into();
        let retires = |state: &State, now, node| state.idle_retirements(now, NodeId(node), &idle);
        let retire = ServerOp::Retire { server: uid, seen };
        assert_eq!(retires(&state, 200_000 + IDLE_MS - 1, 1), []);
        assert_eq!(retires(&state, 200_000 + IDLE_MS, 1), std::slice::from_ref(&retire));
        assert_eq!(retires(&state, 200_000 + IDLE_MS, 2), [], "it holds nothing");
        assign(&mut state, 250_000, 2);
        assert_eq!(retires(&state, 200_000 + IDLE_MS, 1), []);
        assert_eq!(retires(&state, 250_000 + IDLE_MS - 1, 2), []);
        assert_eq!(retires(&state, 250_000 + IDLE_MS, 2), std::slice::from_ref(&retire));
        let old = [(uid, Generation(seen.0 - 1))].into();
        assert_eq!(state.idle_retirements(u64::MAX, NodeId(2), &old), [], "of another change");
        at(&mut state, 251_000, retire);
        assert_eq!(retires(&state, u64::MAX, 2), [], "there is none");
    }
}
