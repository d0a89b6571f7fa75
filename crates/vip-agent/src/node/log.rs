//! The log, for whoever reads it or writes to it.

use crate::errors::from_write;
use crate::lease::LeaseView;
use crate::wall_clock::wall_clock_ms;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tonic::Status;
use vip_core::{Actor, Command, Name, NodeId, Op, Outcome, OwnClockFar, State, Term};
use vip_raft::{Applied, RaftNode, WriteError};

/// How long a command to the log may take.
pub(crate) const COMMIT_TIMEOUT: Duration = Duration::from_secs(5);
/// Between two proposals of one command.
const PROPOSE_AGAIN: Duration = Duration::from_millis(5);

/// See the module.
#[derive(Clone)]
pub(crate) struct Log {
    raft: RaftNode,
    leases: LeaseView,
    /// This node's.
    name: Name,
}

impl Log {
    pub(super) fn of(raft: RaftNode, leases: LeaseView, name: Name) -> Self {
        Self { raft, leases, name }
    }

    /// The latest state here.
    pub(crate) fn state(&self) -> Arc<State> {
        self.raft.state()
    }

    /// Up to where the log is applied here.
    pub(crate) fn index(&self) -> u64 {
        self.raft.applied.borrow().index
    }

    /// Tells of what is applied.
    pub(crate) fn applied(&self) -> watch::Receiver<Applied> {
        self.raft.applied.clone()
    }

    /// The term that this node leads. A change of membership is decided in it, and
    /// good in it alone.
    ///
    /// # Errors
    /// It does not lead, or the state here may lack what earlier leaders decided.
    pub(crate) fn own_term(&self) -> Result<Term, Status> {
        let vote = self.leases.own_leadership().filter(|_| self.leases.leads_applied());
        vote.map(|vote| vote.term).ok_or_else(|| from_write(&WriteError::OtherTerm))
    }

    /// Proposes what this node decided as leader of `term`; void in any other.
    pub(crate) async fn propose(
        &self,
        term: Term,
        op: impl Into<Op>,
    ) -> Result<Outcome, WriteError> {
        let op = op.into();
        let actor = Actor::leader(&self.name);
        let command = Command { time_ms: self.time_ms(), actor, term: Some(term), op };
        self.raft.write(command, COMMIT_TIMEOUT).await
    }

    /// Proposes somebody's command. On a busy machine openraft refuses what its
    /// leader proposes until a quorum was heard again; nothing of it is in the
    /// log then, as long as the leadership is the same, and it is proposed again.
    pub(crate) async fn propose_as(
        &self,
        actor: Actor,
        op: impl Into<Op>,
        limit: Duration,
    ) -> Result<Outcome, WriteError> {
        let op = op.into();
        let until = Instant::now() + limit;
        let leadership = self.leases.own_leadership();
        let command = Command { time_ms: self.time_ms(), actor, term: None, op };
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let result = self.raft.write(command.clone(), left).await;
            let refused = matches!(result, Err(WriteError::NotLeader { .. }));
            let leads_on = leadership.is_some() && self.leases.own_leadership() == leadership;
            if !refused || !leads_on || left.is_zero() {
                return result;
            }
            sleep(PROPOSE_AGAIN).await;
        }
    }

    /// Now, as the log will have it: log time never falls, so what is to last
    /// counts from the later of both clocks. It stands still while this node's
    /// clock is not to be believed.
    pub(crate) fn time_ms(&self) -> u64 {
        let log = self.state().time_ms;
        if self.own_clock_is_far().is_some() { log } else { wall_clock_ms().max(log) }
    }

    /// Whether most voters' wall clocks contradict this node's. Only a leader
    /// hears enough to know.
    pub(crate) fn own_clock_is_far(&self) -> Option<OwnClockFar> {
        self.leases.own_leadership()?;
        self.leases.own_clock_is_far(&self.raft.voter_ids())
    }

    /// Whose wall clock is far from this node's, in words with both times.
    pub(crate) fn clock_differences(&self) -> Vec<String> {
        let state = self.state();
        let name = |node: NodeId| state.node_name(node).map(ToString::to_string);
        let differences = self.leases.clock_differences().into_iter();
        let text = differences.map(|(node, differs)| {
            let name = name(node).unwrap_or_else(|| format!("node {node}"));
            format!("the wall clock of {name} is {differs}")
        });
        text.collect()
    }

    /// What is to be dated, this node may date.
    ///
    /// # Errors
    /// Its clock is not to be believed.
    pub(crate) fn may_date(&self) -> Result<(), Status> {
        match self.own_clock_is_far() {
            None => Ok(()),
            Some(far) => {
                let (leader, theirs) = (&self.name, self.clock_differences().join("; "));
                Err(Status::failed_precondition(format!(
                    "{leader}, which leads: {far} ({theirs}). Nothing was changed"
                )))
            }
        }
    }
}
