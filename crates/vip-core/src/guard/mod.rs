//! The guard's decisions: gate, address, announcement.
//!
//! ```text
//!  Prepare(epoch) ──> probe, gate shut, then address   (nothing answers yet)
//!  Extend(deadline) ──> gate open until deadline, announce
//!  deadline passes ──> the kernel shut the gate already; delete the address
//!  Release(epoch), agent gone, stop ──> gate shut, address deleted, epoch refused
//! ```
//!
//! What is open is extended together: the gate has one deadline for all of it
//! (`common.rs`), and one of its own for each VIP that was opened just now.
//!
//! It does nothing on its own account except let go.

mod announce;
mod belongs;
mod claim;
mod common;
mod departed;
mod failures;
mod hearing;
mod life;
mod orders;
mod probes;

use announce::announce_repeat;
pub use announce::{ANNOUNCE_OFFSETS, ANNOUNCE_REPEAT, Announcements};
pub use belongs::HostNetwork;
pub use claim::Phase;
pub use common::SLOTS;
pub use life::{address_life, renewal_interval};
pub use orders::{
    GateEntry, GuardAction, GuardEvent, GuardFailure, GuardNotice, GuardRefusal, Limits, Probe,
    Slot, VipOrder,
};
use serde::{Deserialize, Serialize};

use crate::{Address, Epoch, Incarnation, Mac, Mono, Obstacle, VipUid};
use claim::{Claim, SHUT};
use common::Common;
use departed::Departed;
use hearing::Hearing;
use probes::{ProbeStep, Probes};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

/// Shortest time between two answers to foreign claims of one VIP (RFC 5227
/// §2.4 (c): at most one defence per 10 s; a burst of ours is one).
const DEFEND_INTERVAL: Duration = Duration::from_secs(10);

/// All gates first: deleting a thousand addresses takes a while.
fn gates_first(actions: impl Iterator<Item = GuardAction>) -> Vec<GuardAction> {
    let (mut gates, rest): (Vec<_>, Vec<_>) =
        actions.partition(|action| matches!(action, GuardAction::Gate { .. }));
    gates.extend(rest);
    gates
}

/// The guard of one host.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Guard {
    limits: Limits,
    session: Option<Incarnation>,
    claims: BTreeMap<VipUid, Claim>,
    common: Common,
    /// Whose epochs the floors are.
    cluster: String,
    /// Epochs up to here are refused.
    floors: BTreeMap<VipUid, Epoch>,
    departed: Departed,
    refresh_at: Mono,
    /// No tick is due earlier.
    tick_at: Option<Mono>,
}

impl Guard {
    /// At process start: everything that an earlier run left was purged.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            session: None,
            claims: BTreeMap::new(),
            common: Common::default(),
            cluster: String::new(),
            floors: BTreeMap::new(),
            departed: Departed::default(),
            refresh_at: Mono::ZERO,
            tick_at: None,
        }
    }

    /// As an earlier run of the same process had it, with this one's limits: nothing was
    /// let go of between, and the clock is the same.
    #[must_use]
    pub fn inherited(self, limits: Limits) -> Self {
        Self { limits, ..self }
    }

    /// Returns what to do, in order. Never blocks, never fails.
    pub fn step(&mut self, now: Mono, event: GuardEvent) -> Vec<GuardAction> {
        // What comes many times a second, and moves deadlines away if anything: an
        // early tick finds when the next one is due.
        let is_renewal = matches!(event, GuardEvent::Order(VipOrder::ExtendAll { .. }));
        let is_foreign = matches!(event, GuardEvent::ForeignClaim { .. });
        // A tick says itself what it changed.
        if !is_renewal && !is_foreign && event != GuardEvent::Tick {
            self.common.unsettle();
        }
        let actions = self.take(now, event);
        if actions.iter().any(|action| matches!(action, GuardAction::AddAddress(_))) {
            // One that is due already stays so, however many come.
            self.refresh_at = self.refresh_at.min(now + renewal_interval(1, self.limits.gated));
        }
        if is_renewal {
            self.tick_at = self.tick_at.map(|at| at.min(self.common.deadline()));
        } else if !is_foreign || !actions.is_empty() {
            self.tick_at = self.find_next_tick();
        }
        actions
    }

    fn take(&mut self, now: Mono, event: GuardEvent) -> Vec<GuardAction> {
        match event {
            GuardEvent::AgentCame { incarnation, cluster } => {
                let actions = self.let_go_of_all();
                self.session = Some(incarnation);
                if self.cluster != cluster {
                    self.cluster = cluster;
                    self.floors.clear();
                }
                actions
            }
            GuardEvent::AgentGone | GuardEvent::Stop => {
                self.session = None;
                self.let_go_of_all()
            }
            GuardEvent::Order(VipOrder::Prepare { vip, epoch, addresses, probe, known }) => {
                self.prepare(now, (vip, epoch), addresses, probe, known)
            }
            GuardEvent::Order(VipOrder::Extend { incarnation, deadlines }) => {
                self.extend(now, incarnation, &deadlines)
            }
            GuardEvent::Order(VipOrder::ExtendAll { incarnation, cover, deadline }) => {
                self.extend_all(now, incarnation, cover, deadline)
            }
            GuardEvent::Order(VipOrder::Release { vip, epoch }) => self.release(vip, epoch),
            GuardEvent::Tick => self.tick(now),
            GuardEvent::AddressGone(ip) => self.address_gone(now, ip),
            GuardEvent::AddressDeleted(ip) => self.address_deleted(ip),
            GuardEvent::AddressRefused(obstacle) => self.address_refused(obstacle),
            GuardEvent::ForeignClaim { ip, mac } => self.foreign_claim(now, ip, mac),
            GuardEvent::Confirmed => self.announce_again(now),
            GuardEvent::HostChanged => vec![GuardAction::Notify(GuardNotice::TryAgain)],
            GuardEvent::LinkBack => {
                let mut actions = self.announce_again(now);
                actions.push(GuardAction::Notify(GuardNotice::TryAgain));
                actions
            }
        }
    }

    /// Whether nothing that was let go of may still answer. Until then no agent
    /// is welcome: it would take what an earlier session held for released.
    #[must_use]
    pub fn is_silent(&self) -> bool {
        self.departed.none_lingers()
    }

    /// Addresses that were let go of and not seen to be gone.
    #[must_use]
    pub fn departed(&self) -> Vec<IpAddr> {
        self.departed.addresses()
    }

    /// Whether something ran out here, and may not be gone yet.
    #[must_use]
    pub fn has_expired(&self) -> bool {
        self.claims.values().any(|claim| claim.phase == Phase::Expired)
    }

    fn claims_ip(&self, ip: IpAddr) -> bool {
        self.claims.values().any(|claim| claim.has(ip))
    }

    /// When [`GuardEvent::Tick`] is due next, while anything is claimed.
    #[must_use]
    pub fn next_tick(&self) -> Option<Mono> {
        let is_due_by = |at| self.tick_at.is_some_and(|tick| tick <= at);
        debug_assert!(self.find_next_tick().is_none_or(is_due_by), "a tick would come late");
        self.tick_at
    }

    fn find_next_tick(&self) -> Option<Mono> {
        let due = |claim: &Claim| match claim.phase {
            Phase::Open => {
                let next = self.common.deadline_of(claim).min(claim.announcements.next());
                claim.probes.next().map_or(next, |probe| next.min(probe))
            }
            Phase::Probing | Phase::Prepared => claim.probes.next().unwrap_or(self.refresh_at),
            Phase::Expired => self.refresh_at,
        };
        let claims = self.claims.values().map(|claim| due(claim).min(self.refresh_at));
        claims.chain(self.departed.next_silent()).min()
    }

    /// The addresses that the kernel should have now.
    #[must_use]
    pub fn wanted_addresses(&self) -> Vec<Address> {
        let there = |claim: &&Claim| self.has_address(claim);
        self.claims.values().filter(there).flat_map(|c| c.addresses.clone()).collect()
    }

    /// Every address that the gate must know, with its deadline.
    #[must_use]
    pub fn gate_entries(&self) -> Vec<(IpAddr, Mono)> {
        let entries = |claim: &Claim| {
            let open = claim.phase == Phase::Open;
            let deadline = if open { self.common.deadline_of(claim) } else { Mono::ZERO };
            claim.addresses.iter().map(|a| (a.ip, deadline)).collect::<Vec<_>>()
        };
        self.claims.values().filter(|c| c.phase != Phase::Probing).flat_map(entries).collect()
    }

    /// The phase of a claim, for status.
    #[must_use]
    pub fn phase(&self, vip: VipUid) -> Option<(Epoch, Phase)> {
        self.claims.get(&vip).map(|c| (c.epoch, c.phase))
    }

    fn has_address(&self, claim: &Claim) -> bool {
        match claim.phase {
            Phase::Open => true,
            Phase::Prepared => self.limits.gated,
            Phase::Probing | Phase::Expired => false,
        }
    }

    fn prepare(
        &mut self,
        now: Mono,
        (vip, epoch): (VipUid, Epoch),
        addresses: Vec<Address>,
        probe: Probe,
        known: BTreeSet<Mac>,
    ) -> Vec<GuardAction> {
        if self.floors.get(&vip).is_some_and(|floor| epoch <= *floor) {
            return self.refuse(vip, epoch, GuardRefusal::Ended(epoch));
        }
        let mut actions = vec![];
        match self.claims.get(&vip) {
            Some(claim) if claim.epoch > epoch => {
                let newer = claim.epoch;
                return self.refuse(vip, epoch, GuardRefusal::Ended(newer));
            }
            Some(claim) if claim.epoch == epoch && claim.addresses == addresses => {
                if claim.phase == Phase::Probing {
                    return vec![];
                }
                return vec![GuardAction::Notify(GuardNotice::Prepared { vip, epoch })];
            }
            Some(claim) if claim.epoch == epoch && claim.grows(&addresses) => {
                return self.grow(now, (vip, epoch), addresses);
            }
            Some(claim) => {
                let earlier = claim.epoch;
                actions.extend(self.shut(vip, None));
                if earlier < epoch {
                    self.floors.insert(vip, earlier);
                }
            }
            None => {}
        }
        for address in &addresses {
            if self.claims_ip(address.ip) || self.departed.has_lingering(address.ip) {
                actions.extend(self.refuse(vip, epoch, GuardRefusal::InUse(address.ip)));
                return actions;
            }
        }
        let probes = match probe {
            Probe::No => Probes::none(),
            Probe::Before | Probe::Beside | Probe::Always => Probes::starting(now),
        };
        let mut claim = Claim {
            epoch,
            addresses,
            phase: Phase::Probing,
            deadline: Mono::ZERO,
            shares: None,
            furthest: Mono::ZERO,
            announcements: Announcements::starting(now),
            probes,
            watches: probe == Probe::Always,
            hearing: Hearing::of(known),
            defended: Mono::ZERO,
        };
        if matches!(probe, Probe::No | Probe::Beside) {
            actions.extend(claim.make_ready(vip, self.limits.gated));
        }
        actions.extend(claim.probe(now, vip, self.limits.gated, self.claims.len()));
        if self.claims.is_empty() {
            self.refresh_at = now + renewal_interval(1, self.limits.gated);
        }
        self.claims.insert(vip, claim);
        actions
    }

    /// An epoch cannot be here. Whoever hears so takes what the VIP had here before for
    /// silent as well, so it is told no earlier than that is true.
    fn refuse(&mut self, vip: VipUid, epoch: Epoch, why: GuardRefusal) -> Vec<GuardAction> {
        let notice = GuardNotice::Refused { vip, epoch, why };
        if self.departed.tell_later(vip, &notice) {
            return vec![];
        }
        vec![GuardAction::Notify(notice)]
    }

    /// Addresses join a claim: they are there before they answer, and nothing of
    /// the others changes.
    fn grow(
        &mut self,
        now: Mono,
        (vip, epoch): (VipUid, Epoch),
        addresses: Vec<Address>,
    ) -> Vec<GuardAction> {
        let Some(claim) = self.claims.get(&vip) else { return vec![] };
        let new: Vec<_> =
            addresses.iter().filter(|a| !claim.addresses.contains(a)).cloned().collect();
        let in_use = |a: &&Address| self.claims_ip(a.ip) || self.departed.has_lingering(a.ip);
        if let Some(address) = new.iter().find(in_use) {
            return self.refuse(vip, epoch, GuardRefusal::InUse(address.ip));
        }
        let answers = claim.phase == Phase::Open && now < self.common.deadline_of(claim);
        let entry = claim.shares.map_or(GateEntry::Until(claim.deadline), GateEntry::With);
        let there = answers || (claim.phase == Phase::Prepared && self.limits.gated);
        let Some(claim) = self.claims.get_mut(&vip) else { return vec![] };
        claim.addresses = addresses;
        let gate = |entry| move |a: &Address| GuardAction::Gate { ip: a.ip, entry };
        let mut actions: Vec<_> = new.iter().map(gate(SHUT)).collect();
        if there {
            actions.extend(new.iter().cloned().map(GuardAction::AddAddress));
        }
        if answers {
            self.common.is_shared_by(claim);
            actions.extend(new.iter().map(gate(entry)));
            claim.announcements = Announcements::begun(now);
            actions.push(GuardAction::Announce(claim.addresses.clone()));
        }
        actions.push(GuardAction::Notify(GuardNotice::Prepared { vip, epoch }));
        actions
    }

    fn extend(
        &mut self,
        now: Mono,
        incarnation: Incarnation,
        deadlines: &[(VipUid, Epoch, Mono)],
    ) -> Vec<GuardAction> {
        // A grant that was asked for in another session says nothing to this one.
        if self.session != Some(incarnation) {
            return vec![];
        }
        let (gated, furthest) = (self.limits.gated, now + self.limits.longest_grant);
        let others = self.claims.len();
        let mut actions = vec![];
        for (vip, epoch, deadline) in deadlines {
            let Some(claim) = self.claims.get_mut(vip).filter(|c| c.epoch == *epoch) else {
                continue;
            };
            // It was not asked for yet.
            if claim.phase == Phase::Probing {
                continue;
            }
            let deadline = furthest.min(*deadline);
            if now >= deadline {
                // Too late to answer; an open gate still has to learn of it.
                if claim.phase == Phase::Open {
                    self.common.leave(claim);
                    claim.deadline = deadline;
                }
                continue;
            }
            let opens = claim.phase != Phase::Open;
            if claim.phase == Phase::Expired || (opens && !gated) {
                actions.extend(claim.addresses.iter().cloned().map(GuardAction::AddAddress));
            }
            claim.phase = Phase::Open;
            self.common.leave(claim);
            claim.deadline = deadline;
            claim.furthest = claim.furthest.max(deadline);
            actions.extend(claim.gates(GateEntry::Until(deadline)));
            if opens {
                claim.probes = match claim.watches {
                    true => Probes::watching(now, others),
                    false => Probes::none(),
                };
                claim.announcements = Announcements::begun(now);
                actions.push(GuardAction::Announce(claim.addresses.clone()));
                let (vip, epoch) = (*vip, *epoch);
                actions.push(GuardAction::Notify(GuardNotice::Opened { vip, epoch }));
            }
        }
        actions
    }

    /// Gate shut, then address deleted, then the agent told; the claim is
    /// forgotten.
    fn shut(&mut self, vip: VipUid, notice: Option<GuardNotice>) -> Vec<GuardAction> {
        let Some(claim) = self.claims.remove(&vip) else {
            return notice.map(GuardAction::Notify).into_iter().collect();
        };
        let silent_at = self.common.furthest(&claim) + self.limits.gate_to_wire;
        self.departed.add(vip, &claim.addresses, silent_at, notice.as_ref());
        // Another address of it, which it had before, may answer yet.
        let notice = notice.filter(|notice| !self.departed.tell_later(vip, notice));
        let mut actions: Vec<_> = claim.gates(SHUT).collect();
        actions.extend(claim.addresses.into_iter().map(GuardAction::DeleteAddress));
        actions.extend(notice.map(GuardAction::Notify));
        actions
    }

    fn release(&mut self, vip: VipUid, epoch: Epoch) -> Vec<GuardAction> {
        let floor = self.floors.entry(vip).or_default();
        *floor = epoch.max(*floor);
        let notice = GuardNotice::Released { vip, epoch };
        if self.claims.get(&vip).is_some_and(|claim| claim.epoch <= epoch) {
            return self.shut(vip, Some(notice));
        }
        // It may be on its way out already.
        if self.departed.tell_later(vip, &notice) {
            return vec![];
        }
        vec![GuardAction::Notify(notice)]
    }

    fn let_go_of_all(&mut self) -> Vec<GuardAction> {
        let claims = std::mem::take(&mut self.claims).into_iter();
        let actions = gates_first(claims.flat_map(|(vip, claim)| {
            self.floors.insert(vip, claim.epoch);
            let silent_at = self.common.furthest(&claim) + self.limits.gate_to_wire;
            self.departed.add(vip, &claim.addresses, silent_at, None);
            let gates: Vec<_> = claim.gates(SHUT).collect();
            gates.into_iter().chain(claim.addresses.into_iter().map(GuardAction::DeleteAddress))
        }));
        // Who was to be told is gone.
        self.departed.forget_notices();
        let at_once = self.common.shut();
        at_once.into_iter().chain(actions).collect()
    }

    fn tick(&mut self, now: Mono) -> Vec<GuardAction> {
        let (mut actions, mut deletions, mut notices) = (vec![], vec![], vec![]);
        let (gated, others, mut ready) = (self.limits.gated, self.claims.len(), None);
        let repeat = announce_repeat(others);
        for (vip, claim) in &mut self.claims {
            if claim.phase == Phase::Probing && claim.probes.end(now) {
                ready.get_or_insert(*vip);
            } else if claim.phase != Phase::Open {
                notices.extend(claim.probe(now, *vip, gated, others));
            } else if now >= self.common.deadline_of(claim) {
                claim.phase = Phase::Expired;
                self.common.leave(claim);
                self.common.unsettle();
                actions.extend(claim.gates(SHUT));
                deletions.extend(claim.addresses.iter().cloned().map(GuardAction::DeleteAddress));
                let (vip, epoch) = (*vip, claim.epoch);
                notices.push(GuardAction::Notify(GuardNotice::Expired { vip, epoch }));
            } else {
                if claim.announcements.take_due(now, repeat, vip.0) {
                    actions.push(GuardAction::Announce(claim.addresses.clone()));
                }
                actions.extend(claim.probe(now, *vip, gated, others));
            }
        }
        // All gates first: deleting a thousand addresses takes a while.
        actions.append(&mut deletions);
        actions.append(&mut notices);
        actions.extend(self.departed.silent_by(now).into_iter().map(GuardAction::Notify));
        if now >= self.refresh_at {
            let addresses = self.wanted_addresses();
            self.refresh_at = now + renewal_interval(addresses.len(), self.limits.gated);
            if !addresses.is_empty() {
                actions.push(GuardAction::RefreshAddresses(addresses));
            }
        }
        // One at a time, at the end: what the kernel refuses of it ends the list.
        if let Some((vip, claim)) = ready.and_then(|vip| Some((vip, self.claims.get_mut(&vip)?))) {
            actions.extend(claim.probe(now, vip, gated, others));
        }
        actions
    }

    fn address_gone(&mut self, now: Mono, ip: IpAddr) -> Vec<GuardAction> {
        let (gated, common) = (self.limits.gated, &self.common);
        for claim in self.claims.values_mut() {
            let Some(address) = claim.addresses.iter().find(|a| a.ip == ip).cloned() else {
                continue;
            };
            return match claim.phase {
                Phase::Open if now < common.deadline_of(claim) => {
                    claim.announcements = Announcements::starting(now);
                    vec![GuardAction::AddAddress(address)]
                }
                Phase::Prepared if gated => vec![GuardAction::AddAddress(address)],
                Phase::Open | Phase::Probing | Phase::Prepared | Phase::Expired => vec![],
            };
        }
        vec![]
    }

    /// It does not answer here any more, whoever claims it.
    fn address_deleted(&mut self, ip: IpAddr) -> Vec<GuardAction> {
        let notices = self.departed.gone(ip);
        let mut actions: Vec<_> = notices.into_iter().map(GuardAction::Notify).collect();
        if !self.claims_ip(ip) {
            actions.push(GuardAction::Forget(ip));
        }
        actions
    }

    fn address_refused(&mut self, obstacle: Obstacle) -> Vec<GuardAction> {
        let has = |(_, claim): &(&VipUid, &Claim)| claim.has(obstacle.ip);
        let Some((vip, epoch)) = self.claims.iter().find(has).map(|(vip, c)| (*vip, c.epoch))
        else {
            return vec![];
        };
        let floor = self.floors.entry(vip).or_default();
        *floor = epoch.max(*floor);
        let why = GuardRefusal::Address(obstacle);
        self.shut(vip, Some(GuardNotice::Refused { vip, epoch, why }))
    }

    fn foreign_claim(&mut self, now: Mono, ip: IpAddr, mac: Mac) -> Vec<GuardAction> {
        let found = self.claims.iter_mut().find(|(_, claim)| claim.has(ip));
        let Some((&vip, claim)) = found else { return vec![] };
        let mut actions = vec![];
        if claim.tells(now, ip, mac) {
            let conflict = GuardNotice::Conflict { vip, epoch: claim.epoch, ip, mac };
            actions.push(GuardAction::Notify(conflict));
        }
        // One that watches does not hold out: it lets go, if it has to.
        if claim.phase != Phase::Open || claim.watches {
            return actions;
        }
        if claim.defended == Mono::ZERO || now >= claim.defended + DEFEND_INTERVAL {
            claim.defended = now;
            claim.announcements = Announcements::begun(now);
            actions.push(GuardAction::Announce(claim.addresses.clone()));
        }
        actions
    }

    fn announce_again(&mut self, now: Mono) -> Vec<GuardAction> {
        let mut actions = vec![];
        for claim in self.claims.values_mut().filter(|c| c.phase == Phase::Open) {
            claim.announcements = Announcements::begun(now);
            actions.push(GuardAction::Announce(claim.addresses.clone()));
        }
        actions
    }
}

#[cfg(test)]
mod tests;
