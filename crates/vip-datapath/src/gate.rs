//! The gate: one map of deadlines, attached first everywhere.

use crate::tcx::{self, Hook};
use aya::maps::{HashMap as BpfMap, MapData, MapError};
use aya::programs::{ProgramError, SchedClassifier};
use aya::{Ebpf, EbpfError, EbpfLoader, VerifierLogLevel};
use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::os::fd::AsFd;
use vip_core::Mono;

const OBJECT: &[u8] = aya::include_bytes_aligned!("../bpf/gate.o");
/// What the names of all gate programs begin with, as the kernel shows them.
const NAME_PREFIX: &str = "vipd_";
/// A chain that changes under our hands is read again this often.
const MAX_RACES: usize = 8;

/// Why the gate is not in force.
#[derive(Debug, thiserror::Error)]
pub enum GateError {
    /// The kernel did not take the object.
    #[error("the kernel did not load the lease gate (it needs CAP_BPF and CAP_NET_ADMIN)")]
    Load(#[source] EbpfError),
    /// The object lacks a part: a build error.
    #[error("the lease gate's object has no {0}")]
    Missing(&'static str),
    /// A program was refused.
    #[error(
        "the kernel refused the lease gate's program {name} (it needs CAP_BPF and CAP_NET_ADMIN)"
    )]
    Program {
        /// Its name.
        name: &'static str,
        /// Why.
        #[source]
        source: Box<ProgramError>,
    },
    /// An interface did not take it.
    #[error("interface {ifindex} did not take the lease gate; tcx needs Linux 6.6 or later")]
    Attach {
        /// The interface.
        ifindex: u32,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A deadline could not be written.
    #[error("the gate's deadline for {ip} could not be written")]
    Deadline {
        /// The address.
        ip: IpAddr,
        /// Why.
        #[source]
        source: Box<MapError>,
    },
}

/// An interface that packets of a VIP can pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Device {
    /// Its index.
    pub ifindex: u32,
    /// Whether its packets begin with an Ethernet header.
    pub ethernet: bool,
}

/// The loaded gate. Its programs stay in the kernel when it is dropped.
pub struct Gate {
    bpf: Ebpf,
    deadlines: BpfMap<MapData, [u8; 16], u64>,
    /// Kernel ids of the programs of this gate.
    ids: BTreeSet<u32>,
}

fn key(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

/// The two equal programs for a hook of a device.
fn twins(device: Device, hook: Hook) -> [&'static str; 2] {
    match (hook, device.ethernet) {
        (Hook::In, true) => ["vipd_in_a", "vipd_in_b"],
        (Hook::Out, true) => ["vipd_out_a", "vipd_out_b"],
        (Hook::In, false) => ["vipd_in_l3_a", "vipd_in_l3_b"],
        (Hook::Out, false) => ["vipd_out_l3_a", "vipd_out_l3_b"],
    }
}

impl Gate {
    /// Loads it, with no address in it yet.
    ///
    /// # Errors
    /// [`GateError`]; nothing is left in the kernel.
    pub fn load() -> Result<Self, GateError> {
        // Neither the kernel's type information nor the verifier's log is
        // needed, and each costs megabytes.
        let mut bpf = EbpfLoader::new()
            .btf(None)
            .verifier_log_level(VerifierLogLevel::DISABLE)
            .load(OBJECT)
            .map_err(GateError::Load)?;
        let map = bpf.take_map("DEADLINES").ok_or(GateError::Missing("map"))?;
        let deadlines = BpfMap::try_from(map).map_err(|_| GateError::Missing("map of its type"))?;
        let mut ids = BTreeSet::new();
        for ethernet in [true, false] {
            for hook in [Hook::In, Hook::Out] {
                for name in twins(Device { ifindex: 0, ethernet }, hook) {
                    let program = Self::program_mut(&mut bpf, name)?;
                    program.load().map_err(|e| refused(name, e))?;
                    ids.insert(Self::id(program, name)?);
                }
            }
        }
        Ok(Self { bpf, deadlines, ids })
    }

    fn program_mut<'a>(
        bpf: &'a mut Ebpf,
        name: &'static str,
    ) -> Result<&'a mut SchedClassifier, GateError> {
        let program = bpf.program_mut(name).ok_or(GateError::Missing(name))?;
        program.try_into().map_err(|_| GateError::Missing(name))
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

    /// Sets until when an address may answer. [`Mono::ZERO`]: not at all.
    ///
    /// # Errors
    /// [`GateError::Deadline`]; the deadline before stands.
    pub fn set(&mut self, ip: IpAddr, deadline: Mono) -> Result<(), GateError> {
        let source = |e| GateError::Deadline { ip, source: Box::new(e) };
        self.deadlines.insert(key(ip), deadline.0, 0).map_err(source)
    }

    /// The deadline of an address, if the gate knows it.
    #[must_use]
    pub fn deadline(&self, ip: IpAddr) -> Option<Mono> {
        self.deadlines.get(&key(ip), 0).ok().map(Mono)
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
        let names = twins(device, hook);
        let mut ids = [0; 2];
        for (id, name) in ids.iter_mut().zip(names) {
            *id = Self::id(Self::program_mut(&mut self.bpf, name)?, name)?;
        }
        let mut changed = false;
        for _ in 0..MAX_RACES {
            let chain = tcx::query(ifindex, hook).map_err(attach)?;
            let first = chain.programs.first().copied();
            if !ids.iter().any(|id| first == Some(*id)) {
                changed = true;
                // The one that is there stays until the other is before it.
                let absent = usize::from(chain.programs.contains(&ids[0]));
                let program = Self::program_mut(&mut self.bpf, names[absent])?;
                let fd = program.fd().map_err(|e| refused(names[absent], e))?.as_fd();
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

    fn id(program: &SchedClassifier, name: &'static str) -> Result<u32, GateError> {
        Ok(program.info().map_err(|e| refused(name, e))?.id())
    }

    /// Takes the gate off a device, when the guard ends in order and no
    /// address is left behind.
    ///
    /// # Errors
    /// [`GateError::Attach`].
    pub fn detach(&mut self, device: Device) -> Result<(), GateError> {
        for hook in [Hook::In, Hook::Out] {
            for name in twins(device, hook) {
                let program = Self::program_mut(&mut self.bpf, name)?;
                let fd = program.fd().map_err(|e| refused(name, e))?.as_fd();
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

fn refused(name: &'static str, source: ProgramError) -> GateError {
    GateError::Program { name, source: Box::new(source) }
}
