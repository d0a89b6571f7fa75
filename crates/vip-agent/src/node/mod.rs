//! A node that is a member of a cluster: everything that runs for it.

mod authority;
mod catching_up;
mod housekeeping;
mod issuers;
mod joins;
mod log;
mod longest_promise;
mod meta;
mod news;
mod peers;
pub(crate) mod reissue;
mod removal;
mod tls;

pub(crate) use log::{COMMIT_TIMEOUT, Log};
pub(crate) use meta::{KnownMember, Meta};
pub(crate) use peers::Peers;

use authority::Authority;
use catching_up::catch_up;
use issuers::IssuerKeys;
use joins::Joins;
use reissue::Reissued;
use tls::{Configs, Tls};

use crate::config::Config;
use crate::door::{Door, Reception, door};
use crate::essential;
use crate::forward::{Ends, Forward, forward};
use crate::lease::{LeasePeers, LeaseShared, LeaseThread, LeaseView, Start};
use crate::sights::Sights;
use arc_swap::ArcSwap;
use meta::DATA_VERSION;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use vip_cloud::{Environment, Providers};
use vip_core::{LeaseEvent, LeasesStart, Name, State};
use vip_pki::{Connections, PeerStream, PkiDir, Roster, SharedRoster};
use vip_raft::{LogStore, PeerChannels, RaftNode};

/// Words to the lease thread that may wait.
const EVENTS_QUEUED: usize = 64;
/// Connections between handshake and server.
const CONNECTIONS_QUEUED: usize = 64;
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
    pub(crate) log: Log,
    pub(crate) leases: LeaseView,
    pub(crate) peers: Peers,
    pub(crate) authority: Authority,
    /// The virtual servers on this host.
    pub(crate) forward: Forward,
    /// What this node sees of real servers.
    pub(crate) sights: Arc<Sights>,
    /// Who are members, and who leads: for those who change that.
    pub(crate) raft: RaftNode,
    /// Those who have to know where VIPs are.
    pub(crate) providers: Arc<Providers>,
    /// What is told to the lease thread.
    pub(crate) lease_events: mpsc::Sender<LeaseEvent>,
    /// The lease decisions: for those who take part in them.
    pub(crate) shared: Arc<LeaseShared>,
    /// Membership changes one after the other.
    pub(crate) membership: tokio::sync::Mutex<()>,
    /// Changes of VIPs that take several entries, one after the other.
    pub(crate) reshaping: tokio::sync::Mutex<()>,
    pub(crate) joins: Joins,
    /// Whose new certificates this leader has seen.
    pub(crate) reissued: Reissued,
    removal: removal::KnownRemoval,
    stop: CancellationToken,
    lease: Mutex<Option<LeaseThread>>,
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
        let joined = as_joined(&meta).signed_by(identity.issuer().unwrap_or_default());
        let roster: SharedRoster = Arc::new(ArcSwap::from_pointee(joined));
        let tls = Tls::of(Configs::of(&identity, &roster)?, &meta.cluster);

        let raft_dir = dir.join("raft");
        let store = LogStore::open(&raft_dir)?;
        let found = store.saved();
        let longest = longest_promise::at_start(&store, &dir, timing.promise).await;
        let longest = longest.map_err(|source| MemberError::File { path: dir.clone(), source })?;
        let (saved, in_doubt) = (found.goes_on(meta.node), found.lost_up_to.is_some());
        if let Some(term) = found.lost_up_to {
            tracing::warn!(%term, "{}", vip_raft::DOUBT);
        }
        let (me, interfaces) = (meta.node, config.node.interfaces.clone());
        let run = fastrand::u64(..);
        let start = LeasesStart { me, timing, run, saved, in_doubt, longest, interfaces };
        let shared = LeaseShared::new(start, store.disk());

        let channels = PeerChannels::new(tls.dialer(timing.promise * 5, |c| c.grpc.clone()));
        let lease_peers = LeasePeers::new(tls.dialer(timing.promise * 2, |c| c.lease.clone()));
        let open = vip_raft::open(&raft_dir, me, store, &timing, channels.clone(), shared.clone());
        let raft = open.await?;

        let leases = LeaseView::of(shared.clone());
        let log = Log::of(raft.clone(), leases.clone(), meta.name.clone());
        let known = meta.addresses.clone();
        let own = meta.advertise.parse::<SocketAddr>().ok().map(|at| at.ip());
        let sections = config.cloud.providers();
        let providers = Providers::new(sections, Environment::of_process(), own);
        let (forward, ends) = forward(me, log.applied(), config.node.interfaces.clone());
        let (lease_events, events) = mpsc::channel(EVENTS_QUEUED);
        let member = Arc::new(Self {
            log: log.clone(),
            leases,
            peers: Peers::of(raft.clone(), channels.clone(), tls.clone(), known),
            authority: Authority {
                me: meta.node,
                cluster: meta.cluster.clone(),
                log,
                pki,
                issuers,
                roster,
                tls,
                channels,
                redial: watch::Sender::new(()),
                replacing: tokio::sync::Mutex::new(()),
            },
            meta,
            forward,
            sights: Arc::new(Sights::new(&config.probe)),
            raft,
            providers: Arc::new(providers),
            lease_events,
            shared,
            membership: tokio::sync::Mutex::new(()),
            reshaping: tokio::sync::Mutex::new(()),
            joins: Joins::default(),
            reissued: Reissued::default(),
            removal: removal::KnownRemoval::default(),
            stop: CancellationToken::new(),
            lease: Mutex::new(None),
        });
        let streams = member.spawn(config, listener, (lease_peers, events), ends)?;
        Ok((member, streams))
    }

    fn spawn(
        self: &Arc<Self>,
        config: &Config,
        listener: std::net::TcpListener,
        (lease_peers, events): (LeasePeers, mpsc::Receiver<LeaseEvent>),
        tables: Ends,
    ) -> Result<Streams, MemberError> {
        let Ends { reconciler, link, caught_up } = tables;
        essential::spawn("forward", reconciler.run(self.stopped()));
        tokio::spawn(catch_up(self.clone(), caught_up));
        let (to_lease, lease_streams) = mpsc::channel(CONNECTIONS_QUEUED);
        let (to_members, members) = mpsc::channel(CONNECTIONS_QUEUED);
        let (to_people, people) = mpsc::channel(CONNECTIONS_QUEUED);
        let (to_strangers, strangers) = mpsc::channel(CONNECTIONS_QUEUED);
        let connections = Connections::default();
        let tls = self.authority.tls.clone();
        let reception = Reception {
            config: Arc::new(move || tls.now().server.clone()),
            roster: self.authority.roster.clone(),
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
            tables: link,
            cluster: self.meta.cluster.clone(),
            listener,
            door,
            lease_streams,
            events,
            redial: self.authority.redial.subscribe(),
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
        // Before the leases are over.
        self.providers.leave().await;
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

    /// Whether VIPs can come to this node, as far as its role goes.
    pub(crate) fn holds(&self, state: &State) -> bool {
        state.nodes.get(&self.meta.node).is_some_and(|node| node.role.holds())
    }

    pub(crate) fn stopped(&self) -> CancellationToken {
        self.stop.clone()
    }
}

/// The members, as whoever let this node in said.
fn as_joined(meta: &Meta) -> Roster {
    let members = meta.members.iter().map(|(id, spki)| (*id, spki.clone()));
    Roster::of_join(meta.cluster.clone(), meta.issuer.clone(), members)
}

/// Keeps the roster of the TLS handshakes at what the log says, and cuts off
/// who was removed.
async fn follow_roster(member: Arc<Member>, connections: Connections, door: Door) {
    let mut applied = member.log.applied();
    let roster = member.authority.roster.clone();
    let stop = member.stopped();
    loop {
        {
            let now = applied.borrow_and_update().clone();
            door.members_are(member.peers.addresses());
            // Before the log is here, what the join answered stands.
            if now.state.cluster.is_some() {
                let old = roster.rcu(|old| Roster::of(&now.state, now.index, old));
                let (before, new) = (old.removed().len(), roster.load_full());
                connections.cut_ended(&new);
                let removed = roster.load().removed().to_vec();
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
