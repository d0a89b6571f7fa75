//! Who looks at the state sees what concerns him, and is left alone otherwise.

mod alone;
mod common;

use alone::LIMIT;
use futures_util::FutureExt;
use futures_util::future::join_all;
use std::time::Instant;
use vip_core::{
    Actor, AdminRole, Command, Login, LoginOp, Name, Op, Outcome, Placement, VipOp, VipSpec,
};
use vip_raft::RaftNode;

const COMMANDS: usize = 10_000;
/// Under way at a time.
const BATCH: usize = 250;
/// Of one node, after as many starts.
const ELECTIONS: usize = 40;

async fn write(node: &RaftNode, op: impl Into<Op>) {
    let command = Command { time_ms: 1, actor: Actor("root@n1".into()), term: None, op: op.into() };
    let outcome = node.write(command, LIMIT).await.expect("committed");
    assert!(matches!(outcome, Outcome::Done | Outcome::Unchanged), "{outcome:?}");
}

fn alice() -> Name {
    "alice".parse().expect("a name")
}

fn login(number: usize) -> Op {
    let user = alice();
    let (spki, issuer) = (format!("s{number}"), "ca".into());
    let (role, expires_ms, issued_by) = (AdminRole::Operator, u64::MAX, "root@n1".into());
    LoginOp::Issue { login: Login { user, role, spki, expires_ms, issuer, issued_by } }.into()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_commands_of_another_subject_do_not_wake_the_leases() {
    let dir = tempfile::tempdir().expect("made");
    let node = alone::node(dir.path()).await;
    node.initialize("127.0.0.1:1".into()).await.expect("initialised");
    node.raft.wait(Some(LIMIT)).applied_index(Some(1), "leads").await.expect("leads");
    let (mut leases, mut all) = (node.for_leases.clone(), node.applied.clone());
    leases.borrow_and_update();
    all.borrow_and_update();
    for batch in 0..COMMANDS / BATCH {
        let writes = (1..BATCH).map(|number| write(&node, login(batch * BATCH + number)));
        join_all(writes).await;
        write(&node, LoginOp::Revoke { user: alice() }).await;
    }
    assert!(all.has_changed().expect("runs"));
    assert!(!leases.has_changed().expect("runs"));

    let spec = VipSpec {
        name: "web".parse().expect("a name"),
        addresses: vec!["10.0.0.100/24".parse().expect("an address")],
        interface: None,
        placement: Placement::Sticky,
        no_probe: false,
        via: vip_core::Via::default(),
        params: Default::default(),
    };
    write(&node, VipOp::Add { spec }).await;
    assert!(leases.has_changed().expect("runs"));
    assert!(leases.borrow_and_update().vip_named("web").is_some());
    node.shut_down().await;
}

/// One that is looked at too early is told of no second time: a leader would lie idle until
/// its next heartbeat.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_is_told_of_a_change_sees_it() {
    let dir = tempfile::tempdir().expect("made");
    let first = alone::node(dir.path()).await;
    first.initialize("127.0.0.1:1".into()).await.expect("initialised");
    first.raft.wait(Some(LIMIT)).applied_index(Some(1), "leads").await.expect("leads");
    first.shut_down().await;
    drop(first);
    for election in 0..ELECTIONS {
        let node = alone::node(dir.path()).await;
        let mut changes = node.changes();
        assert_eq!(node.view().leads, None, "a start is no election");
        node.elect(false).await;
        let until = Instant::now() + LIMIT;
        // Without a pause, as a thread of higher priority looks in the very moment.
        while changes.changed().now_or_never().is_none() || node.view().leads.is_none() {
            assert!(Instant::now() < until, "election {election} was seen by nobody");
        }
        node.shut_down().await;
    }
}
