//! The data of a new cluster of one node that begins with a state.

use crate::convert::command;
use crate::log_store::{LogStore, StoreError};
use crate::node::RaftNode;
use crate::snapshot::SnapshotData;
use crate::state_machine::SNAPSHOT;
use crate::types::{Member, SnapshotMeta, StoredMembership, log_id, term_of};
use openraft::Membership;
use openraft::entry::RaftEntry;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use vip_core::{NodeId, State, Term, Vote};

/// Where a log ends, and the latest vote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogEnd {
    /// Index of the last entry.
    pub index: u64,
    /// The latest term that anybody here heard of.
    pub term: Term,
    /// The largest P that this node may still have promised, unless that is lost.
    pub longest: Option<Duration>,
}

impl RaftNode {
    /// The state with every entry that this node has, and where its log ends.
    /// Whether the last ones were committed only those know who are lost: each
    /// may have been.
    ///
    /// Raft has to be shut down: entries come no more.
    ///
    /// # Errors
    /// The log cannot be read.
    pub fn everything(&self) -> io::Result<(State, LogEnd)> {
        let applied = self.applied.borrow().clone();
        let mut state = State::clone(&applied.state);
        let mut index = applied.index;
        for entry in self.store.entries_after(index)? {
            let id = entry.log_id();
            state.enter(term_of(&id));
            if let Some(command) = command(&entry) {
                state.apply(id.index, command);
            }
            index = id.index;
        }
        let saved = self.store.saved();
        let term = saved.lost_up_to.unwrap_or_default().max(saved.vote.term);
        Ok((state, LogEnd { index, term, longest: saved.longest }))
    }
}

/// Makes the data of Raft in `dir`, which is empty or not there: a snapshot of
/// `state` at the log's end, whose only voter is `node`, and a vote of its own,
/// so that no leader of before is heard.
///
/// # Errors
/// [`StoreError`].
pub async fn found(
    dir: &Path,
    state: Arc<State>,
    end: LogEnd,
    node: NodeId,
    address: String,
) -> Result<(), StoreError> {
    let sync = |source| StoreError::Sync { path: dir.to_owned(), source };
    let last = log_id(state.term.0, end.index);
    let members = BTreeMap::from([(node.0, Member { address })]);
    let membership = Membership::new(vec![BTreeSet::from([node.0])], members)
        .map_err(|e| sync(io::Error::other(e.to_string())))?;
    let last_membership = StoredMembership::new(Some(last), membership);
    let meta = SnapshotMeta { last_log_id: Some(last), last_membership };
    let term = end.term.max(state.term).next();
    let vote = Vote { term, node, committed: false };
    std::fs::create_dir_all(dir).map_err(sync)?;
    let written = {
        let dir = dir.to_owned();
        move || SnapshotData::of(state, &dir)?.store(&meta, &dir.join(SNAPSHOT))
    };
    let written = tokio::task::spawn_blocking(written).await;
    written.map_err(|e| sync(io::Error::other(e)))?.map_err(sync)?;
    LogStore::found(dir, vote, end.longest, last).await
}
