//! What direct-routing real servers on this host take, whoever holds it: its address is on
//! loopback, and the gate, shut, lets in what members and containers of this host send. The
//! host holds it, or does not, beside that.

use super::Host;
use crate::allow::objection;
use crate::clock::boottime;
use futures_util::future::join_all;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};
use tracing::{debug, info, warn};
use vip_core::{Address, LOOPBACK, Mac, Mono, Obstacle, Why, chain};

/// Addresses on loopback go by themselves so long after the guard did, and so do those of
/// an agent that does not come back. A host that stands still for longer is no real server.
pub(crate) const LIFE: Duration = Duration::from_secs(30);
/// They are renewed this often.
const RENEWAL: Duration = Duration::from_secs(10);

/// See the module.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Serving {
    wanted: BTreeSet<Address>,
    /// Nobody wants it any more, and nobody says that it is over.
    abandoned: bool,
    /// What is in the gate, and whether it is taken: what is to be and cannot be is shut,
    /// so that it is not routed on from here.
    there: BTreeMap<IpAddr, bool>,
    /// Interfaces that lead to containers, as the gate knows them.
    behind: BTreeSet<u32>,
    /// The next run of this process renews first of all.
    #[serde(skip)]
    renewed: Option<Instant>,
}

impl Serving {
    /// Its addresses may go soon.
    pub(super) fn renew_soon(&mut self) {
        self.renewed = None;
    }

    /// Whether it is on loopback for a real server, or was.
    pub(super) fn knows(&self, ip: IpAddr) -> bool {
        self.there.contains_key(&ip)
    }

    /// Whether a real server takes it now.
    pub(super) fn takes(&self, ip: IpAddr) -> bool {
        self.there.get(&ip) == Some(&true)
    }

    pub(super) fn wanted(&self) -> &BTreeSet<Address> {
        &self.wanted
    }

    #[cfg(test)]
    pub(super) fn sample(address: &Address) -> Self {
        Self {
            wanted: [address.clone()].into(),
            abandoned: true,
            there: [(address.ip, true)].into(),
            behind: [4].into(),
            renewed: None,
        }
    }
}

/// Whether something can be taken.
enum May {
    /// By this interface the holder's packets come.
    Take(u32),
    /// Not, and it is shut here.
    Not(Why),
    /// It is the host's own matter, which the gate leaves alone.
    Never(Why),
}

impl Host {
    /// These are to be taken from now on, and no others.
    pub(crate) async fn serve(&mut self, wanted: BTreeSet<Address>) {
        (self.serving.wanted, self.serving.abandoned) = (wanted, false);
        self.serving.renewed = None;
        self.reconcile_serving().await;
    }

    /// Nobody is there any more who wants it. It is shut rather than forgotten: who holds it
    /// may send on, and it would be routed in circles.
    pub(crate) fn abandon_serving(&mut self) {
        if !self.serving.abandoned {
            self.serving.abandoned = true;
            self.serving.renewed = None;
        }
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
        // Of a VIP that is on no interface its holder's packets may come by any.
        if self.serving.wanted.iter().any(Address::is_on_loopback) {
            homes.extend(self.links.iter().map(|link| link.device.ifindex));
        }
        for address in &self.serving.wanted {
            match self.may_serve(address) {
                May::Take(_) if self.serving.abandoned => {
                    takes.insert(address.ip, Err(Why::NoGate("its agent is gone".into())));
                }
                May::Take(home) => {
                    homes.insert(home);
                    takes.insert(address.ip, Ok(()));
                }
                May::Not(why) => {
                    takes.insert(address.ip, Err(why));
                }
                May::Never(why) => {
                    debug!(ip = %address.ip, ?why, "no real server here takes it from vipd");
                }
            }
        }
        self.set_behind(homes);
        self.set_gates(&takes);
        let due = self.serving.renewed.is_none_or(|renewed| renewed.elapsed() >= RENEWAL);
        if due {
            self.serving.renewed = Some(Instant::now());
            self.renew(&takes).await;
        }
    }

    pub(super) fn is_held_on_loopback(&self, ip: IpAddr) -> bool {
        self.placed.get(&ip).is_some_and(|(_, ifindex)| *ifindex == LOOPBACK)
    }

    fn may_serve(&self, address: &Address) -> May {
        if let Some(why) = objection(&self.allow, &self.view, address.ip, address.prefix) {
            return May::Never(why);
        }
        // One without it would take everybody's packets.
        if let Some((_, text)) = self.ungated.iter().find(|(ifindex, _)| self.has_link(**ifindex)) {
            return May::Not(Why::NoGate(text.clone()));
        }
        let held_on = self.homes.get(&address.ip).copied();
        match self.view.network.place_for(address, held_on) {
            Ok(home) => May::Take(home),
            Err(why) => May::Not(why),
        }
    }

    /// Where VIPs are, and where others are reached by a gateway, no containers are, whatever
    /// kind of interface that is: a guard may run in a container itself.
    fn set_behind(&mut self, mut homes: BTreeSet<u32>) {
        let network = &self.view.network;
        let to_gateway = |(_, net): &&(u32, IpNet)| {
            net.prefix_len() > 0 && self.view.gateways.iter().any(|gateway| net.contains(gateway))
        };
        homes.extend(network.connected.iter().filter(to_gateway).map(|(index, _)| *index));
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
            let until = if why.is_ok() { boottime() + LIFE } else { Mono::ZERO };
            if let Err(error) = gate.serve(*ip, until) {
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
        let taken = |ip: &IpAddr| self.serving.there.get(ip) == Some(&true);
        let (stay, go): (Vec<IpAddr>, Vec<IpAddr>) =
            self.serving.there.keys().partition(|ip| taken(ip) && takes.contains_key(*ip));
        let kernel = &self.kernel;
        let added = stay.iter().map(|ip| async {
            let address = Address { ip: *ip, prefix: 0, interface: String::new() };
            kernel.add(&address, LOOPBACK, LIFE).await
        });
        let added = join_all(added).await;
        for (ip, result) in stay.into_iter().zip(added) {
            self.renew_gate(ip, result.map_err(Why::from));
        }
        // The host's own are left alone, whoever added them.
        let Ok(ours) = self.kernel.our_addresses().await else {
            self.serving.renewed = None;
            return;
        };
        // What is held there is the first lane's.
        let on_loopback = ours.into_iter().filter(|(ip, message)| {
            message.header.index == LOOPBACK && !self.is_held_on_loopback(*ip)
        });
        let gone =
            on_loopback.filter(|(ip, _)| !self.serving.there.contains_key(ip) || go.contains(ip));
        for (ip, message) in gone {
            if let Err(error) = self.kernel.delete_message(message).await {
                warn!(%ip, %error, "an address on loopback stays behind; it is tried again");
                self.serving.renewed = None;
                return;
            }
        }
        for ip in go.into_iter().filter(|ip| !takes.contains_key(ip)) {
            self.serves_no_more(ip);
        }
    }

    /// Without the address its packets would be routed on.
    fn renew_gate(&mut self, ip: IpAddr, added: Result<(), Why>) {
        let Some(gate) = &mut self.gate else { return };
        let until = if added.is_ok() { boottime() + LIFE } else { Mono::ZERO };
        let written = gate.serve(ip, until);
        if let Err(why) = added {
            let obstacle = Obstacle { ip, why };
            warn!(%obstacle, "no real server here takes its VIP");
        }
        if let Err(error) = written {
            warn!(%ip, error = %chain(&error), "no real server here takes its VIP for long");
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
