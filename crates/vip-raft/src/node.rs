//! Raft on one node: opened, asked, told.

use crate::frame::Newer;
use crate::log_store::{LogStore, StoreError};
use crate::network::{LeaseRules, Network, PeerChannels};
use crate::state_machine::{Applied, StateMachine, Views};
use crate::types::{LogCommand, Member, TypeConfig, leader_of};
use openraft::ServerState;
use openraft::alias::WatchReceiverOf;
use openraft::async_runtime::WatchReceiver;
use openraft::errors::{ClientWriteError, RaftError};
use openraft::metrics::RaftServerMetrics;
use openraft::raft::Precondition;
use openraft::{ChangeMembers, Config, SnapshotPolicy};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::sync::{RwLock, RwLockWriteGuard, watch};
use vip_core::{
    Command, NodeId, Outcome, PATIENCE_IN_DOUBT, RaftView, State, Term, Timing, Voters,
};

/// Entries between two snapshots: a few MB of log at most.
pub const SNAPSHOT_AFTER: u64 = 2000;
/// Entries kept behind a snapshot, for followers that are a little late.
const ENTRIES_KEPT: u64 = 200;

/// How long an RPC may take that a person waits for.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

/// How long others' writes may be held up for those under way to end, which take
/// a few ms each.
const REST_TIMEOUT: Duration = Duration::from_millis(100);

/// Raft as vipd runs it.
pub type VipRaft = openraft::Raft<TypeConfig, StateMachine>;

/// Why a command was not committed, as far as is known here.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// Somebody else leads.
    #[error("this node does not lead")]
    NotLeader {
        /// Who does, if that is known.
        leader: Option<NodeId>,
    },
    /// What was decided in one term of its leader is void in any other.
    #[error("this node does not lead any more as it did when that was decided")]
    OtherTerm,
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
    /// openraft itself, for the tests of this crate.
    #[doc(hidden)]
    pub raft: VipRaft,
    /// Its log store.
    pub store: LogStore,
    /// The replicated state.
    pub applied: watch::Receiver<Applied>,
    /// The same after a change of what leases depend on, and no other.
    pub for_leases: watch::Receiver<Arc<State>>,
    id: NodeId,
    /// Read by each command of this process while it is under way. Not by changes
    /// of members: without their new voter they last.
    writes: Arc<RwLock<()>>,
    /// Of its data.
    pub(crate) directory: PathBuf,
    /// What a leader sent that is not known here.
    pub(crate) newer: Arc<OnceLock<Newer>>,
}

/// No command of this process is under way, and none begins: it waits.
pub struct AtRest<'a> {
    node: &'a RaftNode,
    _writes: RwLockWriteGuard<'a, ()>,
}

impl AtRest<'_> {
    /// Whether `node` has every entry of this leader's log.
    #[must_use]
    pub fn has_all(&self, node: NodeId) -> bool {
        self.node.matched(node) >= self.node.raft.metrics().borrow_watched().last_log_index
    }
}

/// Why Raft does not go on.
#[derive(Debug)]
pub enum Ended {
    /// The log has something that a later version of vipd wrote.
    Newer(Newer),
    /// It failed, or was shut down.
    Raft(String),
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
    store.belongs_to(id, timing.promise * PATIENCE_IN_DOUBT, rules.clone());
    let (machine, views) = StateMachine::open(dir)?;
    let network = Network { peers, rules };
    let config = config(timing).map_err(|e| damaged(e.to_string()))?;
    let raft = openraft::Raft::new(id.0, Arc::new(config), network, store.clone(), machine);
    let raft = raft.await.map_err(|e| damaged(e.to_string()))?;
    let Views { applied, for_leases } = views;
    let (directory, newer) = (dir.to_owned(), Arc::default());
    let writes = Arc::default();
    Ok(RaftNode { raft, store, applied, for_leases, id, writes, directory, newer })
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
fn voters(raft: &VipRaft) -> Voters {
    let metrics = raft.server_metrics();
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
        RaftError::APIError(ClientWriteError::PreconditionFailed(_)) => WriteError::OtherTerm,
        RaftError::APIError(_) => WriteError::Unknown,
        RaftError::Fatal(fatal) => WriteError::Stopped(fatal.to_string()),
    }
}

/// That something of Raft's changed: who leads, who votes.
pub struct Changes(WatchReceiverOf<TypeConfig, RaftServerMetrics<TypeConfig>>);

impl Changes {
    /// Waits for the next change. Never returns once Raft has ended.
    pub async fn changed(&mut self) {
        if self.0.changed().await.is_err() {
            std::future::pending().await
        }
    }
}

impl RaftNode {
    /// Tells of changes from here on.
    #[must_use]
    pub fn changes(&self) -> Changes {
        Changes(self.raft.server_metrics())
    }

    /// What leases need to know of Raft now. Of the same source as [`Changes`]: openraft
    /// tells of a change before `metrics` have it, and tells once.
    #[must_use]
    pub fn view(&self) -> RaftView {
        let leads = {
            let metrics = self.raft.server_metrics();
            let metrics = metrics.borrow_watched();
            let own = metrics.vote.committed && metrics.vote.leader_id.voted_for == metrics.id;
            let leads = metrics.state == ServerState::Leader && own;
            leads.then_some(Term(metrics.vote.leader_id.term))
        };
        RaftView { leads, voters: voters(&self.raft) }
    }

    /// Why Raft does not go on here.
    #[must_use]
    pub fn ended(&self) -> Option<Ended> {
        if let Some(newer) = self.newer.get() {
            return Some(Ended::Newer(newer.clone()));
        }
        let metrics = self.raft.metrics();
        let running = metrics.borrow_watched().running_state.clone();
        running.err().map(|fatal| Ended::Raft(fatal.to_string()))
    }

    /// Asks for votes.
    pub async fn elect(&self, pre_vote: bool) {
        // It fails only where Raft has ended, which is looked at elsewhere.
        let _ = self.raft.trigger().elect(pre_vote).await;
    }

    /// Gives leadership to another voter, if it can be.
    pub async fn transfer_leader(&self, to: NodeId) {
        let _ = self.raft.trigger().transfer_leader(to.0).await;
    }

    /// Ends Raft; what it began to write may still be on its way to the disk.
    pub async fn shut_down(&self) {
        let _ = self.raft.shutdown().await;
    }

    /// This node.
    #[must_use]
    pub fn id(&self) -> NodeId {
        self.id
    }

    /// The latest state here.
    #[must_use]
    pub fn state(&self) -> Arc<State> {
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

    /// Proposes a command and waits until it is applied here. One that a member
    /// would not understand never comes into the log.
    ///
    /// # Errors
    /// [`WriteError`]; with `Unknown` it may still take effect.
    pub async fn write(&self, command: Command, limit: Duration) -> Result<Outcome, WriteError> {
        if let Err(refusal) = self.state().may_take(&command.op) {
            return Ok(Outcome::Refused(refusal));
        }
        let write = async {
            let _under_way = self.writes.read().await;
            self.raft.client_write(LogCommand(command)).await
        };
        let result = tokio::time::timeout(limit, write).await.map_err(|_| WriteError::Unknown)?;
        Ok(result.map_err(write_error)?.data.0)
    }

    /// Makes a node a learner. It has the log when [`Self::has`] says so.
    ///
    /// # Errors
    /// [`WriteError`]; `OtherTerm` if this node does not lead `term` any more.
    pub async fn add_learner(
        &self,
        term: Term,
        node: NodeId,
        address: String,
        limit: Duration,
    ) -> Result<(), WriteError> {
        let learner = BTreeMap::from([(node.0, Member { address })]);
        let added = self.change(term, ChangeMembers::AddNodes(learner), true);
        let added = tokio::time::timeout(limit, added).await.map_err(|_| WriteError::Unknown)?;
        added.map(|_| ())
    }

    /// Sets who votes; whoever is not in it and was a voter goes, unless kept
    /// as learner. If it ends between its two steps, [`Self::finish_change`] is
    /// due.
    ///
    /// # Errors
    /// [`WriteError`]; `OtherTerm` if this node does not lead `term` any more.
    pub async fn set_voters(
        &self,
        term: Term,
        voters: BTreeSet<NodeId>,
        keep_learners: bool,
        limit: Duration,
    ) -> Result<(), WriteError> {
        tracing::info!(?voters, "changing who votes");
        let ids: BTreeSet<u64> = voters.into_iter().map(|id| id.0).collect();
        let change = self.change(term, ChangeMembers::ReplaceAllVoters(ids), keep_learners);
        let result = tokio::time::timeout(limit, change).await.map_err(|_| WriteError::Unknown)?;
        result.map(|_| ())
    }

    /// Takes a learner out.
    ///
    /// # Errors
    /// [`WriteError`]; `OtherTerm` if this node does not lead `term` any more.
    pub async fn remove_learner(
        &self,
        term: Term,
        node: NodeId,
        limit: Duration,
    ) -> Result<(), WriteError> {
        let change = ChangeMembers::RemoveNodes(BTreeSet::from([node.0]));
        let change = self.change(term, change, false);
        let result = tokio::time::timeout(limit, change).await.map_err(|_| WriteError::Unknown)?;
        result.map(|_| ())
    }

    /// Takes a member out, whether it votes or not. Each change that it takes may
    /// last as long as `limit`.
    ///
    /// # Errors
    /// [`WriteError`]; `OtherTerm` if this node does not lead `term` any more.
    pub async fn remove_member(
        &self,
        term: Term,
        node: NodeId,
        limit: Duration,
    ) -> Result<(), WriteError> {
        let mut voters = self.voter_ids();
        if voters.remove(&node) {
            // A removed voter does not stay as learner.
            self.set_voters(term, voters, false, limit).await?;
        }
        if self.learner_ids().contains(&node) {
            self.remove_learner(term, node, limit).await?;
        }
        Ok(())
    }

    /// Changes the membership, as leader of `term` and no other: whoever asks
    /// looked at the membership in that term, and after a stall another leader
    /// may have changed it. Returns the index of the (last) entry.
    async fn change(
        &self,
        term: Term,
        change: ChangeMembers<u64, Member>,
        retain: bool,
    ) -> Result<u64, WriteError> {
        let in_term = Precondition::CommittedLeaderId { committed_leader_id: leader_of(term) };
        let changed = self.raft.change_membership_if(change, retain, [in_term]).await;
        Ok(changed.map_err(write_error)?.log_id.index)
    }

    /// Finishes a change of who votes that was left between its two steps:
    /// whoever wanted it gave up, or leads no more, and openraft leaves the
    /// joint configuration as it is. Whoever votes no more stays as learner.
    /// Returns who votes, if there was something to finish. A leader that the
    /// change is to be without leaves it to the next.
    ///
    /// # Errors
    /// [`WriteError`]; `OtherTerm` if this node does not lead `term` any more,
    /// or should not.
    pub async fn finish_change(
        &self,
        term: Term,
        limit: Duration,
    ) -> Result<Option<BTreeSet<NodeId>>, WriteError> {
        let Some(voters) = self.unfinished_voters() else { return Ok(None) };
        if !voters.contains(&self.id) {
            return Err(WriteError::OtherTerm);
        }
        self.set_voters(term, voters.clone(), true, limit).await?;
        Ok(Some(voters))
    }

    /// Who is to vote by a committed change whose second step is missing.
    fn unfinished_voters(&self) -> Option<BTreeSet<NodeId>> {
        let metrics = self.raft.server_metrics();
        let metrics = metrics.borrow_watched();
        let (effective, committed) =
            (&metrics.membership_config, &metrics.committed_membership_config);
        let sets = effective.membership().get_joint_config();
        let unfinished = sets.len() > 1 && effective.log_id() == committed.log_id();
        let wanted = sets.last().filter(|_| unfinished)?;
        Some(wanted.iter().copied().map(NodeId).collect())
    }

    /// Current voters of the effective configuration.
    #[must_use]
    pub fn voter_ids(&self) -> BTreeSet<NodeId> {
        self.raft.voter_ids().map(NodeId).collect()
    }

    /// Waits until no command is under way and holds up those that come, so that
    /// what is known of the log stays true. `None`: it does not come to rest.
    pub async fn at_rest(&self) -> Option<AtRest<'_>> {
        let writes = tokio::time::timeout(REST_TIMEOUT, self.writes.write()).await.ok()?;
        Some(AtRest { node: self, _writes: writes })
    }

    /// Whether `node` has this leader's log up to `index`.
    #[must_use]
    pub fn has(&self, node: NodeId, index: u64) -> bool {
        self.matched(node) >= Some(index)
    }

    fn matched(&self, node: NodeId) -> Option<u64> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        metrics.replication.as_ref()?.get(&node.0).copied().flatten().map(|id| id.index)
    }

    /// Who is a member and where it is reached, by Raft's own membership.
    #[must_use]
    pub fn members(&self) -> Vec<(NodeId, String)> {
        let metrics = self.raft.server_metrics();
        let metrics = metrics.borrow_watched();
        let nodes = metrics.membership_config.membership().nodes();
        nodes.map(|(id, member)| (NodeId(*id), member.address.clone())).collect()
    }

    /// Members without a vote.
    #[must_use]
    pub fn learner_ids(&self) -> BTreeSet<NodeId> {
        self.raft.learner_ids().map(NodeId).collect()
    }
}
