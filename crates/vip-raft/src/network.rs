//! The sending side of Raft's RPCs.

use crate::convert::{
    append_reply_from, append_to, vote_from, vote_reply_from, vote_request_to, vote_to,
};
use crate::frame::FORMAT;
use crate::snapshot::{Parts, Snapshot};
use crate::types::{Member, RaftVote, TypeConfig, core_vote};
use openraft::errors::{RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{RPCOption, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderError,
    TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::{AnyError, OptionalSend};
use std::collections::BTreeMap;
use std::future::Future;
use std::io::Read;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio_stream::{Stream, StreamExt};
use tonic::transport::Channel;
use vip_core::{NodeId, Presumption, PromiseTicket, Refused, Speaker, Term, Vote};
use vip_proto::v1;
use vip_proto::v1::raft_client::RaftClient;

/// Part of a snapshot per message.
const CHUNK: usize = 64 << 10;
/// Largest message: openraft batches entries.
pub(crate) const MAX_MESSAGE: usize = 16 << 20;

/// What the lease rules say about Raft's messages. Called on hot paths; never
/// blocks.
pub trait LeaseRules: Send + Sync + 'static {
    /// openraft is about to save this vote.
    fn saving_vote(&self, vote: Vote);
    /// How long the write of this vote has to wait.
    fn candidacy_waits(&self, vote: Vote) -> Duration;
    /// This vote is on the disk, and no later one.
    fn vote_is_durable(&self, vote: Vote);
    /// Whether this member, as its certificate describes it, may lead or
    /// campaign in this term.
    ///
    /// # Errors
    /// What it says is not even to be stored.
    fn may_lead(&self, speaker: Speaker, term: Term) -> Result<(), Presumption>;
    /// Whether this node may ask for votes.
    ///
    /// # Errors
    /// It is bound by a promise.
    fn may_campaign(&self) -> Result<(), Refused>;
    /// Whether this node may grant a vote.
    ///
    /// # Errors
    /// It is bound by a promise or its own lease.
    fn may_vote(&self) -> Result<PromiseTicket, Refused>;
    /// Whether no promise rose since.
    fn still_may_vote(&self, ticket: PromiseTicket) -> bool;
    /// Whether this node, as leader, may send what renews promises.
    fn may_renew(&self) -> bool;
    /// Entries, or a heartbeat, of the leader elected by this vote came.
    fn leader_heard(&self, vote: Vote);
    /// Another voter is bound for that long.
    fn peer_bound(&self, remaining: Duration);
    /// This candidate was told that it would get this node's vote.
    fn promised_vote(&self, candidate: NodeId);
    /// The leader of this term hands over and gave its lease up.
    fn abdicated(&self, vote: Vote);
    /// Whether this node, leading by this vote, gave that lease up and may say
    /// so.
    fn may_transfer(&self, vote: Vote) -> bool;
}

/// Makes a channel to a node at an address, which connects when it is used.
pub type Dial = Arc<dyn Fn(NodeId, &str) -> Channel + Send + Sync>;

/// Channels to the other nodes, made when needed.
#[derive(Clone)]
pub struct PeerChannels {
    dial: Dial,
    open: Arc<Mutex<BTreeMap<(NodeId, String), Channel>>>,
}

impl PeerChannels {
    /// `dial` makes a channel that connects lazily.
    #[must_use]
    pub fn new(dial: Dial) -> Self {
        Self { dial, open: Arc::default() }
    }

    /// The channel to a node at an address.
    #[must_use]
    pub fn get(&self, node: NodeId, address: &str) -> Channel {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (node, address.to_owned());
        open.entry(key).or_insert_with(|| (self.dial)(node, address)).clone()
    }

    /// Forgets all channels, so that the next use dials again.
    pub fn clear(&self) {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Forgets a node's channels.
    pub fn forget(&self, node: NodeId) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|(id, _), _| *id != node);
    }
}

/// Makes clients for openraft.
#[derive(Clone)]
pub(crate) struct Network {
    pub(crate) peers: PeerChannels,
    pub(crate) rules: Arc<dyn LeaseRules>,
}

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = Peer;

    async fn new_client(&mut self, target: u64, node: &Member) -> Peer {
        let channel = self.peers.get(NodeId(target), &node.address);
        let client = RaftClient::new(channel)
            .max_decoding_message_size(MAX_MESSAGE)
            .max_encoding_message_size(MAX_MESSAGE);
        Peer { node: NodeId(target), client, rules: self.rules.clone() }
    }
}

/// A client of one peer.
pub(crate) struct Peer {
    node: NodeId,
    client: RaftClient<Channel>,
    rules: Arc<dyn LeaseRules>,
}

/// What can be read of a snapshot, in chunks. One that is cut short is no state.
fn chunks(parts: Parts) -> impl Stream<Item = v1::SnapshotChunk> {
    futures_util::stream::unfold(parts, |mut parts| async {
        let read = tokio::task::spawn_blocking(move || {
            let mut data = Vec::with_capacity(CHUNK);
            (&mut parts).take(CHUNK as u64).read_to_end(&mut data).map(|_| (data, parts))
        });
        let (data, parts) = read.await.ok()?.ok()?;
        (!data.is_empty()).then(|| (v1::SnapshotChunk { data, ..Default::default() }, parts))
    })
}

fn unreachable(error: &(impl std::error::Error + 'static)) -> RPCError<TypeConfig> {
    RPCError::Unreachable(Unreachable::new(error))
}

/// Whether the channel rather than the peer failed. A follower asks another
/// only for votes, so it is then that it finds its connection gone; with a new
/// one the same request may do. Asking twice is asking once: a voter answers
/// the same.
fn is_stale(status: &tonic::Status) -> bool {
    matches!(status.code(), tonic::Code::Unavailable | tonic::Code::Unknown)
}

fn timed<T>(message: T, option: &RPCOption) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.set_timeout(option.hard_ttl());
    request
}

impl Peer {
    fn refused(&self, refused: Refused) -> RPCError<TypeConfig> {
        self.rules.peer_bound(refused.remaining);
        unreachable(&refused)
    }

    /// A reply may name a vote that is higher than any here: this node would
    /// store it. Only who may lead speaks of that; a learner knows of it from
    /// somebody who will say so himself.
    fn believable(&self, vote: &RaftVote) -> Result<(), RPCError<TypeConfig>> {
        let term = Term(vote.leader_id.term);
        let speaker = Speaker { node: self.node, role: None, outdated: false };
        self.rules.may_lead(speaker, term).map_err(|presumption| {
            tracing::warn!(node = %self.node, %presumption, "a reply was not believed");
            unreachable(&presumption)
        })
    }

    async fn ask_for_vote(
        &mut self,
        pre_vote: bool,
        rpc: &VoteRequest<TypeConfig>,
        option: &RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.rules.may_campaign().map_err(|r| self.refused(r))?;
        let mut reply = self.ask_once(pre_vote, rpc, option).await;
        if reply.as_ref().is_err_and(is_stale) {
            reply = self.ask_once(pre_vote, rpc, option).await;
        }
        let reply = reply.map_err(|e| unreachable(&e))?.into_inner();
        if let Some(us) = reply.bound_for_us {
            self.rules.peer_bound(Duration::from_micros(us));
        }
        let reply = vote_reply_from(reply).map_err(|e| unreachable(&e))?;
        self.believable(&reply.vote)?;
        Ok(reply)
    }

    async fn ask_once(
        &mut self,
        pre_vote: bool,
        rpc: &VoteRequest<TypeConfig>,
        option: &RPCOption,
    ) -> Result<tonic::Response<v1::VoteReply>, tonic::Status> {
        let request = timed(vote_request_to(rpc), option);
        if pre_vote { self.client.pre_vote(request).await } else { self.client.vote(request).await }
    }
}

impl RaftNetworkV2<TypeConfig> for Peer {
    type SnapshotData = crate::SnapshotData;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RPCError<TypeConfig>> {
        // A leader whose lease lapsed keeps silent, so that those who still
        // hear it can elect another.
        if !self.rules.may_renew() {
            return Err(unreachable(&AnyError::error("silent after a lapsed lease")));
        }
        let request = append_to(&rpc).map_err(|e| unreachable(&e))?;
        let reply = self.client.append(timed(request, &option)).await;
        let reply = append_reply_from(reply.map_err(|e| unreachable(&e))?.into_inner())
            .map_err(|e| unreachable(&e))?;
        if let AppendEntriesResponse::HigherVote(vote) = &reply {
            self.believable(vote)?;
        }
        Ok(reply)
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.ask_for_vote(false, &rpc, &option).await
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.ask_for_vote(true, &rpc, &option).await
    }

    async fn full_snapshot(
        &mut self,
        vote: RaftVote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let failed = |e: &dyn std::error::Error| {
            StreamingError::Unreachable(Unreachable::from_string(e.to_string()))
        };
        let meta = serde_json::to_vec(&snapshot.meta).map_err(|e| failed(&e))?;
        let own = vote;
        let first = v1::SnapshotChunk {
            vote: Some(vote_to(&own)),
            meta,
            data: vec![],
            format: FORMAT.into(),
            needs: snapshot.snapshot.needs().0,
        };
        let rest = chunks(snapshot.snapshot.reader());
        let request = timed(tokio_stream::once(first).chain(rest), &option);
        tokio::select! {
            closed = cancel => Err(StreamingError::Closed(closed)),
            reply = self.client.install_snapshot(request) => {
                let reply = reply.map_err(|e| failed(&e))?.into_inner();
                let vote = vote_from(reply.vote).map_err(|e| failed(&e))?;
                if vote_to(&vote) != vote_to(&own) {
                    self.believable(&vote).map_err(|e| failed(&e))?;
                }
                Ok(SnapshotResponse::new(vote))
            }
        }
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, RPCError<TypeConfig>> {
        let expected = *request.from_leader();
        // openraft transfers whatever it leads when it gets there, and on its
        // own account when it finds itself removed. The other side frees itself
        // from its promise.
        if !self.rules.may_transfer(core_vote(&expected)) {
            return Err(unreachable(&AnyError::error(
                "the lease of this leadership is not closed",
            )));
        }
        let message = v1::TransferLeaderRequest {
            from_leader: Some(vote_to(&expected)),
            to: *request.to_node_id(),
            last_log: request.last_log_id().map(crate::convert::log_id_to),
        };
        let reply = self.client.transfer_leader(timed(message, &option)).await;
        let reply = reply.map_err(|e| unreachable(&e))?.into_inner();
        if reply.accepted {
            return Ok(Ok(()));
        }
        Ok(Err(TransferLeaderError::VoteChanged { expected, actual: expected }))
    }
}
