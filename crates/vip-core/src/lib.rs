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
mod announce;
mod authority;
mod chain;
mod claims;
mod clock_rate;
mod command;
mod detector;
mod event;
mod excerpt;
mod grants;
mod guard;
mod ids;
mod leader_lease;
mod leases;
mod login;
mod mac;
mod moment;
mod mono;
mod name;
mod node;
mod placement;
mod prefix;
mod profile;
mod promise;
mod refusal;
mod report;
mod state;
#[cfg(test)]
mod testing;
mod token;
mod vip;
mod wall_clock;

pub use address::{is_metadata, no_peer, unfit};
pub use announce::{ANNOUNCE_OFFSETS, ANNOUNCE_REPEAT, Announcements};
pub use authority::{Presumption, Speaker, Standing, TERM_LEAP, standing};
pub use chain::{chain, plain};
pub use claims::{ClaimAction, ClaimEvent, Claims, Holding};
pub use clock_rate::{Steering, TooFast};
pub use command::{
    Actor, Assignment, Command, ConflictChange, Grantee, ObstacleChange, Op, Outcome,
};
pub use detector::{Detector, rank};
pub use event::{Cause, Event, EventKind};
pub use excerpt::{MAX_EXCERPT, excerpt};
pub use grants::{Denial, Grants, Request, Verdict};
pub use guard::{
    Address, Guard, GuardAction, GuardEvent, GuardFailure, GuardNotice, GuardRefusal, HostNetwork,
    Limits, Phase, Probe, VipOrder,
};
pub use ids::{Epoch, Incarnation, NodeId, Term, TokenId, VipUid};
pub use leader_lease::{LeaderLease, Voters};
pub use leases::{
    Acknowledgement, Answers, Ask, FIRST_GRANT_WAIT, GrantAnswer, HAND_OVER_POLL, HandOver,
    HandOverStep, LEADER_LOOKS, LeaderWork, LeaseAction, LeaseEvent, Leases, LeasesStart, RaftView,
    Waiting, WaitingStep,
};
pub use login::{AdminRole, Login};
pub use mac::{Mac, MacError};
pub use moment::moment;
pub use mono::Mono;
pub use name::{Name, NameError};
pub use node::{Node, NodeState, Role};
pub use placement::{NodeView, decide, target};
pub use prefix::{Prefix, PrefixError};
pub use profile::{MAX_CLOCK_DRIFT, Profile, Timing, TimingError};
pub use promise::{Promise, PromiseReply, PromiseTicket, Refused, Vote};
pub use refusal::Refusal;
pub use report::{Conflict, Fitness, MAX_MACS, Obstacle, Report, Why};
pub use state::{Cluster, Founder, Founding, Issuers, Removal, State, Suspect, Tombstone};
pub use token::{
    JoinProof, Token, TokenError, TokenSecret, TokenText, VERIFIER_LEN, join_statement,
};
pub use vip::{
    AddressError, Dropped, Guest, Nested, Placement, Settled, Vip, VipAddress, VipSpec,
    VipSpecError,
};
pub use wall_clock::{CLOCKS_FAR_APART, OwnClockFar, WallClocks};
