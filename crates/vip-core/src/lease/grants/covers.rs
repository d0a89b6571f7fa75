//! What each node has is renewed together: one message, one decision, one deadline,
//! whatever the number of VIPs.
//!
//! ```text
//!  granted by itself ──> in the cover of its node ──> renewed with it
//!                                │
//!                                └── moved, ended, not named any more ──> out: its W
//!                                    counts from the last renewal that covered it
//! ```

use super::Grants;
use crate::{Cover, Grantee, Incarnation, LeaderLease, Mono, NodeId, State, Vip, VipUid};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What one node has, all in one session of its guard.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Covered {
    session: Incarnation,
    /// The name of the set, as of [`Covers::of`].
    cover: Cover,
    /// When it was renewed last.
    at: Mono,
}

/// Of every node.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Covers {
    by_node: BTreeMap<NodeId, Covered>,
    /// As of which VIPs, if nothing else changed since.
    #[serde(skip)]
    of: Option<Arc<BTreeMap<VipUid, Arc<Vip>>>>,
}

impl Covers {
    /// Something changed that a name may rest on.
    pub(super) fn outdated(&mut self) {
        self.of = None;
    }
}

impl Grants {
    /// Renews all that this node has, if that is what it says it has. Otherwise
    /// nothing is renewed: what one of the two does not know of has to end.
    pub fn renew(
        &mut self,
        now: Mono,
        node: NodeId,
        cover: Cover,
        lease: &LeaderLease,
        state: &State,
    ) -> bool {
        if state.term != lease.term() || !lease.is_valid(now) {
            return false;
        }
        self.look_through(state);
        match self.covers.by_node.get_mut(&node) {
            Some(covered) if covered.cover == cover && !cover.is_empty() => {
                covered.at = now;
                true
            }
            _ => false,
        }
    }

    /// These are all that a node has. What it does not name is covered no more.
    pub fn has_only(&mut self, node: NodeId, all: &[Grantee]) {
        let named: BTreeMap<_, _> = all.iter().map(|grantee| (grantee.vip, *grantee)).collect();
        self.uncover(|vip, issued| {
            issued.node == node && named.get(&vip) != Some(&issued.grantee(vip))
        });
    }

    /// What is granted to this session of a node now is renewed with the rest of it.
    pub(super) fn cover(&mut self, node: NodeId, session: Incarnation) {
        self.covers.outdated();
        let of_session = |covered: &Covered| covered.session == session;
        if !self.covers.by_node.get(&node).is_some_and(of_session) {
            self.uncover(|_, issued| issued.node == node);
            let covered = Covered { session, cover: Cover::default(), at: Mono::ZERO };
            self.covers.by_node.insert(node, covered);
        }
    }

    /// When a VIP was granted last, by itself or with others.
    pub(super) fn granted_at(&self, vip: VipUid) -> Option<Mono> {
        let issued = self.issued.get(&vip)?;
        let covered = self.covers.by_node.get(&issued.node).filter(|_| issued.covered);
        Some(covered.map_or(issued.at, |covered| covered.at.max(issued.at)))
    }

    /// Takes out what is not to be renewed as things are, and names the rest.
    fn look_through(&mut self, state: &State) {
        if self.covers.of.as_ref().is_some_and(|of| Arc::ptr_eq(of, &state.vips)) {
            return;
        }
        let over: Vec<_> =
            self.issued.keys().filter(|vip| !self.goes_on(**vip, state)).copied().collect();
        self.uncover(|vip, _| over.binary_search(&vip).is_ok());
        for (node, covered) in &mut self.covers.by_node {
            let mine = self.issued.iter().filter(|(_, i)| i.covered && i.node == *node);
            covered.cover = Cover::of(mine.map(|(vip, issued)| issued.grantee(*vip)));
        }
        self.covers.of = Some(state.vips.clone());
    }

    /// Whether what was granted would be granted again, if it were asked for by
    /// itself.
    fn goes_on(&self, vip: VipUid, state: &State) -> bool {
        let (Some(issued), Some(vip)) = (self.issued.get(&vip), state.vip(vip)) else {
            return false;
        };
        if (vip.holder, vip.epoch) == (Some(issued.node), issued.epoch) {
            self.ended(vip) < issued.epoch
        } else {
            self.hands_over(vip, issued.epoch)
        }
    }

    fn uncover(&mut self, is_out: impl Fn(VipUid, &super::Issued) -> bool) {
        let covers = &mut self.covers;
        for (vip, issued) in &mut self.issued {
            if issued.covered && is_out(*vip, issued) {
                issued.covered = false;
                let covered = covers.by_node.get(&issued.node);
                issued.at = covered.map_or(issued.at, |covered| covered.at.max(issued.at));
                covers.of = None;
            }
        }
    }
}
