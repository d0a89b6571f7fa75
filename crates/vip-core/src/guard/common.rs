//! One deadline for all that is open.
//!
//! ```text
//!  address ──> its own deadline            opened just now, or extended by itself
//!          └─> slot ──> shared deadline    since it was extended with all others
//! ```
//!
//! An address that the gate did not let go of would be extended with what shares
//! its slot: such a slot is retired for good. Once all are, each VIP is extended by
//! itself.

use super::{Claim, GateEntry, Guard, GuardAction, GuardNotice, Phase, Slot};
use crate::{Cover, Grantee, Incarnation, Mono};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::net::IpAddr;

/// Slots of a gate, the first of which it does not use: there an address has a
/// deadline of its own. As many as a kernel may refuse, once each.
pub const SLOTS: u32 = 16;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Common {
    /// The one in use.
    slot: Slot,
    deadline: Mono,
    /// The largest deadline that each slot was given.
    furthest: [Mono; SLOTS as usize],
    /// The name of what is open, while all of it shares the slot in use. Gone when
    /// anything comes in that could change it: that is rare, and renewals are not.
    pub(super) settled: Option<Cover>,
    /// Addresses that ever were in a slot: what the gate has of them it may have
    /// kept. Not taken out again; it is as long as the list of VIPs ever held.
    sharers: BTreeSet<IpAddr>,
}

impl Default for Common {
    fn default() -> Self {
        let furthest = [Mono::ZERO; SLOTS as usize];
        Self {
            slot: Slot(1),
            deadline: Mono::ZERO,
            furthest,
            settled: None,
            sharers: BTreeSet::new(),
        }
    }
}

impl Common {
    /// The gate did not take an entry: what it has of the address may be the slot
    /// in use.
    pub(super) fn not_taken(&mut self, ip: IpAddr) {
        if self.sharers.contains(&ip) {
            self.retire();
        }
    }

    /// The gate is to have the slot for its addresses, if it shares one.
    pub(super) fn is_shared_by(&mut self, claim: &Claim) {
        if claim.shares.is_some() {
            self.sharers.extend(claim.addresses.iter().map(|address| address.ip));
        }
    }

    pub(super) fn retire(&mut self) {
        self.slot = Slot(self.slot.0.saturating_add(1).min(SLOTS));
    }

    /// What is open, or where, may be another now.
    pub(super) fn unsettle(&mut self) {
        self.settled = None;
    }

    pub(super) fn deadline(&self) -> Mono {
        self.deadline
    }

    pub(super) fn deadline_of(&self, claim: &Claim) -> Mono {
        if claim.shares.is_some() { self.deadline } else { claim.deadline }
    }

    fn furthest_of(&self, Slot(slot): Slot) -> Mono {
        usize::try_from(slot)
            .ok()
            .and_then(|slot| self.furthest.get(slot))
            .copied()
            .unwrap_or_default()
    }

    /// Until when the gate may let pass for a claim, if it takes nothing any more.
    pub(super) fn furthest(&self, claim: &Claim) -> Mono {
        claim.shares.map_or(claim.furthest, |slot| claim.furthest.max(self.furthest_of(slot)))
    }

    /// The claim has a deadline of its own from now on.
    pub(super) fn leave(&self, claim: &mut Claim) {
        claim.furthest = self.furthest(claim);
        claim.shares = None;
    }

    /// The slot to extend, if there is one that may be.
    fn extend(&mut self, deadline: Mono) -> Option<Slot> {
        let furthest = self.furthest.get_mut(usize::try_from(self.slot.0).ok()?)?;
        *furthest = deadline.max(*furthest);
        self.deadline = deadline;
        Some(self.slot)
    }

    /// Shuts whatever shares, by one write.
    pub(super) fn shut(&mut self) -> Option<GuardAction> {
        let is_open = self.deadline > Mono::ZERO;
        self.deadline = Mono::ZERO;
        let slot = self.slot;
        (is_open && slot.0 < SLOTS).then_some(GuardAction::Deadline { slot, deadline: Mono::ZERO })
    }
}

impl Guard {
    /// All that is open until the deadline, if it is what the leader granted and the
    /// agent asked for.
    pub(super) fn extend_all(
        &mut self,
        now: Mono,
        incarnation: Incarnation,
        cover: Cover,
        deadline: Mono,
    ) -> Vec<GuardAction> {
        if self.session != Some(incarnation) {
            return vec![];
        }
        let other = || vec![GuardAction::Notify(GuardNotice::OtherCover)];
        if self.common.settled == Some(cover) && now < deadline && now < self.common.deadline {
            debug_assert!(self.is_settled(now, incarnation), "something changed unnoticed");
            let deadline = deadline.min(now + self.limits.longest_grant);
            let extended = self.common.extend(deadline);
            return extended
                .map_or_else(other, |slot| vec![GuardAction::Deadline { slot, deadline }]);
        }
        self.common.unsettle();
        // What has run out, and was not looked at since, is in the gate's slot as yet.
        let is_over =
            |claim: &Claim| claim.phase == Phase::Open && now >= self.common.deadline_of(claim);
        if self.claims.values().any(is_over) || self.cover(incarnation) != cover {
            return other();
        }
        let deadline = deadline.min(now + self.limits.longest_grant);
        if now >= deadline {
            // Too late to answer, as all that is open has to learn.
            self.common.deadline = deadline;
            let open = self.claims.values_mut().filter(|claim| claim.phase == Phase::Open);
            open.for_each(|claim| claim.deadline = deadline);
            return vec![];
        }
        let Some(slot) = self.common.extend(deadline) else { return other() };
        let mut actions = vec![GuardAction::Deadline { slot, deadline }];
        let Self { claims, common, .. } = self;
        let open = claims.values_mut().filter(|claim| claim.phase == Phase::Open);
        for claim in open.filter(|claim| claim.shares != Some(slot)) {
            common.leave(claim);
            claim.shares = Some(slot);
            common.is_shared_by(claim);
            actions.extend(claim.gates(GateEntry::With(slot)));
        }
        common.settled = Some(cover);
        actions
    }

    /// Whether what is open has that name and shares the slot in use.
    fn is_settled(&self, now: Mono, incarnation: Incarnation) -> bool {
        let shares = |claim: &Claim| {
            claim.shares == Some(self.common.slot) && now < self.common.deadline_of(claim)
        };
        let mut open = self.claims.values().filter(|claim| claim.phase == Phase::Open);
        open.all(shares) && self.common.settled == Some(self.cover(incarnation))
    }

    /// The name of what is open.
    fn cover(&self, incarnation: Incarnation) -> Cover {
        let open = self.claims.iter().filter(|(_, claim)| claim.phase == Phase::Open);
        Cover::of(open.map(|(vip, claim)| Grantee { vip: *vip, epoch: claim.epoch, incarnation }))
    }

    /// Writes again where those that share a deadline are to find it.
    pub(super) fn gates_of_sharers(&self) -> Vec<GuardAction> {
        let gates = |claim: &Claim| {
            let entry = claim.shares.map(GateEntry::With);
            entry.map(|entry| claim.gates(entry).collect::<Vec<_>>())
        };
        self.claims.values().filter_map(gates).flatten().collect()
    }
}
