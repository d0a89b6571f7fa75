//! Whether what clients were told of a register fits one order of its changes
//! (Herlihy and Wing 1990; the search is that of Wing and Gong, with the
//! memory of Lowe 2017).

use std::collections::HashSet;
use std::fmt;

/// What a client asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Set to this value; refused if it has another one.
    Set(u8),
    /// Clear it; refused if it has no value.
    Clear,
    /// Say its value.
    Read,
}

/// What a client was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// It was done.
    Done,
    /// It was refused, and nothing changed.
    Refused,
    /// The value.
    Value(Option<u8>),
    /// Nothing: it may take effect at any time after, or never.
    Unknown,
}

/// One operation of one client. Times in ns of one clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Operation {
    /// When it was asked for.
    pub(crate) begin_ns: u64,
    /// When it was answered.
    pub(crate) end_ns: u64,
    /// What was asked for.
    pub(crate) action: Action,
    pub(crate) answer: Answer,
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (begin, end) = (self.begin_ns / 1_000_000, self.end_ns / 1_000_000);
        write!(f, "{begin} to {end} ms: {:?} {:?}", self.action, self.answer)
    }
}

impl Operation {
    fn is_certain(&self) -> bool {
        self.answer != Answer::Unknown
    }

    /// The value after it, if it can come now.
    fn apply(&self, value: Option<u8>) -> Option<Option<u8>> {
        let (answer, next) = match (self.action, value) {
            (Action::Set(new), None) => (Answer::Done, Some(new)),
            (Action::Set(new), Some(old)) if new == old => (Answer::Done, value),
            (Action::Set(_), Some(_)) | (Action::Clear, None) => (Answer::Refused, value),
            (Action::Clear, Some(_)) => (Answer::Done, None),
            (Action::Read, _) => (Answer::Value(value), value),
        };
        (!self.is_certain() || self.answer == answer).then_some(next)
    }
}

/// Whether there is an order of all operations that explains every answer and
/// in which no operation comes before its begin or after its end.
#[must_use]
pub(crate) fn linearizable(history: &[Operation]) -> bool {
    let mut history = history.to_vec();
    history.sort_by_key(|op| op.begin_ns);
    let mut seen = HashSet::new();
    let mut open = vec![(vec![false; history.len()], None)];
    while let Some((mut done, value)) = open.pop() {
        let Some(limit) = take_what_never_changes_it(&history, &mut done, value) else {
            return true;
        };
        if !seen.insert((done.clone(), value)) {
            continue;
        }
        let mut tried = vec![];
        let candidates = history.iter().enumerate().take_while(|(_, op)| op.begin_ns <= limit);
        for (number, op) in candidates.filter(|(number, _)| !done[*number]) {
            let Some(next) = op.apply(value) else { continue };
            if !op.is_certain() {
                // One without effect need not have happened; of those that
                // differ in nothing the earliest will do.
                if next == value || tried.contains(&op.action) {
                    continue;
                }
                tried.push(op.action);
            }
            let mut done = done.clone();
            done[number] = true;
            open.push((done, next));
        }
    }
    false
}

/// Does all that can come now and never changes the value: later it could only
/// be harder to explain. Returns when the first of the rest ends, `None`
/// if nothing certain is left.
fn take_what_never_changes_it(
    history: &[Operation],
    done: &mut [bool],
    value: Option<u8>,
) -> Option<u64> {
    loop {
        let left = history.iter().zip(done.iter()).filter(|(op, done)| !**done && op.is_certain());
        // Whatever comes next must begin before all of the rest end.
        let limit = left.map(|(op, _)| op.end_ns).min()?;
        let mut any = false;
        for (op, done) in history.iter().zip(done.iter_mut()) {
            let now = op.begin_ns <= limit && op.is_certain() && !*done;
            let inert = matches!(op.answer, Answer::Refused | Answer::Value(_));
            if now && inert && op.apply(value).is_some() {
                *done = true;
                any = true;
            }
        }
        if !any {
            return Some(limit);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn op(begin_ns: u64, end_ns: u64, action: Action, answer: Answer) -> Operation {
        Operation { begin_ns, end_ns, action, answer }
    }

    #[test]
    fn one_after_the_other_is_fine() {
        assert!(linearizable(&[
            op(0, 1, Action::Set(1), Answer::Done),
            op(2, 3, Action::Read, Answer::Value(Some(1))),
            op(4, 5, Action::Set(2), Answer::Refused),
            op(6, 7, Action::Clear, Answer::Done),
            op(8, 9, Action::Clear, Answer::Refused),
        ]));
    }

    #[test]
    fn a_read_of_the_past_is_found() {
        assert!(!linearizable(&[
            op(0, 1, Action::Set(1), Answer::Done),
            op(2, 3, Action::Read, Answer::Value(None)),
        ]));
        // While it is under way, both are right.
        assert!(linearizable(&[
            op(0, 3, Action::Set(1), Answer::Done),
            op(1, 2, Action::Read, Answer::Value(None)),
        ]));
    }

    #[test]
    fn two_that_cannot_both_have_won_are_found() {
        assert!(!linearizable(&[
            op(0, 9, Action::Set(1), Answer::Done),
            op(0, 9, Action::Set(2), Answer::Done),
        ]));
    }

    /// It is needed after the other one was cleared, though it could have come
    /// before.
    #[test]
    fn a_second_set_to_the_same_value_may_wait() {
        assert!(linearizable(&[
            op(0, 1, Action::Set(1), Answer::Done),
            op(2, 9, Action::Set(1), Answer::Done),
            op(2, 9, Action::Clear, Answer::Done),
            op(10, 11, Action::Read, Answer::Value(Some(1))),
        ]));
    }

    /// Without an order among those that nobody knows of, this takes for ever.
    #[test]
    fn many_without_an_answer_are_no_trouble() {
        let mut history = vec![];
        for n in 0..60 {
            let action = [Action::Set(1), Action::Set(2), Action::Clear][n % 3];
            history.push(op(n as u64, n as u64 + 1, action, Answer::Unknown));
        }
        for n in 60..100 {
            let value = [None, Some(1), Some(2)][n % 3];
            history.push(op(n as u64, n as u64 + 1, Action::Read, Answer::Value(value)));
        }
        assert!(linearizable(&history));
        history.push(op(200, 201, Action::Read, Answer::Value(Some(3))));
        assert!(!linearizable(&history));
    }

    #[test]
    fn what_nobody_knows_may_have_happened_or_not_but_not_before_it_was_asked() {
        let unknown = op(2, 3, Action::Set(1), Answer::Unknown);
        let read = |begin, value| op(begin, begin + 1, Action::Read, Answer::Value(value));
        assert!(linearizable(&[unknown, read(4, None), read(6, Some(1))]));
        assert!(linearizable(&[unknown, read(4, None)]));
        assert!(!linearizable(&[unknown, read(0, Some(1))]));
        assert!(!linearizable(&[unknown, read(4, Some(1)), read(6, None)]));
    }
}
