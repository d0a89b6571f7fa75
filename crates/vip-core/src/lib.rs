//! Every decision of vipd, pure: no IO, no clock, no randomness, no async.
//!
//! Time is an argument ([`Mono`]), replicated time is part of the command, and
//! a failed action comes back as an event. So the daemon, the tests and the
//! simulator run the same code.
//!
//! ```text
//!  log entry ──> state::State::apply ──> State
//!                                          │
//!   leader:  placement::decide <───────────┤   who should hold what
//!            leader_lease, grants <────────┤   who may answer, until when
//!   voter:   promise, authority <──────────┤   whom this node must not vote for
//!   holder:  claims <──────────────────────┘   what to ask of leader and guard
//!   guard:   guard                             gate, address, announcement
//!   leases: all of the above but the guard and apply, as one step function
//! ```

mod address;
mod chain;
mod cover;
mod excerpt;
mod ids;
mod level;
mod mac;
mod mix;
mod moment;
mod mono;
mod name;
mod profile;
mod protocol;
mod report;
mod role;
mod subnet;
mod text;
mod token;
mod via_token;
mod words;

mod cloud;
mod forward;
mod goal;
mod guard;
mod health;
mod lease;
mod log;
mod placement;
mod spec;

#[cfg(test)]
mod testing;

pub use address::{Address, LOOPBACK, is_metadata, no_peer, octets, unfit};
pub use chain::{chain, plain};
pub use cloud::{CallId, Cloud, CloudAction, CloudReply, Logged, Pace, Verb};
pub use cover::Cover;
pub use excerpt::{MAX_EXCERPT, excerpt};
pub use forward::{
    AtVip, AtVipQuestion, Counter, DropReason, Drops, Flow, Forwarding, Mutes, Plan, PlanError,
    Programmed, Programming, RealCount, TableCounters, TableNotice, TableOrder, unsaid,
};
pub use goal::{Goal, Hopeless, Progress};
pub use guard::{
    ANNOUNCE_OFFSETS, ANNOUNCE_REPEAT, Announcements, GateEntry, Guard, GuardAction, GuardEvent,
    GuardFailure, GuardNotice, GuardRefusal, HostNetwork, Limits, Phase, Probe, SLOTS, Slot,
    VipOrder, address_life, renewal_interval,
};
pub use health::{
    Absences, BLIND_AFTER, Checker, Damping, Failure, Observed, Opinion, Patience, ProbeNumber,
    Resolving, Rounds, Start, Target, Ticket, judge, observers,
};
pub use ids::{Epoch, Generation, Grantee, Incarnation, NodeId, ServerUid, Term, TokenId, VipUid};
pub use lease::{
    Acknowledgement, Answering, Answers, Ask, Asked, CLOCKS_FAR_APART, CalledLease, ClaimAction,
    ClaimEvent, Claims, Denial, Detector, FIRST_GRANT_WAIT, Frontage, GrantAnswer, Grants,
    HAND_OVER_POLL, HandOver, HandOverStep, Holding, LEADER_LOOKS, LeaderLease, LeaderWork,
    LeaseAction, LeaseEvent, LeaseInput, LeaseOutput, LeaseSnapshot, Leases, LeasesStart,
    NoClients, OwnClockFar, PATIENCE_IN_DOUBT, Presumption, Promise, PromiseReply, PromiseTicket,
    RaftView, Recording, RecordingError, Refused, Replayed, Request, Speaker, Standing, Steering,
    TERM_LEAP, TooFast, Verdict, Vote, Voters, Waiting, WaitingStep, WallClocks, Wanted, rank,
    standing,
};
pub use level::{Level, MAX_VERSION, Runs};
pub use log::{
    Actor, AdminRole, Assignment, Before, Cause, Cluster, ClusterEvent, ClusterOp, Command,
    ConflictChange, CutOff, Dropped, Event, EventKind, Events, FIRST_ANSWERS, Founder, Founding,
    Guest, Health, Hindrance, Hindrances, IDLE_AFTER, Instead, Issuers, Lasting, Login, LoginEvent,
    LoginOp, MAX_HINDERED, MAX_REALS_IN_ALL, MAX_SERVERS, Nested, Node, NodeEvent, NodeOp,
    NodeState, ObstacleChange, Op, Outcome, PathChange, RETIRE_AFTER_MS, Real, RealPlace, Refusal,
    Removal, Resolutions, Resolved, SayChange, Server, ServerEvent, ServerOp, ServerRefusal,
    Settled, Sighting, State, Suspect, Token, TokenEvent, TokenOp, Tombstone, Vip, VipEvent, VipOp,
    in_order,
};
pub use mac::{Mac, MacError};
pub use moment::moment;
pub use mono::Mono;
pub use name::{Name, NameError};
pub use placement::{NodeView, decide, target};
pub use profile::{MAX_CLOCK_DRIFT, Profile, Timing, TimingError};
pub use protocol::{Foreign, Protocols};
pub use report::{Conflict, Fitness, MAX_MACS, Obstacle, Report, ReportId, Why};
pub use role::Role;
pub use spec::{
    AddressError, AllDown, Body, CheckKind, CheckKindError, CheckSpec, CheckTiming, CheckWords,
    Digest, DnsCheck, Engine, ExecCheck, Forward, GrpcCheck, Header, HostName, HttpCheck,
    MAX_NAMES, MAX_OTHERWISE, MAX_REALS, Method, NamedReal, NamedRealError, OnDown, Placement,
    Policy, Ports, PortsError, Protocol, Provider, Quorum, QuorumError, RealCheck, RealServer,
    RealSpec, RealSpecError, RecordType, Reply, Scheduler, ServerSpec, ServerSpecError, Statuses,
    TableSize, TableSizeError, TimingOutOfRange, Tls, Trust, UdpCheck, Via, VipAddress, VipSpec,
    VipSpecError,
};
pub use subnet::{is_host, subnet};
pub use token::{JoinProof, TokenError, TokenSecret, TokenText, VERIFIER_LEN, join_statement};
pub use via_token::{MAX_TOKEN, ViaToken};
pub use words::UnknownWord;
