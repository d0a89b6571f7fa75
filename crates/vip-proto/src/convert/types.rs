//! `types.proto`.

use super::same;
use crate::v1;
use vip_core::{AdminRole, Cause, NodeId, Profile, Role, Runs, Term, Vote};

same!(Role = v1::Role { Voter, Learner, Witness });
same!(AdminRole = v1::AdminRole { Viewer, Operator, Admin });
same!(Profile = v1::Profile { Lan, Fast, Wan });
same!(
    Cause = v1::Cause {
        Created,
        HolderLost,
        HolderReleased,
        LeaderChanged,
        Command,
        Drain,
        HolderLeaving,
        HolderStopping,
        HolderRemoved,
        Placement,
    }
);

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

impl From<Runs> for v1::Runs {
    fn from(Runs { level, version }: Runs) -> Self {
        Self { level: level.0, version }
    }
}

impl From<v1::Runs> for Runs {
    fn from(v1::Runs { level, version }: v1::Runs) -> Self {
        Self::said(level, &version)
    }
}
