//! What was committed once is committed for good: the same entry at every
//! index on every node, the same holder of every epoch in every state.

use super::Violation;
use crate::clock::Real;
use crate::raft::{Entry, Index};
use std::collections::BTreeMap;
use std::sync::Arc;
use vip_core::{Epoch, NodeId, State, VipUid};

#[derive(Default)]
pub(crate) struct CommittedMoveStays {
    log: Vec<Arc<Entry>>,
    holders: BTreeMap<(VipUid, Epoch), Option<NodeId>>,
}

impl CommittedMoveStays {
    /// A node committed an entry.
    pub(crate) fn committed(
        &mut self,
        at: Real,
        host: usize,
        index: Index,
        entry: &Arc<Entry>,
    ) -> Result<(), Violation> {
        match self.log.get(index - 1) {
            Some(known) if Arc::ptr_eq(known, entry) || known == entry => Ok(()),
            Some(known) => {
                let what = format!("host {host} commits {entry:?} at {index}, where {known:?} was");
                Err(Violation { rule: "committed_move_stays", at, what })
            }
            None => {
                self.log.push(entry.clone());
                Ok(())
            }
        }
    }

    /// A node applied it.
    pub(crate) fn applied(
        &mut self,
        at: Real,
        host: usize,
        state: &State,
    ) -> Result<(), Violation> {
        for vip in state.all_vips() {
            let known = *self.holders.entry((vip.uid, vip.epoch)).or_insert(vip.holder);
            // Removing a node leaves its VIPs without a holder, in their epoch.
            if known != vip.holder && vip.holder.is_some() {
                let (uid, epoch, holder) = (vip.uid, vip.epoch, vip.holder);
                let what = format!(
                    "host {host} has VIP {uid} at epoch {epoch} with {holder:?}, not {known:?}"
                );
                return Err(Violation { rule: "committed_move_stays", at, what });
            }
        }
        Ok(())
    }

    /// How many moves there were.
    pub(crate) fn moves(&self) -> usize {
        self.holders.len()
    }
}
