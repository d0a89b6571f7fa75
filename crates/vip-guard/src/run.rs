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

mod succeed;

use crate::at_vip::Asker;
use crate::clock::boottime;
use crate::config::{GuardConfig, GuardError};
use crate::forwarder::Forwarder;
use crate::hand_over::{Approach, Estate, HeldSignals, Left, Succession};
use crate::host::{Host, LinkChange, RECONCILE_INTERVAL, SERVING_LIFE};
use crate::kernel::{Kernel, KernelEvent};
use crate::lock::{self, Namespace};
use crate::packets::Listener;
use crate::protocol::{FromGuard, GateReport, ToGuard};
use crate::realtime::realtime;
use crate::records::recorded_addresses;
use crate::session::{Arrival, Door, Session};
use crate::settings::Settings;
use crate::tables::TableLane;
use crate::told::Told;
use crate::ways::{Scenery, Ways};
use arc_swap::ArcSwap;
use futures_util::StreamExt;
use nix::fcntl::Flock;
use std::collections::BTreeSet;
use std::fs::File;
use std::net::IpAddr;
use std::os::fd::RawFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until};
use tracing::{error, info, warn};
use vip_core::{
    Address, Guard, GuardAction, GuardEvent, GuardNotice, Limits, Mono, Obstacle, Profile,
    TableCounters, VipOrder, Why,
};
use vip_datapath::ForwardEngine;

/// The host's addresses and routes, in case the kernel's word was lost. A router
/// has many.
const LOOK_INTERVAL: Duration = Duration::from_secs(30);
/// A host's addresses and routes change several at a time.
const LOOK_AFTER: Duration = Duration::from_millis(10);
/// Another program of this process sees to what waits for it first.
const RESUMED_LOOK: Duration = Duration::from_millis(50);

/// Removes the addresses that an earlier run left, puts back what it set, and
/// nothing else.
///
/// # Errors
/// [`GuardError`], if the kernel cannot be asked, or a guard runs: those are
/// its addresses.
pub async fn purge() -> Result<Vec<IpAddr>, GuardError> {
    let namespace = Namespace::take()?;
    let (kernel, _events, _task) = Kernel::open()?;
    kernel.unmarked().are(recorded_addresses(&namespace.addresses()));
    let left = kernel.our_addresses().await?;
    let mut purged = vec![];
    for (ip, message) in left {
        kernel.delete_message(message).await?;
        purged.push(ip);
    }
    for route in kernel.our_routes().await? {
        kernel.delete_route(route).await?;
    }
    let _ = std::fs::remove_file(namespace.addresses());
    Settings::restore_recorded(&namespace.settings());
    Ok(purged)
}

/// What a guard begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begin {
    /// Nothing: what an earlier run left is undone.
    Anew,
    /// What the program before it in this process had, which is written behind this
    /// descriptor.
    After(RawFd),
}

/// Runs the guard until `stop` resolves; then it lets go of everything. `ready`
/// is called when its socket answers. In a current-thread runtime, and with both kinds of
/// call heard from before this is called on.
///
/// # Errors
/// [`GuardError`]; nothing is held then, or what was held shuts on time.
pub async fn run(
    config: GuardConfig,
    begin: Begin,
    mut succession: Succession,
    stop: impl Future<Output = ()>,
    ready: impl FnOnce(),
) -> Result<(), GuardError> {
    let (mut guard_loop, mut house) = match begin {
        Begin::Anew => anew(&config).await?,
        Begin::After(number) => after(&config, number)?,
    };
    ready();
    let result = guard_loop.serve(&mut house, &mut succession, stop).await;
    let _ = std::fs::remove_file(&house.socket);
    result
}

/// What stays while the loop runs.
struct House {
    socket: PathBuf,
    socket_lock: Flock<File>,
    namespace: Namespace,
    door: Door,
}

type Handed = (Option<ForwardEngine>, Arc<ArcSwap<Scenery>>);

/// The second lane, which waits for what it forwards by.
fn start_tables(
    config: &GuardConfig,
    (told, served): (Told, watch::Sender<BTreeSet<Address>>),
) -> Result<(TableLane, SyncSender<Handed>), GuardError> {
    let (hand_over, handed) = sync_channel(1);
    let allow = config.allow_real.clone();
    // They are this thread's, which holds them when it has to.
    let _held = HeldSignals::hold().map_err(GuardError::Resume)?;
    let (asker, scene) = Asker::start(config.allow_real.clone());
    let tables = TableLane::start(move || {
        let (engine, scenery): Handed = handed.recv().ok()?;
        let _ = scene.set(scenery.clone());
        let ways = Ways::open(scenery, allow);
        let ways = ways.inspect_err(|error| error!(%error, "no virtual server is forwarded"));
        let mut forwarder = Forwarder::new(engine, ways.ok()?, served, told);
        Some(move |work| forwarder.carry_out(work))
    });
    let thread = |source| GuardError::Rights { what: "starting a thread for tables", source };
    Ok((tables.map_err(thread)?.with_asker(asker), hand_over))
}

fn limits(report: &GateReport) -> Limits {
    Limits {
        // Replicated timings reach the guard only as deadlines; the longest of
        // any profile bounds what a confused agent can ask for.
        longest_grant: Profile::Wan.timing().grant,
        gate_to_wire: Profile::Wan.timing().gate_to_wire,
        gated: matches!(report, GateReport::Enforced { .. }),
    }
}

async fn anew(config: &GuardConfig) -> Result<(Loop, House), GuardError> {
    let socket_lock = lock::socket(&config.socket)?;
    let namespace = Namespace::take()?;
    let (tell_served, served) = watch::channel(BTreeSet::new());
    let (tables, hand_over) = start_tables(config, (Told::default(), tell_served))?;
    let realtime = realtime();
    let mut host = Host::open(config, &namespace).await?;
    host.purge().await?;
    // Its room is empty, so this waits for nothing.
    let _ = hand_over.send(host.forwards(None)?);
    let socket = config.socket.clone();
    let file = |source| GuardError::File { path: socket.clone(), source };
    let door = Door::open(&socket).map_err(file)?;
    info!(socket = %socket.display(), gate = ?host.report, realtime, "guard ready");
    let guard = Guard::new(limits(&host.report));
    let house = House { socket, socket_lock, namespace, door };
    Ok((Loop::new(guard, host, tables, served), house))
}

/// As soon as can be: deadlines run meanwhile.
fn after(config: &GuardConfig, number: RawFd) -> Result<(Loop, House), GuardError> {
    let begun = Instant::now();
    HeldSignals::let_come().map_err(GuardError::Resume)?;
    let estate = Estate::read(number).map_err(GuardError::Resume)?;
    let (tell_served, served) = watch::channel(estate.host.served().clone());
    let told = estate.forwarder.told;
    let (tables, hand_over) = start_tables(config, (told, tell_served))?;
    let realtime = realtime();
    let namespace = Namespace::inherit(estate.namespace).map_err(GuardError::Resume)?;
    let mut host = Host::inherit(estate.host, (config, &estate.socket), &namespace)?;
    let forwards = host.forwards(estate.forwarder.engine)?;
    let guard = estate.guard.inherited(limits(&host.report));
    let door = Door::inherit(estate.door).map_err(GuardError::Resume)?;
    let socket_lock = lock::inherit(estate.socket_lock).map_err(GuardError::Resume)?;
    // The agent does not say it again.
    tables.listen(estate.forwarder.listens);
    let mut guard_loop = Loop::new(guard, host, tables, served);
    let session = estate.session.map(|left| Session::inherit(left, &guard_loop.tables));
    guard_loop.session = session.transpose().map_err(GuardError::Resume)?;
    guard_loop.agent_seen_at = estate.agent_seen_at;
    // It tells the agent of what it sees.
    let _ = hand_over.send(forwards);
    // Whatever the kernel said meanwhile nobody heard.
    guard_loop.look_at = Some(begun + RESUMED_LOOK);
    let held = guard_loop.guard.wanted_addresses().len();
    info!(held, realtime, took = ?begun.elapsed(), "guard goes on from the program before");
    let house = House { socket: estate.socket, socket_lock, namespace, door };
    Ok((guard_loop, house))
}

/// What the guard's process has: the decisions, the host that they are carried out
/// on, and the agent that they are for.
struct Loop {
    guard: Guard,
    host: Host,
    session: Option<Session>,
    tables: Arc<TableLane>,
    /// What real servers on this host are to take, as that lane works it out.
    served: watch::Receiver<BTreeSet<Address>>,
    /// When there was an agent.
    agent_seen_at: Mono,
    /// What the agent knows of that lane.
    counted: Option<TableCounters>,
    /// When the host's addresses and routes are to be looked at, because they
    /// changed.
    look_at: Option<Instant>,
    /// When they were, in case that a change was not heard of.
    looked_at: Instant,
    /// When the kernel was asked which of our addresses are there.
    compared_at: Option<Instant>,
}

/// What comes next.
enum Next {
    /// SIGTERM.
    Stop,
    /// From the agent.
    Said(ToGuard),
    /// For the decisions, as it is.
    Event(GuardEvent),
    /// An agent at the socket.
    Arrived(Arrival),
    /// From the kernel.
    Kernel(KernelEvent),
    /// The host's addresses and routes are to be looked at.
    Look,
    /// Real servers on this host are to take other addresses.
    Serve,
    /// Everything is compared with the kernel.
    Reconcile,
    /// Claims that wait for their turn.
    Backlog,
    /// Another program is to go on with this process.
    Succeed,
    /// It may, or not.
    Leave(Left),
}

impl Loop {
    fn new(
        guard: Guard,
        host: Host,
        tables: TableLane,
        served: watch::Receiver<BTreeSet<Address>>,
    ) -> Self {
        let now = Instant::now();
        Self {
            guard,
            host,
            session: None,
            tables: Arc::new(tables),
            served,
            agent_seen_at: boottime(),
            counted: None,
            look_at: None,
            looked_at: now,
            compared_at: None,
        }
    }

    /// Until `stop` resolves; then it lets go of everything.
    async fn serve(
        &mut self,
        house: &mut House,
        succession: &mut Succession,
        stop: impl Future<Output = ()>,
    ) -> Result<(), GuardError> {
        let rights = |what| move |source| GuardError::Rights { what, source };
        let claims = Listener::open().map_err(rights("listening for ARP"));
        let result = match claims {
            Ok(claims) => {
                self.turn(house, &claims, succession, stop).await;
                Ok(())
            }
            Err(error) => Err(error),
        };
        self.act(GuardEvent::Stop).await;
        self.host.detach().await;
        result
    }

    async fn turn(
        &mut self,
        house: &mut House,
        claims: &Listener,
        succession: &mut Succession,
        stop: impl Future<Output = ()>,
    ) {
        let mut approach = Approach::new();
        let mut reconcile = interval(RECONCILE_INTERVAL);
        reconcile.set_missed_tick_behavior(MissedTickBehavior::Delay);
        tokio::pin!(stop);
        loop {
            let wait = self.guard.next_tick().map(|at| at.since(boottime()));
            let (look_at, backlog) = (self.look_at, self.has_backlog());
            let next = tokio::select! {
                biased;
                () = &mut stop => Next::Stop,
                said = next_order(&mut self.session) => match said {
                    Some(said) => Next::Said(said),
                    None => {
                        warn!("the agent is gone; letting go of everything");
                        self.session = None;
                        Next::Event(GuardEvent::AgentGone)
                    }
                },
                () = sleep(wait.unwrap_or_default()), if wait.is_some() => {
                    Next::Event(GuardEvent::Tick)
                }
                Some(arrival) = house.door.arrivals.recv() => Next::Arrived(arrival),
                Some(()) = succession.asked.recv() => Next::Succeed,
                left = approach.next() => Next::Leave(left),
                Some(event) = self.host.events.next() => Next::Kernel(event),
                () = sleep_until(look_at.unwrap_or_else(Instant::now)), if look_at.is_some() => {
                    Next::Look
                }
                Ok(()) = self.served.changed() => Next::Serve,
                _ = reconcile.tick() => Next::Reconcile,
                () = std::future::ready(()), if backlog => Next::Backlog,
                // Last: anybody on the network can make many of these.
                Ok((mac, ip)) = claims.claim() => {
                    if self.host.is_own_mac(mac) {
                        continue;
                    }
                    Next::Event(GuardEvent::ForeignClaim { ip, mac })
                }
            };
            match next {
                Next::Stop => return,
                Next::Said(said) => self.said(said).await,
                Next::Event(event) => self.act(event).await,
                Next::Arrived(arrival) => self.arrived(arrival).await,
                Next::Kernel(event) => self.kernel(event).await,
                Next::Look => {
                    self.look_at = None;
                    self.look_around().await;
                }
                Next::Serve => self.follow_served().await,
                Next::Reconcile => self.reconcile().await,
                Next::Backlog => self.work_on_backlog().await,
                Next::Succeed => approach.begin(&self.tables),
                Next::Leave(left) => {
                    let step = self.approached(left, (house, succession), &mut approach, &mut stop);
                    if step.await.is_break() {
                        return;
                    }
                }
            }
        }
    }

    fn has_backlog(&self) -> bool {
        self.session.as_ref().is_some_and(|session| !session.backlog.is_empty())
    }

    fn tell(&mut self, message: FromGuard) {
        if let Some(session) = &mut self.session {
            session.tell(message);
        }
    }

    async fn said(&mut self, said: ToGuard) {
        match said {
            ToGuard::Orders(orders) => self.take_orders(orders).await,
            ToGuard::Ping => self.tell(FromGuard::Alive),
            ToGuard::Consider(all) => {
                self.host.consider(all);
                // The interface may have been made for it just now.
                self.follow_links().await;
                self.look_around().await;
                let hindered = self.host.hindered();
                self.tell(FromGuard::Hindered(hindered));
            }
            ToGuard::Members(macs) => self.host.members_are(&macs),
            ToGuard::Confirmed => self.act(GuardEvent::Confirmed).await,
            // They went the other way.
            ToGuard::Tables(_) | ToGuard::Count(_) | ToGuard::AskAtVip(..) | ToGuard::Listen(_) => {
            }
        }
    }

    async fn kernel(&mut self, event: KernelEvent) {
        match event {
            KernelEvent::AddressGone(ip) => {
                self.act(GuardEvent::AddressGone(ip)).await;
                return;
            }
            KernelEvent::LinksChanged => {
                self.host.view_is_old = true;
                self.follow_links().await;
            }
            KernelEvent::HostChanged => self.host.view_is_old = true,
        }
        self.look_at.get_or_insert_with(|| Instant::now() + LOOK_AFTER);
    }

    async fn reconcile(&mut self) {
        self.tell_counters();
        self.follow_links().await;
        if self.looked_at.elapsed() >= LOOK_INTERVAL {
            self.look_around().await;
            self.looked_at = Instant::now();
        }
        self.host.keep_settings();
        if self.session.is_some() {
            self.agent_seen_at = boottime();
        } else if boottime().since(self.agent_seen_at) >= SERVING_LIFE {
            // Of a node that left nobody says that it did.
            self.host.abandon_serving();
        }
        self.host.reconcile_serving().await;
        // Ticks are no more exact than that.
        let elapsed = self.compared_at.map(|at| at.elapsed() + RECONCILE_INTERVAL / 2);
        let due = elapsed.is_none_or(|elapsed| elapsed >= self.host.compare_interval());
        if due || self.guard.has_expired() || !self.guard.departed().is_empty() {
            self.compared_at = Some(Instant::now());
            for event in self.host.reconcile_addresses(&self.guard).await {
                self.act(event).await;
            }
        }
    }

    /// One agent at a time; and none while something that an earlier one held may
    /// still answer.
    async fn arrived(&mut self, arrival: Arrival) {
        if self.session.as_ref().is_some_and(|session| session.is_with(&arrival)) {
            // It gave the old session up; its end was not read yet.
            warn!("the agent begins anew; letting go of everything");
            self.session = None;
            self.act(GuardEvent::AgentGone).await;
        }
        if self.session.is_some() || !self.guard.is_silent() {
            arrival.refuse();
            return;
        }
        let cluster = arrival.cluster.clone();
        if let Some((incarnation, new)) = arrival.admit(self.host.report.clone(), &self.tables) {
            self.session = Some(new);
            self.counted = None;
            self.follow_served().await;
            self.host.forget_refusals();
            self.tell_interfaces();
            self.act(GuardEvent::AgentCame { incarnation, cluster }).await;
        }
    }

    /// Deadlines are set at once, claims wait for their turn.
    async fn take_orders(&mut self, orders: Vec<VipOrder>) {
        let mut lists = vec![];
        for order in orders {
            match (order, self.session.as_mut()) {
                (VipOrder::Extend { incarnation, deadlines }, _) => {
                    // What the kernel refuses of one VIP stops only that one.
                    lists.extend(deadlines.into_iter().map(|one| {
                        let order = VipOrder::Extend { incarnation, deadlines: vec![one] };
                        self.guard.step(boottime(), GuardEvent::Order(order))
                    }));
                }
                (all @ VipOrder::ExtendAll { .. }, _) => {
                    // What was said before is true of all that it is about.
                    self.carry_out(std::mem::take(&mut lists)).await;
                    lists.push(self.guard.step(boottime(), GuardEvent::Order(all)));
                }
                (order, Some(session)) => session.backlog.push_back(order),
                (_, None) => {}
            }
        }
        self.carry_out(lists).await;
    }

    async fn work_on_backlog(&mut self) {
        let chunk = self.session.as_mut().map(Session::next_chunk).unwrap_or_default();
        let step = |order| self.guard.step(boottime(), GuardEvent::Order(order));
        let lists = chunk.into_iter().map(step).collect();
        self.carry_out(lists).await;
    }

    /// An address on an interface without a link is of no use to anybody, and one
    /// that may answer beyond its lease must not stay.
    async fn follow_links(&mut self) {
        let change = self.host.reconcile_links().await;
        self.tell_interfaces();
        for ip in self.host.without_link() {
            warn!(%ip, "the interface of a VIP has no link; letting go of it");
            let obstacle = Obstacle { ip, why: Why::NoLink };
            self.act(GuardEvent::AddressRefused(obstacle)).await;
        }
        for obstacle in self.host.exposed() {
            warn!(%obstacle, "a VIP could answer beyond its lease; letting go of it");
            self.act(GuardEvent::AddressRefused(obstacle)).await;
        }
        match change {
            Some(LinkChange::Back) => self.act(GuardEvent::LinkBack).await,
            Some(LinkChange::Ways) => self.act(GuardEvent::Confirmed).await,
            None => {}
        }
    }

    /// As the second lane has it, while there is an agent that wants it so.
    async fn follow_served(&mut self) {
        let wanted = self.served.borrow_and_update().clone();
        if self.session.is_some() {
            self.host.serve(wanted).await;
        }
    }

    fn tell_counters(&mut self) {
        let counters = Some(self.tables.counters());
        if self.session.as_ref().is_some_and(Session::has_tables) && self.counted != counters {
            self.counted = counters;
            counters.map(FromGuard::TableCounters).into_iter().for_each(|word| self.tell(word));
        }
    }

    fn tell_interfaces(&mut self) {
        if self.session.is_some()
            && let Some(macs) = self.host.new_macs()
        {
            self.tell(FromGuard::Interfaces(macs));
        }
    }

    /// Addresses and routes of the host say where ours belong.
    async fn look_around(&mut self) {
        let (astray, try_again) = self.host.look_around().await;
        self.tables.look_again();
        for obstacle in astray {
            warn!(%obstacle, "a VIP is not where it belongs; letting go of it");
            self.act(GuardEvent::AddressRefused(obstacle)).await;
        }
        self.tell_interfaces();
        if let Some(hindered) = self.host.newly_hindered() {
            self.tell(FromGuard::Hindered(hindered));
        }
        if try_again {
            self.act(GuardEvent::HostChanged).await;
        }
    }

    async fn act(&mut self, event: GuardEvent) {
        let actions = self.guard.step(boottime(), event);
        self.carry_out(vec![actions]).await;
    }

    async fn carry_out(&mut self, lists: Vec<Vec<GuardAction>>) {
        let notices = self.host.carry_out(&mut self.guard, lists).await;
        for notice in &notices {
            if let GuardNotice::Conflict { ip, mac, .. } = notice {
                warn!(%ip, %mac, "another host claims an address of a VIP");
            }
        }
        if !notices.is_empty() {
            self.tell(FromGuard::Notices(notices));
        }
    }
}

async fn next_order(session: &mut Option<Session>) -> Option<ToGuard> {
    match session {
        Some(session) => session.next().await,
        None => std::future::pending().await,
    }
}
