//! The replicated state and how log entries change it.
//!
//! `apply` is a function of state and entry alone: no clock, no randomness, so
//! that every replica computes the same. A refused command changes nothing.

use super::command::Position;
use crate::{
    Command, Conflict, Event, EventKind, Issuers, Login, Mac, Name, Node, NodeId, NodeState,
    Obstacle, Op, Outcome, Profile, Refusal, Term, Token, TokenId, Tombstone, Vip, VipAddress,
    VipUid,
};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Events kept: some days of trouble, and still a small snapshot.
const EVENTS_KEPT: usize = 1000;

/// What `init` fixed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cluster {
    /// Random id; part of every certificate.
    pub id: String,
    /// Name for people.
    pub name: Name,
    /// Timings for all nodes.
    pub profile: Profile,
    /// The CAs that may sign certificates.
    #[serde(flatten)]
    pub issuers: Issuers,
}

/// All that the log says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// `None` before `init`.
    pub cluster: Option<Cluster>,
    /// Members, by id.
    pub nodes: BTreeMap<NodeId, Node>,
    /// Removed members, by id.
    pub tombstones: BTreeMap<NodeId, Tombstone>,
    /// Join tokens.
    pub tokens: BTreeMap<TokenId, Token>,
    /// Certificates of people that are good, by key (SPKI hash).
    #[serde(default)]
    pub logins: BTreeMap<String, Login>,
    /// VIPs, by identity.
    pub vips: BTreeMap<VipUid, Vip>,
    /// Why nodes could not hold VIPs when they last tried.
    #[serde(default)]
    pub obstacles: BTreeMap<VipUid, BTreeMap<NodeId, Obstacle>>,
    /// Whom nodes hear claim addresses of VIPs beside their holders.
    #[serde(default)]
    pub conflicts: BTreeMap<VipUid, BTreeMap<NodeId, Conflict>>,
    /// What happened, oldest first.
    pub events: VecDeque<Event>,
    /// Log time, ms since 1970; never falls.
    pub time_ms: u64,
    /// Term of the latest entry.
    pub term: Term,
    /// Term of the entry before the first one of `term`.
    pub previous_term: Term,
    /// Removed VIPs that a node which was not there may still answer for. They
    /// go when that node released them, or when a leader waited long enough and
    /// says so: the log's own time proves nothing.
    pub(crate) retired: Vec<Vip>,
    pub(super) next_node: u64,
    pub(super) next_vip: u64,
    pub(super) next_event: u64,
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
        let outcome = self.dispatch(at, &command.actor.0, &command.op);
        outcome.unwrap_or_else(Outcome::Refused)
    }

    fn dispatch(&mut self, at: Position, actor: &str, op: &Op) -> Result<Outcome, Refusal> {
        match op {
            Op::Bootstrap { .. } => self.bootstrap(actor, op),
            Op::CreateToken { id, verifier, role, expires_ms, max_uses } => {
                self.create_token(actor, id, verifier, *role, *expires_ms, *max_uses)
            }
            Op::RevokeToken { id } => self.revoke_token(actor, id),
            Op::LogIn { login } => self.log_in(actor, login),
            Op::RevokeLogin { user } => self.revoke_login(actor, user),
            Op::Admit { token, name, advertise, spki, proof } => {
                self.admit(at, token, name, advertise, spki, proof)
            }
            Op::ActivateNode { node } => self.activate_node(actor, *node),
            Op::DrainNode { node, drained } => self.drain_node(actor, *node, *drained),
            Op::NodeLeaving { node, for_cause } => self.node_leaving(actor, *node, *for_cause),
            Op::RemoveNode { node } => self.remove_node(actor, *node),
            Op::RotateIssuer { issuer, made_by } => self.rotate_issuer(actor, issuer, *made_by),
            Op::RetireIssuers { keep } => Ok(self.retire_issuers(actor, keep)),
            Op::AddVip { spec } => self.add_vip(actor, spec),
            Op::AddGuest { spec, guest } => self.add_guest(spec, *guest),
            Op::EndGuest { vip } => Ok(self.end_guest(*vip)),
            Op::SetVip { spec, seen, guest } => self.set_vip(at, actor, spec, *seen, *guest),
            Op::RemoveVip { name } => self.remove_vip(actor, name),
            Op::PinVip { name, to } => self.pin_vip(actor, name, *to),
            Op::Assign { moves } => self.assign(at, actor, moves),
            Op::Settle { grants, nested } => Ok(self.settle(at, grants, *nested)),
            Op::Obstacles { changes } => Ok(self.obstacles_changed(actor, changes)),
            Op::Answered { grants } => Ok(self.answered(actor, grants)),
            Op::Conflicts { changes } => Ok(self.conflicts_changed(actor, changes)),
            Op::Interfaces { node, macs } => self.interfaces_changed(*node, macs),
            Op::Outwaited { vips } => {
                self.retired.retain(|old| !vips.contains(&old.uid));
                Ok(Outcome::Done)
            }
            Op::Released { releases } => Ok(self.released(actor, releases)),
        }
    }

    fn bootstrap(&mut self, actor: &str, op: &Op) -> Result<Outcome, Refusal> {
        let Op::Bootstrap { cluster, name, profile, node, advertise, spki, issuer } = op else {
            return Ok(Outcome::Unchanged);
        };
        if let Some(there) = &self.cluster {
            return Err(Refusal::ClusterExists { name: there.name.clone() });
        }
        self.cluster = Some(Cluster {
            id: cluster.clone(),
            name: name.clone(),
            profile: *profile,
            issuers: Issuers::first(issuer),
        });
        self.record(actor, EventKind::ClusterCreated { name: name.clone() });
        Ok(self.first_node(actor, node, advertise, spki))
    }

    pub(super) fn record(&mut self, actor: &str, what: EventKind) {
        self.next_event += 1;
        let (seq, time_ms) = (self.next_event, self.time_ms);
        self.events.push_back(Event { seq, time_ms, actor: actor.to_owned(), what });
        while self.events.len() > EVENTS_KEPT {
            self.events.pop_front();
        }
    }

    /// The timings of the cluster's profile; `lan` before `init`.
    #[must_use]
    pub fn profile(&self) -> Profile {
        self.cluster.as_ref().map_or_else(Profile::default, |c| c.profile)
    }

    /// The VIP with this identity.
    #[must_use]
    pub fn vip(&self, uid: VipUid) -> Option<&Vip> {
        self.vips.get(&uid)
    }

    /// All VIPs that somebody is to hold, in the order that people look for them.
    #[must_use]
    pub fn vips_by_name(&self) -> Vec<&Vip> {
        let mut vips: Vec<_> = self.vips.values().filter(|vip| vip.is_wanted()).collect();
        vips.sort_by(|a, b| a.spec.name.cmp(&b.spec.name));
        vips
    }

    /// The VIP with this name.
    #[must_use]
    pub fn vip_named(&self, name: &str) -> Option<&Vip> {
        self.vips.values().find(|v| v.spec.name.as_str() == name)
    }

    /// The VIP with this identity, also one that was removed but may still be
    /// answered for.
    #[must_use]
    pub fn vip_or_retired(&self, uid: VipUid) -> Option<&Vip> {
        let retired = || self.retired.iter().find(|v| v.uid == uid);
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
        let holds = |id: NodeId| self.vips.values().any(|vip| vip.holder == Some(id));
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
        self.retired.iter().filter(move |vip| shares(vip))
    }
}

#[cfg(test)]
mod tests;
