//! The object in the kernel: its maps and programs, by name.

use crate::inherit::Inherited;
use crate::syscall::in_spite_of_signals;
use aya::maps::{Map, MapData};
use aya::programs::{ProgramError, SchedClassifier};
use aya::{EbpfError, EbpfLoader, VerifierLogLevel};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

const OBJECT: &[u8] = aya::include_bytes_aligned!("../bpf/vipd.o");

/// Why the gate's object is not in the kernel.
#[derive(Debug, thiserror::Error)]
pub enum ObjectError {
    /// The kernel did not take it.
    #[error("the kernel did not load the lease gate (it needs CAP_BPF and CAP_NET_ADMIN)")]
    Load(#[source] EbpfError),
    /// It lacks a part: a build error.
    #[error("the lease gate's object has no {0}")]
    Missing(&'static str),
    /// A program was refused.
    #[error(
        "the kernel refused the lease gate's program {name} (it needs CAP_BPF and CAP_NET_ADMIN)"
    )]
    Program {
        name: &'static str,
        /// Why.
        #[source]
        source: Box<ProgramError>,
    },
    /// There is no room for another one.
    #[error("no descriptor for a part of the lease gate")]
    Descriptor(#[source] io::Error),
}

/// See the module. Programs stay in the kernel where they are attached, and maps while
/// there is a program that uses them.
pub(crate) struct Object {
    maps: BTreeMap<String, OwnedFd>,
    programs: BTreeMap<String, Program>,
}

struct Program {
    fd: OwnedFd,
    id: u32,
}

/// An [`Object`] for the next run.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct LeftObject {
    maps: BTreeMap<String, Inherited>,
    programs: BTreeMap<String, (Inherited, u32)>,
}

/// Where the second gate is written, which is in no object.
const IP_GATE: &[u8] = include_bytes!("netfilter.rs");

/// Names what is loaded: one run goes on with what another of the same name has in the
/// kernel.
#[must_use]
pub fn object_name() -> u64 {
    // FNV-1a.
    OBJECT.iter().chain(IP_GATE).fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// The map behind a kind of map that the object has.
fn data(map: &Map) -> Option<&MapData> {
    match map {
        Map::Array(data)
        | Map::ArrayOfMaps(data)
        | Map::HashMap(data)
        | Map::LpmTrie(data)
        | Map::LruHashMap(data)
        | Map::PerCpuArray(data) => Some(data),
        _ => None,
    }
}

impl Object {
    /// Loads it, with these programs.
    ///
    /// # Errors
    /// [`ObjectError`]; nothing is left in the kernel.
    pub(crate) fn load(
        programs: impl IntoIterator<Item = &'static str>,
    ) -> Result<Self, ObjectError> {
        // Neither the kernel's type information nor the verifier's log is
        // needed, and each costs megabytes.
        let mut bpf = EbpfLoader::new()
            .btf(None)
            .verifier_log_level(VerifierLogLevel::DISABLE)
            .load(OBJECT)
            .map_err(ObjectError::Load)?;
        let mut object = Self { maps: BTreeMap::new(), programs: BTreeMap::new() };
        for (name, map) in bpf.maps() {
            if let Some(data) = data(map) {
                let fd = data.fd().as_fd().try_clone_to_owned().map_err(ObjectError::Descriptor)?;
                object.maps.insert(name.to_owned(), fd);
            }
        }
        for name in programs {
            let refused = |e| ObjectError::Program { name, source: Box::new(e) };
            let program = bpf.program_mut(name).ok_or(ObjectError::Missing(name))?;
            let program: &mut SchedClassifier =
                program.try_into().map_err(|_| ObjectError::Missing(name))?;
            in_spite_of_signals(|| program.load()).map_err(refused)?;
            let id = program.info().map_err(refused)?.id();
            let fd = program.fd().map_err(refused)?.as_fd().try_clone_to_owned();
            let fd = fd.map_err(ObjectError::Descriptor)?;
            object.programs.insert(name.to_owned(), Program { fd, id });
        }
        Ok(object)
    }

    /// A map, as what it is said to be.
    pub(crate) fn map<T: TryFrom<Map>>(&self, name: &'static str) -> Result<T, ObjectError> {
        let missing = || ObjectError::Missing(name);
        let fd = self.maps.get(name).ok_or_else(missing)?.as_fd();
        let fd = fd.try_clone_to_owned().map_err(ObjectError::Descriptor)?;
        let data = MapData::from_fd(fd).map_err(|_| missing())?;
        let map = Map::from_map_data(data).map_err(|_| missing())?;
        map.try_into().map_err(|_| missing())
    }

    /// The same, of maps that nothing is to be looked up in.
    pub(crate) fn map_fd(&self, name: &'static str) -> Result<BorrowedFd<'_>, ObjectError> {
        Ok(self.maps.get(name).ok_or(ObjectError::Missing(name))?.as_fd())
    }

    fn program(&self, name: &'static str) -> Result<&Program, ObjectError> {
        self.programs.get(name).ok_or(ObjectError::Missing(name))
    }

    pub(crate) fn program_fd(&self, name: &'static str) -> Result<BorrowedFd<'_>, ObjectError> {
        Ok(self.program(name)?.fd.as_fd())
    }

    /// As the kernel numbers it.
    pub(crate) fn program_id(&self, name: &'static str) -> Result<u32, ObjectError> {
        Ok(self.program(name)?.id)
    }

    pub(crate) fn program_ids(&self) -> BTreeSet<u32> {
        self.programs.values().map(|program| program.id).collect()
    }

    /// For the next run.
    ///
    /// # Errors
    /// There is no room for descriptors.
    pub(crate) fn leave(&self) -> io::Result<LeftObject> {
        let map = |(name, fd): (&String, &OwnedFd)| Ok((name.clone(), Inherited::of(fd)?));
        let program = |(name, program): (&String, &Program)| {
            Ok((name.clone(), (Inherited::of(&program.fd)?, program.id)))
        };
        Ok(LeftObject {
            maps: self.maps.iter().map(map).collect::<io::Result<_>>()?,
            programs: self.programs.iter().map(program).collect::<io::Result<_>>()?,
        })
    }

    /// As an earlier run left it.
    ///
    /// # Errors
    /// The kernel refused.
    pub(crate) fn inherit(left: LeftObject) -> io::Result<Self> {
        let map = |(name, fd): (String, Inherited)| Ok((name, fd.take()?));
        let program = |(name, (fd, id)): (String, (Inherited, u32))| {
            Ok((name, Program { fd: fd.take()?, id }))
        };
        Ok(Self {
            maps: left.maps.into_iter().map(map).collect::<io::Result<_>>()?,
            programs: left.programs.into_iter().map(program).collect::<io::Result<_>>()?,
        })
    }
}
