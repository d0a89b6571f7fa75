//! What a node can know of others when somebody asks it.

use crate::node::Member;
use std::collections::BTreeSet;
use vip_core::{NodeId, State, Vip};

/// The name of a node that is or was a member.
pub(super) fn name(state: &State, node: Option<NodeId>) -> Option<String> {
    node.and_then(|id| state.node_name(id)).map(ToString::to_string)
}

/// The same of a node of which something is told.
pub(super) fn named(state: &State, node: NodeId) -> String {
    name(state, Some(node)).unwrap_or_else(|| format!("node {node}"))
}

/// What a node can know of others.
pub(super) struct Sight<'a> {
    pub(super) member: &'a Member,
    /// It leads, and its state is the newest.
    pub(super) fresh: bool,
    alive: BTreeSet<NodeId>,
}

impl<'a> Sight<'a> {
    pub(super) fn of(member: &'a Member) -> Self {
        let (fresh, alive) = (member.leases.leads_applied(), member.leases.alive());
        Self { member, fresh, alive }
    }

    /// Whether a VIP answers: the leader knows, which hears its holder; and the
    /// holder itself.
    pub(super) fn answers(&self, vip: &Vip) -> bool {
        let Self { member, fresh, alive } = self;
        let logged = vip.answered == vip.epoch && vip.fenced < vip.epoch;
        let here = vip.holder == Some(member.meta.node);
        let heard = || *fresh && vip.holder.is_some_and(|holder| alive.contains(&holder));
        logged && if here { member.leases.holds(vip) } else { heard() }
    }
}

/// Why a node can hold nothing at all, as far as this one knows.
pub(super) fn trouble(member: &Member, node: NodeId) -> Option<&'static str> {
    member.leases.fitness_of(node)?.trouble()
}
