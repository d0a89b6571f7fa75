//! What the gate's maps hold, as `bpf/maps.h` has it: the programs read it at every
//! packet, and this process alone writes it.

use vip_core::{GateEntry, Mac, Mono, SLOTS, Slot};

/// An address, as [`vip_core::octets`] writes it.
pub(crate) type Key = [u8; 16];

/// `struct entry`: its own deadline, the slot whose deadline it shares, and the interface
/// where a real server on this host takes it; 0: none.
pub(crate) type Entry = [u64; 3];

/// `struct mac`.
pub(crate) type MacKey = [u8; 8];

/// Where an entry has its deadline, its slot,
pub(crate) const DEADLINE_AT: i16 = 0;
pub(crate) const SLOT_AT: i16 = 8;
/// The interface of a real server.
pub(crate) const HOME_AT: i16 = 16;

const _: () = assert!(size_of::<Key>() == 16 && size_of::<Entry>() == 24);
// `max_entries` of `SHARED`.
const _: () = assert!(SLOTS == 16);

pub(crate) const fn entry(entry: GateEntry, home: u32) -> Entry {
    match entry {
        GateEntry::Until(deadline) => [deadline.0, 0, home as u64],
        GateEntry::With(Slot(slot)) => [0, slot as u64, home as u64],
    }
}

pub(crate) const fn mac(Mac([a, b, c, d, e, f]): Mac) -> MacKey {
    [a, b, c, d, e, f, 0, 0]
}

/// `None`: nothing that this process writes.
pub(crate) fn read([deadline, slot, _]: Entry) -> Option<GateEntry> {
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
            assert_eq!(read(entry(written, 9)), Some(written));
            assert_eq!(entry(written, 9)[HOME_AT as usize / 8], 9);
        }
        assert_eq!(read([0, u64::MAX, 0]), None);
        assert_eq!(entry(GateEntry::Until(Mono(7)), 0)[DEADLINE_AT as usize / 8], 7);
        assert_eq!(entry(GateEntry::With(Slot(3)), 0)[SLOT_AT as usize / 8], 3);
    }
}
