//! Maps by `bpf(2)`, for what aya has no call for: many elements at once. An update of
//! one element of a map of maps waits for every processor (RCU), some 10 ms; a batch of a
//! thousand waits once (measured on Linux 6.18).

use crate::syscall::{bpf, bpf_fd, raw};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

const BPF_MAP_CREATE: libc::c_long = 0;
const BPF_MAP_UPDATE_BATCH: libc::c_long = 26;
const BPF_MAP_TYPE_ARRAY: u32 = 2;
/// Each inner map has its own number of elements (Linux 5.10).
const BPF_F_INNER_MAP: u32 = 1 << 12;

/// Slots in one element of a table, as `bpf/maps.h` has it.
const SLOTS_IN_ELEMENT: usize = 64;
type Element = [u16; SLOTS_IN_ELEMENT];
/// No real server has this number.
pub(crate) const NOBODY: u16 = u16::MAX;

#[repr(C)]
#[derive(Default)]
struct CreateAttr {
    kind: u32,
    key_len: u32,
    value_len: u32,
    elements: u32,
    flags: u32,
    inner: u32,
    numa_node: u32,
    name: [u8; 16],
}

#[repr(C)]
#[derive(Default)]
struct BatchAttr {
    from: u64,
    to: u64,
    keys: u64,
    values: u64,
    count: u32,
    map: u32,
    element_flags: u64,
    flags: u64,
}

/// Writes elements of a map, all or some of the first.
fn update<K: Copy, V: Copy>(map: BorrowedFd<'_>, keys: &[K], values: &[V]) -> io::Result<()> {
    debug_assert_eq!(keys.len(), values.len());
    let mut attr = BatchAttr {
        keys: keys.as_ptr() as u64,
        values: values.as_ptr() as u64,
        count: u32::try_from(keys.len()).map_err(io::Error::other)?,
        map: raw(map),
        ..Default::default()
    };
    bpf(BPF_MAP_UPDATE_BATCH, &mut attr).map(|_| ())
}

/// A table's slots, as the outer map takes them.
pub(crate) struct SlotMap(OwnedFd);

impl SlotMap {
    pub(crate) fn of(slots: &[u16]) -> io::Result<Self> {
        let count = slots.len().div_ceil(SLOTS_IN_ELEMENT).max(1);
        let mut elements = vec![[NOBODY; SLOTS_IN_ELEMENT]; count];
        for (element, part) in elements.iter_mut().zip(slots.chunks(SLOTS_IN_ELEMENT)) {
            element[..part.len()].copy_from_slice(part);
        }
        let count = u32::try_from(elements.len()).map_err(io::Error::other)?;
        let mut name = [0; 16];
        name[..10].copy_from_slice(b"vipd_table");
        let mut attr = CreateAttr {
            kind: BPF_MAP_TYPE_ARRAY,
            key_len: 4,
            value_len: u32::try_from(size_of::<Element>()).map_err(io::Error::other)?,
            elements: count,
            flags: BPF_F_INNER_MAP,
            name,
            ..Default::default()
        };
        let map = bpf_fd(BPF_MAP_CREATE, &mut attr)?;
        let keys: Vec<u32> = (0..count).collect();
        update(map.as_fd(), &keys, &elements)?;
        Ok(Self(map))
    }
}

/// Puts tables into the map of them, by their numbers, as one step.
pub(crate) fn put_tables(map: BorrowedFd<'_>, tables: &[(u32, SlotMap)]) -> io::Result<()> {
    let numbers: Vec<u32> = tables.iter().map(|(number, _)| *number).collect();
    let maps: Vec<u32> = tables.iter().map(|(_, table)| raw(table.0.as_fd())).collect();
    update(map, &numbers, &maps)
}
