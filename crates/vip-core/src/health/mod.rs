//! Who is up: what one observer makes of its probes, who observes whom, and what comes of
//! several observers' opinions.

mod absences;
mod checker;
mod damping;
mod observers;
mod patience;
mod resolving;
mod rounds;
mod verdict;

pub use absences::{Absences, BLIND_AFTER};
pub use checker::{Checker, Failure, ProbeNumber};
pub use damping::Damping;
pub(crate) use damping::HELD_FOR;
pub use observers::{Observed, observers};
pub use patience::Patience;
pub use resolving::Resolving;
pub use rounds::{Rounds, Start, Target, Ticket};
pub use verdict::{Opinion, judge};
