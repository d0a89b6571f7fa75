//! The connection to the guard, kept up.

use crate::forward::{IsNew, LinkEnd, TableNews};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{sleep, timeout};
use vip_core::{GuardNotice, Incarnation, Mac, Obstacle, TableCounters, VipUid};
use vip_guard::{FromGuard, GateReport, GuardReader, GuardWriter, LinkError, ToGuard, connect};

/// Orders that may wait for the socket. A guard that is further behind is
/// treated as gone.
const ORDERS_QUEUED: usize = 256;
/// What a guard says that nobody took up yet.
const NEWS_HELD: usize = 64;
/// A guard that just came is used once its virtual servers are as they should be: opened
/// before, a VIP would answer the connections of its real servers by itself, and end them.
/// One whose second lane says nothing for so long is used all the same.
const TABLES_PATIENCE: Duration = Duration::from_secs(1);
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
    /// One is there, and not in use yet.
    Came(GateReport),
    Up(Incarnation, Orders),
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
    mut tables: LinkEnd,
) {
    let mut attempts = 0u32;
    let mut complained = false;
    while !news.is_closed() {
        match connect(&socket, &cluster).await {
            Ok((writer, reader, incarnation, gate)) => {
                tracing::info!(%incarnation, ?gate, "guard connected");
                (attempts, complained) = (0, false);
                let session = Session { writer, reader, incarnation, gate };
                session.run(&news, &mut tables).await;
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

/// With one guard.
struct Session {
    writer: GuardWriter,
    reader: GuardReader,
    incarnation: Incarnation,
    gate: GateReport,
}

impl Session {
    /// Until one of the two has enough.
    async fn run(self, news: &mpsc::Sender<GuardNews>, tables: &mut LinkEnd) {
        let Self { writer, reader, incarnation, gate } = self;
        let (queue, waiting) = mpsc::channel::<ToGuard>(ORDERS_QUEUED);
        let (session, dropped) = oneshot::channel();
        let orders = Orders { queue, _session: session };
        let (in_step, stepped) = oneshot::channel();
        let (progress, progressed) = watch::channel(());
        let _ = tables.news.send(TableNews::Up {
            forwards: writer.forwards(),
            asks: writer.asks_at_vips(),
            in_step,
        });
        let (held, mut to_be_told) = mpsc::channel(NEWS_HELD);
        let is_new = tables.is_new.clone();
        let tell = async {
            if news.send(GuardNews::Came(gate)).await.is_err() {
                return;
            }
            let said = wait_and_hear(wait_for_tables(stepped, progressed, is_new), &mut to_be_told);
            let said = said.await.into_iter();
            let up = GuardNews::Up(incarnation, orders);
            for what in std::iter::once(up).chain(said) {
                if news.send(what).await.is_err() {
                    return;
                }
            }
            while let Some(what) = to_be_told.recv().await {
                if news.send(what).await.is_err() {
                    return;
                }
            }
        };
        let LinkEnd { news: table_news, orders: table_orders, counters, is_new: _ } = tables;
        tokio::select! {
            () = write(writer, waiting, table_orders, &held) => {}
            () = read(reader, &held, table_news, &progress, counters) => {}
            () = tell => {}
            _ = dropped => {}
        }
        counters.send_replace(TableCounters::default());
        let _ = table_news.send(TableNews::Down);
    }
}

async fn write(
    mut writer: GuardWriter,
    mut waiting: mpsc::Receiver<ToGuard>,
    of_tables: &mut mpsc::Receiver<ToGuard>,
    news: &mpsc::Sender<GuardNews>,
) {
    loop {
        let order = tokio::select! {
            biased;
            order = waiting.recv() => match order {
                Some(order) => order,
                None => return,
            },
            Some(of_tables) = of_tables.recv() => of_tables,
        };
        let order = writer.in_its_words(order);
        if writer.is_understood(&order) {
            if writer.send(&order).await.is_err() {
                return;
            }
        } else if matches!(order, ToGuard::Orders(_)) {
            let other = vec![GuardNotice::OtherCover];
            let _ = news.send(GuardNews::Notices(other)).await;
        }
    }
}

/// What the guard said until then, as it is now: it was told of no VIP, so all else is
/// about none.
async fn wait_and_hear(
    until: impl Future<Output = ()>,
    said: &mut mpsc::Receiver<GuardNews>,
) -> Option<GuardNews> {
    let mut interfaces = None;
    tokio::pin!(until);
    loop {
        tokio::select! {
            () = &mut until => return interfaces,
            Some(what) = said.recv() => {
                if matches!(what, GuardNews::Interfaces(_)) {
                    interfaces = Some(what);
                }
            }
        }
    }
}

/// Until the guard's tables are in step, or its second lane does not get on. It is told
/// nothing as long as the log here may be old: then nobody grants it anything either.
async fn wait_for_tables(
    mut stepped: oneshot::Receiver<()>,
    mut progress: watch::Receiver<()>,
    mut is_new: IsNew,
) {
    tokio::select! {
        _ = &mut stepped => return,
        _ = is_new.wait_for(|is_new| *is_new) => {}
    }
    loop {
        tokio::select! {
            _ = &mut stepped => return,
            progressed = timeout(TABLES_PATIENCE, progress.changed()) => {
                if !matches!(progressed, Ok(Ok(()))) {
                    tracing::warn!("virtual servers are not in force on this host yet");
                    return;
                }
            }
        }
    }
}

async fn read(
    mut reader: GuardReader,
    news: &mpsc::Sender<GuardNews>,
    tables: &mpsc::UnboundedSender<TableNews>,
    progress: &watch::Sender<()>,
    counters: &watch::Sender<TableCounters>,
) {
    while let Ok(message) = reader.receive().await {
        let sent = match message {
            FromGuard::Notices(notices) => news.send(GuardNews::Notices(notices)).await,
            FromGuard::Alive => news.send(GuardNews::Alive).await,
            FromGuard::Hindered(hindered) => news.send(GuardNews::Hindered(hindered)).await,
            FromGuard::Interfaces(macs) => news.send(GuardNews::Interfaces(macs)).await,
            FromGuard::Tables(notice) => {
                let _ = tables.send(TableNews::Said(notice));
                progress.send_replace(());
                Ok(())
            }
            FromGuard::TableCounters(now) => {
                counters.send_replace(now);
                Ok(())
            }
            FromGuard::Welcome { .. } | FromGuard::Busy => Ok(()),
        };
        if sent.is_err() {
            return;
        }
    }
}
