//! When this node campaigns.
//!
//! openraft's own timer is drawn at random and starts after its lease. Ours
//! fires at the end of the promise, when a vote can be granted for the first
//! time, and staggers the candidates by rank, so that they do not split votes.

use crate::{Mono, NodeId, Timing};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::time::Duration;

/// Campaigns that find no quorum are repeated at most this many times slower.
const MAX_BACKOFF: u32 = 4;

/// With so many voters the pauses of those that give way again and again may
/// last for as long as the candidates take turns; with fewer they cannot.
const MANY_VOTERS: usize = 8;

/// Place in the order of candidates: the voters in the order of their ids,
/// beginning after the leader that is gone, witnesses last. `None` without a
/// vote.
#[must_use]
pub fn rank(
    me: NodeId,
    voters: &BTreeSet<NodeId>,
    witnesses: &BTreeSet<NodeId>,
    gone: Option<NodeId>,
) -> Option<u32> {
    if !voters.contains(&me) {
        return None;
    }
    let key = |id: NodeId| (witnesses.contains(&id), gone.is_some_and(|g| id <= g), id);
    let before = voters.iter().filter(|id| Some(**id) != gone && key(**id) < key(me)).count();
    u32::try_from(before).ok()
}

/// Decides when to campaign.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Detector {
    /// When everybody was freed at once, without a promise that ended.
    freed_at: Mono,
    not_before: Mono,
    attempts: u32,
    /// To whom this node gave way since a leader was heard.
    gave_way_to: BTreeSet<NodeId>,
}

impl Detector {
    /// A leader was heard: whatever was planned is void.
    pub fn leader_heard(&mut self) {
        *self = Self::default();
    }

    /// The leader gave up: everybody is free from now on, one after the other.
    #[must_use]
    pub fn freed(now: Mono) -> Self {
        Self { freed_at: now, ..Self::default() }
    }

    /// When to campaign next, given when this node is free to.
    #[must_use]
    pub fn due(&self, free_at: Mono, rank: u32, timing: &Timing) -> Mono {
        let turn = free_at.max(self.freed_at) + timing.stagger * rank;
        turn.max(self.not_before)
    }

    /// This node campaigns now. It tries again when the election should have
    /// ended, later each time. Those who believe another leader gone may have
    /// one rank, and would meet again and again: from the second time on what
    /// tells them apart is their `place` among all voters.
    pub fn campaigned(&mut self, now: Mono, rank: u32, place: u32, timing: &Timing) {
        let apart = timing.stagger * (place * self.attempts);
        self.attempts = (self.attempts + 1).min(MAX_BACKOFF);
        let pause = (timing.election + timing.stagger * (rank + 1)) * self.attempts;
        self.not_before = now + pause + apart;
    }

    /// Another candidate has this node's vote, or the word that it would get
    /// it: it is given the time of an election. With a stagger as short as an
    /// election the next candidate would depose the one that is about to win.
    /// Among many, once until a leader is heard: one after the other of those
    /// that cannot win would keep those back that can.
    pub fn gave_way(
        &mut self,
        now: Mono,
        candidate: NodeId,
        voters: usize,
        rank: u32,
        timing: &Timing,
    ) {
        if !self.gave_way_to.insert(candidate) && voters >= MANY_VOTERS {
            return;
        }
        let pause = timing.election + timing.stagger * (rank + 1);
        self.not_before = self.not_before.max(now + pause);
    }

    /// A voter refused: it is bound for `remaining`. Campaigning earlier is
    /// pointless, later costs time.
    pub fn refused(&mut self, now: Mono, remaining: Duration, rank: u32, timing: &Timing) {
        self.not_before = now + remaining + timing.stagger * rank;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Profile;

    const LAN: Timing = Profile::Lan.timing();
    const FAST: Timing = Profile::Fast.timing();

    fn ids(ids: &[u64]) -> BTreeSet<NodeId> {
        ids.iter().copied().map(NodeId).collect()
    }

    #[test]
    fn candidates_follow_the_lost_leader_in_a_ring_witnesses_last() {
        let (voters, witnesses) = (ids(&[1, 2, 3, 4]), ids(&[4]));
        let rank = |me, gone| rank(NodeId(me), &voters, &witnesses, Some(NodeId(gone)));
        assert_eq!([rank(3, 2), rank(1, 2), rank(4, 2)], [Some(0), Some(1), Some(2)]);
        assert_eq!([rank(1, 3), rank(2, 3)], [Some(0), Some(1)]);
        assert_eq!(rank(9, 1), None);
    }

    #[test]
    fn no_two_voters_share_a_rank() {
        for gone in [None, Some(NodeId(2))] {
            let voters = ids(&[1, 2, 3, 4, 5]);
            let mut ranks: Vec<_> = voters
                .iter()
                .filter(|v| Some(**v) != gone)
                .map(|v| rank(*v, &voters, &ids(&[]), gone).expect("votes"))
                .collect();
            ranks.sort_unstable();
            assert!(ranks.iter().enumerate().all(|(at, rank)| at == *rank as usize), "{ranks:?}");
        }
    }

    #[test]
    fn the_first_in_rank_campaigns_at_the_end_of_its_promise() {
        let free_at = Mono(1_000_000_000);
        let detector = Detector::default();
        assert_eq!(detector.due(free_at, 0, &LAN), free_at);
        assert_eq!(detector.due(free_at, 1, &LAN), free_at + LAN.stagger);
    }

    #[test]
    fn after_an_abdication_the_candidates_take_turns_too() {
        let now = Mono(1_000_000_000);
        let detector = Detector::freed(now);
        assert_eq!(detector.due(Mono::ZERO, 0, &LAN), now);
        assert_eq!(detector.due(Mono::ZERO, 2, &LAN), now + LAN.stagger * 2);
    }

    #[test]
    fn another_candidate_is_given_the_time_of_an_election() {
        let now = Mono(1_000_000_000);
        let mut detector = Detector::default();
        detector.gave_way(now, NodeId(9), 3, 1, &FAST);
        let due = detector.due(now, 1, &FAST);
        assert!(due > now + FAST.election);
        // Among many the same one again has had its time.
        detector.gave_way(due, NodeId(9), 8, 1, &FAST);
        assert_eq!(detector.due(now, 1, &FAST), due);
        detector.gave_way(due, NodeId(9), 7, 1, &FAST);
        assert!(detector.due(now, 1, &FAST) > due);
        let mut detector = Detector::default();
        detector.gave_way(now, NodeId(9), 3, 1, &FAST);
        // Those who gave way at the same time do not campaign at the same time.
        let mut other = Detector::default();
        other.gave_way(now, NodeId(9), 3, 0, &FAST);
        assert!(other.due(now, 0, &FAST) < detector.due(now, 1, &FAST));
        detector.leader_heard();
        assert_eq!(detector.due(now, 0, &FAST), now);
    }

    /// By rank within an election's time, by place from the second on, and no longer
    /// than four of them.
    #[test]
    fn a_campaign_in_vain_is_followed_by_the_time_of_more_and_more_elections() {
        let now = Mono(1_000_000_000);
        let mut detector = Detector::default();
        for (elections, turns) in [(1, 0), (2, 1), (3, 2), (4, 3), (4, 4)] {
            detector.campaigned(now, 2, 5, &LAN);
            let election = LAN.election + LAN.stagger * 3;
            let due = now + election * elections + LAN.stagger * (5 * turns);
            assert_eq!(detector.due(Mono::ZERO, 0, &LAN), due, "{elections}");
        }
        detector.refused(now, LAN.promise, 2, &LAN);
        assert_eq!(detector.due(Mono::ZERO, 0, &LAN), now + LAN.promise + LAN.stagger * 2);
        let mut polite = Detector::default();
        polite.gave_way(now, NodeId(9), 3, 2, &LAN);
        assert_eq!(polite.due(Mono::ZERO, 0, &LAN), now + LAN.election + LAN.stagger * 3);
    }

    /// Of four voters one is gone, so that both need each other's vote: 3.6 s
    /// without a leader, in a world of the simulator.
    #[test]
    fn candidates_of_one_rank_do_not_meet_for_ever() {
        let mut now = Mono(1_000_000_000);
        let (mut one, mut other) = (Detector::default(), Detector::default());
        for _ in 0..2 {
            one.campaigned(now, 0, 0, &LAN);
            other.campaigned(now, 0, 3, &LAN);
            now = one.due(now, 0, &LAN);
        }
        assert!(other.due(now, 0, &LAN) > now + LAN.election);
    }

    #[test]
    fn a_refusal_says_when_to_try_again() {
        let now = Mono(1_000_000_000);
        let mut detector = Detector::default();
        detector.campaigned(now, 0, 0, &LAN);
        let left = Duration::from_millis(7);
        detector.refused(now, left, 0, &LAN);
        assert_eq!(detector.due(now, 0, &LAN), now + left);
    }
}
