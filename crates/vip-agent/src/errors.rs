//! Every error of ours as a gRPC status: what was wrong, what was left
//! unchanged, what to do.

use std::error::Error;
use tonic::{Code, Status};
use vip_core::{Hopeless, Refusal, ServerRefusal, chain, plain};
use vip_raft::WriteError;

/// Begins every status that means: no quorum. vipctl's exit code 3.
const NO_QUORUM: &str = "no quorum";

/// Of a command that nobody can say of whether it took effect.
const UNKNOWN: &str = "whether it took effect is not known. `vipctl events` and `vipctl status` \
                       say so once there is a leader; look before you repeat it";

pub(crate) fn no_quorum(what: &str) -> Status {
    Status::unavailable(format!(
        "{NO_QUORUM}: {what}. Look at `vipctl status` on the other nodes; a majority of the voters \
         must reach each other"
    ))
}

pub(crate) fn from_write(error: &WriteError) -> Status {
    match error {
        WriteError::NotLeader { .. } => {
            no_quorum(&format!("the leader changed while it was sent: {UNKNOWN}"))
        }
        WriteError::OtherTerm => {
            Status::aborted("the leader changed meanwhile, and this step was not done; try again")
        }
        WriteError::Unknown => no_quorum(&format!("nobody confirmed it in time: {UNKNOWN}")),
        WriteError::Stopped(why) => {
            tracing::warn!(why, "a command met a log that is closed");
            Status::unavailable(format!("this node's log is closed, or failed: {UNKNOWN}"))
        }
        WriteError::Membership(why) => {
            tracing::warn!(why, "a change of members was refused");
            Status::failed_precondition(
                "another change of members is under way. Nothing was changed; try again",
            )
        }
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
        | Refusal::AddressLeaving { .. }
        | Refusal::NodeNameTaken { .. } => Code::AlreadyExists,
        Refusal::PlaceTaken { .. } | Refusal::PlaceIsVip { .. } => Code::FailedPrecondition,
        Refusal::Spec { .. } | Refusal::AddressOfNode { .. } => Code::InvalidArgument,
        Refusal::Token { .. } => Code::PermissionDenied,
        Refusal::ClusterExists { .. }
        | Refusal::CannotHold { .. }
        | Refusal::NotTogether { .. }
        | Refusal::VipChanged { .. }
        | Refusal::EpochMoved { .. }
        | Refusal::IssuerReplaced
        | Refusal::SuspectStays { .. }
        | Refusal::LastVoter { .. }
        | Refusal::NotEverywhere { .. }
        | Refusal::TooOld { .. }
        | Refusal::OtherTerm { .. } => Code::FailedPrecondition,
        Refusal::Server(why) => of_servers(why),
    };
    Status::new(code, format!("{refusal}. Nothing was changed"))
}

const fn of_servers(why: &ServerRefusal) -> Code {
    match why {
        ServerRefusal::Unknown { .. } | ServerRefusal::UnknownReal { .. } => Code::NotFound,
        ServerRefusal::Exists { .. }
        | ServerRefusal::RealExists { .. }
        | ServerRefusal::Clash { .. }
        | ServerRefusal::BehindAnother { .. } => Code::AlreadyExists,
        ServerRefusal::Spec { .. }
        | ServerRefusal::NoAddress { .. }
        | ServerRefusal::SeveralAddresses { .. }
        | ServerRefusal::RealIsVip { .. }
        | ServerRefusal::VipIsReal { .. }
        | ServerRefusal::MemberByNat { .. }
        | ServerRefusal::OffSubnet { .. } => Code::InvalidArgument,
        ServerRefusal::TooMany | ServerRefusal::TooManyReals => Code::ResourceExhausted,
        ServerRefusal::Changed { .. }
        | ServerRefusal::LastReal { .. }
        | ServerRefusal::FollowsNodes { .. }
        | ServerRefusal::NoMembers { .. }
        | ServerRefusal::NoAddresses { .. }
        | ServerRefusal::OfName { .. }
        | ServerRefusal::TableSize { .. }
        | ServerRefusal::VipInUse { .. } => Code::FailedPrecondition,
    }
}

/// A command that was carried out, and whose effect will not come.
pub(crate) fn from_hopeless(why: &Hopeless) -> Status {
    match why {
        Hopeless::Nowhere { .. } | Hopeless::Taken { .. } => {
            Status::failed_precondition(why.to_string())
        }
        Hopeless::NotThere(refusal) => from_refusal(refusal),
        Hopeless::Removed(_) => Status::aborted(why.to_string()),
    }
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
        Some(cause) => Status::new(status.code(), plain(cause)),
    }
}

/// The same of a command that was passed on to the leader.
pub(crate) fn from_relay(status: Status) -> Status {
    match status.source() {
        None => status,
        Some(cause) => Status::new(
            status.code(),
            format!("the leader did not answer ({}): {UNKNOWN}", plain(cause)),
        ),
    }
}

pub(crate) fn not_a_member() -> Status {
    Status::failed_precondition(
        "this node is in no cluster. `vipctl init` makes one of it; `vipctl join` joins one",
    )
}
