//! What agents say to each other, are told, and do, and what waits in one of them.

use crate::disk::{Write, Written};
use crate::guard::{FromGuard, ToGuard};
use crate::raft::{After, Entry, Index, RaftMessage, Snapshot};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use vip_core::{
    Acknowledgement, CallId, CloudReply, Command, Epoch, Failure, GrantAnswer, Mono, NodeId, Op,
    PromiseTicket, Report, ReportId, Sighting, Start, State, Term, Ticket, Verb, Vote, Wanted,
};

/// What nodes say to each other.
#[derive(Clone, Debug)]
pub(crate) enum Message {
    Raft(RaftMessage),
    Refused {
        remaining: Duration,
    },
    HandOver {
        vote: Vote,
        to: NodeId,
    },
    Renew {
        vote: Vote,
        sent_at: Mono,
        known: ReportId,
    },
    Renewed(Acknowledgement),
    Ask {
        id: u64,
        wanted: Wanted,
    },
    Answer {
        id: u64,
        answer: GrantAnswer,
    },
    Report(Box<Report>),
    Abdicate(Vote),
    /// How far does the log go?
    HowFar,
    LogGoesTo(Index),
    /// What the log has otherwise of real servers.
    Sightings(Vec<Sighting>),
}

/// What an agent is told.
#[derive(Clone, Debug)]
pub(crate) enum Input {
    Start,
    Tick,
    Message(NodeId, Message),
    /// A write is on the disk.
    Durable(Written, After),
    /// A task that looked at the leases before comes to Raft now.
    Enqueue(Task),
    /// A write that had to wait goes to the disk now.
    Write(Write, After),
    Guard(FromGuard),
    /// What Raft knows reaches the leases some time later.
    Observe,
    Applied,
    AskTimeout(u64),
    /// A probe has its answer.
    Probed(Ticket, Result<(), Failure>),
    /// Whoever has to know where a VIP is answers.
    Called(CallId, CloudReply),
    /// Somebody gives a command.
    Admin(Box<Op>),
    Voters(BTreeSet<NodeId>),
    /// Raft's own timer fires.
    Elect {
        pre: bool,
    },
    /// SIGTERM.
    Stop,
}

/// What an agent does.
#[derive(Debug)]
pub(crate) enum Out {
    Send(NodeId, Message),
    Guard(ToGuard),
    /// The session is given up.
    Hangup,
    Probe(Box<Start>),
    /// Whoever has to know where a VIP is, is asked or told.
    Call {
        id: CallId,
        ip: IpAddr,
        epoch: Epoch,
        verb: Verb,
        limit: Duration,
        announced: Option<u64>,
    },
    Write(Write, After),
    /// To itself, soon.
    Soon(Input),
    /// To itself, after a while.
    After(Duration, Input),
    /// An entry is committed, as far as this node knows.
    Committed(Index, Arc<Entry>),
    /// The state after it.
    State(Index, Arc<State>),
    /// The guard is used from now on.
    Used,
    /// To be found by the next agent.
    Snapshot(Snapshot),
    Elected(Term),
    Exit,
    /// The agent alone ends, and is started again.
    StartOver,
}

/// What waits for the core.
#[derive(Clone, Debug)]
pub(crate) enum Task {
    /// With the lease rules' permission, if it asks for a vote.
    Message {
        from: NodeId,
        message: RaftMessage,
        ticket: Option<PromiseTicket>,
    },
    /// An entry became durable.
    Flushed(After),
    Elect {
        pre: bool,
    },
    /// The number is the proposer's.
    Propose {
        number: Option<u64>,
        command: Box<Command>,
    },
    Voters(BTreeSet<NodeId>),
    Transfer(NodeId),
    /// The leader of this vote hands over to this node.
    TransferredBy(Vote),
    Heartbeat,
    /// A removed leader stops leading.
    Retire,
}
