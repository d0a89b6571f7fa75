//! What the gate's maps hold, as `bpf/maps.h` has it: the programs read it at every
//! packet, and this process alone writes it.

use vip_core::{GateEntry, Mac, Mono, SLOTS, Slot};

/// An address, as [`vip_core::octets`] writes it.
pub(crate) type Key = [u8; 16];

/// `struct entry`: its own deadline, the slot whose deadline it shares, and until when a real
/// server on this host takes it; 0: none.
pub(crate) type Entry = [u64; 3];

/// `struct mac`.
pub(crate) type MacKey = [u8; 8];

/// Where an entry has its deadline, its slot,
pub(crate) const DEADLINE_AT: i16 = 0;
pub(crate) const SLOT_AT: i16 = 8;
/// And until when a real server takes it.
pub(crate) const SERVED_AT: i16 = 16;

const _: () = assert!(size_of::<Key>() == 16 && size_of::<Entry>() == 24);
// `max_entries` of `SHARED`.
const _: () = assert!(SLOTS == 16);

pub(crate) const fn entry(entry: GateEntry, Mono(served): Mono) -> Entry {
    match entry {
        GateEntry::Until(deadline) => [deadline.0, 0, served],
        GateEntry::With(Slot(slot)) => [0, slot as u64, served],
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
            assert_eq!(read(entry(written, Mono(9))), Some(written));
            assert_eq!(entry(written, Mono(9))[SERVED_AT as usize / 8], 9);
        }
        assert_eq!(read([0, u64::MAX, 0]), None);
        assert_eq!(entry(GateEntry::Until(Mono(7)), Mono::ZERO)[DEADLINE_AT as usize / 8], 7);
        assert_eq!(entry(GateEntry::With(Slot(3)), Mono::ZERO)[SLOT_AT as usize / 8], 3);
    }
}
