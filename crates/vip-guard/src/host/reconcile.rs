//! What the kernel has, compared with what it should have.

use super::Host;
use crate::kernel::{KernelError, Link};
use crate::routes::connected;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tracing::{error, info, warn};
use vip_core::{Guard, GuardEvent, LOOPBACK, Obstacle, Why, chain, renewal_interval};
use vip_datapath::{Gate, GateError};

/// What became of interfaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LinkChange {
    /// One has a link again, or another Ethernet address.
    Back,
    /// What leaves one with a VIP takes another way.
    Ways,
}

/// Everything is compared with the kernel this often, in case an event was
/// lost or somebody attached a program before ours.
pub(crate) const RECONCILE_INTERVAL: Duration = Duration::from_secs(1);

impl Host {
    pub(super) async fn look(&mut self) -> Result<(), KernelError> {
        self.view_is_old = false;
        let view = self.kernel.view(&self.links).await;
        self.view = view.inspect_err(|_| self.view_is_old = true)?;
        self.routes_are_old = true;
        self.macs = self.view.macs(&self.links, &self.vip_links);
        self.leave_view();
        Ok(())
    }

    /// Looks at the host again. Returns the addresses that are not where they
    /// belong, and whether one that could not be here may be now.
    pub(crate) async fn look_around(&mut self) -> (Vec<Obstacle>, bool) {
        if let Err(error) = self.look().await {
            error!(%error, "cannot look at the host's addresses and routes");
            return (vec![], false);
        }
        let mut astray = vec![];
        for (ip, (address, ifindex)) in &self.placed {
            let why = match self.home_of(address) {
                Ok(home) if home == *ifindex => continue,
                Ok(home) => {
                    let named = self.links.iter().find(|link| link.device.ifindex == home);
                    Why::WrongInterface(named.map(|link| link.name.clone()).unwrap_or_default())
                }
                Err(why) => why,
            };
            self.refused.insert(*ip, (address.clone(), why.clone()));
            astray.push(Obstacle { ip: *ip, why });
        }
        let may_be = self.is_less_hindered();
        if may_be {
            self.refused.clear();
        }
        self.reconcile_routes(true).await;
        (astray, may_be)
    }

    /// Adds the routes to neighbours that our addresses need, and takes away what
    /// none needs any more. `thorough`: also if nothing of ours changed.
    pub(super) async fn reconcile_routes(&mut self, thorough: bool) {
        let placed = self.placed.values().map(|(address, ifindex)| (address, *ifindex));
        let wanted = self.view.network.routes_for(placed);
        self.routes_are_old = false;
        if wanted == self.routes && (!thorough || wanted.is_empty()) {
            return;
        }
        let there = match self.kernel.our_routes().await {
            Ok(there) => there,
            Err(error) => {
                error!(%error, "cannot look at the routes");
                self.routes_are_old = true;
                return;
            }
        };
        let mut present = BTreeSet::new();
        for route in there {
            match connected(&route).filter(|route| wanted.contains(route)) {
                Some(route) => {
                    present.insert(route);
                }
                None => {
                    if let Err(error) = self.kernel.delete_route(route).await {
                        warn!(%error, "a route of ours stays behind");
                    }
                }
            }
        }
        for route in wanted.difference(&present) {
            let (_, prefix) = route;
            match self.kernel.add_route(*route).await {
                Ok(()) => info!(%prefix, "added the route to a VIP's neighbours"),
                Err(error) => warn!(%prefix, %error, "no route to a VIP's neighbours"),
            }
        }
        self.routes = wanted;
    }

    /// Puts the gate first on every interface. Returns what neighbours have to be
    /// told again for, if something.
    pub(crate) async fn reconcile_links(&mut self) -> Option<LinkChange> {
        let links = match self.kernel.links().await {
            Ok(links) => links,
            Err(error) => {
                error!(%error, "cannot list interfaces");
                return None;
            }
        };
        // With another Ethernet address it is another one to its neighbours; and
        // switches look for a VIP where its packets last came from.
        let same = |old: &Link, new: &Link| old.device == new.device && old.mac == new.mac;
        let before = |new: &Link| self.links.iter().find(|old| old.running && same(old, new));
        let has_vip = |link: &Link| self.placed.values().any(|(_, at)| *at == link.device.ifindex);
        let moved = |new: &Link| before(new).is_some_and(|old| old.ways != new.ways);
        let change = if links.iter().any(|l| l.running && before(l).is_none()) {
            Some(LinkChange::Back)
        } else {
            links.iter().any(|l| has_vip(l) && moved(l)).then_some(LinkChange::Ways)
        };
        self.links = links;
        self.vip_links.extend(self.homes.values());
        self.macs = self.view.macs(&self.links, &self.vip_links);
        if let Some(gate) = &mut self.gate {
            self.ungated.retain(|index, _| self.links.iter().any(|l| l.device.ifindex == *index));
            for link in &self.links {
                attach(gate, link, &self.stale, &mut self.ungated);
            }
        }
        change
    }

    /// How often that is worth its cost: what the kernel says of addresses is heard
    /// at once, and this is in case that something was not.
    pub(crate) fn compare_interval(&self) -> Duration {
        RECONCILE_INTERVAL.max(renewal_interval(self.placed.len(), self.gate.is_some()))
    }

    /// Compares the addresses that should be there with those that are;
    /// deletes what is too much and returns what is missing, and what is gone.
    pub(crate) async fn reconcile_addresses(&mut self, guard: &Guard) -> Vec<GuardEvent> {
        let Ok(mut there) = self.kernel.our_addresses().await else { return vec![] };
        let wanted: BTreeSet<_> = guard.wanted_addresses().into_iter().map(|a| a.ip).collect();
        // What a real server takes is no claim, unless it is held beside that.
        there.retain(|(ip, message)| {
            let nobodys = || !wanted.contains(ip) && !self.serving.knows(*ip);
            message.header.index != LOOPBACK || self.is_held_on_loopback(*ip) || nobodys()
        });
        let mut present = BTreeSet::new();
        let mut events = vec![];
        for (ip, message) in there {
            if wanted.contains(&ip) {
                present.insert(ip);
                continue;
            }
            warn!(%ip, "an address of ours that nobody wants; deleting it");
            match self.kernel.delete_message(message).await {
                Ok(()) => {
                    self.placed.remove(&ip);
                    self.routes_are_old = true;
                    events.push(GuardEvent::AddressDeleted(ip));
                }
                Err(_) => {
                    present.insert(ip);
                }
            }
        }
        events.extend(wanted.difference(&present).map(|ip| GuardEvent::AddressGone(*ip)));
        let gone = guard.departed().into_iter().filter(|ip| !present.contains(ip));
        events.extend(gone.map(GuardEvent::AddressDeleted));
        // What stayed in the gate though nobody has it here any more.
        let claimed: BTreeSet<_> = guard.gate_entries().into_iter().map(|(ip, _)| ip).collect();
        let left = self.known.iter().filter(|ip| !claimed.contains(ip) && !present.contains(ip));
        events.extend(left.copied().map(GuardEvent::AddressDeleted));
        events
    }
}

/// Puts the gate first on an interface, or takes note why it is not there.
pub(super) fn attach(
    gate: &mut Gate,
    link: &Link,
    stale: &BTreeSet<u32>,
    ungated: &mut BTreeMap<u32, String>,
) {
    let (ifindex, name) = (link.device.ifindex, &link.name);
    match gate.ensure_first(link.device, stale) {
        Ok(changed) => {
            if changed {
                info!(interface = %name, "lease gate attached");
            }
            ungated.remove(&ifindex);
        }
        // Interfaces may go at any time.
        Err(GateError::Attach { source, .. }) if source.raw_os_error() == Some(libc::ENODEV) => {}
        Err(e) => {
            let text = format!("the lease gate is not on {name}: {}", chain(&e));
            if ungated.insert(ifindex, text.clone()).as_ref() != Some(&text) {
                warn!(interface = %name, text, "no VIP can be here");
            }
        }
    }
}
