//! The CAs that sign certificates, and their replacement.
//!
//! ```text
//!  RemoveNode for cause ──> suspects: status warns
//!  RotateIssuer ──> the new one signs, both are trusted; members take new certificates
//!  RetireIssuers ──> the old ones are trusted no more, their logins end
//! ```

use super::State;
use crate::{ClusterEvent, Name, Node, NodeId, NodeState, Outcome, Refusal, Role};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::sync::Arc;

/// The CAs that may sign, and what is known of their keys.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Issuers {
    /// Keys (SPKI hashes) whose certificates are trusted; the last one signs.
    pub trusted: Vec<String>,
    /// Keys that were replaced: never again.
    pub retired: Vec<String>,
    /// Who made the one that signs, and has its key first.
    pub made_by: Option<NodeId>,
    /// Nodes that were removed for cause since, and had the key that signs.
    pub suspects: Vec<Suspect>,
    /// Nodes that had the root's key in their hands, beside the first one.
    pub had_root: BTreeSet<NodeId>,
    /// Those of them that were removed for cause.
    pub root_exposed: Vec<Name>,
    /// When the one that signs began to, log time in ms since 1970.
    pub since_ms: u64,
}

/// A node that was removed for cause, or is about to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Suspect {
    pub node: NodeId,
    pub name: Name,
    /// The key (SPKI hash) that signed then, which it may have kept.
    pub issuer: String,
}

/// The old issuer is trusted for no longer beside the new one.
const ROTATION_LASTS_MS: u64 = 10 * 60 * 1000;

/// The node that `init` ran on: it wrote the root's key.
const FIRST: NodeId = NodeId(1);

impl Issuers {
    /// Before any replacement.
    pub(crate) fn first(issuer: &str) -> Self {
        Self { trusted: vec![issuer.to_owned()], ..Self::default() }
    }

    /// The key (SPKI hash) that signs.
    #[must_use]
    pub fn signing(&self) -> Option<&str> {
        self.trusted.last().map(String::as_str)
    }

    /// Whether this key (SPKI hash) signs or did before.
    #[must_use]
    pub fn knows(&self, spki: &str) -> bool {
        self.trusted.iter().chain(&self.retired).any(|known| known == spki)
    }

    /// Whether one is being replaced.
    #[must_use]
    pub fn is_rotating(&self) -> bool {
        self.trusted.len() > 1
    }

    /// Whether a node had the root's key: then a new issuer is not enough.
    #[must_use]
    pub fn had_root(&self, node: NodeId) -> bool {
        node == FIRST || self.had_root.contains(&node)
    }
}

impl State {
    /// The CAs; none before `init`.
    #[must_use]
    pub fn issuers(&self) -> Option<&Issuers> {
        self.cluster.as_ref().map(|cluster| &cluster.issuers)
    }

    /// The key (SPKI hash) of the CA that signs.
    #[must_use]
    pub fn signing_issuer(&self) -> Option<&str> {
        self.issuers()?.signing()
    }

    /// A node is about to be removed for cause.
    pub(super) fn suspect(&mut self, node: NodeId) {
        let Some(known) = self.nodes.get(&node) else { return };
        let Some(cluster) = &mut self.cluster else { return };
        let (name, issuers) = (known.name.clone(), &mut Arc::make_mut(cluster).issuers);
        if issuers.had_root(node) && !issuers.root_exposed.contains(&name) {
            issuers.root_exposed.push(name.clone());
        }
        // Nobody else is given the key.
        if known.role != Role::Voter {
            return;
        }
        let issuer = issuers.signing().unwrap_or_default().to_owned();
        issuers.suspects.retain(|s| s.node != node);
        issuers.suspects.push(Suspect { node, name, issuer });
    }

    /// Its removal was undone.
    pub(super) fn trust_again(&mut self, node: NodeId) {
        if let Some(cluster) = &mut self.cluster {
            Arc::make_mut(cluster).issuers.suspects.retain(|s| s.node != node);
        }
    }

    /// Whether an issuer is being replaced for so long that whoever still has no
    /// certificate of the new one is waited for no longer.
    #[must_use]
    pub fn rotation_is_late(&self, now_ms: u64) -> bool {
        self.issuers().is_some_and(|issuers| {
            issuers.is_rotating() && now_ms >= issuers.since_ms + ROTATION_LASTS_MS
        })
    }

    pub(super) fn rotate_issuer(
        &mut self,
        actor: &str,
        issuer: &str,
        made_by: NodeId,
    ) -> Result<Outcome, Refusal> {
        let Some(cluster) = &mut self.cluster else { return Ok(Outcome::Unchanged) };
        let issuers = &mut Arc::make_mut(cluster).issuers;
        if issuers.signing() == Some(issuer) {
            return Ok(Outcome::Unchanged);
        }
        // Whoever has it could be anybody by now.
        if issuers.knows(issuer) {
            return Err(Refusal::IssuerReplaced);
        }
        // Or the new key would go to the node that it is made against.
        if let Some(stays) = issuers.suspects.iter().find(|s| self.nodes.contains_key(&s.node)) {
            return Err(Refusal::SuspectStays { name: stays.name.clone() });
        }
        issuers.trusted.push(issuer.to_owned());
        issuers.since_ms = self.time_ms;
        issuers.made_by = Some(made_by);
        issuers.had_root.insert(made_by);
        self.record(actor, ClusterEvent::IssuerRotated);
        Ok(Outcome::Done)
    }

    pub(super) fn retire_issuers(&mut self, actor: &str, keep: &str) -> Outcome {
        let Some(cluster) = &mut self.cluster else { return Outcome::Unchanged };
        let issuers = &mut Arc::make_mut(cluster).issuers;
        if issuers.signing() != Some(keep) || !issuers.is_rotating() {
            return Outcome::Unchanged;
        }
        let replaced = issuers.trusted.drain(..issuers.trusted.len() - 1);
        issuers.retired.extend(replaced);
        let Issuers { suspects, retired, .. } = issuers;
        suspects.retain(|s| self.nodes.contains_key(&s.node) || !retired.contains(&s.issuer));
        Arc::make_mut(&mut self.logins).retain(|_, login| login.issuer == keep);
        self.record(actor, ClusterEvent::IssuersRetired);
        Outcome::Done
    }

    /// Members that have no certificate of the issuer that signs yet. One that
    /// joins gets one when it is taken in.
    pub fn not_reissued<'a>(
        &'a self,
        reissued: &'a BTreeSet<NodeId>,
    ) -> impl Iterator<Item = &'a Node> {
        let stays = |node: &&Node| node.state != NodeState::Joining;
        self.nodes.values().filter(stays).filter(|node| !reissued.contains(&node.id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{apply, state_of, voter};
    use crate::{
        Actor, AdminRole, Cluster, ClusterOp, Command, Login, LoginOp, NodeOp, Op, Profile,
    };

    fn state() -> State {
        let mut state = state_of([voter(1), voter(2), voter(3)]);
        let (id, name) = ("c".into(), "c".parse().expect("a name"));
        let issuers = Issuers::first("old");
        state.cluster = Some(Arc::new(Cluster { id, name, profile: Profile::Lan, issuers }));
        state
    }

    fn issuers(state: &State) -> &Issuers {
        state.issuers().expect("a cluster")
    }

    fn rotate(state: &mut State, issuer: &str) -> Outcome {
        let op = ClusterOp::RotateIssuer { issuer: issuer.into(), made_by: NodeId(2) };
        let command =
            Command { time_ms: 1, actor: Actor("root@n2".into()), term: None, op: op.into() };
        state.apply(1, &command)
    }

    fn login(issuer: &str) -> Op {
        let (user, role) = ("eve".parse().expect("a name"), AdminRole::Admin);
        let (spki, issuer, issued_by) = (issuer.to_owned(), issuer.to_owned(), String::new());
        let login = Login { user, role, spki, expires_ms: u64::MAX, issuer, issued_by };
        LoginOp::Issue { login }.into()
    }

    #[test]
    fn the_old_issuer_is_trusted_until_it_is_retired_and_never_again() {
        let mut state = state();
        apply(&mut state, login("old"));
        assert_eq!(rotate(&mut state, "new"), Outcome::Done);
        assert_eq!(issuers(&state).signing(), Some("new"));
        assert_eq!(issuers(&state).trusted, ["old", "new"]);
        apply(&mut state, login("new"));
        // Somebody else's idea of what is kept.
        apply(&mut state, ClusterOp::RetireIssuers { keep: "old".into() });
        assert!(issuers(&state).is_rotating());
        apply(&mut state, ClusterOp::RetireIssuers { keep: "new".into() });
        assert_eq!(issuers(&state).trusted, ["new"]);
        assert_eq!(state.logins.keys().collect::<Vec<_>>(), ["new"]);
        assert_eq!(rotate(&mut state, "old"), Outcome::Refused(Refusal::IssuerReplaced));
        assert_eq!(rotate(&mut state, "new"), Outcome::Unchanged);
    }

    #[test]
    fn a_suspect_goes_before_the_new_key_comes() {
        let mut state = state();
        let leaving = NodeOp::Leaving { node: NodeId(3), for_cause: true };
        apply(&mut state, leaving.clone());
        let name = "n3".parse().expect("a name");
        let refused = Outcome::Refused(Refusal::SuspectStays { name });
        assert_eq!(rotate(&mut state, "new"), refused);
        apply(&mut state, NodeOp::Remove { node: NodeId(3) });
        assert_eq!(issuers(&state).suspects.len(), 1);
        assert_eq!(rotate(&mut state, "new"), Outcome::Done);
        assert_eq!(issuers(&state).suspects.len(), 1, "it can still sign");
        apply(&mut state, ClusterOp::RetireIssuers { keep: "new".into() });
        assert_eq!(issuers(&state).suspects, []);
    }

    /// It had the new key by then.
    #[test]
    fn a_suspect_of_the_new_issuer_outlives_the_old_one() {
        let mut state = state();
        assert_eq!(rotate(&mut state, "new"), Outcome::Done);
        apply(&mut state, NodeOp::Leaving { node: NodeId(3), for_cause: true });
        apply(&mut state, NodeOp::Remove { node: NodeId(3) });
        apply(&mut state, ClusterOp::RetireIssuers { keep: "new".into() });
        assert_eq!(issuers(&state).suspects.len(), 1);
        assert_eq!(rotate(&mut state, "newer"), Outcome::Done);
        apply(&mut state, ClusterOp::RetireIssuers { keep: "newer".into() });
        assert_eq!(issuers(&state).suspects, []);
    }

    #[test]
    fn nobody_keeps_the_old_issuer_alive_for_long() {
        let mut state = state();
        assert!(!state.rotation_is_late(u64::MAX));
        rotate(&mut state, "new");
        let begun = issuers(&state).since_ms;
        assert!(!state.rotation_is_late(begun + 599_999));
        assert!(state.rotation_is_late(begun + 600_000));
    }

    #[test]
    fn a_learner_had_no_issuing_key_and_the_roots_is_remembered() {
        let mut state = state();
        state.node_mut(NodeId(3)).expect("there").role = Role::Learner;
        apply(&mut state, NodeOp::Leaving { node: NodeId(3), for_cause: true });
        assert_eq!(issuers(&state).suspects, []);
        apply(&mut state, NodeOp::Leaving { node: NodeId(1), for_cause: true });
        assert_eq!(issuers(&state).root_exposed.len(), 1);
    }

    #[test]
    fn a_removal_for_cause_that_is_undone_leaves_no_suspect() {
        let mut state = state();
        apply(&mut state, NodeOp::Leaving { node: NodeId(3), for_cause: true });
        apply(&mut state, NodeOp::Drain { node: NodeId(3), drained: false });
        assert_eq!(issuers(&state).suspects, []);
    }

    #[test]
    fn whoever_had_the_root_is_remembered() {
        let mut state = state();
        rotate(&mut state, "new");
        let had = |id| issuers(&state).had_root(NodeId(id));
        assert_eq!([1, 2, 3].map(had), [true, true, false]);
    }

    #[test]
    fn whoever_joins_is_not_waited_for() {
        let mut state = state();
        state.node_mut(NodeId(3)).expect("there").state = NodeState::Joining;
        let reissued = BTreeSet::from([NodeId(1)]);
        let missing: Vec<_> = state.not_reissued(&reissued).map(|n| n.id).collect();
        assert_eq!(missing, [NodeId(2)]);
    }
}
