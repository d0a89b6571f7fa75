//! The fencing facts of a VIP: which epochs were granted, answer, and ended.

use super::{Nested, Settled, Vip, VipEvent};
use crate::log::State;
use crate::log::command::Position;
use crate::{Grantee, Outcome};
use std::sync::Arc;

impl State {
    pub(super) fn settle(&mut self, at: Position, grants: &[Grantee], nested: bool) -> Outcome {
        for grant in grants {
            let Some(vip) = self.vip_mut(grant.vip) else { continue };
            if grant.epoch > vip.epoch || grant.epoch <= vip.fenced {
                continue;
            }
            // Of an epoch that was overtaken meanwhile nobody knows the node.
            let holder = vip.holder.filter(|_| grant.epoch == vip.epoch);
            let first = vip.settled.is_none_or(|s| s.epoch < grant.epoch);
            if let (true, Some(node)) = (first, holder) {
                let (epoch, incarnation) = (grant.epoch, grant.incarnation);
                vip.settled = Some(Settled { epoch, incarnation, node });
                // That it was granted proves that everything before it had ended.
                vip.fenced = vip.fenced.max(grant.epoch.previous());
                let fenced = vip.fenced;
                vip.dropped.retain(|dropped| fenced < dropped.epoch);
            }
            if nested && vip.bound(grant.epoch) == Some(grant.incarnation) {
                vip.nested = Some(Nested { term: at.term, epoch: grant.epoch });
            }
        }
        Outcome::Done
    }

    pub(super) fn answered(&mut self, actor: &str, grants: &[Grantee]) -> Outcome {
        for grant in grants {
            let Some(vip) = self.vip_mut(grant.vip) else { continue };
            let by = vip.settled_at(grant.epoch).filter(|s| s.incarnation == grant.incarnation);
            let Some(node) = by.map(|s| s.node).filter(|_| vip.answered < grant.epoch) else {
                continue;
            };
            vip.answered = grant.epoch;
            let vip = vip.spec.name.clone();
            let answers = VipEvent::Answers { vip, node, epoch: grant.epoch };
            self.record_of(grant.vip, actor, answers);
        }
        Outcome::Done
    }

    pub(super) fn released(&mut self, actor: &str, releases: &[Grantee]) -> Outcome {
        for release in releases {
            if let Some(vip) = self.vip_mut(release.vip) {
                if fence(vip, release) {
                    let vip = vip.spec.name.clone();
                    let released = VipEvent::Released { vip, epoch: release.epoch };
                    self.record_of(release.vip, actor, released);
                }
            } else if let Some(at) = self.retired.iter().position(|old| old.uid == release.vip) {
                let retired = Arc::make_mut(&mut self.retired);
                let vip = Arc::make_mut(&mut retired[at]);
                fence(vip, release);
                if vip.fenced >= vip.epoch {
                    retired.swap_remove(at);
                }
            }
        }
        Outcome::Done
    }
}

/// Takes note that an epoch ended, if the release speaks for the session that
/// the epoch is bound to.
fn fence(vip: &mut Vip, release: &Grantee) -> bool {
    let known = vip.bound(release.epoch) == Some(release.incarnation);
    if !known || release.epoch <= vip.fenced {
        return false;
    }
    vip.fenced = release.epoch;
    true
}
