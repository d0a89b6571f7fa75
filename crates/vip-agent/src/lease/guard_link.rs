//! The connection to the guard, kept up.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::sleep;
use vip_core::{
    GuardNotice, Incarnation, Mac, Obstacle, TableCounters, TableNotice, TableOrder, VipUid,
    table_orders,
};
use vip_guard::{FromGuard, GateReport, GuardReader, LinkError, ToGuard, connect};

/// Orders that may wait for the socket. A guard that is further behind is
/// treated as gone.
const ORDERS_QUEUED: usize = 256;
/// The same of the second lane, in parts that hold up no order of the first.
const TABLES_QUEUED: usize = 256;
const TABLES_AT_ONCE: usize = 64;
/// Time between two attempts to connect: the guard is restarted at once.
const RETRY: Duration = Duration::from_millis(10);
/// After so many attempts, slower ones.
const FAST_RETRIES: u32 = 200;
const SLOW_RETRY: Duration = Duration::from_millis(250);

/// The way to the guard. Dropping it ends the session, also with a guard that
/// reads nothing any more.
pub(super) struct Orders {
    queue: mpsc::Sender<ToGuard>,
    _session: oneshot::Sender<()>,
}

impl Orders {
    /// Queues a message; false: the guard is hopelessly behind.
    pub(super) fn send(&self, message: ToGuard) -> bool {
        self.queue.try_send(message).is_ok()
    }
}

/// What the link tells the lease loop.
pub(super) enum GuardNews {
    Up(Incarnation, GateReport, Orders),
    Down,
    /// It answered a ping.
    Alive,
    Notices(Vec<GuardNotice>),
    Interfaces(BTreeSet<Mac>),
    Hindered(BTreeMap<VipUid, Obstacle>),
}

/// Connects, for as long as the receiver of news lives.
pub(super) async fn keep_connected(
    socket: PathBuf,
    cluster: String,
    news: mpsc::Sender<GuardNews>,
    counters: watch::Sender<TableCounters>,
) {
    let mut attempts = 0u32;
    let mut complained = false;
    while !news.is_closed() {
        match connect(&socket, &cluster).await {
            Ok((mut writer, reader, incarnation, gate)) => {
                tracing::info!(%incarnation, ?gate, "guard connected");
                (attempts, complained) = (0, false);
                let (queue, mut waiting) = mpsc::channel::<ToGuard>(ORDERS_QUEUED);
                let (session, dropped) = oneshot::channel();
                let orders = Orders { queue, _session: session };
                if news.send(GuardNews::Up(incarnation, gate, orders)).await.is_err() {
                    return;
                }
                let (tables, mut of_tables) = mpsc::channel::<Vec<TableOrder>>(TABLES_QUEUED);
                let write = async {
                    loop {
                        let order = tokio::select! {
                            biased;
                            order = waiting.recv() => match order {
                                Some(order) => order,
                                None => break,
                            },
                            Some(orders) = of_tables.recv() => ToGuard::Tables(orders),
                        };
                        let understood = writer.is_understood(&order);
                        if !understood && matches!(order, ToGuard::Tables(_)) {
                            continue;
                        }
                        if !understood {
                            let other = vec![GuardNotice::OtherCover];
                            let _ = news.send(GuardNews::Notices(other)).await;
                        } else if writer.send(&order).await.is_err() {
                            break;
                        }
                    }
                };
                tokio::select! {
                    () = write => {}
                    () = read(reader, &news, &tables, &counters) => {}
                    _ = dropped => {}
                }
                counters.send_replace(TableCounters::default());
                tracing::warn!("the guard is gone; VIPs held here fall silent until it is back");
                if news.send(GuardNews::Down).await.is_err() {
                    return;
                }
            }
            Err(
                e
                @ (LinkError::Busy(_) | LinkError::OtherClock(_) | LinkError::OtherVersion { .. }),
            ) => {
                if !complained {
                    tracing::error!("{e}");
                    complained = true;
                }
                sleep(SLOW_RETRY).await;
            }
            Err(e @ LinkError::Io { .. }) => {
                attempts += 1;
                if attempts == FAST_RETRIES {
                    tracing::warn!("{e}; this node holds no VIP until it does");
                }
                sleep(if attempts < FAST_RETRIES { RETRY } else { SLOW_RETRY }).await;
            }
        }
    }
}

async fn read(
    mut reader: GuardReader,
    news: &mpsc::Sender<GuardNews>,
    tables: &mpsc::Sender<Vec<TableOrder>>,
    counters: &watch::Sender<TableCounters>,
) {
    while let Ok(message) = reader.receive().await {
        let sent = match message {
            FromGuard::Notices(notices) => news.send(GuardNews::Notices(notices)).await,
            FromGuard::Alive => news.send(GuardNews::Alive).await,
            FromGuard::Hindered(hindered) => news.send(GuardNews::Hindered(hindered)).await,
            FromGuard::Interfaces(macs) => news.send(GuardNews::Interfaces(macs)).await,
            FromGuard::Tables(TableNotice::AllInForce(in_force)) => {
                // Nothing makes one yet.
                let orders = table_orders(&BTreeMap::new(), &in_force);
                for part in orders.chunks(TABLES_AT_ONCE) {
                    let _ = tables.try_send(part.to_vec());
                }
                Ok(())
            }
            FromGuard::TableCounters(now) => {
                counters.send_replace(now);
                Ok(())
            }
            FromGuard::Tables(TableNotice::InForce { .. })
            | FromGuard::Welcome { .. }
            | FromGuard::Busy => Ok(()),
        };
        if sent.is_err() {
            return;
        }
    }
}
