//! To whom a leader hands leadership over.

use super::Leases;
use crate::{Mono, Node, NodeId};

/// For how many promises a leader that should not lead goes on after a
/// successor of its choice was not elected. Each attempt costs an election, and
/// perhaps nobody else can win one.
const REST_PROMISES: u32 = 10;

impl Leases {
    /// The voter to lead next: alive, and able to hold VIPs. Those that were
    /// asked before and never led come last, the latest of them very last: a
    /// node that this leader hears may be out of reach of a majority.
    #[must_use]
    pub fn successor(&self, now: Mono) -> Option<NodeId> {
        let alive = self.alive(now);
        let able = |id: &NodeId| self.scene.state.nodes.get(id).is_some_and(Node::may_hold);
        let in_all = |id: &NodeId| self.scene.voters.0.iter().all(|set| set.contains(id));
        let voters = self.scene.voters.all();
        let candidates = voters.into_iter().filter(|id| *id != self.scene.me && alive.contains(id));
        candidates
            .filter(|id| able(id) && in_all(id))
            .min_by_key(|id| (self.leader.handed_to().get(id).copied(), *id))
    }

    /// To whom this node should hand leadership now: a witness, or a node that
    /// is drained, leads only for as long as nobody else can.
    #[must_use]
    pub fn leads_instead_of(&self, now: Mono) -> Option<NodeId> {
        let may_hold = self.scene.state.nodes.get(&self.scene.me).is_some_and(Node::may_hold);
        let latest = self.leader.handed_to().values().max();
        let rests = latest.is_some_and(|at| now < *at + self.scene.timing.promise * REST_PROMISES);
        let holds = || self.scene.state.all_vips().any(|vip| vip.holder == Some(self.scene.me));
        if may_hold || rests || holds() {
            return None;
        }
        self.successor(now)
    }
}
