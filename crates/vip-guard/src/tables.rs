//! The second lane: tables are built and put in force on a thread of its own, and what
//! waits for it waits in a place of its own. Whoever is on the lease lane only ever
//! leaves something there.

use crate::at_vip::{Asked, Asker};
use crate::clock::boottime;
use crate::told::LeftForwarder;
use arc_swap::{ArcSwap, ArcSwapOption};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};
use tracing::error;
use vip_core::{AtVip, AtVipQuestion, Mono, ServerUid, TableCounters, TableNotice, TableOrder};

/// Virtual servers whose orders may wait: several times what a cluster has.
const WAITING: usize = 8192;
/// Messages of orders that may wait to be read.
const LETTERS: usize = 256;
/// Orders that are carried out together: their tables are one step for the kernel, and
/// those of the largest size have 16 MB together.
const AT_ONCE: usize = 128;
/// Ways to real servers are looked at again after so long, in case that the kernel's word
/// of a change was lost, or there was none: routes by gateways are not listened to.
const LOOK_INTERVAL: Duration = Duration::from_secs(10);

/// Who is mute is looked for as often, where the agent wants to know.
const HEAR_INTERVAL: Duration = Duration::from_millis(500);
/// What there is to do.
#[derive(Debug)]
pub(crate) enum Work {
    /// An agent came: it is told all that is in force.
    Tell,
    /// Each of another virtual server.
    Orders(Vec<TableOrder>),
    /// What was forwarded for it.
    Count(ServerUid),
    /// Of which virtual servers the agent wants to know who is mute.
    Listen(BTreeSet<ServerUid>),
    /// It is time to look who is.
    Hear,
    /// The host's network may be another one.
    Look,
    /// The next run of this process goes on from here, or nobody does and this one goes
    /// on: until that is known nothing is done.
    Leave(Leaving),
}

/// Who waits for what the lane leaves.
#[derive(Debug)]
pub(crate) struct Leaving {
    left: oneshot::Sender<(LeftForwarder, Resume)>,
}

/// Dropping it lets the lane go on.
#[derive(Debug)]
pub(crate) struct Resume(#[expect(dead_code, reason = "its end is the word")] SyncSender<()>);

impl Leaving {
    /// Leaves it, and waits for the word.
    pub(crate) fn leave(self, left: LeftForwarder) {
        let (resume, resumed) = sync_channel(0);
        if self.left.send((left, Resume(resume))).is_ok() {
            let _ = resumed.recv();
        }
    }
}

/// What the two lanes share. Nothing in it is waited for: a thread that is not in a
/// hurry could keep a lock for as long as the machine is busy.
#[derive(Default)]
struct Shared {
    /// Counts agents. What one ordered another did not.
    session: AtomicU64,
    agent: ArcSwapOption<mpsc::Sender<TableNotice>>,
    /// Of whom it wants to know who is mute.
    listens: ArcSwap<BTreeSet<ServerUid>>,
    /// The agent is to be told all: it came just now, or orders of its were lost.
    untold: AtomicBool,
    /// The host's network may be another one.
    unseen: AtomicBool,
    /// Something was left for the lane since it left what it has.
    stirred: AtomicBool,
    done: AtomicU64,
    overtaken: AtomicU64,
    /// Orders that were left and not taken up.
    waiting: AtomicU64,
    /// Since when there has been something to do, and nothing was done, in ns; 0: there
    /// is nothing.
    behind_since: AtomicU64,
    failed: AtomicBool,
}

/// What an agent wants.
enum Letter {
    Orders(u64, Vec<TableOrder>),
    Count(u64, ServerUid),
    Leave(Leaving),
    /// There is something to wake up for.
    Nothing,
}

/// The lane. Dropping it ends its thread after what that is busy with.
pub(crate) struct TableLane {
    shared: Arc<Shared>,
    letters: SyncSender<Letter>,
    /// Beside the thread, whatever that is busy with; `None`: nobody asks.
    asker: Option<Asker>,
}

impl Shared {
    fn has_something(&self) {
        let now = boottime().0;
        let _ = self.behind_since.compare_exchange(0, now, Relaxed, Relaxed);
    }

    /// A piece of work is begun, or done.
    fn goes_on(&self) {
        let more = self.waiting.load(Relaxed) > 0 || self.untold.load(Relaxed);
        self.behind_since.store(if more { boottime().0 } else { 0 }, Relaxed);
    }
}

impl TableLane {
    /// Starts the thread, which does all work with what `open` returns there; `None`: there
    /// is none to do.
    pub(crate) fn start<F: FnMut(Work) -> Vec<TableNotice>>(
        open: impl FnOnce() -> Option<F> + Send + 'static,
    ) -> io::Result<Self> {
        let shared = Arc::<Shared>::default();
        let (letters, left) = sync_channel(LETTERS);
        let of_thread = shared.clone();
        let run = move || {
            let work = AssertUnwindSafe(|| match open() {
                Some(carry_out) => Desk::new(&of_thread, left, LOOK_INTERVAL).work(carry_out),
                None => of_thread.failed.store(true, Relaxed),
            });
            if catch_unwind(work).is_err() {
                error!("the tables of virtual servers failed; leases go on");
                of_thread.failed.store(true, Relaxed);
            }
        };
        std::thread::Builder::new().name("tables".into()).spawn(run)?;
        Ok(Self { shared, letters, asker: None })
    }

    /// With somebody who asks at VIPs.
    pub(crate) fn with_asker(self, asker: Option<Asker>) -> Self {
        Self { asker, ..self }
    }

    /// From now on notices are for this agent, which is told all first. What an
    /// earlier one ordered and is not begun is void.
    pub(crate) fn serve(&self, agent: mpsc::Sender<TableNotice>) {
        self.shared.session.fetch_add(1, Relaxed);
        self.shared.listens.store(Arc::default());
        self.shared.agent.store(Some(Arc::new(agent)));
        self.tell_all();
    }

    /// The same, for an agent that was served before: it is told what happens from now on.
    pub(crate) fn serve_on(&self, agent: mpsc::Sender<TableNotice>) {
        self.shared.session.fetch_add(1, Relaxed);
        self.shared.agent.store(Some(Arc::new(agent)));
    }

    /// What the next run of this process goes on from, once all orders are carried out;
    /// `None`: there is no room to ask, or nobody to answer. The lane stands still while
    /// that is had.
    pub(crate) async fn leave(&self) -> Option<(LeftForwarder, Resume)> {
        let (left, leaves) = oneshot::channel();
        self.letters.try_send(Letter::Leave(Leaving { left })).ok()?;
        leaves.await.ok()
    }

    /// Whether somebody left something for the lane that it did not come to before it left
    /// what it has.
    pub(crate) fn is_stirred(&self) -> bool {
        self.shared.stirred.load(Relaxed)
    }

    /// Leaves orders to be carried out; never waits. If there is no room for them the
    /// agent is told all that is in force once there is, and orders what is missing.
    pub(crate) fn order(&self, orders: Vec<TableOrder>) {
        self.shared.stirred.store(true, Relaxed);
        let count = orders.len() as u64;
        self.shared.waiting.fetch_add(count, Relaxed);
        self.shared.has_something();
        let letter = Letter::Orders(self.shared.session.load(Relaxed), orders);
        if self.letters.try_send(letter).is_err() {
            self.shared.waiting.fetch_sub(count, Relaxed);
            self.tell_all();
        }
    }

    /// Asks for what was forwarded. Not answered while there is no room for more: whoever
    /// asked asks again.
    pub(crate) fn count(&self, server: ServerUid) {
        self.shared.stirred.store(true, Relaxed);
        let session = self.shared.session.load(Relaxed);
        let _ = self.letters.try_send(Letter::Count(session, server));
    }

    /// Asks whether a neighbour takes what is sent to a VIP; the agent is told within the time.
    pub(crate) fn ask_at_vip(&self, question: AtVipQuestion, limit: Duration) {
        let Some(agent) = self.shared.agent.load_full() else { return };
        let asked = Asked { question, limit, agent: agent.clone() };
        if !self.asker.as_ref().is_some_and(|asker| asker.ask(asked)) {
            // Who has no room for that takes it for the same.
            let _ = agent.try_send(TableNotice::AtVip(question, AtVip::NotAsked));
        }
    }

    /// Of these the agent is to be told who is mute.
    pub(crate) fn listen(&self, servers: BTreeSet<ServerUid>) {
        self.shared.stirred.store(true, Relaxed);
        self.shared.listens.store(Arc::new(servers));
        self.wake();
    }

    /// The host's network may be another one; never waits.
    pub(crate) fn look_again(&self) {
        self.shared.unseen.store(true, Relaxed);
        self.wake();
    }

    fn tell_all(&self) {
        self.shared.stirred.store(true, Relaxed);
        self.shared.untold.store(true, Relaxed);
        self.shared.has_something();
        self.wake();
    }

    /// Without room for a letter the thread has something to wake up for.
    fn wake(&self) {
        let _ = self.letters.try_send(Letter::Nothing);
    }

    pub(crate) fn counters(&self) -> TableCounters {
        let Shared { done, overtaken, waiting, behind_since, failed, .. } = &*self.shared;
        let behind = match behind_since.load(Relaxed) {
            0 => 0,
            since => boottime().since(Mono(since)).as_secs(),
        };
        TableCounters {
            done: done.load(Relaxed),
            overtaken: overtaken.load(Relaxed),
            waiting: u32::try_from(waiting.load(Relaxed)).unwrap_or(u32::MAX),
            behind_s: u32::try_from(behind).unwrap_or(u32::MAX),
            failed: failed.load(Relaxed),
        }
    }
}

/// The thread's.
struct Desk<'a> {
    shared: &'a Shared,
    letters: Receiver<Letter>,
    session: u64,
    orders: BTreeMap<ServerUid, TableOrder>,
    counts: BTreeSet<ServerUid>,
    /// As it was passed on.
    listens: Arc<BTreeSet<ServerUid>>,
    /// Absent where it wants nothing.
    hear_at: Option<Instant>,
    leaving: Option<Leaving>,
    /// That was the last thing.
    looked: bool,
    /// The host's network is looked at then, whatever else there is, and so long after.
    look_at: Instant,
    look_interval: Duration,
}

impl<'a> Desk<'a> {
    fn new(shared: &'a Shared, letters: Receiver<Letter>, look_interval: Duration) -> Self {
        // What the host's network is like nobody has said yet.
        shared.unseen.store(true, Relaxed);
        let (orders, counts) = Default::default();
        let look_at = Instant::now() + look_interval;
        let (session, leaving, looked) = (0, None, false);
        Self {
            shared,
            letters,
            session,
            orders,
            counts,
            listens: Arc::default(),
            hear_at: None,
            leaving,
            looked,
            look_at,
            look_interval,
        }
    }

    fn work(mut self, mut carry_out: impl FnMut(Work) -> Vec<TableNotice>) {
        while let Some(work) = self.next() {
            let orders = if let Work::Orders(orders) = &work { orders.len() } else { 0 };
            self.shared.goes_on();
            let notices = carry_out(work);
            // This lane may wait for its agent. One that is gone is told nothing.
            if let Some(agent) = self.shared.agent.load_full() {
                for notice in notices {
                    let _ = agent.blocking_send(notice);
                }
            }
            self.shared.done.fetch_add(orders as u64, Relaxed);
            self.shared.goes_on();
        }
    }

    /// Waits for the next thing to do; `None` at the end.
    fn next(&mut self) -> Option<Work> {
        loop {
            while let Ok(letter) = self.letters.try_recv() {
                self.read(letter);
            }
            self.follow_agent();
            if self.shared.untold.swap(false, Relaxed) {
                return Some(Work::Tell);
            }
            let listens = self.shared.listens.load_full();
            if listens != self.listens {
                self.listens = listens;
                self.hear_at = (!self.listens.is_empty()).then(Instant::now);
                return Some(Work::Listen(BTreeSet::clone(&self.listens)));
            }
            // Neither keeps the other waiting, however often there is more of it.
            let turn = !self.looked || self.orders.is_empty();
            let is_due = Instant::now() >= self.look_at;
            if turn && (self.shared.unseen.swap(false, Relaxed) || is_due) {
                self.looked = true;
                self.look_at = Instant::now() + self.look_interval;
                return Some(Work::Look);
            }
            if !self.orders.is_empty() {
                self.looked = false;
                let next = std::iter::from_fn(|| self.orders.pop_first().map(|(_, order)| order));
                let orders: Vec<_> = next.take(AT_ONCE).collect();
                self.taken(orders.len());
                return Some(Work::Orders(orders));
            }
            if let Some(server) = self.counts.pop_first() {
                return Some(Work::Count(server));
            }
            if let Some(at) = self.hear_at.filter(|at| *at <= Instant::now()) {
                self.hear_at = Some(at.max(Instant::now() - HEAR_INTERVAL) + HEAR_INTERVAL);
                return Some(Work::Hear);
            }
            if let Some(leaving) = self.leaving.take() {
                // What comes from here on is not in it; what came just before is first.
                self.shared.stirred.store(false, Relaxed);
                if let Ok(letter) = self.letters.try_recv() {
                    self.leaving = Some(leaving);
                    self.read(letter);
                    continue;
                }
                return Some(Work::Leave(leaving));
            }
            self.shared.goes_on();
            let wake = self.hear_at.map_or(self.look_at, |at| at.min(self.look_at));
            match self.letters.recv_timeout(wake.duration_since(Instant::now())) {
                Ok(letter) => self.read(letter),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return None,
            }
        }
    }

    /// What an agent ordered is void once another is there.
    fn follow_agent(&mut self) {
        let session = self.shared.session.load(Relaxed);
        if session != self.session {
            self.session = session;
            self.taken(self.orders.len());
            self.orders.clear();
            self.counts.clear();
        }
    }

    fn read(&mut self, letter: Letter) {
        self.follow_agent();
        match letter {
            Letter::Orders(session, orders) => self.take(session, orders),
            Letter::Count(session, server) => {
                if session == self.session && self.counts.len() < WAITING {
                    self.counts.insert(server);
                }
            }
            Letter::Leave(leaving) => self.leaving = Some(leaving),
            Letter::Nothing => {}
        }
    }

    fn take(&mut self, session: u64, orders: Vec<TableOrder>) {
        if session != self.session {
            return self.taken(orders.len());
        }
        for order in orders {
            let server = order.server();
            if self.orders.len() >= WAITING && !self.orders.contains_key(&server) {
                self.taken(1);
                self.shared.untold.store(true, Relaxed);
            } else if self.orders.insert(server, order).is_some() {
                self.taken(1);
                self.shared.overtaken.fetch_add(1, Relaxed);
            }
        }
    }

    fn taken(&self, orders: usize) {
        self.shared.waiting.fetch_sub(orders as u64, Relaxed);
    }
}

/// A host with nothing in force, whatever is ordered.
#[cfg(test)]
pub(crate) fn nothing_there(work: Work) -> Vec<TableNotice> {
    match work {
        Work::Tell => vec![TableNotice::AllInForce(BTreeMap::new())],
        Work::Orders(orders) => {
            let gone = |order: &TableOrder| TableNotice::InForce {
                server: order.server(),
                generation: None,
            };
            orders.iter().map(gone).collect()
        }
        Work::Count(server) => vec![TableNotice::Counted { server, reals: vec![] }],
        Work::Listen(_) | Work::Hear | Work::Look | Work::Leave(_) => vec![],
    }
}

#[cfg(test)]
mod tests;
