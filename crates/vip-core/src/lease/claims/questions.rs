//! What is asked of claims: nothing is decided here.

use super::{Answering, Claim, Claims, Holding, Known, Stage};
use crate::{Conflict, Cover, Epoch, Grantee, Mono, Obstacle, State, ViaToken, Vip, VipUid};
use std::collections::{BTreeMap, BTreeSet};

/// A lease of a VIP of which somebody has to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CalledLease {
    pub epoch: Epoch,
    /// When it ends, if it is not renewed.
    pub until: Mono,
    /// The gate is open: it was confirmed before.
    pub open: bool,
    /// This node announces it for as long as it is leased and no longer, with this rank
    /// ([`Vip::rank`]). Else what is told once stays as it is.
    pub announced: Option<u64>,
}

impl Claims {
    /// What to renew at each heartbeat.
    #[must_use]
    pub fn renewals(&self) -> Vec<Grantee> {
        self.in_stage(Stage::is_leased)
    }

    /// The name of that.
    #[must_use]
    pub fn cover(&mut self) -> Cover {
        let cover = self.known().cover;
        debug_assert_eq!(cover, Cover::of(self.renewals()), "a claim changed unseen");
        cover
    }

    /// Whether the guard may have more open than is leased.
    #[must_use]
    pub fn is_releasing(&mut self) -> bool {
        self.known().releasing
    }

    fn known(&mut self) -> &Known {
        if self.known.is_none() {
            let (cover, waiting) = (Cover::of(self.renewals()), self.in_stage(Stage::waits));
            let releasing = self.claims.values().any(|claim| claim.stage == Stage::Releasing);
            self.known = Some(Known { cover, waiting, releasing });
        }
        self.known.get_or_insert_default()
    }

    /// What answers here, by the guard's word.
    #[must_use]
    pub fn open(&self) -> Vec<Grantee> {
        self.in_stage(|stage| stage == Stage::Open)
    }

    /// The revisions of VIPs that were changed, as far as they answer here.
    #[must_use]
    pub fn revisions(&self) -> BTreeMap<VipUid, u32> {
        let open = self.claims.iter().filter(|(_, claim)| claim.stage == Stage::Open);
        let changed = open.filter(|(_, claim)| claim.ready > 0);
        changed.map(|(vip, claim)| (*vip, claim.ready)).collect()
    }

    /// What waits for a first grant, or one after an expiry.
    #[must_use]
    pub fn waiting(&mut self) -> Vec<Grantee> {
        let waiting = self.known().waiting.clone();
        debug_assert_eq!(waiting, self.in_stage(Stage::waits), "a claim changed unseen");
        waiting
    }

    /// What is asked for with the gate shut.
    #[must_use]
    pub fn seeking(&self) -> Vec<Grantee> {
        self.in_stage(Stage::seeks)
    }

    /// What was granted so, and is to go on while somebody is told.
    #[must_use]
    pub fn taking_by(&self) -> Vec<Grantee> {
        self.in_stage(Stage::is_taking)
    }

    /// What was seen of where VIPs are.
    #[must_use]
    pub fn tokens(&self) -> BTreeMap<VipUid, ViaToken> {
        let of = |(vip, claim): (&VipUid, &Claim)| Some((*vip, claim.token.clone()?));
        self.claims.iter().filter_map(of).collect()
    }

    /// Those about whom somebody is told, with until when each is leased.
    pub(in crate::lease) fn taking(&self) -> BTreeMap<VipUid, (Epoch, Mono)> {
        let taking = self.claims.iter().filter(|(_, claim)| claim.stage.is_taking());
        taking.map(|(vip, claim)| (*vip, (claim.epoch, claim.taking_until))).collect()
    }

    /// What is leased here of which somebody has to be told where it is.
    #[must_use]
    pub fn told_of(&self, state: &State) -> BTreeMap<VipUid, CalledLease> {
        let called = state.all_vips().filter(|vip| vip.spec.via.is_called());
        let leased = |vip: &Vip| {
            let (uid, epoch) = (vip.uid, vip.epoch);
            let announced = vip.spec.via.is_announced_by_each().then_some(vip.rank);
            let open = || {
                let until = self.answering.until(uid, epoch)?;
                Some(CalledLease { epoch, until, open: true, announced })
            };
            // From when they confirm until the guard answers it is this lease that goes on.
            let is_its_own = |claim: &&Claim| claim.epoch == epoch && claim.stage.is_told();
            let claim = self.claims.get(&uid).filter(is_its_own);
            let shut = claim.map(|claim| {
                let until = claim.taking_until;
                CalledLease { epoch, until, open: false, announced }
            });
            Some((uid, open().or(shut)?))
        };
        called.filter_map(leased).collect()
    }

    fn in_stage(&self, is_in: impl Fn(Stage) -> bool) -> Vec<Grantee> {
        let Some(incarnation) = self.session else { return vec![] };
        let grantee = |(vip, claim): (&VipUid, &Claim)| {
            is_in(claim.stage).then_some(Grantee { vip: *vip, epoch: claim.epoch, incarnation })
        };
        self.claims.iter().filter_map(grantee).collect()
    }

    /// What to report to the leader until the log knows it.
    #[must_use]
    pub fn releases(&self) -> Vec<Grantee> {
        self.releases.iter().copied().collect()
    }

    /// VIPs that this node's guard could not claim lately.
    #[must_use]
    pub fn unable(&self, now: Mono) -> Vec<VipUid> {
        let refused = self.refused.keys().filter(|vip| self.is_refused(now, **vip));
        let hindered = self.hindered.keys().filter(|vip| !self.claims.contains_key(vip));
        refused.chain(hindered).copied().collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// Why the guard could not claim VIPs when it last tried, or could not if it
    /// did.
    #[must_use]
    pub fn obstacles(&self) -> BTreeMap<VipUid, Obstacle> {
        let refused = self.refused.iter().map(|(vip, refused)| (*vip, refused.why.clone()));
        let hindered = self.hindered.iter().map(|(vip, why)| (*vip, why.clone()));
        refused.chain(hindered).collect()
    }

    /// Whom this node heard claim addresses of what it holds, or is about to.
    #[must_use]
    pub fn conflicts(&self) -> BTreeMap<VipUid, Conflict> {
        self.conflicts.all()
    }

    pub(super) fn is_refused(&self, now: Mono, vip: VipUid) -> bool {
        self.refused.get(&vip).is_some_and(|refused| now < refused.retry_at)
    }

    /// Whether the guard answers for this epoch.
    #[must_use]
    pub fn is_open(&self, vip: VipUid, epoch: Epoch) -> bool {
        let claim = self.claims.get(&vip);
        claim.is_some_and(|claim| claim.epoch == epoch && claim.stage == Stage::Open)
    }

    /// Until when what is open here answers.
    #[must_use]
    pub fn answering(&self) -> &Answering {
        &self.answering
    }

    /// What is claimed here.
    #[must_use]
    pub fn holdings(&self) -> Vec<Holding> {
        let holding = |(vip, claim): (&VipUid, &Claim)| Holding {
            vip: *vip,
            epoch: claim.epoch,
            open: claim.stage == Stage::Open,
        };
        self.claims.iter().map(holding).collect()
    }
}
