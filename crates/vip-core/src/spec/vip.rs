//! What is wanted of a VIP.

use super::Via;
use super::via::{community_of, goes_to_node};
use crate::address::unfit;
use crate::text::as_text;
use crate::words::words;
use crate::{Address, Name, excerpt};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// Longest interface name, `IFNAMSIZ - 1`.
const MAX_INTERFACE_LEN: usize = 15;

/// One address of a VIP with its prefix length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct VipAddress {
    /// The address.
    pub ip: IpAddr,
    /// Its prefix length.
    pub prefix: u8,
}

/// Why a text is no address of a VIP.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Not `ADDRESS/PREFIX`.
    #[error("{0:?} is not an address with a prefix length, such as 192.0.2.10/24")]
    Syntax(String),
    /// Prefix longer than the address.
    #[error("{text:?}: a prefix length here is 1 to {max}")]
    Prefix {
        text: String,
        /// Longest prefix of the family.
        max: u8,
    },
    /// Multicast, broadcast, loopback, unspecified, link-local v6.
    #[error("{0} cannot be a VIP: it is {1}")]
    NotUnicast(IpAddr, &'static str),
}

impl FromStr for VipAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let syntax = || AddressError::Syntax(excerpt(text));
        let (ip, prefix) = text.split_once('/').ok_or_else(syntax)?;
        let ip: IpAddr = ip.parse().map_err(|_| syntax())?;
        let prefix: u8 = prefix.parse().map_err(|_| syntax())?;
        let max = if ip.is_ipv4() { 32 } else { 128 };
        if prefix == 0 || prefix > max {
            return Err(AddressError::Prefix { text: excerpt(text), max });
        }
        let address = Self { ip, prefix };
        match unfit(ip, prefix) {
            Some(kind) => Err(AddressError::NotUnicast(ip, kind)),
            None => Ok(address),
        }
    }
}

as_text!(VipAddress, AddressError);

impl fmt::Display for VipAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.ip, self.prefix)
    }
}

/// Who should hold a VIP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Placement {
    /// The Raft leader.
    #[default]
    Leader,
    /// Whoever holds it, for as long as that node is well.
    Sticky,
}

words!(Placement, "placement" { Leader => "leader", Sticky => "sticky" });

/// What is wanted of a VIP.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VipSpec {
    /// Unique name.
    pub name: Name,
    /// Its addresses; they move together.
    pub addresses: Vec<VipAddress>,
    /// Cluster-wide name of the interface, mapped by each node's
    /// `[node.interfaces]`. `None`: the interface in whose subnet it is.
    #[serde(default)]
    pub interface: Option<String>,
    /// Who should hold it.
    #[serde(default)]
    pub placement: Placement,
    /// Another host may have its addresses: a first claim is made all the same,
    /// unless that host is a member.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub no_probe: bool,
    /// How the network is told where it is.
    #[serde(default, skip_serializing_if = "Via::is_usual")]
    pub via: Via,
    /// What whoever is told has to know beside its addresses.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub params: BTreeMap<String, String>,
}

/// Why a VIP's spec cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VipSpecError {
    /// No address.
    #[error("VIP {0} has no address")]
    NoAddress(Name),
    /// Too many addresses.
    #[error("VIP {name} has {count} addresses; at most {most} can move together")]
    TooManyAddresses {
        /// The VIP.
        name: Name,
        /// How many.
        count: usize,
        /// How many it may have.
        most: usize,
    },
    /// An address twice.
    #[error("VIP {name} names {ip} twice")]
    Repeated {
        /// The VIP.
        name: Name,
        /// The address.
        ip: IpAddr,
    },
    /// No interface name.
    #[error("{0:?} is not an interface name: 1 to 15 characters, no '/' and no space")]
    Interface(String),
    /// What whoever is told would not understand, or lacks.
    #[error("VIP {name}: {why}")]
    Param {
        name: Name,
        /// What is wrong.
        why: String,
    },
    /// An interface for one that needs none, or loopback for one that is resolved there.
    #[error("VIP {name} cannot be on {interface}: by {via} its addresses are {}", where_by(*via))]
    Elsewhere { name: Name, interface: String, via: Via },
}

fn where_by(via: Via) -> &'static str {
    if via.is_resolved() { "where neighbours ask for them" } else { "on loopback" }
}

impl VipSpec {
    /// Its addresses, without the networks that they are in.
    #[must_use]
    pub fn ips(&self) -> Vec<IpAddr> {
        self.addresses.iter().map(|address| address.ip).collect()
    }

    /// The community that its routes have, as it goes over the wire (RFC 1997).
    #[must_use]
    pub fn community(&self) -> Option<u32> {
        community_of(&self.params)
    }

    /// Whether routers are to send what is for it to the address by which members know its
    /// holder, and not to the one that each session has.
    #[must_use]
    pub fn goes_to_node(&self) -> bool {
        goes_to_node(&self.params)
    }

    /// Whether it has an address.
    #[must_use]
    pub fn has(&self, ip: IpAddr) -> bool {
        self.addresses.iter().any(|address| address.ip == ip)
    }

    /// Its addresses on a host where the cluster's names of interfaces mean these.
    #[must_use]
    pub fn on_host(&self, interfaces: &BTreeMap<String, String>) -> Vec<Address> {
        let wanted = self.interface.clone().unwrap_or_default();
        let interface = interfaces.get(&wanted).cloned().unwrap_or(wanted);
        if !self.via.is_resolved() {
            return self.addresses.iter().map(|one| Address::on_loopback(one.ip)).collect();
        }
        let on_host = |address: &VipAddress| Address {
            ip: address.ip,
            prefix: address.prefix,
            interface: interface.clone(),
        };
        self.addresses.iter().map(on_host).collect()
    }

    /// Checks what can be checked without the rest of the cluster's state.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn check(&self) -> Result<(), VipSpecError> {
        if self.addresses.is_empty() {
            return Err(VipSpecError::NoAddress(self.name.clone()));
        }
        let most = self.via.most_addresses();
        if self.addresses.len() > most {
            let (name, count) = (self.name.clone(), self.addresses.len());
            return Err(VipSpecError::TooManyAddresses { name, count, most });
        }
        let param = |why| VipSpecError::Param { name: self.name.clone(), why };
        self.via.check(&self.params).map_err(param)?;
        if let Some(other) = self.ips().into_iter().find(|ip| !self.via.moves(*ip)) {
            return Err(param(format!("--via {} moves no address like {other}", self.via)));
        }
        let mut seen = BTreeSet::new();
        for address in &self.addresses {
            if !seen.insert(address.ip) {
                return Err(VipSpecError::Repeated { name: self.name.clone(), ip: address.ip });
            }
        }
        match &self.interface {
            Some(name)
                if name.is_empty()
                    || name.len() > MAX_INTERFACE_LEN
                    || name.contains(|c: char| c == '/' || c.is_whitespace() || c.is_control()) =>
            {
                Err(VipSpecError::Interface(excerpt(name)))
            }
            Some(interface) if interface == "lo" || !self.via.is_resolved() => {
                let (name, interface) = (self.name.clone(), interface.clone());
                Err(VipSpecError::Elsewhere { name, interface, via: self.via })
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::vip;

    #[test]
    fn a_vip_has_as_many_addresses_as_can_move_together() {
        let with = |count: u8| {
            let addresses =
                (0..count).map(|n| VipAddress { ip: [10, 0, 1, n + 1].into(), prefix: 24 });
            VipSpec { addresses: addresses.collect(), ..vip("web", 100) }.check()
        };
        assert!(with(0).is_err() && with(1).is_ok() && with(64).is_ok());
        assert!(matches!(with(65), Err(VipSpecError::TooManyAddresses { count: 65, .. })));
        assert!(matches!(with(66), Err(VipSpecError::TooManyAddresses { count: 66, .. })));
    }

    #[test]
    fn an_interface_is_named_as_the_kernel_names_one() {
        let named = |name: &str| {
            VipSpec { interface: Some(name.into()), ..vip("web", 100) }.check().is_ok()
        };
        assert!(named("e") && named("abcdefghijklmno") && !named("abcdefghijklmnop"));
        for bad in ["", "a/b", "a b", "a\u{7}b"] {
            assert!(!named(bad), "{bad:?}");
        }
    }

    #[test]
    fn what_nobody_resolves_is_on_loopback_and_what_somebody_does_is_not() {
        let spec = |via, interface: Option<&str>| VipSpec {
            via,
            interface: interface.map(Into::into),
            ..vip("web", 100)
        };
        let lb = spec(Via::Lb, None);
        assert_eq!(lb.check(), Ok(()));
        let [address] = &lb.on_host(&BTreeMap::new())[..] else { panic!("one") };
        assert!(address.is_on_loopback() && address.prefix == 32, "{address:?}");
        let garp = spec(Via::Garp, None).on_host(&BTreeMap::new());
        assert!(!garp[0].is_on_loopback());
        for (via, interface) in [(Via::Lb, "eth0"), (Via::Garp, "lo")] {
            let why = spec(via, Some(interface)).check();
            assert!(matches!(why, Err(VipSpecError::Elsewhere { .. })), "{via}: {why:?}");
        }
    }

    #[test]
    fn aws_moves_what_it_can_name() {
        let spec = |via, table: Option<&str>, addresses: Vec<VipAddress>| VipSpec {
            via,
            params: table.map(|id| ("route-table".to_owned(), id.to_owned())).into_iter().collect(),
            addresses,
            ..vip("web", 100)
        };
        let v4 = |count: u8| {
            (1..=count).map(|last| format!("10.9.0.{last}/32").parse().expect("valid")).collect()
        };
        let v6: Vec<VipAddress> = vec!["2001:db8::1/128".parse().expect("valid")];
        let routed = |table, addresses| spec(Via::AwsRoute, table, addresses).check();
        assert_eq!(routed(Some("rtb-0123abc"), v4(11)), Ok(()));
        assert_eq!(routed(Some("rtb-0123abc"), v6.clone()), Ok(()));
        // A token names an interface for each, and more would not fit once they are held.
        let many = routed(Some("rtb-0123abc"), v4(12));
        assert!(matches!(many, Err(VipSpecError::TooManyAddresses { most: 11, .. })), "{many:?}");
        let long = format!("rtb-{}", "a".repeat(64));
        for table in [None, Some(""), Some("rtb-"), Some("rtb-a/b"), Some("eni-1"), Some(&*long)] {
            assert!(routed(table, v4(1)).is_err(), "{table:?}");
        }
        assert_eq!(spec(Via::AwsPrivateIp, None, v4(1)).check(), Ok(()));
        let why = spec(Via::AwsPrivateIp, None, v6).check().expect_err("IPv4 alone").to_string();
        assert!(why.contains("--via aws-private-ip moves no address like 2001:db8::1"), "{why}");
    }

    #[test]
    fn a_route_has_a_community_and_goes_where_routers_can_send() {
        let of = |params: &[(&str, &str)]| VipSpec {
            via: Via::Bgp,
            params: params.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
            ..vip("web", 100)
        };
        assert_eq!((of(&[]).check(), of(&[]).community()), (Ok(()), None));
        let all = of(&[("community", "65001:10"), ("next-hop", "node")]);
        assert_eq!((all.check(), all.community()), (Ok(()), Some(65001 << 16 | 10)));
        assert!(all.goes_to_node() && !of(&[("next-hop", "self")]).goes_to_node());
        for bad in ["", "65001", "65536:1", "1:65536", "+1:1", "1:1:1", "a:b"] {
            let why = of(&[("community", bad)]).check().expect_err(bad).to_string();
            assert!(why.contains("is no community"), "{why}");
        }
        for (key, value) in [("next-hop", "192.0.2.1"), ("file", "move")] {
            assert!(of(&[(key, value)]).check().is_err(), "{key}={value}");
        }
    }

    #[test]
    fn an_address_needs_a_prefix_and_must_be_unicast() {
        for good in ["192.0.2.10/24", "192.0.2.0/32", "192.0.2.0/31", "2001:db8::1/64"] {
            assert_eq!(good.parse::<VipAddress>().map(|a| a.to_string()), Ok(good.to_owned()));
        }
        for bad in [
            "192.0.2.10",
            "192.0.2.10/33",
            "192.0.2.10/0",
            "192.0.2.255/24",
            "192.0.2.0/24",
            "224.0.0.1/4",
            "127.0.0.1/8",
            "0.0.0.0/32",
            "fe80::1/64",
            "ff02::1/64",
            "::1/128",
            "::ffff:192.0.2.1/128",
            "2001:db8::1/129",
            "x/24",
            "192.0.2.1/-1",
        ] {
            assert!(bad.parse::<VipAddress>().is_err(), "{bad}");
        }
    }
}
