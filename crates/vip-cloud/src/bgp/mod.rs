//! Routes to VIPs, by the holder's own BGP speaker: GoBGP 3, through its gRPC API.
//!
//! Each holder announces for itself, so none can take back what another said. What a former
//! holder goes on to announce counts for less: the multi-exit discriminator falls with each
//! assignment, and routers prefer the lowest of one neighbouring autonomous system.

mod api;
mod neighbour;
mod neighbours;
mod route;
mod speaker;

use crate::{Ask, Finding};
use neighbour::Neighbour;
use neighbours::Neighbours;
use serde::Deserialize;
use speaker::{Speaker, Trouble};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::task::JoinSet;
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
/// How often what an earlier process left is looked for: a call of its may be done late.
const SEARCHES: u8 = 2;
/// In a token: no router would hear of it.
const NO_NEIGHBOUR: &str = "no-neighbour";
/// And: it is not announced.
const NOWHERE: &str = "none";
/// What is said of an address is said in its turn: what is deleted is looked at first. So many
/// addresses have theirs together.
const TURNS: usize = 16;

/// This node's speaker.
#[derive(Debug)]
pub struct Bgp {
    speaker: Speaker,
    neighbours: Neighbours,
    /// Where members reach this node, if that is an address.
    own: Option<IpAddr>,
    said: Mutex<BTreeMap<IpAddr, Said>>,
    turns: [tokio::sync::Mutex<()>; TURNS],
    /// How often what an earlier process left was looked for.
    searched: AtomicU8,
    /// It says no more.
    is_over: AtomicBool,
}

/// What this process had announced last of an address.
#[derive(Clone, Debug)]
struct Said {
    of: Name,
    rank: u64,
}

impl Bgp {
    /// `own`: where members reach this node, if that is an address.
    #[must_use]
    pub fn new(section: &BgpSection, own: Option<IpAddr>) -> Self {
        let (said, searched, is_over) = Default::default();
        let turns = std::array::from_fn(|_| tokio::sync::Mutex::default());
        let (speaker, neighbours) = (Speaker::at(&section.api), Neighbours::default());
        Self { speaker, neighbours, own, said, turns, searched, is_over }
    }

    /// Asks or tells it one thing.
    pub(crate) async fn call(&self, ask: &Ask) -> CloudReply {
        let done = async {
            match (&ask.verb, ask.announced) {
                (Verb::Observe, Some(rank)) => self.observe(&ask.spec, rank).await,
                (Verb::Take(_), Some(rank)) => self.take(&ask.spec, rank).await,
                (Verb::Release, Some(rank)) => self.release(&ask.spec, rank).await,
                (_, None) => Err(format!("{} is announced by no node", ask.spec.name)),
            }
        };
        match tokio::time::timeout(ask.limit, done).await {
            Ok(Ok(reply)) => reply,
            Ok(Err(why)) => CloudReply::Failed(why),
            Err(_) => CloudReply::Failed(format!("BGP: no end within {:?}", ask.limit)),
        }
    }

    async fn observe(&self, spec: &VipSpec, rank: u64) -> Result<CloudReply, String> {
        let ips = spec.ips();
        // It has less than it had.
        for ip in self.said_of(&spec.name, rank).into_iter().filter(|ip| !ips.contains(ip)) {
            self.withdraw(ip, rank).await?;
        }
        if self.cannot(spec).await?.is_some() {
            return Ok(CloudReply::Elsewhere(NO_NEIGHBOUR.to_owned()));
        }
        for ip in ips {
            let routes = self.speaker.routes_to(ip).await?;
            match routes.iter().map(|route| route.rank).max() {
                Some(here) if here == route::announced(rank) => {}
                Some(here) => return Ok(CloudReply::Elsewhere(format!("rank {here}"))),
                None => return Ok(CloudReply::Elsewhere(NOWHERE.to_owned())),
            }
        }
        Ok(CloudReply::Here)
    }

    async fn take(&self, spec: &VipSpec, rank: u64) -> Result<CloudReply, String> {
        if let Some(why) = self.cannot(spec).await? {
            return Err(why);
        }
        let next_hop = self.own.filter(|_| spec.goes_to_node());
        for ip in spec.ips() {
            let path = route::to(ip, rank, spec.community(), next_hop);
            let path = path.ok_or("a route cannot be written")?;
            let _turn = self.turn(ip).lock().await;
            if self.is_over.load(Ordering::Relaxed) {
                return Err("this node is stopping".to_owned());
            }
            self.said().insert(ip, Said { of: spec.name.clone(), rank });
            self.speaker.announce(path).await?;
        }
        Ok(CloudReply::Done)
    }

    async fn release(&self, spec: &VipSpec, rank: u64) -> Result<CloudReply, String> {
        let mut ips = self.said_of(&spec.name, rank);
        ips.extend(spec.ips());
        for ip in ips {
            self.withdraw(ip, rank).await?;
        }
        Ok(CloudReply::Done)
    }

    /// Takes back what was announced of an address up to a rank. A speaker that is not there
    /// announces nothing.
    async fn withdraw(&self, ip: IpAddr, rank: u64) -> Result<(), String> {
        let _turn = self.turn(ip).lock().await;
        let withdrawn = async {
            for route in self.speaker.routes_to(ip).await? {
                if route.rank <= route::announced(rank) {
                    self.speaker.withdraw(&route).await?;
                }
            }
            Ok(())
        };
        match withdrawn.await {
            Ok(()) | Err(Trouble::Gone(_)) => {
                let mut said = self.said();
                if said.get(&ip).is_some_and(|said| said.rank <= rank) {
                    said.remove(&ip);
                }
                Ok(())
            }
            Err(Trouble::Other(why)) => Err(why),
        }
    }

    /// Why no router would hear of some of a VIP's addresses and know where to send what is for
    /// them, if none does.
    async fn cannot(&self, spec: &VipSpec) -> Result<Option<String>, String> {
        let mut ips = spec.ips().into_iter();
        if spec.goes_to_node() {
            let Some(own) = self.own else {
                return Ok(Some("members reach this node by a name: no router knows it".into()));
            };
            if let Some(ip) = ips.clone().find(|ip| ip.is_ipv4() != own.is_ipv4()) {
                return Ok(Some(format!("{own} is no next hop of a route to {ip}")));
            }
        }
        let neighbours = self.neighbours.now(&self.speaker).await?;
        let hears = |ip: IpAddr| {
            let mut each = neighbours.iter();
            each.any(|neighbour| neighbour.hears_of(ip, !spec.goes_to_node()))
        };
        Ok(ips.find(|ip| !hears(*ip)).map(|ip| {
            let all: Vec<_> = neighbours.iter().map(ToString::to_string).collect();
            let family = if ip.is_ipv4() { "IPv4" } else { "IPv6" };
            let all = if all.is_empty() { "it has none".to_owned() } else { all.join(", ") };
            let text = format!("no neighbour takes {family} routes from this node now ({all})");
            crate::one_line(&format!("BGP: {text}"))
        }))
    }

    /// Whether a VIP could be moved to this node, as far as can be said without moving it.
    pub(crate) async fn check(&self, spec: &VipSpec) -> Result<(), String> {
        self.cannot(spec).await?.map_or(Ok(()), Err)
    }

    /// Looks at all that announcing these VIPs rests on.
    pub(crate) async fn examine(&self, vips: &[VipSpec]) -> Vec<Finding> {
        let began = std::time::Instant::now();
        let who = match self.speaker.who().await {
            Ok(who) => who,
            Err(trouble) => return vec![Finding::ill(String::from(trouble))],
        };
        let took = began.elapsed().as_millis();
        let mut found = vec![Finding::well(format!("{who}, an answer within {took} ms"))];
        match self.neighbours.now(&self.speaker).await {
            Ok(neighbours) => found.extend(neighbours.iter().map(Neighbour::examined)),
            Err(why) => return vec![Finding::ill(why)],
        }
        for spec in vips {
            found.push(match self.check(spec).await {
                Ok(()) => Finding::well(format!("VIP {} can be announced here", spec.name)),
                Err(why) => Finding::ill(format!("VIP {}: {why}", spec.name)),
            });
        }
        found
    }

    /// Takes back what an earlier process of this node announced: it is nobody's by now.
    pub(crate) async fn clean(&self) -> Result<(), String> {
        if self.searched.load(Ordering::Relaxed) >= SEARCHES {
            return Ok(());
        }
        for (ip, route) in self.speaker.all_routes().await? {
            let _turn = self.turn(ip).lock().await;
            // What it has by now is another one, and of this process.
            let is_said = self.said().contains_key(&ip);
            if !is_said {
                self.speaker.withdraw(&route).await?;
            }
        }
        self.searched.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Takes back all that it said: this process ends.
    pub(crate) async fn leave(self: &std::sync::Arc<Self>) {
        self.is_over.store(true, Ordering::Relaxed);
        let all: Vec<_> = self.said().iter().map(|(ip, said)| (*ip, said.rank)).collect();
        let mut left = JoinSet::new();
        for (ip, rank) in all {
            let bgp = self.clone();
            left.spawn(async move { bgp.withdraw(ip, rank).await });
        }
        let _ = tokio::time::timeout(LEAVE, left.join_all()).await;
        let still: Vec<_> = self.said().keys().copied().collect();
        if !still.is_empty() {
            tracing::warn!(?still, "routes to VIPs may be announced still");
        }
    }

    fn said(&self) -> std::sync::MutexGuard<'_, BTreeMap<IpAddr, Said>> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What it announced last for a VIP of that name, up to a rank.
    fn said_of(&self, name: &Name, rank: u64) -> std::collections::BTreeSet<IpAddr> {
        let said = self.said();
        let own = said.iter().filter(|(_, said)| said.of == *name && said.rank <= rank);
        own.map(|(ip, _)| *ip).collect()
    }

    fn turn(&self, ip: IpAddr) -> &tokio::sync::Mutex<()> {
        let last = match ip {
            IpAddr::V4(ip) => ip.octets()[3],
            IpAddr::V6(ip) => ip.octets()[15],
        };
        &self.turns[usize::from(last) % TURNS]
    }
}
