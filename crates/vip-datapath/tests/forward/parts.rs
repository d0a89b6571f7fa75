//! Datagrams in parts, and packets with headers before their own.

use super::*;
use etherparse::{IpFragOffset, IpNumber, Ipv4Header, Ipv6FragmentHeader};

fn fragment4(from: SocketAddr, to: SocketAddr, offset: u16, more: bool, body: &[u8]) -> Vec<u8> {
    let (IpAddr::V4(source), IpAddr::V4(destination)) = (from.ip(), to.ip()) else { panic!("v4") };
    let mut header = Ipv4Header::new(
        body.len().try_into().expect("short"),
        64,
        IpNumber::UDP,
        source.octets(),
        destination.octets(),
    )
    .expect("a header");
    (header.dont_fragment, header.more_fragments, header.identification) = (false, more, 77);
    header.fragment_offset = IpFragOffset::try_new(offset).expect("small");
    header.header_checksum = header.calc_header_checksum();
    let mut frame = vec![0; 12];
    frame.extend([8, 0]);
    frame.extend(header.to_bytes());
    frame.extend(body);
    frame
}

fn fragment6(from: SocketAddr, to: SocketAddr, offset: u16, more: bool, body: &[u8]) -> Vec<u8> {
    let (IpAddr::V6(source), IpAddr::V6(destination)) = (from.ip(), to.ip()) else { panic!("v6") };
    let offset = IpFragOffset::try_new(offset).expect("small");
    let fragment = Ipv6FragmentHeader::new(IpNumber::UDP, offset, more, 77).to_bytes();
    let mut frame = vec![0; 12];
    frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
    frame.extend(u16::try_from(fragment.len() + body.len()).expect("short").to_be_bytes());
    frame.extend([44, 64]);
    frame.extend(source.octets());
    frame.extend(destination.octets());
    frame.extend(fragment);
    frame.extend(body);
    frame
}

/// Only the first part says to which port it goes.
#[test]
fn the_rest_of_a_datagram_follows_its_first_part_and_is_not_sent_without_it() {
    for (family, fragment) in
        FAMILIES.iter().zip([fragment4 as fn(_, _, _, _, &[u8]) -> Vec<u8>, fragment6])
    {
        let [client, vip, real] = family.map(at);
        let whole = packet(Kind::Udp, client, vip, 64);
        let l4 = whole.len() - PAYLOAD.len() - 8;
        let (first, rest) = whole[l4..].split_at(24);
        let mut scene = Scene::serving(vip, &hop(real.ip(), Some(real.port())), &nat());
        let reply = Reply { vip: vip.ip(), port: Some(80), ifindex: 1, real: 3, here: false };
        let from = Places { protocol: Protocol::Udp, ..places(real.ip(), "8080") };
        scene.maps.put_reply(from, &reply).expect("written");
        let rest_there = fragment(client, vip, 3, false, rest);
        assert_eq!(scene.goes_in(&rest_there).verdict, DROP);
        assert_eq!(scene.dropped(DropReason::NoFirst), 1);
        assert_eq!(scene.goes_in(&fragment(client, vip, 0, true, first)).verdict, SENT);
        let went = scene.goes_in(&rest_there);
        assert_eq!(went.verdict, SENT);
        let expected = fragment(client, real, 3, false, rest);
        assert_eq!(addresses(&went.frame), addresses(&expected));
        assert!(went.frame.ends_with(rest));
        // And back.
        let rest_back = fragment(real, client, 3, false, rest);
        assert_eq!(scene.goes_in(&rest_back).verdict, PASS, "whose it is nobody knows");
        assert_eq!(
            scene.goes_in(&fragment(real, client, 0, true, first)).verdict,
            PASS,
            "port 40000 is no service's"
        );
        let mut replied = first.to_vec();
        replied[..2].copy_from_slice(&8080_u16.to_be_bytes());
        assert_eq!(scene.goes_in(&fragment(real, client, 0, true, &replied)).verdict, SENT);
        let came = scene.goes_in(&rest_back);
        assert_eq!(came.verdict, SENT);
        assert_eq!(addresses(&came.frame), addresses(&fragment(vip, client, 3, false, rest)));
        // A VIP without services is the host's own affair.
        let mut plain = Scene::new(&[vip.ip()]);
        assert_eq!(plain.goes_in(&rest_there).verdict, PASS);
    }
}

/// The host answers on the VIP for what is no virtual server's, in parts as well.
#[test]
fn what_is_the_hosts_own_arrives_whole() {
    for (family, fragment) in
        FAMILIES.iter().zip([fragment4 as fn(_, _, _, _, &[u8]) -> Vec<u8>, fragment6])
    {
        let [client, vip, real] = family.map(at);
        let mut scene = Scene::serving(vip, &hop(real.ip(), None), &service(5, 5));
        let own = SocketAddr::new(vip.ip(), 5000);
        let whole = packet(Kind::Udp, client, own, 64);
        let l4 = whole.len() - PAYLOAD.len() - 8;
        let (first, rest) = whole[l4..].split_at(24);
        assert_eq!(scene.goes_in(&fragment(client, own, 0, true, first)).verdict, PASS);
        assert_eq!(scene.goes_in(&fragment(client, own, 3, false, rest)).verdict, PASS);
        // Of what has no ports no part is a service's.
        let mut echo = fragment(client, vip, 3, false, rest);
        let (at, icmp) = if client.is_ipv4() { (23, 1) } else { (54, 58) };
        echo[at] = icmp;
        assert_eq!(scene.goes_in(&echo).verdict, PASS);
    }
}

/// Later parts need not name the protocol that the first one has in the end.
#[test]
fn the_rest_is_known_whatever_follows_its_fragment_header() {
    let [client, vip, real] = FAMILIES[1].map(at);
    let mut scene = Scene::serving(vip, &hop(real.ip(), None), &service(5, 5));
    let whole = packet(Kind::Udp, client, vip, 64);
    let (first, rest) = whole[54..].split_at(24);
    let options = [&[17, 0, 1, 4, 0, 0, 0, 0], first].concat();
    let named = |mut frame: Vec<u8>| {
        frame[54] = 60;
        frame
    };
    let late = named(fragment6(client, vip, 4, false, rest));
    assert_eq!(scene.goes_in(&late).verdict, DROP);
    assert_eq!(scene.goes_in(&named(fragment6(client, vip, 0, true, &options))).verdict, SENT);
    assert_eq!(scene.goes_in(&late).verdict, SENT);
}

/// An IPv6 packet with so many headers before its UDP.
fn with_options(client: SocketAddr, vip: SocketAddr, count: usize) -> Vec<u8> {
    let plain = packet(Kind::Udp, client, vip, 64);
    let mut options = vec![];
    for last in (0..count).map(|index| index + 1 == count) {
        options.extend([if last { 17 } else { 60 }, 0, 1, 4, 0, 0, 0, 0]);
    }
    let mut frame = plain[..54].to_vec();
    let len = u16::try_from(plain.len() - 54 + options.len()).expect("short");
    frame[18..20].copy_from_slice(&len.to_be_bytes());
    if count > 0 {
        frame[20] = 60;
    }
    frame.extend(options);
    frame.extend(&plain[54..]);
    frame
}

#[test]
fn as_many_extension_headers_as_are_parsed_are_forwarded_and_more_are_dropped() {
    let [client, vip, real] = FAMILIES[1].map(at);
    for count in 0..=6 {
        let mut scene = Scene::serving(vip, &hop(real.ip(), Some(real.port())), &nat());
        let frame = with_options(client, vip, count);
        let went = scene.goes_in(&frame);
        if count <= 4 {
            assert_eq!((went.verdict, said(&went.frame).1), (SENT, real), "{count}");
        } else {
            assert_eq!((went.verdict, scene.dropped(DropReason::Headers)), (DROP, 1), "{count}");
            let mut plain = Scene::new(&[vip.ip()]);
            assert_eq!(plain.goes_in(&frame).verdict, PASS, "it serves nobody");
        }
    }
}
