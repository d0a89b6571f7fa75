//! The receiving side of Raft's RPCs, with the lease rules around it.

use crate::convert::{
    MessageError, append_from, append_reply_to, log_id_from, no_later, vote_from, vote_reply_to,
    vote_request_from, vote_to,
};
use crate::frame::{Newer, known};
use crate::log_store::{DOUBT, LogStore};
use crate::network::{LeaseRules, MAX_MESSAGE};
use crate::node::{RaftNode, VipRaft};
use crate::snapshot::{Snapshot, SnapshotData};
use crate::types::{RaftVote, SnapshotMeta, core_vote};
use openraft::async_runtime::WatchReceiver;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::time::{Instant, timeout};
use tonic::{Request, Response, Status, Streaming};
use vip_core::{Level, NodeId, Speaker, Term};
use vip_proto::v1;
use vip_proto::v1::raft_server::{Raft, RaftServer};

/// Largest snapshot: far beyond any state that a cluster can have.
const MAX_SNAPSHOT: u64 = 64 << 20;

/// How long the next part of a snapshot may take: one that stopped coming must
/// not keep that of another leader away.
const CHUNK_TIMEOUT: Duration = Duration::from_secs(2);

/// How long all of it may take: a slow link carries the largest in less.
const SNAPSHOT_TIMEOUT: Duration = Duration::from_secs(60);

/// Who sent a request, as its certificate says.
pub type PeerOf = Arc<dyn Fn(&tonic::Extensions) -> Option<Speaker> + Send + Sync>;

/// Serves Raft to the other members.
#[derive(Clone)]
pub struct RaftService {
    raft: VipRaft,
    rules: Arc<dyn LeaseRules>,
    peer_of: PeerOf,
    snapshots: Arc<tokio::sync::Mutex<()>>,
    /// Where one is kept while it comes.
    directory: PathBuf,
    /// What came that is not known here.
    newer: Arc<OnceLock<Newer>>,
    store: LogStore,
}

/// Work on files, off the threads that serve.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, Status> {
    tokio::task::spawn_blocking(work).await.map_err(internal)?.map_err(internal)
}

async fn spooled(directory: PathBuf, first: Vec<u8>) -> Result<SnapshotData, Status> {
    blocking(move || {
        let mut data = SnapshotData::new(&directory)?;
        data.write_all(&first)?;
        Ok(data)
    })
    .await
}

fn bad(error: impl std::fmt::Display) -> Status {
    Status::invalid_argument(error.to_string())
}

fn internal(error: impl std::fmt::Display) -> Status {
    Status::internal(error.to_string())
}

impl RaftService {
    /// `peer_of` reads the sender from a request's extensions.
    #[must_use]
    pub fn new(node: &RaftNode, rules: Arc<dyn LeaseRules>, peer_of: PeerOf) -> RaftServer<Self> {
        let (raft, directory) = (node.raft.clone(), node.directory.clone());
        let (snapshots, newer, store) = (Arc::default(), node.newer.clone(), node.store.clone());
        RaftServer::new(Self { raft, rules, peer_of, snapshots, directory, newer, store })
            .max_decoding_message_size(MAX_MESSAGE)
            .max_encoding_message_size(MAX_MESSAGE)
    }

    /// The certificate must be of the node that the message speaks for, and
    /// that one may lead. Nothing was stored or passed on before.
    fn authorise(&self, extensions: &tonic::Extensions, vote: &RaftVote) -> Result<(), Status> {
        let claimed = NodeId(vote.leader_id.voted_for);
        let speaker = (self.peer_of)(extensions).filter(|speaker| speaker.node == claimed);
        let speaker = speaker.ok_or_else(|| {
            Status::permission_denied("the certificate is not of the sending node")
        })?;
        let may = self.rules.may_lead(speaker, Term(vote.leader_id.term));
        may.map_err(|presumption| Status::permission_denied(presumption.to_string()))
    }

    /// What the leader has goes beyond this version. Whoever is not the leader here
    /// may have entries that nobody will ever have to understand.
    fn outdated(&self, vote: &RaftVote, newer: Newer) -> Status {
        let status = Status::failed_precondition(format!("this node is too old: {newer}"));
        let own = core_vote(&self.raft.metrics().borrow_watched().vote);
        let theirs = core_vote(vote);
        if (theirs.term, theirs.node) == (own.term, own.node) {
            let _ = self.newer.set(newer);
        }
        status
    }

    /// What this node acknowledges to a leader could betray a later one that it
    /// voted for, if that vote is lost. It refuses so that nobody is deposed for it; if
    /// nobody comes whom it may heed, somebody has to be.
    fn heeds(&self, vote: &RaftVote) -> Result<(), Status> {
        match self.store.unheeded_up_to() {
            Some(term) if core_vote(vote).term <= term => {
                Err(Status::unavailable(format!("{DOUBT} (after term {term})")))
            }
            _ => Ok(()),
        }
    }

    fn bound(&self, refused: &vip_core::Refused, vote: v1::Vote) -> v1::VoteReply {
        let us = u64::try_from(refused.remaining.as_micros()).unwrap_or(u64::MAX);
        v1::VoteReply { vote: Some(vote), granted: false, last_log: None, bound_for_us: Some(us) }
    }

    fn own_vote(&self) -> v1::Vote {
        vote_to(&self.raft.metrics().borrow_watched().vote)
    }
}

#[tonic::async_trait]
impl Raft for RaftService {
    async fn append(
        &self,
        request: Request<v1::AppendRequest>,
    ) -> Result<Response<v1::AppendReply>, Status> {
        let vote = vote_from(request.get_ref().vote).map_err(bad)?;
        self.authorise(request.extensions(), &vote)?;
        let message = append_from(request.get_ref()).map_err(|error| match error {
            MessageError::Field(error) => bad(error),
            MessageError::Newer(newer) => self.outdated(&vote, newer),
        })?;
        self.heeds(&vote)?;
        self.rules.leader_heard(core_vote(&message.vote));
        let reply = self.raft.append_entries(message).await.map_err(internal)?;
        Ok(Response::new(append_reply_to(&reply)))
    }

    async fn vote(
        &self,
        request: Request<v1::VoteRequest>,
    ) -> Result<Response<v1::VoteReply>, Status> {
        let mut message = vote_request_from(*request.get_ref()).map_err(bad)?;
        self.authorise(request.extensions(), &message.vote)?;
        let ticket = match self.rules.may_vote() {
            Ok(ticket) => ticket,
            Err(refused) => {
                return Ok(Response::new(self.bound(&refused, self.own_vote())));
            }
        };
        // The promise rules alone decide; openraft's own lease is a different
        // length and knows of no abdication.
        message.leadership_transfer = true;
        let reply = self.raft.vote(message).await.map_err(internal)?;
        if !self.rules.still_may_vote(ticket) {
            return Err(Status::aborted("a promise rose while the vote was granted"));
        }
        Ok(Response::new(vote_reply_to(&reply)))
    }

    async fn pre_vote(
        &self,
        request: Request<v1::VoteRequest>,
    ) -> Result<Response<v1::VoteReply>, Status> {
        let message = vote_request_from(*request.get_ref()).map_err(bad)?;
        self.authorise(request.extensions(), &message.vote)?;
        if let Err(refused) = self.rules.may_vote() {
            return Ok(Response::new(self.bound(&refused, self.own_vote())));
        }
        let candidate = NodeId(message.vote.leader_id.voted_for);
        let reply = self.raft.pre_vote(message).await.map_err(internal)?;
        if reply.vote_granted {
            self.rules.promised_vote(candidate);
        }
        Ok(Response::new(vote_reply_to(&reply)))
    }

    async fn install_snapshot(
        &self,
        request: Request<Streaming<v1::SnapshotChunk>>,
    ) -> Result<Response<v1::SnapshotReply>, Status> {
        let (_, extensions, mut chunks) = request.into_parts();
        let first = chunks.message().await?.ok_or_else(|| bad("an empty snapshot"))?;
        let vote = vote_from(first.vote).map_err(bad)?;
        self.authorise(&extensions, &vote)?;
        self.heeds(&vote)?;
        // One at a time, and none of a leader that was deposed: nothing is
        // buffered for whoever would be refused in the end.
        let own = self.raft.metrics().borrow_watched().vote;
        let (theirs, ours) = (core_vote(&vote), core_vote(&own));
        let other = theirs.term == ours.term && theirs.node != ours.node && ours.committed;
        if theirs.term < ours.term || other {
            return Ok(Response::new(v1::SnapshotReply { vote: Some(vote_to(&own)) }));
        }
        let _one = self.snapshots.try_lock().map_err(|_| {
            Status::resource_exhausted("another snapshot is on its way to this node")
        })?;
        let meta: SnapshotMeta = serde_json::from_slice(&first.meta).map_err(bad)?;
        no_later(meta.last_log_id.as_ref(), &vote).map_err(bad)?;
        let format = u8::try_from(first.format).unwrap_or(u8::MAX);
        known(format, Level(first.needs)).map_err(|newer| self.outdated(&vote, newer))?;
        let mut snapshot = spooled(self.directory.clone(), first.data).await?;
        let late = || Status::deadline_exceeded("the snapshot does not come");
        let until = Instant::now() + SNAPSHOT_TIMEOUT;
        while let Some(chunk) =
            timeout(CHUNK_TIMEOUT, chunks.message()).await.map_err(|_| late())??
        {
            if chunk.data.is_empty() || Instant::now() >= until {
                return Err(late());
            }
            if snapshot.bytes() + chunk.data.len() as u64 > MAX_SNAPSHOT {
                return Err(Status::resource_exhausted("the snapshot is too large"));
            }
            snapshot = blocking(move || snapshot.write_all(&chunk.data).map(|()| snapshot)).await?;
        }
        // What is no state must not reach the state machine: it would end this
        // node, and again at each start of the sender's.
        let read = blocking(move || Ok(snapshot.parse().map(|_| snapshot)?)).await;
        let snapshot = Snapshot { meta, snapshot: read.map_err(|e| bad(e.message()))? };
        let reply = self.raft.install_full_snapshot(vote, snapshot).await.map_err(internal)?;
        Ok(Response::new(v1::SnapshotReply { vote: Some(vote_to(&reply.vote)) }))
    }

    async fn transfer_leader(
        &self,
        request: Request<v1::TransferLeaderRequest>,
    ) -> Result<Response<v1::TransferLeaderReply>, Status> {
        let message = request.get_ref();
        let vote = vote_from(message.from_leader).map_err(bad)?;
        self.authorise(request.extensions(), &vote)?;
        self.heeds(&vote)?;
        // Sent only by a leader that closed its lease before.
        self.rules.abdicated(core_vote(&vote));
        let last_log = message.last_log.map(log_id_from);
        no_later(last_log.as_ref(), &vote).map_err(bad)?;
        let transfer = openraft::raft::TransferLeaderRequest::new(vote, message.to, last_log);
        let reply = self.raft.handle_transfer_leader(transfer).await.map_err(internal)?;
        let why = reply.as_ref().err().map(ToString::to_string).unwrap_or_default();
        Ok(Response::new(v1::TransferLeaderReply { accepted: reply.is_ok(), why }))
    }
}
