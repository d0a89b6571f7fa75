//! What this kernel's helpers can do, found by a packet that goes nowhere: whoever is told
//! at `vs add` need not find out by lost packets.

use crate::forward::{ForwardEngine, ForwardError, ForwardMaps, Places, Real, Service, Way};
use crate::gate::Gate;
use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU32;
use vip_core::{GateEntry, Mono, Protocol, TableSize};

/// Discards whatever is sent there (RFC 6666), so nobody's.
const TRIAL: Ipv6Addr = Ipv6Addr::new(0x100, 0, 0, 0, 0, 0, 0, 1);
const REAL: Ipv6Addr = Ipv6Addr::new(0x100, 0, 0, 0, 0, 0, 0, 2);
/// Nothing is in force yet.
const FIRST: u32 = 0;
const ID: NonZeroU32 = NonZeroU32::MAX;
/// `TC_ACT_REDIRECT`.
const SENT: u32 = 7;

/// A SYN to the trial's address (RFC 8200 section 3, RFC 9293 section 3.1). Trial runs come
/// by loopback, whose Ethernet address is all zeros.
fn frame() -> Vec<u8> {
    let ethernet = [&[0; 6][..], &[2; 6], &[0x86, 0xdd]].concat();
    let ip = [&[0x60, 0, 0, 0, 0, 20, 6, 64][..], &REAL.octets(), &TRIAL.octets()].concat();
    let tcp = [[1, 0, 0, 80], [0; 4], [0; 4], [0x50, 2, 1, 0], [0; 4]].concat();
    [ethernet, ip, tcp].concat()
}

/// What forwards by a gate's program, with all that this kernel can do of it. A gate has one.
///
/// # Errors
/// [`ForwardError::Taken`].
pub fn forward_engine(gate: &mut Gate) -> Result<ForwardEngine, ForwardError> {
    let mut maps = gate.take_forward_maps()?;
    let rewrites_ipv6 = rewrites_ipv6(gate, &mut maps);
    Ok(ForwardEngine::new(maps, rewrites_ipv6))
}

/// Whether an IPv6 address is rewritten with its sums (`BPF_F_IPV6`, Linux 6.16 and later
/// ones of 6.12). It leaves nothing behind; before anything else is put there.
fn rewrites_ipv6(gate: &mut Gate, maps: &mut ForwardMaps) -> bool {
    let vip = IpAddr::V6(TRIAL);
    let places = Places { ip: vip, protocol: Protocol::Tcp, ports: 80.into() };
    let tried = tried(gate, maps, places);
    let _ = maps.close(places);
    let _ = maps.drop_service(ID);
    let _ = maps.drop_real(FIRST);
    let _ = maps.put_tables([(FIRST, &[][..])]);
    let _ = gate.forget(vip);
    tried.is_some_and(|verdict| verdict == SENT)
}

fn tried(gate: &mut Gate, maps: &mut ForwardMaps, places: Places) -> Option<u32> {
    let size = TableSize::Tiny;
    let way = Way::Hop { ifindex: 1, hop: REAL.into() };
    maps.put_real(FIRST, &Real { service: ID, ip: REAL.into(), port: Some(81), way }).ok()?;
    let slots = vec![0; size.slots().into()];
    maps.put_tables([(FIRST, &slots[..])]).ok()?;
    let service = Service {
        seed: 0,
        size,
        by_address: true,
        nat: true,
        resets: false,
        remembers: false,
        settles: Mono::ZERO,
        table: FIRST,
        before: FIRST,
    };
    maps.put_service(ID, &service).ok()?;
    maps.open(places, ID).ok()?;
    gate.set(places.ip, GateEntry::Until(Mono(u64::MAX))).ok()?;
    Some(gate.tries("vipd_in_a", &frame()).ok()?.verdict)
}
