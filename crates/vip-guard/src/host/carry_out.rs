//! Carrying out the guard's actions, many lists side by side.

use super::Host;
use super::addresses::Failed;
use crate::clock::boottime;
use crate::frames::{announcement, probe};
use futures_util::future::join_all;
use std::collections::VecDeque;
use std::mem::discriminant;
use std::net::IpAddr;
use tracing::{debug, error, warn};
use vip_core::{
    Address, GateEntry, Guard, GuardAction, GuardEvent, GuardFailure, GuardNotice, Mono, Slot,
    address_life, chain,
};

/// Goes on with what the guard does instead of the rest, if something failed.
fn instead_if_failed(
    guard: &mut Guard,
    done: Result<(), GuardFailure>,
    actions: &mut VecDeque<GuardAction>,
) {
    if let Err(failure) = done {
        *actions = guard.failed(&failure, std::mem::take(actions).into()).into();
    }
}

impl Host {
    /// Carries out lists of actions, each in its order. What they ask of the
    /// kernel at the same point goes out together: a thousand addresses take
    /// little longer than one. Returns what the agent is to be told.
    ///
    /// Addresses are deleted before others are added, because one list may add
    /// what another gives up.
    pub(crate) async fn carry_out(
        &mut self,
        guard: &mut Guard,
        lists: Vec<Vec<GuardAction>>,
    ) -> Vec<GuardNotice> {
        let mut lists: Vec<VecDeque<_>> = lists.into_iter().map(Into::into).collect();
        let mut notices = vec![];
        loop {
            let (mut deletions, mut additions) = (vec![], vec![]);
            for (list, actions) in lists.iter_mut().enumerate() {
                while let Some(action) = actions.pop_front() {
                    let kind = discriminant(&action);
                    let mut waits = false;
                    match action {
                        GuardAction::Gate { ip, entry } => {
                            let written = self.set_gate(ip, entry);
                            instead_if_failed(guard, written, actions);
                        }
                        GuardAction::Deadline { slot, deadline } => {
                            let written = self.set_deadline(slot, deadline);
                            instead_if_failed(guard, written, actions);
                        }
                        GuardAction::AddAddress(address) => {
                            additions.push((list, address));
                            waits = true;
                        }
                        GuardAction::DeleteAddress(address) => {
                            deletions.push((list, address));
                            waits = true;
                        }
                        GuardAction::Forget(ip) => self.forget(ip),
                        GuardAction::RefreshAddresses(addresses) => self.refresh(&addresses).await,
                        GuardAction::Probe(addresses) => self.probe(&addresses),
                        GuardAction::Announce(addresses) => self.announce(&addresses),
                        GuardAction::Notify(notice) => notices.push(notice),
                    }
                    if waits && actions.front().map(discriminant) != Some(kind) {
                        break;
                    }
                }
            }
            if deletions.is_empty() && additions.is_empty() {
                // Of a thousand addresses it is not worked out for each packet sent.
                if self.routes_are_old {
                    self.reconcile_routes(false).await;
                }
                return notices;
            }
            for (list, ip, deleted) in self.delete(deletions).await {
                if deleted {
                    let follow_up = guard.step(boottime(), GuardEvent::AddressDeleted(ip));
                    follow_up.into_iter().rev().for_each(|action| lists[list].push_front(action));
                } else {
                    let failure = GuardFailure::Delete { ip };
                    instead_if_failed(guard, Err(failure), &mut lists[list]);
                }
            }
            for Failed { list, failure } in self.add(additions).await {
                error!(?failure, "the kernel did not take an address");
                instead_if_failed(guard, Err(failure), &mut lists[list]);
            }
        }
    }

    fn set_gate(&mut self, ip: IpAddr, entry: GateEntry) -> Result<(), GuardFailure> {
        let Some(gate) = &mut self.gate else { return Ok(()) };
        self.known.insert(ip);
        gate.set(ip, entry).map_err(|e| {
            let text = chain(&e);
            error!(%ip, text, "gate not written");
            GuardFailure::Gate { ip, text }
        })
    }

    fn set_deadline(&mut self, slot: Slot, deadline: Mono) -> Result<(), GuardFailure> {
        let Some(gate) = &mut self.gate else { return Ok(()) };
        gate.share(slot, deadline).map_err(|e| {
            let text = chain(&e);
            error!(text, "gate not written");
            GuardFailure::Deadline { slot, text }
        })
    }

    fn forget(&mut self, ip: IpAddr) {
        let Some(gate) = &mut self.gate else { return };
        match gate.forget(ip) {
            Ok(()) => {
                self.known.remove(&ip);
                self.homes.remove(&ip);
            }
            Err(e) => warn!(%ip, error = %chain(&e), "a shut gate stays behind"),
        }
    }

    async fn refresh(&mut self, addresses: &[Address]) {
        let placed: Vec<_> = addresses.iter().filter_map(|a| self.placed.get(&a.ip)).collect();
        let life = address_life(addresses.len(), self.gate.is_some());
        let added = placed.iter().map(|(address, at)| self.kernel.add(address, *at, life));
        for result in join_all(added).await {
            if let Err(error) = result {
                warn!(%error, "life of an address not renewed");
            }
        }
    }

    /// Asks for addresses where they would be.
    fn probe(&self, addresses: &[Address]) {
        for address in addresses {
            // If it can be nowhere, adding it will say so.
            let Ok(ifindex) = self.home_of(address) else { continue };
            let link = self.links.iter().find(|l| l.device.ifindex == ifindex);
            let Some(mac) = link.and_then(|l| l.mac) else { continue };
            if let Err(error) = self.sender.send(ifindex, &probe(mac, address.ip)) {
                debug!(ip = %address.ip, %error, "probe not sent");
            }
        }
    }

    fn announce(&self, addresses: &[Address]) {
        for address in addresses {
            let Some((_, ifindex)) = self.placed.get(&address.ip) else { continue };
            let link = self.links.iter().find(|l| l.device.ifindex == *ifindex);
            let Some(mac) = link.and_then(|l| l.mac) else { continue };
            for frame in announcement(mac, address.ip) {
                if let Err(error) = self.sender.send(*ifindex, &frame) {
                    debug!(ip = %address.ip, %error, "announcement not sent; it is repeated");
                }
            }
        }
    }
}
