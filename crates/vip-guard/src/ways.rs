//! How real servers are reached, asked of the kernel's routes one by one, and what else
//! the forwarder has to know of the host: that the first lane looks at, leaves here, and
//! waits for nobody.

use crate::allow::objection_to_real;
use crate::network::HostView;
use crate::routes::{address, gateways};
use arc_swap::ArcSwap;
use futures_util::TryStreamExt;
use ipnet::IpNet;
use netlink_packet_route::route::{RouteAttribute, RouteMessage, RouteType};
use rtnetlink::{Handle, RouteMessageBuilder, new_connection};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use tokio::runtime::Runtime;
use tracing::{debug, warn};
use vip_core::{Address, Forward, Forwarding};
use vip_datapath::{Surroundings, Way};

/// Ways that are remembered for the case that none can be asked for: twice as many as there
/// can be real servers.
const REMEMBERED: usize = 32_768;

/// Addresses that are routed as any others are: of TEST-NET-3 (RFC 5737) and of the prefix
/// for documentation (RFC 3849).
const SOMEWHERE_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 1));
const SOMEWHERE_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1));

/// A host, as it was looked at last.
#[derive(Debug, Default)]
pub(crate) struct Scenery {
    pub(crate) view: HostView,
    /// Where VIPs are or were.
    pub(crate) homes: BTreeMap<IpAddr, u32>,
}

/// See the module.
pub(crate) struct Ways {
    scenery: Arc<ArcSwap<Scenery>>,
    /// Prefixes of real servers that root allows; empty: the usual ones.
    allow: Vec<IpNet>,
    runtime: Runtime,
    netlink: Handle,
    /// Since they were to be looked at again.
    known: RefCell<BTreeMap<IpAddr, Way>>,
    /// What was known before.
    before: RefCell<BTreeMap<IpAddr, Way>>,
}

impl Ways {
    /// With a connection to the kernel of its own.
    pub(crate) fn open(scenery: Arc<ArcSwap<Scenery>>, allow: Vec<IpNet>) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
        let netlink = {
            let _inside = runtime.enter();
            let (connection, handle, _messages) = new_connection()?;
            runtime.spawn(connection);
            handle
        };
        let (known, before) = (RefCell::default(), RefCell::default());
        Ok(Self { scenery, allow, runtime, netlink, known, before })
    }

    /// The host's routes may be others.
    pub(crate) fn look_again(&self) {
        let mut before = self.before.borrow_mut();
        if before.len() > REMEMBERED {
            before.clear();
        }
        before.extend(self.known.take());
    }

    /// As if the kernel had said so.
    #[cfg(test)]
    pub(crate) fn pretend(&self, ip: IpAddr, way: Way) {
        self.known.borrow_mut().insert(ip, way);
    }

    /// What will not work of this, as the rest of a sentence: packets that the VIP's
    /// interface takes and that of a real server does not. Those of IPv4 that may be divided
    /// are lost, and of others nobody may hear.
    pub(crate) fn flaw(&self, forwarding: &Forwarding) -> Option<String> {
        let lost = |vip: &Address| vip.is_on_loopback() && self.outwards(vip.ip).is_none();
        if forwarding.forward == Forward::Nat && forwarding.vips.iter().any(lost) {
            let text = "what its real servers reply has no way to clients: this host has no default \
                        route";
            return Some(text.to_owned());
        }
        let scenery = self.scenery.load();
        let mtu = |index: u32| scenery.view.mtus.get(&index).copied().filter(|mtu| *mtu > 0);
        let home = forwarding.vips.iter().find_map(|vip| self.home_of(vip))?;
        let wide = mtu(home)?;
        forwarding.places().into_iter().find_map(|(ip, _)| {
            let Way::Hop { ifindex, .. } = self.way_to(ip) else { return None };
            let narrow = mtu(ifindex).filter(|narrow| *narrow < wide)?;
            Some(format!(
                "the interface towards the real server {ip} takes packets of {narrow} bytes, and \
                 that of the VIP {wide}: larger ones are lost on the way in; give both the same MTU"
            ))
        })
    }

    /// The interface by which clients from elsewhere are answered.
    fn outwards(&self, like: IpAddr) -> Option<u32> {
        match self.way_to(if like.is_ipv4() { SOMEWHERE_V4 } else { SOMEWHERE_V6 }) {
            Way::Hop { ifindex, .. } => Some(ifindex),
            _ => None,
        }
    }

    fn ask(&self, ip: IpAddr) -> Way {
        match self.runtime.block_on(routes_to(&self.netlink, ip)) {
            Ok(routes) => routes.first().map_or(Way::None, |route| way(ip, route)),
            Err(error) if says_none(&error) => {
                debug!(%ip, %error, "no route to a real server");
                Way::None
            }
            // That says nothing of the way.
            Err(error) => {
                warn!(%ip, %error, "the way to a real server cannot be asked for");
                self.before.borrow().get(&ip).copied().unwrap_or(Way::None)
            }
        }
    }
}

impl Surroundings for Ways {
    fn way_to(&self, ip: IpAddr) -> Way {
        *self.known.borrow_mut().entry(ip).or_insert_with(|| self.ask(ip))
    }

    fn home_of(&self, address: &Address) -> Option<u32> {
        if address.is_on_loopback() {
            return self.outwards(address.ip);
        }
        let scenery = self.scenery.load();
        let held_on = scenery.homes.get(&address.ip).copied();
        scenery.view.network.home_of(address, held_on).ok()
    }

    fn own(&self) -> BTreeSet<IpAddr> {
        let scenery = self.scenery.load();
        scenery.view.network.addresses.iter().map(|(_, ip, _)| *ip).collect()
    }

    fn objection_to(&self, real: IpAddr) -> Option<String> {
        objection_to_real(&self.allow, &self.scenery.load().view, real).map(str::to_owned)
    }
}

/// Whether the kernel answered that there is no way.
fn says_none(error: &rtnetlink::Error) -> bool {
    let none = [libc::ENETUNREACH, libc::EHOSTUNREACH, libc::EACCES, libc::EINVAL, libc::EAGAIN];
    matches!(error, rtnetlink::Error::NetlinkError(e) if none.contains(&-e.raw_code()))
}

async fn routes_to(netlink: &Handle, ip: IpAddr) -> Result<Vec<RouteMessage>, rtnetlink::Error> {
    let query = match ip {
        IpAddr::V4(ip) => RouteMessageBuilder::<Ipv4Addr>::new().destination_prefix(ip, 32).build(),
        IpAddr::V6(ip) => {
            RouteMessageBuilder::<Ipv6Addr>::new().destination_prefix(ip, 128).build()
        }
    };
    netlink.route().get(query).execute().try_collect().await
}

/// The interface towards a neighbour, and this host's address there; `None`: it is none.
pub(crate) async fn route_to(netlink: &Handle, ip: IpAddr) -> Option<(u32, IpAddr)> {
    let routes = routes_to(netlink, ip).await.ok()?;
    let route = routes.first()?;
    let Way::Hop { ifindex, hop } = way(ip, route) else { return None };
    let source = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::PrefSource(source) => address(source),
        _ => None,
    })?;
    (hop == ip).then_some((ifindex, source))
}

/// What the kernel's answer for one address means.
fn way(ip: IpAddr, route: &RouteMessage) -> Way {
    let oif = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Oif(index) => Some(*index),
        _ => None,
    });
    match (route.header.kind, oif) {
        (RouteType::Local, _) => Way::Here,
        (RouteType::Unicast, Some(ifindex)) => {
            let hop = gateways(&route.attributes).first().copied().unwrap_or(ip);
            Way::Hop { ifindex, hop }
        }
        _ => Way::None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use netlink_packet_route::route::{RouteAddress, RouteVia};

    const REAL: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 11));

    fn route(kind: RouteType, attributes: &[RouteAttribute]) -> RouteMessage {
        let mut message = RouteMessage::default();
        message.header.kind = kind;
        message.attributes.extend_from_slice(attributes);
        message
    }

    #[test]
    fn a_real_server_is_a_neighbour_or_behind_one_or_here_or_nowhere() {
        let hop = |hop| Way::Hop { ifindex: 3, hop };
        let oif = RouteAttribute::Oif(3);
        let gateway = Ipv4Addr::new(10, 0, 0, 254);
        let by = RouteAttribute::Gateway(RouteAddress::Inet(gateway));
        let v6 = "fe80::1".parse::<Ipv6Addr>().expect("valid");
        let via = RouteAttribute::Via(RouteVia::Inet6(v6));
        for (kind, attributes, expected) in [
            (RouteType::Unicast, vec![oif.clone()], hop(REAL)),
            (RouteType::Unicast, vec![oif.clone(), by], hop(gateway.into())),
            (RouteType::Unicast, vec![oif.clone(), via], hop(v6.into())),
            (RouteType::Local, vec![RouteAttribute::Oif(1)], Way::Here),
            (RouteType::Broadcast, vec![oif.clone()], Way::None),
            (RouteType::Unreachable, vec![oif], Way::None),
            (RouteType::Unicast, vec![], Way::None),
        ] {
            assert_eq!(way(REAL, &route(kind, &attributes)), expected);
        }
    }

    /// The kernel's own answer, by loopback alone.
    #[test]
    fn the_kernel_is_asked_for_one_route_and_not_for_all() {
        let ways = Ways::open(Arc::default(), vec![]).expect("netlink");
        assert_eq!(ways.way_to([127, 0, 0, 1].into()), Way::Here);
        assert_eq!(ways.way_to([255, 255, 255, 255].into()), Way::None);
    }
}
