//! The life of a claim, as a table.
//!
//! ```text
//!  Preparing ──> Asking ──> Leased ──> Open
//!      ^           ^───────────┴────────┘ the deadline passed
//!      │
//!  Seeking ──> Taking ──> Taken            where somebody has to be told first
//!  any ──> Doomed: the guard refuses the epoch for good
//!  any ──> Releasing ──> gone
//! ```

use serde::{Deserialize, Serialize};

/// How far a claim is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Stage {
    /// The leader is asked for a lease with the gate shut.
    Seeking,
    /// Granted so; whoever has to know where the VIP is, is told.
    Taking,
    /// They know; the guard is to be told next.
    Taken,
    /// Ordered from the guard.
    Preparing,
    /// Ready; the leader is asked.
    Asking,
    /// Granted; the guard does not answer yet, as far as this agent knows.
    Leased,
    /// The guard answers, as far as this agent knows.
    Open,
    /// The guard refuses this epoch for good, but only the leader knows which
    /// session held it. Asked for, never used, then released.
    Doomed,
    /// Release ordered from the guard.
    Releasing,
}

/// What can happen to a claim under its epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Happened {
    /// Who had to be told confirmed that it is here.
    Confirmed,
    /// They will not hear of it.
    NotTaken,
    /// It is ordered from the guard.
    Ordered,
    /// The guard has its addresses.
    Prepared,
    /// The guard answers.
    Opened,
    /// The guard does not any more: the deadline passed.
    Expired,
    /// The guard refuses its epoch for good.
    Ended,
    /// The guard still has an address of it for another VIP.
    InUse,
    /// The kernel refused an address.
    Refused,
    /// Granted to this session.
    Granted,
    /// The leader's log says that it ended, or is somebody else's.
    Over,
    /// It is bound to an earlier session of this node's guard.
    Bound,
    /// The leader cannot say.
    NotYet,
    /// The log, as it is known here, wants it elsewhere.
    Unwanted,
    /// Somebody answers for it beside whom it must not be claimed.
    Contested,
}

/// What to do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Then {
    /// Nothing.
    Nothing,
    /// Ask the leader at once.
    Ask,
    /// Tell, or go on telling, until the deadline.
    Take,
    /// Pass the deadline on to the guard.
    Extend,
    /// Have the guard release it.
    Release,
    /// The same, and report that the earlier session's hold of it ended.
    ReleaseEarlier,
    /// Report that it ended here.
    Report,
    /// The same, and leave it alone for a while.
    LeaveAlone,
    /// The guard is to hear again what it should have.
    TellAgain,
}

impl Stage {
    /// Where it goes, `None`: it is none any more; and what is to be done.
    pub(super) const fn after(self, happened: Happened) -> (Option<Self>, Then) {
        use Happened as H;
        use Stage as S;
        match (self, happened) {
            (S::Seeking | S::Taking, H::Granted) => (Some(S::Taking), Then::Take),
            (S::Taking, H::Confirmed) => (Some(S::Taken), Then::Nothing),
            // By the guard, which never opens for this epoch then.
            (S::Taking | S::Asking | S::Leased | S::Open, H::NotTaken) => {
                (Some(S::Releasing), Then::Release)
            }
            (S::Taken, H::Ordered) => (Some(S::Preparing), Then::Nothing),
            (S::Preparing, H::Prepared) => (Some(S::Asking), Then::Ask),
            (S::Asking | S::Leased, H::Opened) => (Some(S::Open), Then::Nothing),
            (S::Leased | S::Open, H::Expired) => (Some(S::Asking), Then::Nothing),

            (S::Asking | S::Leased, H::Granted) => (Some(S::Leased), Then::Extend),
            (S::Open, H::Granted) => (Some(S::Open), Then::Extend),
            (S::Doomed, H::Granted) => (None, Then::Report),

            // The guard is letting go of it already.
            (S::Releasing, H::Ended | H::Over | H::Unwanted) => (Some(self), Then::Nothing),
            (_, H::Ended) => (Some(S::Doomed), Then::Ask),
            // The other VIP is being released; the next look tries again.
            (S::Preparing, H::InUse) => (None, Then::Nothing),
            // What it has the guard keeps.
            (S::Asking | S::Leased | S::Open | S::Doomed | S::Releasing, H::InUse) => {
                (Some(self), Then::TellAgain)
            }
            (_, H::Refused) => (None, Then::LeaveAlone),

            (_, H::Bound) => (Some(S::Releasing), Then::ReleaseEarlier),
            // The leader's log holds every assignment that a claim can rest on.
            (_, H::Over | H::Unwanted)
            | (S::Preparing | S::Asking | S::Leased | S::Open, H::Contested) => {
                (Some(S::Releasing), Then::Release)
            }

            // The guard knows nothing of it yet; and what comes late changes nothing.
            (
                S::Seeking | S::Taking | S::Taken,
                H::Prepared | H::Opened | H::Expired | H::InUse | H::Contested,
            )
            | (S::Asking | S::Leased | S::Open | S::Doomed | S::Releasing, H::Prepared)
            | (S::Preparing | S::Open | S::Doomed | S::Releasing, H::Opened)
            | (S::Preparing | S::Asking | S::Doomed | S::Releasing, H::Expired)
            | (S::Taken | S::Preparing | S::Releasing, H::Granted)
            | (S::Doomed | S::Releasing, H::Contested)
            | (_, H::Confirmed | H::NotTaken | H::Ordered)
            | (_, H::NotYet) => (Some(self), Then::Nothing),
        }
    }

    /// Whether the leader is asked for it, for the first time or after an expiry.
    pub(super) const fn waits(self) -> bool {
        matches!(self, Self::Asking | Self::Doomed)
    }

    /// Whether the leader is asked for it while the gate is shut, for the first time.
    pub(super) const fn seeks(self) -> bool {
        matches!(self, Self::Seeking)
    }

    /// Whether somebody is told, and the lease is to go on meanwhile.
    pub(super) const fn is_taking(self) -> bool {
        matches!(self, Self::Taking)
    }

    /// Whether somebody is told, or was, and it did not answer yet.
    pub(super) const fn is_told(self) -> bool {
        matches!(self, Self::Taking | Self::Taken | Self::Preparing | Self::Asking | Self::Leased)
    }

    /// Whether its lease is to go on.
    pub(super) const fn is_leased(self) -> bool {
        matches!(self, Self::Leased | Self::Open)
    }

    /// Whether the guard has addresses of it, or is to get more.
    pub(super) const fn is_ready(self) -> bool {
        matches!(self, Self::Asking | Self::Leased | Self::Open)
    }

    /// Whether it does not answer yet: somebody else who does keeps it from that.
    pub(super) const fn is_undecided(self) -> bool {
        matches!(self, Self::Preparing | Self::Asking | Self::Leased)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAGES: [Stage; 9] = [
        Stage::Seeking,
        Stage::Taking,
        Stage::Taken,
        Stage::Preparing,
        Stage::Asking,
        Stage::Leased,
        Stage::Open,
        Stage::Doomed,
        Stage::Releasing,
    ];

    /// Every pair, written down a second time: a row for what happened, a column
    /// for each stage. `.`: as before, nothing; `-`: none any more.
    #[test]
    fn every_pair_is_as_it_was_meant() {
        use Happened as H;
        let table = [
            (H::Prepared, [".", ".", ".", "Asking Ask", ".", ".", ".", ".", "."]),
            (H::Opened, [".", ".", ".", ".", "Open", "Open", ".", ".", "."]),
            (H::Expired, [".", ".", ".", ".", ".", "Asking", "Asking", ".", "."]),
            (
                H::Ended,
                [
                    "Doomed Ask",
                    "Doomed Ask",
                    "Doomed Ask",
                    "Doomed Ask",
                    "Doomed Ask",
                    "Doomed Ask",
                    "Doomed Ask",
                    "Doomed Ask",
                    ".",
                ],
            ),
            (H::InUse, IN_USE),
            (H::Refused, ["- LeaveAlone"; 9]),
            (
                H::Granted,
                [
                    "Taking Take",
                    "Taking Take",
                    ".",
                    ".",
                    "Leased Extend",
                    "Leased Extend",
                    "Open Extend",
                    "- Report",
                    ".",
                ],
            ),
            (H::Over, RELEASED),
            (H::Bound, ["Releasing ReleaseEarlier"; 9]),
            (H::NotYet, ["."; 9]),
            (H::Confirmed, [".", "Taken", ".", ".", ".", ".", ".", ".", "."]),
            (H::NotTaken, NOT_TAKEN),
            (H::Ordered, [".", ".", "Preparing", ".", ".", ".", ".", ".", "."]),
            (H::Unwanted, RELEASED),
            (H::Contested, CONTESTED),
        ];
        for (happened, row) in table {
            for (stage, meant) in STAGES.into_iter().zip(row) {
                let (next, then) = stage.after(happened);
                let next = match next {
                    Some(next) if next == stage && then == Then::Nothing => ".".to_owned(),
                    Some(next) => format!("{next:?}"),
                    None => "-".to_owned(),
                };
                let then = if then == Then::Nothing { String::new() } else { format!(" {then:?}") };
                assert_eq!(format!("{next}{then}"), meant, "{stage:?}, {happened:?}");
            }
        }
    }

    const NOT_TAKEN: [&str; 9] = [
        ".",
        "Releasing Release",
        ".",
        ".",
        "Releasing Release",
        "Releasing Release",
        "Releasing Release",
        ".",
        ".",
    ];

    const IN_USE: [&str; 9] = [
        ".",
        ".",
        ".",
        "-",
        "Asking TellAgain",
        "Leased TellAgain",
        "Open TellAgain",
        "Doomed TellAgain",
        "Releasing TellAgain",
    ];

    const CONTESTED: [&str; 9] = [
        ".",
        ".",
        ".",
        "Releasing Release",
        "Releasing Release",
        "Releasing Release",
        "Releasing Release",
        ".",
        ".",
    ];

    const RELEASED: [&str; 9] = [
        "Releasing Release",
        "Releasing Release",
        "Releasing Release",
        "Releasing Release",
        "Releasing Release",
        "Releasing Release",
        "Releasing Release",
        "Releasing Release",
        ".",
    ];

    #[test]
    fn what_a_stage_is_for_others() {
        let of = |is: fn(Stage) -> bool| STAGES.map(is);
        let only = |at: usize| std::array::from_fn::<_, 9, _>(|stage| stage == at);
        assert_eq!((of(Stage::seeks), of(Stage::is_taking)), (only(0), only(1)));
        assert_eq!(of(Stage::is_told)[..3], [false, true, true]);
        assert_eq!(of(Stage::is_told)[3..], [true, true, true, false, false, false]);
        assert_eq!(of(Stage::waits)[..3], [false; 3]);
        assert_eq!(of(Stage::waits)[3..], [false, true, false, false, true, false]);
        assert_eq!(of(Stage::is_leased)[..3], [false; 3]);
        assert_eq!(of(Stage::is_leased)[3..], [false, false, true, true, false, false]);
        assert_eq!(of(Stage::is_ready)[..3], [false; 3]);
        assert_eq!(of(Stage::is_ready)[3..], [false, true, true, true, false, false]);
        assert_eq!(of(Stage::is_undecided)[..3], [false; 3]);
        assert_eq!(of(Stage::is_undecided)[3..], [true, true, true, false, false, false]);
    }
}
