//! What the gate's maps hold, as `bpf/maps.h` has it: the programs read it at every
//! packet, and this process alone writes it.

use vip_core::{GateEntry, Mono, SLOTS, Slot};

/// An address, as [`vip_core::octets`] writes it.
pub(crate) type Key = [u8; 16];

/// `struct entry`: its own deadline, and the slot whose deadline it shares; 0: none.
pub(crate) type Entry = [u64; 2];

/// Where an entry has its deadline, and where its slot.
pub(crate) const DEADLINE_AT: i16 = 0;
pub(crate) const SLOT_AT: i16 = 8;

const _: () = assert!(size_of::<Key>() == 16 && size_of::<Entry>() == 16);
// `max_entries` of `SHARED`.
const _: () = assert!(SLOTS == 16);

pub(crate) const fn entry(entry: GateEntry) -> Entry {
    match entry {
        GateEntry::Until(deadline) => [deadline.0, 0],
        GateEntry::With(Slot(slot)) => [0, slot as u64],
    }
}

/// `None`: nothing that this process writes.
pub(crate) fn read([deadline, slot]: Entry) -> Option<GateEntry> {
    match u32::try_from(slot).ok()? {
        0 => Some(GateEntry::Until(Mono(deadline))),
        slot => Some(GateEntry::With(Slot(slot))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_read_as_it_was_written() {
        for written in [GateEntry::Until(Mono(7)), GateEntry::With(Slot(3))] {
            assert_eq!(read(entry(written)), Some(written));
        }
        assert_eq!(read([0, u64::MAX]), None);
        assert_eq!(entry(GateEntry::Until(Mono(7)))[DEADLINE_AT as usize / 8], 7);
        assert_eq!(entry(GateEntry::With(Slot(3)))[SLOT_AT as usize / 8], 3);
    }
}
