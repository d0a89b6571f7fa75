//! Changes of members are good in the term that they were decided in.

mod alone;
mod common;

use alone::LIMIT;
use std::collections::BTreeSet;
use vip_core::{NodeId, Term};
use vip_raft::WriteError;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_decided_in_another_term_changes_nothing() {
    let dir = tempfile::TempDir::new().expect("temporary directory");
    let node = alone::node(dir.path()).await;
    node.initialize("127.0.0.1:1".into()).await.expect("initialised");
    // Its own entry, behind the first membership: until then a change is under way.
    node.raft.wait(Some(LIMIT)).applied_index(Some(1), "leads").await.expect("leads");

    let (one, other) = (BTreeSet::from([NodeId(1)]), NodeId(2));
    for stale in [Term(0), Term(9)] {
        let learner = node.add_learner(stale, other, "127.0.0.1:2".into(), LIMIT).await;
        assert!(matches!(learner, Err(WriteError::OtherTerm)), "{learner:?}");
        let voters = node.set_voters(stale, one.clone(), true, LIMIT).await;
        assert!(matches!(voters, Err(WriteError::OtherTerm)), "{voters:?}");
        let removed = node.remove_learner(stale, other, LIMIT).await;
        assert!(matches!(removed, Err(WriteError::OtherTerm)), "{removed:?}");
    }
    assert_eq!((node.voter_ids(), node.learner_ids()), (one.clone(), BTreeSet::new()));
    node.set_voters(Term(1), one, true, LIMIT).await.expect("decided in this term");
    node.raft.shutdown().await.expect("stops");
}
