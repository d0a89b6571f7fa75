//! The gate: a map of addresses and one of the deadlines that they share, attached
//! first everywhere.

use crate::forward::{ForwardError, ForwardMaps};
use crate::inherit::Inherited;
use crate::layout::{self, Entry, Key, MacKey};
use crate::netfilter::IpGate;
use crate::object::{LeftObject, Object, ObjectError};
use crate::tcx::{self, Hook, Trial};
use aya::Pod;
use aya::maps::{Array, HashMap as BpfMap, IterableMap, MapData, MapError};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsFd;
use std::time::Duration;
use vip_core::{GateEntry, Mac, Mono, Slot, octets};

/// What the names of all gate programs begin with, as the kernel shows them.
const NAME_PREFIX: &str = "vipd_";
/// A chain that changes under our hands is read again this often.
const MAX_RACES: usize = 8;

/// Why the gate is not in force.
#[derive(Debug, thiserror::Error)]
pub enum GateError {
    /// It is not in the kernel.
    #[error(transparent)]
    Object(#[from] ObjectError),
    /// An interface did not take it.
    #[error("interface {ifindex} did not take the lease gate; tcx needs Linux 6.6 or later")]
    Attach {
        /// The interface.
        ifindex: u32,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Its packets begin with something that the gate cannot parse.
    #[error(
        "interface {ifindex} has packets of hardware type {kind}, which the lease gate cannot parse"
    )]
    Header {
        /// The interface.
        ifindex: u32,
        /// `ARPHRD_*`.
        kind: u16,
    },
    /// The kernel does not fall silent when this process expects it to.
    #[error(
        "the lease gate does not follow this process's clock: the kernel's CLOCK_BOOTTIME is \
         another one here. Run vipd outside of time namespaces with an offset"
    )]
    Clock,
    /// Netfilter did not take it.
    #[error("the second gate, on IP, was not taken; it needs Linux 6.4 with its own BTF")]
    Ip(#[source] io::Error),
    /// It could not be tried.
    #[error("the lease gate could not be tried")]
    Trial(#[source] io::Error),
    /// An entry could not be written.
    #[error("the gate's entry for {ip} could not be written")]
    Entry {
        /// The address.
        ip: IpAddr,
        /// Why.
        #[source]
        source: Box<MapError>,
    },
    /// Whose packets real servers take was not written.
    #[error("whose packets real servers on this host take was not written to the kernel")]
    Senders(#[source] Box<MapError>),
    /// A deadline that addresses share could not be written.
    #[error("deadline {} of the gate could not be written", slot.0)]
    Deadline {
        slot: Slot,
        /// Why.
        #[source]
        source: Box<MapError>,
    },
}

impl GateError {
    /// Whether another gate is there already: netfilter takes one at a place.
    #[must_use]
    pub fn is_taken(&self) -> bool {
        matches!(self, Self::Ip(e) if e.raw_os_error() == Some(libc::EBUSY))
    }
}

/// What an interface's packets begin with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Header {
    /// An Ethernet header.
    Ethernet,
    /// The IP header.
    None,
    /// Something else, of this type (`ARPHRD_*`). The gate would look for
    /// addresses in the wrong place.
    Other(u16),
}

/// An interface that packets of a VIP can pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Device {
    /// Its index.
    pub ifindex: u32,
    /// What its packets begin with.
    pub header: Header,
}

/// The loaded gate. Its programs stay in the kernel when it is dropped.
pub struct Gate {
    object: Object,
    /// Until somebody forwards by them.
    forward: Option<ForwardMaps>,
    entries: BpfMap<MapData, Key, Entry>,
    shared: Array<MapData, u64>,
    members: BpfMap<MapData, MacKey, u32>,
    behind: BpfMap<MapData, u32, u32>,
    /// Addresses that a real server on this host is to take, and until when it does.
    served: BTreeMap<IpAddr, Mono>,
    /// Kernel ids of the programs of this gate.
    ids: BTreeSet<u32>,
    /// On IP, wherever it comes from.
    ip: Option<IpGate>,
}

/// A [`Gate`] for the next run of the process.
#[derive(Debug, Serialize, Deserialize)]
pub struct LeftGate {
    object: LeftObject,
    served: BTreeMap<IpAddr, Mono>,
    ip: Vec<Inherited>,
}

/// The two equal programs for a hook of a device.
fn twins(device: Device, hook: Hook) -> Result<[&'static str; 2], GateError> {
    Ok(match (hook, device.header) {
        (Hook::In, Header::Ethernet) => ["vipd_in_a", "vipd_in_b"],
        (Hook::Out, Header::Ethernet) => ["vipd_out_a", "vipd_out_b"],
        (Hook::In, Header::None) => ["vipd_in_l3_a", "vipd_in_l3_b"],
        (Hook::Out, Header::None) => ["vipd_out_l3_a", "vipd_out_l3_b"],
        (_, Header::Other(kind)) => {
            return Err(GateError::Header { ifindex: device.ifindex, kind });
        }
    })
}

/// Reserved (RFC 1112 section 4), so nobody's: what the gate is tried with.
const TRIAL: Ipv4Addr = Ipv4Addr::new(240, 0, 0, 1);
/// The kernel's clock may differ from this process's by no more.
const CLOCK_TOLERANCE: Duration = Duration::from_millis(1);
/// A preempted comparison is repeated this often at most.
const TRIALS: usize = 20;
/// What the program returns: a pass goes on to the next one.
const DROP: u32 = 2;

/// An Ethernet frame to an address, as short as the gate's question needs.
fn frame_to(ip: Ipv4Addr) -> [u8; 34] {
    let mut frame = [0; 34];
    frame[12] = 0x08;
    frame[14] = 0x45;
    frame[30..].copy_from_slice(&ip.octets());
    frame
}

impl Gate {
    /// Loads it, with no address in it yet.
    ///
    /// # Errors
    /// [`GateError`]; nothing is left in the kernel.
    pub fn load() -> Result<Self, GateError> {
        let mut names = vec![];
        for header in [Header::Ethernet, Header::None] {
            for hook in [Hook::In, Hook::Out] {
                names.extend(twins(Device { ifindex: 0, header }, hook)?);
            }
        }
        Self::of(Object::load(names)?, BTreeMap::new(), None)
    }

    fn of(
        object: Object,
        served: BTreeMap<IpAddr, Mono>,
        ip: Option<IpGate>,
    ) -> Result<Self, GateError> {
        Ok(Self {
            forward: Some(ForwardMaps::of(&object)?),
            entries: object.map("ENTRIES")?,
            shared: object.map("SHARED")?,
            members: object.map("MEMBERS")?,
            behind: object.map("BEHIND")?,
            served,
            ids: object.program_ids(),
            ip,
            object,
        })
    }

    /// For the next run of this process: its programs stay where they are, and what they
    /// go by.
    ///
    /// # Errors
    /// There is no room for descriptors.
    pub fn leave(&self) -> io::Result<LeftGate> {
        let ip = self.ip.as_ref().map(IpGate::leave).transpose()?;
        let (object, served) = (self.object.leave()?, self.served.clone());
        Ok(LeftGate { object, served, ip: ip.unwrap_or_default() })
    }

    /// As an earlier run of this process left it.
    ///
    /// # Errors
    /// [`GateError`]; it is out of reach then, and shuts on time.
    pub fn inherit(left: LeftGate) -> Result<Self, GateError> {
        let object = Object::inherit(left.object).map_err(ObjectError::Descriptor)?;
        let ip = IpGate::inherit(left.ip).map_err(GateError::Ip)?;
        Self::of(object, left.served, ip)
    }

    /// Holds IP packets on all interfaces as well, those to come included. Not
    /// ARP; and it falls with this process.
    ///
    /// # Errors
    /// [`GateError::Ip`]; an interface that does not take the gate itself then
    /// lets everything pass.
    pub fn hold_ip(&mut self) -> Result<(), GateError> {
        let (entries, shared) = (self.entries.map().fd().as_fd(), self.shared.map().fd().as_fd());
        self.ip = Some(IpGate::attach(entries, shared).map_err(GateError::Ip)?);
        Ok(())
    }

    /// What its programs forward by, for whoever keeps that. It can be had once.
    ///
    /// # Errors
    /// [`ForwardError::Taken`].
    pub fn take_forward_maps(&mut self) -> Result<ForwardMaps, ForwardError> {
        self.forward.take().ok_or(ForwardError::Taken)
    }

    /// Kernel ids of its programs, to be told to a later run, which may not
    /// have the rights to look at programs by id.
    #[must_use]
    pub fn program_ids(&self) -> &BTreeSet<u32> {
        &self.ids
    }

    /// Ids of all gate programs in the kernel, also of other runs and other
    /// namespaces. `None` without the right to look (`CAP_SYS_ADMIN`).
    #[must_use]
    pub fn all_program_ids() -> Option<BTreeSet<u32>> {
        let mut ids = BTreeSet::new();
        for program in aya::programs::loaded_programs() {
            let program = program.ok()?;
            if program.name_as_str().is_some_and(|name| name.starts_with(NAME_PREFIX)) {
                ids.insert(program.id());
            }
        }
        Some(ids)
    }

    /// Sets until when an address may answer.
    ///
    /// # Errors
    /// [`GateError::Entry`]; the entry before stands.
    pub fn set(&mut self, ip: IpAddr, entry: GateEntry) -> Result<(), GateError> {
        let source = |e| GateError::Entry { ip, source: Box::new(e) };
        let served = self.served.get(&ip).copied().unwrap_or(Mono::ZERO);
        self.entries.insert(octets(ip), layout::entry(entry, served), 0).map_err(source)
    }

    /// Has a direct-routing real server on this host take an address until then, whoever
    /// holds it: what members send to it, and containers of this host. It stays silent on
    /// ARP and NA. [`Mono::ZERO`]: nobody's packets; nor are any routed on from here. Until
    /// when it may be answered for is as before; shut, where the gate did not know it.
    ///
    /// # Errors
    /// [`GateError::Entry`]; nothing was changed.
    pub fn serve(&mut self, ip: IpAddr, until: Mono) -> Result<(), GateError> {
        let entry = self.entry(ip).unwrap_or(GateEntry::Until(Mono::ZERO));
        let before = self.served.insert(ip, until);
        self.set(ip, entry).inspect_err(|_| {
            match before {
                Some(until) => self.served.insert(ip, until),
                None => self.served.remove(&ip),
            };
        })
    }

    /// The end of that. Who holds the address goes on with it.
    ///
    /// # Errors
    /// [`GateError::Entry`]; it goes on.
    pub fn serve_no_more(&mut self, ip: IpAddr) -> Result<(), GateError> {
        let Some(until) = self.served.remove(&ip) else { return Ok(()) };
        let entry = self.entry(ip).unwrap_or(GateEntry::Until(Mono::ZERO));
        self.set(ip, entry).inspect_err(|_| {
            self.served.insert(ip, until);
        })
    }

    /// Those whose packets real servers on this host take, by any interface.
    ///
    /// # Errors
    /// [`GateError::Senders`]; some may be missing, or stay.
    pub fn members_are(&mut self, macs: &BTreeSet<Mac>) -> Result<(), GateError> {
        let wanted = macs.iter().map(|mac| layout::mac(*mac)).collect();
        are(&mut self.members, &wanted)
    }

    /// Interfaces that lead to containers of this host, whose packets they take as well.
    ///
    /// # Errors
    /// [`GateError::Senders`]; some may be missing, or stay.
    pub fn behind_are(&mut self, interfaces: &BTreeSet<u32>) -> Result<(), GateError> {
        are(&mut self.behind, interfaces)
    }

    /// Sets until when all addresses may answer that share a deadline.
    ///
    /// # Errors
    /// [`GateError::Deadline`]; the deadline before stands.
    pub fn share(&mut self, slot: Slot, deadline: Mono) -> Result<(), GateError> {
        let source = |e| GateError::Deadline { slot, source: Box::new(e) };
        self.shared.set(slot.0, deadline.0, 0).map_err(source)
    }

    /// Takes an address out: packets to and from it pass. One that a real server on this
    /// host takes stays in, shut.
    ///
    /// # Errors
    /// [`GateError::Entry`]; it stays as it is.
    pub fn forget(&mut self, ip: IpAddr) -> Result<(), GateError> {
        if self.served.contains_key(&ip) {
            return self.set(ip, GateEntry::Until(Mono::ZERO));
        }
        match self.entries.remove(&octets(ip)) {
            Err(MapError::KeyNotFound) | Ok(()) => Ok(()),
            Err(e) => Err(GateError::Entry { ip, source: Box::new(e) }),
        }
    }

    /// Tries the gate on a packet of its own: shut at `clock`'s present, open
    /// just before a deadline that is near.
    ///
    /// # Errors
    /// [`GateError::Clock`] if it is not so, as in a time namespace: deadlines
    /// of this process then mean another time to the kernel.
    pub fn follows(&mut self, clock: impl Fn() -> Mono) -> Result<(), GateError> {
        let mut follows = false;
        for _ in 0..TRIALS {
            self.set(TRIAL.into(), GateEntry::Until(clock()))?;
            let shut_now = self.drops(TRIAL)?;
            self.set(TRIAL.into(), GateEntry::Until(clock() + CLOCK_TOLERANCE))?;
            follows = shut_now && !self.drops(TRIAL)?;
            if follows {
                break;
            }
        }
        self.forget(TRIAL.into())?;
        follows.then_some(()).ok_or(GateError::Clock)
    }

    /// Whether a packet to this address is dropped now, as the program itself says.
    ///
    /// # Errors
    /// [`GateError::Trial`].
    pub fn drops(&mut self, ip: Ipv4Addr) -> Result<bool, GateError> {
        Ok(self.tries("vipd_in_a", &frame_to(ip))?.verdict == DROP)
    }

    /// What one of its programs does with a frame, which goes nowhere.
    ///
    /// # Errors
    /// [`GateError::Trial`].
    pub fn tries(&mut self, name: &'static str, frame: &[u8]) -> Result<Trial, GateError> {
        tcx::test_run(self.object.program_fd(name)?, frame).map_err(GateError::Trial)
    }

    /// The entry of an address, if the gate knows it.
    #[must_use]
    pub fn entry(&self, ip: IpAddr) -> Option<GateEntry> {
        layout::read(self.entries.get(&octets(ip), 0).ok()?)
    }

    /// Makes sure that this gate is the first program of the device in both
    /// directions, then removes those of `stale` gates. Returns whether
    /// anything had to be done.
    ///
    /// # Errors
    /// [`GateError::Attach`].
    pub fn ensure_first(
        &mut self,
        device: Device,
        stale: &BTreeSet<u32>,
    ) -> Result<bool, GateError> {
        let into = self.ensure_hook(device, Hook::In, stale)?;
        let out = self.ensure_hook(device, Hook::Out, stale)?;
        Ok(into || out)
    }

    fn ensure_hook(
        &mut self,
        device: Device,
        hook: Hook,
        stale: &BTreeSet<u32>,
    ) -> Result<bool, GateError> {
        let Device { ifindex, .. } = device;
        let attach = |source| GateError::Attach { ifindex, source };
        let names = twins(device, hook)?;
        let mut ids = [0; 2];
        for (id, name) in ids.iter_mut().zip(names) {
            *id = self.object.program_id(name)?;
        }
        let mut changed = false;
        for _ in 0..MAX_RACES {
            let chain = tcx::query(ifindex, hook).map_err(attach)?;
            let first = chain.programs.first().copied();
            if !ids.iter().any(|id| first == Some(*id)) {
                changed = true;
                // The one that is there stays until the other is before it.
                let absent = usize::from(chain.programs.contains(&ids[0]));
                let fd = self.object.program_fd(names[absent])?;
                tcx::attach_first(fd, ifindex, hook).map_err(attach)?;
                continue;
            }
            let over = |id: &u32| ids.contains(id) || stale.contains(id);
            let Some(at) = chain.programs.iter().skip(1).position(over) else {
                return Ok(changed);
            };
            changed = true;
            match tcx::detach_at(&chain, at + 1, ifindex, hook) {
                Err(e) if e.raw_os_error() == Some(libc::ESTALE) => {}
                result => result.map_err(attach)?,
            }
        }
        Ok(changed)
    }

    /// Takes the gate off a device, when the guard ends in order and no
    /// address is left behind.
    ///
    /// # Errors
    /// [`GateError::Attach`].
    pub fn detach(&mut self, device: Device) -> Result<(), GateError> {
        for hook in [Hook::In, Hook::Out] {
            for name in twins(device, hook)? {
                let fd = self.object.program_fd(name)?;
                match tcx::detach(fd, device.ifindex, hook) {
                    Err(e) if e.raw_os_error() != Some(libc::ENOENT) => {
                        return Err(GateError::Attach { ifindex: device.ifindex, source: e });
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }
}

/// Has a map these keys, and no others.
fn are<K: Pod + Ord>(
    map: &mut BpfMap<MapData, K, u32>,
    wanted: &BTreeSet<K>,
) -> Result<(), GateError> {
    let source = |e| GateError::Senders(Box::new(e));
    let there = map.keys().collect::<Result<BTreeSet<_>, _>>().map_err(source)?;
    for key in wanted.difference(&there) {
        map.insert(key, 1, 0).map_err(source)?;
    }
    for key in there.difference(wanted) {
        map.remove(key).map_err(source)?;
    }
    Ok(())
}
