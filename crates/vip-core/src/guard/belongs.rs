//! On which interface of a host an address belongs, and which routes it needs
//! there.
//!
//! Where packets for its neighbours go is no answer: in the moment in which the
//! host's own address is renewed, that is the default route.

use crate::{Address, LOOPBACK, Why, is_host, subnet};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::net::IpAddr;

/// What a host's network says about where addresses belong. Nothing of ours is
/// in it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostNetwork {
    /// Interfaces that can have addresses: index and name.
    pub links: BTreeSet<(u32, String)>,
    /// The host's own addresses, with the prefixes that they stand in.
    pub addresses: BTreeSet<(u32, IpAddr, u8)>,
    /// Interfaces on which IPv6 is off.
    pub without_ipv6: BTreeSet<u32>,
    /// Routes to neighbours: those without a gateway.
    pub connected: BTreeSet<(u32, IpNet)>,
}

impl HostNetwork {
    /// The interface that an address belongs on: loopback; or the named one; or the one in
    /// whose subnet it is, by the longest prefix; or that on which it is held,
    /// while no other has a subnet with it.
    ///
    /// # Errors
    /// Why there is none.
    pub fn home_of(&self, address: &Address, held_on: Option<u32>) -> Result<u32, Why> {
        if address.is_on_loopback() {
            return Ok(LOOPBACK);
        }
        if !address.interface.is_empty() {
            let named = self.links.iter().find(|(_, name)| *name == address.interface);
            let missing = || Why::NoInterface(address.interface.clone());
            return named.map(|(index, _)| *index).ok_or_else(missing);
        }
        let own = self.addresses.iter().map(|(index, ip, length)| (*index, subnet(*ip, *length)));
        let subnets = own.chain(self.connected.iter().copied());
        // A tunnel's far end is no subnet, and everything is in the whole.
        let subnets = subnets.filter(|(index, subnet)| {
            let is_subnet = subnet.prefix_len() > 0 && !is_host(*subnet);
            is_subnet && subnet.contains(&address.ip) && self.has(*index)
        });
        let here = |index: u32| held_on == Some(index);
        let best = subnets.max_by_key(|(index, subnet)| {
            (subnet.prefix_len(), here(*index), std::cmp::Reverse(*index))
        });
        let best = best.map(|(index, _)| index);
        best.or(held_on.filter(|index| self.has(*index))).ok_or(Why::NoRoute)
    }

    /// Where an address can be: [`Self::home_of`], if that takes its family.
    ///
    /// # Errors
    /// Why there is no such place.
    pub fn place_for(&self, address: &Address, held_on: Option<u32>) -> Result<u32, Why> {
        let home = self.home_of(address, held_on)?;
        if address.ip.is_ipv4() || !self.without_ipv6.contains(&home) {
            return Ok(home);
        }
        let named = self.links.iter().find(|(index, _)| *index == home);
        let name = named.map_or(&address.interface, |(_, name)| name);
        Err(Why::NoIpv6(name.clone()))
    }

    fn has(&self, index: u32) -> bool {
        self.links.iter().any(|(known, _)| *known == index)
    }

    /// The routes that addresses need where they are: to the neighbours in the
    /// prefix that was written with each, if the host has no address of its own
    /// there. Without it replies to them leave by the default route, and what
    /// they send is refused where the way back is checked (`rp_filter`).
    #[must_use]
    pub fn routes_for<'a>(
        &self,
        placed: impl IntoIterator<Item = (&'a Address, u32)>,
    ) -> BTreeSet<(u32, IpNet)> {
        let needed = placed.into_iter().filter_map(|(address, index)| {
            let prefix = subnet(address.ip, address.prefix);
            let covers = |(at, ip, length): &(u32, IpAddr, u8)| {
                *at == index && (prefix.contains(ip) || subnet(*ip, *length).contains(&address.ip))
            };
            let is_there = self.addresses.iter().any(covers)
                || self.connected.iter().any(|(at, net)| *at == index && *net == prefix);
            (!is_host(prefix) && !is_there).then_some((index, prefix))
        });
        needed.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAN: u32 = 2;
    const MANAGEMENT: u32 = 3;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("valid")
    }

    fn host(addresses: &[(u32, &str, u8)]) -> HostNetwork {
        HostNetwork {
            links: [(LAN, "eth0".into()), (MANAGEMENT, "mg0".into())].into(),
            addresses: addresses
                .iter()
                .map(|(at, text, length)| (*at, ip(text), *length))
                .collect(),
            ..Default::default()
        }
    }

    fn vip(text: &str, prefix: u8, interface: &str) -> Address {
        Address { ip: ip(text), prefix, interface: interface.into() }
    }

    #[test]
    fn an_address_belongs_where_its_subnet_is_and_not_where_the_default_route_is() {
        let both = host(&[(LAN, "10.9.0.1", 24), (MANAGEMENT, "10.8.0.1", 24)]);
        let web = vip("10.9.0.50", 24, "");
        assert_eq!(both.home_of(&web, None), Ok(LAN));
        let renewing = host(&[(MANAGEMENT, "10.8.0.1", 24)]);
        assert_eq!(renewing.home_of(&web, None), Err(Why::NoRoute));
        assert_eq!(renewing.home_of(&web, Some(LAN)), Ok(LAN), "it stays where it is");
        assert_eq!(both.home_of(&web, Some(MANAGEMENT)), Ok(LAN), "and goes where it belongs");
    }

    #[test]
    fn a_named_interface_is_the_one_whatever_subnets_say() {
        let both = host(&[(LAN, "10.9.0.1", 24)]);
        assert_eq!(both.home_of(&vip("10.9.0.50", 24, "mg0"), Some(LAN)), Ok(MANAGEMENT));
        let missing = both.home_of(&vip("10.9.0.50", 24, "eth9"), Some(LAN));
        assert_eq!(missing, Err(Why::NoInterface("eth9".into())));
    }

    #[test]
    fn where_ipv6_is_off_no_address_of_it_can_be() {
        let mut host = host(&[(LAN, "10.9.0.1", 24), (LAN, "2001:db8::1", 64)]);
        host.without_ipv6.insert(LAN);
        let web6 = vip("2001:db8::50", 64, "");
        assert_eq!(host.place_for(&web6, None), Err(Why::NoIpv6("eth0".into())));
        assert_eq!(host.place_for(&vip("10.9.0.50", 24, ""), None), Ok(LAN));
        host.without_ipv6.clear();
        assert_eq!(host.place_for(&web6, None), Ok(LAN));
    }

    #[test]
    fn of_two_subnets_the_narrower_counts_and_of_two_equal_ones_where_it_is() {
        let nested = host(&[(LAN, "10.0.0.1", 8), (MANAGEMENT, "10.9.0.1", 24)]);
        assert_eq!(nested.home_of(&vip("10.9.0.50", 24, ""), Some(LAN)), Ok(MANAGEMENT));
        let twice = host(&[(LAN, "10.9.0.1", 24), (MANAGEMENT, "10.9.0.2", 24)]);
        for at in [LAN, MANAGEMENT] {
            assert_eq!(twice.home_of(&vip("10.9.0.50", 24, ""), Some(at)), Ok(at));
        }
        assert_eq!(twice.home_of(&vip("10.9.0.50", 24, ""), None), Ok(LAN));
    }

    #[test]
    fn a_route_to_neighbours_is_a_subnet_and_one_by_a_gateway_or_to_all_is_none() {
        let mut host = host(&[(LAN, "192.168.0.1", 32)]);
        let web = vip("203.0.113.5", 28, "");
        assert_eq!(host.home_of(&web, None), Err(Why::NoRoute));
        host.connected.insert((LAN, "0.0.0.0/0".parse().expect("valid")));
        assert_eq!(host.home_of(&web, None), Err(Why::NoRoute));
        host.connected.insert((LAN, "203.0.113.0/28".parse().expect("valid")));
        assert_eq!(host.home_of(&web, None), Ok(LAN));
    }

    /// Such as one that is ours, or takes no addresses.
    #[test]
    fn an_interface_that_cannot_have_addresses_is_no_home() {
        const OTHER: u32 = 9;
        let mut host = host(&[(OTHER, "10.9.0.1", 24)]);
        let web = vip("10.9.0.50", 24, "");
        assert_eq!(host.home_of(&web, None), Err(Why::NoRoute));
        assert_eq!(host.home_of(&web, Some(OTHER)), Err(Why::NoRoute));
        host.links = [(OTHER, "eth0".into())].into();
        assert_eq!(host.home_of(&web, None), Ok(OTHER), "the only one there is");
    }

    /// In the prefix that was written with the VIP, or with the VIP in its own.
    #[test]
    fn no_route_is_needed_where_the_host_has_a_neighbour_of_the_vip() {
        let web = vip("203.0.113.21", 28, "eth0");
        let needed = |host: &HostNetwork| !host.routes_for([(&web, LAN)]).is_empty();
        assert!(!needed(&host(&[(LAN, "203.0.113.22", 32)])));
        assert!(!needed(&host(&[(LAN, "203.0.113.1", 24)])));
        assert!(needed(&host(&[(MANAGEMENT, "203.0.113.1", 24)])), "not on that interface");
        let routed = |at, net: &str| {
            let mut host = host(&[]);
            host.connected.insert((at, net.parse().expect("valid")));
            host
        };
        assert!(!needed(&routed(LAN, "203.0.113.16/28")));
        assert!(needed(&routed(MANAGEMENT, "203.0.113.16/28")));
        assert!(needed(&routed(LAN, "203.0.113.32/28")));
    }

    #[test]
    fn one_route_serves_all_vips_of_a_prefix_that_the_host_is_not_in() {
        let host = host(&[(LAN, "192.168.0.1", 24)]);
        let (a, b) = (vip("203.0.113.5", 28, "eth0"), vip("203.0.113.6", 28, "eth0"));
        let own = vip("192.168.0.50", 24, "");
        let alone = vip("203.0.113.99", 32, "eth0");
        let placed = [(&a, LAN), (&b, LAN), (&own, LAN), (&alone, LAN)];
        let net: IpNet = "203.0.113.0/28".parse().expect("valid");
        assert_eq!(host.routes_for(placed), [(LAN, net)].into());
        let mut routed = host;
        routed.connected.insert((LAN, net));
        assert_eq!(routed.routes_for(placed), [].into(), "somebody else's is enough");
    }
}
