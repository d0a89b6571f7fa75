//! Before leadership is given away the log comes to rest.

mod alone;
mod common;

use alone::LIMIT;
use openraft::async_runtime::WatchReceiver;
use std::time::Duration;
use vip_core::{Actor, Command, LoginOp, Outcome, Refusal};
use vip_raft::RaftNode;

async fn leading(dir: &std::path::Path) -> RaftNode {
    let node = alone::node(dir).await;
    node.initialize("127.0.0.1:1".into()).await.expect("initialised");
    node.raft.wait(Some(LIMIT)).applied_index(Some(1), "leads").await.expect("leads");
    node
}

fn command() -> Command {
    let op = LoginOp::Revoke { user: "alice".parse().expect("a name") };
    Command { time_ms: 1, actor: Actor("root@n1".into()), term: None, op: op.into() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_comes_at_rest_is_written_after_it() {
    let dir = tempfile::tempdir().expect("made");
    let node = leading(dir.path()).await;
    let rest = node.at_rest().await.expect("nothing is written");
    let last = || node.raft.metrics().borrow_watched().last_log_index;
    let before = last();
    let write = node.write(command(), LIMIT);
    tokio::pin!(write);
    let held_up = tokio::time::timeout(Duration::from_millis(50), &mut write).await;
    assert!(held_up.is_err(), "{held_up:?}");
    assert_eq!(last(), before);
    drop(rest);
    let outcome = write.await.expect("committed");
    let unknown = Refusal::UnknownLogin { user: "alice".into() };
    assert_eq!(outcome, Outcome::Refused(unknown));
    assert!(last() > before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rest_comes_after_what_is_under_way() {
    let dir = tempfile::tempdir().expect("made");
    let node = leading(dir.path()).await;
    let last = || node.raft.metrics().borrow_watched().last_log_index;
    for _ in 0..20 {
        let before = last();
        // The first is begun first.
        let (outcome, at_rest) = tokio::join!(biased; node.write(command(), LIMIT), async {
            let _rest = node.at_rest().await.expect("soon");
            last()
        });
        outcome.expect("committed");
        assert!(at_rest > before, "{before:?} {at_rest:?}");
    }
}
