//! The agent: what joins consensus, leases, the guard and the operator.
//!
//! ```text
//!  admin socket ─> admin::Service ─┐
//!  peers ─> cluster, raft ─────────┼─> Raft log ─> State ─┬─> leader: placement, settling
//!                                  │                      └─> lease thread: claims
//!  peers ─> lease service ─────────┴─> lease thread <─> guard
//! ```

mod access;
mod admin;
mod certificate;
mod cloud;
mod config;
mod descriptors;
mod door;
mod errors;
mod essential;
mod forward;
mod hand_over;
mod hasten;
mod http;
mod leader;
mod lease;
mod listening;
mod membership;
mod names;
mod node;
mod probe_now;
mod probing;
mod rate;
mod refusals;
mod reporter;
mod run;
mod servers;
mod sights;
mod wall_clock;

pub use config::{AdminSection, Config, ConfigError, GuardSection, HttpSection, NodeSection};
pub use membership::ListenError;
pub use run::{AgentError, run};
