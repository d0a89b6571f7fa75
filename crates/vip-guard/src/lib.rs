//! The privileged side of vipd: what holds, announces and lets go of
//! addresses, and refuses to do anything else.
//!
//! The decisions are `vip_core::Guard`; here are the socket to the agent, the
//! kernel's netlink, the packet sockets and the gate. The `server` feature has
//! the kernel code; without it this is the protocol and its client.

mod client;
mod clock;
mod protocol;
mod realtime;

#[cfg(feature = "server")]
mod allow;
#[cfg(feature = "server")]
mod at_vip;
#[cfg(feature = "server")]
mod config;
#[cfg(feature = "server")]
mod forwarder;
#[cfg(feature = "server")]
mod frames;
#[cfg(feature = "server")]
mod hand_over;
#[cfg(feature = "server")]
mod host;
#[cfg(feature = "server")]
mod kernel;
#[cfg(feature = "server")]
mod ledger;
#[cfg(feature = "server")]
mod lock;
#[cfg(feature = "server")]
mod network;
#[cfg(feature = "server")]
mod packets;
#[cfg(feature = "server")]
mod records;
#[cfg(feature = "server")]
mod routes;
#[cfg(feature = "server")]
mod run;
#[cfg(feature = "server")]
mod session;
#[cfg(feature = "server")]
mod settings;
#[cfg(feature = "server")]
mod tables;
#[cfg(feature = "server")]
mod told;
#[cfg(feature = "server")]
mod ways;

pub use client::{GuardReader, GuardWriter, LinkError, connect};
pub use clock::{boottime, clock_steering};
#[cfg(feature = "server")]
pub use config::{GuardConfig, GuardError};
#[cfg(feature = "server")]
pub use hand_over::{Succession, accept};
#[cfg(feature = "server")]
pub use lock::wait_in_line;
pub use protocol::{FromGuard, GateReport, Hello, ToGuard, Versions};
pub use realtime::realtime;
#[cfg(feature = "server")]
pub use run::{Begin, purge, run};
