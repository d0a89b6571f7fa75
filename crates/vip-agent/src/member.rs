//! A node that is a member of a cluster: everything that runs for it.

use crate::admin::access::{AccessLayer, Face};
use crate::admin::service::AdminService;
use crate::cluster_service::ClusterService;
use crate::config::Config;
use crate::leader::lead;
use crate::lease::{LeasePeers, LeaseShared, LeaseThread, Start};
use crate::serve::Agent;
use arc_swap::ArcSwap;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;
use tonic::transport::server::Connected;
use vip_core::{Actor, Command, LeasesStart, Name, NodeId, NodeState, Op, Outcome, Profile, chain};
use vip_pki::{
    Connections, Connector, Identity, Issuer, NodeIdentity, PeerInfo, PeerStream, PkiDir, Roster,
    SharedRoster, accept, client_config, node_server_name, server_config,
};
use vip_proto::v1::admin_server::AdminServer;
use vip_proto::v1::cluster_client::ClusterClient;
use vip_proto::v1::cluster_server::ClusterServer;
use vip_proto::{ALPN_GRPC, ALPN_LEASE, v1};
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
/// How often a certificate's age and the issuing key are looked after.
const HOUSEKEEPING: Duration = Duration::from_secs(60);
/// Sooner, until a voter has the issuing key.
const HOUSEKEEPING_SOON: Duration = Duration::from_secs(1);
/// Newest layout of the data directory that this version understands.
const DATA_VERSION: u32 = 1;

/// What is stored beside the log: `node.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Meta {
    pub(crate) version: u32,
    pub(crate) cluster: String,
    pub(crate) cluster_name: Name,
    pub(crate) node: NodeId,
    pub(crate) name: Name,
    pub(crate) profile: Profile,
    pub(crate) advertise: String,
    /// Keys of members, for the time before the log is here.
    pub(crate) members: BTreeMap<NodeId, String>,
    pub(crate) issuer: String,
}

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

impl Meta {
    fn path(dir: &Path) -> PathBuf {
        dir.join("node.json")
    }

    pub(crate) fn load(dir: &Path) -> Result<Option<Self>, MemberError> {
        let path = Self::path(dir);
        let text = match std::fs::read_to_string(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(MemberError::File { path, source }),
            Ok(text) => text,
        };
        #[derive(Deserialize)]
        struct Version {
            version: u32,
        }
        let bad =
            |e: serde_json::Error| MemberError::Meta { path: path.clone(), why: e.to_string() };
        let found = serde_json::from_str::<Version>(&text).map_err(bad)?.version;
        if found > DATA_VERSION {
            return Err(MemberError::Newer { path: dir.to_owned(), found });
        }
        Ok(Some(serde_json::from_str(&text).map_err(bad)?))
    }

    pub(crate) fn store(&self, dir: &Path) -> Result<(), MemberError> {
        let path = Self::path(dir);
        let text = serde_json::to_string_pretty(self)
            .map_err(|e| MemberError::Meta { path: path.clone(), why: e.to_string() })?;
        vip_pki::write_secret(&path, text.as_bytes())
            .map_err(|source| MemberError::File { path, source })
    }

    /// A data directory that was copied to another host must not run there.
    fn check_address(&self, config: &Config) -> Result<(), MemberError> {
        let ours = match (&config.node.advertise, self.advertise.parse::<SocketAddr>()) {
            (Some(ours), _) if *ours != self.advertise => ours.clone(),
            // Not configured: any address of this host may be meant. One that
            // cannot be bound is not this host's.
            (None, Ok(theirs)) if UdpSocket::bind((theirs.ip(), 0)).is_err() => {
                config.advertise().unwrap_or_else(|_| "another one".into())
            }
            _ => return Ok(()),
        };
        let (name, theirs) = (self.name.clone(), self.advertise.clone());
        Err(MemberError::Elsewhere { name, theirs, ours })
    }

    pub(crate) fn new(
        cluster: (String, Name),
        node: (NodeId, Name),
        profile: Profile,
        advertise: String,
        members: BTreeMap<NodeId, String>,
        issuer: String,
    ) -> Self {
        let ((cluster, cluster_name), (node, name)) = (cluster, node);
        let version = DATA_VERSION;
        Self { version, cluster, cluster_name, node, name, profile, advertise, members, issuer }
    }
}

/// The largest P ever promised, stored before it is first used.
fn store_longest_promise(dir: &Path, promise: Duration) -> Result<Duration, MemberError> {
    let path = dir.join("longest-promise-ms");
    let stored = std::fs::read_to_string(&path).ok().and_then(|t| t.trim().parse().ok());
    let stored = stored.map(Duration::from_millis).unwrap_or_default();
    if stored < promise {
        let text = promise.as_millis().to_string();
        vip_pki::write_secret(&path, text.as_bytes())
            .map_err(|source| MemberError::File { path, source })?;
    }
    Ok(stored)
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
        let rules = Arc::new(LateRules::default());
        let raft_dir = dir.join("raft");
        let store = LogStore::open(&raft_dir, rules.clone())?;
        let saved = store.saved_vote().map_err(|e| vip_raft::StoreError::Damaged {
            path: raft_dir.clone(),
            what: e.to_string(),
        })?;
        // On the very first start nothing was ever promised.
        let mut longest = store_longest_promise(&dir, timing.promise)?;
        if saved.term > vip_core::Term(0) {
            longest = longest.max(timing.promise);
        }
        let interfaces = agent.config.node.interfaces.clone();
        let start = LeasesStart { me: meta.node, timing, saved, longest, interfaces };
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
        tokio::spawn(handshakes(self.clone(), connections.clone(), waiting, to_lease, to_grpc));
        tokio::spawn(serve_grpc(agent.clone(), self.clone(), grpc_streams));
        tokio::spawn(follow_roster(self.clone(), connections));
        tokio::spawn(lead(self.clone()));
        tokio::spawn(housekeeping(self.clone()));
        let start = Start {
            shared: self.shared.clone(),
            raft: self.raft.clone(),
            peers: lease_peers,
            guard_socket: agent.config.guard.socket.clone(),
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

    /// Proposes a command of the cluster itself.
    pub(crate) async fn propose(&self, op: Op) -> Result<Outcome, WriteError> {
        self.propose_as(Actor::leader(&self.meta.name), op, COMMIT_TIMEOUT).await
    }

    /// Proposes a command.
    pub(crate) async fn propose_as(
        &self,
        actor: Actor,
        op: Op,
        limit: Duration,
    ) -> Result<Outcome, WriteError> {
        let command = Command { time_ms: wall_clock_ms(), actor, op };
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

/// Rules that are set after the store was opened.
#[derive(Default)]
struct LateRules(std::sync::OnceLock<Arc<LeaseShared>>);

impl LateRules {
    fn set(&self, rules: Arc<LeaseShared>) {
        let _ = self.0.set(rules);
    }
}

impl vip_raft::LeaseRules for LateRules {
    fn saving_vote(&self, vote: vip_core::Vote) {
        if let Some(rules) = self.0.get() {
            rules.saving_vote(vote);
        }
    }
    fn may_campaign(&self) -> Result<(), vip_core::Refused> {
        self.0.get().map_or(Ok(()), |rules| rules.may_campaign())
    }
    fn may_vote(&self) -> Result<vip_core::PromiseTicket, vip_core::Refused> {
        let unset = vip_core::Refused { remaining: Duration::ZERO };
        self.0.get().map_or(Err(unset), |rules| rules.may_vote())
    }
    fn still_may_vote(&self, ticket: vip_core::PromiseTicket) -> bool {
        self.0.get().is_some_and(|rules| rules.still_may_vote(ticket))
    }
    fn may_renew(&self) -> bool {
        self.0.get().is_some_and(|rules| rules.may_renew())
    }
    fn leader_heard(&self, vote: vip_core::Vote) {
        if let Some(rules) = self.0.get() {
            rules.leader_heard(vote);
        }
    }
    fn peer_bound(&self, remaining: Duration) {
        if let Some(rules) = self.0.get() {
            rules.peer_bound(remaining);
        }
    }
    fn promised_vote(&self) {
        if let Some(rules) = self.0.get() {
            rules.promised_vote();
        }
    }
    fn abdicated(&self, vote: vip_core::Vote) {
        if let Some(rules) = self.0.get() {
            rules.abdicated(vote);
        }
    }
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
        match extensions.get::<PeerInfo>().map(|p| &p.identity) {
            Some(Identity::Node(node)) => Some(*node),
            _ => None,
        }
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

/// Renews the certificate and, on a voter, gets the issuing key.
async fn housekeeping(member: Arc<Member>) {
    let stop = member.stopped();
    loop {
        let pause = if member.wants_issuer() || member.is_joining() {
            HOUSEKEEPING_SOON
        } else {
            HOUSEKEEPING
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
        if member.is_joining()
            && let Some(mut client) = member.leader_client()
        {
            let _ = client.activate(v1::ActivateRequest {}).await;
        }
        if member.wants_issuer()
            && let Err(e) = member.fetch_issuer().await
        {
            tracing::debug!(error = %e, "the issuing key could not be fetched; trying again");
        }
        if let Err(e) = member.renew_certificate_if_due().await {
            tracing::warn!(error = %e, "the certificate could not be renewed; trying again");
        }
    }
}

impl Member {
    fn is_joining(&self) -> bool {
        let state = self.raft.state();
        state.nodes.get(&self.meta.node).is_none_or(|n| n.state == NodeState::Joining)
    }

    fn is_voter(&self) -> bool {
        let state = self.raft.state();
        let node = state.nodes.get(&self.meta.node);
        node.is_some_and(|n| n.role.votes() && n.state != NodeState::Joining)
    }

    fn wants_issuer(&self) -> bool {
        self.issuer().is_none() && self.is_voter()
    }

    fn leader_client(&self) -> Option<ClusterClient<Channel>> {
        let leader = self.shared.leader().filter(|l| *l != self.meta.node)?;
        Some(ClusterClient::new(self.channel(leader)?))
    }

    /// Gets the issuing key from the leader.
    pub(crate) async fn fetch_issuer(&self) -> Result<(), String> {
        let mut client = self.leader_client().ok_or("no leader is known")?;
        let reply = client.fetch_issuer(v1::FetchIssuerRequest {}).await;
        let reply = reply.map_err(|e| e.message().to_owned())?.into_inner();
        let chain = reply.chain.into_iter().map(Into::into).collect();
        let issuer = Issuer::new(reply.key.into(), chain);
        self.pki.store_issuer(&issuer).map_err(|e| vip_core::chain(&e))?;
        *self.issuer.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(issuer));
        Ok(())
    }

    /// After half of its life. Nodes differ in when they look, so that they do
    /// not all come at once.
    async fn renew_certificate_if_due(&self) -> Result<(), String> {
        let text = |e: vip_pki::IdentityError| chain(&e);
        let identity = self.pki.load_identity().map_err(text)?;
        let (from, until) = identity.validity().ok_or("the certificate is damaged")?;
        let now = i64::try_from(wall_clock_ms() / 1000).unwrap_or(i64::MAX);
        if now < from + (until - from) / 2 {
            return Ok(());
        }
        let csr = identity.key.csr().map_err(|e| chain(&e))?;
        let chain = match self.leader_client() {
            Some(mut client) => {
                let reply = client.renew_certificate(v1::RenewCertificateRequest { csr }).await;
                reply.map_err(|e| e.message().to_owned())?.into_inner().chain
            }
            None if self.shared.leader() == Some(self.meta.node) => {
                let signed = crate::cluster_service::sign(self, self.meta.node, &csr);
                signed.map_err(|e| e.message().to_owned())?
            }
            None => return Err("no leader is known".into()),
        };
        let chain = chain.into_iter().map(Into::into).collect();
        let renewed = NodeIdentity { key: identity.key, chain };
        self.use_identity(&renewed).map_err(|e| vip_core::chain(&e))?;
        tracing::info!("certificate renewed");
        Ok(())
    }
}
