//! The lease path: promises, leases, grants and claims, on a thread of its own
//! that never waits for a disk.

mod clock_watch;
mod guard_link;
mod peers;
pub(crate) mod recordings;
mod runner;
mod service;
mod shared;
mod view;

pub(crate) use peers::LeasePeers;
pub(crate) use runner::{LeaseThread, Start};
pub(crate) use shared::{GuardStatus, LeaseShared};
pub(crate) use view::LeaseView;
