//! A host that takes a VIP's packets as a real server, whoever holds it. Needs root.

use etherparse::PacketBuilder;
use std::net::IpAddr;
use vip_core::{GateEntry, Mac, Mono};
use vip_datapath::Gate;

/// `TC_ACT_UNSPEC`, `TC_ACT_SHOT`.
const PASS: u32 = u32::MAX;
const DROP: u32 = 2;

const VIP: [u8; 4] = [10, 0, 0, 100];
const CLIENT: [u8; 4] = [198, 51, 100, 7];
/// Trial runs come by loopback.
const HERE: u32 = 1;
const MEMBER: [u8; 6] = [2, 0, 0, 0, 0, 1];
const STRANGER: [u8; 6] = [2, 0, 0, 0, 0, 7];
const SHUT: GateEntry = GateEntry::Until(Mono::ZERO);
const EVER: Mono = Mono(u64::MAX);
const OPEN: GateEntry = GateEntry::Until(Mono(u64::MAX));

fn vip() -> IpAddr {
    VIP.into()
}

fn vip6() -> [u8; 16] {
    match "fd00::100".parse::<IpAddr>() {
        Ok(IpAddr::V6(v6)) => v6.octets(),
        other => panic!("{other:?}"),
    }
}

fn frame(from: [u8; 6], [source, destination]: [[u8; 4]; 2]) -> Vec<u8> {
    let packet = PacketBuilder::ethernet2(from, [2; 6]).ipv4(source, destination, 64);
    let mut frame = vec![];
    packet.tcp(4711, 80, 1, 1000).syn().write(&mut frame, b"").expect("written");
    frame
}

fn to_vip(from: [u8; 6]) -> Vec<u8> {
    frame(from, [CLIENT, VIP])
}

/// Who has the VIP? `operation` 1: asked; 2: said.
fn arp(operation: u8, from: [u8; 6], [sender, target]: [[u8; 4]; 2]) -> Vec<u8> {
    let head = [&[0xff; 6][..], &from, &[8, 6, 0, 1, 8, 0, 6, 4, 0, operation]].concat();
    [&head[..], &from, &sender, &[0; 6], &target].concat()
}

/// A neighbour solicitation or advertisement about the VIP.
fn neighbour(kind: u8, from: [u8; 6], [source, destination]: [[u8; 16]; 2]) -> Vec<u8> {
    let head = [&[2; 6][..], &from, &[0x86, 0xdd, 0x60, 0, 0, 0, 0, 24, 58, 255]].concat();
    [&head[..], &source, &destination, &[kind, 0, 0, 0, 0, 0, 0, 0], &vip6()].concat()
}

fn goes(gate: &mut Gate, program: &'static str, frame: &[u8]) -> u32 {
    gate.tries(program, frame).expect("tried").verdict
}

fn gate() -> Gate {
    let mut gate = Gate::load().expect("loaded");
    gate.members_are(&[Mac(MEMBER)].into()).expect("written");
    gate.serve(vip(), EVER).expect("written");
    gate.serve(vip6().into(), EVER).expect("written");
    gate
}

#[test]
fn a_real_server_takes_what_members_send_and_nobody_else_there() {
    let mut gate = gate();
    assert_eq!(goes(&mut gate, "vipd_in_a", &to_vip(MEMBER)), PASS);
    assert_eq!(goes(&mut gate, "vipd_in_a", &to_vip(STRANGER)), DROP);
    gate.members_are(&[Mac(STRANGER)].into()).expect("written");
    assert_eq!(goes(&mut gate, "vipd_in_a", &to_vip(MEMBER)), DROP);
    assert_eq!(goes(&mut gate, "vipd_in_a", &to_vip(STRANGER)), PASS);
}

/// Containers behind it are its own server's clients.
#[test]
fn what_containers_send_is_its_own_servers() {
    let mut gate = gate();
    gate.behind_are(&[HERE].into()).expect("written");
    assert_eq!(goes(&mut gate, "vipd_in_a", &to_vip(STRANGER)), PASS);
    gate.behind_are(&[HERE + 1].into()).expect("written");
    assert_eq!(goes(&mut gate, "vipd_in_a", &to_vip(STRANGER)), DROP);
}

/// Else it would go round between the holder and a host that routes.
#[test]
fn one_that_cannot_take_it_routes_it_nowhere() {
    let mut gate = gate();
    gate.serve(vip(), Mono::ZERO).expect("written");
    assert_eq!(goes(&mut gate, "vipd_in_a", &to_vip(MEMBER)), DROP);
    assert_eq!(goes(&mut gate, "vipd_out_a", &frame([2; 6], [VIP, CLIENT])), DROP);
    gate.forget(vip()).expect("written");
    assert_eq!(goes(&mut gate, "vipd_in_a", &to_vip(MEMBER)), DROP);
    // A guard that is gone renews it no more.
    gate.serve(vip(), Mono(1)).expect("written");
    assert_eq!(goes(&mut gate, "vipd_in_a", &to_vip(MEMBER)), DROP, "its time is over");
}

#[test]
fn a_real_server_answers_clients_and_says_to_nobody_that_it_has_the_address() {
    for behind in [[].into(), [HERE].into()] {
        let mut gate = gate();
        gate.behind_are(&behind).expect("written");
        assert_eq!(goes(&mut gate, "vipd_out_a", &frame([2; 6], [VIP, CLIENT])), PASS);
        let other = [10, 0, 0, 9];
        for program in ["vipd_in_a", "vipd_in_b"] {
            assert_eq!(goes(&mut gate, program, &arp(1, MEMBER, [other, VIP])), DROP);
        }
        for operation in [1, 2] {
            assert_eq!(goes(&mut gate, "vipd_out_a", &arp(operation, [2; 6], [VIP, other])), DROP);
        }
        let peer = [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9];
        let asked = neighbour(135, MEMBER, [peer, vip6()]);
        assert_eq!(goes(&mut gate, "vipd_in_a", &asked), DROP);
        let said = neighbour(136, [2; 6], [vip6(), peer]);
        assert_eq!(goes(&mut gate, "vipd_out_a", &said), DROP);
        let asks = neighbour(135, [2; 6], [vip6(), peer]);
        assert_eq!(goes(&mut gate, "vipd_out_a", &asks), DROP, "in its name");
    }
}

/// It holds the VIP, and lets go of it, and is a real server all the while.
#[test]
fn a_holder_that_is_a_real_server_answers_everybody_until_its_deadline() {
    let mut gate = gate();
    gate.set(vip(), OPEN).expect("written");
    assert_eq!(goes(&mut gate, "vipd_in_a", &to_vip(STRANGER)), PASS);
    let asked = arp(1, STRANGER, [CLIENT, VIP]);
    assert_eq!(goes(&mut gate, "vipd_in_a", &asked), PASS);
    gate.set(vip(), SHUT).expect("written");
    assert_eq!(goes(&mut gate, "vipd_in_a", &to_vip(STRANGER)), DROP);
    assert_eq!(goes(&mut gate, "vipd_in_a", &to_vip(MEMBER)), PASS);
    assert_eq!(goes(&mut gate, "vipd_in_a", &asked), DROP);
    gate.forget(vip()).expect("written");
    assert_eq!(goes(&mut gate, "vipd_in_a", &to_vip(STRANGER)), DROP);
    assert_eq!(gate.entry(vip()), Some(SHUT));
}

#[test]
fn one_that_is_no_real_server_any_more_has_the_gate_as_anybody() {
    let mut gate = gate();
    gate.serve_no_more(vip()).expect("written");
    assert_eq!(goes(&mut gate, "vipd_in_a", &to_vip(MEMBER)), DROP);
    assert_eq!(goes(&mut gate, "vipd_out_a", &frame([2; 6], [VIP, CLIENT])), DROP);
    gate.set(vip(), OPEN).expect("written");
    gate.serve(vip(), EVER).expect("written");
    assert_eq!(gate.entry(vip()), Some(OPEN), "who holds it goes on");
    gate.serve_no_more(vip()).expect("written");
    assert_eq!(goes(&mut gate, "vipd_in_a", &to_vip(STRANGER)), PASS);
    gate.forget(vip()).expect("written");
    assert_eq!(gate.entry(vip()), None);
}
