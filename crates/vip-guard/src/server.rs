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

use crate::allow::{Prefix, objection};
use crate::clock::boottime;
use crate::frames::announcement;
use crate::kernel::{Kernel, KernelError, KernelEvent, Link};
use crate::packets::{Listener, Sender};
use crate::protocol::{FromGuard, GateReport, ToGuard, read_frame, write_frame};
use futures_util::StreamExt;
use futures_util::future::join_all;
use nix::fcntl::{Flock, FlockArg};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, sleep};
use tracing::{debug, error, info, warn};
use vip_core::{
    Address, Guard, GuardAction, GuardEvent, GuardNotice, Incarnation, Limits, Mono, Profile,
};
use vip_datapath::{Device, Gate, GateError};

/// Everything is compared with the kernel this often, in case an event was
/// lost or somebody attached a program before ours.
const RECONCILE_INTERVAL: Duration = Duration::from_secs(1);
/// Orders that may wait while one is carried out.
const ORDERS_QUEUED: usize = 256;

/// Why a VIP is refused.
const NO_LINK: &str = "its interface has no link";

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
    host.carry_out(&mut guard, actions, None).await;
    // With an address left behind the gate stays, shut.
    if host.kernel.our_addresses().await.is_ok_and(|left| left.is_empty()) {
        host.detach();
    }
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
    writer: OwnedWriteHalf,
    orders: mpsc::Receiver<ToGuard>,
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
                    for order in orders {
                        act(guard, host, &mut session, GuardEvent::Order(order)).await;
                    }
                    continue;
                }
                Some(ToGuard::Ping) => {
                    if let Some(session) = &mut session {
                        let _ = write_frame(&mut session.writer, &FromGuard::Alive).await;
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
        };
        act(guard, host, &mut session, event).await;
    }
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
    let writer = session.as_mut().map(|s| &mut s.writer);
    host.carry_out(guard, actions, writer).await;
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
    Some((incarnation, Session { writer, orders }))
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

/// The kernel's side of a host, and what the guard put there.
struct Host {
    kernel: Kernel,
    events: std::pin::Pin<Box<dyn futures_util::Stream<Item = KernelEvent> + Send>>,
    sender: Sender,
    gate: Option<Gate>,
    report: GateReport,
    allow: Vec<Prefix>,
    /// Gate programs of earlier runs, to be taken off.
    stale: BTreeSet<u32>,
    record: PathBuf,
    links: Vec<Link>,
    /// Where our addresses are.
    placed: BTreeMap<IpAddr, (Address, u32)>,
}

impl Host {
    async fn open(config: &GuardConfig) -> Result<Self, GuardError> {
        let (kernel, events, _task) = Kernel::open()?;
        let rights = |what| move |source| GuardError::Rights { what, source };
        let sender = Sender::open().map_err(rights("sending announcements"))?;
        let (gate, report) = match Gate::load() {
            Ok(gate) => (Some(gate), GateReport::Enforced),
            Err(e) if config.gate_optional => {
                warn!(error = %chain(&e), "no lease gate: a frozen node may answer beyond its lease");
                (None, GateReport::Missing(chain(&e)))
            }
            Err(e) => return Err(GuardError::Gate(e)),
        };
        let record = config.socket.with_extension("programs");
        let mut stale = recorded_programs(&record);
        stale.extend(Gate::all_program_ids().unwrap_or_default());
        if let Some(gate) = &gate {
            stale.retain(|id| !gate.program_ids().contains(id));
            let all = stale.union(gate.program_ids()).copied().collect();
            let file = |source| GuardError::File { path: record.clone(), source };
            record_programs(&record, &all).map_err(file)?;
        }
        let links = kernel.links().await?;
        let (allow, placed) = (config.allow.clone(), BTreeMap::new());
        Ok(Self { kernel, events, sender, gate, report, allow, stale, record, links, placed })
    }

    /// Undoes what an earlier run left. The new gate, shut for every address
    /// that is still there, stands before the old one is taken off: that one's
    /// map may be out of reach.
    async fn purge(&mut self) -> Result<(), GuardError> {
        let left = self.kernel.our_addresses().await?;
        if let Some(gate) = &mut self.gate {
            for (ip, _) in &left {
                gate.set(*ip, Mono::ZERO).map_err(GuardError::Gate)?;
            }
            for link in &self.links {
                gate.ensure_first(link.device, &BTreeSet::new()).map_err(GuardError::Gate)?;
            }
        }
        for (ip, message) in left {
            self.kernel.delete_message(message).await?;
            info!(%ip, "purged an address that an earlier run left");
        }
        if let Some(gate) = &mut self.gate {
            for link in &self.links {
                gate.ensure_first(link.device, &self.stale).map_err(GuardError::Gate)?;
            }
            let ids = gate.program_ids().clone();
            let file = |source| GuardError::File { path: self.record.clone(), source };
            record_programs(&self.record, &ids).map_err(file)?;
        }
        Ok(())
    }

    fn has_link(&self, ifindex: u32) -> bool {
        self.links.iter().any(|l| l.device.ifindex == ifindex && l.running)
    }

    /// The addresses of VIPs whose interface has no link.
    fn without_link(&self) -> Vec<IpAddr> {
        let lost = self.placed.iter().filter(|(_, (_, ifindex))| !self.has_link(*ifindex));
        lost.map(|(ip, _)| *ip).collect()
    }

    fn is_own_mac(&self, mac: &[u8; 6]) -> bool {
        self.links.iter().any(|l| l.mac.as_ref() == Some(mac))
    }

    /// Puts the gate first on every interface. Returns whether one of them
    /// came back, so that neighbours have to be told again.
    async fn reconcile_links(&mut self) -> bool {
        let links = match self.kernel.links().await {
            Ok(links) => links,
            Err(error) => {
                error!(%error, "cannot list interfaces");
                return false;
            }
        };
        let was_running =
            |new: &Link| self.links.iter().any(|old| old.device == new.device && old.running);
        let back = links.iter().any(|l| l.running && !was_running(l));
        self.links = links;
        if let Some(gate) = &mut self.gate {
            for link in &self.links {
                match gate.ensure_first(link.device, &self.stale) {
                    Ok(true) => info!(interface = %link.name, "lease gate attached"),
                    Ok(false) => {}
                    // Interfaces may go at any time.
                    Err(e) => debug!(interface = %link.name, error = %chain(&e), "no gate"),
                }
            }
        }
        back
    }

    /// Compares the addresses that should be there with those that are;
    /// deletes what is too much and returns what is missing.
    async fn reconcile_addresses(&mut self, guard: &Guard) -> Vec<IpAddr> {
        let Ok(there) = self.kernel.our_addresses().await else { return vec![] };
        let wanted = guard.wanted_addresses();
        for (ip, message) in &there {
            if !wanted.iter().any(|a| a.ip == *ip) {
                warn!(%ip, "an address of ours that nobody wants; deleting it");
                let _ = self.kernel.delete_message(message.clone()).await;
            }
        }
        let missing = |ip: &IpAddr| !there.iter().any(|(there, _)| there == ip);
        wanted.into_iter().map(|a| a.ip).filter(missing).collect()
    }

    /// Carries out actions in order. Netlink requests that stand next to each
    /// other go out together.
    async fn carry_out(
        &mut self,
        guard: &mut Guard,
        actions: Vec<GuardAction>,
        mut writer: Option<&mut OwnedWriteHalf>,
    ) {
        let mut queue: std::collections::VecDeque<_> = actions.into();
        while let Some(action) = queue.pop_front() {
            let mut follow_up = vec![];
            match action {
                GuardAction::Gate { ip, deadline } => self.set_gate(ip, deadline),
                GuardAction::AddAddress(first) => {
                    let mut batch = vec![first];
                    while let Some(GuardAction::AddAddress(_)) = queue.front() {
                        if let Some(GuardAction::AddAddress(next)) = queue.pop_front() {
                            batch.push(next);
                        }
                    }
                    follow_up = self.add(guard, batch).await;
                }
                GuardAction::DeleteAddress(first) => {
                    let mut batch = vec![first];
                    while let Some(GuardAction::DeleteAddress(_)) = queue.front() {
                        if let Some(GuardAction::DeleteAddress(next)) = queue.pop_front() {
                            batch.push(next);
                        }
                    }
                    let all = self.delete(batch).await;
                    if !all && self.gate.is_none() {
                        // It may answer still: nobody is told that it is silent.
                        return;
                    }
                }
                GuardAction::RefreshAddresses(addresses) => self.refresh(&addresses).await,
                GuardAction::Announce(addresses) => self.announce(&addresses),
                GuardAction::Notify(notice) => notify(&notice, writer.as_deref_mut()).await,
            }
            if !follow_up.is_empty() {
                // A failure stops the list; what the guard makes of it follows.
                queue = follow_up.into();
            }
        }
    }

    fn set_gate(&mut self, ip: IpAddr, deadline: Mono) {
        let Some(gate) = &mut self.gate else { return };
        if let Err(e) = gate.set(ip, deadline) {
            // The old deadline stands, so the address falls silent by itself.
            error!(%ip, error = %chain(&e), "gate not written");
        }
    }

    async fn add(&mut self, guard: &mut Guard, batch: Vec<Address>) -> Vec<GuardAction> {
        let host = match self.kernel.host_addresses().await {
            Ok(host) => host,
            Err(e) => return refuse(guard, batch.first(), &e.to_string()),
        };
        let mut located = vec![];
        for address in batch {
            if let Some(text) = objection(&self.allow, &host, address.ip) {
                return refuse(guard, Some(&address), &text);
            }
            match self.kernel.interface_for(&address, &self.links).await {
                Ok(ifindex) => {
                    if !self.has_link(ifindex) {
                        return refuse(guard, Some(&address), NO_LINK);
                    }
                    if let Some(text) = self.ungated(address.ip, ifindex) {
                        return refuse(guard, Some(&address), &text);
                    }
                    located.push((address, ifindex));
                }
                Err(e) => return refuse(guard, Some(&address), &e.to_string()),
            }
        }
        let added = located.iter().map(|(address, at)| self.kernel.add(address, *at));
        let results = join_all(added).await;
        let mut failed = None;
        for ((address, ifindex), result) in located.into_iter().zip(results) {
            match result {
                Ok(()) => {
                    self.placed.insert(address.ip, (address, ifindex));
                }
                Err(e) => failed = Some((address, e)),
            }
        }
        if let Some((address, e)) = failed {
            return refuse(guard, Some(&address), &e.to_string());
        }
        vec![]
    }

    /// Why the gate would not hold an address on an interface, if it would not.
    fn ungated(&mut self, ip: IpAddr, ifindex: u32) -> Option<String> {
        let gate = self.gate.as_mut()?;
        let device = self.links.iter().map(|l| l.device).find(|d| d.ifindex == ifindex);
        let Some(device) = device else { return Some("its interface is gone".into()) };
        if let Err(e) = gate.ensure_first(device, &self.stale) {
            return Some(chain(&e));
        }
        gate.deadline(ip).is_none().then(|| "the gate did not take its deadline".into())
    }

    /// Whether all of them are gone.
    async fn delete(&mut self, batch: Vec<Address>) -> bool {
        let mut all = true;
        let placed: Vec<_> = batch.iter().filter_map(|a| self.placed.remove(&a.ip)).collect();
        let deleted = placed.iter().map(|(address, at)| self.kernel.delete(address, *at));
        for ((address, _), result) in placed.iter().zip(join_all(deleted).await) {
            if let Err(error) = result {
                // The gate is shut; the reconciler and valid_lft follow up.
                warn!(ip = %address.ip, %error, "address not deleted");
                all = false;
            }
        }
        all
    }

    async fn refresh(&mut self, addresses: &[Address]) {
        let placed: Vec<_> = addresses.iter().filter_map(|a| self.placed.get(&a.ip)).collect();
        let added = placed.iter().map(|(address, at)| self.kernel.add(address, *at));
        for result in join_all(added).await {
            if let Err(error) = result {
                warn!(%error, "life of an address not renewed");
            }
        }
    }

    fn announce(&self, addresses: &[Address]) {
        for address in addresses {
            let Some((_, ifindex)) = self.placed.get(&address.ip) else { continue };
            let link = self.links.iter().find(|l| l.device.ifindex == *ifindex);
            let Some(mac) = link.and_then(|l| l.mac) else { continue };
            for frame in announcement(mac, address.ip) {
                if let Err(error) = self.sender.send(*ifindex, &frame) {
                    debug!(ip = %address.ip, %error, "announcement not sent; it is repeated");
                }
            }
        }
    }

    /// Takes the gate off, after every address was deleted.
    fn detach(&mut self) {
        let Some(gate) = &mut self.gate else { return };
        let devices: Vec<Device> = self.links.iter().map(|l| l.device).collect();
        for device in devices {
            if let Err(e) = gate.detach(device) {
                debug!(error = %chain(&e), "gate not taken off");
            }
        }
    }
}

fn refuse(guard: &mut Guard, address: Option<&Address>, text: &str) -> Vec<GuardAction> {
    let Some(address) = address else { return vec![] };
    error!(ip = %address.ip, text, "cannot add the address");
    let (ip, text) = (address.ip, text.to_owned());
    guard.step(boottime(), GuardEvent::AddressRefused { ip, text })
}

async fn notify(notice: &GuardNotice, writer: Option<&mut OwnedWriteHalf>) {
    debug!(?notice, "notice");
    if let Some(writer) = writer {
        // A broken connection shows as the end of orders.
        let _ = write_frame(writer, &FromGuard::Notice(notice.clone())).await;
    }
}

/// Boot id and program ids: ids start again at each boot.
fn recorded_programs(path: &Path) -> BTreeSet<u32> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let mut lines = text.lines();
    if lines.next() != Some(boot_id().as_str()) {
        return BTreeSet::new();
    }
    lines.filter_map(|line| line.parse().ok()).collect()
}

fn record_programs(path: &Path, ids: &BTreeSet<u32>) -> io::Result<()> {
    let mut text = boot_id() + "\n";
    for id in ids {
        text += &format!("{id}\n");
    }
    std::fs::write(path, text)
}

fn boot_id() -> String {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    text.trim().to_owned()
}

/// An error with its causes, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text += &format!(": {cause}");
        source = cause.source();
    }
    text
}
