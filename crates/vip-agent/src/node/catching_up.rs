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
/// A leader that leads for so long and does not answer is waited for no longer: this node
/// may have to hold what nobody else can.
const PATIENCE: Duration = Duration::from_secs(1);

/// Waits until it is, and says so.
pub(super) async fn catch_up(member: Arc<Member>, is_new: watch::Sender<bool>) {
    let stop = member.stopped();
    let mut changes = member.leases.changes();
    let mut led_since = None;
    loop {
        changes.borrow_and_update();
        if member.leases.leads_applied() {
            break;
        }
        let leader = member.leases.leader();
        if let Some(leader) = leader.filter(|leader| *leader != member.meta.node) {
            let since = *led_since.get_or_insert_with(Instant::now);
            match how_far(&member, leader).await {
                Ok(index) => {
                    let mut applied = member.log.applied();
                    tokio::select! {
                        () = stop.cancelled() => return,
                        _ = applied.wait_for(|applied| applied.index >= index) => break,
                    }
                }
                // This node has not joined yet.
                Err(Code::PermissionDenied) => led_since = None,
                // It was started before an upgrade.
                Err(Code::Unimplemented) => break,
                Err(code) if since.elapsed() >= PATIENCE => {
                    tracing::warn!(%leader, %code, "the leader does not say how far the log goes");
                    break;
                }
                Err(_) => {}
            }
        } else {
            led_since = None;
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
    let channel = member.peers.channel(leader).ok_or(Code::Unavailable)?;
    let mut request = Request::new(v1::HowFarRequest {});
    request.set_timeout(ANSWER);
    let asked = ClusterClient::new(channel).how_far(request).await;
    asked.map(|reply| reply.into_inner().index).map_err(|status| status.code())
}
