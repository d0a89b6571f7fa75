//! What a member may say of leadership, and of which terms.
//!
//! TLS proves who speaks. A certificate alone makes nobody a leader: learners
//! have one too.

use crate::{NodeId, State, Term};

/// A term may be ahead of this node's by so much. An election a millisecond
/// takes seven weeks for that, and a joiner begins at 0; a term near the end of
/// its range, once stored, would be the cluster's last.
pub const TERM_LEAP: u64 = 1 << 32;

/// Why a message about leadership is refused. Nothing was stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Presumption {
    /// A role without a vote.
    #[error("node {0} has no vote in this cluster, so it neither leads nor campaigns")]
    NoVote(NodeId),
    /// No honest cluster gets there.
    #[error("term {theirs} is further ahead of {ours} than elections can be")]
    Leap {
        /// The latest term here.
        ours: Term,
        /// That of the message.
        theirs: Term,
    },
}

/// Whether `node` may lead or campaign in term `theirs`, as far as this node
/// knows: one that its log has not heard of yet may, since whoever is behind has
/// to follow a leader that is newer than its log.
///
/// # Errors
/// [`Presumption`].
pub(crate) fn may_lead(
    state: &State,
    ours: Term,
    node: NodeId,
    theirs: Term,
) -> Result<(), Presumption> {
    if state.nodes.get(&node).is_some_and(|known| !known.role.votes()) {
        return Err(Presumption::NoVote(node));
    }
    if theirs.0 > ours.0.saturating_add(TERM_LEAP) {
        return Err(Presumption::Leap { ours, theirs });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{state_of, voter};
    use crate::{Node, Role};

    fn state() -> State {
        let roles = [(1, Role::Voter), (2, Role::Witness), (3, Role::Learner)];
        state_of(roles.map(|(id, role)| Node { role, ..voter(id) }))
    }

    #[test]
    fn whoever_votes_leads_and_a_learner_does_not() {
        let may = |id| may_lead(&state(), Term(7), NodeId(id), Term(8));
        assert_eq!(may(1), Ok(()));
        assert_eq!(may(2), Ok(()));
        assert_eq!(may(3), Err(Presumption::NoVote(NodeId(3))));
        assert_eq!(may(9), Ok(()), "it joined later than this log goes");
    }

    #[test]
    fn no_term_leaps_further_than_elections_can() {
        let may = |ours, theirs| may_lead(&state(), Term(ours), NodeId(1), Term(theirs));
        assert_eq!(may(0, TERM_LEAP), Ok(()), "a joiner");
        assert!(matches!(may(0, TERM_LEAP + 1), Err(Presumption::Leap { .. })));
        assert!(matches!(may(9, u64::MAX), Err(Presumption::Leap { .. })));
        assert_eq!(may(u64::MAX, u64::MAX), Ok(()), "what is there already is no leap");
        assert_eq!(may(9, 1), Ok(()), "Raft knows what to do with old terms");
    }
}
