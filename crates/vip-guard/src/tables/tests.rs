use super::*;
use crate::told::Told;
use vip_core::Generation;

const LIMIT: Duration = Duration::from_secs(20);

fn drop_of(server: u64) -> TableOrder {
    TableOrder::Drop(ServerUid(server))
}

/// A lane that does nothing until it is let, one piece of work at a time.
fn stuck() -> (TableLane, std::sync::mpsc::Sender<()>) {
    let (let_go, wait) = std::sync::mpsc::channel();
    let lane = TableLane::start(move || {
        Some(move |work| {
            if !matches!(work, Work::Look) {
                let _ = wait.recv();
            }
            nothing_there(work)
        })
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
    let all = TableNotice::AllInForce([(ServerUid(7), Generation(3))].into());
    let there = all.clone();
    let lane = TableLane::start(move || {
        Some(move |work| match work {
            Work::Tell => vec![there.clone()],
            other => nothing_there(other),
        })
    });
    let lane = lane.expect("started");
    let (agent, mut notices) = mpsc::channel(4);
    lane.serve(agent);
    assert_eq!(notices.recv().await, Some(all));
    lane.order(vec![drop_of(7)]);
    let gone = TableNotice::InForce { server: ServerUid(7), generation: None };
    assert_eq!(notices.recv().await, Some(gone));
    until("it is counted", || lane.counters() == TableCounters { done: 1, ..Default::default() });
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

/// What was ordered before is in it, and what is ordered after waits.
#[tokio::test]
async fn what_is_left_is_left_between_two_orders() {
    let done = Arc::new(AtomicU64::new(0));
    let of_lane = done.clone();
    let left = || LeftForwarder { engine: None, told: Told::default(), listens: BTreeSet::new() };
    let lane = TableLane::start(move || {
        Some(move |work| match work {
            Work::Leave(leaving) => {
                leaving.leave(left());
                vec![]
            }
            Work::Orders(orders) => {
                of_lane.fetch_add(orders.len() as u64, Relaxed);
                vec![]
            }
            _ => vec![],
        })
    });
    let lane = lane.expect("started");
    lane.order((0..1000).map(drop_of).collect());
    let (_, resume) = lane.leave().await.expect("left");
    assert_eq!(done.load(Relaxed), 1000);
    assert!(!lane.is_stirred());
    lane.order(vec![drop_of(1)]);
    assert_eq!((lane.counters().waiting, done.load(Relaxed)), (1, 1000));
    assert!(lane.is_stirred());
    drop(resume);
    until("it goes on", || done.load(Relaxed) == 1001);
    // Nobody waits for it any more: it does not wait for them.
    drop(lane.leave().await.expect("left"));
    // What nobody carried out, and what is not counted, stirs it as well.
    let (agent, _notices) = mpsc::channel(4);
    for stir in [&|| lane.count(ServerUid(1)), &|| lane.serve(agent.clone())] as [&dyn Fn(); 2] {
        let (_, resume) = lane.leave().await.expect("left");
        assert!(!lane.is_stirred());
        stir();
        assert!(lane.is_stirred());
        drop(resume);
    }
    lane.order(vec![drop_of(1)]);
    until("it goes on", || done.load(Relaxed) == 1002);
}

/// Somebody looks at counters all the time, which is a letter each.
#[test]
fn the_hosts_network_is_looked_at_whatever_is_asked() {
    let shared = Shared::default();
    let (letters, left) = sync_channel(LETTERS);
    let mut desk = Desk::new(&shared, left, Duration::from_millis(50));
    assert!(matches!(desk.next(), Some(Work::Look)));
    let begun = Instant::now();
    loop {
        letters.send(Letter::Count(0, ServerUid(1))).expect("room for it");
        match desk.next() {
            Some(Work::Count(_)) => assert!(begun.elapsed() < LIMIT, "never looked at"),
            other => break assert!(matches!(other, Some(Work::Look)), "{other:?}"),
        }
    }
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
    let panics = |_| panic!("as a test has it");
    let lane = TableLane::start(move || Some(panics)).expect("started");
    lane.order(vec![drop_of(1)]);
    until("it is known", || lane.counters().failed);
    lane.order(vec![drop_of(2)]);
}

#[test]
fn a_lane_that_cannot_begin_says_so() {
    let lane = TableLane::start(|| None::<fn(Work) -> Vec<TableNotice>>).expect("started");
    until("it is known", || lane.counters().failed);
    lane.order(vec![drop_of(1)]);
    lane.count(ServerUid(1));
    lane.look_again();
}

#[tokio::test]
async fn whoever_asks_is_told_what_was_forwarded_after_what_was_ordered() {
    let (lane, let_go) = stuck();
    let (agent, mut notices) = mpsc::channel(4);
    lane.serve(agent);
    lane.count(ServerUid(1));
    lane.count(ServerUid(1));
    lane.order(vec![drop_of(1)]);
    drop(let_go);
    assert_eq!(notices.recv().await, Some(TableNotice::AllInForce(BTreeMap::new())));
    let gone = TableNotice::InForce { server: ServerUid(1), generation: None };
    assert_eq!(notices.recv().await, Some(gone));
    let counted = TableNotice::Counted { server: ServerUid(1), reals: vec![] };
    assert_eq!(notices.recv().await, Some(counted));
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
