//! Members as the log knows them: admission, activity, removal.

use super::State;
use super::command::Position;
use super::token::Token;
use crate::words::words;
use crate::{
    JoinProof, Level, MAX_MACS, Mac, Name, NodeId, Outcome, Refusal, Role, Runs, TokenError,
    TokenId, Vip, join_statement,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;

/// How far a node has come into the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NodeState {
    /// Admitted by a token; not yet caught up.
    Joining,
    /// A full member of its role.
    Active,
    /// Holds nothing until it is undrained.
    Drained,
    /// On its way out.
    Leaving,
}

words!(@shown NodeState {
    Joining => "joining",
    Active => "active",
    Drained => "drained",
    Leaving => "leaving",
});

/// A member of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    pub id: NodeId,
    /// Unique in the cluster.
    pub name: Name,
    /// Where peers reach it, `address:port`.
    pub advertise: String,
    pub role: Role,
    /// Its progress.
    pub state: NodeState,
    /// SHA-256 of its public key (SPKI), hex. The key that may speak for it.
    pub spki: String,
    /// Log time of its admission, ms since 1970.
    pub since_ms: u64,
    /// Who said that it is to go, while it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leaving_by: Option<String>,
    /// Ethernet addresses of its interfaces that have addresses.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub macs: BTreeSet<Mac>,
    /// What it runs, as it said last.
    pub runs: Runs,
    /// Why what it sees of real servers does not count, where it does not: how one that others
    /// see up fails for it, the rest of a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub no_say: Option<String>,
}

impl Node {
    /// Whether placement may give it VIPs.
    #[must_use]
    pub fn may_hold(&self) -> bool {
        self.role.holds() && self.state == NodeState::Active
    }
}

/// A node that was removed. Its key never speaks for anybody again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tombstone {
    /// Its name, for messages.
    pub name: Name,
    /// Its key, hex.
    pub spki: String,
    /// Its Ethernet addresses. It may not know that it was removed.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub macs: BTreeSet<Mac>,
    /// When and by whom. `None`: by nobody; it was cut off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub removed: Option<Removal>,
    /// It was a member of the cluster that this one was made of, and may be
    /// one still.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub cut_off: bool,
}

/// The end of a membership.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Removal {
    /// Log time, ms since 1970.
    pub time_ms: u64,
    /// Who said so.
    pub actor: String,
}

/// Who is to become a member.
#[derive(Clone, Copy)]
pub(super) struct Joiner<'a> {
    pub(super) name: &'a Name,
    pub(super) advertise: &'a str,
    pub(super) spki: &'a str,
    pub(super) runs: &'a Runs,
}

/// A change of members.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NodeOp {
    /// Admits a node: checks the proof and uses up the token, at once.
    Admit {
        token: TokenId,
        /// The name it asks for.
        name: Name,
        /// Where it is reached.
        advertise: String,
        /// Its key, hex.
        spki: String,
        /// The token's signature over all this.
        proof: JoinProof,
        runs: Runs,
    },
    /// A node is what its role says: joining is done.
    Activate { node: NodeId },
    /// Keeps VIPs off a node, or lets them back.
    Drain {
        node: NodeId,
        /// Drain, or undrain.
        drained: bool,
    },
    /// The node hands over what it holds and goes.
    Leaving {
        node: NodeId,
        /// It may have been broken into: what it knows is to be replaced.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        for_cause: bool,
    },
    /// Ends a membership for good.
    Remove { node: NodeId },
    /// The Ethernet addresses of a node.
    Interfaces {
        node: NodeId,
        /// All of them.
        macs: BTreeSet<Mac>,
    },
    /// A node runs another version than before.
    Runs {
        node: NodeId,
        /// What it runs now.
        runs: Runs,
    },
    /// What the tests' next version has beside all this: texts beside nodes.
    #[cfg(feature = "next-version")]
    Mark {
        /// By node.
        marks: std::collections::BTreeMap<NodeId, String>,
    },
}

impl NodeOp {
    /// Since when there is such an operation.
    #[must_use]
    pub const fn since(&self) -> Level {
        match self {
            Self::Admit { .. }
            | Self::Activate { .. }
            | Self::Drain { .. }
            | Self::Leaving { .. }
            | Self::Remove { .. }
            | Self::Interfaces { .. }
            | Self::Runs { .. } => Level::FIRST,
            #[cfg(feature = "next-version")]
            Self::Mark { .. } => Level::HERE,
        }
    }
}

/// What happened to a member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NodeEvent {
    /// A node was admitted by a token.
    Admitted { node: NodeId, name: Name, role: Role },
    /// A node finished joining.
    Active { node: NodeId },
    /// A node was drained or undrained.
    Drained {
        node: NodeId,
        /// Drained, or back.
        drained: bool,
    },
    /// A node runs another version than before.
    Runs { node: NodeId, version: String },
    /// What a node sees of real servers does not count, and why: the rest of a sentence; or it
    /// does again.
    Say { node: NodeId, lost: Option<String> },
    /// A node was removed, or left.
    Removed { node: NodeId, name: Name },
}

impl State {
    pub(super) fn apply_to_node(
        &mut self,
        at: Position,
        actor: &str,
        op: &NodeOp,
    ) -> Result<Outcome, Refusal> {
        match op {
            NodeOp::Admit { token, name, advertise, spki, proof, runs } => {
                let joiner = Joiner { name, advertise, spki, runs };
                self.admit(at, token, joiner, proof)
            }
            NodeOp::Activate { node } => self.activate_node(actor, *node),
            NodeOp::Drain { node, drained } => self.drain_node(actor, *node, *drained),
            NodeOp::Leaving { node, for_cause } => self.node_leaving(actor, *node, *for_cause),
            NodeOp::Remove { node } => self.remove_node(actor, *node),
            NodeOp::Interfaces { node, macs } => self.interfaces_changed(*node, macs),
            NodeOp::Runs { node, runs } => self.runs_now(actor, *node, runs),
            #[cfg(feature = "next-version")]
            NodeOp::Mark { marks } => {
                self.marks = Arc::new(marks.clone());
                Ok(Outcome::Done)
            }
        }
    }

    pub(super) fn first_node(
        &mut self,
        actor: &str,
        name: &Name,
        (advertise, spki): (&str, &str),
        runs: &Runs,
    ) -> Outcome {
        let first = Joiner { name, advertise, spki, runs };
        let id = self.new_node(first, Role::Voter, NodeState::Active);
        self.record(actor, NodeEvent::Active { node: id });
        Outcome::Admitted { node: id, role: Role::Voter, admitted: 0 }
    }

    pub(super) fn new_node(&mut self, joiner: Joiner<'_>, role: Role, state: NodeState) -> NodeId {
        self.next_node += 1;
        let id = NodeId(self.next_node);
        let node = Node {
            id,
            name: joiner.name.clone(),
            advertise: joiner.advertise.to_owned(),
            role,
            state,
            spki: joiner.spki.to_owned(),
            since_ms: self.time_ms,
            leaving_by: None,
            macs: BTreeSet::new(),
            runs: joiner.runs.clone(),
            no_say: None,
        };
        Arc::make_mut(&mut self.nodes).insert(id, node);
        id
    }

    /// As what a token would admit a node at log time `now_ms`. That there is no
    /// such token takes as long to say as that the proof is wrong: what tokens
    /// there are, only their owners learn.
    ///
    /// # Errors
    /// Why it would not.
    pub fn admission(
        &self,
        now_ms: u64,
        token_id: &TokenId,
        name: &Name,
        advertise: &str,
        spki: &str,
        proof: &JoinProof,
    ) -> Result<Role, TokenError> {
        let stand_in = Token::stand_in();
        let known = self.tokens.get(token_id);
        let token = known.map_or(&stand_in, |token| &**token);
        let cluster = self.cluster.as_ref().map_or("", |cluster| &cluster.id);
        let statement = join_statement(cluster, token_id, token.role, name, advertise, spki);
        let admits = token.admits(now_ms, spki, &statement, proof);
        let token = known.ok_or(TokenError::Unknown)?;
        admits.map(|()| token.role)
    }

    fn admit(
        &mut self,
        at: Position,
        token_id: &TokenId,
        joiner: Joiner<'_>,
        proof: &JoinProof,
    ) -> Result<Outcome, Refusal> {
        let Joiner { name, advertise, spki, runs } = joiner;
        let refuse = |error| Refusal::Token { token: token_id.clone(), error };
        let admission = self.admission(self.time_ms, token_id, name, advertise, spki, proof);
        let role = admission.map_err(refuse)?;

        // The reply to this joiner was lost: it gets the same answer again.
        if let Some(node) = self.nodes.values().find(|n| n.spki == spki) {
            return Ok(Outcome::Admitted { node: node.id, role: node.role, admitted: at.index });
        }
        if self.tombstones.values().any(|t| t.spki == spki) {
            return Err(refuse(TokenError::Used));
        }
        if let Some(node) = self.node_named(name.as_str()) {
            return Err(Refusal::NodeNameTaken { name: name.clone(), node: node.id });
        }
        self.check_place(advertise)?;
        if runs.level < self.needs {
            return Err(Refusal::TooOld { version: runs.to_string() });
        }
        if let Some(token) = Arc::make_mut(&mut self.tokens).get_mut(token_id) {
            Arc::make_mut(token).used.push(spki.to_owned());
        }
        let node = self.new_node(joiner, role, NodeState::Joining);
        let admitted = NodeEvent::Admitted { node, name: name.clone(), role };
        self.record(&format!("token {token_id}"), admitted);
        Ok(Outcome::Admitted { node, role, admitted: at.index })
    }

    fn runs_now(&mut self, actor: &str, id: NodeId, runs: &Runs) -> Result<Outcome, Refusal> {
        let node = self.known_node(id)?;
        if node.runs == *runs {
            return Ok(Outcome::Unchanged);
        }
        node.runs.clone_from(runs);
        let version = runs.to_string();
        self.record(actor, NodeEvent::Runs { node: id, version });
        Ok(Outcome::Done)
    }

    /// The Ethernet addresses of all members.
    #[must_use]
    pub fn member_macs(&self) -> BTreeSet<Mac> {
        self.nodes.values().flat_map(|node| node.macs.iter().copied()).collect()
    }

    fn interfaces_changed(&mut self, id: NodeId, macs: &BTreeSet<Mac>) -> Result<Outcome, Refusal> {
        self.known_node(id)?.macs = macs.iter().copied().take(MAX_MACS).collect();
        Ok(Outcome::Done)
    }

    /// Where a node is reached is nobody else's: a configuration that was copied
    /// makes a second voter of one that is there.
    fn check_place(&self, advertise: &str) -> Result<(), Refusal> {
        let place = advertise.parse::<SocketAddr>();
        let same = |other: &str| match (&place, other.parse::<SocketAddr>()) {
            (Ok(here), Ok(there)) => *here == there,
            _ => advertise == other,
        };
        let held = |vip: &&Vip| place.as_ref().is_ok_and(|place| vip.spec.has(place.ip()));
        if let Some(node) = self.nodes.values().find(|node| same(&node.advertise)) {
            let (advertise, node) = (advertise.to_owned(), node.name.clone());
            return Err(Refusal::PlaceTaken { advertise, node });
        }
        if let Some(vip) = self.all_vips().find(held) {
            let (advertise, vip) = (advertise.to_owned(), vip.spec.name.clone());
            return Err(Refusal::PlaceIsVip { advertise, vip });
        }
        Ok(())
    }

    fn known_node(&mut self, id: NodeId) -> Result<&mut Node, Refusal> {
        self.node_mut(id).ok_or_else(|| Refusal::UnknownNode { name: id.to_string() })
    }

    fn activate_node(&mut self, actor: &str, id: NodeId) -> Result<Outcome, Refusal> {
        let node = self.known_node(id)?;
        if node.state != NodeState::Joining {
            return Ok(Outcome::Unchanged);
        }
        node.state = NodeState::Active;
        self.record(actor, NodeEvent::Active { node: id });
        Ok(Outcome::Done)
    }

    fn drain_node(&mut self, actor: &str, id: NodeId, drained: bool) -> Result<Outcome, Refusal> {
        let node = self.known_node(id)?;
        if !node.role.holds() {
            let (name, why) = (node.name.clone(), format!("it is a {}", node.role));
            return Err(Refusal::CannotHold { name, why });
        }
        let wanted = if drained { NodeState::Drained } else { NodeState::Active };
        if node.state == wanted {
            return Ok(Outcome::Unchanged);
        }
        // A leave that did not come to its end can be undone.
        let may = match node.state {
            NodeState::Active | NodeState::Drained => true,
            NodeState::Leaving => !drained,
            NodeState::Joining => false,
        };
        if !may {
            let (name, why) = (node.name.clone(), format!("it is {}", node.state.as_str()));
            return Err(Refusal::CannotHold { name, why });
        }
        node.state = wanted;
        node.leaving_by = None;
        self.trust_again(id);
        if drained {
            self.unpin_from(id);
        }
        self.record(actor, NodeEvent::Drained { node: id, drained });
        Ok(Outcome::Done)
    }

    fn node_leaving(
        &mut self,
        actor: &str,
        id: NodeId,
        for_cause: bool,
    ) -> Result<Outcome, Refusal> {
        self.keep_one_voter(id)?;
        if for_cause {
            self.suspect(id);
        }
        let node = self.known_node(id)?;
        node.state = NodeState::Leaving;
        node.leaving_by = Some(actor.to_owned());
        self.unpin_from(id);
        Ok(Outcome::Done)
    }

    fn keep_one_voter(&self, leaving: NodeId) -> Result<(), Refusal> {
        let Some(node) = self.nodes.get(&leaving) else {
            return Err(Refusal::UnknownNode { name: leaving.to_string() });
        };
        let others = self.nodes.values().filter(|n| n.id != leaving);
        let stays = others.filter(|n| n.role.votes() && n.state != NodeState::Joining).count();
        if node.role.votes() && node.state != NodeState::Joining && stays == 0 {
            return Err(Refusal::LastVoter { name: node.name.clone() });
        }
        Ok(())
    }

    fn remove_node(&mut self, actor: &str, id: NodeId) -> Result<Outcome, Refusal> {
        // One of a cluster that this one was made of is gone for good.
        if self.tombstones.get(&id).is_some_and(|t| t.cut_off)
            && let Some(tombstone) = Arc::make_mut(&mut self.tombstones).get_mut(&id)
        {
            tombstone.cut_off = false;
            let name = tombstone.name.clone();
            self.record(actor, NodeEvent::Removed { node: id, name });
            return Ok(Outcome::Done);
        }
        self.keep_one_voter(id)?;
        let Some(node) = Arc::make_mut(&mut self.nodes).remove(&id) else {
            return Err(Refusal::UnknownNode { name: id.to_string() });
        };
        self.unpin_from(id);
        self.forget_reports_of(id);
        let name = node.name.clone();
        // Whoever comes to the end of it is not who wanted it.
        let by = node.leaving_by.unwrap_or_else(|| actor.to_owned());
        let removed = Some(Removal { time_ms: self.time_ms, actor: by });
        let Node { name: named, spki, macs, .. } = node;
        let tombstone = Tombstone { name: named, spki, macs, cut_off: false, removed };
        Arc::make_mut(&mut self.tombstones).insert(id, tombstone);
        self.record(actor, NodeEvent::Removed { node: id, name });
        Ok(Outcome::Done)
    }
}
