//! A VIP that is announced in its subnet, from ports that are let send as it: each node that may
//! hold it has it among its port's allowed address pairs before it does, so that a takeover
//! waits for no API.

use super::At;
use super::error::CallError;
use super::neutron::Port;
use crate::Ask;
use ipnet::IpNet;
use serde_json::{Value, json};
use std::net::IpAddr;
use vip_core::{CloudReply, Verb, VipSpec};

/// The port that keeps the address from others.
fn reserved(spec: &VipSpec) -> &str {
    spec.params.get("port").map_or("", String::as_str)
}

pub(super) async fn call(at: &At<'_>, ask: &Ask) -> Result<CloudReply, CallError> {
    let ips = ask.spec.ips();
    match &ask.verb {
        Verb::Observe => {
            let own = match at.neutron.port(at.port).await {
                Ok((own, _)) => own,
                // It was let do so, and nobody can say otherwise now.
                Err(error) if error.is_unheard() && at.known.had(&ips) => {
                    tracing::warn!(%error, "OpenStack is not asked whether a port may send");
                    return Ok(CloudReply::Here);
                }
                Err(error) => return Err(error),
            };
            at.known.are(&own);
            if ips.iter().all(|ip| may_send(&own, *ip)) {
                return Ok(CloudReply::Here);
            }
            Ok(CloudReply::Elsewhere(own.revision_number.to_string()))
        }
        Verb::Take(token) => {
            let revision = token.parse();
            let revision = revision.map_err(|_| CallError::Other(format!("{token:?} is no token")));
            allow(at, &ips, Some(revision?)).await.map(|()| CloudReply::Done)
        }
        // What is allowed does no harm: others of this port's may rest on it.
        Verb::Release => Ok(CloudReply::Done),
    }
}

/// Sees what the own port may.
pub(super) async fn look(at: &At<'_>) -> Result<(), CallError> {
    at.known.are(&at.neutron.port(at.port).await?.0);
    Ok(())
}

/// Has the own port let send as these; `revision`: if it is as it was then.
pub(super) async fn allow(
    at: &At<'_>,
    ips: &[IpAddr],
    revision: Option<u64>,
) -> Result<(), CallError> {
    if revision.is_none() && at.known.has(ips) {
        return Ok(());
    }
    let (own, _) = at.neutron.port(at.port).await?;
    at.known.are(&own);
    let missing: Vec<_> = ips.iter().filter(|ip| !may_send(&own, **ip)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    if revision.is_some_and(|seen| seen != own.revision_number) {
        return Err(CallError::changed());
    }
    let mut pairs = own.allowed_address_pairs.clone();
    pairs.extend(missing.into_iter().map(|ip| json!({ "ip_address": ip })));
    let now = at.neutron.change(&own, json!({ "allowed_address_pairs": pairs })).await?;
    at.known.are(&now);
    Ok(())
}

/// Whether a port may send as an address, by its own hardware address.
pub(super) fn may_send(port: &Port, ip: IpAddr) -> bool {
    let covers = |pair: &Value| {
        let text = pair["ip_address"].as_str().unwrap_or_default();
        let mac = pair["mac_address"].as_str().unwrap_or(&port.mac_address);
        if !mac.eq_ignore_ascii_case(&port.mac_address) {
            return false;
        }
        let one = text.parse::<IpAddr>().map(IpNet::from).ok();
        one.or_else(|| text.parse().ok()).is_some_and(|net| net.contains(&ip))
    };
    port.port_security_enabled == Some(false) || port.allowed_address_pairs.iter().any(covers)
}

/// Whether its port keeps the addresses, and this node's may be changed.
pub(super) async fn check(at: &At<'_>, spec: &VipSpec) -> Result<(), CallError> {
    let id = reserved(spec);
    let (kept, _) = at.neutron.port(id).await?;
    if let Some(ip) = spec.ips().into_iter().find(|ip| !kept.has(*ip)) {
        return Err(CallError::Other(format!("port {id} does not keep {ip} from others")));
    }
    if !kept.device_owner.is_empty() || !kept.device_id.is_empty() {
        return Err(CallError::Other(format!("port {id} is somebody's: the VIP's is nobody's")));
    }
    let (own, _) = at.neutron.port(at.port).await?;
    if kept.id == own.id || kept.network_id != own.network_id {
        let text = format!("port {id} is this node's own, or of another network than that");
        return Err(CallError::Other(text));
    }
    if spec.ips().into_iter().all(|ip| may_send(&own, ip)) {
        return Ok(());
    }
    // Whether it may be changed: to what it is.
    let pairs = json!({ "allowed_address_pairs": own.allowed_address_pairs });
    at.neutron.change(&own, pairs).await.map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pair_is_an_address_or_a_subnet() {
        let port = |pairs: Value, secured: Option<bool>| Port {
            id: "p".into(),
            revision_number: 1,
            network_id: String::new(),
            fixed_ips: vec![],
            device_owner: String::new(),
            device_id: String::new(),
            mac_address: "fa:16:3e:00:00:01".into(),
            allowed_address_pairs: pairs.as_array().expect("a list").clone(),
            port_security_enabled: secured,
        };
        let may = |pairs, secured, ip: &str| {
            may_send(&port(pairs, secured), ip.parse().expect("an address"))
        };
        let one = json!([{ "ip_address": "10.0.0.9", "mac_address": "FA:16:3E:00:00:01" }]);
        let vrrp = json!([{ "ip_address": "10.0.0.9", "mac_address": "00:00:5e:00:01:0a" }]);
        assert!(!may(vrrp, Some(true), "10.0.0.9"), "by another hardware address");
        assert!(may(one.clone(), Some(true), "10.0.0.9"));
        assert!(!may(one.clone(), None, "10.0.0.8") && may(one, Some(false), "10.0.0.8"));
        assert!(may(json!([{ "ip_address": "10.0.0.0/29" }]), None, "10.0.0.7"));
        assert!(may(json!([{ "ip_address": "2001:db8::/64" }]), None, "2001:db8::7"));
        assert!(!may(json!([{ "ip_address": "odd" }, {}, 7]), None, "10.0.0.7"));
    }
}
