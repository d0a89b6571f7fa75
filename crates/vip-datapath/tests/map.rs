//! The gate's map on this kernel. Needs root.

use std::net::{IpAddr, Ipv6Addr};
use vip_core::Mono;
use vip_datapath::Gate;

/// More VIPs than any map holds, one after the other.
const NAMES: u128 = 100_000;
/// What the map holds at a time, as `bpf/gate.c` says.
const ROOM: u128 = 16_384;

fn ip(number: u128) -> IpAddr {
    Ipv6Addr::from_bits(0xfd00 << 112 | number).into()
}

/// A guard lives for months; what it forgets must leave room.
#[test]
fn a_hundred_thousand_addresses_in_turn_fit() {
    let mut gate = Gate::load().expect("loaded");
    for number in 0..NAMES {
        gate.set(ip(number), Mono::ZERO).expect("room");
        gate.forget(ip(number)).expect("gone");
    }
    assert_eq!(gate.deadline(ip(0)), None);
    // The room is bounded, so the test could fail.
    let kept = (0..=ROOM).take_while(|number| gate.set(ip(*number), Mono::ZERO).is_ok()).count();
    assert_eq!(kept as u128, ROOM);
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
    let second = std::time::Duration::from_secs(1);
    assert!(gate.follows(|| now() + second).is_err());
    assert!(gate.follows(|| now() - second).is_err());
}
