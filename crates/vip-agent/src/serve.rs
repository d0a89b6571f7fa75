//! The agent as a process: admin socket, membership, end.

use crate::admin::access::{AccessLayer, Face};
use crate::admin::service::AdminService;
use crate::admin::streams::Streams;
use crate::config::{Config, ConfigError};
use crate::descriptors::raise_limit;
use crate::hand_over::hand_over_everything;
use crate::member::{Member, MemberError, Meta};
use nix::fcntl::{Flock, FlockArg};
use socket2::{Domain, Socket, Type};
use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use tokio::net::UnixListener;
use tokio::time::{Instant, sleep};
use tokio_stream::wrappers::UnixListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use vip_core::{Name, chain};
use vip_proto::v1::admin_server::AdminServer;

/// How long the data directory of an agent that just ended may stay locked.
const LOCK_TIMEOUT: Duration = Duration::from_secs(1);
/// How long an agent that starts over waits for its last answer to leave.
const LAST_ANSWER: Duration = Duration::from_millis(200);
/// Connections that the kernel keeps until they are taken: taking one is quick.
const LISTEN_BACKLOG: i32 = 128;
/// How often it looks whether it is.
const LOCK_POLL: Duration = Duration::from_millis(5);

/// Why the agent does not run, or stopped.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A file or socket.
    #[error("{path}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Another agent uses the data directory.
    #[error("another vipd runs on {0}; it was left alone")]
    AlreadyRunning(PathBuf),
    /// The port is taken, or not this host's.
    #[error(
        "cannot listen on {address}; if another program has the port, set node.listen in vipd.toml"
    )]
    Listen {
        /// Where.
        address: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The stored membership cannot be used.
    #[error("this node's membership cannot be used: {0}")]
    Member(String),
    /// Raft ended by itself, as after a failed write.
    #[error("the log failed: {0}. Nothing more is served; free or repair the disk and start again")]
    Storage(String),
    /// A new cluster could not be made, or not be started.
    #[error("making a new cluster was not finished; this agent starts over with what is there")]
    Interrupted,
    /// Leadership was handed over, and nobody took it.
    #[error(
        "leadership was handed to another node, which does not lead; this agent starts over, so \
         that it can be elected again"
    )]
    Succession,
}

/// The agent, with or without a membership.
pub(crate) struct Agent {
    pub(crate) config: Config,
    pub(crate) name: Name,
    member: RwLock<Option<Arc<Member>>>,
    /// Whatever makes or ends a membership, one after the other.
    pub(crate) formation: tokio::sync::Mutex<()>,
    /// Examinations of this host, one after the other.
    pub(crate) examination: tokio::sync::Mutex<()>,
    /// Events that are followed.
    pub(crate) streams: Streams,
    /// Cancelled when only a new process can go on.
    pub(crate) start_over: CancellationToken,
}

impl Agent {
    pub(crate) fn member(&self) -> Option<Arc<Member>> {
        self.member.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn set_member(&self, member: Option<Arc<Member>>) {
        *self.member.write().unwrap_or_else(PoisonError::into_inner) = member;
    }

    /// Waits for its turn to make or end a membership.
    pub(crate) async fn begin_forming(&self) -> Result<tokio::sync::MutexGuard<'_, ()>, Status> {
        let turn = self.formation.lock().await;
        // What is on the disk is a membership, though none runs.
        if self.start_over.is_cancelled() {
            return Err(Status::unavailable("this agent starts over; try again"));
        }
        Ok(turn)
    }

    /// Binds this node's port.
    pub(crate) fn listen(&self) -> Result<std::net::TcpListener, AgentError> {
        let address = self.config.node.listen;
        listener(address)
            .map_err(|source| AgentError::Listen { address: address.to_string(), source })
    }
}

/// `[::]` is every address, of IPv4 too, and of that alone where IPv6 is off.
fn listener(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let every = address.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED);
    let bind = |address: SocketAddr| -> io::Result<std::net::TcpListener> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
        if every && address.is_ipv6() {
            socket.set_only_v6(false)?;
        }
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(LISTEN_BACKLOG)?;
        Ok(socket.into())
    };
    match bind(address) {
        Err(e)
            if every
                && matches!(e.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL)) =>
        {
            bind((Ipv4Addr::UNSPECIFIED, address.port()).into())
        }
        result => result,
    }
}

fn member_error(error: &MemberError) -> AgentError {
    AgentError::Member(chain(error))
}

/// Runs the agent until `stop` resolves. `ready` is called when the admin
/// socket answers.
///
/// # Errors
/// [`AgentError`].
pub async fn run(
    config: Config,
    stop: impl Future<Output = ()>,
    ready: impl FnOnce(),
) -> Result<(), AgentError> {
    vip_raft::prepare();
    raise_limit();
    let name = config.node_name()?;
    let dir = config.node.data_dir.clone();
    let file = |path: &PathBuf, source| AgentError::File { path: path.clone(), source };
    make_private_dir(&dir).map_err(|e| file(&dir, e))?;
    let _lock = lock(&dir).await?;
    crate::refounding::adopt(&dir).map_err(|e| file(&dir, e))?;
    let agent = Arc::new(Agent {
        config,
        name,
        member: RwLock::new(None),
        formation: tokio::sync::Mutex::new(()),
        examination: tokio::sync::Mutex::new(()),
        streams: Streams::default(),
        start_over: CancellationToken::new(),
    });
    if let Some(meta) = Meta::load(&dir).map_err(|e| member_error(&e))? {
        tracing::info!(cluster = %meta.cluster_name, node = %meta.name, "rejoining");
        let listener = agent.listen()?;
        let member = Member::start(&agent, meta, listener).await.map_err(|e| member_error(&e))?;
        agent.set_member(Some(member));
    }

    let socket = agent.config.admin.socket.clone();
    let listener = admin_listener(&socket).map_err(|e| file(&socket, e))?;
    let closing = CancellationToken::new();
    let (health, reflection) = crate::admin::health_and_reflection().await;
    let server = tonic::transport::Server::builder()
        .layer(AccessLayer(Face::Local))
        .add_service(AdminServer::new(AdminService::new(agent.clone())))
        .add_service(health)
        .add_service(reflection)
        .serve_with_incoming_shutdown(
            UnixListenerStream::new(listener),
            closing.clone().cancelled_owned(),
        );
    let server = tokio::spawn(server);
    ready();
    tracing::info!(socket = %socket.display(), "ready");

    let failed = tokio::select! {
        () = stop => None,
        why = failure(&agent) => Some(why),
        why = interrupted(&agent) => Some(why),
    };
    if failed.is_none()
        && let Some(member) = agent.member()
    {
        hand_over_everything(&member).await;
    }
    let _ = std::fs::remove_file(&socket);
    closing.cancel();
    server.abort();
    if let Some(member) = agent.member() {
        member.shut_down().await;
    }
    match failed {
        Some(why) => Err(why),
        None => Ok(()),
    }
}

fn make_private_dir(dir: &PathBuf) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

/// An agent that was killed may take a moment to be gone.
async fn lock(dir: &Path) -> Result<Flock<std::fs::File>, AgentError> {
    let path = dir.join("lock");
    let handle = std::fs::OpenOptions::new().create(true).truncate(false).write(true).open(&path);
    let mut handle = handle.map_err(|source| AgentError::File { path, source })?;
    let until = Instant::now() + LOCK_TIMEOUT;
    loop {
        match Flock::lock(handle, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Ok(lock),
            Err(_) if Instant::now() >= until => {
                return Err(AgentError::AlreadyRunning(dir.to_owned()));
            }
            Err((unlocked, _)) => handle = unlocked,
        }
        sleep(LOCK_POLL).await;
    }
}

/// The socket under another name first, and in its place only when it listens:
/// whoever sees it is answered.
fn admin_listener(socket: &PathBuf) -> io::Result<UnixListener> {
    use std::os::unix::fs::PermissionsExt;
    if let Some(dir) = socket.parent() {
        std::fs::create_dir_all(dir)?;
    }
    let new = socket.with_extension("new");
    let _ = std::fs::remove_file(&new);
    let listener = UnixListener::bind(&new)?;
    std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o600))?;
    std::fs::rename(&new, socket)?;
    Ok(listener)
}

/// Whoever asked for what could not be finished hears why.
async fn interrupted(agent: &Agent) -> AgentError {
    agent.start_over.cancelled().await;
    sleep(LAST_ANSWER).await;
    AgentError::Interrupted
}

/// Resolves when this process is of no use any more: a node that cannot store
/// cannot vote, and a leader that gave up leadership in vain cannot have it back.
async fn failure(agent: &Agent) -> AgentError {
    loop {
        sleep(Duration::from_millis(200)).await;
        let Some(member) = agent.member() else { continue };
        if let Some(why) = member.raft.store.disk().failure() {
            return AgentError::Storage(why);
        }
        if member.shared.transferred_in_vain() {
            return AgentError::Succession;
        }
        let metrics = member.raft.raft.metrics();
        let running = {
            use openraft::async_runtime::WatchReceiver;
            metrics.borrow_watched().running_state.clone()
        };
        if let Err(fatal) = running
            && !member.stopped().is_cancelled()
        {
            tracing::error!(%fatal, "Raft ended");
            return AgentError::Storage("it cannot be written".into());
        }
    }
}
