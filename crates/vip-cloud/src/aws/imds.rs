//! Instance metadata, version 2: what the hypervisor says of this host.

use crate::Environment;
use crate::http::{ask, local};
use reqwest::{Client, Method, RequestBuilder, Url};
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// Where it is (AWS, "Access instance metadata").
const ADDRESS: &str = "http://169.254.169.254";
/// It answers at once, or this is no instance.
const ANSWER: Duration = Duration::from_secs(2);
/// A token is for one question: nothing is kept that could be stolen.
const TOKEN_TTL_S: &str = "60";

#[derive(Clone, Debug)]
pub(super) struct Imds {
    /// Or why there is none. Made when it is needed: most hosts are no instances.
    client: Arc<OnceLock<Result<Client, String>>>,
    address: String,
}

impl Imds {
    pub(super) fn new(environment: &Environment) -> Self {
        let said = environment.get("AWS_EC2_METADATA_SERVICE_ENDPOINT").unwrap_or(ADDRESS);
        Self { client: Arc::default(), address: said.trim_end_matches('/').to_owned() }
    }

    /// # Errors
    /// It does not say, as a sentence.
    pub(super) async fn get(&self, path: &str) -> Result<String, String> {
        let token = self.ask(Method::PUT, "api/token", |request| {
            request.header("x-aws-ec2-metadata-token-ttl-seconds", TOKEN_TTL_S)
        });
        let token = token.await?;
        let path = format!("meta-data/{path}");
        let with_token =
            |request: RequestBuilder| request.header("x-aws-ec2-metadata-token", &token);
        self.ask(Method::GET, &path, with_token).await
    }

    async fn ask(
        &self,
        method: Method,
        path: &str,
        with: impl FnOnce(RequestBuilder) -> RequestBuilder,
    ) -> Result<String, String> {
        let text = format!("{}/latest/{path}", self.address);
        let url = Url::parse(&text).map_err(|e| format!("{text}: {e}"))?;
        let client = self.client.get_or_init(local).as_ref().map_err(Clone::clone)?;
        let request = with(client.request(method, url)).build();
        let request = request.map_err(|e| format!("{text}: {e}"))?;
        let answer = ask(client, request, ANSWER).await;
        let answer = answer.map_err(|why| format!("no instance metadata: {why}"))?;
        match answer.status {
            200 => Ok(answer.body),
            status => Err(format!("instance metadata have no {path} (HTTP {status})")),
        }
    }

    /// Which network interface has an address.
    ///
    /// # Errors
    /// None, or nobody says, as a sentence.
    pub(super) async fn interface_with(&self, address: IpAddr) -> Result<String, String> {
        let kind = if address.is_ipv4() { "local-ipv4s" } else { "ipv6s" };
        for mac in self.get("network/interfaces/macs/").await?.lines() {
            let of = format!("network/interfaces/macs/{}", mac.trim_end_matches('/'));
            // One without such an address has no such list.
            let Ok(addresses) = self.get(&format!("{of}/{kind}")).await else { continue };
            if addresses.lines().any(|line| line.parse() == Ok(address)) {
                return self.get(&format!("{of}/interface-id")).await;
            }
        }
        Err(format!("no network interface of this instance has {address}"))
    }

    /// # Errors
    /// It does not say, as a sentence.
    pub(super) async fn region(&self) -> Result<String, String> {
        let said = self.get("placement/region").await;
        said.map_err(|why| format!("{why}; cloud.aws.region can say it"))
    }
}
