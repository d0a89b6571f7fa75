//! Nodes that the log here has not heard of. A laggard has to follow a leader
//! that is newer than its log, and catches up within a minute; whoever is still
//! unknown then is let in no more for a while: with a stolen issuing key anybody
//! is a node of a later admission.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use vip_core::NodeId;

/// How long an unknown node is let in: for a log or a snapshot to come.
pub(crate) const CATCH_UP: Duration = Duration::from_secs(60);
/// After so long it may try again: it may have been cut off meanwhile.
const AGAIN: Duration = Duration::from_secs(600);
/// Unknown nodes at a time: more than ever join while a node is away.
const MOST: usize = 16;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Newcomers(Mutex<BTreeMap<NodeId, Instant>>);

impl Newcomers {
    /// Whether an unknown node is let in now.
    pub(crate) fn let_in(&self, node: NodeId, now: Instant) -> bool {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        seen.retain(|_, first| now < *first + AGAIN);
        if !seen.contains_key(&node) && seen.len() >= MOST {
            return false;
        }
        now < *seen.entry(node).or_insert(now) + CATCH_UP
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newcomer_has_a_minute_and_another_one_later() {
        let (newcomers, start) = (Newcomers::default(), Instant::now());
        let let_in = |after| newcomers.let_in(NodeId(9), start + after);
        assert!(let_in(Duration::ZERO));
        assert!(let_in(CATCH_UP - Duration::from_millis(1)));
        assert!(!let_in(CATCH_UP));
        assert!(!let_in(AGAIN - Duration::from_millis(1)));
        assert!(let_in(AGAIN));
        assert!(!let_in(AGAIN + CATCH_UP));
    }

    #[test]
    fn there_are_never_many() {
        let (newcomers, now) = (Newcomers::default(), Instant::now());
        let in_all = (0..1000).filter(|id| newcomers.let_in(NodeId(*id), now)).count();
        assert_eq!(in_all, MOST);
    }
}
