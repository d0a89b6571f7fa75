//! Replacing the issuing CA, as the leader sees it: members take certificates
//! of the new one, and when all that are there have one, the old one ends.

use crate::errors::from_write;
use crate::node::Member;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;
use tonic::Status;
use vip_core::{ClusterOp, Node, NodeId, State, Term};

/// A member that was not there for so long is not waited for: it comes back by
/// its known key. Until then it may only be slow, or this leader new.
const ABSENT: Duration = Duration::from_secs(10);

/// Whose certificates of the newest issuer this node has seen: gone with it,
/// and said again.
#[derive(Debug, Default)]
pub(crate) struct Reissued(Mutex<Seen>);

#[derive(Debug, Default)]
struct Seen {
    issuer: String,
    nodes: BTreeSet<NodeId>,
    /// As whose leader this node looked last.
    term: Term,
    /// Since when, in that term, nodes that have not come are not there.
    absent: BTreeMap<NodeId, Instant>,
}

impl Reissued {
    fn of(&self, signing: &str) -> MutexGuard<'_, Seen> {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.issuer != signing {
            *seen = Seen { issuer: signing.to_owned(), ..Seen::default() };
        }
        seen
    }

    /// A node came with a certificate of this issuer.
    pub(crate) fn saw(&self, node: NodeId, issuer: &str, signing: &str) {
        if issuer == signing {
            self.of(signing).nodes.insert(node);
        }
    }

    /// Who has none and is to have one.
    fn missing(
        &self,
        (now, term): (Instant, Term),
        state: &State,
        alive: &BTreeSet<NodeId>,
        signing: &str,
    ) -> Vec<String> {
        let mut seen = self.of(signing);
        // Whoever leads anew has heard of nobody yet.
        if seen.term != term {
            (seen.term, seen.absent) = (term, BTreeMap::new());
        }
        let Seen { nodes, absent, .. } = &mut *seen;
        absent.retain(|node, _| !alive.contains(node));
        let mut is_gone = |node: &Node| {
            !alive.contains(&node.id) && now >= *absent.entry(node.id).or_insert(now) + ABSENT
        };
        let left = state.not_reissued(nodes).filter(|node| !is_gone(node));
        left.map(|node| node.name.to_string()).collect()
    }
}

/// Who has to take a certificate of the issuer that signs, as far as this
/// leader has seen. No other node has seen any.
pub(crate) fn missing(member: &Member) -> Vec<String> {
    let Some(vote) = member.leases.own_leadership() else { return vec![] };
    let state = member.log.state();
    let signing = state.signing_issuer().unwrap_or_default();
    let own = member.authority.own_issuer().unwrap_or_default();
    member.reissued.saw(member.meta.node, &own, signing);
    let now = (Instant::now(), vote.term);
    member.reissued.missing(now, &state, &member.leases.alive(), signing)
}

/// Ends the old issuers if nobody who is there needs them any more.
///
/// # Errors
/// Not now.
pub(crate) async fn retire_issuers(member: &Member, term: Term) -> Result<(), Status> {
    let state = member.log.state();
    let Some(issuers) = state.issuers().filter(|issuers| issuers.is_rotating()) else {
        return Ok(());
    };
    let missing = missing(member);
    if !missing.is_empty() {
        if !state.rotation_is_late(member.log.time_ms()) {
            return Ok(());
        }
        tracing::warn!(?missing, "they took no new certificate, and come back by their known key");
    }
    let keep = issuers.signing().unwrap_or_default().to_owned();
    member
        .log
        .propose(term, ClusterOp::RetireIssuers { keep })
        .await
        .map_err(|e| from_write(&e))?;
    tracing::info!("the issuing CA is replaced: certificates of the one before are refused");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use vip_core::{NodeState, Role};

    fn state() -> State {
        let mut state = State::default();
        for id in 1..=3 {
            let node = Node {
                id: NodeId(id),
                name: format!("n{id}").parse().expect("a name"),
                advertise: String::new(),
                role: Role::Voter,
                state: NodeState::Active,
                spki: String::new(),
                since_ms: 0,
                leaving_by: None,
                macs: [].into(),
                runs: vip_core::Runs::here(),
                no_say: None,
            };
            std::sync::Arc::make_mut(&mut state.nodes).insert(node.id, node);
        }
        state
    }

    #[test]
    fn whoever_is_not_there_is_waited_for_for_a_while() {
        let (reissued, state, now) = (Reissued::default(), state(), Instant::now());
        let missing = |after, alive: &[u64]| {
            let alive = alive.iter().copied().map(NodeId).collect();
            reissued.missing((now + after, Term(1)), &state, &alive, "new")
        };
        reissued.saw(NodeId(1), "new", "new");
        reissued.saw(NodeId(2), "old", "new");
        assert_eq!(missing(Duration::ZERO, &[1, 2]), ["n2", "n3"]);
        assert_eq!(missing(ABSENT / 2, &[1, 2, 3]), ["n2", "n3"], "only slow");
        assert_eq!(missing(ABSENT, &[1, 2]), ["n2", "n3"]);
        assert_eq!(missing(2 * ABSENT, &[1, 2]), ["n2"], "that one is there");
        reissued.saw(NodeId(2), "new", "new");
        assert_eq!(missing(2 * ABSENT, &[1, 2]), [""; 0]);
        // With the next one all begins anew.
        let alive = [1, 2, 3].map(NodeId).into();
        let newer = reissued.missing((now, Term(1)), &state, &alive, "newer");
        assert_eq!(newer, ["n1", "n2", "n3"]);
    }

    #[test]
    fn whoever_leads_anew_waits_anew() {
        let (reissued, state, now) = (Reissued::default(), state(), Instant::now());
        let nobody = BTreeSet::new();
        let missing =
            |after, term| reissued.missing((now + after, Term(term)), &state, &nobody, "new").len();
        assert_eq!(missing(Duration::ZERO, 1), 3);
        assert_eq!(missing(ABSENT, 1), 0);
        assert_eq!(missing(ABSENT, 2), 3);
        assert_eq!(missing(2 * ABSENT, 2), 0);
    }
}
