//! Raft on one node: opened, asked, told.

use crate::log_store::{LogStore, StoreError};
use crate::network::{LeaseRules, Network, PeerChannels};
use crate::server::WRITE_TIMEOUT;
use crate::state_machine::{Applied, StateMachine};
use crate::types::{LogCommand, Member, TypeConfig, VipRaft};
use openraft::async_runtime::WatchReceiver;
use openraft::errors::{ClientWriteError, RaftError};
use openraft::{Config, SnapshotPolicy};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use vip_core::{Command, NodeId, Outcome, Timing, Voters};

/// Entries between two snapshots: a few MB of log at most.
pub const SNAPSHOT_AFTER: u64 = 2000;
/// Entries kept behind a snapshot, for followers that are a little late.
const ENTRIES_KEPT: u64 = 200;

/// Why a command was not committed, as far as is known here.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// Somebody else leads.
    #[error("this node does not lead")]
    NotLeader {
        /// Who does, if that is known.
        leader: Option<NodeId>,
    },
    /// No quorum within the time. The command may still be committed later.
    #[error("no quorum confirmed the command in time; it may still take effect")]
    Unknown,
    /// Raft is stopped.
    #[error("raft stopped: {0}")]
    Stopped(String),
    /// The membership could not be changed.
    #[error("the membership was not changed: {0}")]
    Membership(String),
}

/// A running Raft node.
#[derive(Clone)]
pub struct RaftNode {
    /// openraft.
    pub raft: VipRaft,
    /// Its log store.
    pub store: LogStore,
    /// The replicated state.
    pub applied: watch::Receiver<Applied>,
    id: NodeId,
}

/// Begins what openraft would do in its first start, on a thread of its own:
/// the tables of its statistics take some 20 ms, which an agent that was killed
/// spends better on reading its data.
pub fn prepare() {
    std::thread::spawn(|| drop(base2histogram::Histogram::<()>::new()));
}

/// Opens Raft on the data in `dir`.
///
/// # Errors
/// [`StoreError`]; nothing runs then.
pub async fn open(
    dir: &Path,
    id: NodeId,
    store: LogStore,
    timing: &Timing,
    peers: PeerChannels,
    rules: Arc<dyn LeaseRules>,
) -> Result<RaftNode, StoreError> {
    let damaged = |what: String| StoreError::Damaged { path: dir.to_owned(), what };
    let (machine, applied) = StateMachine::open(dir).map_err(|e| damaged(e.to_string()))?;
    let network = Network { peers, rules };
    let config = config(timing).map_err(|e| damaged(e.to_string()))?;
    let raft = openraft::Raft::new(id.0, Arc::new(config), network, store.clone(), machine);
    let raft = raft.await.map_err(|e| damaged(e.to_string()))?;
    Ok(RaftNode { raft, store, applied, id })
}

fn ms(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

fn config(timing: &Timing) -> Result<Config, openraft::ConfigError> {
    Config {
        cluster_name: "vipd".into(),
        heartbeat_interval: ms(timing.raft_heartbeat),
        election_timeout_min: ms(timing.election_min),
        election_timeout_max: ms(timing.election_max),
        snapshot_policy: SnapshotPolicy::LogsSinceLast(SNAPSHOT_AFTER),
        max_in_snapshot_log_to_keep: ENTRIES_KEPT,
        purge_batch_size: 64,
        install_snapshot_timeout: ms(WRITE_TIMEOUT),
        // The lease path says when to campaign.
        enable_elect: false,
        enable_pre_vote: Some(true),
        // A killed leader would otherwise lead again in its old term.
        enable_leader_restore: Some(false),
        quorum_loss_probe_interval: Some(2 * ms(timing.election_max)),
        backoff: format!("{}ms", ms(timing.heartbeat)),
        ..Default::default()
    }
    .validate()
}

/// The voter sets that a lease needs: those of the effective and those of the
/// committed configuration.
#[must_use]
pub fn voters(raft: &VipRaft) -> Voters {
    let metrics = raft.metrics();
    let metrics = metrics.borrow_watched();
    let effective = metrics.membership_config.membership().get_joint_config();
    let committed = metrics.committed_membership_config.membership().get_joint_config();
    let mut sets: Vec<BTreeSet<NodeId>> = vec![];
    for set in effective.iter().chain(committed) {
        let set: BTreeSet<NodeId> = set.iter().copied().map(NodeId).collect();
        if !set.is_empty() && !sets.contains(&set) {
            sets.push(set);
        }
    }
    Voters(sets)
}

fn write_error(error: RaftError<TypeConfig, ClientWriteError<TypeConfig>>) -> WriteError {
    match error {
        RaftError::APIError(ClientWriteError::ForwardToLeader(forward)) => {
            WriteError::NotLeader { leader: forward.leader_id.map(NodeId) }
        }
        RaftError::APIError(ClientWriteError::ChangeMembershipError(e)) => {
            WriteError::Membership(e.to_string())
        }
        RaftError::APIError(_) => WriteError::Unknown,
        RaftError::Fatal(fatal) => WriteError::Stopped(fatal.to_string()),
    }
}

impl RaftNode {
    /// This node.
    #[must_use]
    pub fn id(&self) -> NodeId {
        self.id
    }

    /// The latest state here.
    #[must_use]
    pub fn state(&self) -> Arc<vip_core::State> {
        self.applied.borrow().state.clone()
    }

    /// Starts a cluster with this node alone.
    ///
    /// # Errors
    /// [`WriteError`].
    pub async fn initialize(&self, address: String) -> Result<(), WriteError> {
        let members = BTreeMap::from([(self.id.0, Member { address })]);
        let result = self.raft.initialize(members).await;
        result.map_err(|e| WriteError::Stopped(e.to_string()))
    }

    /// Proposes a command and waits until it is applied here.
    ///
    /// # Errors
    /// [`WriteError`]; with `Unknown` it may still take effect.
    pub async fn write(&self, command: Command, limit: Duration) -> Result<Outcome, WriteError> {
        let write = self.raft.client_write(LogCommand(command));
        let result = tokio::time::timeout(limit, write).await.map_err(|_| WriteError::Unknown)?;
        Ok(result.map_err(write_error)?.data.0)
    }

    /// Makes a node a learner and waits until it has caught up.
    ///
    /// # Errors
    /// [`WriteError`].
    pub async fn add_learner(
        &self,
        node: NodeId,
        address: String,
        limit: Duration,
    ) -> Result<(), WriteError> {
        let add = self.raft.add_learner(node.0, Member { address }, true);
        let result = tokio::time::timeout(limit, add).await.map_err(|_| WriteError::Unknown)?;
        result.map(|_| ()).map_err(write_error)
    }

    /// Sets who votes; whoever is not in it and was a voter goes, unless kept
    /// as learner.
    ///
    /// # Errors
    /// [`WriteError`].
    pub async fn set_voters(
        &self,
        voters: BTreeSet<NodeId>,
        keep_learners: bool,
        limit: Duration,
    ) -> Result<(), WriteError> {
        let ids: BTreeSet<u64> = voters.into_iter().map(|id| id.0).collect();
        let change = self.raft.change_membership(ids, keep_learners);
        let result = tokio::time::timeout(limit, change).await.map_err(|_| WriteError::Unknown)?;
        result.map(|_| ()).map_err(write_error)
    }

    /// Takes a learner out.
    ///
    /// # Errors
    /// [`WriteError`].
    pub async fn remove_learner(&self, node: NodeId, limit: Duration) -> Result<(), WriteError> {
        let change = openraft::ChangeMembers::RemoveNodes(BTreeSet::from([node.0]));
        let change = self.raft.change_membership(change, false);
        let result = tokio::time::timeout(limit, change).await.map_err(|_| WriteError::Unknown)?;
        result.map(|_| ()).map_err(write_error)
    }

    /// Current voters of the effective configuration.
    #[must_use]
    pub fn voter_ids(&self) -> BTreeSet<NodeId> {
        self.raft.voter_ids().map(NodeId).collect()
    }

    /// Whether `node` has every entry of this leader's log.
    #[must_use]
    pub fn has_all(&self, node: NodeId) -> bool {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let matched = metrics.replication.as_ref().and_then(|r| r.get(&node.0).copied().flatten());
        matched.map(|id| id.index) >= metrics.last_log_index
    }

    /// Members without a vote.
    #[must_use]
    pub fn learner_ids(&self) -> BTreeSet<NodeId> {
        self.raft.learner_ids().map(NodeId).collect()
    }
}
