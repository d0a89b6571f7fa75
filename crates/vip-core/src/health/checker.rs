//! One observer's view of one real server: when it is probed, and what the answers say.
//!
//! ```text
//!  all well      a probe each interval
//!  one failed    a probe each gap, also while the one before has no answer yet
//!  down, up      after `fall` failures, or `rise` successes, in a row
//! ```
//!
//! So a server that refuses is down after an interval and `fall - 1` gaps, and one that hangs
//! after two timeouts more: the first, which tells that something is wrong, and the last of
//! those that overlap.

use super::verdict::Opinion;
use crate::mix::mix_all;
use crate::{CheckTiming, Mono};
use std::time::Duration;

/// An interval is shortened by a part of it, the largest this one: else what was added
/// together is probed together for good.
const JITTER: u32 = 10;
/// An observer that saw something looks for so many intervals again before it says that it
/// cannot.
const ROUNDS: u32 = 2;

/// Why a probe has not succeeded: the rest of a sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The server is not well.
    There(String),
    /// This host could not probe it, which says nothing of the server.
    Here(String),
}

/// Counts the probes of one checker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ProbeNumber(u64);

/// See the module.
#[derive(Clone, Debug)]
pub struct Checker {
    timing: CheckTiming,
    /// Keeps the probes of different servers apart.
    seed: u64,
    /// What it was called last; `None`: nothing yet.
    is_up: Option<bool>,
    /// The last answer that counted, and how many like it in a row.
    streak: Option<(bool, u8)>,
    started: u64,
    /// Until then it is not called down who was never up.
    grace_ends: Mono,
    /// Answers to earlier ones say nothing any more.
    counted: u64,
    last_start: Option<Mono>,
    next_start: Mono,
    /// Since when this host cannot look, and whether that was said.
    unable: Option<(Mono, bool)>,
}

impl Checker {
    /// Of a server that is probed at once.
    #[must_use]
    pub fn new(now: Mono, timing: CheckTiming, seed: u64) -> Self {
        Self {
            timing,
            seed,
            is_up: None,
            streak: None,
            started: 0,
            grace_ends: now + timing.grace,
            counted: 0,
            last_start: None,
            next_start: now,
            unable: None,
        }
    }

    /// When the next probe is to start.
    #[must_use]
    pub const fn next_start(&self) -> Mono {
        self.next_start
    }

    /// What it was called last.
    #[must_use]
    pub const fn is_up(&self) -> Option<bool> {
        self.is_up
    }

    /// It is to be probed sooner: somebody saw something. No more often than after a failure,
    /// whoever asks.
    pub fn hasten(&mut self, now: Mono) {
        let soonest = self.last_start.map_or(now, |start| now.max(start + self.timing.gap()));
        self.next_start = self.next_start.min(soonest);
    }

    /// The probe to start now, if one is due. What was missed is not made up for.
    pub fn start(&mut self, now: Mono) -> Option<ProbeNumber> {
        if now < self.next_start {
            return None;
        }
        self.started += 1;
        self.last_start = Some(now);
        self.next_start = now + self.pause();
        Some(ProbeNumber(self.started))
    }

    fn is_failing(&self) -> bool {
        self.is_up != Some(false) && self.streak.is_some_and(|(well, _)| !well)
    }

    fn pause(&self) -> Duration {
        if self.is_failing() {
            return self.timing.gap();
        }
        let most = u64::try_from((self.timing.interval / JITTER).as_nanos()).unwrap_or(u64::MAX);
        let shorter = mix_all(self.seed, [self.started]) % most.max(1);
        self.timing.interval - Duration::from_nanos(shorter)
    }

    /// A probe has its answer, or had no more time for it.
    pub fn finished(
        &mut self,
        now: Mono,
        probe: ProbeNumber,
        answer: Result<(), Failure>,
    ) -> Option<Opinion> {
        if probe.0 <= self.counted {
            return None;
        }
        self.counted = probe.0;
        let answer = match answer {
            Ok(()) => Ok(()),
            Err(Failure::There(why)) => Err(why),
            Err(Failure::Here(why)) => return self.could_not(now, why),
        };
        self.unable = None;
        let well = answer.is_ok();
        let was_failing = self.is_failing();
        let in_a_row = match self.streak {
            Some((same, count)) if same == well => count.saturating_add(1),
            _ => 1,
        };
        self.streak = Some((well, in_a_row));
        if self.is_failing() && !was_failing {
            // Now that something is wrong, the interval is too long.
            let sooner = self.last_start.map(|start| start + self.timing.gap());
            self.next_start = sooner.map_or(self.next_start, |at| at.min(self.next_start));
        }
        let needed = if well { self.timing.rise } else { self.timing.fall };
        let is_spared = !well && self.is_up.is_none() && now < self.grace_ends;
        if self.is_up == Some(well) || in_a_row < needed || is_spared {
            return None;
        }
        self.is_up = Some(well);
        Some(answer.map_or_else(Opinion::Down, |()| Opinion::Up))
    }

    /// Who has seen nothing yet says so at once.
    fn could_not(&mut self, now: Mono, why: String) -> Option<Opinion> {
        let (since, is_said) = self.unable.get_or_insert((now, false));
        let is_long = now.since(*since) >= self.timing.interval * ROUNDS;
        if *is_said || (self.is_up.is_some() && !is_long) {
            return None;
        }
        *is_said = true;
        (self.is_up, self.streak) = (None, None);
        Some(Opinion::Unable(why))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    const START: Mono = Mono(1_000_000_000);

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    fn at_once(checker: &mut Checker, now: Mono) {
        checker.next_start = checker.next_start.min(now);
    }

    fn refused() -> Result<(), Failure> {
        Err(Failure::There("connection refused".into()))
    }

    /// A server that dies at a time, and from then on refuses, or hangs. When it is called
    /// down.
    fn called_down(timing: CheckTiming, seed: u64, dies_after: Duration, hangs: bool) -> Duration {
        let mut checker = Checker::new(START, timing, seed);
        let dies = START + dies_after;
        let mut answers: BTreeMap<(Mono, ProbeNumber), bool> = BTreeMap::new();
        loop {
            let next = answers.keys().next().map_or(checker.next_start(), |(at, _)| *at);
            let now = next.min(checker.next_start());
            if let Some(((at, probe), well)) = answers.pop_first() {
                if at <= now {
                    let answer = if well { Ok(()) } else { refused() };
                    match checker.finished(now, probe, answer) {
                        Some(Opinion::Down(_)) => return at.since(dies),
                        Some(_) | None => continue,
                    }
                }
                answers.insert((at, probe), well);
            }
            if let Some(probe) = checker.start(now) {
                let well = now < dies;
                let takes = if hangs && !well { timing.timeout } else { Duration::ZERO };
                answers.insert((now + takes, probe), well);
            }
        }
    }

    #[test]
    fn a_server_is_up_with_the_first_answer_and_down_after_three_failures() {
        let mut checker = Checker::new(START, CheckTiming::default(), 7);
        let first = checker.start(START).expect("at once");
        assert_eq!((checker.start(START), checker.is_up()), (None, None));
        assert_eq!(checker.finished(START, first, Ok(())), Some(Opinion::Up));
        let mut edges = vec![];
        for _ in 0..3 {
            let at = checker.next_start();
            let probe = checker.start(at).expect("due");
            edges.push(checker.finished(START, probe, refused()));
        }
        assert_eq!(edges, [None, None, Some(Opinion::Down("connection refused".into()))]);
        let probe = checker.start(checker.next_start()).expect("due");
        assert_eq!(checker.finished(START, probe, refused()), None, "it is known");
        let probe = checker.start(checker.next_start()).expect("due");
        assert_eq!(checker.finished(START, probe, Ok(())), Some(Opinion::Up));
    }

    #[test]
    fn after_a_failure_probes_come_faster_until_it_is_known() {
        let timing = CheckTiming::default();
        let mut checker = Checker::new(START, timing, 7);
        let probe = checker.start(START).expect("at once");
        checker.finished(START, probe, Ok(()));
        let usual = checker.next_start().since(START);
        assert!(usual <= ms(2000) && usual > ms(1800), "{usual:?}");
        let at = checker.next_start();
        let probe = checker.start(at).expect("due");
        checker.finished(START, probe, refused());
        assert_eq!(checker.next_start(), at + ms(500));
        // They overlap: nobody waits for the answer of the one before.
        let (one, two) = (checker.start(at + ms(500)), checker.start(at + ms(1000)));
        let (one, two) = (one.expect("due"), two.expect("due"));
        assert_eq!(checker.finished(START, one, refused()), None);
        assert!(matches!(checker.finished(START, two, refused()), Some(Opinion::Down(_))));
        let probe = checker.start(checker.next_start()).expect("due");
        checker.finished(START, probe, refused());
        assert!(checker.next_start() > at + ms(2800), "down, it is probed as before");
    }

    /// Strangers may have it hastened for good.
    #[test]
    fn whoever_hastens_it_has_it_probed_no_more_often_than_after_a_failure() {
        let timing = CheckTiming::default();
        let mut checker = Checker::new(START, timing, 7);
        let mut starts = vec![];
        for after in 0..6000 {
            let now = START + ms(after);
            checker.hasten(now);
            if let Some(probe) = checker.start(now) {
                starts.push(after);
                checker.finished(now, probe, Ok(()));
            }
        }
        let every: Vec<_> = (0..12).map(|number| number * 500).collect();
        assert_eq!(starts, every);
        checker.hasten(START + ms(5600));
        assert_eq!(checker.next_start(), START + ms(6000), "it is due, and no later than it was");
    }

    /// A hang that ends as a success says nothing of what came after it.
    #[test]
    fn an_answer_that_was_overtaken_says_nothing() {
        let mut checker = Checker::new(START, CheckTiming { fall: 2, ..CheckTiming::default() }, 7);
        let [one, two, three] = [0, 1, 2].map(|_| {
            at_once(&mut checker, START);
            checker.start(START).expect("hastened")
        });
        assert_eq!(checker.finished(START, two, refused()), None);
        assert_eq!(checker.finished(START, one, Ok(())), None);
        assert!(matches!(checker.finished(START, three, refused()), Some(Opinion::Down(_))));
    }

    #[test]
    fn who_cannot_look_says_so_and_what_it_saw_before_counts_for_two_rounds() {
        let here = || Err(Failure::Here("this host lets nobody ping".into()));
        let unable = Some(Opinion::Unable("this host lets nobody ping".into()));
        let mut checker = Checker::new(START, CheckTiming::default(), 7);
        let at = |checker: &mut Checker, ms_later, answer| {
            at_once(checker, START + ms(ms_later));
            let probe = checker.start(START + ms(ms_later)).expect("hastened");
            checker.finished(START + ms(ms_later), probe, answer)
        };
        assert_eq!(at(&mut checker, 0, here()), unable, "there is nothing to keep");
        assert_eq!(at(&mut checker, 5000, here()), None, "that is known");
        assert_eq!(at(&mut checker, 6000, Ok(())), Some(Opinion::Up));
        assert_eq!(at(&mut checker, 7000, here()), None);
        assert_eq!(at(&mut checker, 8000, Ok(())), None, "it is as it was");
        assert_eq!(at(&mut checker, 9000, here()), None);
        assert_eq!(at(&mut checker, 12_999, here()), None);
        assert_eq!(at(&mut checker, 13_000, here()), unable);
        assert_eq!(at(&mut checker, 14_000, Ok(())), Some(Opinion::Up));
    }

    proptest! {
        /// What the README promises, whenever it dies.
        #[test]
        fn a_server_that_dies_is_called_down_within_the_bound(
            interval in 100..10_000_u64,
            share in 1..=10_u64,
            fall in 1..10_u8,
            seed in any::<u64>(),
            dies_after in 1..60_000_u64,
            hangs in any::<bool>(),
        ) {
            let timeout = ms((interval * share / 10).max(1));
            let timing = CheckTiming { interval: ms(interval), timeout, rise: 1, fall, ..CheckTiming::default() };
            prop_assert_eq!(timing.check(), Ok(()));
            let after = called_down(timing, seed, ms(dies_after), hangs);
            prop_assert!(after <= timing.noticed_after(hangs), "{after:?}");
        }
    }

    /// Who starts slowly is not called down before it had its time, and up at once.
    #[test]
    fn who_was_never_up_is_spared_for_its_grace() {
        let timing = CheckTiming { grace: ms(10_000), ..CheckTiming::default() };
        let mut checker = Checker::new(START, timing, 7);
        let mut ask = |after, answer| {
            let now = START + ms(after);
            at_once(&mut checker, now);
            let probe = checker.start(now).expect("due");
            checker.finished(now, probe, answer)
        };
        for after in [0, 500, 1000, 9999] {
            assert_eq!(ask(after, refused()), None);
        }
        assert!(matches!(ask(10_000, refused()), Some(Opinion::Down(_))));
        assert_eq!(ask(10_100, Ok(())), Some(Opinion::Up));
        // Once it was up it has none.
        for after in [10_200, 10_300] {
            assert_eq!(ask(after, refused()), None);
        }
        assert!(matches!(ask(10_400, refused()), Some(Opinion::Down(_))));
        let mut checker = Checker::new(START, timing, 7);
        let probe = checker.start(START).expect("due");
        assert_eq!(checker.finished(START, probe, Ok(())), Some(Opinion::Up));
    }
}
