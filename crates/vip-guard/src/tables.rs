//! The second lane: tables are built and put in force on a thread of its own, and what
//! waits for it waits in a place of its own. Whoever is on the lease lane only ever
//! leaves something there.

use std::collections::BTreeMap;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use tokio::sync::mpsc;
use tracing::error;
use vip_core::{Generation, ServerUid, TableCounters, TableNotice, TableOrder};

/// Virtual servers whose orders may wait: several times what a cluster has.
const WAITING: usize = 8192;

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

#[derive(Default)]
struct Desk {
    /// The agent of now, and whether it is to be told all.
    agent: Option<mpsc::Sender<TableNotice>>,
    untold: bool,
    orders: BTreeMap<ServerUid, TableOrder>,
    /// Since when there has been something to do, and nothing was done.
    behind_since: Option<Instant>,
    counters: TableCounters,
    closed: bool,
}

/// The lane. Dropping it ends its thread after what that is busy with.
pub(crate) struct TableLane {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    desk: Mutex<Desk>,
    bell: Condvar,
}

impl Shared {
    fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl TableLane {
    /// Starts the thread, which does all work with `carry_out`.
    pub(crate) fn start(
        carry_out: impl FnMut(Work) -> TableNotice + Send + 'static,
    ) -> io::Result<Self> {
        let shared = Arc::<Shared>::default();
        let of_thread = shared.clone();
        let run = move || {
            let work = AssertUnwindSafe(|| work(&of_thread, carry_out));
            if catch_unwind(work).is_err() {
                error!("the tables of virtual servers failed; leases go on");
                of_thread.desk().counters.failed = true;
            }
        };
        std::thread::Builder::new().name("tables".into()).spawn(run)?;
        Ok(Self { shared })
    }

    /// From now on notices are for this agent, which is told all first. What an
    /// earlier one ordered and is not begun is void.
    pub(crate) fn serve(&self, agent: mpsc::Sender<TableNotice>) {
        let mut desk = self.shared.desk();
        (desk.agent, desk.untold) = (Some(agent), true);
        desk.orders.clear();
        desk.behind_since.get_or_insert_with(Instant::now);
        self.shared.bell.notify_one();
    }

    /// Leaves orders to be carried out; never waits. False: an agent that orders so
    /// much is none.
    pub(crate) fn order(&self, orders: Vec<TableOrder>) -> bool {
        let mut desk = self.shared.desk();
        for order in orders {
            if desk.orders.insert(order.server(), order).is_some() {
                desk.counters.overtaken += 1;
            }
        }
        if !desk.orders.is_empty() {
            desk.behind_since.get_or_insert_with(Instant::now);
        }
        self.shared.bell.notify_one();
        desk.orders.len() <= WAITING
    }

    pub(crate) fn counters(&self) -> TableCounters {
        let desk = self.shared.desk();
        let behind = desk.behind_since.map(|since| since.elapsed().as_secs()).unwrap_or_default();
        TableCounters {
            waiting: u32::try_from(desk.orders.len()).unwrap_or(u32::MAX),
            behind_s: u32::try_from(behind).unwrap_or(u32::MAX),
            ..desk.counters
        }
    }
}

impl Drop for TableLane {
    fn drop(&mut self) {
        self.shared.desk().closed = true;
        self.shared.bell.notify_one();
    }
}

/// The thread.
fn work(shared: &Shared, mut carry_out: impl FnMut(Work) -> TableNotice) {
    while let Some(work) = next(shared) {
        let is_order = matches!(work, Work::Order(_));
        let notice = carry_out(work);
        let agent = shared.desk().agent.clone();
        // This lane may wait for its agent. One that is gone is told nothing.
        if let Some(agent) = agent {
            let _ = agent.blocking_send(notice);
        }
        let mut desk = shared.desk();
        let more = desk.untold || !desk.orders.is_empty();
        desk.behind_since = more.then(Instant::now);
        desk.counters.done += u64::from(is_order);
    }
}

/// Waits for the next thing to do; `None` at the end.
fn next(shared: &Shared) -> Option<Work> {
    let mut desk = shared.desk();
    loop {
        if desk.closed {
            return None;
        }
        let work = if std::mem::take(&mut desk.untold) {
            Some(Work::Tell)
        } else {
            desk.orders.pop_first().map(|(_, order)| Work::Order(order))
        };
        if work.is_some() {
            return work;
        }
        desk = shared.bell.wait(desk).unwrap_or_else(PoisonError::into_inner);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

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
        assert!(lane.order(vec![drop_of(7)]));
        let gone = TableNotice::InForce { server: ServerUid(7), generation: None };
        assert_eq!(notices.recv().await, Some(gone));
        until("it is counted", || {
            lane.counters() == TableCounters { done: 1, ..Default::default() }
        });
    }

    #[test]
    fn orders_of_a_server_take_the_place_of_each_other() {
        let (lane, let_go) = stuck();
        assert!(lane.order(vec![drop_of(1)]));
        until("the first is begun", || lane.counters().waiting == 0);
        for _ in 0..10 {
            assert!(lane.order(vec![drop_of(1), drop_of(2)]));
        }
        let counters = lane.counters();
        assert_eq!((counters.waiting, counters.overtaken, counters.done), (2, 18, 0));
        drop(let_go);
        until("all is done", || lane.counters().done == 3);
        assert!(!lane.order((0..=WAITING as u64).map(drop_of).collect()), "nobody orders so much");
    }

    #[test]
    fn a_lane_that_fails_says_so() {
        let lane = TableLane::start(|_| panic!("as a test has it")).expect("started");
        assert!(lane.order(vec![drop_of(1)]));
        until("it is known", || lane.counters().failed);
        assert!(lane.order(vec![drop_of(2)]), "and whoever orders does not wait");
    }

    /// What one agent ordered another did not.
    #[tokio::test]
    async fn a_new_agent_finds_nothing_of_the_old_ones_orders() {
        let (lane, let_go) = stuck();
        assert!(lane.order(vec![drop_of(1)]));
        until("the first is begun", || lane.counters().waiting == 0);
        assert!(lane.order(vec![drop_of(2)]));
        let (agent, mut notices) = mpsc::channel(4);
        lane.serve(agent);
        drop(let_go);
        let begun = TableNotice::InForce { server: ServerUid(1), generation: None };
        assert_eq!(notices.recv().await, Some(begun));
        assert_eq!(notices.recv().await, Some(TableNotice::AllInForce(BTreeMap::new())));
        assert_eq!(lane.counters().waiting, 0);
    }
}
