//! What a host forwards by: the tables of the guard's second lane, and the program that
//! reads them. They are there as long as the gate is, whatever becomes of the guard.

use std::collections::BTreeMap;
use std::net::IpAddr;
use vip_core::{Flow, Forwarding, Generation, Plan, ServerUid, TableNotice, TableOrder};

/// A real server: its address, and its port or 0.
pub(crate) type Place = (IpAddr, u16);

/// A table, slot by slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Table(Vec<Place>);

impl Table {
    pub(crate) fn of(plan: &Plan) -> Self {
        let reals = plan.reals();
        let place = |slot: &u16| reals[usize::from(*slot)].place();
        Self(plan.slots().iter().map(place).collect())
    }

    /// `None`: nobody has any of it.
    pub(crate) fn at(&self, flow: Flow, of: &Forwarding) -> Option<Place> {
        let slot = flow.slot(of.plan.seed(), of.scheduler, of.plan.size());
        self.0.get(usize::from(slot)).copied()
    }
}

/// A virtual server in force.
#[derive(Clone, Debug)]
pub(crate) struct InForce {
    pub(crate) forwarding: Forwarding,
    table: Table,
    before: Option<Table>,
    /// It was changed once: connections of its may be remembered.
    remembers: bool,
    /// Nobody, where none had any weight.
    moved: BTreeMap<Flow, Option<Place>>,
}

/// Where a packet goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sent {
    /// No virtual server has that port.
    ToTheHost,
    To(Place),
    Nowhere,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Tables(BTreeMap<ServerUid, InForce>);

impl Tables {
    pub(crate) fn in_force(&self) -> BTreeMap<ServerUid, Generation> {
        self.0.iter().map(|(uid, server)| (*uid, server.forwarding.generation)).collect()
    }

    pub(crate) fn get(&self, server: ServerUid) -> Option<&InForce> {
        self.0.get(&server)
    }

    pub(crate) fn carry_out(&mut self, order: TableOrder) -> TableNotice {
        let server = order.server();
        let generation = order.wanted();
        match order.forwarding() {
            None => {
                self.0.remove(&server);
            }
            Some(forwarding) => self.put(server, forwarding),
        }
        TableNotice::InForce { server, generation }
    }

    /// Nobody is remembered any more.
    pub(crate) fn forget(&mut self) {
        self.0.values_mut().for_each(|server| server.moved.clear());
    }

    fn put(&mut self, server: ServerUid, forwarding: Forwarding) {
        let before = forwarding.before.as_ref().map(Table::of);
        let old = self.0.remove(&server);
        let remembers = before.is_some() || old.as_ref().is_some_and(|old| old.remembers);
        let moved = old.map(|old| old.moved).unwrap_or_default();
        let table = Table::of(&forwarding.plan);
        self.0.insert(server, InForce { forwarding, table, before, remembers, moved });
    }

    /// A packet of a client to a VIP that answers here.
    pub(crate) fn send(&mut self, vip: IpAddr, port: u16, flow: Flow, opens: bool) -> Sent {
        let is_its = |server: &&mut InForce| {
            let forwarding = &server.forwarding;
            forwarding.ports.overlaps(port.into()) && forwarding.vips.iter().any(|a| a.ip == vip)
        };
        match self.0.values_mut().find(is_its) {
            None => Sent::ToTheHost,
            Some(server) => server.choose(flow, opens).map_or(Sent::Nowhere, Sent::To),
        }
    }
}

impl InForce {
    /// As the program in the kernel does it for TCP.
    fn choose(&mut self, flow: Flow, opens: bool) -> Option<Place> {
        let places = self.forwarding.places();
        let now = self.table.at(flow, &self.forwarding);
        if !self.remembers {
            return now;
        }
        let before = self.before.as_ref().map_or(now, |table| table.at(flow, &self.forwarding));
        let known = self.moved.get(&flow).copied();
        if opens {
            if known.is_some() || before != now {
                self.moved.insert(flow, now);
            }
            return now;
        }
        let is_real = |place: &Option<Place>| place.is_some_and(|place| places.contains(&place));
        if let Some(known) = known.filter(is_real) {
            return known;
        }
        if before == now {
            return now;
        }
        let real = if is_real(&before) { before } else { now };
        self.moved.insert(flow, real);
        real
    }
}
