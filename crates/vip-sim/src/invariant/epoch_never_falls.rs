//! Epochs only rise: those that hosts open their gates for, over all hosts, and
//! those in the state of each replica.

use super::Violation;
use crate::clock::Real;
use std::collections::BTreeMap;
use vip_core::{Epoch, State, VipUid};

#[derive(Default)]
pub(crate) struct EpochNeverFalls {
    opened: BTreeMap<VipUid, Epoch>,
    applied: BTreeMap<(usize, VipUid), Epoch>,
}

impl EpochNeverFalls {
    /// A gate opened.
    pub(crate) fn opened(
        &mut self,
        at: Real,
        host: usize,
        vip: VipUid,
        epoch: Epoch,
    ) -> Result<(), Violation> {
        let before = self.opened.entry(vip).or_default();
        if epoch < *before {
            let what = format!("host {host} opens epoch {epoch} of VIP {vip} after epoch {before}");
            return Err(Violation { rule: "epoch_never_falls", at, what });
        }
        *before = epoch;
        Ok(())
    }

    /// A replica applied an entry.
    pub(crate) fn applied(
        &mut self,
        at: Real,
        host: usize,
        state: &State,
    ) -> Result<(), Violation> {
        for vip in state.all_vips() {
            let before = self.applied.entry((host, vip.uid)).or_default();
            if vip.epoch < *before {
                let what = format!("host {host} applied epoch {} after {before}", vip.epoch);
                return Err(Violation { rule: "epoch_never_falls", at, what });
            }
            *before = vip.epoch;
        }
        Ok(())
    }

    /// A process started anew and applies the log from its beginning.
    pub(crate) fn restarted(&mut self, host: usize) {
        self.applied.retain(|(at, _), _| *at != host);
    }
}
