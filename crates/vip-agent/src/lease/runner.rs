//! The lease thread: one loop, its own runtime, real-time priority where
//! allowed.
//!
//! It also accepts this node's connections, because their readiness is then
//! told to this thread: TLS handshakes and everything but leases go on
//! elsewhere.

use super::guard_link::{GuardNews, keep_connected};
use super::holder::{Holder, Wants};
use super::peers::LeasePeers;
use super::service::LeaseService;
use super::shared::LeaseShared;
use openraft::async_runtime::WatchReceiver;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use vip_core::{Grantee, Incarnation, Mono, NodeId, VipUid, Vote};
use vip_guard::boottime;
use vip_pki::PeerStream;
use vip_proto::v1;
use vip_proto::v1::lease_server::LeaseServer;
use vip_raft::RaftNode;

/// Priority among real-time threads: above default ones, below the kernel's.
const REALTIME_PRIORITY: i32 = 10;
/// Replies and news that may wait for the loop.
const QUEUED: usize = 1024;
/// How long a request for a first grant is kept waiting by the leader.
const FIRST_GRANT_WAIT: Duration = Duration::from_millis(80);
/// A loop that has nothing to do looks up again after this long.
const IDLE: Duration = Duration::from_millis(100);

/// What the thread starts with.
pub(crate) struct Start {
    pub(crate) shared: Arc<LeaseShared>,
    pub(crate) raft: RaftNode,
    pub(crate) peers: LeasePeers,
    pub(crate) guard_socket: PathBuf,
    pub(crate) interfaces: BTreeMap<String, String>,
    /// Where this node is reached.
    pub(crate) listener: std::net::TcpListener,
    /// Accepted connections go there for their handshake.
    pub(crate) accepted: mpsc::Sender<(TcpStream, SocketAddr)>,
    /// Those that turned out to carry leases come back here.
    pub(crate) lease_streams: mpsc::Receiver<PeerStream>,
    /// This node led in its saved vote, and may say that this is over.
    pub(crate) abdicate: Option<Vote>,
    /// Fires when the certificates changed.
    pub(crate) redial: tokio::sync::watch::Receiver<u64>,
    pub(crate) stop: CancellationToken,
}

/// The running thread.
pub(crate) struct LeaseThread(Option<std::thread::JoinHandle<()>>);

impl LeaseThread {
    /// Starts it.
    ///
    /// # Errors
    /// No thread or no runtime.
    pub(crate) fn start(start: Start) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let run = move || {
            let priority = realtime();
            tracing::debug!(realtime = priority, "lease thread runs");
            runtime.block_on(run(start));
        };
        Ok(Self(Some(std::thread::Builder::new().name("lease".into()).spawn(run)?)))
    }

    /// Waits for its end, after its stop token was cancelled.
    pub(crate) async fn join(mut self) {
        if let Some(thread) = self.0.take() {
            let _ = tokio::task::spawn_blocking(move || thread.join()).await;
        }
    }
}

/// Asks for `SCHED_RR`; runs at default priority where that is not allowed.
fn realtime() -> bool {
    use thread_priority::unix::{
        RealtimeThreadSchedulePolicy, ThreadSchedulePolicy, set_thread_priority_and_policy,
        thread_native_id,
    };
    use thread_priority::{ThreadPriority, ThreadPriorityValue};
    let policy = ThreadSchedulePolicy::Realtime(RealtimeThreadSchedulePolicy::RoundRobin);
    let value =
        u8::try_from(REALTIME_PRIORITY).ok().and_then(|p| ThreadPriorityValue::try_from(p).ok());
    value.is_some_and(|value| {
        let priority = ThreadPriority::Crossplatform(value);
        set_thread_priority_and_policy(thread_native_id(), priority, policy).is_ok()
    })
}

async fn run(start: Start) {
    let Ok(listener) = TcpListener::from_std(start.listener) else {
        tracing::error!("the listening socket cannot be used");
        return;
    };
    let stop = start.stop.clone();
    tokio::spawn(accept(listener, start.accepted, stop.clone()));
    let service = LeaseServer::new(LeaseService { shared: start.shared.clone() });
    let streams = ReceiverStream::new(start.lease_streams).map(Ok::<_, io::Error>);
    let serve = tonic::transport::Server::builder()
        .add_service(service)
        .serve_with_incoming_shutdown(streams, stop.clone().cancelled_owned());
    tokio::spawn(serve);
    let (news, guard_news) = mpsc::channel(QUEUED);
    tokio::spawn(keep_connected(start.guard_socket, news));

    let (replies, received) = mpsc::channel(QUEUED);
    let mut looping = Loop {
        holder: Holder::new(start.shared.clone(), start.interfaces),
        shared: start.shared,
        raft: start.raft,
        peers: start.peers,
        replies,
        heartbeat_at: Mono::ZERO,
        first_grant_pending: false,
        abdicate: start.abdicate,
        wake_at: None,
    };
    looping.run(guard_news, received, start.redial, stop).await;
}

async fn accept(
    listener: TcpListener,
    accepted: mpsc::Sender<(TcpStream, SocketAddr)>,
    stop: CancellationToken,
) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            connection = listener.accept() => match connection {
                // Beyond the queue's depth a connection is dropped; peers retry.
                Ok(connection) => {
                    let _ = accepted.try_send(connection);
                }
                Err(error) => {
                    tracing::warn!(%error, "accepting a connection failed");
                    tokio::time::sleep(IDLE).await;
                }
            },
        }
    }
}

/// What came back from a peer.
enum Reply {
    Ack {
        node: NodeId,
        term: u64,
        sent_at: Mono,
        reply: v1::RenewReply,
    },
    Grant {
        session: Option<Incarnation>,
        sent_at: Mono,
        reply: Option<v1::GrantReply>,
        first: bool,
    },
}

struct Loop {
    shared: Arc<LeaseShared>,
    raft: RaftNode,
    peers: LeasePeers,
    holder: Holder,
    replies: mpsc::Sender<Reply>,
    heartbeat_at: Mono,
    /// A request for first grants is under way.
    first_grant_pending: bool,
    abdicate: Option<Vote>,
    wake_at: Option<Mono>,
}

impl Loop {
    async fn run(
        &mut self,
        mut guard_news: mpsc::Receiver<GuardNews>,
        mut replies: mpsc::Receiver<Reply>,
        mut redial: tokio::sync::watch::Receiver<u64>,
        stop: CancellationToken,
    ) {
        let mut applied = self.raft.applied.clone();
        let mut server = self.raft.raft.server_metrics();
        let mut changes = self.shared.changes();
        self.take_state();
        self.observe();
        loop {
            let wants = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                Some(news) = guard_news.recv() => self.guard_news(news),
                Some(reply) = replies.recv() => self.reply(reply),
                Ok(()) = applied.changed() => {
                    applied.borrow_and_update();
                    self.take_state();
                    self.holder.sync()
                }
                Ok(()) = server.changed() => {
                    self.observe();
                    Wants::default()
                }
                Ok(()) = changes.changed() => Wants::default(),
                Ok(()) = redial.changed() => {
                    self.peers.clear();
                    Wants::default()
                }
                () = sleep_until(self.next_wake()) => Wants::default(),
            };
            self.pump(wants);
        }
    }

    fn observe(&mut self) {
        if self.shared.observe(&self.raft.raft) {
            self.heartbeat_at = Mono::ZERO;
        }
    }

    fn next_wake(&self) -> Instant {
        let now = boottime();
        let due = [Some(self.heartbeat_at), self.campaign_due(), self.wake_at];
        let next = due.into_iter().flatten().min().unwrap_or(now + IDLE);
        Instant::now() + next.since(now)
    }

    fn take_state(&mut self) {
        let applied = self.raft.applied.borrow().clone();
        let members: BTreeSet<NodeId> = applied.state.nodes.keys().copied().collect();
        self.peers.keep(|node| members.contains(&node));
        self.shared.lock().state = applied.state;
        self.shared.touch();
    }

    fn guard_news(&mut self, news: GuardNews) -> Wants {
        let wants = self.holder.guard_news(news);
        // Only now, with every gate of this host shut, is the old leadership
        // certainly over.
        if self.holder.has_guard()
            && let Some(vote) = self.abdicate.take()
        {
            self.announce_abdication(vote);
        }
        wants
    }

    fn announce_abdication(&mut self, vote: Vote) {
        let now = boottime();
        {
            let mut inner = self.shared.lock();
            let me = inner.me;
            inner.promise.own_term_abdicated(me, vote.term);
            inner.leader_gone(now, vote);
        }
        let timeout = self.shared.lock().timing.promise;
        for (node, address) in self.members() {
            let mut client = self.peers.client(node, &address);
            tokio::spawn(async move {
                let mut request =
                    tonic::Request::new(v1::AbdicateRequest { vote: Some(vote.into()) });
                request.set_timeout(timeout);
                let _ = client.abdicate(request).await;
            });
        }
    }

    /// The other members, with their addresses, as Raft knows them.
    fn members(&self) -> Vec<(NodeId, String)> {
        let metrics = self.raft.raft.metrics();
        let metrics = metrics.borrow_watched();
        let nodes = metrics.membership_config.membership().nodes();
        let me = self.raft.id();
        let others = nodes.filter(|(id, _)| **id != me.0);
        others.map(|(id, member)| (NodeId(*id), member.address.clone())).collect()
    }

    /// Does what is due: heartbeats, grants, an election.
    fn pump(&mut self, mut wants: Wants) {
        let now = boottime();
        self.wake_at = None;
        if now >= self.heartbeat_at {
            let heartbeat = self.shared.lock().timing.heartbeat;
            // From now, not from when it was due: a stall is not made up for.
            self.heartbeat_at = now + heartbeat;
            self.shared.observe(&self.raft.raft);
            self.send_heartbeats(now);
            let pinged = self.holder.ping(now);
            let synced = self.holder.sync();
            wants.ask = true;
            wants.report |= synced.report || pinged.report;
            wants.report |= !self.shared.lock().claims.releases().is_empty();
        }
        if self.shared.lock().leading.is_some() {
            let (free_at, _) = self.holder.hold_as_leader();
            self.wake_at = free_at;
        } else {
            self.ask_leader(now, wants);
        }
        if self.campaign_due().is_some_and(|due| now >= due) {
            self.campaign(now);
        }
    }

    fn send_heartbeats(&mut self, now: Mono) {
        let request = {
            let mut inner = self.shared.lock();
            let well = inner.disk_is_well();
            let (promise, me) = (inner.timing.promise, inner.me);
            let Some(leading) = &mut inner.leading else { return };
            // A node whose disk stalls lets its lease lapse.
            if !well || !leading.lease.may_renew(now) {
                return;
            }
            let vote = Vote { term: leading.lease.term(), node: me, committed: true };
            let promise_us = u64::try_from(promise.as_micros()).unwrap_or(u64::MAX);
            (v1::RenewRequest { vote: Some(vote.into()), promise_us }, promise, vote.term.0)
        };
        let (message, timeout, term) = request;
        for (node, address) in self.members() {
            let mut client = self.peers.client(node, &address);
            let replies = self.replies.clone();
            let mut request = tonic::Request::new(message);
            request.set_timeout(timeout);
            tokio::spawn(async move {
                let sent_at = boottime();
                if let Ok(reply) = client.renew(request).await {
                    let reply = reply.into_inner();
                    let _ = replies.send(Reply::Ack { node, term, sent_at, reply }).await;
                }
            });
        }
    }

    fn reply(&mut self, reply: Reply) -> Wants {
        match reply {
            Reply::Ack { node, term, sent_at, reply } => {
                self.acknowledged(node, term, sent_at, reply);
                Wants::default()
            }
            Reply::Grant { session, sent_at, reply, first } => {
                if first {
                    self.first_grant_pending = false;
                }
                let Some(reply) = reply else { return Wants::default() };
                self.granted(session, sent_at, reply)
            }
        }
    }

    fn acknowledged(&mut self, node: NodeId, term: u64, sent_at: Mono, reply: v1::RenewReply) {
        let mut inner = self.shared.lock();
        let Some(leading) = inner.leading.as_mut().filter(|l| l.lease.term().0 == term) else {
            return;
        };
        if !reply.promised {
            return;
        }
        leading.lease.acknowledged(node, sent_at);
        let view = super::shared::PeerView {
            last_ack: sent_at,
            able: reply.able,
            stopping: reply.stopping,
            unable: reply.unable_vips.into_iter().map(VipUid).collect(),
            open: reply.open.into_iter().map(Into::into).collect(),
        };
        // After a partition its neighbours may know another holder's address.
        let back =
            inner.views.get(&node).is_some_and(|old| sent_at > old.last_ack + inner.timing.promise);
        let same = |old: &super::shared::PeerView| {
            (old.able, old.stopping, &old.unable, &old.open)
                == (view.able, view.stopping, &view.unable, &view.open)
        };
        let news = !inner.views.get(&node).is_some_and(same);
        inner.views.insert(node, view);
        drop(inner);
        if back {
            tracing::info!(%node, "heard again");
            self.holder.confirm();
        }
        if news {
            self.shared.touch();
        }
    }

    fn granted(
        &mut self,
        session: Option<Incarnation>,
        sent_at: Mono,
        reply: v1::GrantReply,
    ) -> Wants {
        let deadline = {
            let inner = self.shared.lock();
            // A leader holds by its lease alone; an older grant would outlive it.
            if inner.leading.is_some() {
                return Wants::default();
            }
            sent_at + inner.timing.grant
        };
        let granted = reply.granted.into_iter().map(Into::into).collect();
        let denied = reply.denied.into_iter().filter_map(|d| d.try_into().ok()).collect();
        self.holder.answered(session, granted, denied, deadline)
    }

    /// As holder under another leader: renews, asks for what is new, reports.
    fn ask_leader(&mut self, now: Mono, wants: Wants) {
        if !wants.ask && !wants.report {
            return;
        }
        let (leader, session, renewals, waiting, releases) = {
            let inner = self.shared.lock();
            let claims = &inner.claims;
            let leader = inner.leader(now).filter(|l| *l != inner.me);
            let (renewals, waiting) = (claims.renewals(), claims.waiting());
            (leader, claims.session(), renewals, waiting, claims.releases())
        };
        let Some(leader) = leader else { return };
        if !renewals.is_empty() || !releases.is_empty() {
            self.send_request(leader, session, renewals, releases, false);
        }
        if !waiting.is_empty() && !self.first_grant_pending {
            self.first_grant_pending = true;
            self.send_request(leader, session, waiting, vec![], true);
        }
    }

    fn send_request(
        &mut self,
        leader: NodeId,
        session: Option<Incarnation>,
        wanted: Vec<Grantee>,
        released: Vec<Grantee>,
        first: bool,
    ) {
        let address = self.members().into_iter().find(|(id, _)| *id == leader).map(|(_, a)| a);
        let replies = self.replies.clone();
        let Some(address) = address else {
            self.first_grant_pending &= !first;
            return;
        };
        let timeout = self.shared.lock().timing.promise;
        let wait = if first { FIRST_GRANT_WAIT } else { Duration::ZERO };
        let mut client = self.peers.client(leader, &address);
        let mut request = tonic::Request::new(v1::GrantRequest {
            wanted: wanted.into_iter().map(Into::into).collect(),
            released: released.into_iter().map(Into::into).collect(),
            wait_us: u64::try_from(wait.as_micros()).unwrap_or(0),
        });
        request.set_timeout(timeout + wait);
        tokio::spawn(async move {
            let sent_at = boottime();
            let reply = client.grant(request).await.ok().map(tonic::Response::into_inner);
            let _ = replies.send(Reply::Grant { session, sent_at, reply, first }).await;
        });
    }

    fn voters(&self) -> BTreeSet<NodeId> {
        vip_raft::voters(&self.raft.raft).all()
    }

    fn campaign_due(&self) -> Option<Mono> {
        let voters = self.voters();
        let inner = self.shared.lock();
        if inner.leading.is_some() || inner.stopping || !inner.disk_is_well() {
            return None;
        }
        let rank = inner.rank(&voters)?;
        Some(inner.detector.due(inner.promise.until(), rank, &inner.timing))
    }

    fn campaign(&mut self, now: Mono) {
        let voters = self.voters();
        let pre_vote = {
            let mut inner = self.shared.lock();
            let Some(rank) = inner.rank(&voters) else { return };
            let timing = inner.timing;
            inner.detector.campaigned(now, rank, &timing);
            // openraft would not pre-vote inside its own lease, which knows of
            // no abdication.
            !inner.take_abdicated()
        };
        tracing::info!(pre_vote, "no leader is heard; asking for votes");
        let raft = self.raft.raft.clone();
        tokio::spawn(async move { raft.trigger().elect(pre_vote).await });
    }
}
