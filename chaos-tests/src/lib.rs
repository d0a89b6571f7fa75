//! Real hosts in network namespaces: the real binaries, real frames, real
//! processes. Used by the tests in `tests/` and by `cargo xtask demo`.
//!
//! ```text
//!   n1 ── eth0 ─┐
//!   n2 ── eth0 ─┼─ bridge in the namespace "sw" ── eth0 ── client
//!   n3 ── eth0 ─┘
//! ```

mod asked;
mod busy;
mod capture;
mod clients;
mod cluster;
mod command;
mod crashes;
mod daemons;
mod fault;
mod forged;
mod freezer;
mod grpc;
mod guard_socket;
mod host;
mod linear;
mod net;
mod operator;
mod probe;
mod random;
mod reals;
mod service;
mod strangers;
mod traffic;
mod unserved;
mod unwell;
mod web;

pub use asked::{Asked, connect};
pub use busy::BusyLoops;
pub use cluster::{Cluster, Options, Status};
pub use command::{Outcome, binaries, run, wait_for, within};
pub use crashes::{Crashed, Work, crash};
pub use daemons::{Daemon, python, unpacked};
pub use fault::{Fault, Faults};
pub use grpc::WellByGrpc;
pub use guard_socket::greet_guard;
pub use host::{Host, Process, Version};
pub use net::{Lab, Mac};
pub use operator::{Given, open_tokens};
pub use probe::{Claim, Outage, Probe, Reply, Trace};
pub use random::{Plan, Summary, run as run_at_random};
pub use reals::{Net, V4, V6};
pub use strangers::{Counts, Strangers};
pub use traffic::{Connections, Flows, Patter, RealServer, Stream, Streams};
pub use unserved::unserved;
pub use web::{Page, resolve};
