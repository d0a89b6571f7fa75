//! What nodes say of what there is, kept until they say otherwise.

use crate::NodeId;
use std::collections::BTreeMap;
use std::sync::Arc;

/// By what it is said of, and who says it.
pub(super) type Reports<K, T> = Arc<BTreeMap<K, BTreeMap<NodeId, T>>>;

/// Takes over what a node says of something now, or that it says nothing any more.
/// Returns whether it is news.
pub(super) fn take_over<K: Ord + Copy, T: Clone + PartialEq>(
    known: &mut Reports<K, T>,
    (subject, node): (K, NodeId),
    said: Option<&T>,
) -> bool {
    if said == known.get(&subject).and_then(|nodes| nodes.get(&node)) {
        return false;
    }
    let known = Arc::make_mut(known);
    let nodes = known.entry(subject).or_default();
    match said {
        Some(said) => nodes.insert(node, said.clone()),
        None => nodes.remove(&node),
    };
    if nodes.is_empty() {
        known.remove(&subject);
    }
    true
}

/// A node is no member any more: what it said of anything goes.
pub(super) fn forget<K: Ord + Copy, T: Clone + PartialEq>(known: &mut Reports<K, T>, node: NodeId) {
    let all: Vec<K> = known.keys().copied().collect();
    for subject in all {
        take_over(known, (subject, node), None);
    }
}
