//! Virtual servers as the log knows them: what is wanted, what was decided of it once,
//! and the two tables that connections may go by.

mod fit;
mod health;
mod hindrance;
mod lasting;
mod names;
mod paths;
mod quorum;
mod reals;
mod refusal;
mod say;
mod slow_start;
mod tables;

pub use health::{FIRST_ANSWERS, Health, Sighting};
pub use hindrance::{Hindrance, Hindrances, MAX_HINDERED};
pub use lasting::Lasting;
pub use names::{Resolutions, Resolved, in_order};
pub use paths::{CutOff, PathChange};
pub use quorum::Instead;
pub use refusal::ServerRefusal;
pub use say::SayChange;
pub use tables::{Before, IDLE_AFTER, RETIRE_AFTER_MS};

use super::State;
use super::command::Position;
use crate::mix::mix_all;
use crate::{
    CheckSpec, Forward, Generation, HostName, Level, Name, NodeId, Observed, OnDown, Opinion,
    Outcome, Policy, RealSpec, Refusal, ServerSpec, ServerSpecError, ServerUid, TableSize, VipUid,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

/// Most virtual servers: four times what is promised to be programmed in a second.
pub const MAX_SERVERS: usize = 4000;
/// Most real servers of all of them: the kernel's program has room for as many, and for
/// those that take the place of others.
pub const MAX_REALS_IN_ALL: usize = 14_000;

/// A real server of one that there is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Real {
    /// As it was named.
    pub spec: RealSpec,
    /// It gets no new connections, and keeps those that it has.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub drained: bool,
    #[serde(default, skip_serializing_if = "Health::is_unchecked")]
    pub health: Health,
    /// It was served when too few were up, and is served on where that is wanted.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub kept: bool,
    /// How much of its share it has since it came: so many quarters; 0: all of it.
    #[serde(default, skip_serializing_if = "health::is_zero")]
    pub rising: u8,
    /// The DNS name that it comes by; `None`: it was named by its address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<HostName>,
}

impl Real {
    /// One that nothing is known of.
    #[must_use]
    pub fn new(spec: RealSpec, drained: bool) -> Self {
        Self { spec, drained, health: Health::default(), kept: false, rising: 0, name: None }
    }

    /// Its share of new connections.
    #[must_use]
    pub const fn weight(&self) -> u16 {
        if self.drained { 0 } else { self.spec.weight }
    }
}

/// A virtual server with all that the log knows of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Server {
    pub uid: ServerUid,
    /// What is wanted, without the real servers.
    pub spec: ServerSpec,
    /// The VIP, whatever its name becomes.
    pub vip: VipUid,
    /// How its packets get to real servers. Decided once: another node must not come
    /// to another conclusion.
    pub forward: Forward,
    /// Decided once: another size moves nearly every connection.
    pub table_size: TableSize,
    /// Decided once. Keeps the tables of two virtual servers apart.
    pub seed: u64,
    /// Its real servers, by address and port.
    pub reals: Vec<Real>,
    /// What the names among them resolved to last.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub answers: BTreeMap<HostName, Resolved>,
    /// Counts what hosts were to forward by: tables, ports, addresses.
    pub generation: Generation,
    /// What connections from before the last changes go by, until it retires.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Before>,
    /// Counts the changes of its spec.
    pub revision: u32,
    /// Log time, ms since 1970, of one that was added with a check.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub added_ms: Option<u64>,
    /// Too few of its real servers are up.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_short: bool,
}

/// A change of virtual servers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ServerOp {
    /// Adds one.
    Add { spec: ServerSpec },
    /// Changes what is wanted of one that is there.
    Set {
        /// All of it, under its name.
        spec: ServerSpec,
        /// The revision that it changes; of any other it changes nothing.
        seen: u32,
    },
    /// Adds one with real servers by names.
    AddNamed { spec: ServerSpec, answers: Resolutions },
    /// Changes one to have real servers by names, or one that has.
    SetNamed {
        spec: ServerSpec,
        /// As of a change without.
        seen: u32,
        answers: Resolutions,
    },
    /// What a name of real servers resolves to, or why nothing is known.
    Resolve { server: ServerUid, name: HostName, answer: Result<Vec<IpAddr>, String> },
    /// Removes one.
    Remove { name: Name },
    /// Adds a real server.
    AddReal { server: Name, real: RealSpec },
    /// Removes a real server at once, with its connections.
    RemoveReal { server: Name, place: RealPlace },
    /// Keeps new connections off a real server, or lets them back.
    DrainReal {
        server: Name,
        place: RealPlace,
        /// Drain, or undrain.
        drained: bool,
    },
    /// Another share for a real server.
    WeighReal { server: Name, place: RealPlace, weight: u16 },
    /// The table before goes: its connections are idle, or have had their time.
    Retire {
        server: ServerUid,
        /// The one in force that the proposer knew: none that came later loses its
        /// predecessor by that.
        seen: Generation,
    },
    /// What a node says of how virtual servers are there.
    Hinder { node: NodeId, said: Hindrances },
    /// What a node says of whether real servers answer.
    Observe { node: NodeId, seen: Vec<Sighting> },
    /// Real servers that went down again and again were held down for long enough.
    Release { reals: Vec<Observed> },
    /// Nodes that reach the real servers behind VIPs no more, or again.
    Paths { changes: Vec<PathChange> },
    /// Real servers that came get more of their shares.
    Raise {
        /// With how much of it each had.
        reals: Vec<(Observed, u8)>,
    },
    /// What a node sees of real servers counts no more, or again.
    Say { change: SayChange },
}

/// A real server of a virtual one, as a person names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RealPlace {
    pub ip: IpAddr,
    /// `None`: the port of the virtual server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
}

/// What happened to a virtual server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ServerEvent {
    /// One was added.
    Added { server: Name },
    /// What is wanted of it was changed.
    Set { server: Name },
    /// It was removed.
    Removed { server: Name },
    /// It has one real server more.
    RealAdded { server: Name, real: RealSpec },
    /// It has one real server less.
    RealRemoved { server: Name, real: RealSpec },
    /// A real server was drained or undrained.
    RealDrained {
        server: Name,
        real: RealSpec,
        /// Drained, or back.
        drained: bool,
    },
    /// A real server has another share.
    RealWeighed { server: Name, real: RealSpec },
    /// Observers see that it answers.
    RealUp { server: Name, real: RealSpec },
    /// They see that it does not.
    RealDown {
        server: Name,
        real: RealSpec,
        /// The rest of a sentence.
        why: String,
    },
    /// A real server went down again and again, and is held down for a while.
    Held { server: Name, real: RealSpec },
    /// A node that holds its VIP does not reach its real servers, and others do.
    CutOff {
        server: Name,
        node: NodeId,
        /// As it sees one of them: the rest of a sentence.
        why: String,
    },
    /// Too few of its real servers are up.
    Down {
        server: Name,
        /// How many are.
        up: u32,
        /// How many have to be.
        needed: u16,
        /// Where clients go.
        instead: Instead,
    },
    /// Enough are, again.
    Up {
        server: Name,
        /// How many are.
        up: u32,
    },
    /// A name of its real servers resolves to something else.
    Resolved { server: Name, name: HostName, addresses: Vec<IpAddr> },
    /// It cannot be resolved, and stays at what it was.
    Unresolved {
        server: Name,
        name: HostName,
        /// The rest of a sentence.
        why: String,
    },
    /// Connections go by one table again.
    Retired { server: Name },
    /// Something hinders it on a node, or nothing does any more.
    Hindered {
        server: Name,
        /// So many more, for the same reason.
        others: u32,
        node: NodeId,
        what: Option<Hindrance>,
    },
}

impl ServerOp {
    /// Since when there is such an operation.
    #[must_use]
    pub fn since(&self) -> Level {
        match self {
            Self::Add { spec } | Self::Set { spec, .. } => {
                let check = spec.check.as_ref().map_or(Level::SERVERS, CheckSpec::since);
                let policy = match &spec.policy {
                    policy if policy.is_usual() => Level::SERVERS,
                    Policy { on_down: OnDown::Reset, .. } => Level::NAMES,
                    _ => Level::KINDS,
                };
                check.max(policy)
            }
            Self::Observe { seen, .. } => {
                let is_unable =
                    |(_, opinion): &Sighting| matches!(opinion, Some(Opinion::Unable(_)));
                if seen.iter().any(is_unable) { Level::KINDS } else { Level::CHECKS }
            }
            Self::Paths { .. } | Self::Release { .. } => Level::KINDS,
            Self::Say { .. } | Self::Raise { .. } => Level::PROGRAMS,
            Self::AddNamed { .. } | Self::SetNamed { .. } | Self::Resolve { .. } => Level::NAMES,
            Self::Remove { .. }
            | Self::AddReal { .. }
            | Self::RemoveReal { .. }
            | Self::DrainReal { .. }
            | Self::WeighReal { .. }
            | Self::Retire { .. } => Level::SERVERS,
            Self::Hinder { .. } => Level::HINDRANCES,
        }
    }
}

impl State {
    pub(super) fn apply_to_server(
        &mut self,
        at: Position,
        actor: &str,
        op: &ServerOp,
    ) -> Result<Outcome, Refusal> {
        match op {
            ServerOp::Add { spec } => self.add_server(at, actor, (spec, &Resolutions::new())),
            ServerOp::AddNamed { spec, answers } => self.add_server(at, actor, (spec, answers)),
            ServerOp::Set { spec, seen } => {
                self.set_server(actor, (spec, &Resolutions::new()), *seen)
            }
            ServerOp::SetNamed { spec, seen, answers } => {
                self.set_server(actor, (spec, answers), *seen)
            }
            ServerOp::Resolve { server, name, answer } => {
                Ok(self.resolve(actor, *server, name, answer))
            }
            ServerOp::Remove { name } => self.remove_server(actor, name),
            ServerOp::AddReal { server, real } => self.add_real(actor, server, *real),
            ServerOp::RemoveReal { server, place } => self.remove_real(actor, server, *place),
            ServerOp::DrainReal { server, place, drained } => {
                self.drain_real(actor, server, *place, *drained)
            }
            ServerOp::WeighReal { server, place, weight } => {
                self.weigh_real(actor, server, *place, *weight)
            }
            ServerOp::Retire { server, seen } => Ok(self.retire(actor, *server, *seen)),
            ServerOp::Hinder { node, said } => Ok(self.hinder(actor, *node, said)),
            ServerOp::Observe { node, seen } => Ok(self.observe(actor, *node, seen)),
            ServerOp::Paths { changes } => Ok(self.take_paths(actor, changes)),
            ServerOp::Raise { reals } => Ok(self.raise(actor, reals)),
            ServerOp::Say { change } => Ok(self.take_say(actor, *change)),
            ServerOp::Release { reals } => Ok(self.release(actor, reals)),
        }
    }

    /// All virtual servers, by identity.
    pub fn all_servers(&self) -> impl Iterator<Item = &Server> {
        self.servers.values().map(Arc::as_ref)
    }

    /// The virtual server with this identity.
    #[must_use]
    pub fn server(&self, uid: ServerUid) -> Option<&Server> {
        self.servers.get(&uid).map(Arc::as_ref)
    }

    /// All virtual servers, by name.
    #[must_use]
    pub fn servers_by_name(&self) -> Vec<&Server> {
        let mut all: Vec<_> = self.all_servers().collect();
        all.sort_by(|one, other| one.spec.name.cmp(&other.spec.name));
        all
    }

    /// The virtual server with this name.
    #[must_use]
    pub fn server_named(&self, name: &str) -> Option<&Server> {
        self.all_servers().find(|server| server.spec.name.as_str() == name)
    }

    fn known_server(&self, name: &Name) -> Result<&Server, Refusal> {
        let unknown = || ServerRefusal::Unknown { name: name.to_string() }.into();
        self.server_named(name.as_str()).ok_or_else(unknown)
    }

    fn record_all(&mut self, actor: &str, events: impl IntoIterator<Item = ServerEvent>) {
        for event in events {
            self.record(actor, event);
        }
    }

    fn put_server(&mut self, server: Server) {
        Arc::make_mut(&mut self.servers).insert(server.uid, Arc::new(server));
    }

    fn add_server(
        &mut self,
        at: Position,
        actor: &str,
        (spec, answers): (&ServerSpec, &Resolutions),
    ) -> Result<Outcome, Refusal> {
        spec.check().map_err(ServerRefusal::from)?;
        if let Some(there) = self.server_named(spec.name.as_str()) {
            return if there.is_as(spec) {
                Ok(Outcome::Unchanged)
            } else {
                Err(ServerRefusal::Exists { name: spec.name.clone() }.into())
            };
        }
        if self.servers.len() >= MAX_SERVERS {
            return Err(ServerRefusal::TooMany.into());
        }
        let vip = self.vip_of(spec)?;
        let uid = ServerUid(self.next_server + 1);
        self.check_observers(spec, &[])?;
        let resolved = names::resolved(answers);
        let reals = self.reals_of(vip, spec, &resolved, &[]);
        let mut server = Server {
            uid,
            vip: vip.uid,
            forward: fit::decide(vip, spec, &reals),
            table_size: spec.table_size.unwrap_or_else(|| TableSize::for_reals(reals.len())),
            answers: BTreeMap::new(),
            seed: mix_all(at.index, [uid.0]),
            spec: ServerSpec { reals: vec![], ..spec.clone() },
            reals,
            generation: Generation(1),
            before: None,
            revision: 0,
            added_ms: spec.check.as_ref().map(|_| self.time_ms),
            is_short: false,
        };
        server.take_answers(answers);
        self.keep_fit(&mut server)?;
        server.check_has_reals()?;
        let short = server.count_anew(&[]);
        self.check_fits(&server)?;
        self.next_server = uid.0;
        self.put_server(server);
        self.record(actor, ServerEvent::Added { server: spec.name.clone() });
        self.record_all(actor, short);
        Ok(Outcome::Done)
    }

    fn set_server(
        &mut self,
        actor: &str,
        (spec, answers): (&ServerSpec, &Resolutions),
        seen: u32,
    ) -> Result<Outcome, Refusal> {
        spec.check().map_err(ServerRefusal::from)?;
        let old = self.known_server(&spec.name)?.clone();
        if old.revision != seen {
            return Err(ServerRefusal::Changed { name: spec.name.clone() }.into());
        }
        if spec.table_size.is_some_and(|size| size != old.table_size) {
            let (name, size) = (spec.name.clone(), old.table_size.slots());
            return Err(ServerRefusal::TableSize { name, size }.into());
        }
        let vip = self.vip_of(spec)?;
        let known = old.spec.check.as_ref().map(|check| &check.observers[..]);
        self.check_observers(spec, known.unwrap_or_default())?;
        // Without a word of it stays what was decided.
        let forward = if spec.forward == Forward::Auto { old.forward } else { spec.forward };
        if spec.real_nodes.is_some() && forward != Forward::Dr {
            return Err(ServerRefusal::from(ServerSpecError::NodesByNat).into());
        }
        let mut server = Server {
            vip: vip.uid,
            forward,
            spec: ServerSpec { reals: vec![], ..spec.clone() },
            ..old.clone()
        };
        server.take_answers(answers);
        server.reals = self.reals_of(vip, spec, &server.answers, &old.reals);
        self.keep_fit(&mut server)?;
        server.check_has_reals()?;
        let mut reals = std::mem::replace(&mut server.reals, old.reals.clone());
        old.checked_otherwise(spec, &mut reals, self.time_ms);
        let short = server.deal_anew(old.dealt(&old.reals), reals, self.time_ms);
        if server == old {
            return Ok(Outcome::Unchanged);
        }
        if server.generation == old.generation {
            server.is_another();
        }
        self.check_fits(&server)?;
        server.revision += 1;
        let uid = server.uid;
        self.put_server(server);
        self.record(actor, ServerEvent::Set { server: spec.name.clone() });
        self.record_all(actor, short);
        self.judge_anew(uid);
        Ok(Outcome::Done)
    }

    fn remove_server(&mut self, actor: &str, name: &Name) -> Result<Outcome, Refusal> {
        let uid = self.known_server(name)?.uid;
        Arc::make_mut(&mut self.servers).remove(&uid);
        if self.hindrances.contains_key(&uid) {
            Arc::make_mut(&mut self.hindrances).remove(&uid);
        }
        self.record(actor, ServerEvent::Removed { server: name.clone() });
        Ok(Outcome::Done)
    }
}

impl Server {
    /// Whether there is somebody to forward to, and all that are checked otherwise are among
    /// them.
    fn check_has_reals(&self) -> Result<(), Refusal> {
        let reals = self.reals.iter().map(|real| real.spec);
        self.spec.check_otherwise(reals).map_err(ServerRefusal::from)?;
        match self.reals.is_empty() {
            false => Ok(()),
            true if self.spec.names.is_empty() => {
                Err(ServerRefusal::NoMembers { vip: self.spec.vip.clone() }.into())
            }
            true => Err(ServerRefusal::NoAddresses { server: self.spec.name.clone() }.into()),
        }
    }

    /// Whether it is what this wants, and nobody changed it since.
    fn is_as(&self, spec: &ServerSpec) -> bool {
        let bare = ServerSpec { reals: vec![], ..spec.clone() };
        let mut wanted = spec.reals.clone();
        wanted.sort_by_key(|real| (real.ip, spec.port_of(real)));
        let same = |(there, wanted): (&Real, &RealSpec)| {
            (there.spec.ip, self.spec.port_of(&there.spec), there.spec.weight)
                == (wanted.ip, spec.port_of(wanted), wanted.weight)
        };
        let own = || self.reals.iter().filter(|real| real.name.is_none());
        self.spec == bare
            && (spec.real_nodes.is_some()
                || (own().count() == wanted.len() && own().zip(&wanted).all(same)))
    }
}

#[cfg(test)]
mod tests;
