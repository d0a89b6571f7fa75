//! The guard's process: one loop that turns what happens into events for
//! `vip_core::Guard` and does what it answers.
//!
//! ```text
//!  agent ──orders──┐                 ┌──> gate (bpf map)
//!  netlink ────────┤                 ├──> addresses (netlink)
//!  ARP ────────────┼──> Guard::step ─┼──> announcements (packet socket)
//!  timer ──────────┤                 └──> notices to the agent
//!  SIGTERM ────────┘
//! ```

use crate::allow::Prefix;
use crate::clock::boottime;
use crate::host::{Host, NO_LINK};
use crate::kernel::{Kernel, KernelError, KernelEvent};
use crate::packets::Listener;
use crate::protocol::{FromGuard, GateReport, ToGuard, read_frame, write_frame};
use futures_util::StreamExt;
use nix::fcntl::{Flock, FlockArg};
use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, sleep};
use tracing::{debug, info, warn};
use vip_core::{Guard, GuardAction, GuardEvent, Incarnation, Limits, Profile, VipOrder};
use vip_datapath::GateError;

/// Everything is compared with the kernel this often, in case an event was
/// lost or somebody attached a program before ours.
const RECONCILE_INTERVAL: Duration = Duration::from_secs(1);
/// Orders that may wait while one is carried out.
const ORDERS_QUEUED: usize = 256;
/// Claims made and released between two looks at what else is to be done:
/// renewals of what is held already do not wait for a thousand new addresses.
const CHUNK: usize = 128;

/// How to run a guard.
#[derive(Clone, Debug)]
pub struct GuardConfig {
    /// Where the agent finds it. Its directory also keeps what a later run has
    /// to know.
    pub socket: PathBuf,
    /// Run also where eBPF cannot load.
    pub gate_optional: bool,
    /// Addresses that may be added; empty: see [`crate::Prefix`]'s module.
    pub allow: Vec<Prefix>,
}

/// Why the guard does not run.
#[derive(Debug, thiserror::Error)]
pub enum GuardError {
    /// A second guard on one socket.
    #[error("another guard has {0}; it was left alone")]
    AlreadyRunning(PathBuf),
    /// A file or socket could not be made.
    #[error("{path}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Netlink or a packet socket refused.
    #[error("{what} needs CAP_NET_ADMIN and CAP_NET_RAW")]
    Rights {
        /// What was tried.
        what: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The kernel could not be asked.
    #[error("{0}")]
    Kernel(String),
    /// No gate, and the configuration requires one.
    #[error(
        "the lease gate cannot be loaded; without it a frozen node may answer beyond its lease. \
         Set gate = \"optional\" in [guard] of vipd.toml to accept that"
    )]
    Gate(#[source] GateError),
}

impl From<KernelError> for GuardError {
    fn from(error: KernelError) -> Self {
        Self::Kernel(error.to_string())
    }
}

/// Removes the addresses that an earlier run left, and nothing else.
///
/// # Errors
/// [`GuardError`], if the kernel cannot be asked.
pub async fn purge() -> Result<Vec<IpAddr>, GuardError> {
    let (kernel, _events, _task) = Kernel::open()?;
    let left = kernel.our_addresses().await?;
    let mut purged = vec![];
    for (ip, message) in left {
        kernel.delete_message(message).await?;
        purged.push(ip);
    }
    Ok(purged)
}

/// Runs the guard until `stop` resolves; then it lets go of everything. `ready`
/// is called when its socket answers.
///
/// # Errors
/// [`GuardError`]; nothing is held then.
pub async fn run(
    config: GuardConfig,
    stop: impl Future<Output = ()>,
    ready: impl FnOnce(),
) -> Result<(), GuardError> {
    let _lock = lock(&config.socket)?;
    let mut host = Host::open(&config).await?;
    host.purge().await?;
    let listener = listen(&config.socket)?;
    info!(socket = %config.socket.display(), gate = ?host.report, "guard ready");
    ready();

    let limits = Limits {
        // Replicated timings reach the guard only as deadlines; the longest of
        // any profile bounds what a confused agent can ask for.
        longest_grant: Profile::Wan.timing().grant,
        gated: host.report == GateReport::Enforced,
    };
    let mut guard = Guard::new(limits);
    let result = serve(&mut guard, &mut host, &listener, stop).await;
    let actions = guard.step(boottime(), GuardEvent::Stop);
    host.carry_out(&mut guard, vec![actions]).await;
    host.detach().await;
    let _ = std::fs::remove_file(&config.socket);
    result
}

/// Waits, without a limit, until no other guard has the socket.
///
/// # Errors
/// The lock file cannot be made.
pub fn wait_in_line(socket: &Path) -> Result<(), GuardError> {
    let (path, handle) = lock_file(socket)?;
    let locked = Flock::lock(handle, FlockArg::LockExclusive);
    locked.map(drop).map_err(|(_, e)| GuardError::File { path, source: e.into() })
}

fn lock(socket: &Path) -> Result<Flock<std::fs::File>, GuardError> {
    let (_, handle) = lock_file(socket)?;
    Flock::lock(handle, FlockArg::LockExclusiveNonblock)
        .map_err(|(_, _)| GuardError::AlreadyRunning(socket.to_owned()))
}

fn lock_file(socket: &Path) -> Result<(PathBuf, std::fs::File), GuardError> {
    let path = socket.with_extension("lock");
    let file = |source| GuardError::File { path: path.clone(), source };
    if let Some(dir) = socket.parent() {
        std::fs::create_dir_all(dir).map_err(file)?;
    }
    let handle = std::fs::OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(file)?;
    Ok((path, handle))
}

fn listen(socket: &Path) -> Result<UnixListener, GuardError> {
    use std::os::unix::fs::PermissionsExt;
    let file = |source| GuardError::File { path: socket.to_owned(), source };
    // The lock is ours, so a socket that is there belongs to nobody.
    match std::fs::remove_file(socket) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(file(e)),
        _ => {}
    }
    let listener = UnixListener::bind(socket).map_err(file)?;
    let mode = std::fs::Permissions::from_mode(0o660);
    std::fs::set_permissions(socket, mode).map_err(file)?;
    Ok(listener)
}

/// The one agent.
struct Session {
    /// The agent's process.
    agent: Option<i32>,
    writer: OwnedWriteHalf,
    orders: mpsc::Receiver<ToGuard>,
    /// Claims to be made and released, in this order, when nothing else is to
    /// be done.
    backlog: VecDeque<VipOrder>,
}

impl Session {
    /// Whether the same process is at the other end of `stream`.
    fn is_with(&self, stream: &UnixStream) -> bool {
        let agent = stream.peer_cred().ok().and_then(|peer| peer.pid());
        agent.is_some() && agent == self.agent
    }

    async fn tell(&mut self, message: FromGuard) {
        debug!(?message, "to the agent");
        // A broken connection shows as the end of orders.
        let _ = write_frame(&mut self.writer, &message).await;
    }

    /// The next orders that do not depend on each other: one for each VIP.
    fn next_chunk(&mut self) -> Vec<VipOrder> {
        let mut vips = BTreeSet::new();
        let mut chunk = vec![];
        while chunk.len() < CHUNK
            && let Some(order) = self.backlog.pop_front_if(|order| match order {
                VipOrder::Prepare { vip, .. } | VipOrder::Release { vip, .. } => vips.insert(*vip),
                VipOrder::Extend { .. } => true,
            })
        {
            chunk.push(order);
        }
        chunk
    }
}

async fn serve(
    guard: &mut Guard,
    host: &mut Host,
    listener: &UnixListener,
    stop: impl Future<Output = ()>,
) -> Result<(), GuardError> {
    let rights = |what| move |source| GuardError::Rights { what, source };
    let claims = Listener::open().map_err(rights("listening for ARP"))?;
    let mut reconcile = interval(RECONCILE_INTERVAL);
    reconcile.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut session: Option<Session> = None;
    tokio::pin!(stop);
    loop {
        let wait = guard.next_tick().map(|at| at.since(boottime()));
        let event = tokio::select! {
            biased;
            () = &mut stop => return Ok(()),
            order = next_order(&mut session) => match order {
                Some(ToGuard::Orders(orders)) => {
                    take_orders(guard, host, &mut session, orders).await;
                    continue;
                }
                Some(ToGuard::Ping) => {
                    if let Some(session) = &mut session {
                        session.tell(FromGuard::Alive).await;
                    }
                    continue;
                }
                Some(ToGuard::Confirmed) => GuardEvent::Confirmed,
                None => {
                    warn!("the agent is gone; letting go of everything");
                    session = None;
                    GuardEvent::AgentGone
                }
            },
            () = sleep(wait.unwrap_or_default()), if wait.is_some() => GuardEvent::Tick,
            Ok((stream, _)) = listener.accept() => {
                if session.as_ref().is_some_and(|session| session.is_with(&stream)) {
                    // It gave the old session up; its end was not read yet.
                    warn!("the agent begins anew; letting go of everything");
                    session = None;
                    act(guard, host, &mut session, GuardEvent::AgentGone).await;
                }
                match greet(stream, session.is_some(), &host.report).await {
                    Some((incarnation, new)) => {
                        session = Some(new);
                        GuardEvent::AgentCame(incarnation)
                    }
                    None => continue,
                }
            }
            Some(event) = host.events.next() => match event {
                KernelEvent::AddressGone(ip) => GuardEvent::AddressGone(ip),
                KernelEvent::LinksChanged => {
                    follow_links(guard, host, &mut session).await;
                    continue;
                }
            },
            Ok((mac, ip)) = claims.claim() => {
                // Before its own turn a holder hears the one before it.
                if host.is_own_mac(&mac) || !guard.is_open(ip) {
                    continue;
                }
                warn!(%ip, mac = ?mac, "another host claims an address of a VIP held here");
                GuardEvent::ForeignClaim(ip)
            }
            _ = reconcile.tick() => {
                follow_links(guard, host, &mut session).await;
                for ip in host.reconcile_addresses(guard).await {
                    act(guard, host, &mut session, GuardEvent::AddressGone(ip)).await;
                }
                continue;
            }
            () = std::future::ready(()), if session.as_ref().is_some_and(|s| !s.backlog.is_empty()) => {
                work_on_backlog(guard, host, &mut session).await;
                continue;
            }
        };
        act(guard, host, &mut session, event).await;
    }
}

/// Deadlines are set at once, claims wait for their turn.
async fn take_orders(
    guard: &mut Guard,
    host: &mut Host,
    session: &mut Option<Session>,
    orders: Vec<VipOrder>,
) {
    let mut lists = vec![];
    for order in orders {
        match (order, session.as_mut()) {
            (VipOrder::Extend { incarnation, deadlines }, _) => {
                // What the kernel refuses of one VIP stops only that one.
                lists.extend(deadlines.into_iter().map(|one| {
                    let order = VipOrder::Extend { incarnation, deadlines: vec![one] };
                    guard.step(boottime(), GuardEvent::Order(order))
                }));
            }
            (order, Some(session)) => session.backlog.push_back(order),
            (_, None) => {}
        }
    }
    carry_out(guard, host, session, lists).await;
}

async fn work_on_backlog(guard: &mut Guard, host: &mut Host, session: &mut Option<Session>) {
    let chunk = session.as_mut().map(Session::next_chunk).unwrap_or_default();
    let step = |order| guard.step(boottime(), GuardEvent::Order(order));
    let lists = chunk.into_iter().map(step).collect();
    carry_out(guard, host, session, lists).await;
}

/// An address on an interface without a link is of no use to anybody.
async fn follow_links(guard: &mut Guard, host: &mut Host, session: &mut Option<Session>) {
    let back = host.reconcile_links().await;
    for ip in host.without_link() {
        warn!(%ip, "the interface of a VIP has no link; letting go of it");
        act(guard, host, session, GuardEvent::AddressRefused { ip, text: NO_LINK.into() }).await;
    }
    if back {
        act(guard, host, session, GuardEvent::LinkBack).await;
    }
}

async fn act(guard: &mut Guard, host: &mut Host, session: &mut Option<Session>, event: GuardEvent) {
    let actions = guard.step(boottime(), event);
    carry_out(guard, host, session, vec![actions]).await;
}

async fn carry_out(
    guard: &mut Guard,
    host: &mut Host,
    session: &mut Option<Session>,
    lists: Vec<Vec<GuardAction>>,
) {
    let notices = host.carry_out(guard, lists).await;
    if let (Some(session), false) = (session, notices.is_empty()) {
        session.tell(FromGuard::Notices(notices)).await;
    }
}

async fn next_order(session: &mut Option<Session>) -> Option<ToGuard> {
    match session {
        Some(session) => session.orders.recv().await,
        None => std::future::pending().await,
    }
}

async fn greet(
    stream: UnixStream,
    busy: bool,
    report: &GateReport,
) -> Option<(Incarnation, Session)> {
    let peer = stream.peer_cred().ok()?;
    let own = nix::unistd::geteuid().as_raw();
    if peer.uid() != 0 && peer.uid() != own {
        warn!(uid = peer.uid(), "refused a stranger on the guard's socket");
        return None;
    }
    let (reader, mut writer) = stream.into_split();
    if busy {
        let _ = write_frame(&mut writer, &FromGuard::Busy).await;
        return None;
    }
    let incarnation = Incarnation(random()?);
    let welcome = FromGuard::Welcome { incarnation, gate: report.clone() };
    write_frame(&mut writer, &welcome).await.ok()?;
    let (send, orders) = mpsc::channel(ORDERS_QUEUED);
    tokio::spawn(read_orders(reader, send));
    info!(%incarnation, "an agent came");
    let session = Session { agent: peer.pid(), writer, orders, backlog: VecDeque::new() };
    Some((incarnation, session))
}

fn random() -> Option<u64> {
    use std::io::Read;
    let mut bytes = [0; 8];
    std::fs::File::open("/dev/urandom").ok()?.read_exact(&mut bytes).ok()?;
    Some(u64::from_le_bytes(bytes))
}

async fn read_orders(mut reader: OwnedReadHalf, send: mpsc::Sender<ToGuard>) {
    while let Ok(order) = read_frame(&mut reader).await {
        if send.send(order).await.is_err() {
            break;
        }
    }
}
