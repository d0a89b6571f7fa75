//! The types that openraft is instantiated with.

use openraft::impls::leader_id_std::LeaderId;
use openraft::vote::RaftLeaderId;
use serde::{Deserialize, Serialize};
use std::fmt;
use vip_core::{Command, NodeId, Outcome, Term};

openraft::declare_raft_types!(
    /// One leader per term (`leader_id_std`): the rules about nested epochs
    /// speak of "the leader of a term".
    pub TypeConfig:
        D = LogCommand,
        R = Reply,
        NodeId = u64,
        Node = Member,
        LeaderId = LeaderId<u64, u64>,
        AsyncRuntime = openraft_rt_tokio::TokioRuntime,
);

/// A member as Raft's membership knows it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Where its port is.
    pub address: String,
}

impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.address)
    }
}

/// A command as log entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LogCommand(pub Command);

impl fmt::Display for LogCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "command by {}", self.0.actor.0)
    }
}

/// What applying a command answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Reply(pub Outcome);

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

pub(crate) type CommittedLeader = <LeaderId<u64, u64> as RaftLeaderId>::Committed;
pub(crate) type LogId = openraft::LogId<CommittedLeader>;
pub(crate) type RaftVote = openraft::impls::Vote<LeaderId<u64, u64>>;
pub(crate) type LogEntry = openraft::alias::EntryOf<TypeConfig>;
pub(crate) type StoredMembership = openraft::alias::StoredMembershipOf<TypeConfig>;
pub(crate) type SnapshotMeta = openraft::alias::SnapshotMetaOf<TypeConfig>;

pub(crate) fn log_id(term: u64, index: u64) -> LogId {
    LogId { leader_id: leader_of(Term(term)), index }
}

/// The leader of a term, as openraft names it in log ids.
pub(crate) fn leader_of(term: Term) -> CommittedLeader {
    LeaderId::new(term.0, 0).to_committed()
}

pub(crate) fn term_of(id: &LogId) -> Term {
    Term(id.leader_id.term)
}

pub(crate) fn core_vote(vote: &RaftVote) -> vip_core::Vote {
    vip_core::Vote {
        term: Term(vote.leader_id.term),
        node: NodeId(vote.leader_id.voted_for),
        committed: vote.committed,
    }
}

pub(crate) fn raft_vote(vote: vip_core::Vote) -> RaftVote {
    let leader_id = LeaderId { term: vote.term.0, voted_for: vote.node.0 };
    RaftVote { leader_id, committed: vote.committed }
}
