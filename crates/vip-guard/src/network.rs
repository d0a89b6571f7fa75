//! What a host's network looks like beside ours, and the routes to neighbours
//! that the guard adds.

use crate::kernel::{Kernel, KernelError, Link, local};
use crate::routes::{OUR_ROUTES, connected, gateways, is_our_route};
use futures_util::TryStreamExt;
use ipnet::IpNet;
use netlink_packet_route::route::{RouteMessage, RouteScope};
use rtnetlink::RouteMessageBuilder;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use vip_core::{HostNetwork, LOOPBACK, MAX_MACS, Mac};

/// What a host has beside ours.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct HostView {
    pub(crate) network: HostNetwork,
    /// Whom it routes through, by any table.
    pub(crate) gateways: BTreeSet<IpAddr>,
    /// Largest packet of each interface.
    pub(crate) mtus: BTreeMap<u32, u32>,
}

impl HostView {
    /// The Ethernet addresses of interfaces that have addresses beside ours, and
    /// of those in `ours`, where VIPs have been. Containers and virtual machines
    /// come and go with interfaces that have none.
    pub(crate) fn macs(&self, links: &[Link], ours: &BTreeSet<u32>) -> BTreeSet<Mac> {
        let is_local = |ip: &IpAddr| match ip {
            IpAddr::V4(v4) => v4.is_link_local(),
            IpAddr::V6(v6) => v6.is_unicast_link_local(),
        };
        let own = self.network.addresses.iter().filter(|(_, ip, _)| !is_local(ip));
        let used: BTreeSet<u32> =
            own.map(|(index, ..)| *index).chain(ours.iter().copied()).collect();
        let used = links.iter().filter(|link| used.contains(&link.device.ifindex));
        let mut found: Vec<_> = used.filter_map(|link| Some((link.behind, link.mac?))).collect();
        // What others hear it by, where not all are told.
        found.sort_unstable();
        found.into_iter().map(|(_, mac)| mac).take(MAX_MACS).collect()
    }
}

/// Whether IPv6 is off on an interface. One that it was never on, as with a
/// kernel without IPv6, has no such setting.
fn is_without_ipv6(interface: &str) -> bool {
    let setting = format!("/proc/sys/net/ipv6/conf/{interface}/disable_ipv6");
    std::fs::read_to_string(setting).map_or(true, |text| text.trim() != "0")
}

impl Kernel {
    async fn routes(&self) -> Result<Vec<RouteMessage>, KernelError> {
        let v4 = RouteMessageBuilder::<Ipv4Addr>::new().build();
        let v6 = RouteMessageBuilder::<Ipv6Addr>::new().build();
        let mut all = vec![];
        for query in [v4, v6] {
            let routes = self.handle.route().get(query).execute();
            all.extend(routes.try_collect::<Vec<_>>().await?);
        }
        Ok(all)
    }

    /// What the host has beside ours.
    pub(crate) async fn view(&self, links: &[Link]) -> Result<HostView, KernelError> {
        let index = |link: &Link| link.device.ifindex;
        let own = self.addresses().await?.into_iter().filter(|m| !self.is_ours(m));
        let addresses = own.filter_map(|m| Some((m.header.index, local(&m)?, m.header.prefix_len)));
        let on_loopback = is_without_ipv6("lo").then_some(LOOPBACK);
        let others = links.iter().filter(|l| is_without_ipv6(&l.name)).map(index);
        let network = HostNetwork {
            without_ipv6: others.chain(on_loopback).collect(),
            links: links.iter().map(|link| (index(link), link.name.clone())).collect(),
            addresses: addresses.collect(),
            ..Default::default()
        };
        let mtus = links.iter().map(|link| (index(link), link.mtu)).collect();
        let mut view = HostView { network, gateways: BTreeSet::new(), mtus };
        for route in self.routes().await?.iter().filter(|route| !is_our_route(route)) {
            view.gateways.extend(gateways(&route.attributes));
            view.network.connected.extend(connected(route));
        }
        Ok(view)
    }

    /// The routes that a run of vipd added.
    pub(crate) async fn our_routes(&self) -> Result<Vec<RouteMessage>, KernelError> {
        let all = self.routes().await?;
        Ok(all.into_iter().filter(is_our_route).collect())
    }

    /// Adds a route to neighbours. One of somebody else's to the same prefix
    /// stays in its place.
    pub(crate) async fn add_route(&self, (index, prefix): (u32, IpNet)) -> Result<(), KernelError> {
        let message = match prefix.network() {
            IpAddr::V4(v4) => RouteMessageBuilder::<Ipv4Addr>::new()
                .destination_prefix(v4, prefix.prefix_len())
                .output_interface(index)
                .scope(RouteScope::Link)
                .protocol(OUR_ROUTES)
                .build(),
            IpAddr::V6(v6) => RouteMessageBuilder::<Ipv6Addr>::new()
                .destination_prefix(v6, prefix.prefix_len())
                .output_interface(index)
                .protocol(OUR_ROUTES)
                .build(),
        };
        match self.handle.route().add(message).execute().await {
            Err(rtnetlink::Error::NetlinkError(e)) if -e.raw_code() == libc::EEXIST => Ok(()),
            result => Ok(result?),
        }
    }

    /// Deletes a route, if it is there.
    pub(crate) async fn delete_route(&self, route: RouteMessage) -> Result<(), KernelError> {
        match self.handle.route().del(route).execute().await {
            Err(rtnetlink::Error::NetlinkError(e))
                if matches!(-e.raw_code(), libc::ESRCH | libc::ENODEV) =>
            {
                Ok(())
            }
            result => Ok(result?),
        }
    }
}
