//! The agent as a process: the only file that knows everybody. It opens, wires,
//! and ends.

use crate::access::{AccessLayer, Face};
use crate::admin::{AdminService, Desk, routes};
use crate::cloud::move_vips;
use crate::config::{Config, ConfigError};
use crate::descriptors::raise_limit;
use crate::essential;
use crate::hand_over::hand_over_everything;
use crate::hasten::hasten;
use crate::http;
use crate::leader::lead;
use crate::lease::recordings;
use crate::membership::{Launch, ListenError, Seat, adopt, keep_up};
use crate::names::resolve_names;
use crate::node::{MemberError, Meta};
use crate::probing::look_after_real_servers;
use crate::reporter::report;
use crate::servers::{serve_members, serve_people, serve_strangers};
use nix::fcntl::{Flock, FlockArg};
use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::UnixListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Instant, sleep};
use tokio_stream::wrappers::UnixListenerStream;
use tokio_util::sync::CancellationToken;
use vip_core::chain;
use vip_raft::{Ended, Newer};

/// How long the data directory of an agent that just ended may stay locked.
const LOCK_TIMEOUT: Duration = Duration::from_secs(1);
/// How long an agent that starts over waits for its last answer to leave.
const LAST_ANSWER: Duration = Duration::from_millis(200);
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
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// No signal can be listened for.
    #[error("SIGUSR1 cannot be listened for")]
    Signal(#[source] io::Error),
    /// Another agent uses the data directory.
    #[error("another vipd runs on {0}; it was left alone")]
    AlreadyRunning(PathBuf),
    /// The port is taken, or not this host's.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The stored membership cannot be used.
    #[error("this node's membership cannot be used: {0}")]
    Member(String),
    /// Neither thread nor runtime.
    #[error("the thread for [http] cannot start")]
    Http(#[source] io::Error),
    /// Raft ended by itself, as after a failed write.
    #[error("the log failed: {0}. Nothing more is served; free or repair the disk and start again")]
    Storage(String),
    /// The leader's log has what only a later version understands.
    #[error(
        "the cluster's log was written by a newer vipd: {0}. This node serves nothing rather than \
         skip it; install the version that the others run (`vipctl node list` there)"
    )]
    Newer(Newer),
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
    // From here on it ends no process.
    let asked = signal(SignalKind::user_defined1()).map_err(AgentError::Signal)?;
    vip_raft::prepare();
    raise_limit();
    let name = config.node_name()?;
    let dir = config.node.data_dir.clone();
    let file = |path: &PathBuf, source| AgentError::File { path: path.clone(), source };
    make_private_dir(&dir).map_err(|e| file(&dir, e))?;
    let _lock = lock(&dir).await?;
    adopt(&dir).map_err(|e| file(&dir, e))?;
    let desk = Arc::new(Desk::default());
    let agent = Seat::new(config, name, launch(desk.clone()));
    if let Some(meta) = Meta::load(&dir).map_err(|e| member_error(&e))? {
        tracing::info!(cluster = %meta.cluster_name, node = %meta.name, "rejoining");
        let listener = agent.listen()?;
        let member = agent.start(meta, listener).await.map_err(|e| member_error(&e))?;
        agent.set_member(Some(member));
    }

    let socket = agent.config.admin.socket.clone();
    let listener = admin_listener(&socket).map_err(|e| file(&socket, e))?;
    let closing = CancellationToken::new();
    http::serve(&agent, closing.clone()).map_err(AgentError::Http)?;
    let server = tonic::transport::Server::builder()
        .layer(AccessLayer::of(Face::Local))
        .add_routes(routes(&AdminService::new(agent.clone(), desk)).await)
        .serve_with_incoming_shutdown(
            UnixListenerStream::new(listener),
            closing.clone().cancelled_owned(),
        );
    let server = tokio::spawn(server);
    ready();
    tracing::info!(socket = %socket.display(), "ready");

    tokio::spawn(write_out_when_asked(agent.clone(), asked));
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

/// At each SIGUSR1, and at the end of a process that panicked: what the leases
/// decided lately.
async fn write_out_when_asked(agent: Arc<Seat>, mut asked: Signal) {
    let at_the_end = agent.clone();
    essential::at_the_end(move || write_out(&at_the_end));
    while asked.recv().await.is_some() {
        let agent = agent.clone();
        // The disk may be slow.
        let written = tokio::task::spawn_blocking(move || write_out(&agent));
        let _ = written.await;
    }
}

fn write_out(agent: &Seat) {
    match agent.member() {
        Some(member) => recordings::tell(&member.shared, &agent.config.node.data_dir),
        None => tracing::warn!("this node is in no cluster: there are no lease decisions"),
    }
}

/// What a member does while it runs, beside its lease thread.
fn launch(desk: Arc<Desk>) -> Launch {
    Box::new(move |seat, member, streams| {
        let admin = AdminService::new(seat.clone(), desk.clone());
        let of_members = serve_members(admin.clone(), member.clone(), streams.members);
        essential::spawn("serve members", of_members);
        essential::spawn("serve people", serve_people(admin, member.clone(), streams.people));
        essential::spawn("serve strangers", serve_strangers(member.clone(), streams.strangers));
        essential::spawn("lead", lead(member.clone()));
        essential::spawn("report", report(member.clone()));
        essential::spawn("probe", look_after_real_servers(member.clone()));
        essential::spawn("names", resolve_names(member.clone()));
        essential::spawn("hasten", hasten(member.clone()));
        let programs = seat.config.probe.exec_socket.clone();
        essential::spawn("cloud", move_vips(member.clone(), programs));
        essential::spawn("keep_up", keep_up(member.clone()));
    })
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
async fn interrupted(agent: &Seat) -> AgentError {
    agent.start_over.cancelled().await;
    sleep(LAST_ANSWER).await;
    AgentError::Interrupted
}

/// Resolves when this process is of no use any more: a node that cannot store
/// cannot vote, and a leader that gave up leadership in vain cannot have it back.
async fn failure(agent: &Seat) -> AgentError {
    loop {
        sleep(Duration::from_millis(200)).await;
        let Some(member) = agent.member() else { continue };
        if let Some(why) = member.raft.store.disk().failure() {
            return AgentError::Storage(why);
        }
        if member.leases.transferred_in_vain() {
            return AgentError::Succession;
        }
        match member.raft.ended() {
            Some(Ended::Newer(newer)) => return AgentError::Newer(newer),
            Some(Ended::Raft(why)) if !member.stopped().is_cancelled() => {
                tracing::error!(why, "Raft ended");
                return AgentError::Storage("it cannot be written".into());
            }
            Some(Ended::Raft(_)) | None => {}
        }
    }
}
