//! The replicated state and how log entries change it.
//!
//! `apply` is a function of state and entry alone: no clock, no randomness, so
//! that every replica computes the same. A refused command changes nothing.

use super::command::Position;
use super::event::Events;
use super::reports::Reports;
use crate::{
    Cluster, Command, Conflict, CutOff, EventKind, Hindrance, Level, Login, Mac, Name, Node,
    NodeId, NodeOp, NodeState, Obstacle, Op, Outcome, Profile, Refusal, Server, ServerUid, Term,
    Token, TokenId, Tombstone, Vip, VipAddress, VipUid,
};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// All that the log says. Each subject is shared until it changes, and each VIP:
/// an entry copies what it touches, and a reader sees by the pointer what did not
/// change.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// What has to be understood to read this: the level of the latest operation
    /// that every member understood.
    pub needs: Level,
    /// `None` before `init`.
    pub cluster: Option<Arc<Cluster>>,
    /// Members, by id.
    pub nodes: Arc<BTreeMap<NodeId, Node>>,
    /// Removed members, by id.
    pub tombstones: Arc<BTreeMap<NodeId, Tombstone>>,
    /// Join tokens.
    pub tokens: Arc<BTreeMap<TokenId, Arc<Token>>>,
    /// Certificates of people that are good, by key (SPKI hash).
    pub logins: Arc<BTreeMap<String, Login>>,
    /// VIPs, by identity.
    pub vips: Arc<BTreeMap<VipUid, Arc<Vip>>>,
    /// Why nodes could not hold VIPs when they last tried.
    pub obstacles: Reports<VipUid, Obstacle>,
    /// Whom nodes hear claim addresses of VIPs beside their holders.
    pub conflicts: Reports<VipUid, Conflict>,
    /// Nodes that did not reach the real servers behind VIPs that they held. Absent where
    /// there are none.
    #[serde(default, skip_serializing_if = "nobody")]
    pub cut_off: Reports<VipUid, CutOff>,
    /// What happened.
    pub events: Events,
    /// Log time, ms since 1970; never falls.
    pub time_ms: u64,
    /// Term of the latest entry.
    pub term: Term,
    /// Term of the entry before the first one of `term`.
    pub previous_term: Term,
    /// Removed VIPs that a node which was not there may still answer for. They
    /// go when that node released them, or when a leader waited long enough and
    /// says so: the log's own time proves nothing.
    pub(crate) retired: Arc<Vec<Arc<Vip>>>,
    pub(super) next_node: u64,
    pub(super) next_vip: u64,
    /// Assignments of VIPs that nodes announce. Absent where nobody used it.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(super) announced: u64,
    /// Virtual servers, by identity. Absent where nobody used them.
    #[serde(default, skip_serializing_if = "none")]
    pub servers: Arc<BTreeMap<ServerUid, Arc<Server>>>,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(super) next_server: u64,
    /// Why virtual servers are not forwarded on nodes as they are wanted. Absent where
    /// nobody said so.
    #[serde(default, skip_serializing_if = "nobody")]
    pub hindrances: Reports<ServerUid, Hindrance>,
    /// What only the tests' next version has: absent where nobody used it.
    #[cfg(feature = "next-version")]
    #[serde(default, skip_serializing_if = "skip")]
    pub marks: Arc<BTreeMap<NodeId, String>>,
}

fn none(servers: &Arc<BTreeMap<ServerUid, Arc<Server>>>) -> bool {
    servers.is_empty()
}

fn nobody<K, T>(reports: &Reports<K, T>) -> bool {
    reports.is_empty()
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
pub(super) fn is_zero(number: &u64) -> bool {
    *number == 0
}

#[cfg(feature = "next-version")]
fn skip(marks: &Arc<BTreeMap<NodeId, String>>) -> bool {
    marks.is_empty()
}

impl State {
    /// Takes note of an entry's place; to be called for every entry, Raft's own
    /// included, before its command is applied.
    pub fn enter(&mut self, term: Term) {
        if term > self.term {
            self.previous_term = self.term;
            self.term = term;
        }
    }

    /// Applies the command at `index`. [`State::enter`] came first.
    pub fn apply(&mut self, index: u64, command: &Command) -> Outcome {
        self.time_ms = self.time_ms.max(command.time_ms);
        let at = Position { term: self.term, index };
        if let Some(decided) = command.term.filter(|decided| *decided != self.term) {
            return Outcome::Refused(Refusal::OtherTerm { decided, term: self.term });
        }
        if let Err(refusal) = self.may_take(&command.op) {
            return Outcome::Refused(refusal);
        }
        let actor = &command.actor.0;
        // Also where it is refused below: its entry is in the log.
        self.needs = self.needs.max(command.op.since());
        let outcome = match &command.op {
            Op::Cluster(op) => self.apply_to_cluster(actor, op),
            Op::Node(op) => self.apply_to_node(at, actor, op),
            Op::Token(op) => self.apply_to_token(actor, op),
            Op::Login(op) => self.apply_to_login(actor, op),
            Op::Vip(op) => self.apply_to_vip(at, actor, op),
            Op::Server(op) => self.apply_to_server(at, actor, op),
        };
        let moves_nobody =
            |op: &NodeOp| matches!(op, NodeOp::Interfaces { .. } | NodeOp::Runs { .. });
        let moved = matches!(&command.op, Op::Node(op) if !moves_nobody(op));
        if moved && outcome.is_ok() && !self.servers.is_empty() {
            self.servers_follow_nodes();
        }
        outcome.unwrap_or_else(Outcome::Refused)
    }

    /// What every member understands. Of those that did not say so yet nothing
    /// more than the least is known.
    #[must_use]
    pub fn understood(&self) -> Level {
        let levels = self.nodes.values().map(|node| node.runs.level);
        levels.min().unwrap_or(Level::HERE).max(Level::FIRST)
    }

    /// Whether every member understands an operation.
    ///
    /// # Errors
    /// Who does not.
    pub fn may_take(&self, op: &Op) -> Result<(), Refusal> {
        let since = op.since();
        if since <= self.understood() {
            return Ok(());
        }
        let old = self.nodes.values().filter(|node| node.runs.level < since);
        let nodes = old.map(|node| format!("{} ({})", node.name, node.runs));
        Err(Refusal::NotEverywhere { nodes: nodes.collect::<Vec<_>>().join(", ") })
    }

    /// Whether all that a lease depends on is as in another state: that one's, as
    /// long as somebody keeps it. Tokens, people, events and the log's time are not
    /// among it.
    #[must_use]
    pub fn same_for_leases(&self, other: &Self) -> bool {
        (self.term, self.previous_term) == (other.term, other.previous_term)
            && Arc::ptr_eq(&self.nodes, &other.nodes)
            && Arc::ptr_eq(&self.tombstones, &other.tombstones)
            && Arc::ptr_eq(&self.vips, &other.vips)
            && Arc::ptr_eq(&self.retired, &other.retired)
            && Arc::ptr_eq(&self.obstacles, &other.obstacles)
            && Arc::ptr_eq(&self.conflicts, &other.conflicts)
            && Arc::ptr_eq(&self.cut_off, &other.cut_off)
    }

    /// That alone, without anybody's tokens and certificates.
    #[must_use]
    pub fn of_leases(&self) -> Self {
        let (tokens, logins, events, cluster, servers, hindrances) = Default::default();
        Self { tokens, logins, events, cluster, servers, hindrances, ..self.clone() }
    }

    pub(super) fn record(&mut self, actor: &str, what: impl Into<EventKind>) {
        self.events.record(self.time_ms, actor, what.into());
    }

    pub(crate) fn vip_mut(&mut self, uid: VipUid) -> Option<&mut Vip> {
        Arc::make_mut(&mut self.vips).get_mut(&uid).map(Arc::make_mut)
    }

    pub(crate) fn node_mut(&mut self, id: NodeId) -> Option<&mut Node> {
        Arc::make_mut(&mut self.nodes).get_mut(&id)
    }

    /// The timings of the cluster's profile; `lan` before `init`.
    #[must_use]
    pub fn profile(&self) -> Profile {
        self.cluster.as_ref().map_or_else(Profile::default, |c| c.profile)
    }

    /// The VIP with this identity.
    #[must_use]
    pub fn vip(&self, uid: VipUid) -> Option<&Vip> {
        self.vips.get(&uid).map(Arc::as_ref)
    }

    /// All VIPs, by identity.
    pub fn all_vips(&self) -> impl Iterator<Item = &Vip> {
        self.vips.values().map(Arc::as_ref)
    }

    /// Removed VIPs that a node which was not there may still answer for.
    pub(crate) fn retired_vips(&self) -> impl Iterator<Item = &Vip> {
        self.retired.iter().map(Arc::as_ref)
    }

    /// All VIPs that somebody is to hold, in the order that people look for them.
    #[must_use]
    pub fn vips_by_name(&self) -> Vec<&Vip> {
        let wanted = self.all_vips().filter(|vip| vip.is_wanted());
        let mut vips: Vec<_> = wanted.collect();
        vips.sort_by(|a, b| a.spec.name.cmp(&b.spec.name));
        vips
    }

    /// The VIP with this name.
    #[must_use]
    pub fn vip_named(&self, name: &str) -> Option<&Vip> {
        self.all_vips().find(|v| v.spec.name.as_str() == name)
    }

    /// The VIP with this identity, also one that was removed but may still be
    /// answered for.
    #[must_use]
    pub fn vip_or_retired(&self, uid: VipUid) -> Option<&Vip> {
        let retired = || self.retired_vips().find(|v| v.uid == uid);
        self.vip(uid).or_else(retired)
    }

    /// The node with this name.
    #[must_use]
    pub fn node_named(&self, name: &str) -> Option<&Node> {
        self.nodes.values().find(|n| n.name.as_str() == name)
    }

    /// A node whose join did not come to its end within `limit_ms`.
    #[must_use]
    pub fn late_join(&self, now_ms: u64, limit_ms: u64) -> Option<&Node> {
        self.nodes
            .values()
            .find(|node| node.state == NodeState::Joining && node.since_ms + limit_ms < now_ms)
    }

    /// A node that is leaving and has lost its vote, and is among Raft's members
    /// still: whoever removed it did not come to the end.
    #[must_use]
    pub fn half_left(
        &self,
        voters: &BTreeSet<NodeId>,
        learners: &BTreeSet<NodeId>,
    ) -> Option<&Node> {
        self.nodes.values().find(|node| {
            let had_vote = node.role.votes() && node.state == NodeState::Leaving;
            had_vote && !voters.contains(&node.id) && learners.contains(&node.id)
        })
    }

    /// A node that should vote and does not: its leave was undone after it had
    /// lost its vote.
    #[must_use]
    pub fn voteless(&self, learners: &BTreeSet<NodeId>) -> Option<&Node> {
        self.nodes.values().find(|node| {
            let stays = matches!(node.state, NodeState::Active | NodeState::Drained);
            stays && node.role.votes() && learners.contains(&node.id)
        })
    }

    /// A node that is leaving, holds nothing and is not among Raft's `members`
    /// any more: all that is missing is its removal here.
    #[must_use]
    pub fn left(&self, members: &BTreeSet<NodeId>) -> Option<&Node> {
        let holds = |id: NodeId| self.all_vips().any(|vip| vip.holder == Some(id));
        self.nodes.values().find(|node| {
            node.state == NodeState::Leaving && !members.contains(&node.id) && !holds(node.id)
        })
    }

    /// The member that has an interface with this address; of several that say
    /// so, one that votes.
    #[must_use]
    pub fn node_with(&self, mac: Mac) -> Option<NodeId> {
        let having = self.nodes.values().filter(|node| node.macs.contains(&mac));
        having.max_by_key(|node| node.role.votes()).map(|node| node.id)
    }

    /// The Ethernet addresses of all members but one, and of those that may be
    /// alive in a cluster that was given up.
    #[must_use]
    pub fn macs_beside(&self, me: NodeId) -> BTreeSet<Mac> {
        let members = self.nodes.values().filter(|node| node.id != me).flat_map(|node| &node.macs);
        let removed = self.tombstones.values().filter(|t| t.cut_off).flat_map(|t| &t.macs);
        members.chain(removed).copied().collect()
    }

    /// The name of a node, also of a removed one.
    #[must_use]
    pub fn node_name(&self, id: NodeId) -> Option<&Name> {
        let tombstone = || self.tombstones.get(&id).map(|t| &t.name);
        self.nodes.get(&id).map(|n| &n.name).or_else(tombstone)
    }

    /// Whether a node may still answer for a VIP, or for a removed one that had
    /// an address of it, by an epoch before the current one.
    #[must_use]
    pub fn may_still_answer(&self, vip: &Vip, node: NodeId) -> bool {
        let held = |vip: &Vip| vip.settled.is_some_and(|settled| settled.node == node);
        (held(vip) && vip.fenced < vip.epoch.previous())
            || self.haunting(&vip.spec.addresses).any(held)
    }

    /// Removed VIPs that share an address with `addresses` and were not seen
    /// to fall silent.
    pub(crate) fn haunting<'a>(
        &'a self,
        addresses: &'a [VipAddress],
    ) -> impl Iterator<Item = &'a Vip> {
        let shares = |vip: &Vip| {
            vip.spec.addresses.iter().any(|old| addresses.iter().any(|new| new.ip == old.ip))
        };
        self.retired_vips().filter(move |vip| shares(vip))
    }
}

#[cfg(test)]
mod tests;
