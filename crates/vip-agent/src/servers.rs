//! The gRPC servers behind the port, one for each kind of caller, with what a
//! caller of that kind may cost. Leases have one of their own, on their thread.

use crate::access::{AccessLayer, Face};
use crate::admin::{AdminService, routes};
use crate::essential;
use crate::membership::ClusterService;
use crate::node::Member;
use crate::probe_now::ProbesService;
use crate::reporter::EdgesService;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use tonic::transport::server::Router;
use tower::layer::util::{Identity, Stack};
use vip_core::chain;
use vip_pki::{PeerStream, speaker};
use vip_proto::v1::cluster_server::ClusterServer;
use vip_proto::v1::edges_server::EdgesServer;
use vip_proto::v1::probes_server::ProbesServer;
use vip_proto::v1::tables_server::TablesServer;
use vip_raft::RaftService;

/// Largest request of a stranger: to join, with a request for a certificate.
const MAX_JOIN: usize = 64 << 10;
/// Largest message of edges: some thousand with a sentence each.
const MAX_EDGES: usize = 768 << 10;
/// Requests at a time on a member's connection.
const MEMBER_STREAMS: u32 = 64;
/// On a person's: some commands, some followed events.
const USER_STREAMS: u32 = 8;
/// On a stranger's: it identifies the cluster, and joins.
const STRANGER_STREAMS: u32 = 2;
/// What may be on its way to this node on a person's or a stranger's
/// connection, unread (RFC 9113 section 5.2); the least there is.
const WINDOW: u32 = 65_535;
/// Headers of a request; ours have some hundred bytes.
const MAX_HEADERS: u32 = 8 << 10;
/// How long a stranger's request may take, its sending included.
const STRANGER_TIMEOUT: Duration = Duration::from_secs(15);
/// A silent caller is asked for a sign of life, and cut without one.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

type Guarded = Server<Stack<AccessLayer, Identity>>;

fn limited(streams: u32) -> Server {
    Server::builder()
        .max_concurrent_streams(streams)
        .http2_max_header_list_size(MAX_HEADERS)
        .http2_keepalive_interval(Some(KEEP_ALIVE))
        .http2_keepalive_timeout(Some(KEEP_ALIVE))
}

fn narrow(streams: u32) -> Server {
    limited(streams).initial_stream_window_size(WINDOW).initial_connection_window_size(WINDOW)
}

fn guarded(server: Server, member: &Arc<Member>) -> Guarded {
    server.layer(AccessLayer::of(Face::Network(member.raft.clone())))
}

async fn serve(
    name: &str,
    router: Router<Stack<AccessLayer, Identity>>,
    streams: mpsc::Receiver<PeerStream>,
    stop: CancellationToken,
) {
    let streams = ReceiverStream::new(streams).map(Ok::<_, io::Error>);
    let served = router.serve_with_incoming_shutdown(streams, stop.cancelled_owned());
    if let Err(error) = served.await {
        tracing::error!(error = %chain(&error), name, "the gRPC server ended");
        essential::gone(name);
    }
}

fn cluster(member: Arc<Member>) -> ClusterServer<ClusterService> {
    ClusterServer::new(ClusterService::new(member)).max_decoding_message_size(MAX_JOIN)
}

/// Raft, membership, and the commands that members pass on.
pub(crate) async fn serve_members(
    admin: AdminService,
    member: Arc<Member>,
    streams: mpsc::Receiver<PeerStream>,
) {
    let raft = RaftService::new(&member.raft, member.shared.clone(), Arc::new(speaker));
    let stop = member.stopped();
    let router = guarded(limited(MEMBER_STREAMS), &member)
        .add_routes(routes(&admin).await)
        .add_service(raft)
        .add_service(cluster(member.clone()))
        .add_service(TablesServer::new(member.forward.clone()))
        .add_service(ProbesServer::new(ProbesService::new(member.clone())))
        .add_service(
            EdgesServer::new(EdgesService::new(member.clone()))
                .max_decoding_message_size(MAX_EDGES),
        );
    serve("serve members", router, streams, stop).await;
}

/// Commands of people with a certificate of `vipctl login`.
pub(crate) async fn serve_people(
    admin: AdminService,
    member: Arc<Member>,
    streams: mpsc::Receiver<PeerStream>,
) {
    let stop = member.stopped();
    let router = guarded(narrow(USER_STREAMS), &member).add_routes(routes(&admin).await);
    serve("serve people", router, streams, stop).await;
}

/// Joining, for whoever has no certificate yet.
pub(crate) async fn serve_strangers(member: Arc<Member>, streams: mpsc::Receiver<PeerStream>) {
    let stop = member.stopped();
    let server = narrow(STRANGER_STREAMS).timeout(STRANGER_TIMEOUT);
    let router = guarded(server, &member).add_service(cluster(member));
    serve("serve strangers", router, streams, stop).await;
}
