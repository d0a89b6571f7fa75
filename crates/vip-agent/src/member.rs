//! A node that is a member of a cluster: everything that runs for it.

mod housekeeping;
mod late_rules;
mod longest_promise;
mod meta;

pub(crate) use meta::Meta;

use crate::activation::Joins;
use crate::admin::access::{AccessLayer, Face};
use crate::admin::service::AdminService;
use crate::cluster_service::ClusterService;
use crate::essential;
use crate::leader::lead;
use crate::lease::{LeasePeers, LeaseShared, LeaseThread, Start};
use crate::serve::Agent;
use crate::upkeep::keep_up;
use arc_swap::ArcSwap;
use meta::DATA_VERSION;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;
use tonic::transport::server::Connected;
use vip_core::{Actor, Command, LeasesStart, Name, NodeId, Op, Outcome, Term, chain};
use vip_pki::{
    Connections, Connector, Identity, Issuer, NodeIdentity, PeerInfo, PeerStream, PkiDir, Roster,
    SharedRoster, accept, client_config, node_server_name, server_config,
};
use vip_proto::v1::admin_server::AdminServer;
use vip_proto::v1::cluster_server::ClusterServer;
use vip_proto::{ALPN_GRPC, ALPN_LEASE};
use vip_raft::{Dial, LogStore, PeerChannels, RaftNode, RaftService, WriteError};

/// Handshakes under way at a time; more wait, and time out if they are many.
const HANDSHAKES: usize = 64;
/// Connections between handshake and server.
const CONNECTIONS_QUEUED: usize = 64;
/// How long TCP and TLS may take between members.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);
/// How long a command to the log may take.
pub(crate) const COMMIT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a stopping node waits for its disk.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
/// How long a removed node's open connections outlive it: a node that leaves
/// hears that it is out.
const LAST_WORD: Duration = Duration::from_millis(50);
/// Why a member does not start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MemberError {
    #[error("{path}")]
    File {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{path} is damaged: {why}")]
    Meta { path: PathBuf, why: String },
    #[error(
        "the data in {path} was written by a newer vipd (layout {found}, this one knows up to \
         {DATA_VERSION}); install that version again"
    )]
    Newer { path: PathBuf, found: u32 },
    /// A copy of another node's data, or a node that moved.
    #[error(
        "the data here is that of node {name}, which its peers reach at {theirs}, and this host \
         is {ours}; nothing was started. Of two nodes with one identity each could lead. If this \
         is a copy, empty the data directory and join; if the host has a new address, start it \
         once with node.advertise={theirs}, `vipctl leave --force`, and join again"
    )]
    Elsewhere { name: Name, theirs: String, ours: String },
    #[error("{0}")]
    Timing(#[from] vip_core::TimingError),
    #[error(transparent)]
    Identity(#[from] vip_pki::IdentityError),
    #[error(transparent)]
    Store(#[from] vip_raft::StoreError),
    #[error("TLS")]
    Tls(#[source] vip_pki::TlsError),
    #[error("the lease thread cannot start")]
    Thread(#[source] io::Error),
}

/// See the module.
pub(crate) struct Member {
    pub(crate) meta: Meta,
    pub(crate) raft: RaftNode,
    pub(crate) shared: Arc<LeaseShared>,
    pub(crate) peers: PeerChannels,
    pub(crate) roster: SharedRoster,
    pub(crate) pki: PkiDir,
    /// Membership changes one after the other.
    pub(crate) membership: tokio::sync::Mutex<()>,
    pub(crate) joins: Joins,
    issuer: Mutex<Option<Arc<Issuer>>>,
    configs: Arc<ArcSwap<Configs>>,
    redial: watch::Sender<u64>,
    stop: CancellationToken,
    lease: Mutex<Option<LeaseThread>>,
}

/// TLS with the certificate of now.
struct Configs {
    server: Arc<vip_pki::ServerConfig>,
    grpc: Arc<vip_pki::ClientConfig>,
    lease: Arc<vip_pki::ClientConfig>,
}

impl Configs {
    fn of(identity: &NodeIdentity, roster: &SharedRoster) -> Result<Self, MemberError> {
        let tls = MemberError::Tls;
        let both: [&[u8]; 2] = [ALPN_GRPC, ALPN_LEASE];
        Ok(Self {
            server: server_config(identity, roster.clone(), &both).map_err(tls)?,
            grpc: client_config(identity, roster.clone(), ALPN_GRPC).map_err(tls)?,
            lease: client_config(identity, roster.clone(), ALPN_LEASE).map_err(tls)?,
        })
    }
}

fn dialer(
    configs: &Arc<ArcSwap<Configs>>,
    cluster: &str,
    unacknowledged: Duration,
    pick: fn(&Configs) -> Arc<vip_pki::ClientConfig>,
) -> Dial {
    let (configs, cluster) = (configs.clone(), cluster.to_owned());
    Arc::new(move |node, address| {
        let connector = Connector {
            address: address.to_owned(),
            server_name: node_server_name(node, &cluster),
            config: pick(&configs.load()),
            timeout: CONNECT_TIMEOUT,
            unacknowledged,
        };
        connector.channel()
    })
}

impl Member {
    /// Starts everything on the data in the agent's data directory.
    pub(crate) async fn start(
        agent: &Arc<Agent>,
        meta: Meta,
        listener: std::net::TcpListener,
    ) -> Result<Arc<Self>, MemberError> {
        meta.check_address(&agent.config)?;
        let dir = agent.config.node.data_dir.clone();
        let timing = meta.profile.timing();
        timing.check()?;
        let pki = PkiDir::new(&dir);
        let identity = pki.load_identity()?;
        let issuer = pki.load_issuer()?.map(Arc::new);
        let joined = Roster::of_join(
            meta.cluster.clone(),
            meta.issuer.clone(),
            meta.members.iter().map(|(id, spki)| (*id, spki.clone())),
        );
        let roster: SharedRoster = Arc::new(ArcSwap::from_pointee(joined));
        let configs = Arc::new(ArcSwap::from_pointee(Configs::of(&identity, &roster)?));

        // The rules exist before the store, which tells them of votes; the
        // store knows the saved vote, which the rules start from.
        let rules = Arc::new(late_rules::LateRules::default());
        let raft_dir = dir.join("raft");
        let store = LogStore::open(&raft_dir, rules.clone())?;
        let saved = store.saved_vote().map_err(|e| vip_raft::StoreError::Damaged {
            path: raft_dir.clone(),
            what: e.to_string(),
        })?;
        // On the very first start nothing was ever promised.
        let mut longest = longest_promise::store(&dir, timing.promise)?;
        if saved.term > vip_core::Term(0) {
            longest = longest.max(timing.promise);
        }
        let interfaces = agent.config.node.interfaces.clone();
        let run = fastrand::u64(..);
        let start = LeasesStart { me: meta.node, timing, run, saved, longest, interfaces };
        let shared = LeaseShared::new(start, store.disk());
        rules.set(shared.clone());

        let grpc = dialer(&configs, &meta.cluster, timing.promise * 5, |c| c.grpc.clone());
        let lease = dialer(&configs, &meta.cluster, timing.promise * 2, |c| c.lease.clone());
        let peers = PeerChannels::new(grpc);
        let raft =
            vip_raft::open(&raft_dir, meta.node, store, &timing, peers.clone(), shared.clone());
        let raft = raft.await?;

        let member = Arc::new(Self {
            meta,
            raft,
            shared,
            peers,
            roster,
            pki,
            membership: tokio::sync::Mutex::new(()),
            joins: Joins::default(),
            issuer: Mutex::new(issuer),
            configs,
            redial: watch::Sender::new(0),
            stop: CancellationToken::new(),
            lease: Mutex::new(None),
        });
        member.spawn(agent, listener, LeasePeers::new(lease))?;
        Ok(member)
    }

    fn spawn(
        self: &Arc<Self>,
        agent: &Arc<Agent>,
        listener: std::net::TcpListener,
        lease_peers: LeasePeers,
    ) -> Result<(), MemberError> {
        let (accepted, waiting) = mpsc::channel(CONNECTIONS_QUEUED);
        let (to_lease, lease_streams) = mpsc::channel(CONNECTIONS_QUEUED);
        let (to_grpc, grpc_streams) = mpsc::channel(CONNECTIONS_QUEUED);
        let connections = Connections::default();
        essential::spawn(
            "handshakes",
            handshakes(self.clone(), connections.clone(), waiting, to_lease, to_grpc),
        );
        essential::spawn("serve_grpc", serve_grpc(agent.clone(), self.clone(), grpc_streams));
        essential::spawn("follow_roster", follow_roster(self.clone(), connections));
        essential::spawn("lead", lead(self.clone()));
        essential::spawn("keep_up", keep_up(self.clone()));
        essential::spawn("housekeeping", housekeeping::run(self.clone()));
        let start = Start {
            shared: self.shared.clone(),
            raft: self.raft.clone(),
            peers: lease_peers,
            guard_socket: agent.config.guard.socket.clone(),
            cluster: self.meta.cluster.clone(),
            listener,
            accepted,
            lease_streams,
            redial: self.redial.subscribe(),
            stop: self.stop.clone(),
        };
        let thread = LeaseThread::start(start).map_err(MemberError::Thread)?;
        *self.lease.lock().unwrap_or_else(PoisonError::into_inner) = Some(thread);
        Ok(())
    }

    /// Stops everything. The guard lets go when the lease thread's connection
    /// to it ends.
    pub(crate) async fn shut_down(&self) {
        self.stop.cancel();
        let thread = self.lease.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            thread.join().await;
        }
        let _ = self.raft.raft.shutdown().await;
        let closed = tokio::time::timeout(CLOSE_TIMEOUT, self.raft.store.close()).await;
        if !matches!(closed, Ok(Ok(()))) {
            tracing::warn!("the log store was not closed in order");
        }
    }

    pub(crate) fn stopped(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Proposes what this node decided as leader of `term`; void in any other.
    pub(crate) async fn propose(&self, term: Term, op: Op) -> Result<Outcome, WriteError> {
        let actor = Actor::leader(&self.meta.name);
        let command = Command { time_ms: wall_clock_ms(), actor, term: Some(term), op };
        self.raft.write(command, COMMIT_TIMEOUT).await
    }

    /// Proposes somebody's command.
    pub(crate) async fn propose_as(
        &self,
        actor: Actor,
        op: Op,
        limit: Duration,
    ) -> Result<Outcome, WriteError> {
        let command = Command { time_ms: wall_clock_ms(), actor, term: None, op };
        self.raft.write(command, limit).await
    }

    /// A channel to a member.
    pub(crate) fn channel(&self, node: NodeId) -> Option<Channel> {
        let state = self.raft.state();
        let address = state.nodes.get(&node)?.advertise.clone();
        Some(self.peers.get(node, &address))
    }

    /// The issuing CA, on a voter that has fetched it.
    pub(crate) fn issuer(&self) -> Option<Arc<Issuer>> {
        self.issuer.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Uses a new certificate from now on, also for connections to come.
    fn use_identity(&self, identity: &NodeIdentity) -> Result<(), MemberError> {
        self.pki.store_identity(identity)?;
        self.configs.store(Arc::new(Configs::of(identity, &self.roster)?));
        self.peers.clear();
        self.redial.send_modify(|n| *n += 1);
        Ok(())
    }
}

/// Wall clock, ms since 1970: for people, tokens and certificates only.
pub(crate) fn wall_clock_ms() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map(|d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX)).unwrap_or(0)
}

async fn handshakes(
    member: Arc<Member>,
    connections: Connections,
    mut waiting: mpsc::Receiver<(TcpStream, SocketAddr)>,
    to_lease: mpsc::Sender<PeerStream>,
    to_grpc: mpsc::Sender<PeerStream>,
) {
    let slots = Arc::new(Semaphore::new(HANDSHAKES));
    while let Some((stream, address)) = waiting.recv().await {
        let Ok(slot) = slots.clone().acquire_owned().await else { return };
        let (member, connections) = (member.clone(), connections.clone());
        let (to_lease, to_grpc) = (to_lease.clone(), to_grpc.clone());
        tokio::spawn(async move {
            let config = member.configs.load().server.clone();
            match accept(stream, address, config, &member.roster, &connections).await {
                Ok(stream) => {
                    // Nobody else gets near the lease thread.
                    let lease = stream.alpn() == Some(ALPN_LEASE);
                    if lease && !matches!(stream.connect_info().identity, Identity::Node(_)) {
                        return;
                    }
                    let to = if lease { to_lease } else { to_grpc };
                    let _ = to.send(stream).await;
                }
                Err(error) => tracing::debug!(%address, %error, "TLS handshake failed"),
            }
            drop(slot);
        });
    }
}

async fn serve_grpc(agent: Arc<Agent>, member: Arc<Member>, streams: mpsc::Receiver<PeerStream>) {
    let peer_of = Arc::new(|extensions: &tonic::Extensions| {
        extensions.get::<PeerInfo>().and_then(PeerInfo::speaker)
    });
    let raft = RaftService::new(member.raft.raft.clone(), member.shared.clone(), peer_of);
    let cluster = ClusterServer::new(ClusterService::new(member.clone()));
    let admin = AdminServer::new(AdminService::new(agent));
    let streams = ReceiverStream::new(streams).map(Ok::<_, io::Error>);
    let (health, reflection) = crate::admin::health_and_reflection().await;
    let served = tonic::transport::Server::builder()
        .layer(AccessLayer(Face::Network))
        .add_service(raft)
        .add_service(cluster)
        .add_service(admin)
        .add_service(health)
        .add_service(reflection)
        .serve_with_incoming_shutdown(streams, member.stopped().cancelled_owned());
    if let Err(e) = served.await {
        tracing::error!(error = %chain(&e), "the gRPC server ended");
        essential::gone("serve_grpc");
    }
}

/// Keeps the roster of the TLS handshakes at what the log says, and cuts off
/// who was removed.
async fn follow_roster(member: Arc<Member>, connections: Connections) {
    let mut applied = member.raft.applied.clone();
    let stop = member.stopped();
    loop {
        {
            let now = applied.borrow_and_update().clone();
            // Before the log is here, what the join answered stands.
            if now.state.cluster.is_some() {
                let before = member.roster.load().removed().len();
                member.roster.store(Arc::new(Roster::of(&now.state, now.index)));
                let removed = member.roster.load().removed().to_vec();
                if removed.len() != before {
                    // New connections are refused from now on; those that are
                    // open get to answer the removal itself.
                    let (connections, member) = (connections.clone(), member.clone());
                    tokio::spawn(async move {
                        tokio::time::sleep(LAST_WORD).await;
                        for node in removed {
                            connections.cut(node);
                            member.peers.forget(node);
                        }
                    });
                }
            }
        }
        tokio::select! {
            () = stop.cancelled() => return,
            changed = applied.changed() => if changed.is_err() { return },
        }
    }
}
