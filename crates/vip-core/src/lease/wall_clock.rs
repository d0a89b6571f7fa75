//! Wall clocks of the members, compared. No lease rests on them; certificates
//! and tokens have dates, and a leader with a wrong clock would write wrong ones
//! that outlive the mistake: log time never falls, and a certificate lasts days.

use crate::{Mono, NodeId};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Clocks further apart than this are far from each other: the limit that
/// Kerberos recommends (RFC 4120 section 8.2), and a fraction of the hour by
/// which certificates begin early.
pub const CLOCKS_FAR_APART: Duration = Duration::from_secs(300);

/// What was heard is of no use after this long: clocks are told with every
/// renewal of leases, and are set meanwhile.
const HEARD_LATELY: Duration = Duration::from_secs(10);

/// How the others' wall clocks differ from this node's.
#[derive(Debug, Default)]
pub struct WallClocks(BTreeMap<NodeId, Heard>);

#[derive(Debug)]
struct Heard {
    at: Mono,
    /// How far the other's is ahead of this one's.
    ahead_ms: i64,
}

/// This node's clock is not that of most voters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "this node's wall clock is far from those of most voters ({agree} of {voters} agree with it): \
     while it leads it signs no certificate, makes no token and writes no times. Set the clock"
)]
pub struct OwnClockFar {
    /// Voters that agree with it, itself among them.
    pub agree: usize,
    /// Voters whose clocks are known.
    pub voters: usize,
}

fn signed(ms: u64) -> i64 {
    i64::try_from(ms).unwrap_or(i64::MAX)
}

fn far(ahead_ms: i64) -> bool {
    u128::from(ahead_ms.unsigned_abs()) > CLOCKS_FAR_APART.as_millis()
}

impl WallClocks {
    /// Another node's clock was at `theirs_ms` when this one's was at `own_ms`,
    /// but for the time that a message takes.
    pub fn heard(&mut self, now: Mono, node: NodeId, own_ms: u64, theirs_ms: u64) {
        let ahead_ms = signed(theirs_ms).saturating_sub(signed(own_ms));
        self.0.insert(node, Heard { at: now, ahead_ms });
        self.0.retain(|_, heard| now.since(heard.at) < HEARD_LATELY);
    }

    fn lately(&self, now: Mono) -> impl Iterator<Item = (NodeId, i64)> {
        let lately = self.0.iter().filter(move |(_, heard)| now.since(heard.at) < HEARD_LATELY);
        lately.map(|(node, heard)| (*node, heard.ahead_ms))
    }

    /// Whose clock is far from this one's, and by how many milliseconds ahead.
    pub fn far_from_own(&self, now: Mono) -> impl Iterator<Item = (NodeId, i64)> {
        self.lately(now).filter(|(_, ahead_ms)| far(*ahead_ms))
    }

    /// Whether as many voters contradict this node's clock as agree with it, as
    /// far as they were heard: whoever is right, most others have to be heard to
    /// know. But of two voters that differ nobody knows ever which one is wrong.
    /// One liar among three that are there changes nothing.
    #[must_use]
    pub fn own_is_far(&self, now: Mono, voters: &BTreeSet<NodeId>) -> Option<OwnClockFar> {
        let others = self.lately(now).filter(|(node, _)| voters.contains(node));
        let (far, near): (Vec<_>, Vec<_>) = others.partition(|(_, ahead_ms)| far(*ahead_ms));
        let agree = near.len() + 1;
        let contradicted = if voters.len() > 2 { far.len() >= agree } else { far.len() > agree };
        contradicted.then_some(OwnClockFar { agree, voters: agree + far.len() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR_MS: u64 = 3_600_000;
    const NOW: u64 = 1000 * HOUR_MS;

    /// Clocks of voters 1, 2 and so on; 0 is this node.
    fn clocks(others: &[u64]) -> (WallClocks, BTreeSet<NodeId>) {
        let mut clocks = WallClocks::default();
        let ids = (1..).map(NodeId);
        for (node, theirs) in ids.clone().zip(others) {
            clocks.heard(Mono(1), node, NOW, *theirs);
        }
        (clocks, [NodeId(0)].into_iter().chain(ids.take(others.len())).collect())
    }

    fn own_is_far(others: &[u64]) -> bool {
        let (clocks, voters) = clocks(others);
        clocks.own_is_far(Mono(2), &voters).is_some()
    }

    #[test]
    fn most_voters_say_whose_clock_is_wrong() {
        let (early, late) = (NOW - HOUR_MS, NOW + 48 * HOUR_MS);
        assert!(!own_is_far(&[]));
        // One of two: which one, nobody knows.
        assert!(!own_is_far(&[late]));
        assert!(!own_is_far(&[NOW, late]));
        assert!(own_is_far(&[late, late]));
        assert!(own_is_far(&[early, early]));
        // They need not agree with each other.
        assert!(own_is_far(&[early, late]));
        assert!(!own_is_far(&[NOW + 300_000, late]));
        assert!(own_is_far(&[NOW + 300_001, late]));
        assert!(own_is_far(&[NOW, late, late]));
        assert!(!own_is_far(&[NOW, NOW, late, late]));
        assert!(own_is_far(&[NOW, late, late, early]));
    }

    #[test]
    fn the_refusal_counts_who_agrees_and_who_was_heard() {
        let (clocks, voters) = clocks(&[0, 0]);
        let far = clocks.own_is_far(Mono(2), &voters);
        assert_eq!(far, Some(OwnClockFar { agree: 1, voters: 3 }));
    }

    #[test]
    fn learners_have_no_say() {
        let (clocks, _) = clocks(&[0, 0, 0]);
        let voters = BTreeSet::from([NodeId(1)]);
        assert_eq!(clocks.own_is_far(Mono(2), &voters), None);
        assert_eq!(clocks.far_from_own(Mono(2)).count(), 3);
    }

    #[test]
    fn what_was_heard_long_ago_says_nothing() {
        let (mut clocks, voters) = clocks(&[0, u64::MAX]);
        assert!(clocks.own_is_far(Mono(2), &voters).is_some());
        let later = Mono(1) + HEARD_LATELY;
        assert_eq!(clocks.own_is_far(later, &voters), None);
        assert_eq!(clocks.far_from_own(later).count(), 0);
        clocks.heard(later, NodeId(9), NOW, NOW);
        assert_eq!(clocks.0.len(), 1, "and takes no memory");
    }
}
