//! What the program does with a packet of a virtual server, as the kernel says that runs
//! it. Needs root.

mod errors;
mod parts;
mod resets;

use etherparse::{
    IcmpEchoHeader, Icmpv4Type, NetSlice, PacketBuilder, SlicedPacket, TransportSlice,
};
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use vip_core::{
    Counter, DropReason, Flow, GateEntry, Mono, Plan, Protocol, RealServer, Scheduler, TableSize,
};
use vip_datapath::{ForwardMaps, Gate, Places, Real, Reply, Service, Trial, Way};

/// `TC_ACT_UNSPEC`, `TC_ACT_SHOT`, `TC_ACT_REDIRECT`.
const PASS: u32 = u32::MAX;
const DROP: u32 = 2;
const SENT: u32 = 7;

const OPEN: GateEntry = GateEntry::Until(Mono(u64::MAX));
const SEED: u64 = 7;
const SIZE: TableSize = TableSize::Tiny;

fn at(text: &str) -> SocketAddr {
    text.parse().expect("an address and a port")
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn id(number: u32) -> NonZeroU32 {
    NonZeroU32::new(number).expect("one")
}

struct Scene {
    gate: Gate,
    maps: ForwardMaps,
}

fn service(table: u32, before: u32) -> Service {
    Service {
        seed: SEED,
        size: SIZE,
        by_address: false,
        nat: false,
        remembers: table != before,
        resets: false,
        settles: Mono::ZERO,
        table,
        before,
    }
}

fn places(ip: IpAddr, ports: &str) -> Places {
    Places { ip, protocol: Protocol::Tcp, ports: ports.parse().expect("ports") }
}

/// A table in which every slot is this real server's.
fn all(number: u16) -> Vec<u16> {
    vec![number; SIZE.slots().into()]
}

impl Scene {
    fn new(vips: &[IpAddr]) -> Self {
        let mut gate = Gate::load().expect("loaded");
        let maps = gate.take_forward_maps().expect("its maps");
        for vip in vips {
            gate.set(*vip, OPEN).expect("written");
        }
        Self { gate, maps }
    }

    /// One service with one real server, number 3.
    fn serving(vip: SocketAddr, real: &Real, service: &Service) -> Self {
        let mut scene = Self::new(&[vip.ip()]);
        scene.maps.put_real(3, real).expect("written");
        scene.maps.put_tables([(service.table, &all(3)[..])]).expect("written");
        scene.maps.put_service(id(1), service).expect("written");
        let places = places(vip.ip(), &vip.port().to_string());
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            scene.maps.open(Places { protocol, ..places }, id(1)).expect("written");
        }
        scene
    }

    fn goes_in(&mut self, frame: &[u8]) -> Trial {
        self.gate.tries("vipd_in_a", frame).expect("tried")
    }

    fn goes_out(&mut self, frame: &[u8]) -> Trial {
        self.gate.tries("vipd_out_a", frame).expect("tried")
    }

    fn counter(&self, number: u32) -> Counter {
        self.maps.counter(number).expect("read")
    }

    fn dropped(&self, reason: DropReason) -> u64 {
        self.maps.dropped(reason).expect("read")
    }

    /// Which of these real servers this packet was counted for.
    fn goes_to(&mut self, frame: &[u8], numbers: &[u32]) -> Option<u32> {
        let count =
            |scene: &Self| numbers.iter().map(|n| scene.counter(*n).packets).collect::<Vec<_>>();
        let before = count(self);
        assert_eq!(self.goes_in(frame).verdict, SENT);
        let after = count(self);
        let grew = before.iter().zip(&after).position(|(before, after)| before != after);
        grew.map(|at| numbers[at])
    }
}

fn hop(ip: IpAddr, port: Option<u16>) -> Real {
    Real { service: id(1), ip, port, way: Way::Hop { ifindex: 1, hop: ip } }
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Syn,
    Ack,
    Udp,
}

const PAYLOAD: &[u8] = b"what a client says, and more of it than eight octets";

fn packet(kind: Kind, from: SocketAddr, to: SocketAddr, hops: u8) -> Vec<u8> {
    let ethernet = PacketBuilder::ethernet2([2; 6], [0; 6]);
    let ip = match (from.ip(), to.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => ethernet.ipv4(from.octets(), to.octets(), hops),
        (IpAddr::V6(from), IpAddr::V6(to)) => ethernet.ipv6(from.octets(), to.octets(), hops),
        _ => panic!("two families"),
    };
    let mut frame = vec![];
    let written = match kind {
        Kind::Udp => ip.udp(from.port(), to.port()).write(&mut frame, PAYLOAD),
        Kind::Syn => ip.tcp(from.port(), to.port(), 1, 1000).syn().write(&mut frame, PAYLOAD),
        Kind::Ack => ip.tcp(from.port(), to.port(), 1, 1000).ack(1).write(&mut frame, PAYLOAD),
    };
    written.expect("written");
    frame
}

/// What a frame says, after all its sums were found to be right.
fn said(frame: &[u8]) -> (SocketAddr, SocketAddr, u8) {
    let sliced = SlicedPacket::from_ethernet(frame).expect("a packet");
    let (from, to, hops) = match sliced.net.as_ref().expect("IP") {
        NetSlice::Ipv4(v4) => {
            let header = v4.header().to_header();
            assert_eq!(header.header_checksum, header.calc_header_checksum());
            (header.source.into(), header.destination.into(), header.time_to_live)
        }
        NetSlice::Ipv6(v6) => {
            let header = v6.header();
            (IpAddr::from(header.source()), IpAddr::from(header.destination()), header.hop_limit())
        }
        NetSlice::Arp(_) => panic!("ARP"),
    };
    // Headers of two types, which have these by the same names.
    macro_rules! ports_and_sums {
        ($slice:expr) => {{
            let (header, payload) = ($slice.to_header(), $slice.payload());
            let right = match (from, to) {
                (IpAddr::V4(from), IpAddr::V4(to)) => {
                    header.calc_checksum_ipv4_raw(from.octets(), to.octets(), payload)
                }
                (IpAddr::V6(from), IpAddr::V6(to)) => {
                    header.calc_checksum_ipv6_raw(from.octets(), to.octets(), payload)
                }
                _ => panic!("two families"),
            };
            (header.source_port, header.destination_port, header.checksum, right)
        }};
    }
    let (source, destination, sum, right) = match sliced.transport.as_ref().expect("a transport") {
        TransportSlice::Tcp(tcp) => ports_and_sums!(tcp),
        TransportSlice::Udp(udp) => ports_and_sums!(udp),
        other => panic!("{other:?}"),
    };
    assert_eq!(sum, right.expect("short"), "the sum of what is behind the addresses");
    (SocketAddr::new(from, source), SocketAddr::new(to, destination), hops)
}

const FAMILIES: [[&str; 3]; 2] = [
    ["198.51.100.7:40000", "10.0.0.100:80", "10.9.0.11:8080"],
    ["[2001:db8::7]:40000", "[fd00::100]:80", "[fd09::11]:8080"],
];

#[test]
fn a_connection_goes_where_the_table_of_every_node_has_it() {
    for [client, vip, real] in FAMILIES.map(|family| family.map(at)) {
        let reals: Vec<_> =
            (0..5_u16).map(|n| RealServer { ip: real.ip(), port: n + 1, weight: n + 1 }).collect();
        let plan = Plan::new(SEED, SIZE, reals).expect("a plan");
        let slots: Vec<u16> = plan.slots().iter().map(|index| index + 100).collect();
        for scheduler in [Scheduler::Mh, Scheduler::Sh] {
            let by_address = scheduler == Scheduler::Sh;
            let service = Service { by_address, ..service(5, 5) };
            let mut scene = Scene::serving(vip, &hop(real.ip(), None), &service);
            scene.maps.put_tables([(5, &slots[..])]).expect("written");
            let numbers: Vec<u32> = (100..105).collect();
            for number in &numbers {
                scene.maps.put_real(*number, &hop(real.ip(), None)).expect("written");
            }
            for port in (1024..65_000).step_by(320) {
                let client = SocketAddr::new(client.ip(), port);
                let flow = Flow { ip: client.ip(), port };
                let expected = slots[usize::from(flow.slot(SEED, scheduler, SIZE))];
                for kind in [Kind::Syn, Kind::Ack, Kind::Udp] {
                    let went = scene.goes_to(&packet(kind, client, vip, 64), &numbers);
                    assert_eq!(went, Some(expected.into()), "{client} {scheduler}");
                }
            }
        }
    }
}

#[test]
fn direct_routing_changes_the_hops_alone() {
    for [client, vip, real] in FAMILIES.map(|family| family.map(at)) {
        for kind in [Kind::Syn, Kind::Udp] {
            let mut scene = Scene::serving(vip, &hop(real.ip(), None), &service(5, 5));
            let went = scene.goes_in(&packet(kind, client, vip, 64));
            assert_eq!(went.verdict, SENT);
            assert_eq!(said(&went.frame), (client, vip, 63));
            let opened = u64::from(kind == Kind::Syn);
            let counted = scene.counter(3);
            assert_eq!((counted.packets, counted.connections, counted.replies), (1, opened, 0));
        }
    }
}

fn nat() -> Service {
    Service { nat: true, ..service(5, 5) }
}

#[test]
fn nat_rewrites_both_ways_and_every_sum_is_right() {
    for [client, vip, real] in FAMILIES.map(|family| family.map(at)) {
        for kind in [Kind::Syn, Kind::Udp] {
            let mut scene = Scene::serving(vip, &hop(real.ip(), Some(real.port())), &nat());
            let reply =
                Reply { vip: vip.ip(), port: Some(vip.port()), ifindex: 1, real: 3, here: false };
            let from = places(real.ip(), &real.port().to_string());
            for protocol in [Protocol::Tcp, Protocol::Udp] {
                scene.maps.put_reply(Places { protocol, ..from }, &reply).expect("written");
            }
            let went = scene.goes_in(&packet(kind, client, vip, 64));
            assert_eq!((went.verdict, said(&went.frame)), (SENT, (client, real, 63)));
            let came = scene.goes_in(&packet(kind, real, client, 60));
            assert_eq!((came.verdict, said(&came.frame)), (SENT, (vip, client, 59)));
            assert_eq!(scene.counter(3).replies, 1);

            // What this host asked of it is nobody else's.
            scene.maps.own(&[client.ip()].into()).expect("written");
            let own = packet(kind, real, client, 60);
            assert_eq!(scene.goes_in(&own), Trial { verdict: PASS, frame: own.clone() });
            scene.maps.own(&[].into()).expect("written");
            assert_eq!(scene.goes_in(&own).verdict, SENT);
            // And where the VIP does not answer here, somebody else may route it.
            scene.gate.set(vip.ip(), GateEntry::Until(Mono::ZERO)).expect("written");
            assert_eq!(scene.goes_in(&own), Trial { verdict: PASS, frame: own.clone() });
        }
    }
}

#[test]
fn a_sum_that_there_is_not_stays_away() {
    let [client, vip, real] = FAMILIES[0].map(at);
    let mut scene = Scene::serving(vip, &hop(real.ip(), Some(8080)), &nat());
    let mut frame = packet(Kind::Udp, client, vip, 64);
    frame[40..42].copy_from_slice(&[0, 0]);
    let went = scene.goes_in(&frame);
    assert_eq!((went.verdict, &went.frame[40..42]), (SENT, &[0, 0][..]));
}

/// A real server that is the holder itself: the address stays, the port is its own.
#[test]
fn on_the_host_itself_nat_changes_the_port_alone_and_back() {
    for [client, vip, _] in FAMILIES.map(|family| family.map(at)) {
        let here = Real { service: id(1), ip: ip("10.0.0.1"), port: Some(8080), way: Way::Here };
        let mut scene = Scene::serving(vip, &here, &nat());
        let (own, port) = (SocketAddr::new(vip.ip(), 8080), Some(vip.port()));
        let reply = Reply { vip: vip.ip(), port, ifindex: 1, real: 3, here: true };
        scene.maps.put_reply(places(vip.ip(), "8080"), &reply).expect("written");
        let went = scene.goes_in(&packet(Kind::Syn, client, vip, 1));
        assert_eq!((went.verdict, said(&went.frame)), (PASS, (client, own, 1)));
        let came = scene.goes_out(&packet(Kind::Ack, own, client, 64));
        assert_eq!((came.verdict, said(&came.frame)), (PASS, (vip, client, 64)));
        assert_eq!(scene.counter(3).replies, 1);
        let other = packet(Kind::Ack, SocketAddr::new(vip.ip(), 22), client, 64);
        assert_eq!(scene.goes_out(&other), Trial { verdict: PASS, frame: other.clone() });
    }
}

#[test]
fn what_is_no_virtual_servers_is_left_alone() {
    let [client, vip, real] = FAMILIES[0].map(at);
    let mut scene = Scene::serving(vip, &hop(real.ip(), None), &service(5, 5));
    for to in [SocketAddr::new(vip.ip(), 81), at("10.0.0.101:80"), real] {
        let frame = packet(Kind::Syn, client, to, 64);
        assert_eq!(scene.goes_in(&frame), Trial { verdict: PASS, frame: frame.clone() });
    }
    let mut echo = vec![];
    let (from, to) = ([198, 51, 100, 7], [10, 0, 0, 100]);
    let header = IcmpEchoHeader { id: 1, seq: 1 };
    PacketBuilder::ethernet2([2; 6], [0; 6])
        .ipv4(from, to, 64)
        .icmpv4(Icmpv4Type::EchoRequest(header))
        .write(&mut echo, b"x")
        .expect("written");
    assert_eq!(scene.goes_in(&echo).verdict, PASS, "the VIP itself is asked");
    // It is shut: nothing is forwarded either.
    scene.gate.set(vip.ip(), GateEntry::Until(Mono::ZERO)).expect("written");
    assert_eq!(scene.goes_in(&packet(Kind::Syn, client, vip, 64)).verdict, DROP);
    assert_eq!((scene.counter(3).packets, scene.dropped(DropReason::Shut)), (0, 1));
}

#[test]
fn what_cannot_be_sent_right_is_dropped_and_counted() {
    for [client, vip, real] in FAMILIES.map(|family| family.map(at)) {
        let mut scene = Scene::serving(vip, &hop(real.ip(), None), &service(5, 5));
        let is_dropped = |scene: &mut Scene, reason, frame: &[u8]| {
            let before = scene.dropped(reason);
            assert_eq!(scene.goes_in(frame).verdict, DROP, "{reason:?}");
            assert_eq!(scene.dropped(reason), before + 1, "{reason:?}");
        };
        let frame = packet(Kind::Syn, client, vip, 64);
        is_dropped(&mut scene, DropReason::Hops, &packet(Kind::Syn, client, vip, 1));
        // Flooded by a switch that forgot whose address it is.
        let mut flooded = frame.clone();
        flooded[..6].copy_from_slice(&[2, 0, 0, 0, 0, 9]);
        is_dropped(&mut scene, DropReason::NotForUs, &flooded);
        let nowhere = Real { way: Way::None, ..hop(real.ip(), None) };
        scene.maps.put_real(3, &nowhere).expect("written");
        is_dropped(&mut scene, DropReason::NoWay, &frame);
        scene.maps.drop_real(3).expect("gone");
        is_dropped(&mut scene, DropReason::NoReal, &frame);
        scene.maps.drop_service(id(1)).expect("gone");
        is_dropped(&mut scene, DropReason::NoReal, &frame);
        scene.maps.close(places(vip.ip(), "80")).expect("gone");
        assert_eq!(scene.goes_in(&frame).verdict, PASS);
    }
}

#[test]
fn ports_in_a_row_and_all_ports_are_one_service() {
    let [client, vip, real] = FAMILIES[0].map(at);
    for (ports, inside, outside) in
        [("8000-8010", vec![8000, 8007, 8010], vec![7999, 8011]), ("any", vec![1, 65_535], vec![])]
    {
        let mut scene =
            Scene::serving(SocketAddr::new(vip.ip(), 443), &hop(real.ip(), None), &nat());
        scene.maps.open(places(vip.ip(), ports), id(1)).expect("written");
        let reply = Reply { vip: vip.ip(), port: None, ifindex: 1, real: 3, here: false };
        scene.maps.put_reply(places(real.ip(), ports), &reply).expect("written");
        let to = |port| packet(Kind::Syn, client, SocketAddr::new(vip.ip(), port), 64);
        for port in inside {
            let went = scene.goes_in(&to(port));
            assert_eq!(said(&went.frame).1, SocketAddr::new(real.ip(), port), "{ports}");
            let came = packet(Kind::Ack, SocketAddr::new(real.ip(), port), client, 64);
            let came = scene.goes_in(&came);
            assert_eq!(said(&came.frame).0, SocketAddr::new(vip.ip(), port), "{ports}");
        }
        for port in outside {
            assert_eq!(scene.goes_in(&to(port)).verdict, PASS, "{ports} {port}");
        }
        scene.maps.close(places(vip.ip(), ports)).expect("closed");
        scene.maps.drop_reply(places(real.ip(), ports)).expect("gone");
        assert_eq!(scene.goes_in(&to(8005)).verdict, PASS);
        let reply = packet(Kind::Ack, SocketAddr::new(real.ip(), 8005), client, 64);
        assert_eq!(scene.goes_in(&reply).verdict, PASS);
        assert_eq!(scene.goes_in(&to(443)).verdict, SENT, "the other one stays");
    }
}

/// The VIP moved slots from real server 3 to 4.
fn changed(vip: SocketAddr, real: SocketAddr, settles: Mono) -> Scene {
    let mut scene = Scene::serving(vip, &hop(real.ip(), None), &service(5, 5));
    scene.maps.put_real(4, &hop(real.ip(), None)).expect("written");
    scene.maps.put_tables([(6, &all(4)[..])]).expect("written");
    let service = Service { settles, ..service(6, 5) };
    scene.maps.put_service(id(1), &service).expect("written");
    scene
}

const BOTH: [u32; 2] = [3, 4];

#[test]
fn after_a_change_connections_stay_and_new_ones_follow_the_new_table() {
    for [client, vip, real] in FAMILIES.map(|family| family.map(at)) {
        let mut scene = changed(vip, real, Mono::ZERO);
        let of = |port, kind| packet(kind, SocketAddr::new(client.ip(), port), vip, 64);
        assert_eq!(scene.goes_to(&of(1, Kind::Ack), &BOTH), Some(3), "it began before");
        assert_eq!(scene.goes_to(&of(2, Kind::Syn), &BOTH), Some(4));
        assert_eq!(scene.goes_to(&of(2, Kind::Ack), &BOTH), Some(4), "it is remembered");
        assert_eq!(scene.goes_to(&of(1, Kind::Syn), &BOTH), Some(4), "it is another one now");
        assert_eq!(scene.goes_to(&of(1, Kind::Ack), &BOTH), Some(4));
        assert_eq!(scene.goes_to(&of(3, Kind::Ack), &BOTH), Some(3));
        // The table before retires: what speaks stays where it is.
        let retired = Service { remembers: true, ..service(6, 6) };
        scene.maps.put_service(id(1), &retired).expect("written");
        assert_eq!(scene.goes_to(&of(3, Kind::Ack), &BOTH), Some(3));
        assert_eq!(scene.goes_to(&of(4, Kind::Ack), &BOTH), Some(4), "it was silent");
        // Its number is another service's real server now.
        let taken = Real { service: id(2), ..hop(real.ip(), None) };
        scene.maps.put_real(3, &taken).expect("written");
        assert_eq!(scene.goes_to(&of(3, Kind::Ack), &BOTH), Some(4));
        scene.maps.put_real(3, &hop(real.ip(), None)).expect("written");
        assert_eq!(scene.goes_to(&of(3, Kind::Ack), &BOTH), Some(3));
        // A server that is dead is nobody's any more.
        scene.maps.drop_real(3).expect("gone");
        assert_eq!(scene.goes_to(&of(3, Kind::Ack), &BOTH), Some(4));
    }
}

#[test]
fn a_datagram_that_nobody_knows_goes_by_the_table_before_until_that_has_settled() {
    let [client, vip, real] = FAMILIES[0].map(at);
    let of = |port| packet(Kind::Udp, SocketAddr::new(client.ip(), port), vip, 64);
    let mut scene = changed(vip, real, Mono(u64::MAX));
    assert_eq!(scene.goes_to(&of(1), &BOTH), Some(3));
    scene.maps.put_service(id(1), &service(6, 5)).expect("written");
    assert_eq!(scene.goes_to(&of(1), &BOTH), Some(3), "it is remembered");
    assert_eq!(scene.goes_to(&of(2), &BOTH), Some(4));
    // Another change, which is none of this flow's business.
    let again = Service { settles: Mono(u64::MAX), ..service(6, 5) };
    scene.maps.put_service(id(1), &again).expect("written");
    assert_eq!([1, 2, 3].map(|port| scene.goes_to(&of(port), &BOTH)), [3, 4, 3].map(Some));
}

#[test]
fn a_hop_of_the_other_family_is_no_way() {
    let ([client, vip, _], [_, _, other]) = (FAMILIES[0].map(at), FAMILIES[1].map(at));
    let mut scene = Scene::serving(vip, &hop(other.ip(), None), &service(5, 5));
    assert_eq!(scene.goes_in(&packet(Kind::Syn, client, vip, 64)).verdict, DROP);
    assert_eq!(scene.dropped(DropReason::NoWay), 1);
}

fn addresses(frame: &[u8]) -> (IpAddr, IpAddr) {
    let sliced = SlicedPacket::from_ethernet(frame).expect("a packet");
    match sliced.net.as_ref().expect("IP") {
        NetSlice::Ipv4(v4) => {
            let header = v4.header().to_header();
            assert_eq!(header.header_checksum, header.calc_header_checksum());
            (header.source.into(), header.destination.into())
        }
        NetSlice::Ipv6(v6) => (v6.header().source().into(), v6.header().destination().into()),
        NetSlice::Arp(_) => panic!("ARP"),
    }
}
