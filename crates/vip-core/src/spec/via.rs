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
}

words!(Via, "way to move a VIP" {
    Garp => "garp",
    Lb => "lb",
    Exec => "exec",
    AwsRoute => "aws-route",
    AwsPrivateIp => "aws-private-ip",
});

impl Via {
    /// Whether neighbours resolve its addresses. Of others nobody asks by ARP, so nobody is
    /// asked or told by it, and they are on loopback, where no kernel answers for them.
    #[must_use]
    pub const fn is_resolved(self) -> bool {
        match self {
            Self::Garp | Self::Exec => true,
            Self::Lb | Self::AwsRoute | Self::AwsPrivateIp => false,
        }
    }

    /// Whether somebody has to be told before its holder answers, who takes a while.
    #[must_use]
    pub const fn is_called(self) -> bool {
        match self {
            Self::Garp | Self::Lb => false,
            Self::Exec | Self::AwsRoute | Self::AwsPrivateIp => true,
        }
    }

    /// Whether it moves addresses of that family.
    #[must_use]
    pub const fn moves(self, ip: IpAddr) -> bool {
        match self {
            Self::Garp | Self::Lb | Self::Exec | Self::AwsRoute => true,
            Self::AwsPrivateIp => ip.is_ipv4(),
        }
    }

    /// How many addresses move together.
    #[must_use]
    pub const fn most_addresses(self) -> usize {
        match self {
            Self::Garp | Self::Lb | Self::Exec => MAX_ADDRESSES,
            Self::AwsRoute | Self::AwsPrivateIp => MAX_TOKEN / LONGEST_INTERFACE,
        }
    }

    /// Whether AWS is called.
    #[must_use]
    pub const fn is_aws(self) -> bool {
        matches!(self, Self::AwsRoute | Self::AwsPrivateIp)
    }

    /// Checks what is said beside it.
    ///
    /// # Errors
    /// What is wrong, as the rest of a sentence.
    pub(super) fn check(self, params: &BTreeMap<String, String>) -> Result<(), String> {
        let known: &[&str] = match self {
            Self::Garp | Self::Lb | Self::AwsPrivateIp => &[],
            Self::Exec => &[FILE],
            Self::AwsRoute => &[ROUTE_TABLE],
        };
        if let Some(other) = params.keys().find(|key| !known.contains(&key.as_str())) {
            return Err(format!("--via {self} takes no parameter {:?}", excerpt(other)));
        }
        if let Some(missing) = known.iter().find(|key| !params.contains_key(**key)) {
            return Err(format!("--via {self} wants --param {missing}=.."));
        }
        if let Some(file) = params.get(FILE).filter(|file| !is_file_name(file)) {
            return Err(format!(
                "{:?} names no program: letters, digits, '.', '_' and '-', and no '.' at first",
                excerpt(file)
            ));
        }
        match params.get(ROUTE_TABLE) {
            Some(id) if !is_aws_id(id, "rtb-") => {
                Err(format!("{:?} is no route table's id: rtb-..", excerpt(id)))
            }
            _ => Ok(()),
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
            Self::Lb | Self::Exec | Self::AwsRoute | Self::AwsPrivateIp => Level::VIAS,
        }
    }
}

/// Most addresses in one VIP: they move in one batch of netlink requests and
/// announcements, which has to stay short beside a lease.
const MAX_ADDRESSES: usize = 64;
/// Of a network interface's id, and what is between two: a token names one for each address.
const LONGEST_INTERFACE: usize = "eni-0123456789abcdef0 ".len();
/// Longest that AWS gives: it is in every call.
const LONGEST_ID: usize = 64;

/// Whether AWS could have given it.
fn is_aws_id(text: &str, prefix: &str) -> bool {
    text.len() <= LONGEST_ID
        && text.strip_prefix(prefix).is_some_and(|rest| {
            !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_alphanumeric())
        })
}
