//! Joins that this node takes part in as leader.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use vip_core::NodeId;

/// Joins that this leader takes part in: gone with it, and begun again.
#[derive(Debug, Default)]
pub(crate) struct Joins(Mutex<BTreeMap<NodeId, Join>>);

#[derive(Clone, Debug, Default)]
struct Join {
    /// What was in the log when it first asked.
    asked_at: u64,
    /// What it still lacks.
    lacks: String,
}

impl Joins {
    fn with<T>(&self, f: impl FnOnce(&mut BTreeMap<NodeId, Join>) -> T) -> T {
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A node asks to be taken in, when the log is at `index`. Returns where it was
    /// when it first did.
    pub(crate) fn asked(&self, node: NodeId, index: u64) -> u64 {
        self.with(|joins| {
            joins.entry(node).or_insert(Join { asked_at: index, ..Join::default() }).asked_at
        })
    }

    /// What it still lacks is this.
    pub(crate) fn lack(&self, node: NodeId, lacks: String) {
        self.with(|joins| joins.entry(node).or_default().lacks = lacks);
    }

    /// What a joining node still lacks, as far as this leader saw.
    pub(crate) fn lacks(&self, node: NodeId) -> Option<String> {
        let join = self.with(|joins| joins.get(&node).cloned())?;
        Some(join.lacks).filter(|lacks| !lacks.is_empty())
    }

    pub(crate) fn forget(&self, node: NodeId) {
        self.with(|joins| joins.remove(&node));
    }
}
