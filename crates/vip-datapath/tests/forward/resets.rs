//! Connections that nobody can have any more.

use crate::{DROP, FAMILIES, Kind, PAYLOAD, SENT, Scene, at, hop, id, packet, said, service};
use etherparse::{SlicedPacket, TransportSlice};
use std::net::SocketAddr;
use vip_core::DropReason;
use vip_datapath::Service;

fn nobody_is_up(vip: SocketAddr, real: SocketAddr) -> Scene {
    let resets = Service { resets: true, ..service(5, 5) };
    let mut scene = Scene::serving(vip, &hop(real.ip(), None), &resets);
    scene.maps.drop_real(3).expect("dropped");
    scene
}

/// As RFC 9293 section 3.10.7.1 has it, with every sum right and nothing behind it.
#[test]
fn a_segment_for_nobody_is_answered_with_a_reset_as_the_vips() {
    for [client, vip, real] in FAMILIES.map(|texts| texts.map(at)) {
        let mut scene = nobody_is_up(vip, real);
        for hops in [1, 7, 64, 255] {
            let trial = scene.goes_in(&packet(Kind::Ack, client, vip, hops));
            assert_eq!(trial.verdict, SENT);
            assert_eq!(said(&trial.frame), (vip, client, 64));
            let sliced = SlicedPacket::from_ethernet(&trial.frame).expect("a packet");
            let Some(TransportSlice::Tcp(tcp)) = sliced.transport else { panic!("no TCP") };
            let header = tcp.to_header();
            assert_eq!((header.sequence_number, header.acknowledgment_number), (1, 0));
            assert!(header.rst && !header.ack && !header.syn && !header.fin && !header.psh);
            assert!(tcp.payload().is_empty() && header.options.as_slice().is_empty());
        }
        assert_eq!(scene.dropped(DropReason::NoReal), 0);
        assert_eq!(scene.counter(3).packets, 0);
    }
}

#[test]
fn what_opens_one_or_ends_one_is_dropped_and_so_is_all_where_nobody_asked_for_more() {
    for [client, vip, real] in FAMILIES.map(|texts| texts.map(at)) {
        let mut scene = nobody_is_up(vip, real);
        let mut reset = packet(Kind::Ack, client, vip, 64);
        let flags = reset.len() - PAYLOAD.len() - 20 + 13;
        let mut silent = reset.clone();
        reset[flags] |= 4;
        silent[flags] = 0;
        let (opens, udp) = (packet(Kind::Syn, client, vip, 64), packet(Kind::Udp, client, vip, 64));
        for frame in [&opens, &udp, &reset, &silent] {
            assert_eq!(scene.goes_in(frame).verdict, DROP);
        }
        assert_eq!(scene.dropped(DropReason::NoReal), 4);
        scene.maps.put_service(id(1), &service(5, 5)).expect("written");
        assert_eq!(scene.goes_in(&packet(Kind::Ack, client, vip, 64)).verdict, DROP);
    }
}
