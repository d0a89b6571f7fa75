//! Somebody with the key of a node, and what the tests start from.

use anyhow::{Context, Result};
use chaos_tests::{Cluster, Host, Lab, Options};
use serde_json::Value;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::transport::server::Router;
use vip_core::NodeId;
use vip_pki::{
    Connections, Connector, NodeIdentity, PkiDir, Roster, SharedRoster, accept, node_server_name,
};
use vip_proto::{ALPN_GRPC, ALPN_LEASE, v1};

pub(crate) const VIP: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 100);
/// What an attack must not bring about. A takeover takes half of it, and the
/// attacks that worked made a VIP silent for twice as long.
pub(crate) const SILENCE: Duration = Duration::from_millis(400);
/// For a handshake.
pub(crate) const LIMIT: Duration = Duration::from_secs(5);
/// Far ahead of any term here, and no leap.
pub(crate) const HIGH: u64 = 1000;

/// Somebody with a node's key.
pub(crate) struct Attacker {
    pub(crate) node: u64,
    pub(crate) cluster: String,
    pub(crate) identity: NodeIdentity,
    pub(crate) roster: SharedRoster,
}

impl Attacker {
    pub(crate) fn with_key_of(host: &Host) -> Result<Self> {
        let data = host.dir().join("data");
        let meta: Value = serde_json::from_str(&std::fs::read_to_string(data.join("node.json"))?)?;
        let text = |key: &str| meta[key].as_str().context("text").map(str::to_owned);
        let (cluster, issuer) = (text("cluster")?, text("issuer")?);
        let members = meta["members"].as_object().context("members")?.iter().map(|(id, spki)| {
            Ok((NodeId(id.parse()?), spki.as_str().context("a key")?.to_owned()))
        });
        let members = members.collect::<Result<Vec<_>>>()?;
        let roster = Roster::of_join(cluster.clone(), issuer, members);
        Ok(Self {
            node: meta["node"].as_u64().context("an id")?,
            cluster,
            identity: PkiDir::new(&data).load_identity()?,
            roster: Arc::new(arc_swap::ArcSwap::from_pointee(roster)),
        })
    }

    pub(crate) fn channel(&self, to: u64, alpn: &[u8]) -> Result<Channel> {
        let connector = Connector {
            address: format!("10.77.0.{to}:7400"),
            server_name: node_server_name(NodeId(to), &self.cluster),
            config: vip_pki::client_config(&self.identity, self.roster.clone(), alpn)?,
            timeout: Duration::from_secs(2),
            unacknowledged: Duration::from_secs(2),
        };
        Ok(connector.channel())
    }

    pub(crate) fn vote(&self, term: u64, committed: bool) -> Option<v1::Vote> {
        Some(v1::Vote { term, node: self.node, committed })
    }
}

/// Runs on a host of its own.
pub(crate) fn on<R: Send>(
    lab: &Lab,
    host: &str,
    attack: impl AsyncFnOnce() -> Result<R> + Send,
) -> Result<R> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            lab.enter(host)?;
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(attack())
        });
        thread.join().expect("no panic")
    })
}

/// Who leads, in which term, and which VIPs there are.
pub(crate) fn seen(cluster: &Cluster, by: &str) -> Result<(Value, Value, Value)> {
    let status = cluster.host(by).ctl_json(&["status"])?;
    let names: Vec<_> =
        status["vips"].as_array().context("VIPs")?.iter().map(|v| v["name"].clone()).collect();
    Ok((status["leader"].clone(), status["term"].clone(), names.into()))
}

/// Three voters with a VIP, a fourth host with a role, and a fifth outside.
pub(crate) fn four(role: &str) -> Result<Cluster> {
    let cluster = Cluster::bare(&Options { nodes: 5, ..Options::default() })?;
    cluster.host("n1").ctl_ok(&["init", "--name", "test"])?;
    for name in ["n2", "n3"] {
        cluster.join(cluster.host(name), "voter")?;
    }
    cluster.join(cluster.host("n4"), role)?;
    cluster.host("n1").ctl_ok(&["vip", "add", "web", "--address", "10.77.0.100/24"])?;
    cluster.wait_until_settled("n3")?;
    Ok(cluster)
}

/// The port, as soon as the process that was killed has let go of it.
async fn bound() -> Result<TcpListener> {
    let until = tokio::time::Instant::now() + Duration::from_secs(5);
    loop {
        match TcpListener::bind(("0.0.0.0", 7400)).await {
            Ok(listener) => return Ok(listener),
            Err(e) if tokio::time::Instant::now() >= until => return Err(e.into()),
            Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    }
}

impl Attacker {
    /// Serves this node's port, with its certificate, until `done`.
    pub(crate) async fn serve(
        &self,
        lies: Router,
        done: impl Future<Output = Result<()>>,
    ) -> Result<()> {
        let alpn = [ALPN_GRPC, ALPN_LEASE];
        let config = vip_pki::server_config(&self.identity, self.roster.clone(), &alpn)?;
        let listener = bound().await?;
        let (roster, connections) = (self.roster.clone(), Connections::default());
        let (accepted, streams) = mpsc::channel(16);
        let port = tokio::spawn(async move {
            while let Ok((stream, from)) = listener.accept().await {
                let config = config.clone();
                if let Ok(stream) = accept(stream, from, config, &roster, &connections, LIMIT).await
                {
                    let _ = accepted.send(Ok::<_, std::io::Error>(stream)).await;
                }
            }
        });
        let served = lies.serve_with_incoming(ReceiverStream::new(streams));
        let served = tokio::select! {
            ended = served => ended.map_err(anyhow::Error::from),
            done = tokio::time::timeout(Duration::from_secs(20), done) => done?,
        };
        port.abort();
        served
    }
}
