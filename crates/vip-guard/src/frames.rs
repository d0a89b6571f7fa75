//! The frames that announce an address, and the one that tells of a rival.

use etherparse::{
    ArpEthIpv4Packet, ArpHardwareId, ArpOperation, ArpPacket, EtherType, Ethernet2Header,
    PacketBuilder,
};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An Ethernet address.
pub(crate) type Mac = [u8; 6];

const BROADCAST: Mac = [0xff; 6];
const NEIGHBOR_ADVERTISEMENT: u8 = 136;
/// Override flag, not solicited (RFC 4861 §4.4, §7.2.6).
const OVERRIDE: [u8; 4] = [0x20, 0, 0, 0];
/// Target link-layer address option, 8 octets (RFC 4861 §4.6.1).
const TARGET_LINK_LAYER: [u8; 2] = [2, 1];
/// Neighbour discovery is only believed with this (RFC 4861 §7.1).
const ND_HOP_LIMIT: u8 = 255;
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// All frames that announce `ip` at `mac`: for IPv4 both forms of gratuitous
/// ARP, as neighbours differ in which one they believe.
pub(crate) fn announcement(mac: Mac, ip: IpAddr) -> Vec<Vec<u8>> {
    match ip {
        IpAddr::V4(v4) => vec![
            arp(mac, v4, ArpOperation::REQUEST, [0; 6]),
            // Linux learns nothing from a reply to the broadcast address.
            arp(mac, v4, ArpOperation::REPLY, mac),
        ],
        IpAddr::V6(v6) => vec![neighbor_advertisement(mac, v6)],
    }
}

fn arp(mac: Mac, ip: Ipv4Addr, operation: ArpOperation, target_mac: Mac) -> Vec<u8> {
    let ethernet =
        Ethernet2Header { source: mac, destination: BROADCAST, ether_type: EtherType::ARP };
    let packet = ArpEthIpv4Packet {
        operation,
        sender_mac: mac,
        sender_ipv4: ip.octets(),
        target_mac,
        target_ipv4: ip.octets(),
    };
    [&ethernet.to_bytes()[..], &packet.to_bytes()[..]].concat()
}

fn neighbor_advertisement(mac: Mac, ip: Ipv6Addr) -> Vec<u8> {
    // ff02::1 as a multicast MAC (RFC 2464 §7).
    let all_nodes_mac = [0x33, 0x33, 0, 0, 0, 1];
    let body = [&ip.octets()[..], &TARGET_LINK_LAYER, &mac].concat();
    let mut frame = vec![];
    PacketBuilder::ethernet2(mac, all_nodes_mac)
        .ipv6(ip.octets(), ALL_NODES.octets(), ND_HOP_LIMIT)
        .icmpv6_raw(NEIGHBOR_ADVERTISEMENT, 0, OVERRIDE)
        .write(&mut frame, &body)
        .expect("a vector takes every frame of this size");
    frame
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
    (!sender.is_unspecified()).then_some((packet.sender_mac, sender.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: Mac = [2, 0, 0, 0, 0, 9];

    #[test]
    fn an_arp_announcement_names_the_address_as_sender_and_target() {
        let ip = Ipv4Addr::new(10, 0, 0, 100);
        let frames = announcement(MAC, ip.into());
        assert_eq!(frames.len(), 2);
        for frame in &frames {
            assert_eq!(&frame[..12], &[[0xff; 6], MAC].concat()[..]);
            assert_eq!(arp_claim(&frame[14..]), Some((MAC, ip.into())));
            assert_eq!(frame[28..32], frame[38..42], "sender and target");
        }
        assert_eq!((frames[0][21], frames[1][21]), (1, 2), "request, then reply");
        assert_eq!(frames[1][32..38], MAC, "the reply's target is ourselves");
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
        assert!(frames[0].ends_with(&MAC));
    }

    #[test]
    fn a_probe_and_garbage_claim_nothing() {
        let mut probe =
            arp(MAC, Ipv4Addr::UNSPECIFIED, ArpOperation::REQUEST, [0; 6]).split_off(14);
        assert_eq!(arp_claim(&probe), None);
        probe.truncate(20);
        assert_eq!(arp_claim(&probe), None);
        assert_eq!(arp_claim(&[]), None);
    }

    proptest::proptest! {
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
    }
}
