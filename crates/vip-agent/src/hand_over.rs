//! Carries out what vip-core decides about giving away VIPs and leadership.

use crate::node::Member;
use tokio::time::sleep;
use vip_core::{HAND_OVER_POLL, HandOver, HandOverStep, NodeId};

/// Gives away what this node holds, VIPs first, leadership last. Bounded: the
/// guard lets go in any case.
pub(crate) async fn hand_over_everything(member: &Member) {
    let begun = member.shared.with(|leases, now| HandOver::of_everything(now, leases));
    to_its_end(member, begun).await;
}

/// Gives leadership away. What was held by its lease must have been handed over
/// before. Bounded: leadership stays if a VIP is still held here, or if the
/// successor lags.
pub(crate) async fn hand_over_leadership(member: &Member, to: NodeId) {
    if let Some(begun) = of_leadership(member, to) {
        to_its_end(member, begun).await;
    }
}

/// Tries once.
pub(crate) async fn try_to_hand_over_leadership(member: &Member, to: NodeId) {
    if let Some(mut begun) = of_leadership(member, to) {
        step(member, &mut begun).await;
    }
}

fn of_leadership(member: &Member, to: NodeId) -> Option<HandOver> {
    member.shared.with(|leases, now| HandOver::of_leadership(now, leases, to))
}

async fn to_its_end(member: &Member, mut begun: HandOver) {
    while step(member, &mut begun).await != HandOverStep::Done {
        sleep(HAND_OVER_POLL).await;
    }
}

async fn step(member: &Member, begun: &mut HandOver) -> HandOverStep {
    let is_last = member.shared.with(|leases, now| begun.waits_for_the_log(now, leases));
    let rest = if is_last { member.raft.at_rest().await } else { None };
    let has_all = |node| rest.as_ref().is_some_and(|rest| rest.has_all(node));
    let step = member.shared.with(|leases, now| begun.step(now, leases, has_all));
    if let HandOverStep::Transfer(to) = step {
        tracing::info!(%to, "handing leadership over");
        member.raft.transfer_leader(to).await;
    }
    step
}
