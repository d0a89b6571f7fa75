//! OpenStack: the ports of Neutron's API, version 2.0, with tokens of Keystone's, version 3.

mod error;
mod neutron;
mod pair;
mod port;
mod settings;
mod token;

use crate::{Ask, Environment, Finding, one_line};
use error::CallError;
use neutron::{Neutron, Port};
use port::Changes;
use serde::Deserialize;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use token::{ANSWER, Identity};
use tokio::sync::{OnceCell, Semaphore};
use vip_core::{CloudReply, Verb, Via, VipSpec};

/// `[cloud.openstack]`: what cannot be discovered.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OpenStackSection {
    /// This node's port; empty: the one with this node's address.
    pub port: String,
}

/// Calls at once.
const AT_ONCE: usize = 8;
/// For so long it counts what the own port was seen to be let send as: it is looked at more
/// often where nothing else is done.
const KNOWN: Duration = Duration::from_secs(75);

/// The API, as this node uses it.
#[derive(Debug)]
pub struct OpenStack {
    neutron: Neutron,
    section: OpenStackSection,
    /// Where this node's peers reach it, if that is an address.
    own: Option<IpAddr>,
    port: OnceCell<String>,
    known: Known,
    changes: Changes,
    turns: Semaphore,
}

/// What the own port was seen to be, and when.
#[derive(Debug, Default)]
struct Known(Mutex<Option<(Instant, Port)>>);

impl Known {
    fn are(&self, port: &Port) {
        let seen = Some((Instant::now(), port.clone()));
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = seen;
    }

    /// Whether it was let send as all of these a moment ago.
    fn has(&self, ips: &[IpAddr]) -> bool {
        self.had_within(KNOWN, ips)
    }

    /// Whether it was when it was seen last.
    fn had(&self, ips: &[IpAddr]) -> bool {
        self.had_within(Duration::MAX, ips)
    }

    fn had_within(&self, time: Duration, ips: &[IpAddr]) -> bool {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.as_ref().is_some_and(|(at, port)| {
            at.elapsed() < time && ips.iter().all(|ip| pair::may_send(port, *ip))
        })
    }
}

/// The API, and the port that VIPs come to.
struct At<'a> {
    neutron: &'a Neutron,
    port: &'a str,
    known: &'a Known,
    changes: &'a Changes,
}

impl OpenStack {
    /// `own`: where this node's peers reach it, if that is an address.
    #[must_use]
    pub fn new(section: OpenStackSection, environment: Environment, own: Option<IpAddr>) -> Self {
        let neutron = Neutron { identity: Identity::new(environment) };
        let (port, turns) = (OnceCell::new(), Semaphore::new(AT_ONCE));
        let (known, changes) = Default::default();
        Self { neutron, section, own, port, known, changes, turns }
    }

    /// Asks or tells it one thing. Dropped, nobody waits for it any more; what was sent is done
    /// all the same.
    pub(crate) async fn call(&self, ask: &Ask) -> CloudReply {
        // It waits for no API, and for nobody who does.
        let is_paired = ask.spec.via == Via::OpenstackPair && ask.verb == Verb::Observe;
        if is_paired && self.known.has(&ask.spec.ips()) {
            return CloudReply::Here;
        }
        let turn = tokio::time::timeout(ask.limit, self.turns.acquire()).await;
        let Ok(_turn) = turn else {
            return CloudReply::Busy("OpenStack: too many calls wait for their turn".to_owned());
        };
        let done = async {
            let at = self.at().await?;
            match ask.spec.via {
                Via::OpenstackPort => port::call(&at, ask).await,
                Via::OpenstackPair => pair::call(&at, ask).await,
                other => Err(CallError::Other(format!("OpenStack moves no VIP by {other}"))),
            }
        };
        match tokio::time::timeout(ask.limit, done).await {
            Ok(Ok(reply)) => reply,
            Ok(Err(error)) if error.is_busy() => CloudReply::Busy(one_line(&error.to_string())),
            Ok(Err(error)) => CloudReply::Failed(one_line(&error.to_string())),
            Err(_) => CloudReply::Failed(format!("OpenStack: no end within {:?}", ask.limit)),
        }
    }

    /// Whether a VIP could be moved by this node, as far as can be said without moving it.
    pub(crate) async fn check(&self, spec: &VipSpec) -> Result<(), String> {
        // A token, its own port, and what is looked at of the VIP.
        let limit = ANSWER * 7;
        let checked = async {
            let at = self.at().await?;
            match spec.via {
                Via::OpenstackPort => port::check(&at, spec).await,
                Via::OpenstackPair => pair::check(&at, spec).await,
                _ => Ok(()),
            }
        };
        match tokio::time::timeout(limit, checked).await {
            Ok(result) => result.map_err(|error| one_line(&error.to_string())),
            Err(_) => Err(format!("OpenStack: no answer within {limit:?}")),
        }
    }

    /// Looks at all that moving these VIPs rests on.
    pub(crate) async fn examine(&self, vips: &[VipSpec]) -> Vec<Finding> {
        let ill = |error: CallError| vec![Finding::ill(one_line(&error.to_string()))];
        let at = match self.at().await {
            Ok(at) => at,
            Err(error) => return ill(error),
        };
        let began = Instant::now();
        let (own, date) = match self.neutron.port(at.port).await {
            Ok(seen) => seen,
            Err(error) => return ill(error),
        };
        let took = began.elapsed().as_millis();
        let by = self.neutron.identity.ready().await.map_or("nobody", |ready| ready.settings.by);
        let text = format!(
            "port {} of network {}, by {by}, an answer within {took} ms",
            own.id, own.network_id
        );
        let mut found = vec![Finding::well(one_line(&text))];
        found.extend(date.and_then(|there| Finding::of_clocks("OpenStack", there)));
        for spec in vips {
            found.push(match self.check(spec).await {
                Ok(()) => Finding::well(format!("VIP {} can be moved here", spec.name)),
                Err(why) => Finding::ill(format!("VIP {}: {why}", spec.name)),
            });
            if spec.via == Via::OpenstackPort {
                let given = port::may_be_given(&at, spec).await;
                found.extend(given.map(|why| Finding::ill(format!("VIP {}: {why}", spec.name))));
            }
        }
        found
    }

    /// Keeps a token and a connection at hand, and has the own port let send as VIPs that may
    /// come to it.
    pub(crate) async fn keep_warm(&self, vips: &[VipSpec]) -> Result<(), String> {
        let warm = async {
            let at = self.at().await?;
            pair::look(&at).await?;
            let mut all = Ok(());
            // One that cannot be is no reason for the others.
            for spec in vips.iter().filter(|spec| spec.via == Via::OpenstackPair) {
                if let Err(error) = pair::allow(&at, &spec.ips(), None).await {
                    let text = format!("this node may not send as VIP {}: {error}", spec.name);
                    all = Err(CallError::Other(text));
                }
            }
            all
        };
        warm.await.map_err(|error: CallError| one_line(&error.to_string()))
    }

    async fn at(&self) -> Result<At<'_>, CallError> {
        let Self { neutron, known, changes, .. } = self;
        Ok(At { neutron, port: self.port().await?, known, changes })
    }

    async fn port(&self) -> Result<&str, CallError> {
        let found = self.port.get_or_try_init(async || {
            if !self.section.port.is_empty() {
                return Ok(self.section.port.clone());
            }
            let say = "cloud.openstack.port can say which it is";
            let own = self.own.ok_or_else(|| {
                CallError::Other(format!("this node's peers reach it by a name: {say}"))
            })?;
            match &self.neutron.ports_with(None, &[own]).await?[..] {
                [only] => Ok(only.id.clone()),
                [] => Err(CallError::Other(format!("no port of this project has {own}: {say}"))),
                _ => Err(CallError::Other(format!("several ports have {own}: {say}"))),
            }
        });
        found.await.map(String::as_str)
    }
}
