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
        Verb::Observe if at.known.has(&ips) => Ok(CloudReply::Here),
        Verb::Observe => {
            let (own, _) = at.neutron.port(at.port).await?;
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

/// Has the own port let send as these; `revision`: if it is as it was then.
pub(super) async fn allow(
    at: &At<'_>,
    ips: &[IpAddr],
    revision: Option<u64>,
) -> Result<(), CallError> {
    let (own, _) = at.neutron.port(at.port).await?;
    at.known.are(&own);
    let missing: Vec<_> = ips.iter().filter(|ip| !may_send(&own, **ip)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let own = Port { revision_number: revision.unwrap_or(own.revision_number), ..own };
    let mut pairs = own.allowed_address_pairs.clone();
    pairs.extend(missing.into_iter().map(|ip| json!({ "ip_address": ip })));
    let now = at.neutron.change(&own, json!({ "allowed_address_pairs": pairs })).await?;
    at.known.are(&now);
    Ok(())
}

/// Whether a port may send as an address.
pub(super) fn may_send(port: &Port, ip: IpAddr) -> bool {
    let covers = |pair: &Value| {
        let text = pair["ip_address"].as_str().unwrap_or_default();
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
    if id == at.port || kept.device_owner.starts_with("compute:") {
        return Err(CallError::Other(format!("port {id} is a host's: the VIP's is nobody's")));
    }
    let (own, _) = at.neutron.port(at.port).await?;
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
            allowed_address_pairs: pairs.as_array().expect("a list").clone(),
            port_security_enabled: secured,
        };
        let may = |pairs, secured, ip: &str| {
            may_send(&port(pairs, secured), ip.parse().expect("an address"))
        };
        let one = json!([{ "ip_address": "10.0.0.9", "mac_address": "x" }]);
        assert!(may(one.clone(), Some(true), "10.0.0.9"));
        assert!(!may(one.clone(), None, "10.0.0.8") && may(one, Some(false), "10.0.0.8"));
        assert!(may(json!([{ "ip_address": "10.0.0.0/29" }]), None, "10.0.0.7"));
        assert!(may(json!([{ "ip_address": "2001:db8::/64" }]), None, "2001:db8::7"));
        assert!(!may(json!([{ "ip_address": "odd" }, {}, 7]), None, "10.0.0.7"));
    }
}
