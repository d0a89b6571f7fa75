//! Addresses, interfaces and routes, by netlink.

use crate::records::Placed;
use crate::routes::{OUR_PROTOCOL, connected, is_our_route};
use futures_util::{Stream, StreamExt, TryStreamExt};
use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{
    AddressAttribute, AddressFlags, AddressMessage, AddressProtocol, CacheInfo,
};
use netlink_packet_route::link::{
    InfoBond, InfoData, InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage,
};
use rtnetlink::{AddressMessageBuilder, Handle, MulticastGroup, new_multicast_connection};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::task::JoinHandle;
use vip_core::{Address, LOOPBACK, Mac, Why};
use vip_datapath::{Device, Header};

/// A failed request to the kernel.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KernelError {
    #[error("netlink: {0}")]
    Netlink(#[from] rtnetlink::Error),
    #[error("netlink: {0}")]
    Socket(#[from] std::io::Error),
}

impl From<KernelError> for Why {
    fn from(error: KernelError) -> Self {
        Self::Kernel(error.to_string())
    }
}

/// What the kernel told without being asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum KernelEvent {
    /// One of our addresses is gone.
    AddressGone(IpAddr),
    /// An interface appeared, changed or went.
    LinksChanged,
    /// An address of the host's own, or a route to neighbours.
    HostChanged,
}

/// An interface that has addresses of its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Link {
    pub(crate) device: Device,
    pub(crate) name: String,
    pub(crate) mac: Option<Mac>,
    pub(crate) running: bool,
    /// The ports that its packets leave by: of a bridge those that run, of a
    /// bond the active one.
    pub(crate) ways: BTreeSet<u32>,
    /// Largest packet that it takes.
    pub(crate) mtu: u32,
    /// It leads to containers of this host: one end of a pair, or a bridge of such ends.
    pub(crate) behind: bool,
}

#[derive(Clone)]
pub(crate) struct Kernel {
    pub(crate) handle: Handle,
    unmarked: Unmarked,
}

/// Addresses of ours on a kernel that does not give the mark back (`IFA_PROTO`,
/// Linux 5.18).
#[derive(Clone, Default)]
pub(crate) struct Unmarked(Arc<Mutex<BTreeSet<Placed>>>);

impl Unmarked {
    fn has(&self, message: &AddressMessage) -> bool {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        local(message).is_some_and(|ip| known.contains(&(message.header.index, ip)))
    }

    /// These, and no others.
    pub(crate) fn are(&self, placed: BTreeSet<Placed>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = placed;
    }
}

type Events = std::pin::Pin<Box<dyn Stream<Item = KernelEvent> + Send>>;

impl Kernel {
    /// Opens the netlink socket. The task ends with the runtime.
    pub(crate) fn open() -> Result<(Self, Events, JoinHandle<()>), KernelError> {
        let groups = [
            MulticastGroup::Link,
            MulticastGroup::Ipv4Ifaddr,
            MulticastGroup::Ipv6Ifaddr,
            MulticastGroup::Ipv4Route,
            MulticastGroup::Ipv6Route,
        ];
        let (connection, handle, messages) = new_multicast_connection(&groups)?;
        let task = tokio::spawn(connection);
        let unmarked = Unmarked::default();
        let known = unmarked.clone();
        let events = messages.filter_map(move |(message, _)| {
            let event = event(&message, &known);
            async move { event }
        });
        Ok((Self { handle, unmarked }, Box::pin(events), task))
    }

    /// The interfaces that packets of a VIP can enter or leave the host by:
    /// all but loopback and the ports of bridges, bonds and the like.
    pub(crate) async fn links(&self) -> Result<Vec<Link>, KernelError> {
        let all: Vec<LinkMessage> = self.handle.link().get().execute().try_collect().await?;
        let vrf = |index: u32| all.iter().any(|l| l.header.index == index && is_vrf(l));
        let port = |l: &LinkMessage| {
            l.attributes.iter().any(|a| match a {
                LinkAttribute::Controller(master) => !vrf(*master),
                _ => false,
            })
        };
        let own =
            |l: &&LinkMessage| l.header.link_layer_type != LinkLayerType::Loopback && !port(l);
        let ports = Ports::of(&all);
        let with_ways = |l: &LinkMessage| {
            let (index, ways) = (l.header.index, ports.ways(l.header.index, DEEPEST));
            Link { ways, behind: leads_behind(&all, index), ..link(l) }
        };
        Ok(all.iter().filter(own).map(with_ways).collect())
    }

    /// The addresses that are ours without a mark, to be said.
    pub(crate) fn unmarked(&self) -> &Unmarked {
        &self.unmarked
    }

    pub(crate) fn is_ours(&self, message: &AddressMessage) -> bool {
        is_marked(message) || self.unmarked.has(message)
    }

    /// Whether the kernel gives back that an address which was just added is
    /// ours. `None`: it is gone already.
    pub(crate) async fn keeps_marks(&self, ip: IpAddr) -> Result<Option<bool>, KernelError> {
        let all = self.addresses().await?;
        Ok(all.iter().find(|message| local(message) == Some(ip)).map(is_marked))
    }

    pub(crate) async fn addresses(&self) -> Result<Vec<AddressMessage>, KernelError> {
        Ok(self.handle.address().get().execute().try_collect().await?)
    }

    /// Addresses on this host that a run of vipd added.
    pub(crate) async fn our_addresses(&self) -> Result<Vec<(IpAddr, AddressMessage)>, KernelError> {
        let all = self.addresses().await?;
        let ours = all.into_iter().filter(|message| self.is_ours(message));
        Ok(ours.filter_map(|m| Some((local(&m)?, m))).collect())
    }

    /// Adds the address for so long, or renews its life. It stands alone: with a prefix it
    /// would become the one that the host's own addresses in that are secondary
    /// to, and take them along when it goes. It never becomes a source address
    /// by accident (preferred_lft 0), adds no route, and skips duplicate address
    /// detection: the lease decided that already.
    pub(crate) async fn add(
        &self,
        address: &Address,
        ifindex: u32,
        life: Duration,
    ) -> Result<(), KernelError> {
        let mut lifetime = CacheInfo::default();
        // In the kernel's whole seconds, and none less than meant. It deletes up to
        // 1.3 s later.
        let life = u32::try_from(life.as_millis().div_ceil(1000)).unwrap_or(u32::MAX);
        lifetime.ifa_valid = life;
        let mut request =
            self.handle.address().add(ifindex, address.ip, alone(address.ip)).replace();
        request.message_mut().attributes.extend([
            AddressAttribute::CacheInfo(lifetime),
            AddressAttribute::Flags(AddressFlags::Noprefixroute | AddressFlags::Nodad),
            AddressAttribute::Protocol(AddressProtocol::Other(OUR_PROTOCOL)),
        ]);
        Ok(request.execute().await?)
    }

    pub(crate) async fn delete(&self, address: &Address, ifindex: u32) -> Result<(), KernelError> {
        let message = match address.ip {
            IpAddr::V4(v4) => AddressMessageBuilder::<Ipv4Addr>::new()
                .index(ifindex)
                .address(v4, alone(address.ip))
                .build(),
            IpAddr::V6(v6) => AddressMessageBuilder::<Ipv6Addr>::new()
                .index(ifindex)
                .address(v6, alone(address.ip))
                .build(),
        };
        self.delete_message(message).await
    }

    pub(crate) async fn delete_message(&self, message: AddressMessage) -> Result<(), KernelError> {
        match self.handle.address().del(message).execute().await {
            Err(rtnetlink::Error::NetlinkError(e))
                if matches!(-e.raw_code(), libc::EADDRNOTAVAIL | libc::ENODEV) =>
            {
                Ok(())
            }
            result => Ok(result?),
        }
    }
}

/// The length of a prefix with one address.
fn alone(ip: IpAddr) -> u8 {
    if ip.is_ipv4() { 32 } else { 128 }
}

fn is_marked(message: &AddressMessage) -> bool {
    let ours = AddressAttribute::Protocol(AddressProtocol::Other(OUR_PROTOCOL));
    message.attributes.contains(&ours)
}

pub(crate) fn local(message: &AddressMessage) -> Option<IpAddr> {
    let attribute = |wanted: fn(&AddressAttribute) -> Option<IpAddr>| {
        message.attributes.iter().find_map(wanted)
    };
    let local = attribute(|a| if let AddressAttribute::Local(ip) = a { Some(*ip) } else { None });
    let address =
        || attribute(|a| if let AddressAttribute::Address(ip) = a { Some(*ip) } else { None });
    local.or_else(address)
}

fn is_vrf(message: &LinkMessage) -> bool {
    is_a(message, &InfoKind::Vrf)
}

fn is_a(message: &LinkMessage, kind: &InfoKind) -> bool {
    message.attributes.iter().any(|a| match a {
        LinkAttribute::LinkInfo(infos) => infos.contains(&LinkInfo::Kind(kind.clone())),
        _ => false,
    })
}

/// Whether an interface leads to containers, and nowhere else.
fn leads_behind(all: &[LinkMessage], index: u32) -> bool {
    let is = |index: u32, kind: &InfoKind| {
        all.iter().any(|link| link.header.index == index && is_a(link, kind))
    };
    if is(index, &InfoKind::Veth) {
        return true;
    }
    let master = LinkAttribute::Controller(index);
    let mut ports = all.iter().filter(|link| link.attributes.contains(&master)).peekable();
    is(index, &InfoKind::Bridge)
        && ports.peek().is_some()
        && ports.all(|port| is_a(port, &InfoKind::Veth))
}

/// A bridge of bonds of VLANs, and some more: the kernel has a limit of its own.
const DEEPEST: u32 = 8;

/// Who is whose port.
struct Ports {
    /// Those that run, by bridge or bond.
    running: BTreeMap<u32, Vec<u32>>,
    /// Of bonds that use one alone.
    active: BTreeMap<u32, u32>,
}

impl Ports {
    fn of(all: &[LinkMessage]) -> Self {
        let (mut running, mut active) = (BTreeMap::<u32, Vec<u32>>::new(), BTreeMap::new());
        for link in all {
            let index = link.header.index;
            active.extend(active_port(link).map(|port| (index, port)));
            let master = link.attributes.iter().find_map(|a| match a {
                LinkAttribute::Controller(master) => Some(*master),
                _ => None,
            });
            let runs = link.header.flags.contains(LinkFlags::Running);
            if let Some(master) = master.filter(|_| runs) {
                running.entry(master).or_default().push(index);
            }
        }
        Self { running, active }
    }

    /// The ports that packets of an interface leave by, and theirs.
    fn ways(&self, index: u32, depth: u32) -> BTreeSet<u32> {
        let mut found = BTreeSet::new();
        if depth == 0 {
            return found;
        }
        let active = self.active.get(&index);
        let ports = self.running.get(&index).into_iter().flatten();
        for port in ports.filter(|port| active.is_none_or(|active| active == *port)) {
            found.insert(*port);
            found.extend(self.ways(*port, depth - 1));
        }
        found
    }
}

/// The port that a bond uses alone (`active-backup`).
fn active_port(message: &LinkMessage) -> Option<u32> {
    let infos = message.attributes.iter().find_map(|a| match a {
        LinkAttribute::LinkInfo(infos) => Some(infos),
        _ => None,
    })?;
    let options = infos.iter().find_map(|info| match info {
        LinkInfo::Data(InfoData::Bond(options)) => Some(options),
        _ => None,
    })?;
    let active = options.iter().find_map(|option| match option {
        InfoBond::ActivePort(port) => Some(*port),
        _ => None,
    });
    active.filter(|port| *port > 0)
}

/// What the packets of an interface begin with. Not every tunnel has none:
/// multipoint GRE puts addresses before them.
fn header(kind: LinkLayerType) -> Header {
    use LinkLayerType as T;
    match kind {
        T::Ether => Header::Ethernet,
        T::None | T::Rawip | T::Tunnel | T::Tunnel6 | T::Sit => Header::None,
        other => Header::Other(other.into()),
    }
}

fn link(message: &LinkMessage) -> Link {
    let header = header(message.header.link_layer_type);
    let ethernet = header == Header::Ethernet;
    let mut link = Link {
        device: Device { ifindex: message.header.index, header },
        name: String::new(),
        mac: None,
        running: message.header.flags.contains(LinkFlags::Running),
        ways: BTreeSet::new(),
        mtu: 0,
        behind: false,
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name.clone_from(name),
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            LinkAttribute::Address(mac) if ethernet => {
                link.mac = mac.as_slice().try_into().ok().map(Mac)
            }
            _ => {}
        }
    }
    link
}

fn event(
    message: &NetlinkMessage<RouteNetlinkMessage>,
    unmarked: &Unmarked,
) -> Option<KernelEvent> {
    let NetlinkPayload::InnerMessage(message) = &message.payload else { return None };
    match message {
        RouteNetlinkMessage::DelAddress(address) if is_marked(address) || unmarked.has(address) => {
            // Most of what is on loopback a real server takes, and nobody claims; what is
            // claimed is missed at the next comparison.
            if address.header.index == LOOPBACK {
                return Some(KernelEvent::HostChanged);
            }
            local(address).map(KernelEvent::AddressGone)
        }
        RouteNetlinkMessage::NewAddress(address) if is_marked(address) => None,
        RouteNetlinkMessage::NewAddress(_) | RouteNetlinkMessage::DelAddress(_) => {
            Some(KernelEvent::HostChanged)
        }
        RouteNetlinkMessage::DelRoute(route) if is_our_route(route) => {
            Some(KernelEvent::HostChanged)
        }
        // Those by a gateway can be many, and say nothing here.
        RouteNetlinkMessage::NewRoute(route) | RouteNetlinkMessage::DelRoute(route) => {
            (connected(route).is_some() && !is_our_route(route)).then_some(KernelEvent::HostChanged)
        }
        RouteNetlinkMessage::NewLink(_) | RouteNetlinkMessage::DelLink(_) => {
            Some(KernelEvent::LinksChanged)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(index: u32, attributes: &[LinkAttribute]) -> LinkMessage {
        let mut message = LinkMessage::default();
        message.header.index = index;
        message.header.flags = LinkFlags::Running;
        message.attributes.extend_from_slice(attributes);
        message
    }

    fn bond(index: u32, active: u32, more: &[LinkAttribute]) -> LinkMessage {
        let data = LinkInfo::Data(InfoData::Bond(vec![InfoBond::ActivePort(active)]));
        let info = LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Bond), data]);
        link(index, &[&[info], more].concat())
    }

    /// Of the kernel's messages: a bridge on a bond, whose other port takes over.
    #[test]
    fn the_ways_of_a_bridge_are_those_of_its_bonds_active_port() {
        let below = |master: u32| LinkAttribute::Controller(master);
        let host = |active: u32| {
            let ports = [link(2, &[below(4)]), link(3, &[below(4)])];
            let above = [bond(4, active, &[below(5)]), link(5, &[]), link(6, &[below(5)])];
            [&ports[..], &above].concat()
        };
        assert_eq!(Ports::of(&host(2)).ways(5, DEEPEST), [2, 4, 6].into());
        assert_eq!(Ports::of(&host(3)).ways(5, DEEPEST), [3, 4, 6].into());
        assert_eq!(Ports::of(&host(0)).ways(5, DEEPEST), [2, 3, 4, 6].into(), "all are used");
        let mut without = host(2);
        without[4].header.flags = LinkFlags::empty();
        assert_eq!(Ports::of(&without).ways(5, DEEPEST), [2, 4].into(), "one without a link");
        let circle = [link(2, &[below(3)]), link(3, &[below(2)])];
        assert_eq!(Ports::of(&circle).ways(2, DEEPEST), [2, 3].into());
    }
}
