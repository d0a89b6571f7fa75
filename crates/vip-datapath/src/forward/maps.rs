//! The forwarder's maps: which services there are, their tables, real servers and the
//! way to them. Of the guard's second lane: nothing in it waits for the gate, nor the
//! gate for it.
//!
//! The caller gives out numbers. A table or a real server whose number may still be named
//! by a packet on its way must not be written anew: what is new has a new number, and one
//! write of a service names what is in force.

use super::layout::{self, CounterValue, PlaceKey, RangeKey, RealValue, ReplyValue, ServiceValue};
use super::values::{Place, Places, Real, Reply, Service};
use crate::map::{self, SlotMap};
use crate::object::{Object, ObjectError};
use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{Array, HashMap as BpfMap, MapData, MapError, PerCpuArray};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::os::fd::{AsFd, OwnedFd};
use vip_core::{Counter, DropReason, Mono, Protocol, octets};

/// Numbers of real servers are below this: `REALS_MOST` of `bpf/maps.h`.
pub const MOST_REALS: u32 = 16_384;
/// Numbers of tables are below this: `TABLES_MOST`.
pub const MOST_TABLES: u32 = 16_384;

/// Why a map is not as it should be.
#[derive(Debug, thiserror::Error)]
pub enum ForwardError {
    /// Somebody has them: they have one writer.
    #[error("the forwarder's maps were taken already")]
    Taken,
    /// An element was refused.
    #[error("the kernel refused an element of the forwarder's map {map}")]
    Element {
        map: &'static str,
        #[source]
        source: Box<MapError>,
    },
    /// Tables were refused.
    #[error("the kernel refused {count} tables of virtual servers")]
    Tables {
        /// How many.
        count: usize,
        #[source]
        source: io::Error,
    },
}

type Hash<K, V> = BpfMap<MapData, K, V>;
type Ranges<V> = LpmTrie<MapData, RangeKey, V>;

/// What the gate's program forwards by. The maps stay while the gate's programs do.
pub struct ForwardMaps {
    settings: Array<MapData, u64>,
    ports: Hash<PlaceKey, u32>,
    ranges: Ranges<u32>,
    services: Hash<u32, ServiceValue>,
    tables: OwnedFd,
    spoke: Hash<u32, u64>,
    reals: Hash<u32, RealValue>,
    replies: Hash<PlaceKey, ReplyValue>,
    reply_ranges: Ranges<ReplyValue>,
    own: Hash<[u8; 16], u32>,
    counters: PerCpuArray<MapData, CounterValue>,
    dropped: PerCpuArray<MapData, u64>,
    known: Known,
    /// Real servers and replies as the kernel has them, where that is certain: one that
    /// is put again as it is costs no call. A host's network is looked at often.
    written: (BTreeMap<u32, Real>, BTreeMap<Places, Reply>),
}

/// What is known of [`ForwardMaps`] beside what they hold.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Known {
    places: BTreeMap<Places, NonZeroU32>,
    replying: BTreeMap<Places, Reply>,
    used: Used,
    /// As it was written last.
    set: u64,
}

/// How much there is of what not every packet is looked up for.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
struct Used {
    ranges: usize,
    reply_ranges: usize,
    here: usize,
    elsewhere: usize,
}

impl Used {
    fn replies(&mut self, from: Places, new: Option<&Reply>, old: Option<&Reply>) {
        for (reply, is_new) in [(old, false), (new, true)] {
            let Some(reply) = reply else { continue };
            let ranges =
                if from.ports.single().is_none() { &mut self.reply_ranges } else { &mut 0 };
            let side = if reply.here { &mut self.here } else { &mut self.elsewhere };
            for count in [ranges, side] {
                *count = if is_new { *count + 1 } else { count.saturating_sub(1) };
            }
        }
    }
}

fn refused(map: &'static str) -> impl Fn(MapError) -> ForwardError {
    move |source| ForwardError::Element { map, source: Box::new(source) }
}

/// What is not there need not be taken out.
fn absent(result: Result<(), MapError>) -> Result<(), MapError> {
    match result {
        Err(MapError::KeyNotFound) => Ok(()),
        Err(MapError::SyscallError(e)) if e.io_error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        other => other,
    }
}

impl ForwardMaps {
    pub(crate) fn of(object: &Object) -> Result<Self, ObjectError> {
        let tables = object.map_fd("TABLES")?.try_clone_to_owned();
        Ok(Self {
            settings: object.map("SETTINGS")?,
            ports: object.map("PORTS")?,
            ranges: object.map("RANGES")?,
            services: object.map("SERVICES")?,
            tables: tables.map_err(ObjectError::Descriptor)?,
            spoke: object.map("SPOKE")?,
            reals: object.map("REALS")?,
            replies: object.map("REPLIES")?,
            reply_ranges: object.map("REPLY_RANGES")?,
            own: object.map("OWN")?,
            counters: object.map("COUNTERS")?,
            dropped: object.map("DROPPED")?,
            known: Known::default(),
            written: Default::default(),
        })
    }

    /// What is known of them beside what they hold, for the next run of this process.
    pub(crate) fn leave(&self) -> Known {
        self.known.clone()
    }

    /// With what an earlier run knew of the same ones.
    pub(crate) fn inherit(self, known: Known) -> Self {
        Self { known, ..self }
    }

    /// Builds tables and gives them their numbers, all in one step. One without slots
    /// frees the memory of what had its number.
    ///
    /// # Errors
    /// [`ForwardError::Tables`]; some of the first may be there, which nobody names.
    pub fn put_tables<'a>(
        &mut self,
        tables: impl IntoIterator<Item = (u32, &'a [u16])>,
    ) -> Result<(), ForwardError> {
        let built = tables.into_iter().map(|(number, slots)| Ok((number, SlotMap::of(slots)?)));
        let built: io::Result<Vec<_>> = built.collect();
        let count = built.as_ref().map_or(0, Vec::len);
        let refused = |source| ForwardError::Tables { count, source };
        map::put_tables(self.tables.as_fd(), &built.map_err(refused)?).map_err(refused)
    }

    /// Puts a real server in force, or another way to it.
    ///
    /// # Errors
    /// [`ForwardError::Element`]; the one before stands.
    pub fn put_real(&mut self, number: u32, real: &Real) -> Result<(), ForwardError> {
        let (written, _) = &mut self.written;
        if written.get(&number) == Some(real) {
            return Ok(());
        }
        written.remove(&number);
        self.reals.insert(number, layout::real(real), 0).map_err(refused("REALS"))?;
        written.insert(number, *real);
        Ok(())
    }

    /// Takes a real server out: connections that are remembered as its own go by the
    /// tables.
    ///
    /// # Errors
    /// [`ForwardError::Element`]; it stands.
    pub fn drop_real(&mut self, number: u32) -> Result<(), ForwardError> {
        self.written.0.remove(&number);
        absent(self.reals.remove(&number)).map_err(refused("REALS"))
    }

    /// Forgets what was counted for a number that is given out anew.
    ///
    /// # Errors
    /// [`ForwardError::Element`].
    pub fn count_anew(&mut self, number: u32) -> Result<(), ForwardError> {
        let none = self.counters.get(&number, 0).map_err(refused("COUNTERS"))?;
        let none = vec![CounterValue::default(); none.len()];
        let none = aya::maps::PerCpuValues::try_from(none).map_err(MapError::IoError);
        let put = none.and_then(|none| self.counters.set(number, none, 0));
        put.map_err(refused("COUNTERS"))
    }

    /// Names the tables in force, and what they are made by, in one step.
    ///
    /// # Errors
    /// [`ForwardError::Element`]; what was in force is.
    pub fn put_service(&mut self, id: NonZeroU32, service: &Service) -> Result<(), ForwardError> {
        let value = layout::service(id, service);
        self.services.insert(id.get(), value, 0).map_err(refused("SERVICES"))
    }

    /// Listens for whoever goes by a service's table before, as if somebody had at `now`.
    ///
    /// # Errors
    /// [`ForwardError::Element`].
    pub fn listen(&mut self, id: NonZeroU32, now: Mono) -> Result<(), ForwardError> {
        self.spoke.insert(id.get(), now.0, 0).map_err(refused("SPOKE"))
    }

    /// Listens no more.
    ///
    /// # Errors
    /// [`ForwardError::Element`].
    pub fn listen_no_more(&mut self, id: NonZeroU32) -> Result<(), ForwardError> {
        absent(self.spoke.remove(&id.get())).map_err(refused("SPOKE"))
    }

    /// When somebody last went by a service's table before, since that is listened for.
    ///
    /// # Errors
    /// [`ForwardError::Element`].
    pub fn spoke(&self, id: NonZeroU32) -> Result<Mono, ForwardError> {
        self.spoke.get(&id.get(), 0).map(Mono).map_err(refused("SPOKE"))
    }

    /// Takes a service out. Where places still name it, its packets are dropped.
    ///
    /// # Errors
    /// [`ForwardError::Element`]; it stands.
    pub fn drop_service(&mut self, id: NonZeroU32) -> Result<(), ForwardError> {
        absent(self.services.remove(&id.get())).map_err(refused("SERVICES"))
    }

    /// From now on packets to these ports are the service's.
    ///
    /// # Errors
    /// [`ForwardError::Element`]; some of the ports may be.
    pub fn open(&mut self, places: Places, id: NonZeroU32) -> Result<(), ForwardError> {
        let Places { ip, protocol, ports } = places;
        if self.known.places.insert(places, id).is_none() {
            self.known.used.ranges += usize::from(ports.single().is_none());
        }
        // By this the rest of a datagram is known to be a service's.
        let any = Key::new(layout::BEFORE_PORT, layout::range(ip, protocol, 0));
        self.ranges.insert(&any, 0, 0).map_err(refused("RANGES"))?;
        match ports.single() {
            Some(port) => {
                let place = layout::place(Place { ip, protocol, port });
                self.ports.insert(place, id.get(), 0).map_err(refused("PORTS"))?;
            }
            None => {
                for key in keys(places) {
                    self.ranges.insert(&key, id.get(), 0).map_err(refused("RANGES"))?;
                }
            }
        }
        self.set()
    }

    /// From now on packets to these ports pass, as the host's own, but for those that are
    /// other places' as well.
    ///
    /// # Errors
    /// [`ForwardError::Element`]; some of the ports may be the service's still.
    pub fn close(&mut self, places: Places) -> Result<(), ForwardError> {
        let Places { ip, protocol, ports } = places;
        if self.known.places.remove(&places).is_some() {
            self.known.used.ranges -= usize::from(ports.single().is_none());
        }
        let beside: Vec<_> = beside(self.known.places.keys(), places).collect();
        match ports.single() {
            Some(port) => {
                let place = layout::place(Place { ip, protocol, port });
                absent(self.ports.remove(&place)).map_err(refused("PORTS"))?;
            }
            None => {
                for key in keys_beyond(places, &beside) {
                    absent(self.ranges.remove(&key)).map_err(refused("RANGES"))?;
                }
            }
        }
        if beside.is_empty() {
            let any = Key::new(layout::BEFORE_PORT, layout::range(ip, protocol, 0));
            absent(self.ranges.remove(&any)).map_err(refused("RANGES"))?;
        }
        self.set()
    }

    /// The ports that are a service's.
    #[must_use]
    pub fn opened(&self, id: NonZeroU32) -> BTreeSet<Places> {
        let its = self.known.places.iter().filter(|(_, of)| **of == id);
        its.map(|(places, _)| *places).collect()
    }

    /// From where what comes is a VIP's, of these real servers.
    #[must_use]
    pub fn replies_of(&self, reals: &BTreeSet<u32>) -> BTreeSet<Places> {
        let its = self.known.replying.iter().filter(|(_, reply)| reals.contains(&reply.real));
        its.map(|(from, _)| *from).collect()
    }

    /// From now on what comes from these ports of a real server is the VIP's.
    ///
    /// # Errors
    /// [`ForwardError::Element`]; some of the ports may be.
    pub fn put_reply(&mut self, from: Places, reply: &Reply) -> Result<(), ForwardError> {
        if self.written.1.get(&from) == Some(reply) {
            return Ok(());
        }
        self.written.1.remove(&from);
        let value = layout::reply(reply);
        let old = self.known.replying.insert(from, *reply);
        self.known.used.replies(from, Some(reply), old.as_ref());
        match from.ports.single() {
            Some(port) => {
                let place = Place { ip: from.ip, protocol: from.protocol, port };
                let key = layout::place(place);
                self.replies.insert(key, value, 0).map_err(refused("REPLIES"))?;
            }
            None => {
                for key in keys(from) {
                    let put = self.reply_ranges.insert(&key, value, 0);
                    put.map_err(refused("REPLY_RANGES"))?;
                }
            }
        }
        self.set()?;
        self.written.1.insert(from, *reply);
        Ok(())
    }

    /// From now on what comes from these ports is nobody's but their host's, but for what
    /// is another reply's as well.
    ///
    /// # Errors
    /// [`ForwardError::Element`]; some of the ports may be the VIP's still.
    pub fn drop_reply(&mut self, from: Places) -> Result<(), ForwardError> {
        let old = self.known.replying.remove(&from);
        self.written.1.remove(&from);
        self.known.used.replies(from, None, old.as_ref());
        match from.ports.single() {
            Some(port) => {
                let place = Place { ip: from.ip, protocol: from.protocol, port };
                absent(self.replies.remove(&layout::place(place))).map_err(refused("REPLIES"))?;
            }
            None => {
                let beside: Vec<_> = beside(self.known.replying.keys(), from).collect();
                for key in keys_beyond(from, &beside) {
                    absent(self.reply_ranges.remove(&key)).map_err(refused("REPLY_RANGES"))?;
                }
            }
        }
        self.set()
    }

    /// The host's own addresses: what a real server sends there is for the host, which
    /// may well have asked it something.
    ///
    /// # Errors
    /// [`ForwardError::Element`]; some may be missing, or stand still.
    pub fn own(&mut self, own: &BTreeSet<IpAddr>) -> Result<(), ForwardError> {
        let wanted: BTreeSet<_> = own.iter().map(|ip| octets(*ip)).collect();
        let there: Result<BTreeSet<_>, _> = self.own.keys().collect();
        let there = there.map_err(refused("OWN"))?;
        for key in wanted.difference(&there) {
            self.own.insert(key, 1, 0).map_err(refused("OWN"))?;
        }
        for key in there.difference(&wanted) {
            absent(self.own.remove(key)).map_err(refused("OWN"))?;
        }
        Ok(())
    }

    /// What is looked up at all: packets that none of it is about leave early.
    fn set(&mut self) -> Result<(), ForwardError> {
        let Used { ranges, reply_ranges, here, elsewhere } = self.known.used;
        let flags = [
            (!self.known.places.is_empty(), 1),
            (elsewhere > 0, 2),
            (ranges > 0, 4),
            (reply_ranges > 0, 8),
            (here > 0, 16),
        ];
        let flags = flags.into_iter().filter(|(set, _)| *set).map(|(_, flag)| flag).sum::<u64>();
        if self.known.set != flags {
            self.settings.set(0, flags, 0).map_err(refused("SETTINGS"))?;
            self.known.set = flags;
        }
        Ok(())
    }

    /// What was forwarded to and from a real server.
    ///
    /// # Errors
    /// [`ForwardError::Element`].
    pub fn counter(&self, number: u32) -> Result<Counter, ForwardError> {
        let values = self.counters.get(&number, 0).map_err(refused("COUNTERS"))?;
        Ok(layout::counter(values.iter().copied()))
    }

    /// How many packets were dropped for this reason.
    ///
    /// # Errors
    /// [`ForwardError::Element`].
    pub fn dropped(&self, reason: DropReason) -> Result<u64, ForwardError> {
        let values = self.dropped.get(&(reason as u32), 0).map_err(refused("DROPPED"))?;
        Ok(values.iter().sum())
    }
}

/// Other ports of the same address.
fn beside<'a>(all: impl Iterator<Item = &'a Places>, of: Places) -> impl Iterator<Item = Places> {
    let same = move |other: &&Places| (other.ip, other.protocol) == (of.ip, of.protocol);
    all.filter(same).filter(move |other| **other != of).copied()
}

/// The prefixes that some ports in a row are.
fn keys(Places { ip, protocol, ports }: Places) -> impl Iterator<Item = Key<RangeKey>> {
    keys_of(ip, protocol, ports.prefixes())
}

/// Those of them that are none of others'.
fn keys_beyond(
    Places { ip, protocol, ports }: Places,
    beside: &[Places],
) -> impl Iterator<Item = Key<RangeKey>> {
    let ranges = beside.iter().filter(|other| other.ports.single().is_none());
    let kept: BTreeSet<_> = ranges.flat_map(|other| other.ports.prefixes()).collect();
    let own = ports.prefixes().into_iter().filter(|prefix| !kept.contains(prefix));
    keys_of(ip, protocol, own.collect())
}

fn keys_of(
    ip: IpAddr,
    protocol: Protocol,
    prefixes: Vec<(u16, u32)>,
) -> impl Iterator<Item = Key<RangeKey>> {
    let key =
        move |(port, bits)| Key::new(layout::BEFORE_PORT + bits, layout::range(ip, protocol, port));
    prefixes.into_iter().map(key)
}
