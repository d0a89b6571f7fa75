//! What direct-routing real servers on this host take, whoever holds it: its address is on
//! loopback, and the gate, shut, lets in what members send, and nothing else by the VIP's
//! interface. The host holds it, or does not, beside that.

use super::Host;
use crate::allow::objection;
use crate::kernel::LOOPBACK;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;
use tracing::{info, warn};
use vip_core::{Address, Mac, Obstacle, Why, chain};

/// It stays until it is taken away: behind the gate it is of no use to anybody else.
const FOR_EVER: Duration = Duration::MAX;

impl Host {
    /// These are to be taken from now on, and no others.
    pub(crate) async fn serve(&mut self, wanted: BTreeSet<Address>) {
        self.to_serve = wanted;
        self.reconcile_serving().await;
    }

    /// Whose packets they take.
    pub(crate) fn members_are(&mut self, macs: &BTreeSet<Mac>) {
        let Some(gate) = &mut self.gate else { return };
        if let Err(error) = gate.members_are(macs) {
            warn!(error = %chain(&error), "real servers on this host may miss a holder's packets");
        }
    }

    /// Compares what is to be taken with what is.
    pub(crate) async fn reconcile_serving(&mut self) {
        if self.to_serve.is_empty() && self.served.is_empty() {
            return;
        }
        let mut wanted = BTreeMap::new();
        for address in &self.to_serve {
            match self.may_serve(address) {
                Ok(home) => {
                    wanted.insert(address.ip, (home, address.clone()));
                }
                Err(why) if self.served.contains_key(&address.ip) => {
                    let obstacle = Obstacle { ip: address.ip, why };
                    warn!(%obstacle, "a real server here takes its VIP no more");
                }
                Err(_) => {}
            }
        }
        let there = self.kernel.our_addresses().await.unwrap_or_default();
        let there: BTreeSet<IpAddr> =
            there.iter().filter(|(_, m)| m.header.index == LOOPBACK).map(|(ip, _)| *ip).collect();
        for (ip, (home, address)) in &wanted {
            if self.served.get(ip) != Some(home) || !there.contains(ip) {
                self.begin_serving(address, *home).await;
            }
        }
        let over = self.served.keys().filter(|ip| !wanted.contains_key(ip)).copied();
        for ip in over.collect::<Vec<_>>() {
            self.end_serving(ip).await;
        }
    }

    /// The interface that members' packets come by, or why it cannot be.
    fn may_serve(&self, address: &Address) -> Result<u32, Why> {
        if self.gate.is_none() {
            return Err(Why::NoGate("the lease gate is not loaded".into()));
        }
        // One without it would take everybody's packets.
        if let Some((_, text)) = self.ungated.iter().find(|(ifindex, _)| self.has_link(**ifindex)) {
            return Err(Why::NoGate(text.clone()));
        }
        if let Some(why) = objection(&self.allow, &self.view, address.ip, address.prefix) {
            return Err(why);
        }
        self.view.network.place_for(address, self.homes.get(&address.ip).copied())
    }

    /// The gate before the address.
    async fn begin_serving(&mut self, address: &Address, home: u32) {
        let Some(gate) = &mut self.gate else { return };
        let ip = address.ip;
        if let Err(error) = gate.serve(ip, home) {
            warn!(%ip, error = %chain(&error), "no real server here takes its VIP");
            return;
        }
        let is_new = self.served.insert(ip, home).is_none();
        match self.kernel.add(address, LOOPBACK, FOR_EVER).await {
            Ok(()) if is_new => info!(%ip, "a real server on this host takes it"),
            Ok(()) => {}
            Err(error) => warn!(%ip, %error, "no real server here takes its VIP"),
        }
    }

    /// The address before the gate.
    async fn end_serving(&mut self, ip: IpAddr) {
        let address = Address { ip, prefix: 0, interface: String::new() };
        if let Err(error) = self.kernel.delete(&address, LOOPBACK).await {
            warn!(%ip, %error, "an address on loopback stays behind; it is tried again");
            return;
        }
        let claimed = self.known.contains(&ip);
        let Some(gate) = &mut self.gate else { return };
        let ended = gate.serve_no_more(ip);
        let ended = if claimed { ended } else { ended.and_then(|()| gate.forget(ip)) };
        match ended {
            Ok(()) => {
                self.served.remove(&ip);
                info!(%ip, "no real server on this host takes it any more");
            }
            Err(error) => warn!(%ip, error = %chain(&error), "a shut gate stays behind"),
        }
    }
}
