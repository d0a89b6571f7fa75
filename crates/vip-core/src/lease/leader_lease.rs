//! The leader's side of the lease: until when no other leader can exist.

use crate::{Mono, NodeId, Term, Timing};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// The sets of voters of which each must have a quorum: those of the effective
/// configuration and those of the committed one, joint ones with both halves.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Voters(pub Vec<BTreeSet<NodeId>>);

impl Voters {
    /// One plain configuration.
    #[must_use]
    pub fn one(voters: impl IntoIterator<Item = NodeId>) -> Self {
        Self(vec![voters.into_iter().collect()])
    }

    /// Whether `node` has a vote in any of them.
    #[must_use]
    pub fn contains(&self, node: NodeId) -> bool {
        self.0.iter().any(|set| set.contains(&node))
    }

    /// All voters.
    #[must_use]
    pub fn all(&self) -> BTreeSet<NodeId> {
        self.0.iter().flatten().copied().collect()
    }
}

/// How long a successor may take, in promises: one for the vote that it asks for
/// at once, one for those that nobody frees from their promise, and as much
/// again for a slow disk.
const SUCCESSION_PROMISES: u32 = 4;

/// The lease of one term's leader. Volatile: a restarted leader has none.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LeaderLease {
    me: NodeId,
    term: Term,
    /// Bound to another leader, or by a lease of its own, until then.
    bound_until: Mono,
    elected_at: Mono,
    voters: Voters,
    /// Per voter: send time of the latest acknowledged message, plus L.
    ends: BTreeMap<NodeId, Mono>,
    lease: Duration,
    promise: Duration,
    /// A quorum stood behind the lease since `counting_since`.
    established: bool,
    counting_since: Mono,
    silent_until: Mono,
    closed_at: Option<Mono>,
}

impl LeaderLease {
    /// At the election of `me`, as `me` saw it: at `now`, which is later than
    /// the election, so later than every older leader's lease end. But for one
    /// that `me` itself promised, or relied on, until `bound_until`: between the
    /// decision to campaign and the vote that Raft gives to itself that may
    /// rise, and a voter that is a quorum by itself asks nobody else.
    #[must_use]
    pub fn elected(
        me: NodeId,
        term: Term,
        now: Mono,
        bound_until: Mono,
        voters: Voters,
        timing: &Timing,
    ) -> Self {
        Self {
            me,
            term,
            bound_until,
            elected_at: now.max(bound_until),
            voters,
            ends: BTreeMap::new(),
            lease: timing.lease,
            promise: timing.promise,
            established: false,
            counting_since: now,
            silent_until: Mono::ZERO,
            closed_at: None,
        }
    }

    /// Its term.
    #[must_use]
    pub fn term(&self) -> Term {
        self.term
    }

    /// T: when it was elected.
    #[must_use]
    pub fn elected_at(&self) -> Mono {
        self.elected_at
    }

    /// Within a promise of its election a leader may have heard nobody yet; that
    /// says nothing about them.
    #[must_use]
    pub fn is_new(&self, now: Mono) -> bool {
        now < self.elected_at + self.promise
    }

    /// Its configurations.
    #[must_use]
    pub fn voters(&self) -> &Voters {
        &self.voters
    }

    /// The membership changed. What was acknowledged under another
    /// configuration proves nothing about this one.
    pub fn membership_changed(&mut self, voters: Voters, now: Mono) {
        if self.voters != voters {
            self.voters = voters;
            self.ends.clear();
            self.established = false;
            self.counting_since = now;
        }
    }

    /// `voter` promised, in answer to a message sent at `sent_at`.
    pub fn acknowledged(&mut self, voter: NodeId, sent_at: Mono) {
        let end = sent_at + self.lease;
        let known = self.ends.entry(voter).or_insert(end);
        *known = end.max(*known);
    }

    /// Until when no other leader can have been elected: for each
    /// configuration the quorum's smallest, of these the smallest. Nothing before
    /// `bound_until`: another leader's lease may rest on what this node promised,
    /// and no promise of others to this one says anything about that.
    #[must_use]
    pub fn end(&self, now: Mono) -> Mono {
        if self.closed_at.is_some() || now < self.bound_until {
            return Mono::ZERO;
        }
        self.voters.0.iter().map(|set| self.quorum_end(set, now)).min().unwrap_or(Mono::ZERO)
    }

    fn quorum_end(&self, set: &BTreeSet<NodeId>, now: Mono) -> Mono {
        let mut ends: Vec<Mono> = set
            .iter()
            .map(|voter| match self.ends.get(voter) {
                // The leader itself is bound by its own lease end.
                _ if *voter == self.me => now + self.lease,
                Some(end) => *end,
                None => Mono::ZERO,
            })
            .collect();
        ends.sort_unstable_by(|a, b| b.cmp(a));
        // Of 2n+1 voters, n+1 must stand behind it.
        ends.get(set.len() / 2).copied().unwrap_or(Mono::ZERO)
    }

    /// Whether the lease runs.
    #[must_use]
    pub fn is_valid(&self, now: Mono) -> bool {
        now < self.end(now)
    }

    /// Whether a lease message, or anything else that renews a promise, may be
    /// sent. After a lapse the leader keeps silent for 2P, so that those who
    /// still hear it can elect one that hears a quorum.
    pub fn may_renew(&mut self, now: Mono) -> bool {
        if self.closed_at.is_some() || now < self.silent_until {
            return false;
        }
        if self.is_valid(now) {
            self.established = true;
            return true;
        }
        let patience = if self.established { Duration::ZERO } else { 2 * self.promise };
        if now < self.counting_since + patience {
            return true;
        }
        self.ends.clear();
        self.established = false;
        self.silent_until = now + 2 * self.promise;
        self.counting_since = self.silent_until;
        false
    }

    /// Ends the lease for good, before an abdication.
    pub fn close(&mut self, now: Mono) {
        self.closed_at.get_or_insert(now);
    }

    /// Whether it was closed so long ago that the successor must be dead. A
    /// leader that was told to make room for one proposes nothing any more and
    /// does not campaign either, so it has to start over: its log may be the
    /// only one that is long enough.
    #[must_use]
    pub fn closed_in_vain(&self, now: Mono) -> bool {
        self.closed_at.is_some_and(|at| Self::is_in_vain(self.promise, at, now))
    }

    /// Whether a leadership that was given away at `at` should have a successor.
    pub(crate) fn is_in_vain(promise: Duration, at: Mono, now: Mono) -> bool {
        now >= at + SUCCESSION_PROMISES * promise
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Profile;

    const START: Mono = Mono(1_000_000_000);
    const LAN: Timing = Profile::Lan.timing();

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    fn lease(sets: &[&[u64]]) -> LeaderLease {
        let voters = Voters(sets.iter().map(|s| s.iter().map(|n| NodeId(*n)).collect()).collect());
        LeaderLease::elected(NodeId(1), Term(2), START, Mono::ZERO, voters, &LAN)
    }

    #[test]
    fn whoever_votes_in_either_half_is_a_voter() {
        let halves: [&[u64]; 2] = [&[1, 2], &[2, 3]];
        let voters = lease(&halves).voters().clone();
        assert!([1, 2, 3].into_iter().all(|id| voters.contains(NodeId(id))));
        assert!(!voters.contains(NodeId(4)));
    }

    /// Then whoever was not heard is not there.
    #[test]
    fn a_leader_is_new_for_one_promise() {
        let lease = lease(&[&[1, 2, 3]]);
        let end = lease.elected_at() + LAN.promise;
        assert!(lease.is_new(lease.elected_at()) && lease.is_new(Mono(end.0 - 1)));
        assert!(!lease.is_new(end));
    }

    #[test]
    fn an_elected_leader_has_no_lease_before_a_quorum_promised() {
        let mut lease = lease(&[&[1, 2, 3]]);
        assert!(!lease.is_valid(START));
        lease.acknowledged(NodeId(3), START);
        assert_eq!(lease.end(START), START + LAN.lease);
    }

    #[test]
    fn the_lease_counts_from_the_quorums_smallest_send_time() {
        let mut lease = lease(&[&[1, 2, 3, 4, 5]]);
        lease.acknowledged(NodeId(2), START + ms(30));
        lease.acknowledged(NodeId(3), START + ms(10));
        lease.acknowledged(NodeId(4), START + ms(20));
        let now = START + ms(40);
        assert_eq!(lease.end(now), START + ms(20) + LAN.lease);
    }

    #[test]
    fn an_older_acknowledgement_does_not_shorten_it() {
        let mut lease = lease(&[&[1, 2, 3]]);
        lease.acknowledged(NodeId(2), START + ms(30));
        lease.acknowledged(NodeId(2), START + ms(10));
        assert_eq!(lease.end(START + ms(40)), START + ms(30) + LAN.lease);
    }

    #[test]
    fn a_joint_configuration_needs_a_quorum_of_both_halves() {
        let mut lease = lease(&[&[1, 2, 3], &[3, 4, 5]]);
        lease.acknowledged(NodeId(2), START);
        assert!(!lease.is_valid(START));
        lease.acknowledged(NodeId(4), START);
        assert!(!lease.is_valid(START));
        lease.acknowledged(NodeId(5), START);
        assert!(lease.is_valid(START));
    }

    #[test]
    fn acknowledgements_do_not_survive_a_membership_change() {
        let mut lease = lease(&[&[1, 2, 3]]);
        lease.acknowledged(NodeId(2), START);
        lease.membership_changed(Voters::one([1, 2, 4].map(NodeId)), START);
        assert!(!lease.is_valid(START));
    }

    #[test]
    fn a_single_voter_always_has_its_lease() {
        assert!(lease(&[&[1]]).is_valid(START + ms(100_000)));
    }

    /// The other leader's lease may rest on this node alone: whoever votes after
    /// a change, and promised nobody, says nothing about it.
    #[test]
    fn a_leader_that_promised_another_has_no_lease_before_that_is_over() {
        let (bound, voters) = (START + ms(50), Voters::one([1, 2, 3].map(NodeId)));
        let mut lease = LeaderLease::elected(NodeId(1), Term(2), START, bound, voters, &LAN);
        let acknowledge = |lease: &mut LeaderLease| {
            lease.acknowledged(NodeId(2), START);
            lease.acknowledged(NodeId(3), START);
        };
        acknowledge(&mut lease);
        assert!(!lease.is_valid(START + ms(49)));
        assert!(lease.may_renew(START + ms(49)), "it counts on");
        lease.membership_changed(Voters::one([NodeId(3)]), START);
        acknowledge(&mut lease);
        assert!(!lease.is_valid(START + ms(49)));
        assert!(lease.is_valid(bound));
    }

    #[test]
    fn a_leader_that_promised_another_counts_itself_only_afterwards() {
        let (bound, voters) = (START + ms(50), Voters::one([NodeId(1)]));
        let lease = LeaderLease::elected(NodeId(1), Term(2), START, bound, voters, &LAN);
        assert!(!lease.is_valid(START + ms(49)));
        assert!(lease.is_valid(bound));
        assert_eq!(lease.elected_at(), bound, "older grants end after that");
    }

    #[test]
    fn a_lapsed_leader_is_silent_for_two_promises() {
        let mut lease = lease(&[&[1, 2, 3]]);
        lease.acknowledged(NodeId(2), START);
        assert!(lease.may_renew(START));
        let lapse = START + LAN.lease;
        assert!(!lease.may_renew(lapse));
        assert!(!lease.may_renew(lapse + 2 * LAN.promise - ms(1)));
        assert!(lease.may_renew(lapse + 2 * LAN.promise));
    }

    #[test]
    fn a_leader_that_never_had_a_quorum_falls_silent_too() {
        let mut lease = lease(&[&[1, 2, 3]]);
        assert!(lease.may_renew(START + ms(399)));
        assert!(!lease.may_renew(START + ms(400)));
    }

    #[test]
    fn a_lease_closed_for_a_successor_that_never_came_says_so() {
        let mut lease = lease(&[]);
        assert!(!lease.closed_in_vain(START + LAN.promise * 9));
        lease.close(START);
        lease.close(START + LAN.promise);
        assert!(!lease.closed_in_vain(START + LAN.promise * 3));
        assert!(lease.closed_in_vain(START + LAN.promise * 4));
    }

    #[test]
    fn a_closed_lease_stays_closed() {
        let mut lease = lease(&[&[1, 2, 3]]);
        lease.close(START);
        lease.acknowledged(NodeId(2), START);
        assert!(!lease.is_valid(START));
        assert!(!lease.may_renew(START));
    }
}
