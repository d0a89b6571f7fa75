//! Between openraft's messages and `raft.proto`.

use crate::frame::{Newer, RecordError, payload_from, payload_to};
use crate::types::{LogEntry, LogId, RaftVote, TypeConfig, core_vote, log_id, raft_vote, term_of};
use openraft::EntryPayload;
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, VoteRequest, VoteResponse};
use vip_proto::{FieldError, v1};

pub(crate) fn log_id_to(id: &LogId) -> v1::LogId {
    v1::LogId { term: term_of(id).0, index: id.index }
}

pub(crate) fn log_id_from(id: v1::LogId) -> LogId {
    log_id(id.term, id.index)
}

pub(crate) fn vote_to(vote: &RaftVote) -> v1::Vote {
    core_vote(vote).into()
}

pub(crate) fn vote_from(vote: Option<v1::Vote>) -> Result<RaftVote, FieldError> {
    Ok(raft_vote(vote.ok_or(FieldError::Missing("vote"))?.into()))
}

/// Why a message of another member is not taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MessageError {
    /// It is none that a member of this version sends.
    #[error(transparent)]
    Field(#[from] FieldError),
    /// It is of a later version.
    #[error("an entry was written by a newer vipd: {0}")]
    Newer(Newer),
}

fn payload_error(error: RecordError) -> MessageError {
    match error {
        RecordError::Newer(newer) => MessageError::Newer(newer),
        RecordError::Damaged(_) | RecordError::Io(_) => {
            FieldError::Invalid { field: "payload", why: error.to_string() }.into()
        }
    }
}

fn entry_to(entry: &LogEntry) -> Result<v1::Entry, FieldError> {
    let payload = payload_to(&entry.payload);
    let invalid = |e: std::io::Error| FieldError::Invalid { field: "payload", why: e.to_string() };
    Ok(v1::Entry { log_id: Some(log_id_to(&entry.log_id)), payload: payload.map_err(invalid)? })
}

fn entry_from(entry: &v1::Entry) -> Result<LogEntry, MessageError> {
    let payload = payload_from(&entry.payload).map_err(payload_error)?;
    let log_id = log_id_from(entry.log_id.ok_or(FieldError::Missing("log_id"))?);
    Ok(openraft::Entry { log_id, payload })
}

pub(crate) fn append_to(
    request: &AppendEntriesRequest<TypeConfig>,
) -> Result<v1::AppendRequest, FieldError> {
    Ok(v1::AppendRequest {
        vote: Some(vote_to(&request.vote)),
        previous: request.prev_log_id.as_ref().map(log_id_to),
        entries: request.entries.iter().map(entry_to).collect::<Result<_, _>>()?,
        commit: request.leader_commit.as_ref().map(log_id_to),
    })
}

pub(crate) fn append_from(
    request: &v1::AppendRequest,
) -> Result<AppendEntriesRequest<TypeConfig>, MessageError> {
    let vote = vote_from(request.vote)?;
    let prev_log_id = request.previous.map(log_id_from);
    let leader_commit = request.commit.map(log_id_from);
    let entries: Vec<LogEntry> =
        request.entries.iter().map(entry_from).collect::<Result<_, _>>()?;
    for id in [&prev_log_id, &leader_commit].into_iter().flatten() {
        no_later(Some(id), &vote)?;
    }
    let mut next = prev_log_id.map_or(0, |id| id.index.saturating_add(1));
    for entry in &entries {
        no_later(Some(&entry.log_id), &vote)?;
        if entry.log_id.index != next {
            let why = format!("entry {} where {next} would follow", entry.log_id.index);
            return Err(FieldError::Invalid { field: "entries", why }.into());
        }
        next = next.saturating_add(1);
    }
    Ok(AppendEntriesRequest { vote, prev_log_id, entries, leader_commit })
}

/// Nothing in a log is of a later term than whoever has it leads or campaigns in.
pub(crate) fn no_later(id: Option<&LogId>, vote: &RaftVote) -> Result<(), FieldError> {
    match id {
        Some(id) if term_of(id).0 > vote.leader_id.term => {
            let why = format!("of term {}, in a message of {}", term_of(id), vote.leader_id.term);
            Err(FieldError::Invalid { field: "log_id", why })
        }
        Some(_) | None => Ok(()),
    }
}

pub(crate) fn append_reply_to(reply: &AppendEntriesResponse<TypeConfig>) -> v1::AppendReply {
    use v1::append_reply as a;
    let result = match reply {
        AppendEntriesResponse::Success => a::Result::Success(a::Success {}),
        AppendEntriesResponse::PartialSuccess(through) => {
            let through = through.as_ref().map(log_id_to);
            a::Result::Partial(a::PartialSuccess { through })
        }
        AppendEntriesResponse::Conflict => a::Result::Conflict(a::Conflict {}),
        AppendEntriesResponse::HigherVote(vote) => a::Result::HigherVote(vote_to(vote)),
    };
    v1::AppendReply { result: Some(result) }
}

pub(crate) fn append_reply_from(
    reply: v1::AppendReply,
) -> Result<AppendEntriesResponse<TypeConfig>, FieldError> {
    use v1::append_reply::Result as R;
    Ok(match reply.result.ok_or(FieldError::Missing("result"))? {
        R::Success(_) => AppendEntriesResponse::Success,
        R::Partial(p) => AppendEntriesResponse::PartialSuccess(p.through.map(log_id_from)),
        R::Conflict(_) => AppendEntriesResponse::Conflict,
        R::HigherVote(vote) => AppendEntriesResponse::HigherVote(raft_vote(vote.into())),
    })
}

pub(crate) fn vote_request_to(request: &VoteRequest<TypeConfig>) -> v1::VoteRequest {
    let last_log = request.last_log_id.as_ref().map(log_id_to);
    v1::VoteRequest { vote: Some(vote_to(&request.vote)), last_log }
}

pub(crate) fn vote_request_from(
    request: v1::VoteRequest,
) -> Result<VoteRequest<TypeConfig>, FieldError> {
    let (vote, last) = (vote_from(request.vote)?, request.last_log.map(log_id_from));
    no_later(last.as_ref(), &vote)?;
    Ok(VoteRequest::new(vote, last))
}

pub(crate) fn vote_reply_to(reply: &VoteResponse<TypeConfig>) -> v1::VoteReply {
    v1::VoteReply {
        vote: Some(vote_to(&reply.vote)),
        granted: reply.vote_granted,
        last_log: reply.last_log_id.as_ref().map(log_id_to),
        bound_for_us: None,
    }
}

pub(crate) fn vote_reply_from(
    reply: v1::VoteReply,
) -> Result<VoteResponse<TypeConfig>, FieldError> {
    let vote = vote_from(reply.vote)?;
    Ok(VoteResponse::new(vote, reply.last_log.map(log_id_from), reply.granted))
}

/// Whether an entry is a command of ours.
pub(crate) fn command(entry: &LogEntry) -> Option<&vip_core::Command> {
    match &entry.payload {
        EntryPayload::Normal(command) => Some(&command.0),
        EntryPayload::Blank | EntryPayload::Membership(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{LogCommand, Member};
    use proptest::prelude::*;
    use proptest::sample::Index;
    use prost::Message;
    use std::collections::BTreeMap;
    use vip_core::{Actor, Command, NodeId, NodeOp};

    /// An honest message of some entries.
    fn honest() -> Vec<u8> {
        let id = |term, index| Some(v1::LogId { term, index });
        let op = NodeOp::Activate { node: NodeId(2) }.into();
        let command = Command { time_ms: 1, actor: Actor("root@n1".into()), term: None, op };
        let members = BTreeMap::from([(1, Member { address: "a:1".into() })]);
        let membership = openraft::Membership::new(vec![[1].into()], members).expect("members");
        let payloads = [
            EntryPayload::Blank,
            EntryPayload::Normal(LogCommand(command)),
            EntryPayload::Membership(membership),
        ];
        let entries = payloads.iter().zip(5..).map(|(payload, index)| v1::Entry {
            log_id: id(3, index),
            payload: payload_to(payload).expect("bytes"),
        });
        let request = v1::AppendRequest {
            vote: Some(v1::Vote { term: 3, node: 1, committed: true }),
            previous: id(2, 4),
            entries: entries.collect(),
            commit: id(2, 4),
        };
        request.encode_to_vec()
    }

    /// The same with some bytes changed, and cut.
    fn altered() -> impl Strategy<Value = Vec<u8>> {
        let changes = proptest::collection::vec((any::<Index>(), any::<u8>()), 0..6);
        (changes, prop::option::of(any::<Index>())).prop_map(|(changes, cut)| {
            let mut bytes = honest();
            for (at, byte) in changes {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            if let Some(cut) = cut {
                bytes.truncate(cut.index(bytes.len()));
            }
            bytes
        })
    }

    #[test]
    fn an_honest_message_is_taken() {
        let request = v1::AppendRequest::decode(&honest()[..]).expect("ours");
        assert_eq!(append_from(&request).expect("taken").entries.len(), 3);
    }

    proptest! {
        /// What a member sends: refused, or a log that a leader can have.
        #[test]
        fn what_is_taken_is_a_log_that_a_leader_can_have(bytes in altered()) {
            let Ok(request) = v1::AppendRequest::decode(&bytes[..]) else { return Ok(()) };
            let Ok(append) = append_from(&request) else { return Ok(()) };
            let before = append.prev_log_id.map(|id| id.index);
            for (place, entry) in append.entries.iter().enumerate() {
                let first = before.map_or(0, |index| index.saturating_add(1));
                prop_assert_eq!(entry.log_id.index, first.saturating_add(place as u64));
                prop_assert!(term_of(&entry.log_id).0 <= append.vote.leader_id.term);
            }
        }

        #[test]
        fn no_bytes_are_more_than_a_refusal(bytes in any::<Vec<u8>>()) {
            let _ = v1::AppendRequest::decode(&bytes[..]).map(|r| append_from(&r));
            let _ = v1::VoteRequest::decode(&bytes[..]).map(vote_request_from);
            let _ = v1::VoteReply::decode(&bytes[..]).map(vote_reply_from);
            let _ = v1::AppendReply::decode(&bytes[..]).map(append_reply_from);
            let _ = serde_json::from_slice::<crate::types::SnapshotMeta>(&bytes);
        }
    }
}
