//! The second lane's work: virtual servers put in force by the engine, and what the
//! agent is told of it.

use crate::clock::boottime;
use crate::tables::Work;
use crate::told::{LeftForwarder, Told};
use crate::ways::Ways;
use std::collections::{BTreeMap, BTreeSet};
use tokio::sync::watch;
use tracing::{debug, warn};
use vip_core::{
    Address, Generation, Mono, Mutes, RealCount, ServerUid, TableNotice, TableOrder, chain,
};
use vip_datapath::ForwardEngine;

/// See the module.
pub(crate) struct Forwarder {
    /// `None`: there is no gate, whose program forwards.
    engine: Option<ForwardEngine>,
    ways: Ways,
    /// What this host takes as a real server, for the first lane, which waits for nothing.
    served: watch::Sender<BTreeSet<Address>>,
    /// By virtual server.
    serving: BTreeMap<ServerUid, Vec<Address>>,
    told: Told,
    /// Of whom the agent wants to know who is mute.
    mutes: BTreeMap<ServerUid, Mutes>,
    /// Whose turn it is.
    next_heard: Option<ServerUid>,
}

/// Counters that are read in one look at who is mute: some ms. Of more it takes several looks.
const COUNTERS: usize = 2000;

impl Forwarder {
    pub(crate) fn new(
        engine: Option<ForwardEngine>,
        ways: Ways,
        served: watch::Sender<BTreeSet<Address>>,
        told: Told,
    ) -> Self {
        Self {
            engine,
            ways,
            served,
            serving: BTreeMap::new(),
            told,
            mutes: BTreeMap::new(),
            next_heard: None,
        }
    }

    pub(crate) fn carry_out(&mut self, work: Work) -> Vec<TableNotice> {
        match work {
            Work::Tell => {
                // Whoever is told hears of flaws again.
                self.told = Told::default();
                let in_force = self.engine.as_ref().map(ForwardEngine::in_force);
                vec![TableNotice::AllInForce(in_force.unwrap_or_default())]
            }
            Work::Orders(orders) => {
                let servers: Vec<_> = orders.iter().map(TableOrder::server).collect();
                let obeyed = self.obey(orders);
                // What is in force is told with its flaws, or it would look mended.
                let mut notices = self.follow(servers);
                notices.extend(obeyed);
                notices
            }
            Work::Count(server) => vec![self.count(server)],
            Work::Listen(servers) => {
                self.mutes.retain(|server, _| servers.contains(server));
                for server in servers {
                    self.mutes.entry(server).or_default();
                }
                vec![]
            }
            Work::Hear => self.hear(),
            Work::Look => {
                self.look();
                let all = self.engine.as_ref().map(ForwardEngine::in_force);
                let mut notices = self.follow(all.unwrap_or_default().into_keys());
                notices.extend(self.listen());
                notices.extend(self.count_dropped());
                notices
            }
            Work::Leave(leaving) => {
                let engine = self.engine.as_ref().map(ForwardEngine::leave);
                leaving.leave(LeftForwarder {
                    engine,
                    told: self.told.clone(),
                    listens: self.mutes.keys().copied().collect(),
                });
                vec![]
            }
        }
    }

    fn obey(&mut self, orders: Vec<TableOrder>) -> Vec<TableNotice> {
        let Self { engine: Some(engine), ways, .. } = self else {
            return orders.iter().map(without_gate).collect();
        };
        let mut notices = vec![];
        let mut wanted = vec![];
        for order in orders {
            let server = order.server();
            match order.forwarding() {
                None => {
                    let dropped = engine.drop(server);
                    notices.push(notice(server, None, dropped.err().map(|e| chain(&e))));
                }
                Some(forwarding) => wanted.push((server, forwarding)),
            }
        }
        let generations: Vec<_> = wanted.iter().map(|(uid, all)| (*uid, all.generation)).collect();
        let results: BTreeMap<_, _> = engine.put(boottime(), ways, wanted).into_iter().collect();
        for (server, generation) in generations {
            let refused = results.get(&server).and_then(|result| result.as_ref().err());
            notices.push(notice(server, Some(generation), refused.map(|e| chain(e))));
        }
        notices
    }

    /// What became of these: what of them does not work as it did, or does again, and what
    /// this host takes as a real server of them. Costs nothing for any other.
    fn follow(&mut self, servers: impl IntoIterator<Item = ServerUid>) -> Vec<TableNotice> {
        let Some(engine) = &self.engine else { return vec![] };
        let mut notices = vec![];
        for server in servers {
            let Some(forwarding) = engine.forwarding(server) else {
                self.told.flawed.remove(&server);
                self.serving.remove(&server);
                continue;
            };
            let taken = engine.served(server, &self.ways);
            if taken.is_empty() {
                self.serving.remove(&server);
            } else {
                self.serving.insert(server, taken);
            }
            let why = self.ways.flaw(forwarding);
            if self.told.flawed.get(&server) != why.as_ref() {
                match why.clone() {
                    Some(why) => self.told.flawed.insert(server, why),
                    None => self.told.flawed.remove(&server),
                };
                notices.push(TableNotice::Flawed { server, why });
            }
        }
        let now: BTreeSet<Address> = self.serving.values().flatten().cloned().collect();
        self.served.send_if_modified(|served| {
            let changed = *served != now;
            *served = now;
            changed
        });
        notices
    }

    /// Who went by tables before since it was told last.
    fn listen(&mut self) -> Vec<TableNotice> {
        let spoke = self.engine.as_ref().map(ForwardEngine::spoke);
        let spoke = spoke.transpose().unwrap_or_else(|error| {
            warn!(error = %chain(&error), "who goes by tables before cannot be read");
            // Somebody may.
            let now = boottime();
            let told = self.told.spoke.iter();
            Some(told.map(|(server, (generation, _))| (*server, (*generation, now))).collect())
        });
        let spoke = spoke.unwrap_or_default();
        let news = spoke.iter().filter(|(server, said)| self.told.spoke.get(server) != Some(said));
        let notice = |(server, (generation, at)): (&ServerUid, &(Generation, Mono))| {
            TableNotice::Spoke { server: *server, generation: *generation, at: *at }
        };
        let notices = news.map(notice).collect();
        self.told.spoke = spoke;
        notices
    }

    /// What was dropped, if that is more than it was told.
    fn count_dropped(&mut self) -> Option<TableNotice> {
        let dropped = self.engine.as_ref()?.dropped();
        let dropped = dropped.inspect_err(|error| {
            warn!(error = %chain(error), "what was dropped cannot be read");
        });
        let dropped = dropped.ok().filter(|dropped| *dropped != self.told.dropped)?;
        self.told.dropped.clone_from(&dropped);
        Some(TableNotice::Dropped(dropped))
    }

    fn count(&self, server: ServerUid) -> TableNotice {
        let counted = self.engine.as_ref().map(|engine| engine.counters(server));
        let counted = counted.transpose().unwrap_or_else(|error| {
            warn!(?server, error = %chain(&error), "what was forwarded cannot be read");
            None
        });
        let count = |((ip, port), counter)| RealCount { ip, port, counter };
        let reals = counted.unwrap_or_default().into_iter().map(count).collect();
        TableNotice::Counted { server, reals }
    }

    /// Who is mute, of as many as a look has time for; the next one goes on there.
    fn hear(&mut self) -> Vec<TableNotice> {
        let Some(engine) = &self.engine else { return vec![] };
        let (now, first) = (boottime(), self.next_heard.take().unwrap_or(ServerUid(0)));
        let (mut notices, mut read) = (vec![], 0);
        let (behind, before) = (self.mutes.range(first..), self.mutes.range(..first));
        let turns: Vec<_> = behind.chain(before).map(|(server, _)| *server).collect();
        for server in turns {
            if read >= COUNTERS {
                self.next_heard = Some(server);
                break;
            }
            let forward = engine.forwarding(server).map(|forwarding| forwarding.forward);
            let counted = engine.counters(server).unwrap_or_else(|error| {
                warn!(?server, error = %chain(&error), "what was forwarded cannot be read");
                BTreeMap::new()
            });
            read += counted.len();
            if let Some((mutes, forward)) = self.mutes.get_mut(&server).zip(forward) {
                let mute = mutes.look(now, forward, &counted);
                if !mute.is_empty() {
                    notices.push(TableNotice::Mute(server, mute));
                }
            }
        }
        notices
    }

    fn look(&mut self) {
        let Self { engine: Some(engine), ways, .. } = self else { return };
        ways.look_again();
        if let Err(error) = engine.look(ways) {
            warn!(error = %chain(&error), "ways to real servers may be old");
        }
    }
}

fn notice(server: ServerUid, wanted: Option<Generation>, why: Option<String>) -> TableNotice {
    match why {
        None => {
            debug!(?server, ?wanted, "in force");
            TableNotice::InForce { server, generation: wanted }
        }
        Some(why) => {
            warn!(?server, why, "a virtual server is not in force as ordered");
            TableNotice::Refused { server, wanted, why }
        }
    }
}

fn without_gate(order: &TableOrder) -> TableNotice {
    let (server, wanted) = (order.server(), order.wanted());
    match wanted {
        None => TableNotice::InForce { server, generation: None },
        Some(_) => {
            let why = "this host has no lease gate, whose program forwards".to_owned();
            TableNotice::Refused { server, wanted, why }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::IpAddr;
    use std::sync::Arc;
    use vip_core::{Forward, Forwarding, Plan, Protocol, RealServer, Scheduler, TableSize};
    use vip_datapath::{Gate, Surroundings, Way, forward_engine};

    fn put(server: u64, real: IpAddr) -> Work {
        let real = RealServer { ip: real, port: 80, weight: 1 };
        let forwarding = Forwarding {
            generation: Generation(1),
            vips: vec![],
            protocol: Protocol::Tcp,
            ports: 80.into(),
            scheduler: Scheduler::Mh,
            forward: Forward::Dr,
            plan: Plan::new(server, TableSize::Tiny, vec![real]).expect("a plan"),
            before: None,
            resets: false,
        };
        Work::Orders(vec![TableOrder::Put(ServerUid(server), Box::new(forwarding))])
    }

    /// A change of one among a thousand must not cost a thousand. Needs root.
    #[test]
    fn an_order_asks_for_no_way_but_its_own() {
        let mut gate = Gate::load().expect("loaded");
        let engine = forward_engine(&mut gate).expect("its maps");
        let ways = Ways::open(Arc::default(), vec![]).expect("netlink");
        let (served, _) = watch::channel(BTreeSet::new());
        let mut forwarder = Forwarder::new(Some(engine), ways, served, Told::default());
        let [one, other]: [IpAddr; 2] = [[10, 0, 0, 11].into(), [10, 0, 0, 12].into()];
        let in_force = |server| {
            let generation = Some(Generation(1));
            [TableNotice::InForce { server: ServerUid(server), generation }]
        };
        assert_eq!(forwarder.carry_out(put(1, one)), in_force(1));
        // Whoever asked again would be told otherwise.
        forwarder.ways.pretend(one, Way::Here);
        assert_eq!(forwarder.carry_out(put(2, other)), in_force(2));
        assert_eq!(forwarder.ways.way_to(one), Way::Here);
        forwarder.carry_out(Work::Look);
        assert_ne!(forwarder.ways.way_to(one), Way::Here, "a look is for all");
    }
}
