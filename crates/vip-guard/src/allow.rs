//! Which addresses the guard may add. Root's decision, not the cluster's: a
//! stolen admin key or a bad leader must not be able to take a gateway.

use crate::network::HostView;
use ipnet::IpNet;
use std::net::IpAddr;
use vip_core::{Why, is_host, is_metadata, subnet, unfit};

/// Whether an address is its subnet's first, or IPv4's last: the network's own,
/// and everybody's.
fn is_edge(ip: IpAddr, subnet: IpNet) -> bool {
    !is_host(subnet) && subnet.contains(&ip) && unfit(ip, subnet.prefix_len()).is_some()
}

/// Why an address may not be added, or nothing.
pub(crate) fn objection(allow: &[IpNet], host: &HostView, ip: IpAddr, prefix: u8) -> Option<Why> {
    // What no host can have, whatever is allowed.
    if unfit(ip, prefix).is_some() {
        return Some(Why::NotUnicast);
    }
    if host.network.addresses.iter().any(|(_, own, _)| *own == ip) {
        return Some(Why::HostHasIt);
    }
    // By the prefix that the host knows; the one that was written may be longer.
    if host.network.addresses.iter().any(|(_, own, length)| is_edge(ip, subnet(*own, *length))) {
        return Some(Why::NotUnicast);
    }
    if !allow.is_empty() {
        let allowed = allow.iter().any(|prefix| prefix.contains(&ip));
        return (!allowed).then_some(Why::NotAllowed);
    }
    // Whoever has it hands out credentials to the machines around.
    if is_metadata(ip) {
        return Some(Why::NotAllowed);
    }
    host.gateways.contains(&ip).then_some(Why::Gateway)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("valid")
    }

    /// At 10.0.0.1/24, behind 10.0.0.254.
    fn host() -> HostView {
        let mut host = HostView::default();
        host.network.addresses.insert((2, ip("10.0.0.1"), 24));
        host.gateways.insert(ip("10.0.0.254"));
        host
    }

    #[test]
    fn the_edges_of_the_hosts_subnet_are_nobodys_however_they_are_written() {
        for text in ["10.0.0.0", "10.0.0.255"] {
            assert_eq!(objection(&[], &host(), ip(text), 32), Some(Why::NotUnicast), "{text}");
        }
        assert_eq!(objection(&[], &host(), ip("10.0.1.0"), 32), None, "another subnet's");
    }

    #[test]
    fn a_gateway_and_the_hosts_own_addresses_are_never_vips_by_default() {
        let host = host();
        assert!(objection(&[], &host, ip("10.0.0.1"), 24).is_some());
        assert!(objection(&[], &host, ip("10.0.0.254"), 24).is_some());
        assert!(objection(&[], &host, ip("10.0.0.9"), 24).is_none());
        let allow = ["10.0.0.8/30".parse().expect("valid")];
        assert!(objection(&allow, &host, ip("10.0.0.9"), 24).is_none());
        assert!(objection(&allow, &host, ip("10.0.0.12"), 24).is_some());
    }
    #[test]
    fn what_no_host_can_have_is_refused_whatever_is_allowed() {
        let host = HostView::default();
        let all = ["0.0.0.0/0", "::/0"].map(|prefix| prefix.parse().expect("valid"));
        for (text, prefix) in [
            ("255.255.255.255", 32),
            ("240.0.0.1", 24),
            ("0.0.0.5", 24),
            ("10.0.0.255", 24),
            ("10.0.0.0", 24),
            ("224.0.0.18", 32),
            ("127.0.0.1", 8),
            ("fe80::1", 64),
            ("::ffff:10.0.0.9", 128),
            ("::1", 128),
        ] {
            assert_eq!(objection(&[], &host, ip(text), prefix), Some(Why::NotUnicast), "{text}");
            assert_eq!(objection(&all, &host, ip(text), prefix), Some(Why::NotUnicast), "{text}");
        }
    }

    #[test]
    fn a_clouds_metadata_address_is_root_s_decision() {
        let host = HostView::default();
        for text in ["169.254.169.254", "168.63.129.16", "fd00:ec2::254"] {
            let own = [format!("{text}/{}", if text.contains(':') { 128 } else { 32 })];
            let own = own.map(|prefix| prefix.parse().expect("valid"));
            assert_eq!(objection(&[], &host, ip(text), 24), Some(Why::NotAllowed), "{text}");
            assert_eq!(objection(&own, &host, ip(text), 24), None, "{text}");
        }
    }
}
