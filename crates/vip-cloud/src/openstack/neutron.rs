//! Calls of Neutron's API, version 2.0.

use super::error::CallError;
use super::token::{ANSWER, Identity};
use crate::http::ask;
use reqwest::Method;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::net::IpAddr;
use std::time::SystemTime;

/// A port, as far as VIPs go.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Port {
    pub(super) id: String,
    pub(super) revision_number: u64,
    #[serde(default)]
    pub(super) network_id: String,
    pub(super) fixed_ips: Vec<FixedIp>,
    #[serde(default)]
    pub(super) device_owner: String,
    #[serde(default)]
    pub(super) device_id: String,
    #[serde(default)]
    pub(super) mac_address: String,
    /// As they are: there may be more in them.
    #[serde(default)]
    pub(super) allowed_address_pairs: Vec<Value>,
    #[serde(default)]
    pub(super) port_security_enabled: Option<bool>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(super) struct FixedIp {
    #[serde(default)]
    pub(super) subnet_id: String,
    pub(super) ip_address: IpAddr,
}

impl Port {
    pub(super) fn has(&self, ip: IpAddr) -> bool {
        self.fixed_ips.iter().any(|fixed| fixed.ip_address == ip)
    }

    /// What Neutron compares before a change (API reference, "Conditional updates").
    fn condition(&self) -> String {
        format!("revision_number={}", self.revision_number)
    }

    pub(super) fn fixed(&self) -> Vec<Value> {
        let as_said = |fixed: &FixedIp| json!({ "subnet_id": fixed.subnet_id, "ip_address": fixed.ip_address });
        self.fixed_ips.iter().map(as_said).collect()
    }
}

/// A subnet, as far as VIPs go.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Subnet {
    pub(super) cidr: ipnet::IpNet,
    #[serde(default)]
    pub(super) allocation_pools: Vec<Pool>,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct Pool {
    start: IpAddr,
    end: IpAddr,
}

impl Pool {
    pub(super) fn has(&self, ip: IpAddr) -> bool {
        self.start <= ip && ip <= self.end
    }
}

/// Neutron, as whoever the identity service knows calls it.
#[derive(Debug)]
pub(super) struct Neutron {
    pub(super) identity: Identity,
}

/// What came of a call.
pub(super) struct Said {
    pub(super) body: Value,
    pub(super) date: Option<SystemTime>,
}

impl Neutron {
    pub(super) async fn port(&self, id: &str) -> Result<(Port, Option<SystemTime>), CallError> {
        let mut said = self.get("port", &format!("ports/{id}"), &[]).await?;
        let date = said.date;
        Ok((said.read("port", "port")?, date))
    }

    /// Those of a network, or of all, that have one of these addresses.
    pub(super) async fn ports_with(
        &self,
        network: Option<&str>,
        ips: &[IpAddr],
    ) -> Result<Vec<Port>, CallError> {
        let filters = ips.iter().map(|ip| ("fixed_ips", format!("ip_address={ip}")));
        let network = network.map(|id| ("network_id", id.to_owned()));
        let filters: Vec<_> = network.into_iter().chain(filters).collect();
        let mut said = self.get("ports", "ports", &filters).await?;
        said.read("ports", "ports")
    }

    pub(super) async fn subnets(&self, network: &str) -> Result<Vec<Subnet>, CallError> {
        let filters = [("network_id", network.to_owned())];
        let mut said = self.get("subnets", "subnets", &filters).await?;
        said.read("subnets", "subnets")
    }

    /// Whether a change can be made on condition that nothing else was.
    pub(super) async fn compares(&self) -> Result<bool, CallError> {
        match self.get("extension", "extensions/revision-if-match", &[]).await {
            Ok(_) => Ok(true),
            Err(error) if error.is_unknown() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Changes a port that is as it was seen, and no other; what it is then.
    pub(super) async fn change(&self, port: &Port, to: Value) -> Result<Port, CallError> {
        let (path, condition) = (format!("ports/{}", port.id), port.condition());
        let body = Some((json!({ "port": to }), condition));
        let mut said = self.call("port update", (Method::PUT, &path, &[]), body).await?;
        said.read("port update", "port")
    }

    async fn get(
        &self,
        what: &'static str,
        path: &str,
        filters: &[(&str, String)],
    ) -> Result<Said, CallError> {
        self.call(what, (Method::GET, path, filters), None).await
    }

    async fn call(
        &self,
        what: &'static str,
        (method, path, filters): (Method, &str, &[(&str, String)]),
        body: Option<(Value, String)>,
    ) -> Result<Said, CallError> {
        let client = &self.identity.ready().await?.client;
        let query: String = form_urlencoded::Serializer::new(String::new())
            .extend_pairs(filters.iter().map(|(name, value)| (*name, value.as_str())))
            .finish();
        let mut answer = None;
        // Of a token that is over nothing is done: once more with another.
        for _ in 0..2 {
            let token = match (self.identity.token().await, &answer) {
                (Ok(token), _) => token,
                (Err(error), None) => return Err(error),
                (Err(_), Some(_)) => break,
            };
            let value = token.value.clone();
            let url = format!("{}/v2.0/{path}?{query}", token.network.trim_end_matches("/v2.0"));
            let mut request =
                client.request(method.clone(), url).header("x-auth-token", token.value);
            if let Some((body, condition)) = &body {
                request = request.header(http::header::IF_MATCH, condition);
                request = request.header(http::header::CONTENT_TYPE, "application/json");
                request = request.body(body.to_string());
            }
            let other = |why: String| CallError::Other(format!("OpenStack {what}: {why}"));
            let request = request.build().map_err(|_| other(format!("{:?}?", token.network)))?;
            let said = ask(client, request, ANSWER).await.map_err(other)?;
            let is_refused = said.status == 401;
            answer = Some(said);
            if !is_refused {
                break;
            }
            self.identity.forget(&value).await;
        }
        let answer = answer.ok_or_else(|| CallError::Other(String::new()))?;
        if answer.status != 200 {
            return Err(CallError::refused(what, &answer));
        }
        let date = answer.date();
        Ok(Said { body: read_text(what, &answer.body)?, date })
    }
}

fn read_text(what: &str, text: &str) -> Result<Value, CallError> {
    serde_json::from_str(text)
        .map_err(|_| CallError::Other(format!("OpenStack {what}: what it says is no JSON")))
}

impl Said {
    /// What it says of one thing.
    fn read<T: DeserializeOwned>(&mut self, what: &str, key: &str) -> Result<T, CallError> {
        let value = self.body.get_mut(key).map(Value::take).unwrap_or_default();
        serde_json::from_value(value)
            .map_err(|_| CallError::Other(format!("OpenStack {what}: what it says is none")))
    }
}
