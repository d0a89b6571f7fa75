//! What can be proposed to the log.

use crate::{
    ClusterOp, Level, LoginOp, Name, NodeId, NodeOp, Refusal, Role, ServerOp, Term, TokenOp, VipOp,
};
use serde::{Deserialize, Serialize};

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

/// What to change, by subject.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Op {
    /// The cluster as a whole, and its CAs.
    Cluster(ClusterOp),
    /// Members.
    Node(NodeOp),
    /// Join tokens.
    Token(TokenOp),
    /// Certificates of people.
    Login(LoginOp),
    /// VIPs.
    Vip(VipOp),
    /// Virtual servers.
    Server(ServerOp),
}

impl Op {
    /// Since when there is such an operation.
    #[must_use]
    pub fn since(&self) -> Level {
        match self {
            Self::Cluster(op) => op.since(),
            Self::Node(op) => op.since(),
            Self::Token(op) => op.since(),
            Self::Login(op) => op.since(),
            Self::Vip(op) => op.since(),
            Self::Server(op) => op.since(),
        }
    }
}

impl From<ClusterOp> for Op {
    fn from(op: ClusterOp) -> Self {
        Self::Cluster(op)
    }
}

impl From<NodeOp> for Op {
    fn from(op: NodeOp) -> Self {
        Self::Node(op)
    }
}

impl From<TokenOp> for Op {
    fn from(op: TokenOp) -> Self {
        Self::Token(op)
    }
}

impl From<LoginOp> for Op {
    fn from(op: LoginOp) -> Self {
        Self::Login(op)
    }
}

impl From<VipOp> for Op {
    fn from(op: VipOp) -> Self {
        Self::Vip(op)
    }
}

impl From<ServerOp> for Op {
    fn from(op: ServerOp) -> Self {
        Self::Server(op)
    }
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
