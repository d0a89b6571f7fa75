//! The guard's decisions: gate, address, announcement.
//!
//! ```text
//!  Prepare(epoch) ──> gate shut, then address          (nothing answers yet)
//!  Extend(deadline) ──> gate open until deadline, announce
//!  deadline passes ──> the kernel shut the gate already; delete the address
//!  Release(epoch), agent gone, stop ──> gate shut, address deleted, epoch refused
//! ```
//!
//! It does nothing on its own account except let go.

use crate::{Announcements, Epoch, Incarnation, Mono, VipUid};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

/// How often the kernel's own expiry of the addresses is put off. A third of
/// the shortest life that survives a stall.
const REFRESH_INTERVAL: Duration = Duration::from_millis(900);
/// Shortest time between two answers to foreign claims of one VIP (RFC 5227
/// §2.4 (c): at most one defence per 10 s; a burst of ours is one).
const DEFEND_INTERVAL: Duration = Duration::from_secs(10);

/// An address on an interface of this host.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Address {
    /// The address.
    pub ip: IpAddr,
    /// Its prefix length.
    pub prefix: u8,
    /// Kernel name of the interface; empty: the one with a route to it.
    pub interface: String,
}

/// What the guard was started with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// G_max: no deadline reaches further ahead than this, whatever the agent
    /// says.
    pub longest_grant: Duration,
    /// Whether the kernel enforces the deadlines. Without it an address is
    /// added only when it may answer.
    pub gated: bool,
}

/// An order of the agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum VipOrder {
    /// Make ready to answer, without answering.
    Prepare {
        /// The VIP.
        vip: VipUid,
        /// Its epoch.
        epoch: Epoch,
        /// Its addresses.
        addresses: Vec<Address>,
    },
    /// Answer until the deadlines. A deadline may also be moved back.
    Extend {
        /// The session that the grants were asked for in.
        incarnation: Incarnation,
        /// VIP, epoch, absolute deadline.
        deadlines: Vec<(VipUid, Epoch, Mono)>,
    },
    /// Stop answering, and refuse this epoch and all before it from now on.
    Release {
        /// The VIP.
        vip: VipUid,
        /// The epoch.
        epoch: Epoch,
    },
}

/// What happens to a guard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum GuardEvent {
    /// An agent connected and got this session number.
    AgentCame(Incarnation),
    /// The agent's connection ended.
    AgentGone,
    /// The agent orders.
    Order(VipOrder),
    /// Time passed.
    Tick,
    /// The kernel lost one of our addresses.
    AddressGone(IpAddr),
    /// The kernel, or the allowlist, refused an address, or its interface has
    /// no link any more.
    AddressRefused {
        /// The address.
        ip: IpAddr,
        /// Why.
        text: String,
    },
    /// Somebody else claimed one of our addresses on the wire.
    ForeignClaim(IpAddr),
    /// Peers came back: some of them may believe what was true before.
    Confirmed,
    /// An interface came back.
    LinkBack,
    /// Asked to stop.
    Stop,
}

/// Why the guard does not follow an order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum GuardRefusal {
    /// The epoch ended here, or a later one was seen.
    #[error("epoch {0} or a later one was seen already")]
    Ended(Epoch),
    /// The kernel or the allowlist refused the address.
    #[error("{ip}: {text}")]
    Address {
        /// The address.
        ip: IpAddr,
        /// Why.
        text: String,
    },
    /// Another VIP of this guard has the address.
    #[error("{0} is still another VIP's here")]
    InUse(IpAddr),
}

/// What the guard tells its agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum GuardNotice {
    /// Ready: an extension takes effect at once.
    Prepared {
        /// The VIP.
        vip: VipUid,
        /// Its epoch.
        epoch: Epoch,
    },
    /// The gate opened and the VIP was announced.
    Opened {
        /// The VIP.
        vip: VipUid,
        /// Its epoch.
        epoch: Epoch,
    },
    /// The deadline passed; the address was deleted.
    Expired {
        /// The VIP.
        vip: VipUid,
        /// Its epoch.
        epoch: Epoch,
    },
    /// Gate shut, address deleted, epoch refused from now on.
    Released {
        /// The VIP.
        vip: VipUid,
        /// The epoch.
        epoch: Epoch,
    },
    /// Not done.
    Refused {
        /// The VIP.
        vip: VipUid,
        /// Its epoch.
        epoch: Epoch,
        /// Why.
        why: GuardRefusal,
    },
    /// Somebody else claims an address of a VIP held here.
    Conflict {
        /// The VIP.
        vip: VipUid,
        /// The address.
        ip: IpAddr,
    },
    /// What could not be claimed here may be possible now.
    TryAgain,
}

/// What the guard does. In order; a failure comes back as an event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum GuardAction {
    /// Write the gate's deadline. [`Mono::ZERO`]: shut.
    Gate {
        /// The address.
        ip: IpAddr,
        /// Until when it may answer.
        deadline: Mono,
    },
    /// Add the address.
    AddAddress(Address),
    /// Delete the address.
    DeleteAddress(Address),
    /// Put off the kernel's own expiry.
    RefreshAddresses(Vec<Address>),
    /// Announce, on the wire.
    Announce(Vec<Address>),
    /// Tell the agent.
    Notify(GuardNotice),
}

/// How far a claim has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Gate shut; the address is there, or waits for the gate where there is
    /// none.
    Prepared,
    /// Answers until its deadline.
    Open,
    /// The deadline passed.
    Expired,
}

#[derive(Clone, Debug)]
struct Claim {
    epoch: Epoch,
    addresses: Vec<Address>,
    phase: Phase,
    deadline: Mono,
    announcements: Announcements,
    defended: Mono,
}

impl Claim {
    /// Whether this host answers for the address by this claim.
    fn is_open(&self, ip: IpAddr) -> bool {
        self.phase == Phase::Open && self.addresses.iter().any(|a| a.ip == ip)
    }
}

/// The guard of one host.
#[derive(Clone, Debug)]
pub struct Guard {
    limits: Limits,
    session: Option<Incarnation>,
    claims: BTreeMap<VipUid, Claim>,
    /// Epochs up to here are refused.
    floors: BTreeMap<VipUid, Epoch>,
    refresh_at: Mono,
}

impl Guard {
    /// At process start: everything that an earlier run left was purged.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            session: None,
            claims: BTreeMap::new(),
            floors: BTreeMap::new(),
            refresh_at: Mono::ZERO,
        }
    }

    /// Returns what to do, in order. Never blocks, never fails.
    pub fn step(&mut self, now: Mono, event: GuardEvent) -> Vec<GuardAction> {
        match event {
            GuardEvent::AgentCame(incarnation) => {
                let actions = self.let_go_of_all();
                self.session = Some(incarnation);
                actions
            }
            GuardEvent::AgentGone | GuardEvent::Stop => {
                self.session = None;
                self.let_go_of_all()
            }
            GuardEvent::Order(VipOrder::Prepare { vip, epoch, addresses }) => {
                self.prepare(now, vip, epoch, addresses)
            }
            GuardEvent::Order(VipOrder::Extend { incarnation, deadlines }) => {
                self.extend(now, incarnation, &deadlines)
            }
            GuardEvent::Order(VipOrder::Release { vip, epoch }) => self.release(vip, epoch),
            GuardEvent::Tick => self.tick(now),
            GuardEvent::AddressGone(ip) => self.address_gone(now, ip),
            GuardEvent::AddressRefused { ip, text } => self.address_refused(ip, &text),
            GuardEvent::ForeignClaim(ip) => self.foreign_claim(now, ip),
            GuardEvent::Confirmed => self.announce_again(now),
            GuardEvent::LinkBack => {
                let mut actions = self.announce_again(now);
                actions.push(GuardAction::Notify(GuardNotice::TryAgain));
                actions
            }
        }
    }

    /// When [`GuardEvent::Tick`] is due next, while anything is claimed.
    #[must_use]
    pub fn next_tick(&self) -> Option<Mono> {
        let due = |claim: &Claim| match claim.phase {
            Phase::Open => claim.deadline.min(claim.announcements.next()),
            Phase::Prepared | Phase::Expired => self.refresh_at,
        };
        self.claims.values().map(|claim| due(claim).min(self.refresh_at)).min()
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
            let deadline = if claim.phase == Phase::Open { claim.deadline } else { Mono::ZERO };
            claim.addresses.iter().map(|a| (a.ip, deadline)).collect::<Vec<_>>()
        };
        self.claims.values().flat_map(entries).collect()
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
            Phase::Expired => false,
        }
    }

    fn prepare(
        &mut self,
        now: Mono,
        vip: VipUid,
        epoch: Epoch,
        addresses: Vec<Address>,
    ) -> Vec<GuardAction> {
        let refuse = |why| vec![GuardAction::Notify(GuardNotice::Refused { vip, epoch, why })];
        if self.floors.get(&vip).is_some_and(|floor| epoch <= *floor) {
            return refuse(GuardRefusal::Ended(epoch));
        }
        let mut actions = vec![];
        match self.claims.get(&vip) {
            Some(claim) if claim.epoch > epoch => return refuse(GuardRefusal::Ended(claim.epoch)),
            Some(claim) if claim.epoch == epoch && claim.addresses == addresses => {
                return vec![GuardAction::Notify(GuardNotice::Prepared { vip, epoch })];
            }
            Some(claim) => {
                let earlier = claim.epoch;
                actions.extend(self.shut(vip));
                if earlier < epoch {
                    self.floors.insert(vip, earlier);
                }
            }
            None => {}
        }
        for address in &addresses {
            let has = |claim: &Claim| claim.addresses.iter().any(|a| a.ip == address.ip);
            if self.claims.values().any(has) {
                let mut refused = refuse(GuardRefusal::InUse(address.ip));
                actions.append(&mut refused);
                return actions;
            }
        }
        // The shut gate precedes the address: nothing ever answers without it.
        let shut = |a: &Address| GuardAction::Gate { ip: a.ip, deadline: Mono::ZERO };
        actions.extend(addresses.iter().map(shut));
        if self.limits.gated {
            actions.extend(addresses.iter().cloned().map(GuardAction::AddAddress));
        }
        let announcements = Announcements::starting(now);
        let (phase, deadline, defended) = (Phase::Prepared, Mono::ZERO, Mono::ZERO);
        let claim = Claim { epoch, addresses, phase, deadline, announcements, defended };
        self.claims.insert(vip, claim);
        self.refresh_at = self.refresh_at.max(now + REFRESH_INTERVAL);
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
        let mut actions = vec![];
        for (vip, epoch, deadline) in deadlines {
            let Some(claim) = self.claims.get_mut(vip).filter(|c| c.epoch == *epoch) else {
                continue;
            };
            let deadline = furthest.min(*deadline);
            if now >= deadline {
                // Too late to answer; an open gate still has to learn of it.
                if claim.phase == Phase::Open {
                    claim.deadline = deadline;
                }
                continue;
            }
            let opens = claim.phase != Phase::Open;
            if claim.phase == Phase::Expired || (opens && !gated) {
                actions.extend(claim.addresses.iter().cloned().map(GuardAction::AddAddress));
            }
            claim.phase = Phase::Open;
            claim.deadline = deadline;
            let open = |a: &Address| GuardAction::Gate { ip: a.ip, deadline };
            actions.extend(claim.addresses.iter().map(open));
            if opens {
                claim.announcements = Announcements::starting(now);
                claim.announcements.take_due(now);
                actions.push(GuardAction::Announce(claim.addresses.clone()));
                let (vip, epoch) = (*vip, *epoch);
                actions.push(GuardAction::Notify(GuardNotice::Opened { vip, epoch }));
            }
        }
        actions
    }

    /// Gate shut, then address deleted; the claim is forgotten.
    fn shut(&mut self, vip: VipUid) -> Vec<GuardAction> {
        let Some(claim) = self.claims.remove(&vip) else { return vec![] };
        let shut = |a: &Address| GuardAction::Gate { ip: a.ip, deadline: Mono::ZERO };
        let mut actions: Vec<_> = claim.addresses.iter().map(shut).collect();
        actions.extend(claim.addresses.into_iter().map(GuardAction::DeleteAddress));
        actions
    }

    fn release(&mut self, vip: VipUid, epoch: Epoch) -> Vec<GuardAction> {
        let mut actions = vec![];
        if self.claims.get(&vip).is_some_and(|claim| claim.epoch <= epoch) {
            actions = self.shut(vip);
        }
        let floor = self.floors.entry(vip).or_default();
        *floor = epoch.max(*floor);
        actions.push(GuardAction::Notify(GuardNotice::Released { vip, epoch }));
        actions
    }

    fn let_go_of_all(&mut self) -> Vec<GuardAction> {
        // All gates first: deleting a thousand addresses takes a while.
        let (gates, rest): (Vec<_>, Vec<_>) = std::mem::take(&mut self.claims)
            .into_iter()
            .flat_map(|(vip, claim)| {
                self.floors.insert(vip, claim.epoch);
                let shut = |a: &Address| GuardAction::Gate { ip: a.ip, deadline: Mono::ZERO };
                let gates: Vec<_> = claim.addresses.iter().map(shut).collect();
                gates.into_iter().chain(claim.addresses.into_iter().map(GuardAction::DeleteAddress))
            })
            .partition(|action| matches!(action, GuardAction::Gate { .. }));
        gates.into_iter().chain(rest).collect()
    }

    fn tick(&mut self, now: Mono) -> Vec<GuardAction> {
        let (mut actions, mut deletions, mut notices) = (vec![], vec![], vec![]);
        for (vip, claim) in &mut self.claims {
            if claim.phase != Phase::Open {
                continue;
            }
            if now >= claim.deadline {
                claim.phase = Phase::Expired;
                let shut = |a: &Address| GuardAction::Gate { ip: a.ip, deadline: Mono::ZERO };
                actions.extend(claim.addresses.iter().map(shut));
                deletions.extend(claim.addresses.iter().cloned().map(GuardAction::DeleteAddress));
                let (vip, epoch) = (*vip, claim.epoch);
                notices.push(GuardAction::Notify(GuardNotice::Expired { vip, epoch }));
            } else if claim.announcements.take_due(now) {
                actions.push(GuardAction::Announce(claim.addresses.clone()));
            }
        }
        // All gates first: deleting a thousand addresses takes a while.
        actions.append(&mut deletions);
        actions.append(&mut notices);
        if now >= self.refresh_at {
            self.refresh_at = now + REFRESH_INTERVAL;
            let addresses = self.wanted_addresses();
            if !addresses.is_empty() {
                actions.push(GuardAction::RefreshAddresses(addresses));
            }
        }
        actions
    }

    fn address_gone(&mut self, now: Mono, ip: IpAddr) -> Vec<GuardAction> {
        let gated = self.limits.gated;
        for claim in self.claims.values_mut() {
            let Some(address) = claim.addresses.iter().find(|a| a.ip == ip).cloned() else {
                continue;
            };
            return match claim.phase {
                Phase::Open if now < claim.deadline => {
                    claim.announcements = Announcements::starting(now);
                    vec![GuardAction::AddAddress(address)]
                }
                Phase::Prepared if gated => vec![GuardAction::AddAddress(address)],
                Phase::Open | Phase::Prepared | Phase::Expired => vec![],
            };
        }
        vec![]
    }

    fn address_refused(&mut self, ip: IpAddr, text: &str) -> Vec<GuardAction> {
        let has = |(_, claim): &(&VipUid, &Claim)| claim.addresses.iter().any(|a| a.ip == ip);
        let Some((vip, epoch)) = self.claims.iter().find(has).map(|(vip, c)| (*vip, c.epoch))
        else {
            return vec![];
        };
        let mut actions = self.shut(vip);
        let floor = self.floors.entry(vip).or_default();
        *floor = epoch.max(*floor);
        let why = GuardRefusal::Address { ip, text: text.to_owned() };
        actions.push(GuardAction::Notify(GuardNotice::Refused { vip, epoch, why }));
        actions
    }

    /// Whether this host answers for the address at the moment.
    #[must_use]
    pub fn is_open(&self, ip: IpAddr) -> bool {
        self.claims.values().any(|claim| claim.is_open(ip))
    }

    fn foreign_claim(&mut self, now: Mono, ip: IpAddr) -> Vec<GuardAction> {
        let found = self.claims.iter_mut().find(|(_, claim)| claim.is_open(ip));
        let Some((&vip, claim)) = found else { return vec![] };
        let mut actions = vec![GuardAction::Notify(GuardNotice::Conflict { vip, ip })];
        if claim.defended == Mono::ZERO || now >= claim.defended + DEFEND_INTERVAL {
            claim.defended = now;
            claim.announcements = Announcements::starting(now);
            claim.announcements.take_due(now);
            actions.push(GuardAction::Announce(claim.addresses.clone()));
        }
        actions
    }

    fn announce_again(&mut self, now: Mono) -> Vec<GuardAction> {
        let mut actions = vec![];
        for claim in self.claims.values_mut().filter(|c| c.phase == Phase::Open) {
            claim.announcements = Announcements::starting(now);
            claim.announcements.take_due(now);
            actions.push(GuardAction::Announce(claim.addresses.clone()));
        }
        actions
    }
}

#[cfg(test)]
mod tests;
