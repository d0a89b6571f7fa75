//! The agent: what joins consensus, leases, the guard and the operator.
//!
//! ```text
//!  admin socket ─> admin::Service ─┐
//!  peers ─> cluster, raft ─────────┼─> Raft log ─> State ─┬─> leader: placement, settling
//!                                  │                      └─> lease thread: claims
//!  peers ─> lease service ─────────┴─> lease thread <─> guard
//! ```

mod activation;
mod admin;
mod backup;
mod certificate;
mod cluster_service;
mod config;
mod descriptors;
mod door;
mod errors;
mod essential;
mod formation;
mod hand_over;
mod leader;
mod lease;
mod look_back;
mod member;
mod rate;
mod refounding;
mod refusals;
mod reissue;
mod serve;
mod servers;
mod upkeep;
mod wall_clock;

pub use config::{AdminSection, Config, ConfigError, GuardSection, HttpSection, NodeSection};
pub use serve::{AgentError, run};
