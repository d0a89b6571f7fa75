//! From the wire to `vip_core` and back.

use crate::v1;
use vip_core::{Denial, Epoch, Grantee, Incarnation, NodeId, Term, VipUid, Vote};

/// A field that does not say what it should.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FieldError {
    /// A message lacks a part.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// A text does not parse.
    #[error("{field}: {why}")]
    Invalid {
        /// Which field.
        field: &'static str,
        /// What is wrong with it.
        why: String,
    },
}

impl From<Vote> for v1::Vote {
    fn from(vote: Vote) -> Self {
        Self { term: vote.term.0, node: vote.node.0, committed: vote.committed }
    }
}

impl From<v1::Vote> for Vote {
    fn from(vote: v1::Vote) -> Self {
        Self { term: Term(vote.term), node: NodeId(vote.node), committed: vote.committed }
    }
}

impl From<Grantee> for v1::Grantee {
    fn from(grantee: Grantee) -> Self {
        Self { vip: grantee.vip.0, epoch: grantee.epoch.0, incarnation: grantee.incarnation.0 }
    }
}

impl From<v1::Grantee> for Grantee {
    fn from(grantee: v1::Grantee) -> Self {
        Self {
            vip: VipUid(grantee.vip),
            epoch: Epoch(grantee.epoch),
            incarnation: Incarnation(grantee.incarnation),
        }
    }
}

impl From<(Grantee, Denial)> for v1::Denied {
    fn from((grantee, denial): (Grantee, Denial)) -> Self {
        use v1::denied::Why;
        let (why, bound_to) = match denial {
            Denial::NotLeading => (Why::NotLeading, 0),
            Denial::NotHolder => (Why::NotHolder, 0),
            Denial::Ended => (Why::Ended, 0),
            Denial::OtherSession(session) => (Why::OtherSession, session.0),
        };
        Self { grantee: Some(grantee.into()), why: why.into(), bound_to }
    }
}

impl TryFrom<v1::Denied> for (Grantee, Denial) {
    type Error = FieldError;
    fn try_from(denied: v1::Denied) -> Result<Self, FieldError> {
        use v1::denied::Why;
        let denial = match denied.why() {
            Why::Unspecified => return Err(FieldError::Missing("why")),
            Why::NotLeading => Denial::NotLeading,
            Why::NotHolder => Denial::NotHolder,
            Why::Ended => Denial::Ended,
            Why::OtherSession => Denial::OtherSession(Incarnation(denied.bound_to)),
        };
        let grantee = denied.grantee.ok_or(FieldError::Missing("grantee"))?;
        Ok((grantee.into(), denial))
    }
}
