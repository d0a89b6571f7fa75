//! A hundred thousand commands: the log is compacted and the disk stays flat.

mod alone;
mod common;

use alone::LIMIT;
use futures_util::future::join_all;
use std::path::Path;
use vip_core::{Actor, Command, NodeId, NodeOp, Outcome};

const COMMANDS: u64 = 100_000;
/// Commands under way at a time.
const BATCH: u64 = 250;

fn command(number: u64) -> Command {
    // Refused, but a command like any other to the log.
    let op = NodeOp::Drain { node: NodeId(99), drained: number.is_multiple_of(2) };
    Command { time_ms: number, actor: Actor("test".into()), term: None, op: op.into() }
}

/// Bytes of a directory.
fn size(dir: &Path) -> u64 {
    let entries = std::fs::read_dir(dir).expect("readable").map(|e| e.expect("readable"));
    entries
        .map(
            |e| {
                if e.path().is_dir() {
                    size(&e.path())
                } else {
                    e.metadata().map_or(0, |m| m.len())
                }
            },
        )
        .sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_disk_stays_flat_over_a_hundred_thousand_commands() {
    let dir = tempfile::TempDir::new().expect("temporary directory");
    let node = alone::node(dir.path()).await;
    node.initialize("127.0.0.1:1".into()).await.expect("initialised");
    node.raft.wait(Some(LIMIT)).state(openraft::ServerState::Leader, "leads").await.expect("leads");
    let mut sizes = vec![];
    for batch in 0..COMMANDS / BATCH {
        let writes = (0..BATCH).map(|i| node.write(command(batch * BATCH + i), LIMIT));
        for outcome in join_all(writes).await {
            assert!(matches!(outcome, Ok(Outcome::Refused(_))), "{outcome:?}");
        }
        if (batch * BATCH).is_multiple_of(10_000) {
            sizes.push(size(dir.path()));
        }
    }
    let applied = node.applied.borrow().index;
    assert!(applied > COMMANDS);
    // What is live is two snapshots' worth of entries; sled keeps some MB
    // around that. Flat means: no growth over the second half.
    let half = sizes.len() / 2;
    let (early, late) = (sizes[..half].iter().max(), sizes[half..].iter().max());
    let (early, late) = (*early.expect("sampled"), *late.expect("sampled"));
    println!("disk use every 10,000 commands: {sizes:?}");
    assert!(late <= early + early / 2, "it grew from {early} to {late}: {sizes:?}");
    assert!(late < 32 << 20, "{late} bytes for almost no live data");
    node.raft.shutdown().await.expect("stops");
    drop(node);

    // And it opens again, quickly, with all of its state.
    let again = alone::node(dir.path()).await;
    let applied = again.applied.clone();
    let there = applied.borrow().index;
    assert!(there + 3 * vip_raft::SNAPSHOT_AFTER > COMMANDS, "{there}");
    again.raft.shutdown().await.expect("stops");
}
