//! Who is up: what one observer makes of its probes, who observes whom, and what comes of
//! several observers' opinions.

mod checker;
mod observers;
mod verdict;

pub use checker::{CheckTiming, Checker, Edge, ProbeNumber, TimingOutOfRange};
pub use observers::observers;
pub use verdict::{Opinion, judge};
