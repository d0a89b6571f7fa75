//! Who comes late: the log has no beginning any more, so the state comes whole.

use anyhow::{Context, Result};
use chaos_tests::{Cluster, Options, wait_for};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use vip_pki::{Connector, NodeIdentity};
use vip_proto::ALPN_GRPC;
use vip_proto::v1::DrainNodeRequest;
use vip_proto::v1::nodes_client::NodesClient;

/// More than a snapshot is made after (2,000), and a rest.
const COMMANDS: u32 = 2300;
/// Under way at a time.
const BATCH: u32 = 8;
const SOON: Duration = Duration::from_secs(30);

/// Commands that change nothing are in the log all the same.
async fn write_much(identity: NodeIdentity, server_name: String) -> Result<()> {
    let connector = Connector {
        address: "10.77.0.1:7400".into(),
        server_name,
        config: vip_pki::user_config(&identity, ALPN_GRPC)?,
        timeout: SOON,
        unacknowledged: SOON,
    };
    let client = NodesClient::new(connector.connected_channel().await?);
    let next = Arc::new(AtomicU32::new(0));
    let write = || {
        let (mut client, next) = (client.clone(), next.clone());
        tokio::spawn(async move {
            while next.fetch_add(1, Ordering::Relaxed) < COMMANDS {
                let request = DrainNodeRequest { name: "n1".into(), drain: false };
                client.drain_node(request).await?;
            }
            Ok::<_, tonic::Status>(())
        })
    };
    for task in (0..BATCH).map(|_| write()).collect::<Vec<_>>() {
        task.await??;
    }
    Ok(())
}

#[test]
fn a_node_that_joins_late_and_one_that_was_off_for_long_get_the_state_whole() -> Result<()> {
    let mut cluster = Cluster::bare(&Options { nodes: 4, ..Options::default() })?;
    cluster.host("n1").ctl_ok(&["init", "--name", "test"])?;
    for name in ["n2", "n3"] {
        cluster.join(cluster.host(name), "voter")?;
    }
    let context = cluster.host("n1").login(cluster.dir(), "eve", "operator")?;
    let part = |key: &str| context[key].as_str().context("text").map(str::to_owned);
    let identity = NodeIdentity::from_pem(&part("key")?, part("chain")?.as_bytes())?;
    let server_name = part("server_name")?;
    cluster.host_mut("n3").stop()?;
    std::thread::scope(|scope| {
        let lab = &cluster.lab;
        let thread = scope.spawn(move || {
            lab.enter("client")?;
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(write_much(identity, server_name))
        });
        thread.join().expect("no panic")
    })?;
    let snapshot = |cluster: &Cluster, host: &str| {
        let file = cluster.host(host).dir().join("data/raft/snapshot");
        std::fs::read_to_string(file).ok()
    };
    wait_for("n1 to make a snapshot", SOON, || snapshot(&cluster, "n1"))?;
    assert_eq!(snapshot(&cluster, "n3"), None, "it was off");

    cluster.join(cluster.host("n4"), "voter")?;
    cluster.host_mut("n3").start()?;
    for name in ["n3", "n4"] {
        let came = wait_for("the state", SOON, || snapshot(&cluster, name))?;
        assert!(came.contains("\"eve\""), "{name}: {came}");
        // And it starts from it.
        cluster.host_mut(name).stop()?;
        cluster.host_mut(name).start()?;
    }
    cluster.wait_for_status("n1", "all are there", |s| {
        s.nodes.iter().all(|n| n.1 == "active").then_some(())
    })?;
    // Events are told from what a node has itself.
    cluster.host("n1").ctl_ok(&["vip", "add", "web", "--address", "10.77.0.100/24"])?;
    for name in ["n3", "n4"] {
        wait_for("what came before the snapshot and after", SOON, || {
            let events = cluster.host(name).ctl_ok(&["events"]).ok()?;
            let both = ["eve was given a certificate", "VIP web was added"];
            both.iter().all(|text| events.contains(text)).then_some(())
        })?;
    }
    Ok(())
}
