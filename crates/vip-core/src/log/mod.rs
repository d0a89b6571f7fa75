//! What all nodes agree on: the state, and the entries that change it.

mod command;
mod event;
mod issuers;
mod login;
mod node;
mod refound;
mod refusal;
mod reshape;
mod state;
mod token;
mod vip;

pub use command::{Actor, Assignment, Command, ConflictChange, ObstacleChange, Op, Outcome};
pub use event::{Cause, Event, EventKind};
pub use issuers::{Issuers, Suspect};
pub use login::{AdminRole, Login};
pub use node::{Node, NodeState, Removal, Tombstone};
pub use refound::{Founder, Founding};
pub use refusal::Refusal;
pub use state::{Cluster, State};
pub use token::Token;
pub use vip::{Dropped, Guest, Nested, Settled, Vip};
