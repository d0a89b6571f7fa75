//! The privileged side of vipd: what holds, announces and lets go of
//! addresses, and refuses to do anything else.
//!
//! The decisions are `vip_core::Guard`; here are the socket to the agent, the
//! kernel's netlink, the packet sockets and the gate. The `server` feature has
//! the kernel code; without it this is the protocol and its client.

mod client;
mod clock;
mod protocol;

#[cfg(feature = "server")]
mod allow;
#[cfg(feature = "server")]
mod frames;
#[cfg(feature = "server")]
mod host;
#[cfg(feature = "server")]
mod kernel;
#[cfg(feature = "server")]
mod packets;
#[cfg(feature = "server")]
mod records;
#[cfg(feature = "server")]
mod server;

pub use client::{GuardReader, GuardWriter, LinkError, connect};
pub use clock::boottime;
pub use protocol::{FromGuard, GateReport, ToGuard};

#[cfg(feature = "server")]
pub use allow::{Prefix, PrefixError};
#[cfg(feature = "server")]
pub use server::{GuardConfig, GuardError, purge, run, wait_in_line};
