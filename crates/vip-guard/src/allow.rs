//! Which addresses the guard may add. Root's decision, not the cluster's: a
//! stolen admin key or a bad leader must not be able to take a gateway.

use std::net::IpAddr;
use std::str::FromStr;
use vip_core::{Why, is_metadata, unfit};

/// A prefix of the allowlist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefix {
    network: IpAddr,
    length: u8,
}

/// Not a prefix.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no prefix such as 192.0.2.0/24")]
pub struct PrefixError(String);

fn bits(ip: IpAddr) -> (u128, u8) {
    match ip {
        IpAddr::V4(v4) => (u128::from(u32::from(v4)) << 96, 32),
        IpAddr::V6(v6) => (u128::from(v6), 128),
    }
}

impl FromStr for Prefix {
    type Err = PrefixError;
    fn from_str(text: &str) -> Result<Self, PrefixError> {
        let error = || PrefixError(text.to_owned());
        let (network, length) = text.split_once('/').ok_or_else(error)?;
        let network: IpAddr = network.parse().map_err(|_| error())?;
        let length: u8 = length.parse().map_err(|_| error())?;
        if length > bits(network).1 {
            return Err(error());
        }
        Ok(Self { network, length })
    }
}

impl Prefix {
    /// Whether the address is in it.
    #[must_use]
    pub fn contains(&self, ip: IpAddr) -> bool {
        let ((mine, family), (other, other_family)) = (bits(self.network), bits(ip));
        let mask = u128::MAX.checked_shl(128 - u32::from(self.length)).unwrap_or(0);
        family == other_family && mine & mask == other & mask
    }
}

/// What this host has beside our addresses.
#[derive(Debug, Default)]
pub(crate) struct HostAddresses {
    pub(crate) configured: Vec<IpAddr>,
    pub(crate) gateways: Vec<IpAddr>,
}

/// Why an address may not be added, or nothing.
pub(crate) fn objection(
    allow: &[Prefix],
    host: &HostAddresses,
    ip: IpAddr,
    prefix: u8,
) -> Option<Why> {
    // What no host can have, whatever is allowed.
    if unfit(ip, prefix).is_some() {
        return Some(Why::NotUnicast);
    }
    if host.configured.contains(&ip) {
        return Some(Why::HostHasIt);
    }
    if !allow.is_empty() {
        let allowed = allow.iter().any(|prefix| prefix.contains(ip));
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

    #[test]
    fn a_prefix_contains_its_addresses_of_its_family() {
        let prefix: Prefix = "10.1.0.0/16".parse().expect("valid");
        assert!(prefix.contains(ip("10.1.255.1")));
        assert!(!prefix.contains(ip("10.2.0.1")));
        assert!(!prefix.contains(ip("a01::")));
        let all: Prefix = "0.0.0.0/0".parse().expect("valid");
        assert!(all.contains(ip("1.2.3.4")) && !all.contains(ip("::1")));
        assert!("10.0.0.0/33".parse::<Prefix>().is_err());
    }

    #[test]
    fn a_gateway_and_the_hosts_own_addresses_are_never_vips_by_default() {
        let host =
            HostAddresses { configured: vec![ip("10.0.0.1")], gateways: vec![ip("10.0.0.254")] };
        assert!(objection(&[], &host, ip("10.0.0.1"), 24).is_some());
        assert!(objection(&[], &host, ip("10.0.0.254"), 24).is_some());
        assert!(objection(&[], &host, ip("10.0.0.9"), 24).is_none());
        let allow = ["10.0.0.8/30".parse().expect("valid")];
        assert!(objection(&allow, &host, ip("10.0.0.9"), 24).is_none());
        assert!(objection(&allow, &host, ip("10.0.0.12"), 24).is_some());
    }
    #[test]
    fn what_no_host_can_have_is_refused_whatever_is_allowed() {
        let host = HostAddresses::default();
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
        let host = HostAddresses::default();
        for text in ["169.254.169.254", "168.63.129.16", "fd00:ec2::254"] {
            let own = [format!("{text}/{}", if text.contains(':') { 128 } else { 32 })];
            let own = own.map(|prefix| prefix.parse().expect("valid"));
            assert_eq!(objection(&[], &host, ip(text), 24), Some(Why::NotAllowed), "{text}");
            assert_eq!(objection(&own, &host, ip(text), 24), None, "{text}");
        }
    }
}
