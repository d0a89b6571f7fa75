//! Every error of ours as a gRPC status: what was wrong, what was left
//! unchanged, what to do.

use std::error::Error;
use tonic::{Code, Status};
use vip_core::{Refusal, chain};
use vip_raft::WriteError;

/// Begins every status that means: no quorum. vipctl's exit code 3.
pub(crate) const NO_QUORUM: &str = "no quorum";

pub(crate) fn no_quorum(what: &str) -> Status {
    Status::unavailable(format!(
        "{NO_QUORUM}: {what}. Look at `vipctl status` on the other nodes; a majority of the voters \
         must reach each other"
    ))
}

pub(crate) fn from_write(error: &WriteError) -> Status {
    match error {
        WriteError::NotLeader { .. } => no_quorum("the leader changed while the command was sent"),
        WriteError::OtherTerm => {
            Status::aborted("the leader changed meanwhile; asking the new leader")
        }
        WriteError::Unknown => no_quorum(&error.to_string()),
        WriteError::Stopped(_) => Status::unavailable(error.to_string()),
        WriteError::Membership(_) => Status::failed_precondition(error.to_string()),
    }
}

pub(crate) fn from_refusal(refusal: &Refusal) -> Status {
    let code = match refusal {
        Refusal::UnknownNode { .. }
        | Refusal::UnknownToken { .. }
        | Refusal::UnknownLogin { .. }
        | Refusal::UnknownVip { .. } => Code::NotFound,
        Refusal::VipExists { .. }
        | Refusal::AddressTaken { .. }
        | Refusal::NodeNameTaken { .. } => Code::AlreadyExists,
        Refusal::PlaceTaken { .. } | Refusal::PlaceIsVip { .. } => Code::FailedPrecondition,
        Refusal::Spec { .. } | Refusal::AddressOfNode { .. } => Code::InvalidArgument,
        Refusal::Token { .. } => Code::PermissionDenied,
        Refusal::ClusterExists { .. }
        | Refusal::CannotHold { .. }
        | Refusal::EpochMoved { .. }
        | Refusal::IssuerReplaced
        | Refusal::SuspectStays { .. }
        | Refusal::LastVoter { .. }
        | Refusal::OtherTerm { .. } => Code::FailedPrecondition,
    };
    Status::new(code, format!("{refusal}. Nothing was changed"))
}

/// Nothing can be signed here at the moment.
pub(crate) fn no_issuer() -> Status {
    Status::unavailable(
        "the leader has no issuing key yet; try again. If it stays so, the node that made the key \
         is gone with it: run `vipctl ca rotate` again",
    )
}

pub(crate) fn invalid(error: impl std::fmt::Display) -> Status {
    Status::invalid_argument(format!("{error}. Nothing was changed"))
}

pub(crate) fn internal(what: &str, error: &dyn std::error::Error) -> Status {
    Status::internal(format!("{what}: {}", chain(error)))
}

/// A failed call to another node, with all that is known of why: of a connection
/// that could not be made, tonic's message has the first half only.
pub(crate) fn from_call(status: Status) -> Status {
    match status.source() {
        None => status,
        Some(cause) => Status::new(status.code(), chain(cause)),
    }
}
