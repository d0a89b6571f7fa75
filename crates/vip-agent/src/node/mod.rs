//! A node that is a member of a cluster: everything that runs for it.

mod housekeeping;
mod issuers;
mod joins;
mod late_rules;
mod longest_promise;
mod meta;
mod news;
pub(crate) mod reissue;
mod removal;
mod signing;

pub(crate) use meta::{KnownMember, Meta};

use issuers::IssuerKeys;
use joins::Joins;
use reissue::Reissued;

use crate::config::Config;
use crate::door::{Door, Reception, door};
use crate::errors::internal;
use crate::essential;
use crate::lease::{LeasePeers, LeaseShared, LeaseThread, Start};
use crate::wall_clock::wall_clock_ms;
use arc_swap::ArcSwap;
use meta::DATA_VERSION;
use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tonic::transport::Channel;
use vip_core::{Actor, Command, LeasesStart, Name, NodeId, Op, Outcome, OwnClockFar, Term};
use vip_pki::PeerStream;
use vip_pki::{
    Connections, Connector, Issuer, NodeIdentity, PkiDir, Roster, SharedRoster, asking_config,
    client_config, node_server_name, renewal_config, server_config,
};
use vip_proto::{ALPN_GRPC, ALPN_LEASE};
use vip_raft::{Dial, LogStore, PeerChannels, RaftNode, WriteError};

/// Connections between handshake and server.
const CONNECTIONS_QUEUED: usize = 64;
/// How long TCP and TLS may take between members: elections wait for it.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);
/// The same for what nobody's VIP waits for: joining and renewing must do on a
/// machine that is busy for seconds.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a command to the log may take.
pub(crate) const COMMIT_TIMEOUT: Duration = Duration::from_secs(5);
/// Between two proposals of one command.
const PROPOSE_AGAIN: Duration = Duration::from_millis(5);
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
    #[error(
        "the data in {path} was written by an earlier vipd (layout {found}), and from this version \
         on it is kept in another way ({DATA_VERSION}); nothing was changed. With the earlier \
         version write down `vipctl vip list -o yaml`, stop vipd on every node, move this \
         directory away, then `vipctl init`, `vipctl join` and `vipctl vip add` as at first"
    )]
    Older { path: PathBuf, found: u32 },
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

/// Connections to this node that passed the handshake, to be served.
pub(crate) struct Streams {
    pub(crate) members: mpsc::Receiver<PeerStream>,
    pub(crate) people: mpsc::Receiver<PeerStream>,
    pub(crate) strangers: mpsc::Receiver<PeerStream>,
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
    /// Changes of VIPs that take several entries, one after the other.
    pub(crate) reshaping: tokio::sync::Mutex<()>,
    pub(crate) joins: Joins,
    issuers: IssuerKeys,
    /// Whose new certificates this leader has seen.
    pub(crate) reissued: Reissued,
    /// `activate` and renewals one after the other: each replaces the
    /// certificate.
    certificate: tokio::sync::Mutex<()>,
    configs: Arc<ArcSwap<Configs>>,
    redial: watch::Sender<u64>,
    removal: removal::KnownRemoval,
    stop: CancellationToken,
    lease: Mutex<Option<LeaseThread>>,
}

/// TLS with the certificate of now.
struct Configs {
    /// The key (SPKI hash) of the CA that signed it.
    issuer: Option<String>,
    /// From when until when it is valid, seconds since 1970.
    validity: Option<(i64, i64)>,
    server: Arc<vip_pki::ServerConfig>,
    grpc: Arc<vip_pki::ClientConfig>,
    renewal: Arc<vip_pki::ClientConfig>,
    asking: Arc<vip_pki::ClientConfig>,
    lease: Arc<vip_pki::ClientConfig>,
}

impl Configs {
    fn of(identity: &NodeIdentity, roster: &SharedRoster) -> Result<Self, MemberError> {
        let tls = MemberError::Tls;
        let both: [&[u8]; 2] = [ALPN_GRPC, ALPN_LEASE];
        Ok(Self {
            issuer: identity.issuer(),
            validity: identity.validity(),
            server: server_config(identity, roster.clone(), &both).map_err(tls)?,
            grpc: client_config(identity, roster.clone(), ALPN_GRPC).map_err(tls)?,
            renewal: renewal_config(identity, roster.clone(), ALPN_GRPC).map_err(tls)?,
            asking: asking_config(identity, roster.clone(), ALPN_GRPC).map_err(tls)?,
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
        let configs = configs.clone();
        connector.channel_with(move || pick(&configs.load()))
    })
}

impl Member {
    /// Starts what a member is made of, on the data in the data directory. Nothing
    /// is served yet.
    pub(crate) async fn start(
        config: &Config,
        meta: Meta,
        listener: std::net::TcpListener,
    ) -> Result<(Arc<Self>, Streams), MemberError> {
        meta.check_address(config)?;
        let dir = config.node.data_dir.clone();
        let timing = meta.profile.timing();
        timing.check()?;
        let pki = PkiDir::new(&dir);
        let identity = pki.load_identity()?;
        let issuers = IssuerKeys::load(&pki)?;
        let joined = Roster::of_join(
            meta.cluster.clone(),
            meta.issuer.clone(),
            meta.members.iter().map(|(id, spki)| (*id, spki.clone())),
        );
        let joined = joined.signed_by(identity.issuer().unwrap_or_default());
        let roster: SharedRoster = Arc::new(ArcSwap::from_pointee(joined));
        let configs = Arc::new(ArcSwap::from_pointee(Configs::of(&identity, &roster)?));

        // The rules exist before the store, which tells them of votes; the
        // store knows the saved vote, which the rules start from.
        let rules = Arc::new(late_rules::LateRules::default());
        let raft_dir = dir.join("raft");
        let store = LogStore::open(&raft_dir, rules.clone())?;
        let found = store.saved();
        let longest = longest_promise::at_start(&store, &dir, timing.promise).await;
        let longest = longest.map_err(|source| MemberError::File { path: dir.clone(), source })?;
        let (saved, in_doubt) = (found.goes_on(meta.node), found.lost_up_to.is_some());
        if let Some(term) = found.lost_up_to {
            tracing::warn!(%term, "{}", vip_raft::DOUBT);
        }
        let interfaces = config.node.interfaces.clone();
        let run = fastrand::u64(..);
        let me = meta.node;
        let start = LeasesStart { me, timing, run, saved, in_doubt, longest, interfaces };
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
            reshaping: tokio::sync::Mutex::new(()),
            joins: Joins::default(),
            issuers,
            reissued: Reissued::default(),
            certificate: tokio::sync::Mutex::new(()),
            configs,
            redial: watch::Sender::new(0),
            removal: removal::KnownRemoval::default(),
            stop: CancellationToken::new(),
            lease: Mutex::new(None),
        });
        let streams = member.spawn(config, listener, LeasePeers::new(lease))?;
        Ok((member, streams))
    }

    fn spawn(
        self: &Arc<Self>,
        config: &Config,
        listener: std::net::TcpListener,
        lease_peers: LeasePeers,
    ) -> Result<Streams, MemberError> {
        let (to_lease, lease_streams) = mpsc::channel(CONNECTIONS_QUEUED);
        let (to_members, members) = mpsc::channel(CONNECTIONS_QUEUED);
        let (to_people, people) = mpsc::channel(CONNECTIONS_QUEUED);
        let (to_strangers, strangers) = mpsc::channel(CONNECTIONS_QUEUED);
        let connections = Connections::default();
        let configs = self.configs.clone();
        let reception = Reception {
            config: Arc::new(move || configs.load().server.clone()),
            roster: self.roster.clone(),
            connections: connections.clone(),
            to_lease,
            to_members,
            to_people,
            to_strangers,
        };
        let (door, hall) = door();
        essential::spawn("handshakes", reception.run(hall));
        essential::spawn("follow_roster", follow_roster(self.clone(), connections, door.clone()));
        essential::spawn("housekeeping", housekeeping::run(self.clone()));
        let start = Start {
            shared: self.shared.clone(),
            raft: self.raft.clone(),
            peers: lease_peers,
            guard_socket: config.guard.socket.clone(),
            cluster: self.meta.cluster.clone(),
            listener,
            door,
            lease_streams,
            redial: self.redial.subscribe(),
            stop: self.stop.clone(),
        };
        let thread = LeaseThread::start(start).map_err(MemberError::Thread)?;
        let (shared, stop) = (self.shared.clone(), self.stopped());
        essential::spawn("watch", async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = essential::watch("lease", essential::LOOK, || shared.turns()) => {}
            }
        });
        *self.lease.lock().unwrap_or_else(PoisonError::into_inner) = Some(thread);
        Ok(Streams { members, people, strangers })
    }

    /// Stops everything. The guard lets go when the lease thread's connection
    /// to it ends.
    pub(crate) async fn shut_down(&self) {
        self.stop.cancel();
        let thread = self.lease.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            thread.join().await;
        }
        self.raft.shut_down().await;
        let closed = tokio::time::timeout(CLOSE_TIMEOUT, self.raft.store.close()).await;
        if !matches!(closed, Ok(Ok(()))) {
            tracing::warn!("the log store was not closed in order");
        }
    }

    pub(crate) fn stopped(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Proposes what this node decided as leader of `term`; void in any other.
    pub(crate) async fn propose(
        &self,
        term: Term,
        op: impl Into<Op>,
    ) -> Result<Outcome, WriteError> {
        let op = op.into();
        let actor = Actor::leader(&self.meta.name);
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
        let leadership = self.shared.own_leadership();
        let command = Command { time_ms: self.time_ms(), actor, term: None, op };
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let result = self.raft.write(command.clone(), left).await;
            let refused = matches!(result, Err(WriteError::NotLeader { .. }));
            let leads_on = leadership.is_some() && self.shared.own_leadership() == leadership;
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
        let log = self.raft.state().time_ms;
        if self.own_clock_is_far().is_some() { log } else { wall_clock_ms().max(log) }
    }

    /// Whether most voters' wall clocks contradict this node's. Only a leader
    /// hears enough to know.
    pub(crate) fn own_clock_is_far(&self) -> Option<OwnClockFar> {
        self.shared.own_leadership()?;
        self.shared.wall_clocks().own_is_far(&self.raft.voter_ids())
    }

    /// Whose wall clock is far from this node's, in words with both times.
    pub(crate) fn clock_differences(&self) -> Vec<String> {
        let state = self.raft.state();
        let name = |node: NodeId| state.node_name(node).map(ToString::to_string);
        let differences = self.shared.wall_clocks().differences().into_iter();
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
                let (leader, theirs) = (&self.meta.name, self.clock_differences().join("; "));
                Err(Status::failed_precondition(format!(
                    "{leader}, which leads: {far} ({theirs}). Nothing was changed"
                )))
            }
        }
    }

    /// A channel to a member.
    pub(crate) fn channel(&self, node: NodeId) -> Option<Channel> {
        let state = self.raft.state();
        let address = state.nodes.get(&node)?.advertise.clone();
        Some(self.peers.get(node, &address))
    }

    /// The other members and where they are, as Raft knows, or, before it knows
    /// any, as the join said.
    fn other_members(&self) -> Vec<(NodeId, String)> {
        let mut members = self.raft.members();
        if members.is_empty() {
            members.extend(self.meta.addresses.clone());
        }
        members.into_iter().filter(|(node, _)| *node != self.meta.node).collect()
    }

    /// A connection of its own to a member, for what may take its time.
    pub(crate) fn patient_channel(&self, node: NodeId, address: &str) -> Channel {
        self.dial_patiently(node, address, self.configs.load().grpc.clone())
    }

    fn dial_patiently(
        &self,
        node: NodeId,
        address: &str,
        config: Arc<vip_pki::ClientConfig>,
    ) -> Channel {
        let connector = Connector {
            address: address.to_owned(),
            server_name: node_server_name(node, &self.meta.cluster),
            config,
            timeout: PATIENCE,
            unacknowledged: PATIENCE,
        };
        connector.channel()
    }

    /// The addresses of the members, as far as they are written as such.
    fn addresses(&self) -> BTreeSet<IpAddr> {
        let state = self.raft.state();
        let known = state.nodes.values().map(|node| node.advertise.clone());
        // Raft knows its members before the log is applied.
        let addresses = known.chain(self.raft.members().into_iter().map(|(_, address)| address));
        addresses.filter_map(|a| Some(a.parse::<SocketAddr>().ok()?.ip().to_canonical())).collect()
    }

    /// The issuing CA that signs, on a voter that has its key.
    pub(crate) fn issuer(&self) -> Option<Arc<Issuer>> {
        self.issuers.of(self.raft.state().signing_issuer()?)
    }

    /// The CA with this key (SPKI hash), if its private key is here.
    pub(crate) fn issuer_of(&self, spki: &str) -> Option<Arc<Issuer>> {
        self.issuers.of(spki)
    }

    /// The key (SPKI hash) of the CA that signed this node's certificate.
    pub(crate) fn own_issuer(&self) -> Option<String> {
        self.configs.load().issuer.clone()
    }

    /// The issuer that this node has made and the log does not name yet, or a new
    /// one: of two tries the first may have got through, and without its key
    /// nobody could sign.
    ///
    /// # Errors
    /// It cannot be made, or stored.
    pub(crate) fn next_issuer(
        &self,
        make: impl FnOnce() -> Result<Issuer, vip_pki::CaError>,
    ) -> Result<Arc<Issuer>, Status> {
        let state = self.raft.state();
        let named = |issuer: &Arc<Issuer>| {
            let spki = issuer.spki().unwrap_or_default();
            state.issuers().is_some_and(|issuers| issuers.knows(&spki))
        };
        if let Some(next) = self.issuers.next().filter(|next| !named(next)) {
            return Ok(next);
        }
        let issuer = make().map_err(|e| internal("making an issuer", &e))?;
        let stored = self.pki.store_next_issuer(&issuer);
        stored.map_err(|e| internal("storing the new key", &e))?;
        Ok(self.issuers.set_next(issuer))
    }

    /// Uses a new certificate from now on, also for connections to come.
    fn use_identity(&self, identity: &NodeIdentity) -> Result<(), MemberError> {
        self.pki.store_identity(identity)?;
        let own = identity.issuer().unwrap_or_default();
        self.roster.rcu(|roster| Roster::clone(roster).signed_by(own.clone()));
        self.configs.store(Arc::new(Configs::of(identity, &self.roster)?));
        self.peers.clear();
        self.redial.send_modify(|n| *n += 1);
        Ok(())
    }
}

/// Keeps the roster of the TLS handshakes at what the log says, and cuts off
/// who was removed.
async fn follow_roster(member: Arc<Member>, connections: Connections, door: Door) {
    let mut applied = member.raft.applied.clone();
    let stop = member.stopped();
    loop {
        {
            let now = applied.borrow_and_update().clone();
            door.members_are(member.addresses());
            // Before the log is here, what the join answered stands.
            if now.state.cluster.is_some() {
                let old = member.roster.rcu(|old| Roster::of(&now.state, now.index, old));
                let (before, new) = (old.removed().len(), member.roster.load_full());
                connections.cut_ended(&new);
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
