//! The gate's maps on this kernel. Needs root.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;
use vip_core::{GateEntry, Mono, SLOTS, Slot};
use vip_datapath::Gate;

/// More VIPs than any map holds, one after the other.
const NAMES: u128 = 100_000;
/// What the map holds at a time, as `bpf/maps.h` says.
const ROOM: u128 = 16_384;
const SHUT: GateEntry = GateEntry::Until(Mono::ZERO);
const OPEN: Mono = Mono(u64::MAX);

fn ip(number: u128) -> IpAddr {
    Ipv6Addr::from_bits(0xfd00 << 112 | number).into()
}

/// A guard lives for months; what it forgets must leave room.
#[test]
fn a_hundred_thousand_addresses_in_turn_fit() {
    let mut gate = Gate::load().expect("loaded");
    for number in 0..NAMES {
        gate.set(ip(number), SHUT).expect("room");
        gate.forget(ip(number)).expect("gone");
    }
    assert_eq!(gate.entry(ip(0)), None);
    // The room is bounded, so the test could fail.
    let kept = (0..=ROOM).take_while(|number| gate.set(ip(*number), SHUT).is_ok()).count();
    assert_eq!(kept as u128, ROOM);
}

/// One write opens and shuts all that share a deadline, and nothing else.
#[test]
fn the_program_follows_the_deadline_that_an_address_has_or_shares() {
    let mut gate = Gate::load().expect("loaded");
    let [one, two, own] = [1, 2, 3].map(|last| Ipv4Addr::new(240, 0, 1, last));
    let shared = Slot(SLOTS - 1);
    for (ip, entry) in [
        (one, GateEntry::With(shared)),
        (two, GateEntry::With(shared)),
        (own, GateEntry::Until(OPEN)),
    ] {
        gate.set(ip.into(), entry).expect("written");
        assert_eq!(gate.entry(ip.into()), Some(entry));
    }
    let dropped = |gate: &mut Gate| [one, two, own].map(|ip| gate.drops(ip).expect("tried"));
    assert_eq!(dropped(&mut gate), [true, true, false], "no deadline is a passed one");
    gate.share(shared, OPEN).expect("written");
    assert_eq!(dropped(&mut gate), [false, false, false]);
    gate.share(Slot(1), Mono::ZERO).expect("written");
    assert_eq!(dropped(&mut gate), [false, false, false], "it is another one");
    gate.set(one.into(), SHUT).expect("written");
    assert_eq!(dropped(&mut gate), [true, false, false], "one is shut at once");
    gate.share(shared, Mono::ZERO).expect("written");
    assert_eq!(dropped(&mut gate), [true, true, false]);
    gate.set(own.into(), GateEntry::With(Slot(SLOTS))).expect("written");
    assert_eq!(dropped(&mut gate), [true, true, true], "a slot that is none is shut");
    assert!(gate.share(Slot(SLOTS), OPEN).is_err());
}

#[test]
fn the_gate_follows_the_clock_of_this_process_and_no_other() {
    let mut gate = Gate::load().expect("loaded");
    let now = || {
        let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_BOOTTIME).expect("there");
        let seconds = u64::try_from(now.tv_sec()).expect("since boot");
        Mono(seconds * 1_000_000_000 + u64::try_from(now.tv_nsec()).expect("a part"))
    };
    gate.follows(now).expect("the same clock");
    let second = Duration::from_secs(1);
    assert!(gate.follows(|| now() + second).is_err());
    assert!(gate.follows(|| now() - second).is_err());
}
