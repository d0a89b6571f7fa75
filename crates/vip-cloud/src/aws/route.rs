//! A VIP as a route of a VPC's route table to its holder's network interface.
//!
//! `ReplaceRoute` compares nothing: a late call of an earlier holder is done. The holder finds
//! it at its next look, and takes the route back.

use super::At;
use super::ec2::{CallError, Named, parsed, text_of};
use super::places::{NOWHERE, odd, of_each, plain, seen};
use crate::Ask;
use std::net::IpAddr;
use vip_core::{CloudReply, Verb, VipSpec};

/// A destination, and the name of the parameter for it.
fn destination(ip: IpAddr) -> (&'static str, String) {
    match ip {
        IpAddr::V4(ip) => ("DestinationCidrBlock", format!("{ip}/32")),
        IpAddr::V6(ip) => ("DestinationIpv6CidrBlock", format!("{ip}/128")),
    }
}

fn table(spec: &VipSpec) -> &str {
    spec.params.get("route-table").map(String::as_str).unwrap_or_default()
}

pub(super) async fn call(at: &At<'_>, ask: &Ask) -> Result<CloudReply, CallError> {
    let table = table(&ask.spec);
    match &ask.verb {
        Verb::Observe => observe(at, ask, table).await,
        Verb::Take(token) => {
            let own = ("NetworkInterfaceId", at.interface);
            for (ip, was) in of_each(ask.spec.ips(), token) {
                let (key, block) = destination(ip);
                // Whoever made one since is not overwritten by this.
                let action = if was == NOWHERE { "CreateRoute" } else { "ReplaceRoute" };
                let parameters = [("RouteTableId", table), (key, block.as_str()), own];
                at.ec2.call(at.target, action, &parameters).await?;
            }
            Ok(CloudReply::Done)
        }
        Verb::Release => {
            let body = routes(at, table).await?;
            for ip in ask.spec.ips() {
                if goes_to(&body, ip)?.as_deref() == Some(at.interface) {
                    let (key, block) = destination(ip);
                    let parameters = [("RouteTableId", table), (key, &block)];
                    at.ec2.call(at.target, "DeleteRoute", &parameters).await?;
                }
            }
            Ok(CloudReply::Done)
        }
    }
}

async fn observe(at: &At<'_>, ask: &Ask, table: &str) -> Result<CloudReply, CallError> {
    let body = routes(at, table).await?;
    let targets: Result<Vec<_>, _> =
        ask.spec.ips().into_iter().map(|ip| goes_to(&body, ip)).collect();
    Ok(seen(&targets?, at.interface))
}

async fn routes(at: &At<'_>, table: &str) -> Result<String, CallError> {
    let parameters = [("RouteTableId.1", table)];
    Ok(at.ec2.call(at.target, "DescribeRouteTables", &parameters).await?.body)
}

/// Where the route to an address goes, as AWS names that; `None`: there is none.
fn goes_to(body: &str, ip: IpAddr) -> Result<Option<String>, CallError> {
    let document = parsed("DescribeRouteTables", body)?;
    let sets = document.descendants().filter(|node| node.is_named("routeSet"));
    let mut routes = sets.flat_map(|set| set.children()).filter(|node| node.is_element());
    let own = routes.find(|route| {
        ["destinationCidrBlock", "destinationIpv6CidrBlock"]
            .iter()
            .any(|name| text_of(*route, name).is_some_and(|block| is_for(block, ip)))
    });
    let kinds = ["networkInterfaceId", "gatewayId", "natGatewayId", "transitGatewayId"];
    Ok(own.map(|route| {
        let target = kinds.iter().find_map(|kind| text_of(route, kind));
        target.map_or_else(odd, plain)
    }))
}

/// Whether a block is of that address alone; one may be written in several ways.
fn is_for(block: &str, ip: IpAddr) -> bool {
    let bits = if ip.is_ipv4() { "32" } else { "128" };
    block.split_once('/').is_some_and(|(of, prefix)| prefix == bits && of.parse() == Ok(ip))
}

/// Whether the table is there, and the routes in it could be changed.
pub(super) async fn check(at: &At<'_>, spec: &VipSpec) -> Result<(), CallError> {
    let table = table(spec);
    let body = routes(at, table).await?;
    for address in &spec.addresses {
        let (key, block) = destination(address.ip);
        let target = goes_to(&body, address.ip)?;
        let (action, to) = match target.as_deref() {
            None => ("CreateRoute", at.interface),
            // What is there already: nothing would be changed by whoever knows of no trials.
            Some(to) if to.starts_with("eni-") => ("ReplaceRoute", to),
            Some(_) => continue,
        };
        let to = ("NetworkInterfaceId", to);
        let parameters = [("RouteTableId", table), (key, block.as_str()), to];
        at.ec2.would(at.target, action, &parameters).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_is_found_among_others_in_any_namespace() {
        let body = r#"<DescribeRouteTablesResponse xmlns="http://ec2.amazonaws.com/doc/2016-11-15/">
            <routeTableSet><item><routeTableId>rtb-1</routeTableId><routeSet>
            <item><destinationCidrBlock>10.0.0.0/16</destinationCidrBlock>
              <gatewayId>local</gatewayId></item>
            <item><destinationCidrBlock>10.9.0.1/32</destinationCidrBlock>
              <instanceId>i-1</instanceId><networkInterfaceId>eni-1</networkInterfaceId></item>
            <item><destinationIpv6CidrBlock>2001:0DB8:0::1/128</destinationIpv6CidrBlock>
              <natGatewayId>nat-1</natGatewayId></item>
            </routeSet></item></routeTableSet></DescribeRouteTablesResponse>"#;
        let to = |ip: &str| goes_to(body, ip.parse().expect("an address")).expect("it is XML");
        assert_eq!(to("10.9.0.1").as_deref(), Some("eni-1"));
        assert_eq!(to("2001:db8::1").as_deref(), Some("nat-1"));
        assert_eq!(to("10.9.0.2"), None);
        assert!(goes_to("<a>", [10, 9, 0, 1].into()).is_err());
    }
}
