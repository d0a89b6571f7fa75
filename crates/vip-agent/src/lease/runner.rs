//! The lease thread: one loop, its own runtime, real-time priority where
//! allowed.
//!
//! It also accepts this node's connections, because their readiness is then
//! told to this thread: TLS handshakes and everything but leases go on
//! elsewhere.

use super::guard_link::{GuardNews, Orders, keep_connected};
use super::peers::LeasePeers;
use super::service::LeaseService;
use super::shared::{GuardStatus, LeaseShared};
use crate::access::{AccessLayer, Face};
use crate::door::Door;
use crate::essential;
use crate::forward::LinkEnd;
use crate::wall_clock::wall_clock_ms;
use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;
use vip_core::{
    Acknowledgement, Ask, GrantAnswer, GuardNotice, LeaseAction, LeaseEvent, NodeId, Report,
    ReportId, State, Term, Vote,
};
use vip_guard::{ToGuard, boottime, realtime};
use vip_pki::PeerStream;
use vip_proto::v1;
use vip_proto::v1::lease_client::LeaseClient;
use vip_proto::v1::lease_server::LeaseServer;
use vip_raft::RaftNode;

/// Replies and news that may wait for the loop.
const QUEUED: usize = 1024;
/// After a failed accept.
const PAUSE: Duration = Duration::from_millis(100);

/// What the thread starts with.
pub(crate) struct Start {
    pub(crate) shared: Arc<LeaseShared>,
    pub(crate) raft: RaftNode,
    pub(crate) peers: LeasePeers,
    pub(crate) guard_socket: PathBuf,
    /// The second lane to it.
    pub(crate) tables: LinkEnd,
    /// Whose epochs are held.
    pub(crate) cluster: String,
    /// Where this node is reached.
    pub(crate) listener: std::net::TcpListener,
    /// Accepted connections go there.
    pub(crate) door: Door,
    /// Those that turned out to carry leases come back here.
    pub(crate) lease_streams: mpsc::Receiver<PeerStream>,
    /// What others on this node tell it.
    pub(crate) events: mpsc::Receiver<LeaseEvent>,
    /// Fires when the certificates changed.
    pub(crate) redial: tokio::sync::watch::Receiver<()>,
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
            essential::run("lease", || runtime.block_on(run(start)));
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

async fn run(start: Start) {
    let Ok(listener) = TcpListener::from_std(start.listener) else {
        tracing::error!("the listening socket cannot be used");
        essential::gone("lease");
    };
    let stop = start.stop.clone();
    essential::spawn("accept", accept(listener, start.door, stop.clone()));
    let service = LeaseServer::new(LeaseService { shared: start.shared.clone() });
    let streams = ReceiverStream::new(start.lease_streams).map(Ok::<_, io::Error>);
    let serve = tonic::transport::Server::builder()
        .layer(AccessLayer::of(Face::Network(start.raft.clone())))
        .add_service(service)
        .serve_with_incoming_shutdown(streams, stop.clone().cancelled_owned());
    essential::spawn("serve leases", async move {
        if let Err(error) = serve.await {
            tracing::error!(%error, "leases are not served any more");
            essential::gone("serve leases");
        }
    });
    let (news, guard_news) = mpsc::channel(QUEUED);
    let link = keep_connected(start.guard_socket, start.cluster, news, start.tables);
    essential::spawn("guard link", link);

    let (replies, received) = mpsc::channel(QUEUED);
    let mut looping = Loop {
        shared: start.shared,
        raft: start.raft,
        peers: start.peers,
        orders: None,
        leads: None,
        replies,
    };
    looping.run(guard_news, (received, start.events), start.redial, stop).await;
}

async fn accept(listener: TcpListener, door: Door, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            connection = listener.accept() => match connection {
                Ok((stream, from)) => door.knock(stream, from),
                Err(error) => {
                    tracing::warn!(%error, "accepting a connection failed");
                    tokio::time::sleep(PAUSE).await;
                }
            },
        }
    }
}

struct Loop {
    shared: Arc<LeaseShared>,
    raft: RaftNode,
    peers: LeasePeers,
    orders: Option<Orders>,
    /// As logged last.
    leads: Option<Term>,
    /// What comes back from peers.
    replies: mpsc::Sender<LeaseEvent>,
}

impl Loop {
    async fn run(
        &mut self,
        mut guard_news: mpsc::Receiver<GuardNews>,
        (mut replies, mut events): (mpsc::Receiver<LeaseEvent>, mpsc::Receiver<LeaseEvent>),
        mut redial: tokio::sync::watch::Receiver<()>,
        stop: CancellationToken,
    ) {
        let mut applied = self.raft.for_leases.clone();
        let mut server = self.raft.changes();
        let mut changes = self.shared.changed.subscribe();
        let state = applied.borrow_and_update().clone();
        let event = self.applied(state);
        self.step(event);
        let view = self.raft_view();
        self.step(view);
        loop {
            self.shared.turn();
            let event = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                Some(news) = guard_news.recv() => self.guard_event(news),
                Some(reply) = replies.recv() => reply,
                Some(event) = events.recv() => event,
                Ok(()) = applied.changed() => {
                    let state = applied.borrow_and_update().clone();
                    self.applied(state)
                }
                () = server.changed() => self.raft_view(),
                Ok(()) = changes.changed() => LeaseEvent::Tick,
                Ok(()) = redial.changed() => {
                    self.peers.clear();
                    LeaseEvent::Tick
                }
                () = sleep_until(self.next_wake()) => {
                    self.shared.look_at_clock();
                    self.raft_view()
                }
            };
            self.step(event);
        }
    }

    fn next_wake(&self) -> Instant {
        let (now, next) = self.shared.read(|leases, now| (now, leases.next_tick()));
        Instant::now() + next.since(now)
    }

    fn applied(&mut self, state: Arc<State>) -> LeaseEvent {
        self.peers.keep(|node| state.nodes.contains_key(&node));
        LeaseEvent::Applied(state)
    }

    fn raft_view(&mut self) -> LeaseEvent {
        let view = self.raft.view();
        if self.leads != view.leads {
            match (self.leads, view.leads) {
                (_, Some(term)) => tracing::info!(%term, "this node leads"),
                (Some(term), None) => tracing::info!(%term, "this node does not lead any more"),
                (None, None) => {}
            }
            self.leads = view.leads;
        }
        LeaseEvent::Raft(view)
    }

    fn guard_event(&mut self, news: GuardNews) -> LeaseEvent {
        match news {
            GuardNews::Came(gate) => {
                self.shared.set_guard(GuardStatus::Present(gate));
                LeaseEvent::GuardCame
            }
            GuardNews::Up(incarnation, orders) => {
                self.orders = Some(orders);
                LeaseEvent::GuardUp(incarnation)
            }
            GuardNews::Down => {
                self.end_session();
                LeaseEvent::GuardDown
            }
            GuardNews::Alive => LeaseEvent::GuardAlive,
            GuardNews::Interfaces(macs) => LeaseEvent::Interfaces(macs),
            GuardNews::Hindered(hindered) => LeaseEvent::Hindered(hindered),
            GuardNews::Notices(notices) => {
                notices.iter().for_each(log);
                LeaseEvent::Notices(notices)
            }
        }
    }

    fn end_session(&mut self) {
        self.orders = None;
        self.shared.set_guard(GuardStatus::Absent);
    }

    fn step(&mut self, event: LeaseEvent) {
        let actions = self.shared.step(event);
        // What is renewed now rests on the clock; whatever event came first.
        if actions.iter().any(|a| matches!(a, LeaseAction::Renew { .. } | LeaseAction::Ping)) {
            self.shared.look_at_clock();
        }
        for action in actions {
            match action {
                LeaseAction::Renew { vote, promise, known } => self.renew(vote, promise, &known),
                LeaseAction::Ask(ask) => self.ask(*ask),
                LeaseAction::Report(vote, report) => self.report(vote, *report),
                LeaseAction::Abdicate(vote) => self.abdicate(vote),
                LeaseAction::Order(orders) => self.tell_guard(ToGuard::Orders(orders)),
                LeaseAction::Consider(all) => self.tell_guard(ToGuard::Consider(all)),
                LeaseAction::Ping => self.tell_guard(ToGuard::Ping),
                LeaseAction::Confirm => self.tell_guard(ToGuard::Confirmed),
                LeaseAction::EndSession => {
                    tracing::error!("the guard does not answer; its VIPs go to others");
                    self.end_session();
                }
                LeaseAction::Elect { pre_vote } => self.elect(pre_vote),
            }
        }
    }

    fn tell_guard(&mut self, message: ToGuard) {
        let Some(orders) = &self.orders else { return };
        if !orders.send(message) {
            // So far behind that its view is worthless. Dropping the sender
            // ends the session, and with it everything held.
            tracing::error!("the guard does not keep up; starting over with it");
            self.end_session();
        }
    }

    /// The other members, with their addresses, as Raft knows them.
    fn members(&self) -> Vec<(NodeId, String)> {
        let mut others = self.raft.members();
        others.retain(|(node, _)| *node != self.raft.id());
        others
    }

    fn renew(&mut self, vote: Vote, promise: Duration, known: &BTreeMap<NodeId, ReportId>) {
        let promise_us = u64::try_from(promise.as_micros()).unwrap_or(u64::MAX);
        for (node, address) in self.members() {
            let known = known.get(&node).copied().unwrap_or_default();
            let message = v1::RenewRequest {
                vote: Some(vote.into()),
                promise_us,
                wall_ms: wall_clock_ms(),
                known_run: known.run,
                known_seq: known.seq,
            };
            let mut client = self.peers.client(node, &address);
            let (replies, shared) = (self.replies.clone(), self.shared.clone());
            let mut request = tonic::Request::new(message);
            request.set_timeout(promise);
            tokio::spawn(async move {
                let sent_at = boottime();
                let Ok(reply) = client.renew(request).await else { return };
                let reply = reply.into_inner();
                shared.wall_clocks().heard(node, reply.wall_ms);
                if !reply.promised {
                    return;
                }
                let report = ReportId { run: reply.report_run, seq: reply.report_seq };
                let ack = Acknowledgement { from: node, vote, sent_at, report };
                let _ = replies.send(LeaseEvent::Acknowledged(ack)).await;
            });
        }
    }

    fn abdicate(&mut self, vote: Vote) {
        let timeout = self.shared.read(|leases, _| leases.timing().promise);
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

    fn client(&mut self, node: NodeId) -> Option<LeaseClient<Channel>> {
        let (_, address) = self.members().into_iter().find(|(id, _)| *id == node)?;
        Some(self.peers.client(node, &address))
    }

    fn report(&mut self, vote: Vote, report: Report) {
        let client = self.client(vote.node);
        let timeout = self.shared.read(|leases, _| leases.timing().promise);
        let (id, replies) = (report.id, self.replies.clone());
        let mut request = tonic::Request::new(v1::ReportRequest { report: Some(report.into()) });
        request.set_timeout(timeout);
        tokio::spawn(async move {
            let reported = match client {
                Some(mut client) => client.report(request).await.map(|_| ()),
                None => Err(tonic::Status::unavailable("its address is not known here yet")),
            };
            // Whether it is known there the leader says when it renews.
            if let Err(status) = reported {
                tracing::debug!(why = status.message(), "a report did not get to the leader");
                let _ = replies.send(LeaseEvent::Unreported(id)).await;
            }
        });
    }

    fn ask(&mut self, ask: Ask) {
        let Ask { leader, session, wanted } = ask;
        let asked = wanted.asked();
        let client = self.client(leader);
        let wait = asked.wait();
        let timeout = self.shared.read(|leases, _| leases.timing().promise) + wait;
        let wait_us = u64::try_from(wait.as_micros()).unwrap_or(0);
        let mut request =
            tonic::Request::new(v1::GrantRequest { wait_us, ..v1::GrantRequest::from(wanted) });
        request.set_timeout(timeout);
        let replies = self.replies.clone();
        tokio::spawn(async move {
            let sent_at = boottime();
            let answer = match client {
                Some(mut client) => client.grant(request).await.ok(),
                None => None,
            };
            let answer = answer.map(|reply| GrantAnswer::from(reply.into_inner()));
            let answered = LeaseEvent::Answered { session, sent_at, asked, answer };
            let _ = replies.send(answered).await;
        });
    }

    fn elect(&self, pre_vote: bool) {
        if self.shared.is_removed() {
            return;
        }
        tracing::info!(pre_vote, "no leader is heard; asking for votes");
        let raft = self.raft.clone();
        tokio::spawn(async move { raft.elect(pre_vote).await });
    }
}

fn log(notice: &GuardNotice) {
    tracing::debug!(?notice, "guard");
    if let GuardNotice::Refused { vip, epoch, why } = notice
        // Only late: the log moved on, and this node will hear so.
        && !matches!(why, vip_core::GuardRefusal::Ended(_))
    {
        tracing::error!(%vip, %epoch, %why, "the guard did not claim a VIP");
    }
}
