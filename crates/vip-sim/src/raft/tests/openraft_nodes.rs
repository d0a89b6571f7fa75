//! Nodes of openraft over messages and writes that wait until they are told to
//! go on. As vip-raft has them where it changes what a node does: pre-votes, no
//! leader restored; without clocks of their own.

mod patient;
mod store;

use super::schedule::Step;
use super::{Question, Seen};
use openraft::async_runtime::WatchReceiver;
use openraft::errors::{RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::impls::leader_id_std::LeaderId;
use openraft::network::{RPCOption, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, Precondition, SnapshotResponse,
    TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::vote::RaftLeaderId;
use openraft::{AnyError, ChangeMembers, Config, EmptyNode, OptionalSend, Raft, SnapshotPolicy};
use patient::Patient;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use store::{Machine, Store};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use vip_core::{NodeId, Term, Vote};

openraft::declare_raft_types!(
    pub(super) Types:
        D = u64,
        R = u64,
        NodeId = u64,
        Node = EmptyNode,
        LeaderId = LeaderId<u64, u64>,
        AsyncRuntime = Patient,
);

type CommittedLeader = <LeaderId<u64, u64> as RaftLeaderId>::Committed;
type LogId = openraft::LogId<CommittedLeader>;
type Entry = openraft::alias::EntryOf<Types>;
type StoredMembership = openraft::alias::StoredMembershipOf<Types>;
type RealVote = openraft::impls::Vote<LeaderId<u64, u64>>;
type Snapshot = openraft::alias::SnapshotOf<Types, Vec<u8>>;
type SnapshotMeta = openraft::alias::SnapshotMetaOf<Types>;
type Node = Raft<Types, Machine>;

fn log_id(term: u64, index: u64) -> LogId {
    LogId { leader_id: LeaderId::new(term, 0).to_committed(), index }
}

fn vote(vote: &RealVote) -> Vote {
    if vote.leader_id.term == 0 {
        // Nobody's yet; openraft puts the node itself there.
        return Vote::default();
    }
    Vote {
        term: Term(vote.leader_id.term),
        node: NodeId(vote.leader_id.voted_for),
        committed: vote.committed,
    }
}

/// openraft's own leases. Longer than anything but [`leases_end`].
const LEASE_MS: u64 = 10_000;

/// By now whatever can go on has: the clock moves only while nobody has
/// anything to do.
async fn quiet() {
    tokio::time::sleep(Duration::from_millis(20)).await;
}

/// openraft's own leases are over.
async fn leases_end() {
    tokio::time::sleep(Duration::from_millis(LEASE_MS + 1)).await;
}

type Link = (u64, u64);
/// A request, and whoever waits for the answer.
type Asked<Q, A> = (Q, oneshot::Sender<A>);
type Waiting<Q, A> = BTreeMap<Link, VecDeque<Asked<Q, A>>>;

#[derive(Default)]
struct Links {
    /// Those that only ask whether they would be elected are marked.
    questions: Waiting<(bool, VoteRequest<Types>), VoteResponse<Types>>,
    entries: Waiting<AppendEntriesRequest<Types>, AppendEntriesResponse<Types>>,
    transfers: Vec<(u64, TransferLeaderRequest<Types>)>,
}

/// What is under way.
#[derive(Clone, Default)]
struct Wire(Arc<Mutex<Links>>);

impl Wire {
    fn with<R>(&self, f: impl FnOnce(&mut Links) -> R) -> R {
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[derive(Clone)]
struct Sender(u64, Wire);

impl RaftNetworkFactory<Types> for Sender {
    type Network = Peer;

    async fn new_client(&mut self, target: u64, _: &EmptyNode) -> Peer {
        Peer { link: (self.0, target), wire: self.1.clone() }
    }
}

struct Peer {
    link: Link,
    wire: Wire,
}

fn lost() -> RPCError<Types> {
    RPCError::Unreachable(Unreachable::new(&AnyError::error("lost")))
}

impl Peer {
    async fn ask(
        &self,
        pre: bool,
        rpc: VoteRequest<Types>,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        let (answer, answered) = oneshot::channel();
        self.wire.with(|links| {
            links.questions.entry(self.link).or_default().push_back(((pre, rpc), answer));
        });
        answered.await.map_err(|_| lost())
    }
}

impl RaftNetworkV2<Types> for Peer {
    type SnapshotData = Vec<u8>;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<Types>,
        _: RPCOption,
    ) -> Result<AppendEntriesResponse<Types>, RPCError<Types>> {
        let (answer, answered) = oneshot::channel();
        self.wire.with(|links| {
            links.entries.entry(self.link).or_default().push_back((rpc, answer));
        });
        answered.await.map_err(|_| lost())
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<Types>,
        _: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        self.ask(false, rpc).await
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<Types>,
        _: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        self.ask(true, rpc).await
    }

    async fn full_snapshot(
        &mut self,
        _: RealVote,
        _: Snapshot,
        _: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _: RPCOption,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        Err(StreamingError::Unreachable(Unreachable::from_string("no snapshots here")))
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<Types>,
        _: RPCOption,
    ) -> Result<TransferLeaderResponse<Types>, RPCError<Types>> {
        self.wire.with(|links| links.transfers.push((self.link.1, request)));
        Ok(Ok(()))
    }
}

pub(super) struct OpenraftNodes {
    nodes: BTreeMap<NodeId, (Node, Store)>,
    wire: Wire,
    /// Those who wait for a change of voters, to take its second step.
    callers: Vec<JoinHandle<()>>,
}

async fn start(id: NodeId, store: Store, wire: Wire) -> Node {
    let config = Config {
        heartbeat_interval: 1,
        election_timeout_min: LEASE_MS / 2,
        election_timeout_max: LEASE_MS,
        snapshot_policy: SnapshotPolicy::Never,
        enable_tick: false,
        enable_elect: false,
        enable_pre_vote: Some(true),
        enable_leader_restore: Some(false),
        backoff: "1ms".into(),
        ..Default::default()
    };
    let config = Arc::new(config.validate().expect("valid"));
    let raft = Raft::new(id.0, config, Sender(id.0, wire), store, Machine::default());
    raft.await.expect("starts")
}

impl OpenraftNodes {
    pub(super) async fn new(all: &BTreeSet<NodeId>, voters: &BTreeSet<NodeId>) -> Self {
        let wire = Wire::default();
        let mut nodes = BTreeMap::new();
        for id in all {
            let store = Store::new(all, voters);
            nodes.insert(*id, (start(*id, store.clone(), wire.clone()).await, store));
        }
        Self { nodes, wire, callers: vec![] }
    }

    fn node(&self, id: NodeId) -> Node {
        self.nodes[&id].0.clone()
    }

    pub(super) fn seen(&self, id: NodeId) -> Seen {
        let (node, store) = &self.nodes[&id];
        let metrics = node.metrics();
        let metrics = metrics.borrow_watched();
        let effective = metrics.membership_config.membership().get_joint_config();
        let committed = metrics.committed_membership_config.membership().get_joint_config();
        let set = |set: &BTreeSet<u64>| set.iter().copied().map(NodeId).collect();
        let sets = effective.iter().chain(committed).filter(|set| !set.is_empty());
        let leads = metrics.state == openraft::ServerState::Leader;
        // It shows what was saved; a leader that was restarted takes its vote for
        // that of a candidate.
        let saved = vote(&metrics.vote);
        let committed_vote = saved.committed && (leads || saved.node != id);
        Seen {
            vote: Vote { committed: committed_vote, ..saved },
            log: store.terms(),
            committed: metrics
                .local_committed
                .map_or(0, |id| usize::try_from(id.index).expect("small")),
            leads,
            effective: effective.iter().map(set).collect(),
            voters: sets.map(set).collect(),
        }
    }

    /// Takes the step. Returns the question that was delivered, if one was.
    pub(super) async fn take(&mut self, step: &Step) -> Option<Question> {
        let mut question = None;
        if step.ends_leases() {
            self.callers.drain(..).for_each(|caller| caller.abort());
            leases_end().await;
        }
        match step.clone() {
            Step::Elect { node, pre } => {
                self.node(node).trigger().elect(pre).await.expect("runs");
            }
            Step::Ask { from, to, answered } => question = self.ask(from, to, answered),
            Step::Replicate { from, to, answered } => self.replicate(from, to, answered).await,
            Step::Propose(leader) => {
                let node = self.node(leader);
                tokio::spawn(async move { node.client_write(0).await.map(|_| ()) });
            }
            Step::Voters(leader, voters) => self.change(leader, &voters),
            Step::Finish(leader) => {
                let wanted = {
                    let metrics = self.node(leader).metrics();
                    let metrics = metrics.borrow_watched();
                    let sets = metrics.membership_config.membership().get_joint_config();
                    sets.last().expect("a membership").iter().copied().map(NodeId).collect()
                };
                self.change(leader, &wanted);
            }
            Step::Transfer { from, to } => self.transfer(from, to).await,
            Step::Restart(id) => self.restart(id).await,
            Step::Stall(id) => self.nodes[&id].1.stall(),
            Step::Release(id) => self.nodes[&id].1.release(),
            Step::Lose { from, to } => self.wire.with(|links| {
                links.questions.remove(&(from.0, to.0));
                links.entries.remove(&(from.0, to.0));
            }),
        }
        quiet().await;
        question
    }

    fn ask(&self, from: NodeId, to: NodeId, answered: bool) -> Option<Question> {
        let link = (from.0, to.0);
        let waiting = |links: &mut Links| links.questions.get_mut(&link)?.pop_front();
        let ((pre, request), answer) = self.wire.with(waiting)?;
        let last = request.last_log_id.expect("every log has an entry");
        let last = (Term(last.leader_id.term), usize::try_from(last.index).expect("small"));
        let question = Question { vote: vote(&request.vote), last, pre };
        let node = self.node(to);
        tokio::spawn(async move {
            let reply = if pre { node.pre_vote(request).await } else { node.vote(request).await };
            if let Ok(reply) = reply
                && answered
            {
                let _ = answer.send(reply);
            }
        });
        Some(question)
    }

    async fn replicate(&self, from: NodeId, to: NodeId, answered: bool) {
        let (leader, follower) = (self.node(from), self.node(to));
        leader.trigger().heartbeat().await.expect("runs");
        quiet().await;
        let of = vote(&leader.metrics().borrow_watched().vote);
        let waiting = |links: &mut Links| {
            links.entries.get_mut(&(from.0, to.0)).and_then(VecDeque::pop_front)
        };
        while let Some((request, answer)) = self.wire.with(waiting) {
            if vote(&request.vote) != of {
                continue;
            }
            let node = follower.clone();
            tokio::spawn(async move {
                if let Ok(reply) = node.append_entries(request).await
                    && answered
                {
                    let _ = answer.send(reply);
                }
            });
            quiet().await;
            // Without an answer openraft sends the same again and again.
            let arrived = || {
                let (there, here) = (self.seen(to), self.seen(from));
                there.vote == here.vote && there.log.len() >= here.log.len()
            };
            if !answered && arrived() {
                break;
            }
        }
    }

    fn change(&mut self, leader: NodeId, voters: &BTreeSet<NodeId>) {
        let node = self.node(leader);
        let voters = voters.iter().map(|id| id.0).collect();
        let term = node.metrics().borrow_watched().current_term;
        let committed_leader_id = log_id(term, 0).leader_id;
        self.callers.push(tokio::spawn(async move {
            let change = ChangeMembers::ReplaceAllVoters(voters);
            let in_term = Precondition::CommittedLeaderId { committed_leader_id };
            let _ = node.change_membership_if(change, true, [in_term]).await;
        }));
    }

    async fn transfer(&self, from: NodeId, to: NodeId) {
        self.node(from).trigger().transfer_leader(to.0).await.expect("runs");
        quiet().await;
        let told = self.wire.with(|links| std::mem::take(&mut links.transfers));
        for (_, request) in told.into_iter().filter(|(target, _)| *target == to.0) {
            let _ = self.node(to).handle_transfer_leader(request).await.expect("runs");
        }
    }

    async fn restart(&mut self, id: NodeId) {
        let (node, store) = self.nodes.remove(&id).expect("a node");
        let found = store.kill();
        let _ = node.shutdown().await;
        quiet().await;
        self.nodes.insert(id, (start(id, found.clone(), self.wire.clone()).await, found));
    }

    pub(super) async fn end(self) {
        for (node, store) in self.nodes.into_values() {
            store.kill();
            let _ = node.shutdown().await;
        }
    }
}
