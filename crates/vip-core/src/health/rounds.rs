//! All that one observer probes: whom, when, and what it sees of them.

use super::checker::{Checker, Failure, ProbeNumber};
use super::observers::Observed;
use super::verdict::Opinion;
use crate::mix::mix_all;
use crate::{CheckKind, CheckTiming, Mono};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

/// How a real server is probed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub at: SocketAddr,
    /// Shared by the real servers of a virtual one.
    pub kind: Arc<CheckKind>,
    pub timing: CheckTiming,
}

/// A probe that is to start now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Start {
    pub target: Target,
    /// What its answer comes back with.
    pub ticket: Ticket,
}

/// Which probe an answer is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket {
    observed: Observed,
    /// Answers to what was probed otherwise, or earlier, say nothing.
    run: u64,
    number: ProbeNumber,
}

impl Ticket {
    /// Of whom.
    #[must_use]
    pub const fn observed(&self) -> Observed {
        self.observed
    }
}

struct Probed {
    target: Target,
    checker: Checker,
    run: u64,
}

/// See the module.
#[derive(Default)]
pub struct Rounds {
    /// Keeps the probes of observers apart.
    seed: u64,
    probed: BTreeMap<Observed, Probed>,
    due: BTreeSet<(Mono, Observed)>,
    sees: BTreeMap<Observed, (Target, Opinion)>,
    runs: u64,
}

impl Rounds {
    /// Of an observer with this number of its own.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { seed, ..Self::default() }
    }

    /// These are to be probed from now on, and no others: new ones at once.
    pub fn follow(&mut self, now: Mono, wanted: &BTreeMap<Observed, Target>) {
        let is_over = |observed: &Observed, probed: &Probed| {
            wanted.get(observed).is_none_or(|target| *target != probed.target)
        };
        for (observed, probed) in self.probed.extract_if(.., |one, probed| is_over(one, probed)) {
            self.due.remove(&(probed.checker.next_start(), observed));
            self.sees.remove(&observed);
        }
        for (observed, target) in wanted {
            if self.probed.contains_key(observed) {
                continue;
            }
            self.runs += 1;
            let seed = mix_all(self.seed, [observed.server.0, self.runs]);
            let checker = Checker::new(now, target.timing, seed);
            self.due.insert((checker.next_start(), *observed));
            let probed = Probed { target: target.clone(), checker, run: self.runs };
            self.probed.insert(*observed, probed);
        }
    }

    /// When the next probe is to start.
    #[must_use]
    pub fn next_start(&self) -> Option<Mono> {
        self.due.first().map(|(at, _)| *at)
    }

    /// The probes to start now, and no more than there is room for: the others stay due.
    pub fn start(&mut self, now: Mono, room: usize) -> Vec<Start> {
        let mut starts = vec![];
        while starts.len() < room && self.due.first().is_some_and(|(at, _)| *at <= now) {
            let Some((_, observed)) = self.due.pop_first() else { break };
            let Some(probed) = self.probed.get_mut(&observed) else { continue };
            if let Some(number) = probed.checker.start(now) {
                let ticket = Ticket { observed, run: probed.run, number };
                starts.push(Start { target: probed.target.clone(), ticket });
            }
            self.due.insert((probed.checker.next_start(), observed));
        }
        starts
    }

    /// One is to be probed sooner: see [`Checker::hasten`].
    pub fn hasten(&mut self, now: Mono, observed: &Observed) {
        let Some(probed) = self.probed.get_mut(observed) else { return };
        let before = probed.checker.next_start();
        probed.checker.hasten(now);
        self.due.remove(&(before, *observed));
        self.due.insert((probed.checker.next_start(), *observed));
    }

    /// A probe has its answer. Whether this observer sees something else now.
    pub fn finished(&mut self, now: Mono, ticket: Ticket, answer: Result<(), Failure>) -> bool {
        let Ticket { observed, run, number } = ticket;
        let Some(probed) = self.probed.get_mut(&observed).filter(|probed| probed.run == run) else {
            return false;
        };
        let before = probed.checker.next_start();
        let sees = probed.checker.finished(now, number, answer);
        let next = probed.checker.next_start();
        if next != before {
            self.due.remove(&(before, observed));
            self.due.insert((next, observed));
        }
        let is_news = sees.is_some();
        let target = &probed.target;
        self.sees.extend(sees.map(|opinion| (observed, (target.clone(), opinion))));
        is_news
    }

    /// What it sees of those that it has an opinion on, and how it looked.
    #[must_use]
    pub fn sees(&self) -> &BTreeMap<Observed, (Target, Opinion)> {
        &self.sees
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ServerUid;
    use std::time::Duration;

    const START: Mono = Mono(1_000_000_000);

    const ROOM: usize = 100;

    fn observed(last: u8) -> Observed {
        Observed { server: ServerUid(1), ip: [10, 0, 0, last].into(), port: 80 }
    }

    fn target(last: u8, fall: u8) -> Target {
        let timing = CheckTiming { fall, ..CheckTiming::default() };
        let at = SocketAddr::new(observed(last).ip, 80);
        Target { at, kind: CheckKind::Tcp.into(), timing }
    }

    fn refused() -> Result<(), Failure> {
        Err(Failure::There("connection refused".into()))
    }

    #[test]
    fn new_ones_are_probed_at_once_and_each_in_its_own_time_after() {
        let mut rounds = Rounds::new(7);
        assert_eq!((rounds.next_start(), rounds.start(START, ROOM).len()), (None, 0));
        let wanted = [1, 2, 3].map(|last| (observed(last), target(last, 3))).into();
        rounds.follow(START, &wanted);
        let first = rounds.start(START, ROOM);
        assert_eq!(
            first.iter().map(|start| start.target.clone()).collect::<Vec<_>>(),
            [1, 2, 3].map(|n| target(n, 3))
        );
        assert_eq!(rounds.start(START, ROOM).len(), 0);
        for start in &first {
            assert!(rounds.finished(START, start.ticket, Ok(())));
        }
        assert_eq!(
            rounds.sees(),
            &[1, 2, 3].map(|n| (observed(n), (target(n, 3), Opinion::Up))).into()
        );
        // One fails, and is looked at sooner than the others.
        let mut hastened = Rounds::new(7);
        hastened.follow(START, &[(observed(1), target(1, 3))].into());
        let failing = hastened.start(START, ROOM)[0].ticket;
        assert!(!hastened.finished(START, failing, refused()));
        assert_eq!(hastened.next_start(), Some(START + Duration::from_millis(500)));
        rounds.follow(START, &wanted);
        assert_eq!(rounds.sees().len(), 3, "nothing changed");
    }

    #[test]
    fn what_there_is_no_room_for_stays_due_and_each_has_its_turn() {
        let mut rounds = Rounds::new(7);
        rounds.follow(START, &[1, 2, 3].map(|last| (observed(last), target(last, 3))).into());
        let mut started = vec![];
        for room in [0, 2, 0, 2] {
            started.extend(rounds.start(START, room).into_iter().map(|start| start.target));
        }
        assert_eq!(started, [1, 2, 3].map(|last| target(last, 3)));
        assert!(rounds.next_start() > Some(START));
    }

    #[test]
    fn an_answer_of_another_run_says_nothing() {
        let mut rounds = Rounds::new(7);
        let with = |fall| [(observed(1), target(1, fall))].into();
        rounds.follow(START, &with(1));
        let old = rounds.start(START, ROOM)[0].ticket;
        rounds.follow(START, &with(2));
        assert!(!rounds.finished(START, old, refused()));
        let new = rounds.start(START, ROOM)[0].ticket;
        assert!(!rounds.finished(START, new, refused()), "it needs two by now");
        rounds.follow(START, &[].into());
        assert_eq!((rounds.next_start(), rounds.sees().len()), (None, 0));
        assert!(!rounds.finished(START, new, refused()));
        rounds.follow(START, &with(1));
        let again = rounds.start(START, ROOM)[0].ticket;
        assert!(rounds.finished(START, again, refused()));
        let down = Opinion::Down("connection refused".into());
        assert_eq!(rounds.sees(), &[(observed(1), (target(1, 1), down))].into());
        rounds.follow(START, &[].into());
        assert!(rounds.sees().is_empty());
    }
}
