//! Which addresses the guard may add, and where it may send what comes for them. Root's
//! decision, not the cluster's: a stolen admin key or a bad leader must not be able to take
//! a gateway, or to have clients speak with whom this host alone can reach.

use crate::network::HostView;
use ipnet::IpNet;
use std::net::IpAddr;
use vip_core::{Why, is_host, is_metadata, no_peer, subnet, unfit};

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

/// Why packets for a VIP may not be sent to a real server, as the rest of a sentence
/// that begins with it; or nothing.
pub(crate) fn objection_to_real(
    allow: &[IpNet],
    host: &HostView,
    ip: IpAddr,
) -> Option<&'static str> {
    // Whatever is allowed: loopback, link-local, and where clouds hand out credentials.
    if no_peer(ip).is_some() {
        return Some("is an address where no other host can be");
    }
    if !allow.is_empty() {
        let allowed = allow.iter().any(|prefix| prefix.contains(&ip));
        return (!allowed).then_some("is not in allow_real of [guard] in vipd.toml");
    }
    if host.gateways.contains(&ip) {
        return Some("is this host's gateway; allow_real of [guard] can allow it");
    }
    let connected = host.network.connected.iter().any(|(_, net)| {
        // Everything is in the whole.
        net.prefix_len() > 0 && net.contains(&ip)
    });
    (!connected && !is_private(ip)).then_some(
        "is neither in a network that this host is connected to nor private (RFC 1918, RFC \
         4193); allow_real of [guard] can allow it",
    )
}

fn is_private(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => v4.is_private(),
        IpAddr::V6(v6) => v6.is_unique_local(),
    }
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
    fn real_servers_are_where_the_host_is_or_in_private_networks() {
        let mut host = host();
        host.network.connected.insert((2, "192.0.2.0/24".parse().expect("valid")));
        host.network.connected.insert((3, "0.0.0.0/0".parse().expect("valid")));
        for text in ["10.9.9.9", "172.31.0.1", "192.168.7.7", "192.0.2.5", "fd00::1"] {
            assert_eq!(objection_to_real(&[], &host, ip(text)), None, "{text}");
        }
        for (text, said) in [
            ("10.0.0.254", "gateway"),
            ("203.0.113.5", "neither"),
            ("2001:db8::5", "neither"),
            ("100.64.0.1", "neither"),
            ("168.63.129.16", "no other host"),
            ("fd00:ec2::254", "no other host"),
            ("127.0.0.1", "no other host"),
            ("169.254.9.9", "no other host"),
            ("fe80::1", "no other host"),
        ] {
            let why = objection_to_real(&[], &host, ip(text)).expect(text);
            assert!(why.contains(said), "{text}: {why}");
        }
    }

    #[test]
    fn what_root_allows_for_real_servers_is_all_there_is() {
        let allow = ["203.0.113.0/24", "10.0.0.254/32", "127.0.0.0/8"];
        let allow = allow.map(|prefix| prefix.parse().expect("valid"));
        for text in ["203.0.113.5", "10.0.0.254"] {
            assert_eq!(objection_to_real(&allow, &host(), ip(text)), None, "{text}");
        }
        for text in ["10.0.0.7", "192.168.7.7", "127.0.0.1"] {
            assert!(objection_to_real(&allow, &host(), ip(text)).is_some(), "{text}");
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
