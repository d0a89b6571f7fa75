//! Certificates of members, as they were last shown here.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use vip_core::NodeId;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Seen(Mutex<BTreeMap<NodeId, i64>>);

impl Seen {
    /// A node's is good until then, seconds since 1970.
    pub(crate) fn note(&self, node: NodeId, until: i64) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(node, until);
    }

    /// Of these nodes, until when each one's is good.
    pub(crate) fn of<'a>(&self, nodes: impl Iterator<Item = &'a NodeId>) -> Vec<(NodeId, i64)> {
        let seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        nodes.filter_map(|node| Some((*node, *seen.get(node)?))).collect()
    }
}
