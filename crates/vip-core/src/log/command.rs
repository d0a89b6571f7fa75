//! What can be proposed to the log.

use crate::{
    Cause, Conflict, Epoch, Grantee, Guest, JoinProof, Login, Mac, Name, NodeId, Obstacle, Profile,
    Refusal, Role, Term, TokenId, VipSpec, VipUid,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// Who proposed a command, for the audit: `root@n1`, `alice@10.0.0.7`, or the
/// cluster itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Actor(pub String);

impl Actor {
    /// The leader's own decision.
    #[must_use]
    pub fn leader(name: &Name) -> Self {
        Self(format!("leader@{name}"))
    }
}

/// One change of a VIP's holder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assignment {
    /// The VIP.
    pub vip: VipUid,
    /// The epoch that the proposer saw; the assignment gets the next one.
    pub seen: Epoch,
    /// The new holder.
    pub to: Option<NodeId>,
    /// Why.
    pub cause: Cause,
}

/// What hinders a node from holding a VIP now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObstacleChange {
    /// The VIP.
    pub vip: VipUid,
    /// The node.
    pub node: NodeId,
    /// What; nothing any more.
    pub why: Option<Obstacle>,
}

/// Whom a node hears claim an address of a VIP now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConflictChange {
    /// The VIP.
    pub vip: VipUid,
    /// The node that hears it.
    pub node: NodeId,
    /// What; nothing any more.
    pub what: Option<Conflict>,
}

/// What to change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "kebab-case")]
pub enum Op {
    /// First entry of a cluster.
    Bootstrap {
        /// Random id; part of every certificate.
        cluster: String,
        /// Name for people.
        name: Name,
        /// Timings for all nodes.
        profile: Profile,
        /// Name of the first node.
        node: Name,
        /// Where it is reached.
        advertise: String,
        /// Its key (SHA-256 of the SPKI), hex.
        spki: String,
        /// The issuing CA's key (SHA-256 of the SPKI), hex.
        issuer: String,
    },
    /// Opens a join token.
    CreateToken {
        /// Its id.
        id: TokenId,
        /// Its public half, hex.
        verifier: String,
        /// What it admits.
        role: Role,
        /// Until when, log time in ms since 1970.
        expires_ms: u64,
        /// How many nodes.
        max_uses: u32,
    },
    /// Closes a join token.
    RevokeToken {
        /// Its id.
        id: TokenId,
    },
    /// A person is given a certificate.
    LogIn {
        /// Whose, and for what.
        login: Login,
    },
    /// All certificates of a person end.
    RevokeLogin {
        /// Who.
        user: Name,
    },
    /// Admits a node: checks the proof and uses up the token, at once.
    Admit {
        /// The token.
        token: TokenId,
        /// The name it asks for.
        name: Name,
        /// Where it is reached.
        advertise: String,
        /// Its key, hex.
        spki: String,
        /// The token's signature over all this.
        proof: JoinProof,
    },
    /// A node is what its role says: joining is done.
    ActivateNode {
        /// The node.
        node: NodeId,
    },
    /// Keeps VIPs off a node, or lets them back.
    DrainNode {
        /// The node.
        node: NodeId,
        /// Drain, or undrain.
        drained: bool,
    },
    /// The node hands over what it holds and goes.
    NodeLeaving {
        /// The node.
        node: NodeId,
        /// It may have been broken into: what it knows is to be replaced.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        for_cause: bool,
    },
    /// Ends a membership for good.
    RemoveNode {
        /// The node.
        node: NodeId,
    },
    /// A new CA signs from here on.
    RotateIssuer {
        /// Its key (SHA-256 of the SPKI), hex.
        issuer: String,
        /// Who made it and has its private key.
        made_by: NodeId,
    },
    /// Every other CA is trusted no more.
    RetireIssuers {
        /// The one that signs, as far as the proposer knows.
        keep: String,
    },
    /// Adds a VIP.
    AddVip {
        /// What is wanted.
        spec: VipSpec,
    },
    /// Adds a VIP for a change of another one.
    AddGuest {
        /// What is wanted, under a name of its own.
        spec: VipSpec,
        /// For which, and what for.
        guest: Guest,
    },
    /// Removes one that was added for a change, if it is there.
    EndGuest {
        /// Which.
        vip: VipUid,
    },
    /// Changes what is wanted of a VIP that is there.
    SetVip {
        /// All of it, under the VIP's name.
        spec: VipSpec,
        /// The revision that it changes; of any other it changes nothing.
        seen: u32,
        /// A guest of it, whose addresses it takes over and which ends with that.
        /// Both answer on one node, or it is refused.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        guest: Option<VipUid>,
    },
    /// Removes a VIP.
    RemoveVip {
        /// Its name.
        name: Name,
    },
    /// Pins a VIP to a node, or lets placement decide again.
    PinVip {
        /// Its name.
        name: Name,
        /// Where to.
        to: Option<NodeId>,
    },
    /// Changes holders, all or none of one entry.
    Assign {
        /// Each VIP at most once.
        moves: Vec<Assignment>,
    },
    /// Epochs that were granted at least once. With `nested`, the proposer
    /// itself holds them, and its gate never outlives its leader lease.
    Settle {
        /// Which.
        grants: Vec<Grantee>,
        /// The proposing leader holds them itself.
        nested: bool,
    },
    /// Why nodes cannot hold VIPs, where that changed.
    Obstacles {
        /// Each VIP and node at most once.
        changes: Vec<ObstacleChange>,
    },
    /// Epochs whose holder answers.
    Answered {
        /// Which.
        grants: Vec<Grantee>,
    },
    /// Who claims addresses of VIPs beside their holders, where that changed.
    Conflicts {
        /// Each VIP and node at most once.
        changes: Vec<ConflictChange>,
    },
    /// The Ethernet addresses of a node.
    Interfaces {
        /// The node.
        node: NodeId,
        /// All of them.
        macs: BTreeSet<Mac>,
    },
    /// Removed VIPs that answer nowhere any more: the leader waited for as long
    /// as anybody can have been granted them.
    Outwaited {
        /// Which.
        vips: Vec<VipUid>,
    },
    /// Epochs that answer nowhere any more, for good.
    Released {
        /// Which.
        releases: Vec<Grantee>,
    },
}

/// A log entry of ours.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Command {
    /// The proposer's wall clock, ms since 1970. Log time is the running
    /// maximum of these, so it never falls and no replica reads a clock.
    pub time_ms: u64,
    /// Who proposed it.
    pub actor: Actor,
    /// The term whose leader decided it; an entry of any other term changes
    /// nothing. What a leader computed from what it knew must not speak for a
    /// later leadership. `None`: a person's command, good in every term.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub term: Option<Term>,
    /// What to change.
    #[serde(flatten)]
    pub op: Op,
}

/// What an applied command answers to its proposer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// Raft's own entry, without a command.
    Blank,
    /// Done.
    Done,
    /// As it was wanted already.
    Unchanged,
    /// A node was admitted.
    Admitted {
        /// Its id.
        node: NodeId,
        /// Its role by the log's record.
        role: Role,
        /// Log index of the admission, part of its certificate.
        admitted: u64,
    },
    /// Refused; nothing changed.
    Refused(Refusal),
}

impl Outcome {
    /// The refusal as an error.
    ///
    /// # Errors
    /// [`Refusal`], if that is what it is.
    pub fn accepted(self) -> Result<Self, Refusal> {
        match self {
            Self::Refused(refusal) => Err(refusal),
            other => Ok(other),
        }
    }
}

/// Where in the log an entry stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) term: Term,
    pub(crate) index: u64,
}
