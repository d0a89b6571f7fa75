//! What must hold, whatever happens. One rule per file.

mod committed_move_stays;
mod connections_stay;
mod epoch_never_falls;
mod health_after_heal;
mod late_call_never_wins;
mod later_counts;
mod one_answering_node;
mod progress_after_heal;
mod provider_agrees_after_heal;
mod tables_follow_the_log;

pub(crate) use committed_move_stays::CommittedMoveStays;
pub(crate) use connections_stay::{Connection, Holder};
pub(crate) use epoch_never_falls::EpochNeverFalls;
pub(crate) use health_after_heal::{check as health_after_heal, health_bound};
pub(crate) use late_call_never_wins::check as late_call_never_wins;
pub(crate) use later_counts::check as later_counts;
pub(crate) use one_answering_node::OneAnsweringNode;
pub(crate) use progress_after_heal::{check as progress_after_heal, progress_bound};
pub(crate) use provider_agrees_after_heal::{check as provider_agrees_after_heal, provider_bound};
pub(crate) use tables_follow_the_log::TablesFollowTheLog;

use crate::clock::Real;

/// A rule that did not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which, by the name of its file.
    pub rule: &'static str,
    /// When.
    pub at: Real,
    /// What happened.
    pub what: String,
}

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} at {}: {}", self.rule, self.at, self.what)
    }
}
