//! Routes to VIPs, by the holder's own BGP speaker: GoBGP 3, through its gRPC API.
//!
//! Each holder announces for itself, so none can take back what another said. What a former
//! holder goes on to announce counts for less: the multi-exit discriminator falls with each
//! assignment, and routers prefer the lowest of one neighbouring autonomous system.

mod api;
mod route;
mod speaker;

use crate::{Ask, Finding};
use serde::Deserialize;
use speaker::{Neighbour, Speaker};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;
use tokio::sync::Mutex;
use vip_core::{CloudReply, Name, Verb, VipSpec};

/// `[cloud.bgp]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BgpSection {
    /// Where this host's gobgpd takes commands.
    pub api: String,
}

impl Default for BgpSection {
    fn default() -> Self {
        Self { api: "127.0.0.1:50051".to_owned() }
    }
}

/// How long whoever ends waits for its routes to be gone.
const LEAVE: Duration = Duration::from_millis(500);
/// In a token: no router would hear of it.
const NO_NEIGHBOUR: &str = "no-neighbour";
/// And: it is not announced.
const NOWHERE: &str = "none";

/// This node's speaker.
#[derive(Debug)]
pub struct Bgp {
    speaker: Speaker,
    /// Where members reach this node, if that is an address.
    own: Option<IpAddr>,
    /// One thing at a time: what is deleted is looked at first.
    said: Mutex<Said>,
}

/// What this process said.
#[derive(Debug, Default)]
struct Said {
    /// What an earlier one left is gone.
    is_clean: bool,
    /// It says no more.
    is_over: bool,
    /// What each VIP has here.
    of: BTreeMap<Name, BTreeSet<IpAddr>>,
}

impl Bgp {
    /// `own`: where members reach this node, if that is an address.
    #[must_use]
    pub fn new(section: &BgpSection, own: Option<IpAddr>) -> Self {
        Self { speaker: Speaker::at(&section.api), own, said: Mutex::default() }
    }

    /// Asks or tells it one thing.
    pub(crate) async fn call(&self, ask: &Ask) -> CloudReply {
        let done = async {
            let mut said = self.said.lock().await;
            self.clean(&mut said).await?;
            match (&ask.verb, ask.announced) {
                (Verb::Observe, Some(rank)) => self.observe(&mut said, &ask.spec, rank).await,
                (Verb::Take(_), Some(_)) if said.is_over => Err("this node is stopping".into()),
                (Verb::Take(_), Some(rank)) => self.take(&mut said, &ask.spec, rank).await,
                (Verb::Release, Some(rank)) => {
                    let ips = said.of.remove(&ask.spec.name).unwrap_or_default();
                    let ips = ips.into_iter().chain(ask.spec.ips()).collect();
                    self.withdraw(&ips, rank).await.map(|()| CloudReply::Done)
                }
                (_, None) => Err(format!("{} is announced by no node", ask.spec.name)),
            }
        };
        match tokio::time::timeout(ask.limit, done).await {
            Ok(Ok(reply)) => reply,
            Ok(Err(why)) => CloudReply::Failed(why),
            Err(_) => CloudReply::Failed(format!("BGP: no end within {:?}", ask.limit)),
        }
    }

    /// What an earlier process of this node announced is nobody's by now.
    async fn clean(&self, said: &mut Said) -> Result<(), String> {
        if !said.is_clean {
            self.withdraw_all().await?;
            said.is_clean = true;
        }
        Ok(())
    }

    async fn withdraw_all(&self) -> Result<(), String> {
        for route in self.speaker.routes(None).await? {
            self.speaker.withdraw(&route).await?;
        }
        Ok(())
    }

    async fn observe(
        &self,
        said: &mut Said,
        spec: &VipSpec,
        rank: u64,
    ) -> Result<CloudReply, String> {
        let ips: BTreeSet<IpAddr> = spec.ips().into_iter().collect();
        if let Some(of) = said.of.get_mut(&spec.name) {
            // It has less than it had.
            let gone = of.difference(&ips).copied().collect();
            self.withdraw(&gone, rank).await?;
            of.retain(|ip| ips.contains(ip));
        }
        if self.without_neighbour(&ips).await?.is_some() {
            return Ok(CloudReply::Elsewhere(NO_NEIGHBOUR.to_owned()));
        }
        for ip in ips {
            let routes = self.speaker.routes(Some(ip)).await?;
            match routes.iter().map(|route| route.rank).max() {
                Some(here) if here == rank => {}
                Some(here) => return Ok(CloudReply::Elsewhere(format!("rank {here}"))),
                None => return Ok(CloudReply::Elsewhere(NOWHERE.to_owned())),
            }
        }
        Ok(CloudReply::Here)
    }

    async fn take(&self, said: &mut Said, spec: &VipSpec, rank: u64) -> Result<CloudReply, String> {
        let ips = spec.ips().into_iter().collect();
        if let Some(why) = self.without_neighbour(&ips).await? {
            return Err(why);
        }
        let nameless = || "members reach this node by a name: no router knows it".to_owned();
        let next_hop = spec.goes_to_node().then(|| self.own.ok_or_else(nameless)).transpose()?;
        said.of.entry(spec.name.clone()).or_default().extend(&ips);
        for ip in ips {
            let path = route::to(ip, rank, spec.community(), next_hop);
            self.speaker.announce(path.ok_or("a route cannot be written")?).await?;
        }
        Ok(CloudReply::Done)
    }

    /// Takes back what was announced of these up to a rank.
    async fn withdraw(&self, ips: &BTreeSet<IpAddr>, rank: u64) -> Result<(), String> {
        for ip in ips {
            let routes = self.speaker.routes(Some(*ip)).await?;
            for route in routes.iter().filter(|route| route.rank <= rank) {
                self.speaker.withdraw(route).await?;
            }
        }
        Ok(())
    }

    /// Why no router would hear of some of these, if none does.
    async fn without_neighbour(&self, ips: &BTreeSet<IpAddr>) -> Result<Option<String>, String> {
        let neighbours = self.speaker.neighbours().await?;
        let hears = |ip: IpAddr| neighbours.iter().any(|neighbour| neighbour.hears_of(ip));
        Ok(ips.iter().find(|ip| !hears(**ip)).map(|ip| {
            let all: Vec<_> = neighbours.iter().map(ToString::to_string).collect();
            let family = if ip.is_ipv4() { "IPv4" } else { "IPv6" };
            let all = if all.is_empty() { "it has none".to_owned() } else { all.join(", ") };
            format!("BGP: no neighbour takes {family} routes from this node now ({all})")
        }))
    }

    /// Whether a VIP could be moved to this node, as far as can be said without moving it.
    pub(crate) async fn check(&self, spec: &VipSpec) -> Result<(), String> {
        self.without_neighbour(&spec.ips().into_iter().collect()).await?.map_or(Ok(()), Err)
    }

    /// Looks at all that announcing these VIPs rests on.
    pub(crate) async fn examine(&self, vips: &[VipSpec]) -> Vec<Finding> {
        let began = std::time::Instant::now();
        let (asked, neighbours) = match (self.speaker.who().await, self.speaker.neighbours().await)
        {
            (Ok(who), Ok(neighbours)) => (who, neighbours),
            (Err(why), _) | (_, Err(why)) => return vec![Finding::ill(why)],
        };
        let took = began.elapsed().as_millis();
        let mut found = vec![Finding::well(format!("{asked}, an answer within {took} ms"))];
        found.extend(neighbours.iter().map(Neighbour::examined));
        for spec in vips {
            found.push(match self.check(spec).await {
                Ok(()) => Finding::well(format!("VIP {} can be announced here", spec.name)),
                Err(why) => Finding::ill(format!("VIP {}: {why}", spec.name)),
            });
        }
        found
    }

    /// Has nothing announced that an earlier process left.
    pub(crate) async fn keep_warm(&self) -> Result<(), String> {
        self.clean(&mut *self.said.lock().await).await
    }

    /// Takes back all there is: this process ends.
    pub(crate) async fn leave(&self) {
        let left = async {
            let mut said = self.said.lock().await;
            said.is_over = true;
            if said.of.is_empty() { Ok(()) } else { self.withdraw_all().await }
        };
        match tokio::time::timeout(LEAVE, left).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(error, "routes to VIPs may be announced still"),
            Err(_) => tracing::warn!("routes to VIPs may be announced still: no answer"),
        }
    }
}
