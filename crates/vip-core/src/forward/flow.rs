//! Which slot of a table a client's packets have. The program in the kernel works it
//! out for each packet; this is the same, for whoever wants to know beforehand.

use crate::address::halves;
use crate::mix::mix_all;
use crate::{Scheduler, TableSize};
use std::net::IpAddr;

/// One side of a connection: the client's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Flow {
    /// The client.
    pub ip: IpAddr,
    pub port: u16,
}

impl Flow {
    /// Of a virtual server's table with this seed. Two of its connections from one
    /// address have the same by [`Scheduler::Sh`], and may not by any other.
    ///
    /// The address is read as two little-endian words, IPv4 mapped (RFC 4291 section
    /// 2.5.5.2), and mixed after the seed, the port last. The upper half of what comes
    /// out, times the slots, is the slot in its own upper half: no division.
    #[must_use]
    pub fn slot(self, seed: u64, scheduler: Scheduler, size: TableSize) -> u16 {
        let [upper, lower] = halves(self.ip);
        let port = if scheduler == Scheduler::Sh { 0 } else { self.port };
        let mixed = mix_all(seed, [upper, lower, port.into()]);
        let slot = ((mixed >> 32) * u64::from(size.slots())) >> 32;
        u16::try_from(slot).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn flow(ip: &str, port: u16) -> Flow {
        Flow { ip: ip.parse().expect("an address"), port }
    }

    const GOLDEN: &[(&str, u16, u64, u16, u16)] = &[
        ("192.0.2.1", 40000, 1, 14662, 5078),
        ("192.0.2.1", 40001, 1, 1639, 5078),
        ("10.0.0.200", 65535, u64::MAX, 10926, 3981),
        ("2001:db8::7", 40000, 1, 880, 10860),
        ("fd77::1:2:3:4", 1, 0, 339, 14439),
    ];

    /// Worked out by a script: the kernel's program and every version have to agree.
    #[test]
    fn a_flow_has_the_same_slot_in_every_version() {
        for (ip, port, seed, by_port, by_address) in GOLDEN {
            let slot = |scheduler| flow(ip, *port).slot(*seed, scheduler, TableSize::Usual);
            assert_eq!((slot(Scheduler::Mh), slot(Scheduler::Sh)), (*by_port, *by_address), "{ip}");
        }
    }

    #[test]
    fn the_port_counts_unless_the_address_alone_does() {
        let slots = |scheduler| {
            let of = |port| flow("192.0.2.1", port).slot(1, scheduler, TableSize::Large);
            (1..=100).map(of).collect::<BTreeSet<u16>>().len()
        };
        assert!(slots(Scheduler::Mh) > 90);
        assert_eq!(slots(Scheduler::Sh), 1);
    }

    /// Ports in a row, as clients use them, and neighbours' addresses.
    #[test]
    fn slots_are_used_evenly_whatever_clients_have_in_common() {
        for size in TableSize::ALL {
            let slots = usize::from(size.slots());
            let mut used = vec![0_u32; slots];
            let mut flows = 0;
            for host in 0..=255_u8 {
                for port in (32_768..61_000).step_by(64) {
                    let flow = Flow { ip: [10, 0, 7, host].into(), port };
                    used[usize::from(flow.slot(3, Scheduler::Mh, size))] += 1;
                    flows += 1;
                }
            }
            // In eighths of the table, each within a fiftieth of its share.
            for part in used.chunks(slots.div_ceil(8)).take(7) {
                let (share, found) =
                    (flows * part.len() / slots, part.iter().sum::<u32>() as usize);
                assert!(found.abs_diff(share) * 50 < share, "{size:?}: {found} of {share}");
            }
        }
    }
}
