//! What the agent's prober, its reporter and the leader's ear do about real servers.

use super::{Agent, Message, Out};
use crate::mutant::Mutant;
use std::sync::Arc;
use std::time::Duration;
use vip_core::{
    Absences, Actor, Failure, Lasting, Mono, NodeId, Observed, Rounds, ServerOp, Sighting, State,
    Ticket,
};

/// Between two reports, and between two looks at who is silent.
const PACE: Duration = Duration::from_millis(100);
/// A world lasts for seconds, and who is held down is let go in it.
const SOONER: u32 = 180;
/// Probes at once: of few real servers all.
const ROOM: usize = 100;

pub(super) struct Probing {
    rounds: Rounds,
    /// What it was worked out from whom to probe.
    follows: Option<Arc<State>>,
    told_at: Mono,
    absences: Absences,
    lasting: Lasting,
}

impl Probing {
    pub(super) fn new(me: NodeId) -> Self {
        let (absences, told_at) = (Absences::default(), Mono::ZERO);
        Self {
            rounds: Rounds::new(me.0),
            follows: None,
            told_at,
            absences,
            lasting: Lasting::default(),
        }
    }
}

impl Agent {
    /// When a probe is to start, or something to be told, at the latest.
    pub(super) fn probes_at(&self) -> Option<Mono> {
        let next = self.probing.rounds.next_start()?;
        Some(next.min(self.probing.told_at + PACE))
    }

    pub(super) fn probed(&mut self, now: Mono, ticket: Ticket, answer: Result<(), Failure>) {
        self.probing.rounds.finished(now, ticket, answer);
    }

    /// Starts what is due, and tells what the log does not have.
    pub(super) fn probe(&mut self, now: Mono) {
        let is_same = |state: &Arc<State>| Arc::ptr_eq(state, &self.state);
        if !self.probing.follows.as_ref().is_some_and(is_same) {
            self.probing.rounds.follow(now, &self.state.probed_by(self.me));
            self.probing.follows = Some(self.state.clone());
        }
        let starts = self.probing.rounds.start(now, ROOM);
        self.out.extend(starts.into_iter().map(|start| Out::Probe(Box::new(start))));
        if now < self.probing.told_at + PACE {
            return;
        }
        self.probing.told_at = now;
        let mut unsaid = self.state.unsaid_sightings(self.me, self.probing.rounds.sees());
        if self.is(Mutant::ToldOnce) {
            unsaid.retain(|(observed, _)| self.told.insert(*observed));
        }
        if self.leases.leads_applied(now) {
            self.hear_sightings(now, self.me, unsaid);
            self.take_back(now);
            self.say_what_lasts(now);
        } else if let Some(leader) = self.leases.leader(now).filter(|_| !unsaid.is_empty()) {
            self.out.push(Out::Send(leader, Message::Sightings(unsaid)));
        }
    }

    /// What was so for long enough.
    fn say_what_lasts(&mut self, now: Mono) {
        for op in self.probing.lasting.over(now, &self.state, SOONER) {
            self.say(now, op);
        }
    }

    fn say(&mut self, now: Mono, op: ServerOp) {
        self.propose(now, Actor("leader".into()), Some(self.raft.vote.term), op.into());
    }

    /// As the leader: into the log with it.
    pub(super) fn hear_sightings(&mut self, now: Mono, node: NodeId, seen: Vec<Sighting>) {
        if !self.leases.leads_applied(now) {
            return;
        }
        let seen = self.state.new_sightings(node, seen);
        if !seen.is_empty() {
            self.say(now, ServerOp::Observe { node, seen });
        }
    }

    /// What silent nodes said says nothing any more.
    fn take_back(&mut self, now: Mono) {
        let me = self.me;
        let all = self.state.nodes.keys().copied().filter(|node| *node != me);
        let silent = self.probing.absences.of(now, all, &self.leases.alive(now));
        if self.is(Mutant::SilentHeard) {
            return;
        }
        for op in self.state.blinded(&silent) {
            self.say(now, op);
        }
    }
}

/// What a mutant told already.
pub(super) type Told = std::collections::BTreeSet<Observed>;
