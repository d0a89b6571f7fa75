//! ICMP errors about packets of virtual servers.

use super::*;
use etherparse::{Icmpv6Type, Ipv4Header, icmpv4};

/// An error of `router` to `to`, about a packet.
fn error(router: IpAddr, to: IpAddr, about: &[u8], quoted: usize) -> Vec<u8> {
    let mut frame = vec![];
    let about = &about[14..about.len().min(14 + quoted)];
    let ethernet = PacketBuilder::ethernet2([2; 6], [0; 6]);
    match (router, to) {
        (IpAddr::V4(router), IpAddr::V4(to)) => {
            let header = icmpv4::DestUnreachableHeader::FragmentationNeeded { next_hop_mtu: 1300 };
            let ip = ethernet.ipv4(router.octets(), to.octets(), 64);
            ip.icmpv4(Icmpv4Type::DestinationUnreachable(header)).write(&mut frame, about)
        }
        (IpAddr::V6(router), IpAddr::V6(to)) => {
            let ip = ethernet.ipv6(router.octets(), to.octets(), 64);
            ip.icmpv6(Icmpv6Type::PacketTooBig { mtu: 1300 }).write(&mut frame, about)
        }
        _ => panic!("two families"),
    }
    .expect("written");
    frame
}

/// Where an error goes, and what it is about; its sum was found to be right.
fn quoted(frame: &[u8]) -> ((IpAddr, IpAddr), (SocketAddr, SocketAddr)) {
    let outer = addresses(frame);
    let sliced = SlicedPacket::from_ethernet(frame).expect("a packet");
    let about = match sliced.transport.as_ref().expect("a transport") {
        TransportSlice::Icmpv4(icmp) => {
            let sum = icmp.header().icmp_type.calc_checksum(icmp.payload());
            assert_eq!(icmp.header().checksum, sum);
            icmp.payload()
        }
        TransportSlice::Icmpv6(icmp) => {
            let (IpAddr::V6(from), IpAddr::V6(to)) = outer else { panic!("v6") };
            assert!(icmp.is_checksum_valid(from.octets(), to.octets()));
            icmp.payload()
        }
        other => panic!("{other:?}"),
    };
    let (from, to, l4): (IpAddr, IpAddr, usize) = if about[0] >> 4 == 4 {
        let (header, _) = Ipv4Header::from_slice(about).expect("a header");
        assert_eq!(header.header_checksum, header.calc_header_checksum());
        (header.source.into(), header.destination.into(), 20)
    } else {
        let octets = |at: usize| <[u8; 16]>::try_from(&about[at..at + 16]).expect("sixteen");
        (octets(8).into(), octets(24).into(), 40)
    };
    let port = |at: usize| u16::from_be_bytes([about[l4 + at], about[l4 + at + 1]]);
    (outer, (SocketAddr::new(from, port(0)), SocketAddr::new(to, port(2))))
}

#[test]
fn an_error_about_a_reply_reaches_the_real_server_that_sent_it() {
    let routers = ["192.0.2.1", "2001:db8:9::1"].map(ip);
    for (family, router) in FAMILIES.iter().zip(routers) {
        let [client, vip, real] = family.map(at);
        for kind in [Kind::Ack, Kind::Udp] {
            let about = packet(kind, vip, client, 64);
            // Little more than its ports, or all of it.
            for len in [about.len() - PAYLOAD.len() - 14, about.len()] {
                let frame = error(router, vip.ip(), &about, len);
                let mut scene = Scene::serving(vip, &hop(real.ip(), None), &service(5, 5));
                let went = scene.goes_in(&frame);
                assert_eq!(went.verdict, SENT);
                assert_eq!(quoted(&went.frame), ((router, vip.ip()), (vip, client)), "dr");
                let mut scene = Scene::serving(vip, &hop(real.ip(), Some(real.port())), &nat());
                let went = scene.goes_in(&frame);
                assert_eq!(went.verdict, SENT);
                assert_eq!(quoted(&went.frame), ((router, real.ip()), (real, client)), "nat");
            }
            let mut scene = Scene::serving(vip, &hop(real.ip(), None), &service(5, 5));
            let others = packet(kind, SocketAddr::new(vip.ip(), 22), client, 64);
            let others = error(router, vip.ip(), &others, 100);
            assert_eq!(scene.goes_in(&others).verdict, PASS, "the host sent that");
            let forged = error(router, vip.ip(), &packet(kind, real, client, 64), 100);
            assert_eq!(scene.goes_in(&forged).verdict, PASS, "the VIP never sent that");
        }
    }
}

#[test]
fn an_error_about_what_was_sent_to_a_real_server_reaches_the_client_as_about_the_vip() {
    let routers = ["10.9.0.1", "fd09::1"].map(ip);
    for (family, router) in FAMILIES.iter().zip(routers) {
        let [client, vip, real] = family.map(at);
        let mut scene = Scene::serving(vip, &hop(real.ip(), Some(real.port())), &nat());
        let reply = Reply { vip: vip.ip(), port: Some(80), ifindex: 1, real: 3, here: false };
        let from = Places { protocol: Protocol::Udp, ..places(real.ip(), "8080") };
        scene.maps.put_reply(from, &reply).expect("written");
        let about = packet(Kind::Udp, client, real, 64);
        let came = scene.goes_in(&error(router, client.ip(), &about, 100));
        assert_eq!(came.verdict, SENT);
        assert_eq!(quoted(&came.frame), ((router, client.ip()), (client, vip)));
        let came = scene.goes_in(&error(real.ip(), client.ip(), &about, 100));
        assert_eq!(
            quoted(&came.frame),
            ((vip.ip(), client.ip()), (client, vip)),
            "port unreachable"
        );
        let others = packet(Kind::Udp, client, SocketAddr::new(real.ip(), 53), 64);
        assert_eq!(scene.goes_in(&error(router, client.ip(), &others, 100)).verdict, PASS);
    }
}
