//! Who votes: joint configurations, as openraft changes them.
//!
//! ```text
//!  {old} ──asked──> {old, new} ──committed──> {new}
//!                        │
//!                        └─ its leader or its caller is gone: it stays, until
//!                           somebody asks again
//! ```

use super::{Effect, Entry, Index, Payload, Raft, Role};
use std::collections::BTreeSet;
use std::sync::Arc;
use vip_core::{NodeId, RaftView, Voters};

impl Raft {
    /// Where the last membership up to here stands.
    fn membership_at(&self, through: Index) -> Option<Index> {
        let is_membership = |entry: &Arc<Entry>| matches!(entry.payload, Payload::Membership(_));
        self.log[..through.min(self.log.len())].iter().rposition(is_membership)
    }

    fn membership(&self, through: Index) -> Vec<BTreeSet<NodeId>> {
        let sets = self.log[..through.min(self.log.len())].iter().rev().find_map(|entry| {
            match &entry.payload {
                Payload::Membership(sets) => Some(sets.clone()),
                Payload::Blank | Payload::Command(_) => None,
            }
        });
        sets.unwrap_or_else(|| vec![self.initial.clone()])
    }

    /// Whether the last membership of the log is committed.
    fn is_settled(&self) -> bool {
        self.membership_at(self.commit) == self.membership_at(self.log.len())
    }

    pub(crate) fn effective(&self) -> Vec<BTreeSet<NodeId>> {
        self.membership(self.log.len())
    }

    /// The last configuration that is certainly committed, as openraft sees it: a
    /// change is begun only when the one before is, so of the last two in the
    /// log the earlier one, if this node does not know better.
    fn committed_membership(&self) -> Vec<BTreeSet<NodeId>> {
        let last = self.membership_at(self.log.len()).unwrap_or(0);
        self.membership(self.commit.max(last))
    }

    pub(crate) fn view(&self) -> RaftView {
        let mut sets = vec![];
        for set in self.effective().into_iter().chain(self.committed_membership()) {
            if !sets.contains(&set) {
                sets.push(set);
            }
        }
        let leads = self.leads().then_some(self.vote.term);
        RaftView { leads, voters: Voters(sets) }
    }

    pub(crate) fn is_quorum(&self, nodes: &BTreeSet<NodeId>) -> bool {
        let sets = self.effective();
        sets.iter().all(|set| set.intersection(nodes).count() > set.len() / 2)
    }

    /// Whether this node leads though a committed configuration is without it.
    pub(crate) fn is_removed_leader(&self) -> bool {
        let has_me = |sets: &[BTreeSet<NodeId>]| sets.iter().any(|set| set.contains(&self.me));
        self.leads() && !has_me(&self.effective()) && !has_me(&self.membership(self.commit))
    }

    /// A removed leader stops leading.
    pub(crate) fn retire(&mut self) {
        if self.is_removed_leader() {
            self.role = Role::Follower;
        }
    }

    /// The voter that has most of the log.
    pub(crate) fn best_voter(&self) -> Option<NodeId> {
        let Role::Leader { matched, .. } = &self.role else { return None };
        let voters = self.effective().into_iter().flatten().filter(|id| *id != self.me);
        voters.max_by_key(|id| matched.get(id).copied().unwrap_or_default())
    }

    /// The second step of a change of voters: only the leader that began it
    /// takes it, openraft leaves it to whoever asked.
    pub(super) fn finish_change(&mut self, effects: &mut Vec<Effect>) {
        let effective = self.effective();
        let settled = self.is_settled();
        let Role::Leader { wanted, transferring, .. } = &mut self.role else { return };
        if effective.len() == 2 && settled && effective.last() == wanted.as_ref() {
            let voters = wanted.take().into_iter().collect();
            if !*transferring {
                self.push(vec![Payload::Membership(voters)], effects);
            }
        }
    }

    /// The leader changes who votes, or finishes what another leader began.
    /// Refused while a change is under way.
    pub(crate) fn change_voters(&mut self, voters: BTreeSet<NodeId>) -> Vec<Effect> {
        let effective = self.effective();
        let caught_up = match &self.role {
            Role::Leader { matched, transferring: false, .. } => voters
                .iter()
                .all(|id| *id == self.me || matched.get(id).is_some_and(|m| *m >= self.commit)),
            Role::Leader { .. } | Role::Follower | Role::Candidate(_) => false,
        };
        let own_term = self.term_at(self.commit) == self.vote.term;
        let mut effects = vec![];
        let may = self.is_settled() && caught_up && own_term;
        let Some(present) = effective.last().filter(|_| may) else { return effects };
        let sets = if effective.contains(&voters) {
            vec![voters]
        } else {
            if let Role::Leader { wanted, .. } = &mut self.role {
                *wanted = Some(voters.clone());
            }
            vec![present.clone(), voters]
        };
        self.push(vec![Payload::Membership(sets)], &mut effects);
        effects
    }

    /// Whoever asked for a change hung up, and takes no second step.
    pub(crate) fn forget_change(&mut self) {
        if let Role::Leader { wanted, .. } = &mut self.role {
            *wanted = None;
        }
    }

    /// Whom a change is to leave that somebody else began and nobody goes on
    /// with.
    pub(crate) fn unfinished_change(&self) -> Option<BTreeSet<NodeId>> {
        let Role::Leader { wanted: None, .. } = &self.role else { return None };
        let effective = self.effective();
        effective.get(1).filter(|_| self.is_settled()).cloned()
    }
}
