//! A seeded simulator of a cluster under faults.
//!
//! Every node runs the agent's own decisions from vip-core: leases, grants,
//! claims, placement, the replicated state, and the guard. Around them stand
//! small models of what has no decisions of ours: Raft, the disk, the network,
//! the kernel's gate, clocks. One seed makes one world; the same seed makes the
//! same world.
//!
//! ```text
//!  seed ──> Scenario: hosts, clocks, faults in time
//!              │
//!              v
//!  World: one event after the other ──> agents, guards, kernels, disks, links
//!              │
//!              v
//!  invariants: one answering node, epochs never fall, committed moves stay,
//!              progress after the heal, tables follow the log, connections stay
//! ```

mod agent;
mod clock;
mod coverage;
mod disk;
mod entry;
mod guard;
mod host;
mod invariant;
mod kernel;
mod many;
mod mutant;
mod network;
mod raft;
mod scenario;
mod tables;
mod world;

pub use clock::Real;
pub use coverage::Coverage;
pub use invariant::Violation;
pub use many::{Summary, run_many};
pub use mutant::Mutant;
pub use scenario::{Kind, Scheme};
pub use world::{Options, Report, Stats, recordings, run};
