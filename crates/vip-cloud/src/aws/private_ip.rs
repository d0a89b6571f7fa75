//! A VIP as a secondary private address of its holder's network interface.
//!
//! It is unassigned from the interface that was seen to have it, and no other, and then
//! assigned without leave to reassign: a late call of an earlier holder is refused while
//! another has it, and takes it from nobody but whom its caller saw. Neither can be tried
//! (`DryRun`).

use super::At;
use super::ec2::{CallError, Named, parsed, text_of};
use super::places::{NOWHERE, of_each, plain, seen};
use crate::Ask;
use std::net::IpAddr;
use vip_core::{CloudReply, Verb, VipSpec};

const DESCRIBE: &str = "DescribeNetworkInterfaces";

/// Who has an address.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Owner {
    interface: String,
    /// It is that interface's first, which it keeps.
    is_primary: bool,
}

/// `vpc`: the one of this node's interface.
pub(super) async fn call(at: &At<'_>, vpc: &str, ask: &Ask) -> Result<CloudReply, CallError> {
    let ips = ask.spec.ips();
    match &ask.verb {
        Verb::Observe => {
            let mut owners = vec![];
            for ip in ips {
                owners.push(owner(at, vpc, ip).await?.map(|owner| owner.interface));
            }
            Ok(seen(&owners, at.interface))
        }
        Verb::Take(token) => {
            for (ip, was) in of_each(ips, token) {
                if was == at.interface {
                    continue;
                }
                if was != NOWHERE {
                    unassign(at, was, ip).await?;
                }
                let ip = ip.to_string();
                let parameters = [
                    ("NetworkInterfaceId", at.interface),
                    ("PrivateIpAddress.1", ip.as_str()),
                    ("AllowReassignment", "false"),
                ];
                at.ec2.call(at.target, "AssignPrivateIpAddresses", &parameters).await?;
            }
            Ok(CloudReply::Done)
        }
        Verb::Release => {
            for ip in ips {
                let owner = owner(at, vpc, ip).await?;
                if owner.is_some_and(|owner| owner.interface == at.interface) {
                    unassign(at, at.interface, ip).await?;
                }
            }
            Ok(CloudReply::Done)
        }
    }
}

async fn unassign(at: &At<'_>, interface: &str, ip: IpAddr) -> Result<(), CallError> {
    let ip = ip.to_string();
    let parameters = [("NetworkInterfaceId", interface), ("PrivateIpAddress.1", ip.as_str())];
    at.ec2.call(at.target, "UnassignPrivateIpAddresses", &parameters).await.map(|_| ())
}

async fn owner(at: &At<'_>, vpc: &str, ip: IpAddr) -> Result<Option<Owner>, CallError> {
    let text = ip.to_string();
    let parameters = [
        ("Filter.1.Name", "vpc-id"),
        ("Filter.1.Value.1", vpc),
        ("Filter.2.Name", "addresses.private-ip-address"),
        ("Filter.2.Value.1", text.as_str()),
    ];
    owner_in(&at.ec2.call(at.target, DESCRIBE, &parameters).await?.body, ip)
}

fn owner_in(body: &str, ip: IpAddr) -> Result<Option<Owner>, CallError> {
    let document = parsed(DESCRIBE, body)?;
    let sets = document.descendants().filter(|node| node.is_named("networkInterfaceSet"));
    let interfaces = sets.flat_map(|set| set.children()).filter(|node| node.is_element());
    for interface in interfaces {
        let lists = interface.children().filter(|node| node.is_named("privateIpAddressesSet"));
        let mut addresses = lists.flat_map(|list| list.children()).filter(|n| n.is_element());
        let own = addresses.find(|address| {
            text_of(*address, "privateIpAddress").and_then(|text| text.parse().ok()) == Some(ip)
        });
        let Some(own) = own else { continue };
        let Some(id) = text_of(interface, "networkInterfaceId") else { continue };
        let is_primary = text_of(own, "primary") == Some("true");
        return Ok(Some(Owner { interface: plain(id), is_primary }));
    }
    Ok(None)
}

/// Whether it could be a secondary address.
pub(super) async fn check(at: &At<'_>, vpc: &str, spec: &VipSpec) -> Result<(), CallError> {
    for ip in spec.ips() {
        if let Some(Owner { interface, is_primary: true }) = owner(at, vpc, ip).await? {
            let why = format!("{ip} is the address that {interface} keeps: take one that is free");
            return Err(CallError::Other(why));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_owner_of_an_address_is_found_among_others() {
        let body = r#"<DescribeNetworkInterfacesResponse xmlns="http://x/"><networkInterfaceSet>
            <item><networkInterfaceId>eni-1</networkInterfaceId><privateIpAddressesSet>
              <item><privateIpAddress>10.0.0.1</privateIpAddress><primary>true</primary></item>
              <item><privateIpAddress>10.0.0.9</privateIpAddress><primary>false</primary></item>
            </privateIpAddressesSet></item>
            <item><networkInterfaceId>eni-2</networkInterfaceId><privateIpAddressesSet>
              <item><privateIpAddress>10.0.0.2</privateIpAddress><primary>true</primary></item>
            </privateIpAddressesSet></item>
            </networkInterfaceSet></DescribeNetworkInterfacesResponse>"#;
        let of = |last: u8| owner_in(body, [10, 0, 0, last].into()).expect("it is XML");
        let owner = |interface: &str, is_primary| {
            Some(Owner { interface: interface.to_owned(), is_primary })
        };
        assert_eq!((of(1), of(9)), (owner("eni-1", true), owner("eni-1", false)));
        assert_eq!((of(2), of(3)), (owner("eni-2", true), None));
    }
}
