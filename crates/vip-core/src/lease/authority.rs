//! What a member may say of leadership, and of which terms.
//!
//! TLS proves who speaks. A certificate alone makes nobody a leader: learners
//! have one too.

use crate::{NodeId, NodeState, Role, State, Term};

/// A term may be ahead of this node's by so much. An election a millisecond
/// takes seven weeks for that, and a joiner begins at 0; a term near the end of
/// its range, once stored, would be the cluster's last.
pub const TERM_LEAP: u64 = 1 << 32;

/// Who speaks, as its certificate says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Speaker {
    pub node: NodeId,
    /// What it was certified as; nothing while it joins, and where nobody
    /// looked.
    pub role: Option<Role>,
    /// Its certificate is of a CA that was replaced: it may ask for a new one.
    pub outdated: bool,
}

/// Why a message about leadership is refused. Nothing was stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Presumption {
    /// A role without a vote.
    #[error("node {0} has no vote in this cluster, so it neither leads nor campaigns")]
    NoVote(NodeId),
    /// A member to be.
    #[error("node {0} has not joined yet, so it neither leads nor campaigns")]
    Joining(NodeId),
    /// No honest cluster gets there.
    #[error("term {theirs} is further ahead of {ours} than elections can be")]
    Leap {
        /// The latest term here.
        ours: Term,
        /// That of the message.
        theirs: Term,
    },
}

/// How far somebody with a node's certificate is a member. What one may, a
/// greater one may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// Admitted, or not heard of.
    Joining,
    /// Without a vote.
    Member,
    /// With one: may lead.
    Voter,
}

/// How far a node is a member, as far as is known here. Whoever is behind has to
/// follow a leader that is newer than its log: of a node that the log has not
/// heard of, or not as a full member, the certificate says what it is by now.
#[must_use]
pub fn standing(state: &State, speaker: Speaker) -> Standing {
    if speaker.outdated {
        return Standing::Joining;
    }
    let role = match state.nodes.get(&speaker.node) {
        Some(known) if known.state == NodeState::Joining => {
            speaker.role.filter(|role| *role == known.role)
        }
        Some(known) => Some(known.role),
        None => speaker.role,
    };
    match role {
        Some(role) if role.votes() => Standing::Voter,
        Some(_) => Standing::Member,
        None => Standing::Joining,
    }
}

/// Whether a node may lead or campaign in term `theirs`, as far as is known
/// here.
///
/// # Errors
/// [`Presumption`].
pub(crate) fn may_lead(
    state: &State,
    ours: Term,
    speaker: Speaker,
    theirs: Term,
) -> Result<(), Presumption> {
    match standing(state, speaker) {
        Standing::Voter => {}
        Standing::Member => return Err(Presumption::NoVote(speaker.node)),
        Standing::Joining => return Err(Presumption::Joining(speaker.node)),
    }
    if theirs.0 > ours.0.saturating_add(TERM_LEAP) {
        return Err(Presumption::Leap { ours, theirs });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn whoever_has_an_old_certificate_may_ask_for_a_new_one_and_nothing_else() {
        let state = state_of([voter(1)]);
        let outdated = Speaker { outdated: true, ..speaker(1, Some(Role::Voter)) };
        assert_eq!(standing(&state, outdated), Standing::Joining);
        let refused = may_lead(&state, Term(1), outdated, Term(1));
        assert_eq!(refused, Err(Presumption::Joining(NodeId(1))));
    }

    use super::*;
    use crate::Node;
    use crate::testing::{state_of, voter};

    fn state() -> State {
        let roles = [(1, Role::Voter), (2, Role::Witness), (3, Role::Learner), (4, Role::Voter)];
        let joining = |id| if id == 4 { NodeState::Joining } else { NodeState::Active };
        state_of(roles.map(|(id, role)| Node { role, state: joining(id), ..voter(id) }))
    }

    fn speaker(id: u64, role: Option<Role>) -> Speaker {
        Speaker { node: NodeId(id), role, outdated: false }
    }

    #[test]
    fn whoever_votes_leads_and_a_learner_does_not() {
        for certified in [None, Some(Role::Voter), Some(Role::Learner)] {
            let may = |id| may_lead(&state(), Term(7), speaker(id, certified), Term(8));
            assert_eq!(may(1), Ok(()));
            assert_eq!(may(2), Ok(()));
            assert_eq!(may(3), Err(Presumption::NoVote(NodeId(3))), "the log knows it");
        }
    }

    #[test]
    fn of_a_node_that_the_log_knows_too_little_of_the_certificate_speaks() {
        let may = |id, role| may_lead(&state(), Term(7), speaker(id, role), Term(8));
        for votes in [Role::Voter, Role::Witness] {
            assert_eq!(may(9, Some(votes)), Ok(()), "it joined later than this log goes");
        }
        assert_eq!(may(4, Some(Role::Voter)), Ok(()), "it joined in full meanwhile");
        assert_eq!(may(9, None), Err(Presumption::Joining(NodeId(9))));
        assert_eq!(may(9, Some(Role::Learner)), Err(Presumption::NoVote(NodeId(9))));
        for other in [None, Some(Role::Learner)] {
            assert_eq!(may(4, other), Err(Presumption::Joining(NodeId(4))));
        }
    }

    #[test]
    fn no_term_leaps_further_than_elections_can() {
        let may = |ours, theirs| may_lead(&state(), Term(ours), speaker(1, None), Term(theirs));
        assert_eq!(may(0, TERM_LEAP), Ok(()), "a joiner");
        assert!(matches!(may(0, TERM_LEAP + 1), Err(Presumption::Leap { .. })));
        assert!(matches!(may(9, u64::MAX), Err(Presumption::Leap { .. })));
        assert_eq!(may(u64::MAX, u64::MAX), Ok(()), "what is there already is no leap");
        assert_eq!(may(9, 1), Ok(()), "Raft knows what to do with old terms");
    }
}
