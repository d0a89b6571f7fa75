//! Which nodes probe a real server.

use crate::address::halves;
use crate::mix::mix_all;
use crate::{NodeId, ServerUid};
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// A real server of a virtual one, as nodes name it to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Observed {
    pub server: ServerUid,
    pub ip: IpAddr,
    /// 0: the one that the client named.
    pub port: u16,
}

/// The `count` of `nodes` that probe a real server of a virtual one, by rendezvous hashing
/// (Thaler, Ravishankar 1998): each node has a score for it, and the highest do. So each
/// node has its share of all, and one that leaves gives away its own alone.
#[must_use]
pub fn observers(
    nodes: impl IntoIterator<Item = NodeId>,
    server: ServerUid,
    (ip, port): (IpAddr, u16),
    count: usize,
) -> Vec<NodeId> {
    let [upper, lower] = halves(ip);
    let score = |node: NodeId| mix_all(server.0, [upper, lower, port.into(), node.0]);
    let mut scores: Vec<_> = nodes.into_iter().map(|node| (score(node), node)).collect();
    scores.sort_unstable_by(|one, other| other.cmp(one));
    scores.into_iter().take(count).map(|(_, node)| node).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::{BTreeMap, BTreeSet};

    const ONE: ServerUid = ServerUid(1);

    fn nodes(ids: impl IntoIterator<Item = u64>) -> Vec<NodeId> {
        ids.into_iter().map(NodeId).collect()
    }

    fn real(number: u8) -> (IpAddr, u16) {
        ([10, 0, 0, number].into(), 80)
    }

    #[test]
    fn as_many_as_are_wanted_or_there_are_and_the_same_in_any_order() {
        for real in (0..=255).map(real) {
            let some = observers(nodes(1..=5), ONE, real, 3);
            assert_eq!(some.iter().collect::<BTreeSet<_>>().len(), 3);
            assert_eq!(observers(nodes((1..=5).rev()), ONE, real, 3), some);
            assert_eq!(observers(nodes(1..=2), ONE, real, 3).len(), 2);
        }
        assert_eq!(observers([], ONE, real(1), 3), []);
    }

    #[test]
    fn each_node_has_its_share() {
        let mut shares = BTreeMap::new();
        for server in 1..=40 {
            for real in (0..=255).map(real) {
                for node in observers(nodes(1..=5), ServerUid(server), real, 3) {
                    *shares.entry(node).or_insert(0_u32) += 1;
                }
            }
        }
        let share = 40 * 256 * 3 / 5;
        assert!(shares.values().all(|has| has.abs_diff(share) * 20 < share), "{shares:?}");
    }

    #[test]
    fn one_that_leaves_gives_away_its_own_alone() {
        for real in (0..=255).map(real) {
            let (before, after) =
                (observers(nodes(1..=5), ONE, real, 3), observers(nodes(1..=4), ONE, real, 3));
            let stay = before.iter().filter(|node| node.0 != 5);
            assert!(stay.clone().all(|node| after.contains(node)), "{before:?} {after:?}");
        }
    }

    /// Two versions have to agree on who does it.
    #[test]
    fn a_version_chooses_as_another() {
        let chosen = [1, 2, 3].map(|number| observers(nodes(1..=5), ONE, real(number), 2));
        let ids = chosen.map(|two| [two[0].0, two[1].0]);
        assert_eq!(ids, GOLDEN);
    }

    /// Worked out by a script.
    const GOLDEN: [[u64; 2]; 3] = [[5, 1], [4, 1], [1, 5]];
}
