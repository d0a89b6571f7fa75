//! When a command's effect holds, and what is missing until then, by the log and by
//! what the leader hears.

use crate::{Epoch, Leases, Mono, Name, NodeId, Refusal, State, Vip, VipUid, Why};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

/// A guard that was just started, or started anew, is there within this time.
const GUARD_APPEARS: Duration = Duration::from_secs(2);

/// How far it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// The effect is there.
    Holds,
    /// To wait longer would help only if somebody changed something.
    Hopeless(Hopeless),
    /// What is awaited, as a sentence without its end.
    Missing(String),
}

/// Why an effect will not come.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Hopeless {
    /// Each node that is there says that it cannot.
    #[error("no node can hold {vip}{why}")]
    Nowhere {
        vip: Name,
        /// Why not, node by node: the rest of the sentence.
        why: String,
    },
    /// A node has an address of it for itself, and would be the second to answer.
    #[error(
        "{node} has {ip} of {vip} for itself, which vipd did not add, and would be the second to \
         answer: take the address away there"
    )]
    Taken { vip: Name, node: Name, ip: IpAddr },
    /// The node that it was to be on cannot hold it.
    #[error(transparent)]
    NotThere(Refusal),
    /// Somebody removed it.
    #[error("the command was carried out, but VIP {0} was removed after it")]
    Removed(Name),
}

/// What a command waits for.
#[derive(Clone, Debug)]
pub enum Goal {
    /// A VIP answers, and its holder before does not.
    Answers(Answering),
    /// A node holds nothing, and what it held is certainly silent.
    Relieved(NodeId),
    /// Nobody answers for a VIP that was removed.
    Gone(VipUid, Name),
}

/// See [`Goal::Answers`].
#[derive(Clone, Debug)]
pub struct Answering {
    vip: Name,
    at: Option<NodeId>,
    settled: Mono,
    /// Since when nodes can hold nothing at all.
    unfit: BTreeMap<NodeId, Mono>,
}

/// What a goal is looked at with.
struct Sight<'a> {
    now: Mono,
    state: &'a State,
    leases: &'a Leases,
}

impl Goal {
    /// `vip` answers, on `at` if that is said. Until `settled` nodes may still say
    /// what hindered them before.
    #[must_use]
    pub fn answers(vip: Name, at: Option<NodeId>, settled: Mono) -> Self {
        Self::Answers(Answering { vip, at, settled, unfit: BTreeMap::new() })
    }

    /// How far it is, as the leader knows: `state` is the log's, as applied.
    #[must_use]
    pub fn look(&mut self, now: Mono, state: &State, leases: &Leases) -> Progress {
        let sight = Sight { now, state, leases };
        match self {
            Self::Answers(answering) => answering.look(&sight),
            Self::Relieved(node) => sight.relieved(*node),
            Self::Gone(vip, name) => sight.gone(*vip, name),
        }
    }
}

impl Answering {
    fn look(&mut self, sight: &Sight<'_>) -> Progress {
        let Sight { now, state, leases } = *sight;
        self.remember_unfit(sight);
        let Some(vip) = state.vip_named(self.vip.as_str()) else {
            return Progress::Hopeless(Hopeless::Removed(self.vip.clone()));
        };
        let there = self.at.is_none_or(|at| vip.holder == Some(at));
        let answers = leases.answers(vip);
        // Also by the log, so that every other command says the same.
        let logged = vip.answered == vip.epoch;
        if there && logged && answers.whole && answers.before_ended {
            return Progress::Holds;
        }
        if now >= self.settled
            && let Some(nowhere) = self.nowhere(sight, vip)
        {
            return Progress::Hopeless(nowhere);
        }
        let at = self.at.filter(|_| now >= self.settled);
        if let Some(refusal) = at.and_then(|at| self.not_there(sight, vip, at)) {
            return Progress::Hopeless(Hopeless::NotThere(refusal));
        }
        let (name, why) = (&self.vip, sight.hindrances(vip));
        Progress::Missing(match vip.holder.and_then(|holder| state.node_name(holder)) {
            Some(node) => format!("{name} is assigned to {node}, which does not answer yet{why}"),
            None => format!("no node can hold {name} at the moment{why}"),
        })
    }

    fn remember_unfit(&mut self, sight: &Sight<'_>) {
        let unfit = sight.state.nodes.keys().filter(|node| sight.trouble(**node).is_some());
        let unfit: BTreeSet<NodeId> = unfit.copied().collect();
        self.unfit.retain(|node, _| unfit.contains(node));
        for node in unfit {
            self.unfit.entry(node).or_insert(sight.now);
        }
    }

    /// A node can hold nothing, and for so long that it is for good, as far as
    /// anybody can tell.
    fn is_unfit_for_long(&self, now: Mono, node: NodeId) -> bool {
        self.unfit.get(&node).is_some_and(|since| now >= *since + GUARD_APPEARS)
    }

    fn not_there(&self, sight: &Sight<'_>, vip: &Vip, at: NodeId) -> Option<Refusal> {
        let trouble = || sight.trouble(at).filter(|_| self.is_unfit_for_long(sight.now, at));
        sight
            .state
            .hindrance(vip, at)
            .or_else(|| sight.state.cannot_hold(at, trouble()?.to_owned()))
    }

    /// If one has an address of it for itself, or each of the nodes that are there
    /// says that it cannot.
    fn nowhere(&self, sight: &Sight<'_>, vip: &Vip) -> Option<Hopeless> {
        let Sight { now, state, leases } = *sight;
        if vip.answered >= vip.epoch.max(Epoch(1)) {
            return None;
        }
        let taken = sight.taken(vip);
        if taken.is_some() {
            return taken;
        }
        let alive = leases.alive(now);
        let none = BTreeMap::new();
        let known = state.obstacles.get(&vip.uid).unwrap_or(&none);
        // What was refused before somebody said that it is meant to be.
        let is_meant = |why: &Why| matches!(why, Why::Answered(_)) && vip.spec.no_probe;
        let hindered = |node: NodeId| {
            let obstacle = known.get(&node).is_some_and(|what| !is_meant(&what.why));
            obstacle || self.is_unfit_for_long(now, node)
        };
        let nodes = state.nodes.values();
        let mut there = nodes.filter(|n| n.may_hold() && alive.contains(&n.id)).peekable();
        // Of none that is there nothing is known.
        let all = there.peek().is_some() && there.all(|node| hindered(node.id));
        all.then(|| Hopeless::Nowhere { vip: vip.spec.name.clone(), why: sight.hindrances(vip) })
    }
}

impl Sight<'_> {
    /// Why a node can hold nothing at all, as far as is known here.
    fn trouble(&self, node: NodeId) -> Option<&'static str> {
        self.leases.fitness_of(self.now, node)?.trouble()
    }

    /// If a node has an address of it for itself, before it ever answered. The others
    /// refuse it where they hear that, and say so only once they were asked to hold
    /// it: what hinders them is left out.
    fn taken(&self, vip: &Vip) -> Option<Hopeless> {
        if vip.answered > Epoch(0) {
            return None;
        }
        let obstacles = self.state.obstacles.get(&vip.uid)?;
        let (node, what) = obstacles.iter().find(|(_, what)| what.why == Why::HostHasIt)?;
        let (node, vip) = (self.state.node_name(*node)?.clone(), vip.spec.name.clone());
        Some(Hopeless::Taken { vip, node, ip: what.ip })
    }

    /// What hinders nodes from holding the VIP, as the end of a sentence.
    fn hindrances(&self, vip: &Vip) -> String {
        let mut reasons: Vec<(String, Vec<&str>)> = vec![];
        let obstacles = self.state.obstacles.get(&vip.uid);
        for node in self.state.nodes.values().filter(|node| node.may_hold()) {
            let obstacle = || obstacles?.get(&node.id).map(ToString::to_string);
            let why = self.trouble(node.id).map(ToOwned::to_owned).or_else(obstacle);
            let Some(why) = why else { continue };
            match reasons.iter_mut().find(|(known, _)| *known == why) {
                Some((_, nodes)) => nodes.push(node.name.as_str()),
                None => reasons.push((why, vec![node.name.as_str()])),
            }
        }
        reasons.iter().map(|(why, nodes)| format!("; on {}: {why}", nodes.join(", "))).collect()
    }

    fn relieved(&self, node: NodeId) -> Progress {
        let before_ended = |vip: &Vip| self.leases.ended(vip) >= vip.epoch.previous();
        let still =
            |vip: &&Vip| vip.holder == Some(node) || (vip.holder.is_none() && !before_ended(vip));
        let held = self.state.all_vips().filter(still).map(|vip| vip.spec.name.as_str());
        let held: Vec<_> = held.collect();
        if held.is_empty() {
            return Progress::Holds;
        }
        let held = held.join(", ");
        Progress::Missing(format!("it still holds {held}, and no other node can take over"))
    }

    fn gone(&self, vip: VipUid, name: &Name) -> Progress {
        let Some(left) = self.state.vip_or_retired(vip) else { return Progress::Holds };
        let never_granted = left.settled.is_none();
        if never_granted || self.leases.ended(left) >= left.epoch {
            return Progress::Holds;
        }
        Progress::Missing(format!("the last holder of {name} has not released it yet"))
    }
}

#[cfg(test)]
mod tests;
