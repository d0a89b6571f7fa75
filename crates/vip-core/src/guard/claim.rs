//! One VIP on this host: how far it has come, and what it has.

use super::{Announcements, GateEntry, GuardAction, GuardNotice, Hearing, ProbeStep, Probes, Slot};
use crate::{Address, Epoch, Mac, Mono, VipUid};
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// An address that nothing passes for.
pub(super) const SHUT: GateEntry = GateEntry::Until(Mono::ZERO);

/// How far a claim has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// Others are asked for the addresses; nothing is done yet.
    Probing,
    /// Gate shut; the address is there, or waits for the gate where there is
    /// none.
    Prepared,
    /// Answers until its deadline.
    Open,
    /// The deadline passed.
    Expired,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Claim {
    pub(super) epoch: Epoch,
    pub(super) addresses: Vec<Address>,
    pub(super) phase: Phase,
    /// Its own, unless it shares one.
    pub(super) deadline: Mono,
    pub(super) shares: Option<Slot>,
    /// The largest deadline ordered for it or for what it shared before: what the
    /// gate may still hold if it does not take another.
    pub(super) furthest: Mono,
    pub(super) announcements: Announcements,
    pub(super) probes: Probes,
    /// Whether it is probed for while it answers.
    pub(super) watches: bool,
    pub(super) hearing: Hearing,
    pub(super) defended: Mono,
}

impl Claim {
    pub(super) fn has(&self, ip: IpAddr) -> bool {
        self.addresses.iter().any(|a| a.ip == ip)
    }

    /// Whether these are what it has and more.
    pub(super) fn grows(&self, addresses: &[Address]) -> bool {
        let stands = matches!(self.phase, Phase::Prepared | Phase::Open);
        stands && self.addresses.iter().all(|a| addresses.contains(a))
    }

    /// The shut gate precedes the address: nothing ever answers without it.
    pub(super) fn make_ready(&mut self, vip: VipUid, gated: bool) -> Vec<GuardAction> {
        self.phase = Phase::Prepared;
        let mut actions: Vec<_> = self.gates(SHUT).collect();
        if gated {
            actions.extend(self.addresses.iter().cloned().map(GuardAction::AddAddress));
        }
        actions.push(GuardAction::Notify(GuardNotice::Prepared { vip, epoch: self.epoch }));
        actions
    }

    /// Writes the same entry for all its addresses.
    pub(super) fn gates(&self, entry: GateEntry) -> impl Iterator<Item = GuardAction> {
        self.addresses.iter().map(move |a| GuardAction::Gate { ip: a.ip, entry })
    }

    /// Sends the probe that is due, or goes on after the last one.
    pub(super) fn probe(
        &mut self,
        now: Mono,
        vip: VipUid,
        gated: bool,
        others: usize,
    ) -> Vec<GuardAction> {
        match self.probes.step(now) {
            ProbeStep::Send => vec![GuardAction::Probe(self.addresses.clone())],
            ProbeStep::Over if self.phase == Phase::Probing => {
                self.probes = Probes::waiting(now, others);
                self.make_ready(vip, gated)
            }
            ProbeStep::Over | ProbeStep::Wait => vec![],
        }
    }

    /// Whether the agent is to hear of a foreign claim that came now.
    pub(super) fn tells(&mut self, now: Mono, ip: IpAddr, mac: Mac) -> bool {
        match self.phase {
            Phase::Probing | Phase::Prepared => {
                self.probes.next().is_some() && self.hearing.tells(now, ip, mac, true)
            }
            Phase::Open => self.hearing.tells(now, ip, mac, self.watches),
            // Whoever has it now may.
            Phase::Expired => false,
        }
    }
}
