//! Probes sooner than they are due, where clients of a real server hear nothing, as the holder
//! of its VIP sees by what it forwards: it tells all that probe it.

use crate::node::Member;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::broadcast::error::RecvError;
use tonic::Request;
use vip_core::{NodeId, Observed, ServerUid};
use vip_proto::v1;
use vip_proto::v1::probes_client::ProbesClient;

/// Who does not answer by then hears of it by its own probes.
const LIMIT: Duration = Duration::from_secs(1);
/// Real servers in one message; of more the first.
pub(crate) const MOST: usize = 1000;

/// Words on their way; of more, observers hear by their own probes.
const AT_ONCE: usize = 256;

/// Runs for as long as the member does.
pub(crate) async fn hasten(member: Arc<Member>) {
    let (stop, mut mutes) = (member.stopped(), member.forward.mutes());
    let mut telling = FuturesUnordered::new();
    loop {
        let (server, places) = tokio::select! {
            () = stop.cancelled() => return,
            Some(()) = telling.next() => continue,
            mute = mutes.recv() => match mute {
                Ok(mute) => mute,
                Err(RecvError::Lagged(_)) => continue,
                Err(RecvError::Closed) => return,
            },
        };
        let me = member.meta.node;
        // The leader alone knows who is there.
        let alive = member.leases.leads_applied().then(|| member.leases.alive());
        for (node, observed) in member.log.state().watchers_at(server, &places) {
            let is_there = alive.as_ref().is_none_or(|alive| alive.contains(&node));
            if node == me || (is_there && telling.len() < AT_ONCE) {
                telling.push(tell(&member, node, server, observed));
            }
        }
    }
}

async fn tell(member: &Member, node: NodeId, server: ServerUid, mut observed: Vec<Observed>) {
    observed.truncate(MOST);
    if node == member.meta.node {
        return member.sights.hasten(observed);
    }
    let Some(channel) = member.peers.channel(node) else { return };
    let reals = observed.iter().map(|one| SocketAddr::new(one.ip, one.port).to_string());
    let request = v1::HastenRequest { server: server.0, reals: reals.collect() };
    let mut request = Request::new(request);
    request.set_timeout(LIMIT);
    let told = async move { ProbesClient::new(channel).hasten(request).await };
    if let Ok(Err(status)) = tokio::time::timeout(LIMIT, told).await {
        tracing::debug!(%node, %status, "an observer was not told to look sooner");
    }
}

/// What another member wants looked at sooner.
pub(crate) fn observed(request: &v1::HastenRequest) -> Vec<Observed> {
    let server = ServerUid(request.server);
    let places = request.reals.iter().take(MOST).filter_map(|text| text.parse().ok());
    places.map(|at: SocketAddr| Observed { server, ip: at.ip(), port: at.port() }).collect()
}
