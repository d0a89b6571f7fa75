//! A VIP as a fixed address of its holder's port.
//!
//! It is taken from the port that was seen to have it, and then given to the holder's, each on
//! condition that the port was not changed since it was seen (`If-Match`); and no two ports of a
//! network have the same address. So a late call of an earlier holder is refused.

use super::At;
use super::error::CallError;
use super::neutron::{FixedIp, Port};
use crate::Ask;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use vip_core::{CloudReply, Verb, VipSpec};

/// Changes of ports that this process made are no reason to look again.
#[derive(Debug, Default)]
pub(super) struct Changes {
    turn: tokio::sync::Mutex<()>,
    /// Port and revision, and the revision after that.
    made: Mutex<Vec<(String, u64, u64)>>,
}

/// More of them are not remembered.
const MAX_CHANGES: usize = 256;

impl Changes {
    fn made(&self, port: &Port, now: u64) {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if made.len() >= MAX_CHANGES {
            made.remove(0);
        }
        made.push((port.id.clone(), port.revision_number, now));
    }

    /// What a revision of a port is by now, as far as this process changed it.
    fn since(&self, id: &str, revision: u64) -> u64 {
        let made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        made.iter().fold(
            revision,
            |at, (port, from, to)| {
                if port == id && *from == at { *to } else { at }
            },
        )
    }
}

/// In a token: no port has it.
const NOWHERE: &str = "none";
/// In a token, between a port and its revision.
const AT: char = '@';

pub(super) async fn call(at: &At<'_>, ask: &Ask) -> Result<CloudReply, CallError> {
    let ips = ask.spec.ips();
    match &ask.verb {
        Verb::Observe => observe(at, &ips).await,
        Verb::Take(token) => {
            // One VIP after the other: each changes what the next one saw.
            let _turn = at.changes.turn.lock().await;
            take(at, &ips, token).await
        }
        Verb::Release => {
            let (own, _) = at.neutron.port(at.port).await?;
            if let Some(why) = keeps(&own, &ips) {
                return Err(CallError::Other(why));
            }
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
        let owner = as_seen(at, id, *seen).await?;
        if let Some(why) = keeps(&owner, ips) {
            return Err(CallError::Other(why));
        }
        without(at, &owner, ips).await?;
    }
    let own = as_seen(at, at.port, revision).await?;
    let mut fixed = own.fixed();
    let come = ips.iter().filter(|ip| !own.has(**ip));
    fixed.extend(come.map(|ip| json!({ "ip_address": ip })));
    changed(at, &own, &fixed).await?;
    Ok(CloudReply::Done)
}

/// A port, if it is as it was seen, or as this process has made it since.
async fn as_seen(at: &At<'_>, id: &str, revision: u64) -> Result<Port, CallError> {
    let (port, _) = at.neutron.port(id).await?;
    let is_so = port.revision_number == at.changes.since(id, revision);
    is_so.then_some(port).ok_or_else(CallError::changed)
}

async fn changed(at: &At<'_>, port: &Port, to: &[Value]) -> Result<(), CallError> {
    let now = at.neutron.change(port, json!({ "fixed_ips": to })).await?;
    at.changes.made(port, now.revision_number);
    Ok(())
}

async fn without(at: &At<'_>, port: &Port, ips: &[IpAddr]) -> Result<(), CallError> {
    let mut left = port.clone();
    left.fixed_ips.retain(|fixed| !ips.contains(&fixed.ip_address));
    changed(at, port, &left.fixed()).await
}

/// Why an address is no VIP: it is all that a port has of its family, or a router's or a
/// service's own.
fn keeps(port: &Port, ips: &[IpAddr]) -> Option<String> {
    let taken: Vec<_> = port.fixed_ips.iter().filter(|one| ips.contains(&one.ip_address)).collect();
    let first = taken.first()?.ip_address;
    let is_all = taken.iter().any(|one| {
        let family = |other: &&FixedIp| other.ip_address.is_ipv4() == one.ip_address.is_ipv4();
        port.fixed_ips.iter().filter(family).all(|other| ips.contains(&other.ip_address))
    });
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
             earlier holder would be done"
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
