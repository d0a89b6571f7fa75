//! Observers that the leader has not heard of: what they said of real servers says nothing
//! any more.

use super::patience::Patience;
use crate::{Mono, NodeId};
use std::collections::BTreeSet;
use std::time::Duration;

/// A node that was silent for so long sees nothing: longer than a restart takes, and as long
/// as two rounds at the usual interval.
pub const BLIND_AFTER: Duration = Duration::from_secs(4);

/// Since when nodes have been silent, as one leader hears.
#[derive(Clone, Debug, Default)]
pub struct Absences(Patience<NodeId>);

impl Absences {
    /// Of all these the leader hears some. Returns those that have been silent for
    /// [`BLIND_AFTER`].
    pub fn of(
        &mut self,
        now: Mono,
        all: impl IntoIterator<Item = NodeId>,
        heard: &BTreeSet<NodeId>,
    ) -> BTreeSet<NodeId> {
        let silent = all.into_iter().filter(|node| !heard.contains(node));
        self.0.of(now, silent.map(|node| (node, BLIND_AFTER))).into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_blind_when_it_was_silent_for_long_without_a_word() {
        let ids = |ids: &[u64]| -> BTreeSet<NodeId> { ids.iter().copied().map(NodeId).collect() };
        let at = |ms: u64| Mono(1_000_000_000) + Duration::from_millis(ms);
        let mut absences = Absences::default();
        let mut of = |ms, heard: &[u64]| absences.of(at(ms), ids(&[1, 2, 3]), &ids(heard));
        assert_eq!(of(0, &[1]), ids(&[]));
        assert_eq!(of(3999, &[1]), ids(&[]));
        assert_eq!(of(4000, &[1, 3]), ids(&[2]));
        assert_eq!(of(4001, &[1]), ids(&[2]), "the other one was heard of just before");
        assert_eq!(of(8001, &[1, 2]), ids(&[3]));
    }
}
