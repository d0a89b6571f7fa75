//! Who the log says may connect. Shared with every TLS handshake; replaced
//! whole when the replicated state changes.

use crate::newcomers::Newcomers;
use crate::seen::Seen;
use arc_swap::ArcSwap;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;
use vip_core::{AdminRole, Name, NodeId, State};

/// Why a certificate that is genuine is refused all the same.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// Tombstoned.
    #[error("node {0} was removed from the cluster")]
    Removed(NodeId),
    /// Another key than the admitted one.
    #[error("the certificate of node {0} has another key than the one that was admitted")]
    OtherKey(NodeId),
    /// An unknown id that the log, as far as it is known here, never admitted.
    #[error("node {0} is not a member")]
    Unknown(NodeId),
    /// Signed for longer than this cluster signs.
    #[error("the certificate is valid for longer than this cluster's are")]
    Life,
    /// Nobody was given this certificate, or it was revoked.
    #[error("the certificate is not, or no longer, one that the log lists for {0}")]
    Login(Name),
    /// A CA that the log does not list.
    #[error("the certificate was issued by a CA that this cluster does not trust")]
    Issuer,
}

/// What the log says about identities.
#[derive(Clone, Debug, Default)]
pub struct Roster {
    cluster: String,
    issuers: Vec<String>,
    /// Replaced ones.
    retired: Vec<String>,
    /// The one of this node's own certificate: it was signed by a member, and
    /// may be newer than the log here.
    own_issuer: String,
    /// Keys (SPKI hashes) of the members.
    nodes: BTreeMap<NodeId, String>,
    removed: Vec<NodeId>,
    /// Keys (SPKI hashes) of people.
    logins: BTreeMap<String, (Name, AdminRole)>,
    applied: u64,
    newcomers: Arc<Newcomers>,
    seen: Arc<Seen>,
}

impl Roster {
    /// Of the state at log index `applied`, after `before`.
    #[must_use]
    pub fn of(state: &State, applied: u64, before: &Self) -> Self {
        let cluster = state.cluster.as_ref().map(|cluster| cluster.id.clone()).unwrap_or_default();
        let (issuers, retired) = state
            .issuers()
            .map(|issuers| (issuers.trusted.clone(), issuers.retired.clone()))
            .unwrap_or_default();
        let nodes = state.nodes.values().map(|n| (n.id, n.spki.clone())).collect();
        let removed = state.tombstones.keys().copied().collect();
        let logins = state.logins.values().map(|l| (l.spki.clone(), (l.user.clone(), l.role)));
        let logins = logins.collect();
        let before = before.clone();
        Self { cluster, issuers, retired, nodes, removed, logins, applied, ..before }
    }

    /// What a new member knows before it has the log: what the join answered.
    #[must_use]
    pub fn of_join(
        cluster: String,
        issuer: String,
        members: impl IntoIterator<Item = (NodeId, String)>,
    ) -> Self {
        let nodes = members.into_iter().collect();
        Self { cluster, issuers: vec![issuer], nodes, ..Self::default() }
    }

    /// The same, for a node whose own certificate this issuer signed.
    #[must_use]
    pub fn signed_by(self, own_issuer: String) -> Self {
        Self { own_issuer, ..self }
    }

    /// The cluster's id.
    #[must_use]
    pub fn cluster(&self) -> &str {
        &self.cluster
    }

    /// Members that were removed.
    #[must_use]
    pub fn removed(&self) -> &[NodeId] {
        &self.removed
    }

    #[cfg(test)]
    pub(crate) fn with_login(mut self, spki: &str) -> Self {
        let login = ("eve".parse().expect("a name"), AdminRole::Viewer);
        self.logins.insert(spki.to_owned(), login);
        self
    }

    /// Whether the log lists this key as a person's.
    pub(crate) fn lists_key(&self, spki: &str) -> bool {
        self.logins.contains_key(spki)
    }

    /// Whether the log lists this key as this person's.
    pub(crate) fn lists(&self, spki: &str, user: &Name, role: AdminRole) -> bool {
        self.logins.get(spki).is_some_and(|listed| (&listed.0, listed.1) == (user, role))
    }

    /// A member showed a certificate that is good until then. What is no member
    /// is not remembered.
    pub(crate) fn saw(&self, node: NodeId, until: i64) {
        if self.has(node) {
            self.seen.note(node, until);
        }
    }

    /// Until when the members' certificates are good, seconds since 1970, as
    /// they last showed them.
    #[must_use]
    pub fn certificates(&self) -> Vec<(NodeId, i64)> {
        self.seen.of(self.nodes.keys())
    }

    /// Whether certificates of this issuer (SPKI hash) are good.
    #[must_use]
    pub fn trusts_issuer(&self, spki: &str) -> bool {
        let own = self.own_issuer == spki && !self.retired.iter().any(|i| i == spki);
        own || self.issuers.iter().any(|i| i == spki)
    }

    /// Whether a node may connect with this key. A node that is unknown here is
    /// let in for a while if it was admitted later than this replica has heard
    /// of: a laggard must be able to follow a leader that is newer than its log.
    ///
    /// # Errors
    /// [`Denied`].
    pub fn admits(&self, node: NodeId, spki: &str, admitted: u64) -> Result<(), Denied> {
        if self.removed.contains(&node) {
            return Err(Denied::Removed(node));
        }
        match self.nodes.get(&node) {
            Some(known) if known == spki => Ok(()),
            Some(_) => Err(Denied::OtherKey(node)),
            None if admitted > self.applied && self.newcomers.let_in(Instant::now()) => Ok(()),
            None => Err(Denied::Unknown(node)),
        }
    }

    /// Whether the log has this node.
    pub(crate) fn has(&self, node: NodeId) -> bool {
        self.nodes.contains_key(&node)
    }

    /// Whether the log knows this very key as the node's.
    pub(crate) fn knows(&self, node: NodeId, spki: &str) -> bool {
        !self.removed.contains(&node) && self.nodes.get(&node).is_some_and(|known| known == spki)
    }
}

/// The roster as all handshakes see it.
pub type SharedRoster = Arc<ArcSwap<Roster>>;

#[cfg(test)]
mod tests {
    use super::*;

    fn roster() -> Roster {
        let mut roster = Roster::of_join("c".into(), "i".into(), [(NodeId(1), "k1".to_owned())]);
        roster.applied = 10;
        roster.removed.push(NodeId(2));
        roster
    }

    /// It may be newer than the log here, until that says that it was replaced.
    #[test]
    fn the_issuer_of_ones_own_certificate_is_trusted() {
        let mut roster = roster().signed_by("new".into());
        let trusted = |roster: &Roster| ["i", "new", "other"].map(|i| roster.trusts_issuer(i));
        assert_eq!(trusted(&roster), [true, true, false]);
        roster.retired.push("new".into());
        assert_eq!(trusted(&roster), [true, false, false]);
    }

    #[test]
    fn only_members_with_their_key_and_later_admissions_get_in() {
        let roster = roster();
        assert_eq!(roster.admits(NodeId(1), "k1", 1), Ok(()));
        assert_eq!(roster.admits(NodeId(1), "k9", 1), Err(Denied::OtherKey(NodeId(1))));
        assert_eq!(roster.admits(NodeId(2), "k2", 99), Err(Denied::Removed(NodeId(2))));
        assert_eq!(roster.admits(NodeId(3), "k3", 10), Err(Denied::Unknown(NodeId(3))));
        assert_eq!(roster.admits(NodeId(3), "k3", 11), Ok(()));
    }
}
