//! As leader: what the log should say.

use super::Leases;
use crate::{
    Assignment, ConflictChange, Grantee, Level, Mac, Mono, NodeId, NodeOp, NodeView,
    ObstacleChange, Op, Runs, Settled, State, Term, ViaToken, Vip, VipOp, VipUid, decide, target,
};
use std::collections::{BTreeMap, BTreeSet};

/// What a leader looks at that changes by time alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    term: Term,
    /// No deadline of before its election can be left at its gate.
    outlived: bool,
    views: BTreeMap<NodeId, NodeView>,
}

/// Changes of the log that are due.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeaderWork {
    /// The term that they are due in, and void in any other.
    pub term: Term,
    /// Changes of holder.
    pub moves: Vec<Assignment>,
    /// Grants of this node to itself that nest in its lease.
    pub own: Vec<Grantee>,
    /// Grants to others.
    pub others: Vec<Grantee>,
    /// Epochs that ended.
    pub releases: Vec<Grantee>,
    /// What came to hinder nodes, or hinders them no more.
    pub obstacles: Vec<ObstacleChange>,
    /// Removed VIPs that nobody can answer for any more.
    pub outwaited: Vec<VipUid>,
    /// Epochs whose holder says that it answers.
    pub answered: Vec<Grantee>,
    /// Who came to claim addresses beside holders, or does no more.
    pub conflicts: Vec<ConflictChange>,
    /// What holders saw of where VIPs are, before they change it.
    pub tokens: Vec<(VipUid, ViaToken)>,
    /// Nodes whose interfaces changed.
    pub interfaces: Vec<(NodeId, BTreeSet<Mac>)>,
    /// Nodes that run another version than the log says.
    pub runs: Vec<(NodeId, Runs)>,
}

impl LeaderWork {
    fn is_nothing(&self) -> bool {
        *self == Self { term: self.term, ..Self::default() }
    }

    /// The commands, to be proposed in [`Self::term`], in order of urgency: a
    /// VIP without a holder is what hurts.
    #[must_use]
    pub fn ops(self) -> Vec<Op> {
        let Self {
            term: _,
            moves,
            own,
            others,
            releases,
            obstacles,
            outwaited,
            answered,
            conflicts,
            tokens,
            interfaces,
            runs,
        } = self;
        let settle = |grants: Vec<Grantee>, nested| {
            (!grants.is_empty()).then_some(VipOp::Settle { grants, nested })
        };
        let moves = (!moves.is_empty()).then_some(VipOp::Assign { moves });
        let releases = (!releases.is_empty()).then_some(VipOp::Released { releases });
        let obstacles = (!obstacles.is_empty()).then_some(VipOp::Obstacles { changes: obstacles });
        let outwaited = (!outwaited.is_empty()).then_some(VipOp::Outwaited { vips: outwaited });
        let answered = (!answered.is_empty()).then_some(VipOp::Answered { grants: answered });
        let conflicts = (!conflicts.is_empty()).then_some(VipOp::Conflicts { changes: conflicts });
        let interfaces =
            interfaces.into_iter().map(|(node, macs)| NodeOp::Interfaces { node, macs });
        let runs = runs.into_iter().map(|(node, runs)| NodeOp::Runs { node, runs });
        let tokens = (!tokens.is_empty()).then_some(VipOp::Saw { tokens });
        let urgent = [moves, settle(own, true), settle(others, false), releases, tokens];
        let rest = [obstacles, outwaited, answered, conflicts];
        let of_vips = urgent.into_iter().chain(rest).flatten().map(Op::from);
        of_vips.chain(interfaces.chain(runs).map(Op::from)).collect()
    }
}

/// Where what nodes say of VIPs differs from what the log says of that. Of nodes
/// that were not heard nothing is known; and one that was removed meanwhile has
/// no place in the log any more.
fn differences<'a, T: Clone + PartialEq + 'a>(
    state: &'a State,
    logged: &'a BTreeMap<VipUid, BTreeMap<NodeId, T>>,
    said: impl Iterator<Item = (NodeId, &'a BTreeMap<VipUid, T>)>,
) -> impl Iterator<Item = (VipUid, NodeId, Option<T>)> {
    said.filter(|(node, _)| state.nodes.contains_key(node)).flat_map(move |(node, said)| {
        let known = move |vip: &VipUid| logged.get(vip)?.get(&node);
        let is_new = move |(vip, what): &(&VipUid, &T)| {
            state.vip(**vip).is_some() && known(vip) != Some(*what)
        };
        let new =
            said.iter().filter(is_new).map(move |(vip, what)| (*vip, node, Some(what.clone())));
        let over = logged.keys().filter(move |vip| known(vip).is_some() && !said.contains_key(vip));
        new.chain(over.map(move |vip| (*vip, node, None)))
    })
}

impl Leases {
    /// The node that a VIP is to be on, as things are. For the leader.
    #[must_use]
    pub fn target(&self, now: Mono, vip: &Vip) -> Option<NodeId> {
        target(&self.scene.state, self.scene.me, &self.node_views(now), vip)
    }

    /// What the leader should change in the log, in order of urgency.
    #[must_use]
    pub fn leader_work(&mut self, now: Mono) -> LeaderWork {
        let seen = self.seen(now);
        if let Some(Seen { term, .. }) = seen
            && seen == self.idle_as
        {
            debug_assert!(self.find_work(now).is_nothing(), "work that nobody announced");
            return LeaderWork { term, ..LeaderWork::default() };
        }
        let work = self.find_work(now);
        self.idle_as = seen.filter(|_| work.is_nothing());
        work
    }

    /// What work can come from by time alone, if that can be told.
    fn seen(&self, now: Mono) -> Option<Seen> {
        let leading = self.leader.leading()?;
        let ages = self.holder.claims.ages() || self.scene.state.retired_vips().next().is_some();
        let outlived = now >= leading.lease.elected_at() + self.scene.timing.grant;
        let seen = || Seen { term: leading.lease.term(), outlived, views: self.node_views(now) };
        (self.leads_applied(now) && !ages).then(seen)
    }

    pub(super) fn find_work(&self, now: Mono) -> LeaderWork {
        if !self.leads_applied(now) {
            return LeaderWork::default();
        }
        let Some(leading) = self.leader.leading() else { return LeaderWork::default() };
        let views = self.node_views(now);
        let ended = |vip: &Vip| leading.grants.ended(vip);
        let moves = decide(&self.scene.state, self.scene.me, &views, ended);
        let elected_at = leading.lease.elected_at();
        let (own, others) = leading.grants.unsettled(
            now,
            &self.scene.state,
            self.scene.me,
            elected_at,
            &self.scene.timing,
        );
        let releases = leading.grants.unlogged_releases(&self.scene.state);
        let (term, obstacles) = (leading.lease.term(), self.unlogged_obstacles());
        let outwaited =
            leading.grants.outwaited(now, &leading.lease, &self.scene.state, &self.scene.timing);
        let answered = self.unlogged_answers();
        let (conflicts, interfaces) = (self.unlogged_conflicts(), self.unlogged_interfaces());
        LeaderWork {
            term,
            moves,
            own,
            others,
            releases,
            obstacles,
            outwaited,
            answered,
            conflicts,
            tokens: self.unlogged_tokens(),
            interfaces,
            runs: self.unlogged_versions(),
        }
    }

    fn unlogged_obstacles(&self) -> Vec<ObstacleChange> {
        let own = self.holder.claims.obstacles();
        let others = self.reports().map(|(node, report)| (node, &report.obstacles));
        let said = others.chain([(self.scene.me, &own)]);
        let changes = differences(&self.scene.state, &self.scene.state.obstacles, said);
        changes.map(|(vip, node, why)| ObstacleChange { vip, node, why }).collect()
    }

    fn unlogged_conflicts(&self) -> Vec<ConflictChange> {
        let own = self.holder.claims.conflicts();
        let others = self.reports().map(|(node, report)| (node, &report.conflicts));
        let said = others.chain([(self.scene.me, &own)]);
        let changes = differences(&self.scene.state, &self.scene.state.conflicts, said);
        changes.map(|(vip, node, what)| ConflictChange { vip, node, what }).collect()
    }

    /// Of holders as the log has them.
    fn unlogged_tokens(&self) -> Vec<(VipUid, ViaToken)> {
        let own = self.holder.claims.tokens();
        let others = self.reports().map(|(node, report)| (node, &report.tokens));
        let said = others.chain([(self.scene.me, &own)]);
        let new = said.flat_map(|(node, tokens)| {
            let is_new = move |(vip, token): &(&VipUid, &ViaToken)| {
                let holds = |vip: &&Vip| vip.holder == Some(node) && vip.epoch == token.epoch;
                let vip = self.scene.state.vip(**vip).filter(holds);
                vip.is_some_and(|vip| vip.token.as_ref() != Some(token))
            };
            tokens.iter().filter(is_new).map(|(vip, token)| (*vip, token.clone()))
        });
        new.collect()
    }

    fn unlogged_interfaces(&self) -> Vec<(NodeId, BTreeSet<Mac>)> {
        let others = self.reports().map(|(node, report)| (node, &report.macs));
        let said = others.chain([(self.scene.me, self.guard.macs())]);
        let new = said.filter(|(node, macs)| {
            let logged = self.scene.state.nodes.get(node).map(|node| &node.macs);
            // A guard that is not there says of no interface.
            !macs.is_empty() && logged.is_some_and(|logged| logged != *macs)
        });
        new.map(|(node, macs)| (node, macs.clone())).collect()
    }

    fn unlogged_versions(&self) -> Vec<(NodeId, Runs)> {
        let others = self.reports().map(|(node, report)| (node, &report.runs));
        let new = others.chain([(self.scene.me, &self.scene.runs)]).filter(|(node, runs)| {
            let logged = self.scene.state.nodes.get(node);
            runs.level >= Level::FIRST && logged.is_some_and(|logged| logged.runs != **runs)
        });
        new.map(|(node, runs)| (node, runs.clone())).collect()
    }

    fn unlogged_answers(&self) -> Vec<Grantee> {
        let new = |vip: &&Vip| vip.answered < vip.epoch;
        let answers = |vip: &Vip| {
            let Settled { epoch, incarnation, node } = vip.settled_at(vip.epoch)?;
            let grantee = Grantee { vip: vip.uid, epoch, incarnation };
            let open = if node == self.scene.me {
                self.holder.claims.is_open(vip.uid, epoch)
            } else {
                self.report_of(node).is_some_and(|report| report.open.contains(&grantee))
            };
            open.then_some(grantee)
        };
        self.scene.state.all_vips().filter(new).filter_map(answers).collect()
    }
}
