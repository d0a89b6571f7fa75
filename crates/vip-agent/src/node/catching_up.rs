//! How new the log here is. An agent that starts has it as it was, some entries back: what
//! followed that would take back what its host forwards by since.

use super::Member;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tonic::{Code, Request};
use vip_core::NodeId;
use vip_proto::v1;
use vip_proto::v1::cluster_client::ClusterClient;

/// Between two questions that nobody answered.
const AGAIN: Duration = Duration::from_millis(20);
/// How long a leader may take.
const ANSWER: Duration = Duration::from_millis(500);
/// Whom a leader does not answer waits for so much longer than for an election: this node
/// may have to hold what nobody else can.
const PATIENCE: Duration = Duration::from_secs(1);

/// Waits until it is, and says so.
pub(super) async fn catch_up(member: Arc<Member>, is_new: watch::Sender<bool>) {
    let stop = member.stopped();
    // A leader that died counts as one for a promise, and the next is elected after it.
    let patience = member.meta.profile.timing().promise * 2 + PATIENCE;
    let mut changes = member.leases.changes();
    let mut asked: Option<(NodeId, Instant)> = None;
    loop {
        changes.borrow_and_update();
        if member.leases.leads_applied() {
            break;
        }
        let leader = member.leases.leader().filter(|leader| *leader != member.meta.node);
        if asked.map(|(node, _)| node) != leader {
            asked = leader.map(|leader| (leader, Instant::now()));
        }
        if let Some((leader, since)) = asked {
            match how_far(&member, leader).await {
                Ok(index) => {
                    let mut applied = member.log.applied();
                    tokio::select! {
                        () = stop.cancelled() => return,
                        _ = applied.wait_for(|applied| applied.index >= index) => break,
                    }
                }
                // It was started before an upgrade: what it does not know it denies.
                Err(Code::Unimplemented | Code::PermissionDenied) => break,
                Err(code) if since.elapsed() >= patience => {
                    tracing::warn!(%leader, %code, "the leader does not say how far the log goes");
                    break;
                }
                Err(_) => {}
            }
        }
        tokio::select! {
            () = stop.cancelled() => return,
            _ = changes.changed(), if leader.is_none() => {}
            () = sleep(AGAIN) => {}
        }
    }
    is_new.send_replace(true);
}

async fn how_far(member: &Member, leader: NodeId) -> Result<u64, Code> {
    // The log here may not know it yet.
    let known = member.peers.all().into_iter().find(|(node, _)| *node == leader);
    let (_, address) = known.ok_or(Code::Unavailable)?;
    let channel = member.peers.channel_at(leader, &address);
    let mut request = Request::new(v1::HowFarRequest {});
    request.set_timeout(ANSWER);
    let asked = ClusterClient::new(channel).how_far(request).await;
    asked.map(|reply| reply.into_inner().index).map_err(|status| status.code())
}
