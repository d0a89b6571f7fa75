//! An address on a host, and which can be a VIP at all, whoever asks: the one rule of
//! commands and of guards.

use serde::{Deserialize, Serialize};
use std::array;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An address on an interface of this host.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Address {
    /// The address.
    pub ip: IpAddr,
    /// Length of the prefix that it was written with: its neighbours. On the
    /// host it stands alone.
    pub prefix: u8,
    /// Kernel name of the interface; empty: the one in whose subnet it is.
    pub interface: String,
}

/// The kernel's number of loopback, in every network namespace.
pub const LOOPBACK: u32 = 1;
/// Its name.
const LOOPBACK_NAME: &str = "lo";

impl Address {
    /// One that no neighbour asks for: it needs no interface of its own.
    #[must_use]
    pub fn on_loopback(ip: IpAddr) -> Self {
        let prefix = if ip.is_ipv4() { 32 } else { 128 };
        Self { ip, prefix, interface: LOOPBACK_NAME.to_owned() }
    }

    /// Whether it is one.
    #[must_use]
    pub fn is_on_loopback(&self) -> bool {
        self.interface == LOOPBACK_NAME
    }
}

/// What an address with this prefix length is instead of one that a host can
/// have. Nothing: it can be a VIP.
#[must_use]
pub fn unfit(ip: IpAddr, prefix: u8) -> Option<&'static str> {
    if ip.is_unspecified() {
        return Some("the unspecified address");
    }
    if ip.is_loopback() {
        return Some("a loopback address");
    }
    if ip.is_multicast() {
        return Some("a multicast address");
    }
    match ip {
        IpAddr::V4(v4) => {
            let bits = u32::from(v4);
            let host = u32::MAX.checked_shr(u32::from(prefix)).unwrap_or(0);
            if v4.octets()[0] == 0 || v4.octets()[0] >= 240 {
                Some("not a unicast address")
            } else if prefix <= 30 && bits & host == host {
                Some("the broadcast address of its prefix")
            } else if prefix <= 30 && bits & host == 0 {
                Some("the network address of its prefix")
            } else {
                None
            }
        }
        IpAddr::V6(v6) => {
            if v6.segments()[0] & 0xffc0 == 0xfe80 {
                Some("a link-local address")
            } else if v6.to_ipv4_mapped().is_some() {
                Some("an IPv4-mapped address")
            // RFC 4291 section 2.6.1; not on links between two (RFC 6164).
            } else if prefix < 127 && u128::from(v6) << prefix == 0 {
                Some("the anycast address of its prefix's routers")
            } else {
                None
            }
        }
    }
}

/// What an address is instead of one where the members of a cluster reach each
/// other, or a joiner. Whoever holds a token may not have the leader knock at
/// doors of its own host or link.
#[must_use]
pub fn no_peer(ip: IpAddr) -> Option<&'static str> {
    let whole = if ip.is_ipv4() { 32 } else { 128 };
    match ip {
        IpAddr::V4(v4) if v4.is_link_local() => Some("a link-local address"),
        _ if is_metadata(ip) => Some("a cloud's metadata address"),
        _ => unfit(ip, whole),
    }
}

/// Where machines of clouds ask who they are and get their credentials: whoever
/// answers there is believed. Those of AWS, Google, Azure and OpenStack, of
/// AWS's containers and its DNS, Azure's wire server, Alibaba and Oracle.
const METADATA_V4: [Ipv4Addr; 6] = [
    Ipv4Addr::new(169, 254, 169, 254),
    Ipv4Addr::new(169, 254, 170, 2),
    Ipv4Addr::new(169, 254, 169, 253),
    Ipv4Addr::new(168, 63, 129, 16),
    Ipv4Addr::new(100, 100, 100, 200),
    Ipv4Addr::new(192, 0, 0, 192),
];
const METADATA_V6: [Ipv6Addr; 2] = [
    Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254),
    Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254),
];

/// Its octets in the one form that both families have: IPv4 is mapped (RFC 4291 section
/// 2.5.5.2).
#[must_use]
pub fn octets(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

/// The same in two numbers, little-endian: what is mixed word by word.
pub(crate) fn halves(ip: IpAddr) -> [u64; 2] {
    let octets = octets(ip);
    [0, 8].map(|from| u64::from_le_bytes(array::from_fn(|byte| octets[from + byte])))
}

/// Whether it is where a cloud's machines ask who they are.
#[must_use]
pub fn is_metadata(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => METADATA_V4.contains(&v4),
        IpAddr::V6(v6) => METADATA_V6.contains(&v6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_families_are_written_in_one_form() {
        let of = |text: &str| octets(text.parse().expect("valid"));
        assert_eq!(of("192.0.2.1"), of("::ffff:192.0.2.1"));
        assert_eq!(of("192.0.2.1")[10..], [0xff, 0xff, 192, 0, 2, 1]);
        assert_eq!(of("2001:db8::7")[..4], [0x20, 0x01, 0x0d, 0xb8]);
    }

    #[test]
    fn peers_are_on_no_hosts_own_addresses_and_links() {
        let no = |text: &str| no_peer(text.parse().expect("valid")).is_some();
        for bad in [
            "127.0.0.1",
            "0.0.0.0",
            "169.254.1.1",
            "169.254.169.254",
            "224.0.0.1",
            "255.255.255.255",
            "::1",
            "::",
            "fe80::1",
            "ff02::1",
            "::ffff:127.0.0.1",
            "fd00:ec2::254",
        ] {
            assert!(no(bad), "{bad}");
        }
        let anycast = |text: &str, prefix| unfit(text.parse().expect("valid"), prefix);
        assert!(anycast("fd50::", 64).is_some() && anycast("fd50::1", 64).is_none());
        assert!(anycast("fd50::", 127).is_none() && anycast("fd50::", 128).is_none());
        for good in ["10.0.0.255", "192.0.2.1", "fd77::1", "2001:db8::1"] {
            assert!(!no(good), "{good}");
        }
    }
}
