//! What is in the log, and what stands for its beginning.

use std::collections::BTreeSet;
use std::sync::Arc;
use vip_core::{Command, NodeId, State, Term};

/// Index of an entry in the log, from 1; 0 is before the first.
pub(crate) type Index = usize;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Payload {
    Blank,
    /// One set, or two while it is joint.
    Membership(Vec<BTreeSet<NodeId>>),
    Command(Box<Command>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) term: Term,
    pub(crate) payload: Payload,
}

/// The state after an entry.
#[derive(Clone, Debug)]
pub(crate) struct Snapshot {
    pub(crate) index: Index,
    pub(crate) state: Arc<State>,
}
