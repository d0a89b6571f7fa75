//! Which real server a connection goes to, decided from what the log says alone, so
//! that every node comes to the same one.

mod at_vip;
mod drops;
mod flow;
mod forwarding;
mod maglev;
mod mute;
mod orders;
mod plan;
mod programming;
#[cfg(test)]
mod replicas;
mod unsaid;

pub use at_vip::{AtVip, AtVipQuestion};
pub use drops::{DropReason, Drops};
pub use flow::Flow;
pub use forwarding::Forwarding;
pub use mute::Mutes;
pub use orders::{Counter, RealCount, TableCounters, TableNotice, TableOrder};
pub use plan::{Plan, PlanError};
pub use programming::{Programmed, Programming};
pub use unsaid::unsaid;
