//! The name of a set of grantees, of fixed size: who renews all that a node holds
//! says which set that is, and whoever knows another one renews nothing.
//!
//! ```text
//!  leader: what it grants to this node ─┐
//!  agent:  what it has leased ──────────┼──> three times the same cover, or no deadline moves
//!  guard:  what is open ────────────────┘
//! ```
//!
//! A sum over its members, so that their order says nothing. It keeps errors apart,
//! not enemies: whoever could make up two sets of one name has the key of the node
//! that both sets are of.

use crate::Grantee;
use crate::mix::mix_all;
use serde::{Deserialize, Serialize};

/// See the module.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cover {
    /// How many are in the set.
    pub count: u32,
    /// Two sums of mixed members.
    pub sums: [u64; 2],
}

/// Where the two sums begin to mix: any two numbers that differ.
const SEEDS: [u64; 2] = [0x9e37_79b9_7f4a_7c15, 0xd1b5_4a32_d192_ed03];

impl Cover {
    /// Of this set.
    #[must_use]
    pub fn of(all: impl IntoIterator<Item = Grantee>) -> Self {
        let mut cover = Self::default();
        for grantee in all {
            cover.count += 1;
            for (sum, seed) in cover.sums.iter_mut().zip(SEEDS) {
                *sum = sum.wrapping_add(mixed(seed, grantee));
            }
        }
        cover
    }

    /// Of no set but the empty one.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }
}

fn mixed(seed: u64, Grantee { vip, epoch, incarnation }: Grantee) -> u64 {
    mix_all(seed, [vip.0, epoch.0, incarnation.0])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Epoch, Incarnation, VipUid};
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn grantee(vip: u64, epoch: u64, incarnation: u64) -> Grantee {
        Grantee { vip: VipUid(vip), epoch: Epoch(epoch), incarnation: Incarnation(incarnation) }
    }

    /// Leader, agent and guard may be of different versions.
    #[test]
    fn a_set_has_the_same_name_in_every_version() {
        let cover = Cover::of([grantee(1, 2, 3), grantee(4, 5, 6)]);
        assert_eq!(cover, Cover { count: 2, sums: [0x4d20_68cf_a31d_39d3, 0xd560_134e_318b_3a64] });
    }

    #[test]
    fn the_empty_set_is_known_by_its_name() {
        assert!(Cover::of([]).is_empty());
        assert!(!Cover::of([grantee(0, 0, 0)]).is_empty());
        assert_ne!(Cover::of([grantee(0, 0, 0)]).sums, [0, 0]);
    }

    proptest! {
        /// Small numbers, as VIPs and epochs are: those are what a weak mix confuses.
        #[test]
        fn two_sets_have_two_names_and_one_has_one(
            one in proptest::collection::btree_set((0u64..6, 0u64..6, 0u64..3), 0..8),
            other in proptest::collection::btree_set((0u64..6, 0u64..6, 0u64..3), 0..8),
        ) {
            let members = |set: &BTreeSet<(u64, u64, u64)>| {
                set.iter().map(|(v, e, i)| grantee(*v, *e, *i)).collect::<Vec<_>>()
            };
            let backwards = members(&one).into_iter().rev();
            prop_assert_eq!(Cover::of(members(&one)), Cover::of(backwards));
            prop_assert_eq!(one == other, Cover::of(members(&one)) == Cover::of(members(&other)));
        }
    }
}
