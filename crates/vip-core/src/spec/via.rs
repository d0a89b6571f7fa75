//! How a network is told on which node a VIP is.

use super::check::is_file_name;
use crate::words::words;
use crate::{Level, MAX_TOKEN, excerpt};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// The program's name, in the folder of such programs.
const FILE: &str = "file";
/// The route table that has a route to the VIP.
const ROUTE_TABLE: &str = "route-table";
/// The port of its own that keeps the VIP's addresses from others.
const PORT: &str = "port";
/// What routers know the VIP's routes by (RFC 1997), beside what all of ours have.
const COMMUNITY: &str = "community";
/// Where routers send what is for the VIP.
const NEXT_HOP: &str = "next-hop";
/// To the address by which members know its holder, and not to the one that a session has.
const NEXT_HOP_NODE: &str = "node";
const NEXT_HOP_SELF: &str = "self";

/// See the module.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Via {
    /// By gratuitous ARP and unsolicited neighbour advertisements, in its own subnet.
    #[default]
    Garp,
    /// Not at all: a load balancer asks the nodes.
    Lb,
    /// By a program of the operator's own.
    Exec,
    /// By a route of an AWS VPC to the holder's network interface.
    AwsRoute,
    /// As a secondary private address of the holder's network interface in an AWS VPC.
    AwsPrivateIp,
    /// By routes that the holder announces to its routers (RFC 4271).
    Bgp,
    /// As a fixed address of the holder's port in OpenStack.
    OpenstackPort,
    /// By announcements, from ports that OpenStack lets send as it.
    OpenstackPair,
}

/// Whose API is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Provider {
    /// Amazon Web Services' EC2.
    Aws,
    /// The holder's own BGP speaker's.
    Bgp,
    /// OpenStack's Neutron.
    OpenStack,
}

words!(Provider, "provider" { Aws => "aws", Bgp => "bgp", OpenStack => "openstack" });

words!(Via, "way to move a VIP" {
    Garp => "garp",
    Lb => "lb",
    Exec => "exec",
    AwsRoute => "aws-route",
    AwsPrivateIp => "aws-private-ip",
    Bgp => "bgp",
    OpenstackPort => "openstack-port",
    OpenstackPair => "openstack-pair",
});

impl Via {
    /// Whether neighbours resolve its addresses. Of others nobody asks by ARP, so nobody is
    /// asked or told by it, and they are on loopback, where no kernel answers for them.
    #[must_use]
    pub const fn is_resolved(self) -> bool {
        match self {
            Self::Garp | Self::Exec | Self::OpenstackPort | Self::OpenstackPair => true,
            Self::Lb | Self::AwsRoute | Self::AwsPrivateIp | Self::Bgp => false,
        }
    }

    /// Whether somebody has to be told before its holder answers, who takes a while.
    #[must_use]
    pub const fn is_called(self) -> bool {
        match self {
            Self::Garp | Self::Lb => false,
            Self::Exec
            | Self::AwsRoute
            | Self::AwsPrivateIp
            | Self::Bgp
            | Self::OpenstackPort
            | Self::OpenstackPair => true,
        }
    }

    /// Whether it moves addresses of that family.
    #[must_use]
    pub const fn moves(self, ip: IpAddr) -> bool {
        match self {
            Self::AwsPrivateIp => ip.is_ipv4(),
            _ => true,
        }
    }

    /// How many addresses move together.
    #[must_use]
    pub const fn most_addresses(self) -> usize {
        match self {
            Self::Garp | Self::Lb | Self::Exec | Self::Bgp | Self::OpenstackPair => MAX_ADDRESSES,
            Self::AwsRoute | Self::AwsPrivateIp => MAX_TOKEN / LONGEST_INTERFACE,
            Self::OpenstackPort => (MAX_TOKEN - LONGEST_REVISION) / LONGEST_PORT,
        }
    }

    /// Whose API is called, if one is.
    #[must_use]
    pub const fn provider(self) -> Option<Provider> {
        match self {
            Self::Garp | Self::Lb | Self::Exec => None,
            Self::AwsRoute | Self::AwsPrivateIp => Some(Provider::Aws),
            Self::Bgp => Some(Provider::Bgp),
            Self::OpenstackPort | Self::OpenstackPair => Some(Provider::OpenStack),
        }
    }

    /// Whether each node says for itself that it is there, and takes that back when it is not
    /// any more: others cannot.
    #[must_use]
    pub const fn is_announced_by_each(self) -> bool {
        matches!(self, Self::Bgp)
    }

    /// Checks what is said beside it.
    ///
    /// # Errors
    /// What is wrong, as the rest of a sentence.
    pub(super) fn check(self, params: &BTreeMap<String, String>) -> Result<(), String> {
        let (wanted, possible): (&[&str], &[&str]) = match self {
            Self::Garp | Self::Lb | Self::AwsPrivateIp | Self::OpenstackPort => (&[], &[]),
            Self::Exec => (&[FILE], &[]),
            Self::AwsRoute => (&[ROUTE_TABLE], &[]),
            Self::Bgp => (&[], &[COMMUNITY, NEXT_HOP]),
            Self::OpenstackPair => (&[PORT], &[]),
        };
        let is_known = |key: &str| wanted.contains(&key) || possible.contains(&key);
        if let Some(other) = params.keys().find(|key| !is_known(key)) {
            return Err(format!("--via {self} takes no parameter {:?}", excerpt(other)));
        }
        if let Some(missing) = wanted.iter().find(|key| !params.contains_key(**key)) {
            return Err(format!("--via {self} wants --param {missing}=.."));
        }
        if let Some(file) = params.get(FILE).filter(|file| !is_file_name(file)) {
            return Err(format!(
                "{:?} names no program: letters, digits, '.', '_' and '-', and no '.' at first",
                excerpt(file)
            ));
        }
        if let Some(id) = params.get(ROUTE_TABLE).filter(|id| !is_aws_id(id, "rtb-")) {
            return Err(format!("{:?} is no route table's id: rtb-..", excerpt(id)));
        }
        if let Some(id) = params.get(PORT).filter(|id| !is_uuid(id)) {
            return Err(format!("{:?} is no port's id: a UUID", excerpt(id)));
        }
        if let Some(text) = params.get(COMMUNITY).filter(|text| community(text).is_none()) {
            return Err(format!(
                "{:?} is no community: two numbers up to 65535, as 65001:10",
                excerpt(text)
            ));
        }
        match params.get(NEXT_HOP).map(String::as_str) {
            None | Some(NEXT_HOP_SELF | NEXT_HOP_NODE) => Ok(()),
            Some(other) => Err(format!(
                "next-hop is {NEXT_HOP_SELF:?} or {NEXT_HOP_NODE:?}, and not {:?}: each node has \
                 its own",
                excerpt(other)
            )),
        }
    }

    /// Whether an earlier version has no other.
    #[must_use]
    pub fn is_usual(&self) -> bool {
        *self == Self::default()
    }

    /// Since when the log can have it.
    #[must_use]
    pub const fn since(self) -> Level {
        match self {
            Self::Garp => Level::FIRST,
            _ => Level::VIAS,
        }
    }
}

/// Most addresses in one VIP: they move in one batch of netlink requests and
/// announcements, which has to stay short beside a lease.
const MAX_ADDRESSES: usize = 64;
/// Of a network interface's id, and what is between two: a token names one for each address.
const LONGEST_INTERFACE: usize = "eni-0123456789abcdef0 ".len();
/// Of a port's id and revision, and what is before it: a token names one for each address.
const LONGEST_PORT: usize = LONGEST_REVISION + "@01234567-89ab-cdef-0123-456789abcdef".len();
/// Of a revision, and what is before it.
const LONGEST_REVISION: usize = " 4294967295".len();
/// Longest that AWS gives: it is in every call.
const LONGEST_ID: usize = 64;

/// The community that a VIP's routes have, as it goes over the wire (RFC 1997).
pub(super) fn community_of(params: &BTreeMap<String, String>) -> Option<u32> {
    community(params.get(COMMUNITY)?)
}

/// Whether routers are to send what is for it to the address by which members know its holder.
pub(super) fn goes_to_node(params: &BTreeMap<String, String>) -> bool {
    params.get(NEXT_HOP).is_some_and(|hop| hop == NEXT_HOP_NODE)
}

/// A number of somebody's, and one of his.
fn community(text: &str) -> Option<u32> {
    let (of, value) = text.split_once(':')?;
    let number = |text: &str| {
        let is_plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        is_plain.then(|| text.parse::<u16>().ok()).flatten()
    };
    Some(u32::from(number(of)?) << 16 | u32::from(number(value)?))
}

/// Whether OpenStack could have given it (RFC 9562, section 4).
fn is_uuid(text: &str) -> bool {
    let parts = text.split('-').map(str::len);
    parts.eq([8, 4, 4, 4, 12]) && text.bytes().all(|b| b == b'-' || b.is_ascii_hexdigit())
}

/// Whether AWS could have given it.
fn is_aws_id(text: &str, prefix: &str) -> bool {
    text.len() <= LONGEST_ID
        && text.strip_prefix(prefix).is_some_and(|rest| {
            !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_alphanumeric())
        })
}
