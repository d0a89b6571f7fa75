//! A node by itself.

use crate::common::NoRules;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tonic::transport::{Channel, Endpoint};
use vip_core::{NodeId, Profile};
use vip_raft::{LogStore, PeerChannels, RaftNode, open};

/// Of everything that is waited for.
pub(crate) const LIMIT: Duration = Duration::from_secs(20);

fn nobody(_: NodeId, _: &str) -> Channel {
    Endpoint::from_static("http://127.0.0.1:1").connect_lazy()
}

/// Node 1 on the data in `dir`. openraft's workers let go of the store a little
/// after `shutdown` returns.
pub(crate) async fn node(dir: &Path) -> RaftNode {
    let until = Instant::now() + LIMIT;
    let store = loop {
        match LogStore::open(dir) {
            Ok(store) => break store,
            Err(e) => assert!(Instant::now() < until, "{e}"),
        }
        tokio::task::yield_now().await;
    };
    let peers = PeerChannels::new(Arc::new(nobody));
    let (timing, rules) = (Profile::Lan.timing(), Arc::new(NoRules::default()));
    open(dir, NodeId(1), store, &timing, peers, rules).await.expect("runs")
}
