//! What others on this node read of its leases many times a second, without
//! waiting for the decisions.

use super::Leases;
use crate::{Answering, LeaderLease, Mono, NodeId, State, Term, Vote};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// The leases as they were at one moment. Later moments can be asked for: what ends by
/// time alone stands in it with its end.
#[derive(Clone, Debug)]
pub struct LeaseSnapshot {
    me: NodeId,
    promise: Duration,
    state: Arc<State>,
    /// The leader that this node promised to last, and when it heard of it.
    heard: Option<(Vote, Mono)>,
    leading: Option<Leadership>,
    pub(super) answering: Answering,
    pub(super) gate_to_wire: Duration,
    disk_is_well: bool,
}

/// A leadership of this node.
#[derive(Clone, Debug)]
struct Leadership {
    lease: LeaderLease,
    /// When each member promised last.
    heard: BTreeMap<NodeId, Mono>,
}

impl LeaseSnapshot {
    /// See [`Leases::has_lease`].
    #[must_use]
    pub fn has_lease(&self, now: Mono) -> bool {
        self.leading.as_ref().is_some_and(|leading| leading.lease.is_valid(now))
    }

    /// Whether this node leads with a lease, and its own entry is applied.
    #[must_use]
    pub fn leads_applied(&self, now: Mono) -> bool {
        self.has_lease(now) && self.term() == Some(self.state.term)
    }

    /// Whether the disk keeps up with the log: without it a node neither leads nor holds.
    #[must_use]
    pub fn disk_is_well(&self) -> bool {
        self.disk_is_well
    }

    fn term(&self) -> Option<Term> {
        self.leading.as_ref().map(|leading| leading.lease.term())
    }

    /// See [`Leases::own_leadership`].
    #[must_use]
    pub fn own_leadership(&self) -> Option<Vote> {
        self.term().map(|term| Vote { term, node: self.me, committed: true })
    }

    /// Who leads, as far as this node can be sure: itself with a lease, or the
    /// leader that it promised to and that promise still runs.
    #[must_use]
    pub fn leader(&self, now: Mono) -> Option<NodeId> {
        if self.has_lease(now) {
            return Some(self.me);
        }
        let (vote, at) = self.heard?;
        (now < at + self.promise).then_some(vote.node)
    }

    /// Nodes that acknowledged within a promise. For the leader.
    #[must_use]
    pub fn alive(&self, now: Mono) -> BTreeSet<NodeId> {
        let others = self.leading.iter().flat_map(|leading| {
            let is_new = leading.lease.is_new(now);
            let heard = |node: &NodeId| leading.heard.get(node).copied().unwrap_or_default();
            let others = self.state.nodes.keys().copied();
            others.filter(move |node| is_new || now < heard(node) + self.promise)
        });
        others.chain([self.me]).collect()
    }
}

impl Leases {
    /// As it is now.
    #[must_use]
    pub fn snapshot(&self) -> LeaseSnapshot {
        let leading = self
            .leader
            .leading()
            .map(|leading| Leadership { lease: leading.lease.clone(), heard: leading.heard() });
        LeaseSnapshot {
            me: self.scene.me,
            promise: self.scene.timing.promise,
            state: self.scene.state.clone(),
            heard: self.voter.heard(),
            leading,
            answering: self.holder.claims.answering().clone(),
            gate_to_wire: self.scene.timing.gate_to_wire,
            disk_is_well: self.scene.disk_is_well,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::LeaseEvent;
    use super::super::tests::{ME, START, leading, promised};
    use super::*;
    use crate::Profile;
    use crate::testing::{state_of, voter};

    /// At each moment of the promises to come a snapshot says what the leases say.
    fn is_true(leases: &Leases) {
        let snapshot = leases.snapshot();
        let promise = Profile::Lan.timing().promise;
        for tenths in 0..30 {
            let now = START + promise * tenths / 10;
            assert_eq!(snapshot.has_lease(now), leases.has_lease(now), "{tenths}");
            assert_eq!(snapshot.leads_applied(now), leases.leads_applied(now), "{tenths}");
            assert_eq!(snapshot.leader(now), leases.leader(now), "{tenths}");
            assert_eq!(snapshot.alive(now), leases.alive(now), "{tenths}");
            assert_eq!(snapshot.own_leadership(), leases.own_leadership());
        }
    }

    #[test]
    fn it_stays_true_while_only_time_passes() {
        let mut leases = leading();
        is_true(&leases);
        assert_eq!(leases.snapshot().leader(START), Some(ME));
        assert!(!leases.snapshot().leads_applied(START));

        let mut state = state_of([voter(1), voter(2), voter(3)]);
        state.term = Term(1);
        leases.step(START, LeaseEvent::Applied(Arc::new(state)));
        is_true(&leases);
        assert!(leases.snapshot().leads_applied(START));
        promised(&mut leases, START + Profile::Lan.timing().promise);
        is_true(&leases);

        let next = Vote { term: Term(2), node: NodeId(3), committed: true };
        leases.saving_vote(START, next);
        is_true(&leases);
        assert_eq!(leases.snapshot().leader(START), None);

        leases.vote_is_durable(START, next);
        leases.heard_of(START, next, Profile::Lan.timing().promise);
        is_true(&leases);
        assert_eq!(leases.snapshot().leader(START), Some(NodeId(3)));
    }
}
