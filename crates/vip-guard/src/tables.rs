//! The second lane: tables are built and put in force on a thread of its own, and what
//! waits for it waits in a place of its own. Whoever is on the lease lane only ever
//! leaves something there.

use crate::clock::boottime;
use arc_swap::ArcSwapOption;
use std::collections::BTreeMap;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use tokio::sync::mpsc;
use tracing::error;
use vip_core::{Generation, Mono, ServerUid, TableCounters, TableNotice, TableOrder};

/// Virtual servers whose orders may wait: several times what a cluster has.
const WAITING: usize = 8192;
/// Messages of orders that may wait to be read.
const LETTERS: usize = 256;

/// What there is to do.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Work {
    /// An agent came: it is told all that is in force.
    Tell,
    Order(TableOrder),
}

/// What is in force on this host.
#[derive(Debug, Default)]
pub(crate) struct Tables {
    in_force: BTreeMap<ServerUid, Generation>,
}

impl Tables {
    pub(crate) fn carry_out(&mut self, work: Work) -> TableNotice {
        match work {
            Work::Tell => TableNotice::AllInForce(self.in_force.clone()),
            Work::Order(TableOrder::Drop(server)) => {
                self.in_force.remove(&server);
                TableNotice::InForce { server, generation: None }
            }
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
    /// The agent is to be told all: it came just now, or orders of its were lost.
    untold: AtomicBool,
    done: AtomicU64,
    overtaken: AtomicU64,
    /// Orders that were left and not taken up.
    waiting: AtomicU64,
    /// Since when there has been something to do, and nothing was done, in ns; 0: there
    /// is nothing.
    behind_since: AtomicU64,
    failed: AtomicBool,
}

/// Orders of an agent.
type Letter = (u64, Vec<TableOrder>);

/// The lane. Dropping it ends its thread after what that is busy with.
pub(crate) struct TableLane {
    shared: Arc<Shared>,
    letters: SyncSender<Letter>,
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
    /// Starts the thread, which does all work with `carry_out`.
    pub(crate) fn start(
        carry_out: impl FnMut(Work) -> TableNotice + Send + 'static,
    ) -> io::Result<Self> {
        let shared = Arc::<Shared>::default();
        let (letters, left) = sync_channel(LETTERS);
        let of_thread = shared.clone();
        let run = move || {
            let work = AssertUnwindSafe(|| Desk::new(&of_thread, left).work(carry_out));
            if catch_unwind(work).is_err() {
                error!("the tables of virtual servers failed; leases go on");
                of_thread.failed.store(true, Relaxed);
            }
        };
        std::thread::Builder::new().name("tables".into()).spawn(run)?;
        Ok(Self { shared, letters })
    }

    /// From now on notices are for this agent, which is told all first. What an
    /// earlier one ordered and is not begun is void.
    pub(crate) fn serve(&self, agent: mpsc::Sender<TableNotice>) {
        self.shared.session.fetch_add(1, Relaxed);
        self.shared.agent.store(Some(Arc::new(agent)));
        self.tell_all();
    }

    /// Leaves orders to be carried out; never waits. If there is no room for them the
    /// agent is told all that is in force once there is, and orders what is missing.
    pub(crate) fn order(&self, orders: Vec<TableOrder>) {
        let count = orders.len() as u64;
        self.shared.waiting.fetch_add(count, Relaxed);
        self.shared.has_something();
        if self.letters.try_send((self.shared.session.load(Relaxed), orders)).is_err() {
            self.shared.waiting.fetch_sub(count, Relaxed);
            self.tell_all();
        }
    }

    fn tell_all(&self) {
        self.shared.untold.store(true, Relaxed);
        self.shared.has_something();
        // Without room for it the thread has something to wake up for.
        let _ = self.letters.try_send((0, vec![]));
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
}

impl<'a> Desk<'a> {
    fn new(shared: &'a Shared, letters: Receiver<Letter>) -> Self {
        Self { shared, letters, session: 0, orders: BTreeMap::new() }
    }

    fn work(mut self, mut carry_out: impl FnMut(Work) -> TableNotice) {
        while let Some(work) = self.next() {
            let is_order = matches!(work, Work::Order(_));
            self.shared.goes_on();
            let notice = carry_out(work);
            // This lane may wait for its agent. One that is gone is told nothing.
            if let Some(agent) = self.shared.agent.load_full() {
                let _ = agent.blocking_send(notice);
            }
            self.shared.done.fetch_add(u64::from(is_order), Relaxed);
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
            if let Some((_, order)) = self.orders.pop_first() {
                self.taken(1);
                return Some(Work::Order(order));
            }
            self.shared.goes_on();
            let letter = self.letters.recv().ok()?;
            self.read(letter);
        }
    }

    /// What an agent ordered is void once another is there.
    fn follow_agent(&mut self) {
        let session = self.shared.session.load(Relaxed);
        if session != self.session {
            self.session = session;
            self.taken(self.orders.len());
            self.orders.clear();
        }
    }

    fn read(&mut self, (session, orders): Letter) {
        self.follow_agent();
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    const LIMIT: Duration = Duration::from_secs(20);

    fn drop_of(server: u64) -> TableOrder {
        TableOrder::Drop(ServerUid(server))
    }

    /// A lane that does nothing until it is let, one piece of work at a time.
    fn stuck() -> (TableLane, std::sync::mpsc::Sender<()>) {
        let (let_go, wait) = std::sync::mpsc::channel();
        let mut tables = Tables::default();
        let lane = TableLane::start(move |work| {
            let _ = wait.recv();
            tables.carry_out(work)
        });
        (lane.expect("started"), let_go)
    }

    fn until(what: &str, is_so: impl Fn() -> bool) {
        let begun = Instant::now();
        while !is_so() {
            assert!(begun.elapsed() < LIMIT, "{what}");
            std::thread::yield_now();
        }
    }

    #[tokio::test]
    async fn an_agent_is_told_what_is_in_force_before_anything_else() {
        let mut tables = Tables::default();
        tables.in_force.insert(ServerUid(7), Generation(3));
        let lane = TableLane::start(move |work| tables.carry_out(work)).expect("started");
        let (agent, mut notices) = mpsc::channel(4);
        lane.serve(agent);
        let all = [(ServerUid(7), Generation(3))].into();
        assert_eq!(notices.recv().await, Some(TableNotice::AllInForce(all)));
        lane.order(vec![drop_of(7)]);
        let gone = TableNotice::InForce { server: ServerUid(7), generation: None };
        assert_eq!(notices.recv().await, Some(gone));
        until("it is counted", || {
            lane.counters() == TableCounters { done: 1, ..Default::default() }
        });
    }

    #[test]
    fn orders_of_a_server_take_the_place_of_each_other() {
        let (lane, let_go) = stuck();
        lane.order(vec![drop_of(1)]);
        until("the first is begun", || lane.counters().waiting == 0);
        for _ in 0..10 {
            lane.order(vec![drop_of(1), drop_of(2)]);
        }
        let counters = lane.counters();
        assert_eq!((counters.waiting, counters.done), (20, 0));
        drop(let_go);
        until("all is done", || lane.counters().done == 3);
        let counters = lane.counters();
        assert_eq!((counters.waiting, counters.overtaken, counters.behind_s), (0, 18, 0));
    }

    /// An agent that orders faster than is carried out, or more than there can be.
    #[tokio::test]
    async fn what_there_is_no_room_for_is_asked_for_again() {
        let (lane, let_go) = stuck();
        let (agent, mut notices) = mpsc::channel(4);
        lane.serve(agent);
        until("the first is begun", || !lane.shared.untold.load(Relaxed));
        for _ in 0..3 * LETTERS {
            lane.order((0..50).map(drop_of).collect());
        }
        let counters = lane.counters();
        assert!(u64::from(counters.waiting) <= 50 * LETTERS as u64, "{counters:?}");
        drop(let_go);
        let all = TableNotice::AllInForce(BTreeMap::new());
        assert_eq!(notices.recv().await, Some(all.clone()));
        assert_eq!(notices.recv().await, Some(all), "orders of its were lost");
    }

    #[test]
    fn a_lane_that_fails_says_so() {
        let lane = TableLane::start(|_| panic!("as a test has it")).expect("started");
        lane.order(vec![drop_of(1)]);
        until("it is known", || lane.counters().failed);
        lane.order(vec![drop_of(2)]);
    }

    /// What one agent ordered another did not.
    #[tokio::test]
    async fn a_new_agent_finds_nothing_of_the_old_ones_orders() {
        let (lane, let_go) = stuck();
        lane.order(vec![drop_of(1)]);
        until("the first is begun", || lane.counters().waiting == 0);
        lane.order(vec![drop_of(2)]);
        let (agent, mut notices) = mpsc::channel(4);
        lane.serve(agent);
        drop(let_go);
        let begun = TableNotice::InForce { server: ServerUid(1), generation: None };
        assert_eq!(notices.recv().await, Some(begun));
        assert_eq!(notices.recv().await, Some(TableNotice::AllInForce(BTreeMap::new())));
        until("the old ones are void", || lane.counters().waiting == 0);
        assert_eq!(lane.counters().done, 1);
    }
}
