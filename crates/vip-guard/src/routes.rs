//! Routes as the kernel tells them.

use ipnet::IpNet;
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteType, RouteVia,
};
use std::net::IpAddr;
use vip_core::subnet;

/// Marks the addresses that vipd added (`IFA_PROTO`), so that a later run, and
/// a person with `ip -d address`, can tell them from others.
pub(crate) const OUR_PROTOCOL: u8 = 118;

/// Marks the routes that vipd added, as its addresses are marked.
pub(crate) const OUR_ROUTES: RouteProtocol = RouteProtocol::Other(OUR_PROTOCOL);

pub(crate) fn address(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(v4) => Some(IpAddr::V4(*v4)),
        RouteAddress::Inet6(v6) => Some(IpAddr::V6(*v6)),
        _ => None,
    }
}

/// The gateways in attributes, those of several paths included.
pub(crate) fn gateways(attributes: &[RouteAttribute]) -> Vec<IpAddr> {
    let found = attributes.iter().flat_map(|attribute| match attribute {
        RouteAttribute::Gateway(gateway) => address(gateway).into_iter().collect(),
        RouteAttribute::Via(RouteVia::Inet(v4)) => vec![IpAddr::V4(*v4)],
        RouteAttribute::Via(RouteVia::Inet6(v6)) => vec![IpAddr::V6(*v6)],
        RouteAttribute::MultiPath(hops) => {
            hops.iter().flat_map(|hop| gateways(&hop.attributes)).collect()
        }
        _ => vec![],
    });
    found.collect()
}

/// The subnet and interface of a route to neighbours.
pub(crate) fn connected(route: &RouteMessage) -> Option<(u32, IpNet)> {
    let RouteHeader { kind, destination_prefix_length, .. } = route.header;
    let find = |wanted: fn(&RouteAttribute) -> bool| route.attributes.iter().any(wanted);
    let by_others = find(|a| {
        matches!(
            a,
            RouteAttribute::Gateway(_) | RouteAttribute::Via(_) | RouteAttribute::MultiPath(_)
        )
    });
    if kind != RouteType::Unicast || by_others {
        return None;
    }
    let index = route.attributes.iter().find_map(|a| match a {
        RouteAttribute::Oif(index) => Some(*index),
        _ => None,
    })?;
    let network = route.attributes.iter().find_map(|a| match a {
        RouteAttribute::Destination(destination) => address(destination),
        _ => None,
    })?;
    Some((index, subnet(network, destination_prefix_length)))
}

/// Whether vipd added it.
pub(crate) fn is_our_route(route: &RouteMessage) -> bool {
    route.header.protocol == OUR_ROUTES
}
