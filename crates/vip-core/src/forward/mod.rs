//! Which real server a connection goes to, decided from what the log says alone, so
//! that every node comes to the same one.

mod maglev;
mod plan;

pub use plan::{MAX_REALS, Plan, PlanError, RealServer, TableSize};
