//! A VIP as a fixed address of its holder's port.
//!
//! It is taken from the port that was seen to have it, and then given to the holder's, each on
//! condition that the port was not changed since it was seen (`If-Match`); and no two ports of a
//! network have the same address. So a late call of an earlier holder is refused.

use super::At;
use super::error::CallError;
use super::neutron::Port;
use crate::Ask;
use serde_json::json;
use std::collections::BTreeMap;
use std::net::IpAddr;
use vip_core::{CloudReply, Verb, VipSpec};

/// In a token: no port has it.
const NOWHERE: &str = "none";
/// In a token, between a port and its revision.
const AT: char = '@';

pub(super) async fn call(at: &At<'_>, ask: &Ask) -> Result<CloudReply, CallError> {
    let ips = ask.spec.ips();
    match &ask.verb {
        Verb::Observe => observe(at, &ips).await,
        Verb::Take(token) => take(at, &ips, token).await,
        Verb::Release => {
            let (own, _) = at.neutron.port(at.port).await?;
            if ips.iter().any(|ip| own.has(*ip)) {
                without(at, &own, &ips).await?;
            }
            Ok(CloudReply::Done)
        }
    }
}

async fn observe(at: &At<'_>, ips: &[IpAddr]) -> Result<CloudReply, CallError> {
    let (own, _) = at.neutron.port(at.port).await?;
    let ports = at.neutron.ports_with(Some(&own.network_id), ips).await?;
    if ips.iter().all(|ip| own.has(*ip)) {
        return Ok(CloudReply::Here);
    }
    let place = |ip: &IpAddr| match ports.iter().find(|port| port.has(*ip)) {
        Some(port) => format!("{}{AT}{}", plain(&port.id), port.revision_number),
        None => NOWHERE.to_owned(),
    };
    let places: Vec<_> = ips.iter().map(place).collect();
    Ok(CloudReply::Elsewhere(format!("{} {}", own.revision_number, places.join(" "))))
}

async fn take(at: &At<'_>, ips: &[IpAddr], token: &str) -> Result<CloudReply, CallError> {
    let bad = || CallError::Other(format!("{token:?} is no token of ours"));
    let (revision, places) = token.split_once(' ').ok_or_else(bad)?;
    let revision: u64 = revision.parse().map_err(|_| bad())?;
    let mut owners: BTreeMap<&str, (u64, Vec<IpAddr>)> = BTreeMap::new();
    for (ip, place) in ips.iter().zip(places.split(' ')).filter(|(_, place)| *place != NOWHERE) {
        let (id, seen) = place.split_once(AT).ok_or_else(bad)?;
        let seen = seen.parse().map_err(|_| bad())?;
        owners.entry(id).or_insert_with(|| (seen, vec![])).1.push(*ip);
    }
    for (id, (seen, ips)) in owners.iter().filter(|(id, _)| **id != at.port) {
        let (owner, _) = at.neutron.port(id).await?;
        let owner = Port { revision_number: *seen, ..owner };
        if let Some(why) = keeps(&owner, ips) {
            return Err(CallError::Other(why));
        }
        without(at, &owner, ips).await?;
    }
    let (own, _) = at.neutron.port(at.port).await?;
    let own = Port { revision_number: revision, ..own };
    let mut fixed = own.fixed();
    let come = ips.iter().filter(|ip| !own.has(**ip));
    fixed.extend(come.map(|ip| json!({ "ip_address": ip })));
    at.neutron.change(&own, json!({ "fixed_ips": fixed })).await?;
    Ok(CloudReply::Done)
}

async fn without(at: &At<'_>, port: &Port, ips: &[IpAddr]) -> Result<(), CallError> {
    let mut left = port.clone();
    left.fixed_ips.retain(|fixed| !ips.contains(&fixed.ip_address));
    at.neutron.change(port, json!({ "fixed_ips": left.fixed() })).await.map(|_| ())
}

/// Why an address is no VIP: it is all that a port has, or a router's or a service's own.
fn keeps(port: &Port, ips: &[IpAddr]) -> Option<String> {
    let taken: Vec<_> = port.fixed_ips.iter().filter(|one| ips.contains(&one.ip_address)).collect();
    let first = taken.first()?.ip_address;
    let is_all = taken.len() == port.fixed_ips.len();
    let is_service = port.device_owner.starts_with("network:");
    (is_all || is_service).then(|| {
        format!("{first} is the address that port {} keeps: take one that is free", plain(&port.id))
    })
}

/// Whether it could be the own port's, as far as can be said without making it so.
pub(super) async fn check(at: &At<'_>, spec: &VipSpec) -> Result<(), CallError> {
    if !at.neutron.compares().await? {
        return Err(CallError::Other(
            "this OpenStack compares no revisions (extension revision-if-match): a late call of an \
             earlier holder would be done; openstack-pair needs none"
                .to_owned(),
        ));
    }
    let (ips, (own, _)) = (spec.ips(), at.neutron.port(at.port).await?);
    let subnets = at.neutron.subnets(&own.network_id).await?;
    for ip in &ips {
        if !subnets.iter().any(|subnet| subnet.cidr.contains(ip)) {
            let why = format!("{ip} is in no subnet of the network that port {} is in", own.id);
            return Err(CallError::Other(why));
        }
    }
    for port in at.neutron.ports_with(Some(&own.network_id), &ips).await? {
        if let Some(why) = keeps(&port, &ips) {
            return Err(CallError::Other(why));
        }
    }
    // Whether it may be changed: to what it is.
    at.neutron.change(&own, json!({ "fixed_ips": own.fixed() })).await.map(|_| ())
}

/// Whether the network may give it to somebody between two holders.
pub(super) async fn may_be_given(at: &At<'_>, spec: &VipSpec) -> Option<String> {
    let (own, _) = at.neutron.port(at.port).await.ok()?;
    let subnets = at.neutron.subnets(&own.network_id).await.ok()?;
    let pools: Vec<_> = subnets.iter().flat_map(|subnet| &subnet.allocation_pools).collect();
    let ip = spec.ips().into_iter().find(|ip| pools.iter().any(|pool| pool.has(*ip)))?;
    Some(format!(
        "{ip} is in an allocation pool of its subnet: between two holders it may be given to \
         somebody; take one outside, or change the pool"
    ))
}

/// An id as OpenStack gives them, and nothing else that an endpoint may say: it goes to the log.
fn plain(id: &str) -> &str {
    let is_plain = id.len() <= 36 && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    if is_plain { id } else { "something-else" }
}
