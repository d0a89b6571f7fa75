//! Real hosts in network namespaces: the real binaries, real frames, real
//! processes. Used by the tests in `tests/` and by `cargo xtask demo`.
//!
//! ```text
//!   n1 ── eth0 ─┐
//!   n2 ── eth0 ─┼─ bridge in the namespace "sw" ── eth0 ── client
//!   n3 ── eth0 ─┘
//! ```

mod cluster;
mod command;
mod host;
mod net;
mod probe;

pub use cluster::{Cluster, Options, Status};
pub use command::{Outcome, binaries, run, wait_for};
pub use host::{Host, Process};
pub use net::{Lab, Mac};
pub use probe::{Outage, Probe, Reply, Trace};
