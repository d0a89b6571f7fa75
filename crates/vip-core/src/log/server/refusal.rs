//! Why a command about virtual servers was refused. Nothing was changed.

use super::{MAX_REALS_IN_ALL, MAX_SERVERS};
use crate::{HostName, Name, Ports, Protocol, RealSpec, ServerSpecError, VipAddress};
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ServerRefusal {
    /// The spec is wrong in itself.
    #[error("{text}")]
    Spec {
        /// What is wrong.
        text: String,
    },
    /// No such virtual server.
    #[error("there is no virtual server {name}; `vipctl vs list` shows those there are")]
    Unknown {
        /// What was asked for.
        name: String,
    },
    /// Another one has the name.
    #[error(
        "a virtual server named {name} exists already and differs from this one: `vipctl vs set \
         {name}` changes it"
    )]
    Exists { name: Name },
    /// Somebody else changed it since it was looked at.
    #[error(
        "virtual server {name} was changed meanwhile by somebody else; look at it, and try again"
    )]
    Changed { name: Name },
    /// There is room for no more.
    #[error("there are {MAX_SERVERS} virtual servers, and room for no more")]
    TooMany,
    /// There is room for no more.
    #[error("all virtual servers have {MAX_REALS_IN_ALL} real servers, and room for no more")]
    TooManyReals,
    /// It was not named itself.
    #[error(
        "the real server {real} of virtual server {server} is one of {name}: change what that \
         resolves to, or name others with `vipctl vs set {server} --real`; `vipctl real drain` \
         keeps new connections off it"
    )]
    OfName { server: Name, real: RealSpec, name: HostName },
    /// Nobody to forward to.
    #[error(
        "no name of virtual server {server} has an address that its real servers could have: it \
         would forward to nobody"
    )]
    NoAddresses { server: Name },
    /// Ports that are another one's.
    #[error(
        "{protocol} port {ports} of VIP {vip} is virtual server {other}'s already (its ports: {theirs})"
    )]
    Clash {
        vip: Name,
        protocol: Protocol,
        /// What was asked for.
        ports: Ports,
        /// Who has them.
        other: Name,
        /// All of its.
        theirs: Ports,
    },
    /// No address of the real servers' family.
    #[error("VIP {vip} has no {family} address, and the real server {real} has one")]
    NoAddress {
        vip: Name,
        /// IPv4 or IPv6.
        family: Family,
        /// The real server's.
        real: IpAddr,
    },
    /// A reply would not tell which address it is of.
    #[error(
        "VIP {vip} has several {family} addresses, and a reply by NAT would not tell which one it \
         is of: use dr, or a VIP with one"
    )]
    SeveralAddresses { vip: Name, family: Family },
    /// A real server that moves.
    #[error("{real} is an address of VIP {vip}: a real server is one machine's own address")]
    RealIsVip { real: IpAddr, vip: Name },
    /// A member whose replies go another way.
    #[error(
        "the real server {real} is the member {node}, whose replies do not come back through the \
         holder: use --forward dr, and the port of the virtual server"
    )]
    MemberByNat { real: IpAddr, node: Name },
    /// An address that is a real server's.
    #[error("{ip} is a real server of virtual server {server}: a VIP cannot have it")]
    VipIsReal { ip: IpAddr, server: Name },
    /// A host that the director reaches through a router.
    #[error(
        "the real server {real} is not on the subnet of {vip}, where dr reaches it without a \
         router: use --forward nat"
    )]
    OffSubnet {
        real: IpAddr,
        /// The VIP's address.
        vip: VipAddress,
    },
    /// Whose reply it is would not be told by it.
    #[error(
        "the real server {real} is behind virtual server {other} by NAT already with that port: a \
         reply of it would not tell which one it is of"
    )]
    BehindAnother { real: RealSpec, other: Name },
    /// It has no such real server.
    #[error("virtual server {name} has no real server {real}; `vipctl vs show {name}` lists them")]
    UnknownReal {
        name: Name,
        /// What was asked for.
        real: String,
    },
    /// It has it already, with another weight.
    #[error(
        "virtual server {name} has the real server {real} already: `vipctl real set-weight` changes \
         its weight"
    )]
    RealExists { name: Name, real: RealSpec },
    /// The last one.
    #[error(
        "{real} is the only real server of virtual server {name}: add another one first, or remove \
         the virtual server"
    )]
    LastReal { name: Name, real: RealSpec },
    /// Members are, by themselves.
    #[error(
        "the real servers of virtual server {name} are the members of the cluster (--real-nodes)"
    )]
    FollowsNodes { name: Name },
    /// Nobody would be behind it.
    #[error(
        "no member has an address in the subnet of VIP {vip}, where dr reaches it: see \
         node.advertise"
    )]
    NoMembers { vip: Name },
    /// It cannot be another one.
    #[error(
        "the table of virtual server {name} has {size} slots, and another size would move nearly \
         all of its connections: remove it and add it anew"
    )]
    TableSize {
        name: Name,
        /// Slots.
        size: u16,
    },
    /// A VIP that is needed.
    #[error("VIP {vip} has virtual servers: remove {servers} first")]
    VipInUse { vip: Name, servers: String },
}

/// Of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    pub(super) const fn of(ip: IpAddr) -> Self {
        if ip.is_ipv4() { Self::V4 } else { Self::V6 }
    }
}

impl std::fmt::Display for Family {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}

impl From<ServerSpecError> for ServerRefusal {
    fn from(error: ServerSpecError) -> Self {
        Self::Spec { text: error.to_string() }
    }
}
