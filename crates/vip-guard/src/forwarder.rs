//! The second lane's work: virtual servers put in force by the engine, and what the
//! agent is told of it.

use crate::clock::boottime;
use crate::tables::Work;
use crate::ways::Ways;
use std::collections::{BTreeMap, BTreeSet};
use tokio::sync::watch;
use tracing::{debug, warn};
use vip_core::{Address, Generation, RealCount, ServerUid, TableNotice, TableOrder, chain};
use vip_datapath::ForwardEngine;

/// See the module.
pub(crate) struct Forwarder {
    /// `None`: there is no gate, whose program forwards.
    engine: Option<ForwardEngine>,
    ways: Ways,
    /// What this host takes as a real server, for the first lane, which waits for nothing.
    served: watch::Sender<BTreeSet<Address>>,
    /// What the agent was told of what does not work.
    flawed: BTreeMap<ServerUid, String>,
}

impl Forwarder {
    pub(crate) fn new(
        engine: Option<ForwardEngine>,
        ways: Ways,
        served: watch::Sender<BTreeSet<Address>>,
    ) -> Self {
        Self { engine, ways, served, flawed: BTreeMap::new() }
    }

    pub(crate) fn carry_out(&mut self, work: Work) -> Vec<TableNotice> {
        match work {
            Work::Tell => {
                // Whoever is told hears of flaws again.
                self.flawed.clear();
                let in_force = self.engine.as_ref().map(ForwardEngine::in_force);
                vec![TableNotice::AllInForce(in_force.unwrap_or_default())]
            }
            Work::Orders(orders) => {
                let servers = orders.iter().map(TableOrder::server).collect();
                let mut notices = self.obey(orders);
                self.tell_served();
                notices.extend(self.flaws(Some(&servers)));
                notices
            }
            Work::Count(server) => vec![self.count(server)],
            Work::Look => {
                self.look();
                self.tell_served();
                self.flaws(None)
            }
        }
    }

    fn obey(&mut self, orders: Vec<TableOrder>) -> Vec<TableNotice> {
        let Self { engine: Some(engine), ways, .. } = self else {
            return orders.iter().map(without_gate).collect();
        };
        ways.look_again();
        let mut notices = vec![];
        let mut wanted = vec![];
        for order in orders {
            match order {
                TableOrder::Drop(server) => {
                    let dropped = engine.drop(server);
                    notices.push(notice(server, None, dropped.err().map(|e| chain(&e))));
                }
                TableOrder::Put(server, forwarding) => wanted.push((server, *forwarding)),
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

    /// What of these, or of all, does not work as it did, or does again.
    fn flaws(&mut self, only: Option<&BTreeSet<ServerUid>>) -> Vec<TableNotice> {
        let Some(engine) = &self.engine else { return vec![] };
        let mut notices = vec![];
        for (server, forwarding) in engine.forwardings() {
            if only.is_some_and(|only| !only.contains(&server)) {
                continue;
            }
            let why = self.ways.flaw(forwarding);
            if self.flawed.get(&server) != why.as_ref() {
                match why.clone() {
                    Some(why) => self.flawed.insert(server, why),
                    None => self.flawed.remove(&server),
                };
                notices.push(TableNotice::Flawed { server, why });
            }
        }
        let in_force = engine.in_force();
        self.flawed.retain(|server, _| in_force.contains_key(server));
        notices
    }

    fn tell_served(&self) {
        let Some(engine) = &self.engine else { return };
        let now = engine.served(&self.ways);
        self.served.send_if_modified(|served| {
            let changed = *served != now;
            *served = now;
            changed
        });
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
