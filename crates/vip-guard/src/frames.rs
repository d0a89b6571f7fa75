//! The frames that announce an address, those that ask who has it, and those
//! that tell of a rival.

use etherparse::icmpv6::{Icmpv6PayloadSlice, NdpOptionSlice};
use etherparse::{
    ArpEthIpv4Packet, ArpHardwareId, ArpOperation, ArpPacket, EtherType, Ethernet2Header,
    Icmpv6Slice, LaxNetSlice, LaxSlicedPacket, PacketBuilder, TcpOptionElement, TransportSlice,
};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use vip_core::Mac;

const BROADCAST: [u8; 6] = [0xff; 6];
const NEIGHBOR_SOLICITATION: u8 = 135;
const NEIGHBOR_ADVERTISEMENT: u8 = 136;
/// Override flag, not solicited (RFC 4861 §4.4, §7.2.6).
const OVERRIDE: [u8; 4] = [0x20, 0, 0, 0];
/// Target link-layer address option, 8 octets (RFC 4861 §4.6.1).
const TARGET_LINK_LAYER: [u8; 2] = [2, 1];
/// Neighbour discovery is only believed with this (RFC 4861 §7.1).
const ND_HOP_LIMIT: u8 = 255;
/// A segment that fits any Ethernet: without the option some firewalls take it for an attack
/// (RFC 9293 section 3.7.1).
const MSS: TcpOptionElement = TcpOptionElement::MaximumSegmentSize(1440);
/// Of a connection that nothing is sent on.
const WINDOW: u16 = 1024;
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// All frames that announce `ip` at `mac`: for IPv4 both forms of gratuitous
/// ARP, as neighbours differ in which one they believe.
pub(crate) fn announcement(mac: Mac, ip: IpAddr) -> Vec<Vec<u8>> {
    match ip {
        IpAddr::V4(v4) => vec![
            arp(mac, v4, ArpOperation::REQUEST, [0; 6], v4),
            // Linux learns nothing from a reply to the broadcast address.
            arp(mac, v4, ArpOperation::REPLY, mac.0, v4),
        ],
        IpAddr::V6(v6) => vec![neighbor_advertisement(mac, v6)],
    }
}

/// The frame that asks who has `ip`, without claiming it (RFC 5227 §2.1.1, RFC
/// 4862 §5.4.2).
pub(crate) fn probe(mac: Mac, ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(v4) => arp(mac, Ipv4Addr::UNSPECIFIED, ArpOperation::REQUEST, [0; 6], v4),
        IpAddr::V6(v6) => neighbor_solicitation(mac, v6),
    }
}

fn arp(
    mac: Mac,
    sender: Ipv4Addr,
    operation: ArpOperation,
    target_mac: [u8; 6],
    target: Ipv4Addr,
) -> Vec<u8> {
    let ethernet =
        Ethernet2Header { source: mac.0, destination: BROADCAST, ether_type: EtherType::ARP };
    let packet = ArpEthIpv4Packet {
        operation,
        sender_mac: mac.0,
        sender_ipv4: sender.octets(),
        target_mac,
        target_ipv4: target.octets(),
    };
    [&ethernet.to_bytes()[..], &packet.to_bytes()[..]].concat()
}

fn neighbor_advertisement(mac: Mac, ip: Ipv6Addr) -> Vec<u8> {
    // ff02::1 as a multicast MAC (RFC 2464 §7).
    let all_nodes_mac = [0x33, 0x33, 0, 0, 0, 1];
    let body = [&ip.octets()[..], &TARGET_LINK_LAYER, &mac.0].concat();
    let mut frame = vec![];
    PacketBuilder::ethernet2(mac.0, all_nodes_mac)
        .ipv6(ip.octets(), ALL_NODES.octets(), ND_HOP_LIMIT)
        .icmpv6_raw(NEIGHBOR_ADVERTISEMENT, 0, OVERRIDE)
        .write(&mut frame, &body)
        .expect("a vector takes every frame of this size");
    frame
}

fn neighbor_solicitation(mac: Mac, ip: Ipv6Addr) -> Vec<u8> {
    let [.., a, b, c] = ip.octets();
    // The solicited-node address (RFC 4291 §2.7.1), and as a MAC (RFC 2464 §7).
    let mut group = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00, 0).octets();
    group[13..].copy_from_slice(&[a, b, c]);
    let group_mac = [0x33, 0x33, 0xff, a, b, c];
    let mut frame = vec![];
    PacketBuilder::ethernet2(mac.0, group_mac)
        .ipv6(Ipv6Addr::UNSPECIFIED.octets(), group, ND_HOP_LIMIT)
        .icmpv6_raw(NEIGHBOR_SOLICITATION, 0, [0; 4])
        .write(&mut frame, &ip.octets())
        .expect("a vector takes every frame of this size");
    frame
}

/// A segment of TCP that opens a connection, or ends one that was offered.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SynFrame {
    /// From and to, as all pairs here.
    pub(crate) macs: (Mac, Mac),
    pub(crate) ips: (IpAddr, IpAddr),
    pub(crate) ports: (u16, u16),
    pub(crate) number: u32,
    pub(crate) hops: u8,
    pub(crate) is_reset: bool,
}

impl SynFrame {
    /// As it is sent; `None`: its addresses are of two families.
    pub(crate) fn bytes(&self) -> Option<Vec<u8>> {
        let ethernet = PacketBuilder::ethernet2(self.macs.0.0, self.macs.1.0);
        let ip = match self.ips {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                ethernet.ipv4(from.octets(), to.octets(), self.hops)
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                ethernet.ipv6(from.octets(), to.octets(), self.hops)
            }
            _ => return None,
        };
        let tcp = ip.tcp(self.ports.0, self.ports.1, self.number, WINDOW);
        let tcp = if self.is_reset { tcp.rst() } else { tcp.syn().options(&[MSS]).ok()? };
        let mut frame = vec![];
        tcp.write(&mut frame, &[]).ok()?;
        Some(frame)
    }
}

/// What came back of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) from: SocketAddr,
    pub(crate) mac: Mac,
    pub(crate) acknowledges: u32,
    /// Else it offers a connection.
    pub(crate) resets: bool,
}

/// The answer to a SYN in an IP packet from an Ethernet address, if it is one (RFC 9293
/// section 3.5).
pub(crate) fn segment(mac: Mac, packet: &[u8]) -> Option<Segment> {
    let packet = LaxSlicedPacket::from_ip(packet).ok()?;
    let Some(TransportSlice::Tcp(tcp)) = packet.transport else { return None };
    let from: IpAddr = match packet.net? {
        LaxNetSlice::Ipv4(ip) => ip.header().source_addr().into(),
        LaxNetSlice::Ipv6(ip) => ip.header().source_addr().into(),
        LaxNetSlice::Arp(_) => return None,
    };
    let answers = tcp.ack() && (tcp.syn() || tcp.rst());
    answers.then(|| Segment {
        from: SocketAddr::new(from, tcp.source_port()),
        mac,
        acknowledges: tcp.acknowledgment_number(),
        resets: tcp.rst(),
    })
}

/// Who claims which address in an ICMPv6 message, if it is a neighbour
/// advertisement that says so (RFC 4861 §4.4). The kernel checked its sum; its
/// hop limit has to have been.
pub(crate) fn advertised_claim(message: &[u8]) -> Option<(Mac, IpAddr)> {
    let Icmpv6PayloadSlice::NeighborAdvertisement(advertisement) =
        Icmpv6Slice::from_slice(message).ok()?.payload_slice().ok()?
    else {
        return None;
    };
    let mac = advertisement.options_iterator().find_map(|option| match option {
        Ok(NdpOptionSlice::TargetLinkLayerAddress(option)) => {
            option.link_layer_address().try_into().ok()
        }
        _ => None,
    })?;
    Some((Mac(mac), advertisement.target_address().into()))
}

/// Who claims which address in an ARP packet, if anybody does.
pub(crate) fn arp_claim(packet: &[u8]) -> Option<(Mac, IpAddr)> {
    let packet = ArpPacket::from_slice(packet).ok()?;
    if packet.hw_addr_type != ArpHardwareId::ETHERNET {
        return None;
    }
    let packet = packet.try_eth_ipv4().ok()?;
    let sender = Ipv4Addr::from(packet.sender_ipv4);
    // 0.0.0.0 asks, it does not claim (RFC 5227 §1.1).
    (!sender.is_unspecified()).then_some((Mac(packet.sender_mac), sender.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: Mac = Mac([2, 0, 0, 0, 0, 9]);

    #[test]
    fn an_arp_announcement_names_the_address_as_sender_and_target() {
        let ip = Ipv4Addr::new(10, 0, 0, 100);
        let frames = announcement(MAC, ip.into());
        assert_eq!(frames.len(), 2);
        for frame in &frames {
            assert_eq!(&frame[..12], &[[0xff; 6], MAC.0].concat()[..]);
            assert_eq!(arp_claim(&frame[14..]), Some((MAC, ip.into())));
            assert_eq!(frame[28..32], frame[38..42], "sender and target");
        }
        assert_eq!((frames[0][21], frames[1][21]), (1, 2), "request, then reply");
        assert_eq!(frames[1][32..38], MAC.0, "the reply's target is ourselves");
    }

    #[test]
    fn a_neighbor_advertisement_overrides_and_carries_the_mac() {
        let ip: Ipv6Addr = "2001:db8::100".parse().expect("valid");
        let frames = announcement(MAC, ip.into());
        let sliced = etherparse::SlicedPacket::from_ethernet(&frames[0]).expect("parses");
        let Some(etherparse::TransportSlice::Icmpv6(icmp)) = sliced.transport else {
            panic!("not ICMPv6")
        };
        assert!(icmp.is_checksum_valid(ip.octets(), ALL_NODES.octets()));
        assert_eq!(frames[0][21], ND_HOP_LIMIT);
        assert_eq!(frames[0][54], NEIGHBOR_ADVERTISEMENT);
        assert!(frames[0].ends_with(&MAC.0));
        assert_eq!(advertised_claim(&frames[0][54..]), Some((MAC, ip.into())));
    }

    #[test]
    fn a_solicitation_asks_the_group_of_the_address_for_nobody() {
        let ip: Ipv6Addr = "2001:db8::12:3456".parse().expect("valid");
        let frame = probe(MAC, ip.into());
        assert_eq!(frame[..6], [0x33, 0x33, 0xff, 0x12, 0x34, 0x56]);
        let sliced = etherparse::SlicedPacket::from_ethernet(&frame).expect("parses");
        let Some(etherparse::NetSlice::Ipv6(ipv6)) = sliced.net else { panic!("not IPv6") };
        assert!(ipv6.header().source_addr().is_unspecified());
        let group: Ipv6Addr = "ff02::1:ff12:3456".parse().expect("valid");
        assert_eq!(ipv6.header().destination_addr(), group);
        let Some(etherparse::TransportSlice::Icmpv6(icmp)) = sliced.transport else {
            panic!("not ICMPv6")
        };
        assert!(icmp.is_checksum_valid([0; 16], group.octets()));
        assert_eq!((icmp.type_u8(), icmp.payload()), (NEIGHBOR_SOLICITATION, &ip.octets()[..]));
        assert_eq!(advertised_claim(icmp.slice()), None);
    }

    #[test]
    fn a_probe_and_garbage_claim_nothing() {
        let mut asks = probe(MAC, Ipv4Addr::new(10, 0, 0, 100).into()).split_off(14);
        assert_eq!(asks[24..], [10, 0, 0, 100]);
        assert_eq!(arp_claim(&asks), None);
        asks.truncate(20);
        assert_eq!(arp_claim(&asks), None);
        assert_eq!(arp_claim(&[]), None);
    }

    #[test]
    fn a_question_at_a_vip_goes_to_the_neighbour_and_as_far_as_is_said() {
        for [from, to] in [["10.0.0.1", "10.0.0.100"], ["fd00::1", "fd00::100"]] {
            let ip = |text: &str| text.parse::<IpAddr>().expect("valid");
            let (ips, ports) = ((ip(from), ip(to)), (61_000, 80));
            let macs = (MAC, Mac([2, 0, 0, 0, 0, 7]));
            let syn = SynFrame { macs, ips, ports, number: 7, hops: 1, is_reset: false };
            let frame = syn.bytes().expect("one family");
            assert_eq!(frame[..12], [2, 0, 0, 0, 0, 7, 2, 0, 0, 0, 0, 9]);
            assert_eq!(frame[if ips.0.is_ipv4() { 22 } else { 21 }], 1, "hop limit");
            assert_eq!(segment(MAC, &frame[14..]), None, "it acknowledges nothing");
            let reset = SynFrame { is_reset: true, ..syn }.bytes().expect("one family");
            assert_eq!(reset.len() + 4, frame.len(), "the size of its segments");
            assert_eq!(
                SynFrame { ips: (ips.0, [10, 0, 0, 1].into()), ..syn }.bytes().is_none(),
                ips.0.is_ipv6()
            );
        }
    }

    #[test]
    fn what_comes_back_is_an_offer_or_a_refusal() {
        let packet = |rst: bool| {
            let ip = PacketBuilder::ipv4([10, 0, 0, 100], [10, 0, 0, 1], 64);
            let tcp = ip.tcp(80, 61_000, 99, 0).ack(8);
            let (tcp, mut bytes) = (if rst { tcp.rst() } else { tcp.syn() }, vec![]);
            tcp.write(&mut bytes, &[]).expect("written");
            bytes
        };
        let from = "10.0.0.100:80".parse().expect("valid");
        for resets in [false, true] {
            let bytes = packet(resets);
            assert_eq!(
                segment(MAC, &bytes),
                Some(Segment { from, mac: MAC, acknowledges: 8, resets })
            );
            assert_eq!(segment(MAC, &bytes[..30]), None);
        }
    }

    proptest::proptest! {
        /// Anybody on the wire sends these.
        #[test]
        fn no_packet_is_too_odd_for_a_segment(
            packet in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..128),
            version in proptest::prop_oneof![proptest::prelude::Just(0x45_u8), proptest::prelude::Just(0x60)],
        ) {
            let packet = [&[version][..], &packet].concat();
            if let Some(segment) = segment(MAC, &packet) {
                proptest::prop_assert!(packet.len() >= 40, "{segment:?}");
            }
        }

        /// Anybody on the wire sends these.
        #[test]
        fn a_claim_names_somebody(
            packet in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..64),
            honest in proptest::prelude::any::<bool>(),
        ) {
            // Mostly Ethernet and IPv4, or nothing else would be reached.
            let head = [0, 1, 8, 0, 6, 4];
            let packet = if honest { [&head[..], &packet].concat() } else { packet };
            if let Some((_, ip)) = arp_claim(&packet) {
                proptest::prop_assert!(!ip.is_unspecified());
            }
        }

        /// As above, with options of any length.
        #[test]
        fn an_advertised_claim_names_what_was_sent(
            mut message in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..96),
            honest in proptest::prelude::any::<bool>(),
        ) {
            if let (true, Some(start)) = (honest, message.first_chunk_mut()) {
                *start = [NEIGHBOR_ADVERTISEMENT, 0];
            }
            if let Some((mac, ip)) = advertised_claim(&message) {
                let IpAddr::V6(v6) = ip else { panic!("no IPv6 address") };
                proptest::prop_assert_eq!(&message[8..24], &v6.octets()[..]);
                proptest::prop_assert!(message[24..].windows(6).any(|bytes| bytes == mac.0));
            }
        }
    }
}
