//! What is wanted, as a person says it, checked as far as it can be alone.

mod ports;
mod real;
mod server;
mod table;
mod vip;

pub use ports::{Ports, PortsError};
pub use real::{RealServer, RealSpec, RealSpecError};
pub use server::{Engine, Forward, MAX_REALS, Protocol, Scheduler, ServerSpec, ServerSpecError};
pub use table::{TableSize, TableSizeError};
pub use vip::{AddressError, Placement, VipAddress, VipSpec, VipSpecError};
