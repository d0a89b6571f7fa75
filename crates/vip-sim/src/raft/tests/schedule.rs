//! What happens next. Chosen by the seed among what is possible, as the model
//! sees it.

use super::model_nodes::ModelNodes;
use std::collections::BTreeSet;
use vip_core::NodeId;

#[derive(Clone, Debug)]
pub(super) enum Step {
    /// It campaigns, or asks first whether it would be elected.
    Elect {
        node: NodeId,
        pre: bool,
    },
    /// The oldest question for a vote on this link arrives; the answer does too,
    /// or is lost.
    Ask {
        from: NodeId,
        to: NodeId,
        answered: bool,
    },
    /// What a leader has arrives, until there is nothing new.
    Replicate {
        from: NodeId,
        to: NodeId,
        answered: bool,
    },
    Propose(NodeId),
    /// A leader changes who votes.
    Voters(NodeId, BTreeSet<NodeId>),
    /// A leader finishes what another one began.
    Finish(NodeId),
    Transfer {
        from: NodeId,
        to: NodeId,
    },
    /// Killed, with what was not on its disk lost, and started again.
    Restart(NodeId),
    /// Its disk takes no write from now on.
    Stall(NodeId),
    Release(NodeId),
    /// What is under way on this link is lost.
    Lose {
        from: NodeId,
        to: NodeId,
    },
}

impl Step {
    /// Time passes before it, so that openraft's own leases, of which the model
    /// has none, are not in the way: promises are vip-core's. Whoever waited for
    /// a change of voters hangs up.
    pub(super) fn ends_leases(&self) -> bool {
        matches!(self, Self::Elect { .. } | Self::Ask { .. } | Self::Transfer { .. })
    }
}

pub(super) fn next_step(rng: &mut fastrand::Rng, model: &ModelNodes) -> Option<Step> {
    let all = model.ids();
    let node = *rng.choice(&all)?;
    let others: Vec<NodeId> = all.iter().copied().filter(|id| *id != node).collect();
    let to = *rng.choice(&others)?;
    let leaders: Vec<NodeId> = all.iter().copied().filter(|id| model.leads(*id)).collect();
    let leader = rng.choice(&leaders).copied();
    let answered = rng.u8(0..5) > 0;
    match rng.u8(0..100) {
        0..8 => {
            let pre = rng.bool();
            model.may_elect(node).then_some(Step::Elect { node, pre })
        }
        8..40 => {
            let links = model.questions();
            let (from, to) = *rng.choice(&links)?;
            let answered = answered || model.is_stalled(to);
            let may = !model.is_busy(to) && !model.is_enough(to);
            may.then_some(Step::Ask { from, to, answered })
        }
        40..66 => {
            let from = leader.filter(|id| model.may_replicate(*id))?;
            let to = if from == node { to } else { node };
            let next = model.is_one_behind(from, to);
            let stalled = model.is_stalled(to);
            let may = !stalled || (next && !model.is_busy(to));
            let answered = answered || !next || stalled;
            may.then_some(Step::Replicate { from, to, answered })
        }
        66..74 => leader.filter(|id| model.may_propose(*id)).map(Step::Propose),
        74..80 => {
            let from = leader?;
            let mut voters: BTreeSet<NodeId> = all.iter().copied().filter(|_| rng.bool()).collect();
            voters.insert(from);
            model.may_change(from, &voters).then_some(Step::Voters(from, voters))
        }
        80..83 => {
            let from = leader?;
            let unfinished = model.unfinished(from)?;
            model.may_change(from, &unfinished).then_some(Step::Finish(from))
        }
        83..86 => {
            let from = leader?;
            let to = if from == node { to } else { node };
            model.may_transfer(from, to).then_some(Step::Transfer { from, to })
        }
        86..90 => {
            let held_up = others.iter().any(|id| model.is_stalled(*id));
            (!held_up).then_some(Step::Restart(node))
        }
        90..94 => (!model.is_stalled(node)).then_some(Step::Stall(node)),
        94..98 => model.is_stalled(node).then_some(Step::Release(node)),
        _ => Some(Step::Lose { from: node, to }),
    }
}
