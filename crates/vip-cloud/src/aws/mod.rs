//! Amazon Web Services: EC2's query API, version 2016-11-15.

mod credentials;
mod ec2;
mod imds;
mod places;
mod private_ip;
mod route;

use crate::{Ask, Environment, Finding, one_line};
use credentials::Chain;
use ec2::{ANSWER, CallError, Ec2, Target};
use imds::Imds;
use serde::Deserialize;
use std::net::IpAddr;
use tokio::sync::{OnceCell, Semaphore};
use vip_core::{CloudReply, Via, VipSpec};

/// `[cloud.aws]`: what cannot be discovered. The environment comes first.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AwsSection {
    /// Where the API is; empty: the region's.
    pub endpoint: String,
    /// Empty: as instance metadata say.
    pub region: String,
    /// The network interface that VIPs go to; empty: the one with this node's address.
    pub network_interface: String,
}

/// Calls at once: a thousand VIPs are looked after in turns, and not by a thousand connections.
const AT_ONCE: usize = 8;

/// The API, as this node uses it.
#[derive(Debug)]
pub struct Aws {
    ec2: Ec2,
    imds: Imds,
    section: AwsSection,
    environment: Environment,
    /// Where this node's peers reach it, if that is an address.
    own: Option<IpAddr>,
    interface: OnceCell<String>,
    target: OnceCell<Target>,
    vpc: OnceCell<String>,
    turns: Semaphore,
}

impl Aws {
    /// `own`: where this node's peers reach it, if that is an address.
    #[must_use]
    pub fn new(section: AwsSection, environment: Environment, own: Option<IpAddr>) -> Self {
        let imds = Imds::new(&environment);
        let chain = Chain::new(environment.clone(), imds.clone());
        let ec2 = Ec2::new(environment.clone(), chain);
        let (interface, target, vpc) = (OnceCell::new(), OnceCell::new(), OnceCell::new());
        let turns = Semaphore::new(AT_ONCE);
        Self { ec2, imds, section, environment, own, interface, target, vpc, turns }
    }

    /// Asks or tells it one thing. Dropped, nobody waits for it any more; what was sent is
    /// done all the same.
    pub async fn call(&self, ask: &Ask) -> CloudReply {
        let turn = tokio::time::timeout(ask.limit, self.turns.acquire()).await;
        let Ok(_turn) = turn else {
            return CloudReply::Busy("AWS: too many calls wait for their turn here".to_owned());
        };
        let done = async {
            let at = self.at().await?;
            match ask.spec.via {
                Via::AwsRoute => route::call(&at, ask).await,
                Via::AwsPrivateIp => private_ip::call(&at, self.vpc(&at).await?, ask).await,
                other => Err(CallError::Other(format!("AWS moves no VIP by {other}"))),
            }
        };
        match tokio::time::timeout(ask.limit, done).await {
            Ok(Ok(reply)) => reply,
            Ok(Err(error)) if error.is_busy() => CloudReply::Busy(one_line(&error.to_string())),
            Ok(Err(error)) => CloudReply::Failed(one_line(&error.to_string())),
            Err(_) => CloudReply::Failed(format!("AWS: no end within {:?}", ask.limit)),
        }
    }

    /// Whether a VIP could be moved by this node, as far as can be said without moving it.
    ///
    /// # Errors
    /// What AWS refuses, as a sentence.
    pub async fn check(&self, spec: &VipSpec) -> Result<(), String> {
        let checked = async {
            let at = self.at().await?;
            match spec.via {
                Via::AwsRoute => route::check(&at, spec).await,
                Via::AwsPrivateIp => private_ip::check(&at, self.vpc(&at).await?, spec).await,
                _ => Ok(()),
            }
        };
        // Who this is, where it is, and each address.
        let limit = ANSWER * u32::try_from(2 + spec.addresses.len()).unwrap_or(u32::MAX);
        match tokio::time::timeout(limit, checked).await {
            Ok(result) => result.map_err(|error| one_line(&error.to_string())),
            Err(_) => Err(format!("AWS: no answer within {limit:?}")),
        }
    }

    /// Looks at all that moving these VIPs rests on.
    pub async fn examine(&self, vips: &[VipSpec]) -> Vec<Finding> {
        let mut found = vec![];
        let at = match self.at().await {
            Ok(at) => at,
            Err(error) => return vec![Finding::ill(error.to_string())],
        };
        let At { target, interface, .. } = at;
        let began = std::time::Instant::now();
        match ec2::described(&at).await {
            Err(error) => return vec![Finding::ill(error.to_string())],
            Ok((described, date)) => {
                let source = self.ec2.credentials_from().await.unwrap_or("nowhere");
                found.push(Finding::well(format!(
                    "{interface} in {}, credentials from {source}, an answer within {} ms",
                    target.region,
                    began.elapsed().as_millis()
                )));
                found.extend(date.and_then(|there| Finding::of_clocks("AWS", there)));
                let routed = vips.iter().any(|spec| spec.via == Via::AwsRoute);
                if routed && described.checks_destination {
                    found.push(Finding::ill(format!(
                        "{interface} drops what is for a VIP: source/destination check is on \
                         (`aws ec2 modify-network-interface-attribute --network-interface-id \
                         {interface} --no-source-dest-check`)"
                    )));
                }
            }
        }
        for spec in vips {
            found.push(match self.check(spec).await {
                Ok(()) => Finding::well(format!("VIP {} can be moved here", spec.name)),
                Err(why) => Finding::ill(format!("VIP {}: {why}", spec.name)),
            });
        }
        found
    }

    /// Keeps what a call needs at hand: credentials, who this node is, and a connection.
    ///
    /// # Errors
    /// It cannot be had, as a sentence.
    pub async fn keep_warm(&self) -> Result<(), String> {
        let warm = async { ec2::described(&self.at().await?).await.map(|_| ()) };
        warm.await.map_err(|error: CallError| error.to_string())
    }

    async fn at(&self) -> Result<At<'_>, CallError> {
        let interface = self.interface().await?;
        Ok(At { ec2: &self.ec2, target: self.target().await?, interface })
    }

    async fn interface(&self) -> Result<&str, CallError> {
        let found = self.interface.get_or_try_init(async || {
            match self.section.network_interface.as_str() {
                "" => match self.own {
                    Some(own) => self.imds.interface_with(own).await,
                    None => Err("this node's peers reach it by a name".to_owned()),
                },
                said => Ok(said.to_owned()),
            }
        });
        found.await.map(String::as_str).map_err(|why| {
            CallError::Other(format!("{why}; cloud.aws.network_interface can say which it is"))
        })
    }

    async fn vpc(&self, at: &At<'_>) -> Result<&str, CallError> {
        let found = self.vpc.get_or_try_init(async || Ok(ec2::described(at).await?.0.vpc));
        found.await.map(String::as_str)
    }

    async fn target(&self) -> Result<&Target, CallError> {
        let found = self.target.get_or_try_init(async || {
            let section =
                |text: &str| Some(text).filter(|text| !text.is_empty()).map(str::to_owned);
            let first = |names: [&str; 2], of_section: &str| {
                let said = names.into_iter().find_map(|name| self.environment.get(name));
                said.map(str::to_owned).or_else(|| section(of_section))
            };
            let region = match first(["AWS_REGION", "AWS_DEFAULT_REGION"], &self.section.region) {
                Some(region) => region,
                None => self.imds.region().await?,
            };
            let names = ["AWS_ENDPOINT_URL_EC2", "AWS_ENDPOINT_URL"];
            Target::new(region, first(names, &self.section.endpoint))
        });
        found.await.map_err(CallError::Other)
    }
}

/// Signatures are refused, or will be.
/// The API, and the interface that VIPs come to.
#[derive(Clone, Copy)]
struct At<'a> {
    ec2: &'a Ec2,
    target: &'a Target,
    interface: &'a str,
}
