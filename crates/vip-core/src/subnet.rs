//! Subnets of addresses.

use ipnet::IpNet;
use std::net::IpAddr;

/// The one of this length that an address is in; longer than the address is as
/// long as it.
#[must_use]
pub fn subnet(ip: IpAddr, length: u8) -> IpNet {
    IpNet::new(ip, length).unwrap_or_else(|_| IpNet::from(ip)).trunc()
}

/// Whether there is one address in it.
#[must_use]
pub fn is_host(subnet: IpNet) -> bool {
    subnet.prefix_len() == subnet.max_prefix_len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subnet_is_written_by_its_first_address() {
        for (ip, length, written, host) in [
            ("10.1.2.3", 8, "10.0.0.0/8", false),
            ("10.1.2.3", 32, "10.1.2.3/32", true),
            ("10.1.2.3", 33, "10.1.2.3/32", true),
            ("2001:db8::1", 64, "2001:db8::/64", false),
            ("2001:db8::1", 128, "2001:db8::1/128", true),
            ("10.1.2.3", 0, "0.0.0.0/0", false),
        ] {
            let subnet = subnet(ip.parse().expect("an address"), length);
            assert_eq!((subnet.to_string().as_str(), is_host(subnet)), (written, host), "{ip}");
        }
    }
}
