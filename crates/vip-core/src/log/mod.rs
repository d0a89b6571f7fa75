//! What all nodes agree on: the state, and the entries that change it.

mod cause;
mod cluster;
mod command;
mod event;
mod issuers;
mod login;
mod node;
mod refound;
mod refusal;
mod reports;
mod reshape;
mod server;
mod state;
mod token;
mod vip;

pub use cause::Cause;
pub use cluster::{Cluster, ClusterEvent, ClusterOp};
pub use command::{Actor, Command, Op, Outcome};
pub use event::{Event, EventKind, Events};
pub use issuers::{Issuers, Suspect};
pub use login::{AdminRole, Login, LoginEvent, LoginOp};
pub use node::{Node, NodeEvent, NodeOp, NodeState, Removal, Tombstone};
pub use refound::{Founder, Founding};
pub use refusal::Refusal;
pub use server::{
    Before, CutOff, FIRST_ANSWERS, Health, Hindrance, Hindrances, IDLE_AFTER, Instead, Lasting,
    MAX_HINDERED, MAX_REALS_IN_ALL, MAX_SERVERS, PathChange, RETIRE_AFTER_MS, Real, RealPlace,
    Resolutions, Resolved, SayChange, Server, ServerEvent, ServerOp, ServerRefusal, Sighting,
    in_order,
};
pub use state::State;
pub use token::{Token, TokenEvent, TokenOp};
pub use vip::{
    Assignment, ConflictChange, Dropped, Guest, Nested, ObstacleChange, Settled, Vip, VipEvent,
    VipOp,
};
