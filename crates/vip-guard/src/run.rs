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

use crate::clock::boottime;
use crate::config::{GuardConfig, GuardError};
use crate::host::{Host, LinkChange};
use crate::kernel::{Kernel, KernelEvent};
use crate::lock::{self, Namespace};
use crate::packets::Listener;
use crate::protocol::{FromGuard, GateReport, ToGuard};
use crate::realtime::realtime;
use crate::records::recorded_addresses;
use crate::session::{Arrival, Session, listen};
use crate::settings::Settings;
use futures_util::StreamExt;
use std::net::IpAddr;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until};
use tracing::{info, warn};
use vip_core::{
    Guard, GuardAction, GuardEvent, GuardNotice, Limits, Obstacle, Profile, VipOrder, Why,
};

/// Everything is compared with the kernel this often, in case an event was
/// lost or somebody attached a program before ours.
const RECONCILE_INTERVAL: Duration = Duration::from_secs(1);

/// The host's addresses and routes, in case the kernel's word was lost. A router
/// has many.
const LOOK_INTERVAL: Duration = Duration::from_secs(30);
/// A host's addresses and routes change several at a time.
const LOOK_AFTER: Duration = Duration::from_millis(10);

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
    let _lock = lock::socket(&config.socket)?;
    let namespace = Namespace::take()?;
    let realtime = realtime();
    let mut host = Host::open(&config, &namespace).await?;
    host.purge().await?;
    let socket = |source| GuardError::File { path: config.socket.clone(), source };
    let arrivals = listen(&config.socket).map_err(socket)?;
    info!(socket = %config.socket.display(), gate = ?host.report, realtime, "guard ready");
    ready();

    let limits = Limits {
        // Replicated timings reach the guard only as deadlines; the longest of
        // any profile bounds what a confused agent can ask for.
        longest_grant: Profile::Wan.timing().grant,
        gate_to_wire: Profile::Wan.timing().gate_to_wire,
        gated: matches!(host.report, GateReport::Enforced { .. }),
    };
    let mut guard = Guard::new(limits);
    let result = serve(&mut guard, &mut host, arrivals, stop).await;
    let actions = guard.step(boottime(), GuardEvent::Stop);
    host.carry_out(&mut guard, vec![actions]).await;
    host.detach().await;
    let _ = std::fs::remove_file(&config.socket);
    result
}

async fn serve(
    guard: &mut Guard,
    host: &mut Host,
    mut arrivals: mpsc::Receiver<Arrival>,
    stop: impl Future<Output = ()>,
) -> Result<(), GuardError> {
    let rights = |what| move |source| GuardError::Rights { what, source };
    let claims = Listener::open().map_err(rights("listening for ARP"))?;
    let mut reconcile = interval(RECONCILE_INTERVAL);
    reconcile.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut session: Option<Session> = None;
    let mut look_at: Option<Instant> = None;
    let mut looked_at = Instant::now();
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
                        session.tell(FromGuard::Alive);
                    }
                    continue;
                }
                Some(ToGuard::Consider(all)) => {
                    host.consider(all);
                    // The interface may have been made for it just now.
                    follow_links(guard, host, &mut session).await;
                    look_around(guard, host, &mut session).await;
                    if let Some(session) = &mut session {
                        session.tell(FromGuard::Hindered(host.hindered()));
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
            Some(arrival) = arrivals.recv() => {
                arrived(guard, host, &mut session, arrival).await;
                continue;
            }
            Some(event) = host.events.next() => match event {
                KernelEvent::AddressGone(ip) => GuardEvent::AddressGone(ip),
                KernelEvent::LinksChanged => {
                    host.view_is_old = true;
                    follow_links(guard, host, &mut session).await;
                    look_at.get_or_insert_with(|| Instant::now() + LOOK_AFTER);
                    continue;
                }
                KernelEvent::HostChanged => {
                    host.view_is_old = true;
                    look_at.get_or_insert_with(|| Instant::now() + LOOK_AFTER);
                    continue;
                }
            },
            () = sleep_until(look_at.unwrap_or_else(Instant::now)), if look_at.is_some() => {
                look_at = None;
                look_around(guard, host, &mut session).await;
                continue;
            }
            _ = reconcile.tick() => {
                follow_links(guard, host, &mut session).await;
                if looked_at.elapsed() >= LOOK_INTERVAL {
                    look_around(guard, host, &mut session).await;
                    looked_at = Instant::now();
                }
                for event in host.reconcile_addresses(guard).await {
                    act(guard, host, &mut session, event).await;
                }
                continue;
            }
            () = std::future::ready(()), if session.as_ref().is_some_and(|s| !s.backlog.is_empty()) => {
                work_on_backlog(guard, host, &mut session).await;
                continue;
            }
            // Last: anybody on the network can make many of these.
            Ok((mac, ip)) = claims.claim() => {
                if host.is_own_mac(mac) {
                    continue;
                }
                GuardEvent::ForeignClaim { ip, mac }
            }
        };
        act(guard, host, &mut session, event).await;
    }
}

/// One agent at a time; and none while something that an earlier one held may
/// still answer.
async fn arrived(
    guard: &mut Guard,
    host: &mut Host,
    session: &mut Option<Session>,
    arrival: Arrival,
) {
    if session.as_ref().is_some_and(|session| session.is_with(&arrival)) {
        // It gave the old session up; its end was not read yet.
        warn!("the agent begins anew; letting go of everything");
        *session = None;
        act(guard, host, session, GuardEvent::AgentGone).await;
    }
    if session.is_some() || !guard.is_silent() {
        arrival.refuse();
        return;
    }
    let cluster = arrival.cluster.clone();
    if let Some((incarnation, new)) = arrival.admit(host.report.clone()) {
        *session = Some(new);
        host.forget_refusals();
        tell_interfaces(host, session);
        act(guard, host, session, GuardEvent::AgentCame { incarnation, cluster }).await;
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

/// An address on an interface without a link is of no use to anybody, and one
/// that may answer beyond its lease must not stay.
async fn follow_links(guard: &mut Guard, host: &mut Host, session: &mut Option<Session>) {
    let change = host.reconcile_links().await;
    tell_interfaces(host, session);
    for ip in host.without_link() {
        warn!(%ip, "the interface of a VIP has no link; letting go of it");
        let obstacle = Obstacle { ip, why: Why::NoLink };
        act(guard, host, session, GuardEvent::AddressRefused(obstacle)).await;
    }
    for obstacle in host.exposed() {
        warn!(%obstacle, "a VIP could answer beyond its lease; letting go of it");
        act(guard, host, session, GuardEvent::AddressRefused(obstacle)).await;
    }
    match change {
        Some(LinkChange::Back) => act(guard, host, session, GuardEvent::LinkBack).await,
        Some(LinkChange::Ways) => act(guard, host, session, GuardEvent::Confirmed).await,
        None => {}
    }
}

fn tell_interfaces(host: &mut Host, session: &mut Option<Session>) {
    if let Some(session) = session
        && let Some(macs) = host.new_macs()
    {
        session.tell(FromGuard::Interfaces(macs));
    }
}

/// Addresses and routes of the host say where ours belong.
async fn look_around(guard: &mut Guard, host: &mut Host, session: &mut Option<Session>) {
    let (astray, try_again) = host.look_around().await;
    for obstacle in astray {
        warn!(%obstacle, "a VIP is not where it belongs; letting go of it");
        act(guard, host, session, GuardEvent::AddressRefused(obstacle)).await;
    }
    tell_interfaces(host, session);
    let hindered = host.newly_hindered();
    if let (Some(session), Some(hindered)) = (session.as_mut(), hindered) {
        session.tell(FromGuard::Hindered(hindered));
    }
    if try_again {
        act(guard, host, session, GuardEvent::HostChanged).await;
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
    for notice in &notices {
        if let GuardNotice::Conflict { ip, mac, .. } = notice {
            warn!(%ip, %mac, "another host claims an address of a VIP");
        }
    }
    if let (Some(session), false) = (session, notices.is_empty()) {
        session.tell(FromGuard::Notices(notices));
    }
}

async fn next_order(session: &mut Option<Session>) -> Option<ToGuard> {
    match session {
        Some(session) => session.next().await,
        None => std::future::pending().await,
    }
}
