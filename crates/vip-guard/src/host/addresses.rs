//! Adding addresses to interfaces, and deleting them.

use super::Host;
use crate::records::Placed;
use futures_util::future::join_all;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use tracing::{info, warn};
use vip_core::{Address, GuardFailure, LOOPBACK, Obstacle, Why, address_life, chain};

/// What the kernel did not do of a list of actions.
pub(super) struct Failed {
    pub(super) list: usize,
    pub(super) failure: GuardFailure,
}

impl Host {
    /// Adds addresses of lists; returns the first of each list that cannot be.
    pub(super) async fn add(&mut self, batch: Vec<(usize, Address)>) -> Vec<Failed> {
        if batch.is_empty() {
            return vec![];
        }
        let looked = if self.view_is_old { self.look().await } else { Ok(()) };
        let kernel = self.kernel.clone();
        let mut gated = BTreeMap::new();
        let (mut refused, mut allowed) = (vec![], vec![]);
        let failed = |list, ip, why| {
            let failure = GuardFailure::Add(Obstacle { ip, why });
            Failed { list, failure }
        };
        for (list, address) in batch {
            let admitted = match &looked {
                Ok(()) => self.admit(&address, &mut gated),
                Err(e) => Err(Why::Kernel(e.to_string())),
            };
            match admitted {
                Ok(ifindex) => allowed.push((list, address, ifindex)),
                Err(why) => {
                    self.refused.insert(address.ip, (address.clone(), why.clone()));
                    refused.push(failed(list, address.ip, why));
                }
            }
        }
        self.expect(allowed.iter().map(|(_, address, ifindex)| (*ifindex, address.ip)));
        let life = address_life(1, self.gate.is_some());
        let added = allowed.iter().map(|(_, address, ifindex)| kernel.add(address, *ifindex, life));
        let added = join_all(added).await;
        if let Some((_, address, _)) = allowed.first() {
            self.look_for_marks(address.ip).await;
        }
        if added.iter().any(Result::is_err) && self.look().await.is_err() {
            warn!("what the kernel refused an address for cannot be looked for");
        }
        for ((list, address, ifindex), result) in allowed.into_iter().zip(added) {
            match result {
                Ok(()) => {
                    self.homes.insert(address.ip, ifindex);
                    self.refused.remove(&address.ip);
                    self.placed.insert(address.ip, (address, ifindex));
                    self.routes_are_old = true;
                }
                Err(e) => {
                    let why = self.place_for(&address).err().unwrap_or_else(|| e.into());
                    refused.push(failed(list, address.ip, why.clone()));
                    self.refused.insert(address.ip, (address, why));
                }
            }
        }
        refused.sort_by_key(|refused| refused.list);
        refused.dedup_by_key(|refused| refused.list);
        refused
    }

    /// Takes note of addresses before they are added: a guard that is killed
    /// leaves them behind, and the next one has to know them.
    fn expect(&mut self, placed: impl Iterator<Item = Placed>) {
        if self.ledger.marks == Some(true) {
            return;
        }
        self.ledger.placed.extend(placed);
        self.kernel.unmarked().are(self.ledger.placed.clone());
        self.ledger.store();
    }

    /// Once: does the kernel itself say which addresses are ours?
    async fn look_for_marks(&mut self, ip: IpAddr) {
        if self.ledger.marks.is_some() {
            return;
        }
        self.ledger.marks = self.kernel.keeps_marks(ip).await.ok().flatten();
        match self.ledger.marks {
            Some(true) => {
                self.ledger.clear();
                self.kernel.unmarked().are(BTreeSet::new());
            }
            Some(false) => info!("this kernel keeps no mark of addresses; they are recorded"),
            None => {}
        }
    }

    /// The interface that an address may be added to, or why there is none.
    /// `gated` knows the interfaces that the gate was found on.
    fn admit(
        &mut self,
        address: &Address,
        gated: &mut BTreeMap<u32, Option<String>>,
    ) -> Result<u32, Why> {
        let ifindex = self.place_for(address)?;
        let ungated = gated.entry(ifindex).or_insert_with(|| self.ungated(ifindex)).clone();
        let ungated = ungated.or_else(|| self.exposed_by_others());
        let unknown = || {
            let gate = self.gate.as_ref()?;
            let unknown = gate.entry(address.ip).is_none();
            unknown.then(|| "it did not take its deadline".to_owned())
        };
        match ungated.or_else(unknown) {
            Some(text) => Err(Why::NoGate(text)),
            None => Ok(ifindex),
        }
    }

    /// Why the gate would not hold addresses on an interface, if it would not.
    fn ungated(&mut self, ifindex: u32) -> Option<String> {
        // What comes for it came by another interface.
        if ifindex == LOOPBACK {
            return None;
        }
        let gate = self.gate.as_mut()?;
        let device = self.links.iter().map(|l| l.device).find(|d| d.ifindex == ifindex);
        let Some(device) = device else { return Some("its interface is gone".into()) };
        gate.ensure_first(device, &self.stale).err().map(|e| chain(&e))
    }

    /// Deletes addresses of lists; returns of each whether it is gone.
    pub(super) async fn delete(
        &mut self,
        batch: Vec<(usize, Address)>,
    ) -> Vec<(usize, IpAddr, bool)> {
        let placed = |(list, address): (usize, Address)| {
            let at = self.placed.get(&address.ip).cloned();
            (list, address.ip, at)
        };
        let batch: Vec<_> = batch.into_iter().map(placed).collect();
        let deleted = batch.iter().map(|(_, _, at)| async {
            match at {
                // A real server here goes on taking it, behind a gate that is shut to all
                // but members.
                Some((address, LOOPBACK)) if self.serving.takes(address.ip) => Ok(()),
                Some((address, ifindex)) => self.kernel.delete(address, *ifindex).await,
                // Never added by this run, so gone since its start.
                None => Ok(()),
            }
        });
        let deleted = join_all(deleted).await;
        // What claims keep for a while a real server goes on with for longer.
        if batch
            .iter()
            .any(|(_, ip, at)| matches!(at, Some((_, LOOPBACK))) && self.serving.takes(*ip))
        {
            self.serving.renew_soon();
        }
        let mut outcome = vec![];
        for ((list, ip, _), result) in batch.into_iter().zip(deleted) {
            match &result {
                Ok(()) => {
                    if let Some((_, ifindex)) = self.placed.remove(&ip) {
                        self.routes_are_old = true;
                        self.ledger.remove((ifindex, ip));
                    }
                }
                // The reconciler and valid_lft follow up.
                Err(error) => warn!(%ip, %error, "address not deleted"),
            }
            outcome.push((list, ip, result.is_ok()));
        }
        outcome
    }
}
