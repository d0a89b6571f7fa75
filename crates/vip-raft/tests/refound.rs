//! A new cluster of what one node has left.

mod alone;
mod common;

use alone::LIMIT;
use openraft::raft::AppendEntriesRequest;
use serde_json::json;
use std::sync::Arc;
use vip_core::{
    Actor, ClusterOp, Command, Founder, Founding, NodeId, Op, Outcome, Placement, Profile, Runs,
    State, VipOp, VipSpec,
};
use vip_raft::{RaftNode, TypeConfig, found};

const LATE: &str = "10.0.0.101/24";

async fn propose(node: &RaftNode, op: Op) {
    let command = Command { time_ms: 1, actor: Actor("test".into()), term: None, op };
    let outcome = node.write(command, LIMIT).await.expect("committed");
    assert!(!matches!(outcome, Outcome::Refused(_)), "{outcome:?}");
}

fn vip(name: &str, address: &str) -> Op {
    let spec = VipSpec {
        name: name.parse().expect("a name"),
        addresses: vec![address.parse().expect("an address")],
        interface: None,
        placement: Placement::Sticky,
        no_probe: false,
        via: vip_core::Via::default(),
        params: Default::default(),
    };
    VipOp::Add { spec }.into()
}

fn names(state: &State) -> Vec<String> {
    state.all_vips().map(|vip| vip.spec.name.to_string()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_begins_with_all_that_was_in_the_log_and_leads_in_a_later_term() {
    let (old, new) = (tempfile::tempdir().expect("made"), tempfile::tempdir().expect("made"));
    let node = alone::node(old.path()).await;
    node.initialize("127.0.0.1:1".into()).await.expect("initialised");
    node.raft.wait(Some(LIMIT)).applied_index(Some(1), "leads").await.expect("leads");
    let bootstrap = ClusterOp::Bootstrap {
        cluster: "old".into(),
        name: "lab".parse().expect("a name"),
        profile: Profile::Lan,
        node: "n1".parse().expect("a name"),
        advertise: "127.0.0.1:1".into(),
        spki: "s1".into(),
        issuer: "ca".into(),
        runs: Runs::here(),
    };
    propose(&node, bootstrap.into()).await;
    propose(&node, vip("web", "10.0.0.100/24")).await;
    // Another leader sends an entry, and is lost before it says that it is
    // committed.
    let index = node.applied.borrow().index;
    let applied = node.raft.wait(Some(LIMIT)).applied_index(Some(index), "shown").await;
    let last = applied.expect("shown").last_applied;
    let command =
        Command { time_ms: 1, actor: Actor("n2".into()), term: None, op: vip("late", LATE) };
    let entry = json!({
        "log_id": { "leader_id": 9, "index": index + 1 },
        "payload": { "Normal": command },
    });
    let sent = AppendEntriesRequest::<TypeConfig> {
        vote: openraft::impls::Vote {
            leader_id: openraft::impls::leader_id_std::LeaderId { term: 9, voted_for: 2 },
            committed: true,
        },
        prev_log_id: last,
        entries: vec![serde_json::from_value(entry).expect("an entry")],
        leader_commit: last,
    };
    node.raft.append_entries(sent).await.expect("stored");
    assert_eq!(names(&node.state()), ["web"]);

    node.raft.shutdown().await.expect("stops");
    let (state, end) = node.everything().expect("read");
    assert_eq!(names(&state), ["web", "late"], "it may have been committed");
    drop(node);
    let founder = Founder::Survivor { node: NodeId(1), issuer: "ca".into() };
    let founding = Founding { cluster: "new".into(), actor: "root@n1".into(), time_ms: 1, founder };
    let (state, me) = state.refounded(&founding).expect("a state");
    let dir = new.path().join("raft");
    found(&dir, Arc::new(state), end, me, "127.0.0.1:1".into()).await.expect("written");

    let node = alone::node(&dir).await;
    node.raft.trigger().elect(true).await.expect("asked");
    let leads = |m: &openraft::RaftMetrics<TypeConfig>| m.current_leader == Some(1);
    node.raft.wait(Some(LIMIT)).metrics(leads, "leads").await.expect("leads");
    assert_eq!(node.voter_ids(), [NodeId(1)].into());
    propose(&node, vip("new", "10.0.0.102/24")).await;
    let state = node.state();
    assert_eq!(names(&state), ["web", "late", "new"]);
    assert_eq!(state.cluster.as_ref().map(|cluster| cluster.id.as_str()), Some("new"));
    assert!(state.term > end.term, "{} after {}", state.term, end.term);
    node.raft.shutdown().await.expect("stops");
    drop(node);
    assert_eq!(names(&alone::node(&dir).await.state()).first().map(String::as_str), Some("web"));
}
