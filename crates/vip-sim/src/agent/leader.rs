//! What vip-agent's leader task and its end of service do.

use super::core_loop::Proposal;
use super::{Agent, Input, Out, Task};
use crate::mutant::Mutant;
use std::time::Duration;
use vip_core::{Actor, Command, Grantee, HandOver, HandOverStep, Mono, NodeId, Op, Term};

impl Agent {
    /// To Raft, after the time that this task stands still.
    pub(super) fn enqueue_later(&mut self, now: Mono, task: Task) {
        if self.stall == Duration::ZERO {
            self.enqueue(now, task);
        } else {
            self.out.push(Out::After(self.stall, Input::Enqueue(task)));
        }
    }

    pub(super) fn propose(&mut self, now: Mono, actor: Actor, term: Option<Term>, op: Op) {
        // The hosts' clocks are minutes apart.
        self.time_ms = (self.time_ms + 1).max(now.0 / 1_000_000);
        let command = Box::new(Command { time_ms: self.time_ms, actor, term, op });
        self.proposed += 1;
        let number = self.proposed;
        self.batch.push(Proposal::Queued(number));
        self.enqueue_later(now, Task::Propose { number: Some(number), command });
    }

    /// One batch after the other.
    pub(super) fn look(&mut self, now: Mono) {
        let (term, leads, applied) = (self.raft.vote.term, self.raft.leads(), self.applied);
        self.batch.retain(|proposal| match proposal {
            Proposal::Queued(_) => true,
            Proposal::Appended(of, index) => leads && *of == term && *index > applied,
        });
        if !self.batch.is_empty() || !self.leases.leads_applied(now) {
            return;
        }
        let mut work = self.leases.leader_work(now);
        if self.is(Mutant::NestedAtOnce) {
            work.own = self.unnested();
        }
        let term = work.term;
        for op in work.ops() {
            self.propose(now, Actor("leader".into()), Some(term), op);
        }
        // A witness, or a drained node, leads only while nobody else can.
        if let Some(to) = self.leases.leads_instead_of(now)
            && let Some(mut begun) = HandOver::of_leadership(now, &self.leases, to)
        {
            self.hand_over(now, &mut begun);
        }
    }

    /// Finishes a change of voters that its leader or its caller left.
    pub(super) fn keep_up(&mut self, now: Mono) {
        let unfinished = self.raft.unfinished_change();
        if let Some(voters) = unfinished.filter(|_| self.leases.leads_applied(now)) {
            self.enqueue_later(now, Task::Voters(voters));
        }
    }

    /// What this node holds and the log does not call nested in this term.
    fn unnested(&self) -> Vec<Grantee> {
        let nested = |grantee: &Grantee| {
            let vip = self.state.vip(grantee.vip);
            vip.is_some_and(|vip| {
                vip.holder != Some(self.me)
                    || vip.epoch != grantee.epoch
                    || vip
                        .nested
                        .is_some_and(|n| n.term == self.state.term && n.epoch == grantee.epoch)
            })
        };
        self.leases.claims().renewals().into_iter().filter(|grantee| !nested(grantee)).collect()
    }

    fn hand_over(&mut self, now: Mono, begun: &mut HandOver) -> HandOverStep {
        let raft = &self.raft;
        let step = begun.step(now, &mut self.leases, |node| raft.has_all(node));
        if let HandOverStep::Transfer(to) = step {
            self.enqueue_later(now, Task::Transfer(to));
        }
        step
    }

    /// SIGTERM: VIPs first, leadership last.
    pub(super) fn end(&mut self, now: Mono) {
        let Some(mut ending) = self.ending else { return };
        if self.is(Mutant::AbdicatedWhileOpen)
            && let Some(to) = self.hasty_successor(now)
        {
            self.enqueue(now, Task::Transfer(to));
        }
        if self.hand_over(now, &mut ending) == HandOverStep::Done {
            self.out.push(Out::Exit);
        }
        self.ending = Some(ending);
    }

    fn hasty_successor(&self, now: Mono) -> Option<NodeId> {
        self.leases.successor(now).filter(|to| self.leases.has_lease(now) && self.raft.has_all(*to))
    }
}
