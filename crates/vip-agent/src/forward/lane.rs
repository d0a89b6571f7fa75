//! The second lane to the guard: one end is the reconciler's, the other that of the link
//! which the lease thread keeps up. Neither holds the other up.

use tokio::sync::{mpsc, oneshot, watch};
use vip_core::{TableCounters, TableNotice};
use vip_guard::ToGuard;

/// Messages that may wait for the socket; the reconciler waits beyond it.
const QUEUED: usize = 256;

/// Whether the log here was once as new as the cluster's, since this agent started.
pub(crate) type IsNew = watch::Receiver<bool>;

/// What the link tells.
pub(crate) enum TableNews {
    /// A guard is there.
    Up {
        /// It knows how to forward. One that was started before an upgrade does not.
        forwards: bool,
        /// It asks real servers at VIPs.
        asks: bool,
        /// Told, or dropped, when a VIP may be opened there.
        in_step: oneshot::Sender<()>,
    },
    Down,
    Said(TableNotice),
}

/// The link's end.
pub(crate) struct LinkEnd {
    /// What it says is an answer to an order each, or said a few times a second at most.
    pub(crate) news: mpsc::UnboundedSender<TableNews>,
    pub(crate) orders: mpsc::Receiver<ToGuard>,
    pub(crate) counters: watch::Sender<TableCounters>,
    /// What is ordered follows a log that is new enough.
    pub(crate) is_new: IsNew,
}

/// The reconciler's end.
pub(super) struct Lane {
    pub(super) news: mpsc::UnboundedReceiver<TableNews>,
    pub(super) orders: mpsc::Sender<ToGuard>,
    pub(super) counters: watch::Receiver<TableCounters>,
}

pub(super) fn lane(is_new: IsNew) -> (LinkEnd, Lane) {
    let (to_reconciler, news) = mpsc::unbounded_channel();
    let (orders, to_guard) = mpsc::channel(QUEUED);
    let (counted, counters) = watch::channel(TableCounters::default());
    let link = LinkEnd { news: to_reconciler, orders: to_guard, counters: counted, is_new };
    (link, Lane { news, orders, counters })
}
