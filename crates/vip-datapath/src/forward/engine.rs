//! Virtual servers on this host: which numbers their tables and real servers have in the
//! kernel's maps, and what is written there in which order.
//!
//! ```text
//!  1 real servers that are new       nobody names them yet
//!  2 tables that are new             all of a batch in one step
//!  3 services                        each names both of its tables in one write
//!  4 ports, and whose replies        only of a service that is whole
//!  5 what is over                    real servers first, then their numbers
//! ```
//!
//! A number is given out again once nothing in the kernel names it: a real server's when
//! it is in neither table, a table's one batch after it was last named.

use super::maps::{ForwardError, ForwardMaps, Known, MOST_REALS, MOST_TABLES};
use super::numbers::Numbers;
use super::values::{Places, Real, Reply, Service, Way};
use crate::map::NOBODY;
use serde::{Deserialize, Serialize};
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::time::Duration;
use vip_core::{
    Address, Counter, DropReason, Drops, Forward, Forwarding, Generation, Mono, Plan, Ports,
    RealServer, Scheduler, ServerUid,
};

/// A UDP flow that was silent for so long is none any more. After a change those that are
/// not known go by the table before for as long: one that speaks less often may not.
const UDP_IDLE: Duration = Duration::from_secs(60);

/// An address and port of a real server; 0: the one that the client named.
type RealPlace = (IpAddr, u16);

/// What this host's network says.
pub trait Surroundings {
    /// How a host is reached.
    fn way_to(&self, ip: IpAddr) -> Way;
    /// The interface that an address belongs on.
    fn home_of(&self, address: &Address) -> Option<u32>;
    /// The host's own addresses, VIPs not among them.
    fn own(&self) -> BTreeSet<IpAddr>;
    /// Why packets may not be sent there, or nothing.
    fn objection_to(&self, real: IpAddr) -> Option<String>;
}

/// A virtual server, as it is in the kernel.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct InForce {
    id: NonZeroU32,
    forwarding: Forwarding,
    table: u32,
    /// The same, where there is none before.
    before: u32,
    /// Its real servers, and those that only the table before names.
    reals: BTreeMap<RealPlace, u32>,
    /// It was changed once: connections of its may be remembered.
    remembers: bool,
    settles: Mono,
    /// As its forwarding, which is written without.
    resets: bool,
}

/// Why a virtual server is not in force as it was ordered. What was in force is.
#[derive(Debug, thiserror::Error)]
pub enum Unforwarded {
    /// Packets may not be sent there.
    #[error("the real server {0} {1}")]
    NotAllowed(IpAddr, String),
    /// Its helpers lack it.
    #[error(
        "this host's kernel does not rewrite IPv6 addresses with their sums (BPF_F_IPV6): that takes \
         Linux 6.16, or 6.12.35 of the longterm one; use dr"
    )]
    NoIpv6,
    /// There is room for no more.
    #[error("this host has no more numbers for {0}")]
    Full(&'static str),
    /// A map was not written.
    #[error(transparent)]
    Kernel(#[from] ForwardError),
}

/// All virtual servers of this host.
pub struct ForwardEngine {
    maps: ForwardMaps,
    books: Books,
}

/// What there is, and by which numbers.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Books {
    /// Whether the kernel rewrites IPv6 addresses.
    rewrites_ipv6: bool,
    servers: BTreeMap<ServerUid, InForce>,
    next_id: NonZeroU32,
    tables: Numbers,
    reals: Numbers,
    /// Tables that nobody names any more, and whose memory goes with the next batch.
    over: Vec<u32>,
}

/// A [`ForwardEngine`] for the next run of this process; the gate has the maps.
#[derive(Debug, Serialize, Deserialize)]
pub struct LeftEngine {
    maps: Known,
    books: Books,
}

/// What a batch writes for one server.
struct Change {
    server: ServerUid,
    next: InForce,
    taken: Taken,
    /// Connections go by another table than before from then on.
    moved_at: Option<Mono>,
}

/// Numbers that were taken for a change; each table's with its slots.
#[derive(Default)]
struct Taken {
    reals: Vec<u32>,
    tables: Vec<(u32, Vec<u16>)>,
}

/// Of what is in force and not finished: it is ordered again.
const UNFINISHED: Generation = Generation(0);

impl ForwardEngine {
    /// With nothing in force; see [`crate::forward_engine`].
    #[must_use]
    pub fn new(maps: ForwardMaps, rewrites_ipv6: bool) -> Self {
        let books = Books {
            rewrites_ipv6,
            servers: BTreeMap::new(),
            next_id: NonZeroU32::MIN,
            tables: Numbers::below(MOST_TABLES),
            reals: Numbers::below(MOST_REALS),
            over: vec![],
        };
        Self { maps, books }
    }

    /// For the next run of this process. Whatever is done after that is not known there.
    #[must_use]
    pub fn leave(&self) -> LeftEngine {
        LeftEngine { maps: self.maps.leave(), books: self.books.clone() }
    }

    /// As an earlier run left it, with the maps of the gate that it left.
    #[must_use]
    pub fn inherit(maps: ForwardMaps, left: LeftEngine) -> Self {
        let mut books = left.books;
        for server in books.servers.values_mut() {
            server.forwarding.resets = server.resets;
        }
        Self { maps: maps.inherit(left.maps), books }
    }

    /// What is in force.
    #[must_use]
    pub fn in_force(&self) -> BTreeMap<ServerUid, Generation> {
        let generation =
            |(uid, server): (&ServerUid, &InForce)| (*uid, server.forwarding.generation);
        self.books.servers.iter().map(generation).collect()
    }

    /// What is in force of a virtual server, in full.
    #[must_use]
    pub fn forwarding(&self, server: ServerUid) -> Option<&Forwarding> {
        self.books.servers.get(&server).map(|server| &server.forwarding)
    }

    /// Puts virtual servers in force, their tables in one step. Returns for each whether
    /// it is; each at most once. One that is already is not touched.
    pub fn put(
        &mut self,
        now: Mono,
        around: &impl Surroundings,
        wanted: Vec<(ServerUid, Forwarding)>,
    ) -> Vec<(ServerUid, Result<(), Unforwarded>)> {
        let mut results = vec![];
        let mut changes = vec![];
        for (server, forwarding) in wanted {
            if self.books.servers.get(&server).is_some_and(|there| there.forwarding == forwarding) {
                results.push((server, Ok(())));
                continue;
            }
            match self.prepare(now, around, server, forwarding) {
                Ok(change) => changes.push(change),
                Err(why) => results.push((server, Err(why))),
            }
        }
        // One by one where the kernel refuses some, so that the others are in force.
        let all = self.write_tables(&changes).is_ok();
        for change in changes {
            let server = change.server;
            let alone = if all { Ok(()) } else { self.write_tables(std::slice::from_ref(&change)) };
            let result = match alone {
                Ok(()) => self.enforce(around, change),
                Err(why) => {
                    self.give_back(change.taken);
                    Err(why)
                }
            };
            results.push((server, result));
        }
        results
    }

    /// Numbers and slots of what is wanted, and nothing that the kernel knows.
    fn prepare(
        &mut self,
        now: Mono,
        around: &impl Surroundings,
        server: ServerUid,
        forwarding: Forwarding,
    ) -> Result<Change, Unforwarded> {
        for (ip, _) in forwarding.places() {
            if let Some(why) = around.objection_to(ip) {
                return Err(Unforwarded::NotAllowed(ip, why));
            }
        }
        let is_v6 = forwarding.vips.iter().any(|vip| vip.ip.is_ipv6());
        if forwarding.forward == Forward::Nat && is_v6 && !self.books.rewrites_ipv6 {
            return Err(Unforwarded::NoIpv6);
        }
        let old = self.books.servers.get(&server);
        let id = old.map_or(self.books.next_id, |old| old.id);
        let mut reals = old.map(|old| old.reals.clone()).unwrap_or_default();
        let mut taken = Taken::default();
        // Also of whom the table before names alone: it may be the one in force again.
        for place in named(&forwarding) {
            if let Entry::Vacant(free) = reals.entry(place) {
                let number = self.books.reals.take();
                let Some(number) = number else {
                    self.give_back(taken);
                    return Err(Unforwarded::Full("real servers"));
                };
                free.insert(number);
                taken.reals.push(number);
            }
        }
        let plans = [Some(&forwarding.plan), forwarding.before.as_ref()];
        let mut named = vec![];
        for plan in plans.into_iter().flatten() {
            let there = self.books.servers.get(&server).and_then(|old| old.table_of(plan));
            let Some(number) = there.or_else(|| self.books.tables.take()) else {
                self.give_back(taken);
                return Err(Unforwarded::Full("tables"));
            };
            if there.is_none() {
                taken.tables.push((number, slots(plan, &reals)));
            }
            named.push(number);
        }
        let (table, before) = (named[0], named[named.len() - 1]);
        let old = self.books.servers.get(&server);
        let is_moving = match old {
            Some(old) => old.forwarding.plan != forwarding.plan,
            None => before != table,
        };
        let settles = match old {
            _ if is_moving => now + UDP_IDLE,
            Some(old) => old.settles,
            None => Mono::ZERO,
        };
        let remembers = before != table || old.is_some_and(|old| old.remembers);
        if old.is_none() {
            self.books.next_id = self.books.next_id.checked_add(1).unwrap_or(NonZeroU32::MIN);
        }
        let resets = forwarding.resets;
        let next = InForce { id, forwarding, table, before, reals, remembers, settles, resets };
        let moved_at = (is_moving && before != table).then_some(now);
        Ok(Change { server, next, taken, moved_at })
    }

    fn give_back(&mut self, Taken { reals, tables }: Taken) {
        reals.into_iter().for_each(|number| self.books.reals.give_back(number));
        tables.into_iter().for_each(|(number, _)| self.books.tables.give_back(number));
    }

    fn write_tables(&mut self, changes: &[Change]) -> Result<(), Unforwarded> {
        let built = changes.iter().flat_map(|change| &change.taken.tables);
        let built = built.map(|(number, slots)| (*number, &slots[..]));
        let over = std::mem::take(&mut self.books.over);
        let empty = over.iter().map(|number| (*number, &[][..]));
        let written = self.maps.put_tables(built.chain(empty));
        if written.is_err() {
            self.books.over = over;
        } else {
            over.into_iter().for_each(|number| self.books.tables.give_back(number));
        }
        Ok(written?)
    }

    /// Everything but the tables, which are there.
    fn enforce(&mut self, around: &impl Surroundings, change: Change) -> Result<(), Unforwarded> {
        let Change { server, mut next, taken, moved_at } = change;
        if let Err(why) = self.name(around, &next, &taken, moved_at) {
            // Nothing names them: what was in force is.
            for number in &taken.reals {
                let _ = self.maps.drop_real(*number);
            }
            self.give_back(taken);
            return Err(why);
        }
        let generation = std::mem::replace(&mut next.forwarding.generation, UNFINISHED);
        let old = self.books.servers.get(&server);
        let old_tables = old.map(|old| [old.table, old.before]).into_iter().flatten();
        let is_over = |table: &u32| ![next.table, next.before].contains(table);
        self.books.over.extend(old_tables.filter(is_over).collect::<BTreeSet<_>>());
        self.books.servers.insert(server, next);
        self.finish(around, server)?;
        if let Some(next) = self.books.servers.get_mut(&server) {
            next.forwarding.generation = generation;
        }
        Ok(())
    }

    /// Real servers first, then the service that names them in one write.
    fn name(
        &mut self,
        around: &impl Surroundings,
        next: &InForce,
        taken: &Taken,
        moved_at: Option<Mono>,
    ) -> Result<(), Unforwarded> {
        if let Some(now) = moved_at {
            self.maps.listen(next.id, now)?;
        }
        for number in &taken.reals {
            self.maps.count_anew(*number)?;
        }
        for (place, number) in next.sent_to() {
            self.maps.put_real(number, &next.real(place, around))?;
        }
        Ok(self.maps.put_service(next.id, &next.service())?)
    }

    /// Ports and replies as they are wanted, and an end to what is over.
    fn finish(&mut self, around: &impl Surroundings, server: ServerUid) -> Result<(), Unforwarded> {
        let Some(next) = self.books.servers.get_mut(&server) else { return Ok(()) };
        if next.before == next.table {
            self.maps.listen_no_more(next.id)?;
        }
        let (ports, replies) = (next.ports(), next.replies(around));
        for places in &ports {
            self.maps.open(*places, next.id)?;
        }
        for (from, reply) in &replies {
            self.maps.put_reply(*from, reply)?;
        }
        for places in self.maps.opened(next.id).difference(&ports) {
            self.maps.close(*places)?;
        }
        let numbers = next.reals.values().copied().collect();
        for from in self.maps.replies_of(&numbers) {
            if !replies.contains_key(&from) {
                self.maps.drop_reply(from)?;
            }
        }
        // Who is a real server no more is sent nothing; who is in no table has no number.
        let (wanted, named) = (next.forwarding.places(), named(&next.forwarding));
        for (place, number) in next.reals.clone() {
            if wanted.contains(&place) {
                continue;
            }
            self.maps.drop_real(number)?;
            if !named.contains(&place) {
                next.reals.remove(&place);
                self.books.reals.give_back(number);
            }
        }
        Ok(())
    }

    /// Takes a virtual server out: its packets are the host's own.
    ///
    /// # Errors
    /// [`Unforwarded::Kernel`]; some of it may be there, and is taken out when this is
    /// asked for again.
    pub fn drop(&mut self, server: ServerUid) -> Result<(), Unforwarded> {
        let Some(old) = self.books.servers.get(&server) else { return Ok(()) };
        for places in self.maps.opened(old.id) {
            self.maps.close(places)?;
        }
        let numbers = old.reals.values().copied().collect();
        for from in self.maps.replies_of(&numbers) {
            self.maps.drop_reply(from)?;
        }
        self.maps.drop_service(old.id)?;
        self.maps.listen_no_more(old.id)?;
        for number in &numbers {
            self.maps.drop_real(*number)?;
        }
        if let Some(old) = self.books.servers.remove(&server) {
            numbers.into_iter().for_each(|number| self.books.reals.give_back(number));
            self.books.over.extend(BTreeSet::from([old.table, old.before]));
        }
        Ok(())
    }

    /// The addresses that this host takes as a direct-routing real server of a virtual one.
    pub fn served(&self, server: ServerUid, around: &impl Surroundings) -> Vec<Address> {
        let is_here = |place: &RealPlace| around.way_to(place.0) == Way::Here;
        let known =
            self.books.servers.get(&server).filter(|server| {
                !server.is_nat() && server.forwarding.places().iter().any(is_here)
            });
        known.map(|server| server.forwarding.vips.clone()).unwrap_or_default()
    }

    /// When somebody last went by each table before, by virtual server; with what is in
    /// force of it.
    ///
    /// # Errors
    /// [`Unforwarded::Kernel`].
    pub fn spoke(&self) -> Result<BTreeMap<ServerUid, (Generation, Mono)>, Unforwarded> {
        let two = self.books.servers.iter().filter(|(_, server)| server.before != server.table);
        let spoke = two.map(|(uid, server)| {
            Ok((*uid, (server.forwarding.generation, self.maps.spoke(server.id)?)))
        });
        spoke.collect()
    }

    /// What the program dropped, and why.
    ///
    /// # Errors
    /// [`Unforwarded::Kernel`].
    pub fn dropped(&self) -> Result<Drops, Unforwarded> {
        let counted = DropReason::ALL.into_iter().map(|why| Ok((why, self.maps.dropped(why)?)));
        let all: Drops = counted.collect::<Result<_, ForwardError>>()?;
        Ok(all.into_iter().filter(|(_, count)| *count > 0).collect())
    }

    /// What was forwarded to each real server of a virtual one, by address and port.
    ///
    /// # Errors
    /// [`Unforwarded::Kernel`].
    pub fn counters(&self, server: ServerUid) -> Result<BTreeMap<RealPlace, Counter>, Unforwarded> {
        let reals = self.books.servers.get(&server).into_iter().flat_map(|server| &server.reals);
        reals.map(|(place, number)| Ok((*place, self.maps.counter(*number)?))).collect()
    }

    /// The host's network may be another one: ways to real servers, its own addresses.
    ///
    /// # Errors
    /// [`Unforwarded::Kernel`]; some of it may be as before.
    pub fn look(&mut self, around: &impl Surroundings) -> Result<(), Unforwarded> {
        self.maps.own(&around.own())?;
        for server in self.books.servers.values() {
            for (place, number) in server.sent_to() {
                self.maps.put_real(number, &server.real(place, around))?;
            }
            for (from, reply) in server.replies(around) {
                self.maps.put_reply(from, &reply)?;
            }
        }
        Ok(())
    }
}

/// The places that a table names.
fn named(forwarding: &Forwarding) -> BTreeSet<RealPlace> {
    let plans = [Some(&forwarding.plan), forwarding.before.as_ref()];
    let reals = plans.into_iter().flatten().flat_map(|plan| plan.reals());
    reals.map(RealServer::place).collect()
}

/// A table of real servers' numbers. Who has none is sent nothing.
fn slots(plan: &Plan, reals: &BTreeMap<RealPlace, u32>) -> Vec<u16> {
    let number = |real: &RealServer| {
        let known = reals.get(&real.place());
        known.and_then(|number| u16::try_from(*number).ok()).unwrap_or(NOBODY)
    };
    let numbers: Vec<_> = plan.reals().iter().map(number).collect();
    let dealt = plan.slots();
    if dealt.is_empty() {
        return vec![NOBODY; plan.size().slots().into()];
    }
    let of = |index: &u16| numbers.get(usize::from(*index)).copied().unwrap_or(NOBODY);
    dealt.iter().map(of).collect()
}

impl InForce {
    /// The table that was dealt from this, if it is there.
    fn table_of(&self, plan: &Plan) -> Option<u32> {
        let is_before = self.forwarding.before.as_ref() == Some(plan);
        if self.forwarding.plan == *plan {
            Some(self.table)
        } else {
            is_before.then_some(self.before)
        }
    }

    /// Whom packets are sent to, and by which numbers.
    fn sent_to(&self) -> impl Iterator<Item = (RealPlace, u32)> {
        let wanted = self.forwarding.places();
        let sent_to = self.reals.iter().filter(move |(place, _)| wanted.contains(place));
        sent_to.map(|(place, number)| (*place, *number))
    }

    fn is_nat(&self) -> bool {
        self.forwarding.forward == Forward::Nat
    }

    fn real(&self, (ip, port): RealPlace, around: &impl Surroundings) -> Real {
        let port = Some(port).filter(|port| *port != 0);
        Real { service: self.id, ip, port, way: around.way_to(ip) }
    }

    fn service(&self) -> Service {
        Service {
            seed: self.forwarding.plan.seed(),
            size: self.forwarding.plan.size(),
            by_address: self.forwarding.scheduler == Scheduler::Sh,
            nat: self.is_nat(),
            remembers: self.remembers,
            resets: self.resets,
            settles: self.settles,
            table: self.table,
            before: self.before,
        }
    }

    fn ports(&self) -> BTreeSet<Places> {
        let Forwarding { protocol, ports, .. } = self.forwarding;
        let places = |vip: &Address| Places { ip: vip.ip, protocol, ports };
        self.forwarding.vips.iter().map(places).collect()
    }

    /// Whose replies are the VIP's, by NAT: the log lets it have one address then.
    fn replies(&self, around: &impl Surroundings) -> BTreeMap<Places, Reply> {
        let vip = self.forwarding.vips.first().filter(|_| self.is_nat());
        let Some(vip) = vip else { return BTreeMap::new() };
        let ifindex = around.home_of(vip).unwrap_or(0);
        let Forwarding { protocol, ports, .. } = self.forwarding;
        let reply = |((ip, port), real): (RealPlace, u32)| {
            let here = around.way_to(ip) == Way::Here;
            let own = if port == 0 { ports } else { Ports::from(port) };
            let from = Places { ip: if here { vip.ip } else { ip }, protocol, ports: own };
            let port = ports.single().filter(|_| port != 0);
            (from, Reply { vip: vip.ip, port, ifindex, real, here })
        };
        self.sent_to().map(reply).collect()
    }
}
