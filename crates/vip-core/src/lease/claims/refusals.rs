//! What could not be claimed here, by whom it was refused, and when it is tried again.

use super::{ClaimAction, Claims, Happened, Then};
use crate::{Epoch, GuardRefusal, Mono, Obstacle, State, Vip, VipUid, Why};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// How long a VIP that the guard could not claim is not tried again here: at
/// first, because most of what a kernel refuses it refuses for a moment; and at
/// most, because each attempt may move the VIP here and away again.
pub(super) const RETRY_REFUSED: Duration = Duration::from_secs(1);
const RETRY_REFUSED_MAX: Duration = Duration::from_secs(30);

/// A VIP that the guard could not claim.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct RefusedHere {
    pub(super) why: Obstacle,
    /// Of what was wanted then.
    revision: u32,
    pub(super) retry_at: Mono,
    /// The pause before the next attempt, if this one fails too.
    pause: Duration,
}

impl Claims {
    /// What could not be claimed here, and may be now or is not to be.
    pub(super) fn look_at_refusals(&mut self, now: Mono, state: &State) {
        self.refused.retain(|uid, refused| {
            // Somebody said since that a foreign host is meant to be there.
            let meant = matches!(refused.why.why, Why::Answered(_));
            let answered = meant || matches!(refused.why.why, Why::AnsweredBy(_));
            // Nobody else has it, or its holder would not.
            let elsewhere = |vip: &Vip| vip.holder != Some(self.me) && vip.answered == vip.epoch;
            // Somebody says since that it is to be tried here again.
            let told = matches!(refused.why.why, Why::NotTaken(_));
            let asked = |vip: &Vip| vip.pinned == Some(self.me) && vip.holder != Some(self.me);
            // It is taken from nobody who can have it moved by one who could not.
            let is_well = |vip: &&Vip| {
                let answers = vip.answered == vip.epoch && vip.fenced < vip.epoch;
                answers && vip.holder.is_some_and(|other| other != self.me)
            };
            if told && state.vip(*uid).filter(is_well).is_some() {
                refused.retry_at = refused.retry_at.max(now + RETRY_REFUSED);
            }
            let over = |vip: &Vip| {
                (meant && vip.spec.no_probe) || (answered && elsewhere(vip)) || (told && asked(vip))
            };
            state.vip(*uid).is_some_and(|vip| refused.revision == vip.revision && !over(vip))
        });
    }

    pub(super) fn guard_refused(
        &mut self,
        now: Mono,
        vip: VipUid,
        epoch: Epoch,
        why: &GuardRefusal,
        actions: &mut Vec<ClaimAction>,
    ) {
        let Some(claim) = self.claim(vip, epoch) else { return };
        let revision = claim.revision.unwrap_or_default();
        let happened = match why {
            GuardRefusal::Ended(_) => Happened::Ended,
            GuardRefusal::InUse(_) => Happened::InUse,
            GuardRefusal::Address(_) => Happened::Refused,
        };
        let then = self.goes_on((vip, epoch), happened, actions);
        if let (Then::LeaveAlone, GuardRefusal::Address(obstacle)) = (then, why) {
            self.leave_alone(now, vip, obstacle.clone(), revision);
        }
    }

    /// It is not tried here again for a while.
    pub(super) fn leave_alone(&mut self, now: Mono, vip: VipUid, why: Obstacle, revision: u32) {
        let pause = self.refused.get(&vip).map_or(RETRY_REFUSED, |before| before.pause);
        let (retry_at, pause) = (now + pause, (pause * 2).min(RETRY_REFUSED_MAX));
        self.refused.insert(vip, RefusedHere { why, revision, retry_at, pause });
    }

    /// Who has to be told will not hear of it: somebody else may have more luck.
    pub(super) fn not_taken(
        &mut self,
        now: Mono,
        (vip, epoch): (VipUid, Epoch),
        obstacle: Obstacle,
    ) -> Vec<ClaimAction> {
        let mut actions = vec![];
        let Some(claim) = self.claim(vip, epoch) else { return actions };
        let revision = claim.revision.unwrap_or_default();
        if self.goes_on((vip, epoch), Happened::NotTaken, &mut actions) == Then::Release {
            self.leave_alone(now, vip, obstacle, revision);
        }
        actions
    }
}
