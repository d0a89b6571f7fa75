//! Prefixes of addresses.

use crate::excerpt;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// The addresses that begin with the same bits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix {
    network: IpAddr,
    length: u8,
}

/// Not a prefix.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no prefix such as 192.0.2.0/24")]
pub struct PrefixError(String);

/// The bits of an address, from the left, and how many there are.
fn bits(ip: IpAddr) -> (u128, u8) {
    match ip {
        IpAddr::V4(v4) => (u128::from(u32::from(v4)) << 96, 32),
        IpAddr::V6(v6) => (u128::from(v6), 128),
    }
}

fn mask(length: u8) -> u128 {
    u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0)
}

impl Prefix {
    /// The one of this length that an address is in; longer than the address is
    /// as long as it.
    #[must_use]
    pub fn of(ip: IpAddr, length: u8) -> Self {
        let length = length.min(bits(ip).1);
        let network = match ip {
            IpAddr::V4(v4) => {
                let kept = u32::try_from(mask(length) >> 96).unwrap_or(u32::MAX);
                IpAddr::V4((u32::from(v4) & kept).into())
            }
            IpAddr::V6(v6) => IpAddr::V6((u128::from(v6) & mask(length)).into()),
        };
        Self { network, length }
    }

    /// Its first address.
    #[must_use]
    pub fn network(&self) -> IpAddr {
        self.network
    }

    /// How many bits are the same.
    #[must_use]
    pub fn length(&self) -> u8 {
        self.length
    }

    /// Whether there is one address in it.
    #[must_use]
    pub fn is_host(&self) -> bool {
        self.length == bits(self.network).1
    }

    /// Whether the address is in it.
    #[must_use]
    pub fn contains(&self, ip: IpAddr) -> bool {
        self.network.is_ipv4() == ip.is_ipv4() && Self::of(ip, self.length) == *self
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.length)
    }
}

impl fmt::Debug for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Prefix {
    type Err = PrefixError;
    fn from_str(text: &str) -> Result<Self, PrefixError> {
        let error = || PrefixError(excerpt(text));
        let (network, length) = text.split_once('/').ok_or_else(error)?;
        let network: IpAddr = network.parse().map_err(|_| error())?;
        let length: u8 = length.parse().map_err(|_| error())?;
        (length <= bits(network).1).then(|| Self::of(network, length)).ok_or_else(error)
    }
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
    fn a_prefix_is_written_by_its_first_address() {
        for (text, written, host) in [
            ("10.1.2.3/8", "10.0.0.0/8", false),
            ("10.1.2.3/32", "10.1.2.3/32", true),
            ("2001:db8::1/64", "2001:db8::/64", false),
            ("2001:db8::1/128", "2001:db8::1/128", true),
            ("10.1.2.3/0", "0.0.0.0/0", false),
        ] {
            let prefix: Prefix = text.parse().expect("valid");
            assert_eq!((prefix.to_string().as_str(), prefix.is_host()), (written, host), "{text}");
        }
    }
}
