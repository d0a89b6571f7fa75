//! What direct-routing real servers on this host take, whoever holds it: its address is on
//! loopback, and the gate, shut, lets in what members and containers of this host send. The
//! host holds it, or does not, beside that.

use super::Host;
use crate::allow::objection;
use crate::kernel::LOOPBACK;
use futures_util::future::join_all;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};
use tracing::{info, warn};
use vip_core::{Address, Mac, Obstacle, Why, chain};

/// Addresses on loopback go by themselves so long after the guard did, and so do those of
/// an agent that does not come back. A host that stands still for longer is no real server.
pub(crate) const LIFE: Duration = Duration::from_secs(30);
/// They are renewed this often.
const RENEWAL: Duration = Duration::from_secs(10);

/// See the module.
#[derive(Default)]
pub(super) struct Serving {
    wanted: BTreeSet<Address>,
    /// What is in the gate, and whether it is taken: what is to be and cannot be is shut,
    /// so that it is not routed on from here.
    there: BTreeMap<IpAddr, bool>,
    /// Interfaces that lead to containers, as the gate knows them.
    behind: BTreeSet<u32>,
    renewed: Option<Instant>,
}

impl Host {
    /// These are to be taken from now on, and no others.
    pub(crate) async fn serve(&mut self, wanted: BTreeSet<Address>) {
        self.serving.wanted = wanted;
        self.serving.renewed = None;
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
        if self.gate.is_none() || (self.serving.wanted.is_empty() && self.serving.there.is_empty())
        {
            return;
        }
        let (mut takes, mut homes) = (BTreeMap::new(), self.vip_links.clone());
        for address in &self.serving.wanted {
            let home = self.may_serve(address);
            homes.extend(home.as_ref().ok());
            takes.insert(address.ip, home.map(|_| ()));
        }
        self.set_behind(&homes);
        self.set_gates(&takes);
        let due = self.serving.renewed.is_none_or(|renewed| renewed.elapsed() >= RENEWAL);
        if due {
            self.serving.renewed = Some(Instant::now());
            self.renew(&takes).await;
        }
    }

    /// The interface that the holder's packets come by, or why it cannot be.
    fn may_serve(&self, address: &Address) -> Result<u32, Why> {
        // One without it would take everybody's packets.
        if let Some((_, text)) = self.ungated.iter().find(|(ifindex, _)| self.has_link(**ifindex)) {
            return Err(Why::NoGate(text.clone()));
        }
        if let Some(why) = objection(&self.allow, &self.view, address.ip, address.prefix) {
            return Err(why);
        }
        self.view.network.place_for(address, self.homes.get(&address.ip).copied())
    }

    /// Where VIPs are no containers are, whatever kind of interface that is: a guard may run
    /// in a container itself.
    fn set_behind(&mut self, homes: &BTreeSet<u32>) {
        let behind = self.links.iter().filter(|link| link.behind).map(|link| link.device.ifindex);
        let behind: BTreeSet<u32> = behind.filter(|index| !homes.contains(index)).collect();
        let Some(gate) = self.gate.as_mut().filter(|_| behind != self.serving.behind) else {
            return;
        };
        match gate.behind_are(&behind) {
            Ok(()) => self.serving.behind = behind,
            Err(error) => {
                warn!(error = %chain(&error), "containers may miss the real servers on this host");
            }
        }
    }

    /// The gate before the address.
    fn set_gates(&mut self, takes: &BTreeMap<IpAddr, Result<(), Why>>) {
        let Some(gate) = &mut self.gate else { return };
        for (ip, why) in takes {
            if self.serving.there.get(ip) == Some(&why.is_ok()) {
                continue;
            }
            if let Err(error) = gate.serve(*ip, why.is_ok()) {
                warn!(%ip, error = %chain(&error), "no real server here takes its VIP");
                continue;
            }
            self.serving.there.insert(*ip, why.is_ok());
            self.serving.renewed = None;
            match why {
                Ok(()) => info!(%ip, "a real server on this host takes it"),
                Err(why) => {
                    let obstacle = Obstacle { ip: *ip, why: why.clone() };
                    warn!(%obstacle, "a real server on this host does not take its VIP");
                }
            }
        }
        let is_over = |ip: &&IpAddr| !takes.contains_key(ip);
        if self.serving.there.keys().any(|ip| is_over(&ip)) {
            self.serving.renewed = None;
        }
    }

    /// Addresses that are taken are there for a while more, others not at all; those that
    /// are over leave the gate after that.
    async fn renew(&mut self, takes: &BTreeMap<IpAddr, Result<(), Why>>) {
        let kernel = &self.kernel;
        let address = |ip| Address { ip, prefix: 0, interface: String::new() };
        let taken = |ip: &IpAddr| self.serving.there.get(ip) == Some(&true);
        let (stay, go): (Vec<IpAddr>, Vec<IpAddr>) =
            self.serving.there.keys().partition(|ip| taken(ip) && takes.contains_key(*ip));
        let added = stay.iter().map(|ip| async {
            let address = address(*ip);
            kernel.add(&address, LOOPBACK, LIFE).await
        });
        for (ip, result) in stay.iter().zip(join_all(added).await) {
            if let Err(error) = result {
                warn!(%ip, %error, "no real server here takes its VIP");
            }
        }
        let deleted = go.iter().map(|ip| async {
            let address = address(*ip);
            kernel.delete(&address, LOOPBACK).await
        });
        let deleted = join_all(deleted).await;
        for (ip, result) in go.into_iter().zip(deleted) {
            match result {
                Ok(()) if !takes.contains_key(&ip) => self.serves_no_more(ip),
                Ok(()) => {}
                Err(error) => {
                    warn!(%ip, %error, "an address on loopback stays behind; it is tried again");
                    self.serving.renewed = None;
                }
            }
        }
    }

    fn serves_no_more(&mut self, ip: IpAddr) {
        let claimed = self.known.contains(&ip);
        let Some(gate) = &mut self.gate else { return };
        let ended = gate.serve_no_more(ip);
        let ended = if claimed { ended } else { ended.and_then(|()| gate.forget(ip)) };
        match ended {
            Ok(()) => {
                self.serving.there.remove(&ip);
                info!(%ip, "no real server on this host takes it any more");
            }
            Err(error) => warn!(%ip, error = %chain(&error), "a shut gate stays behind"),
        }
    }
}
