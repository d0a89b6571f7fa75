//! Timing profiles and the arithmetic that makes them safe.
//!
//! | | P | L | eps | G | W | heartbeat | stagger | openraft: heartbeat, min/max |
//! |---|---|---|---|---|---|---|---|---|
//! | `lan`  | 200 | 190 | 5 | 320 | 326 | 40 | 15 | 120, 150/195 |
//! | `fast` | 60 | 56 | 2 | 120 | 124 | 10 | 5 | 30, 35/58 |
//! | `wan`  | 2000 | 1900 | 20 | 3500 | 3530 | 250 | 50 | 750, 1500/1950 |
//!
//! With rho = 1e-3, in ms:
//!
//! - C1, no new leader while an old one may still answer:
//!   `L/(1-rho) + eps <= P/(1+rho)`.
//!   lan: 190.19 + 5 = 195.19 <= 199.80. fast: 56.06 + 2 = 58.06 <= 59.94.
//!   wan: 1901.90 + 20 = 1921.90 <= 1998.00.
//! - C2, no new grant while an old one may still be in use:
//!   `W >= (1+rho)(G/(1-rho) + eps)`.
//!   lan: 325.65 <= 326. fast: 122.25 <= 124. wan: 3527.03 <= 3530.
//! - A holder apart from the leader lives through an election:
//!   `G >= heartbeat + P + 3 stagger + election`, with 30 ms (lan), 30 ms
//!   (fast), 500 ms (wan) left for the election: lan 320 >= 315, fast
//!   120 >= 115, wan 3500 >= 2900.
//! - openraft's own lease stays out of the way: `max < P`. Elections are begun
//!   by the detector alone, and lease messages say who lives, so openraft's
//!   heartbeats need not be as frequent: they are a second sign of life, and
//!   openraft's clock ticks five times for each.

use crate::words::words;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Largest rate error of a clock that the safety argument allows (rho).
pub const MAX_CLOCK_DRIFT: f64 = 1e-3;

/// A named set of timings. Replicated, because C1 and C2 bind nodes together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Profile {
    /// Any LAN or one zone of a cloud.
    #[default]
    Lan,
    /// A dedicated LAN of machines with CPU to spare.
    Fast,
    /// Regions.
    Wan,
}

/// The timings of a profile. Field names follow the design's letters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timing {
    /// P: for how long a voter promises a leader to vote for nobody else.
    pub promise: Duration,
    /// L: for how long after the send time of an acknowledged lease message
    /// the leader counts on the promise.
    pub lease: Duration,
    /// eps: the longest time a packet takes from the gate to the wire.
    pub gate_to_wire: Duration,
    /// G: for how long after the send time of its request a holder apart from
    /// the leader may answer.
    pub grant: Duration,
    /// W: for how long a leader waits after the last grant of an epoch whose
    /// release nobody confirmed.
    pub wait: Duration,
    /// Interval of lease messages and of a holder's renewals.
    pub heartbeat: Duration,
    /// Interval of openraft's heartbeats.
    pub raft_heartbeat: Duration,
    /// openraft's election timer, which is switched off. It must be longer than
    /// `raft_heartbeat`.
    pub election_min: Duration,
    /// For how long openraft's own lease has a voter refuse candidates.
    pub election_max: Duration,
    /// Time between candidates of neighbouring rank.
    pub stagger: Duration,
    /// Time left for an election in the bound of G.
    pub election: Duration,
}

/// A timing that would let a VIP answer twice, or never settle.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum TimingError {
    /// C1 does not hold.
    #[error(
        "C1 fails: L/(1-rho) + eps = {left_ms:.2} ms is more than P/(1+rho) = {right_ms:.2} ms"
    )]
    LeaseOutlivesPromise {
        /// Left side, ms.
        left_ms: f64,
        /// Right side, ms.
        right_ms: f64,
    },
    /// C2 does not hold.
    #[error(
        "C2 fails: W = {wait_ms:.2} ms is less than (1+rho)(G/(1-rho) + eps) = {needed_ms:.2} ms"
    )]
    WaitTooShort {
        /// W, ms.
        wait_ms: f64,
        /// What it would have to be, ms.
        needed_ms: f64,
    },
    /// A remote holder would fall silent at each change of leader.
    #[error("G = {grant_ms} ms is less than heartbeat + P + 3 stagger + election = {needed_ms} ms")]
    GrantTooShort {
        /// G, ms.
        grant_ms: u128,
        /// What it would have to be, ms.
        needed_ms: u128,
    },
    /// openraft would refuse votes after the promise to the old leader ended.
    #[error("openraft's own lease ({max_ms} ms) is not below P ({promise_ms} ms)")]
    LongerOwnLease {
        /// The lease, ms.
        max_ms: u128,
        /// P, ms.
        promise_ms: u128,
    },
}

impl Profile {
    /// Its timings, as in the table above.
    #[must_use]
    pub const fn timing(self) -> Timing {
        const fn ms(n: u64) -> Duration {
            Duration::from_millis(n)
        }
        match self {
            Self::Lan => Timing {
                promise: ms(200),
                lease: ms(190),
                gate_to_wire: ms(5),
                grant: ms(320),
                wait: ms(326),
                heartbeat: ms(40),
                raft_heartbeat: ms(120),
                election_min: ms(150),
                election_max: ms(195),
                stagger: ms(15),
                election: ms(30),
            },
            Self::Fast => Timing {
                promise: ms(60),
                lease: ms(56),
                gate_to_wire: ms(2),
                grant: ms(120),
                wait: ms(124),
                heartbeat: ms(10),
                raft_heartbeat: ms(30),
                election_min: ms(35),
                election_max: ms(58),
                stagger: ms(5),
                election: ms(30),
            },
            Self::Wan => Timing {
                promise: ms(2000),
                lease: ms(1900),
                gate_to_wire: ms(20),
                grant: ms(3500),
                wait: ms(3530),
                heartbeat: ms(250),
                raft_heartbeat: ms(750),
                election_min: ms(1500),
                election_max: ms(1950),
                stagger: ms(50),
                election: ms(500),
            },
        }
    }
}

words!(Profile, "profile" { Lan => "lan", Fast => "fast", Wan => "wan" });

impl Timing {
    /// Checks C1, C2 and the bounds of G and openraft's timers.
    ///
    /// # Errors
    /// The first rule that does not hold, with both sides of it.
    pub fn check(&self) -> Result<(), TimingError> {
        let ms = |d: Duration| d.as_secs_f64() * 1e3;
        let (slow, fast) = (1.0 - MAX_CLOCK_DRIFT, 1.0 + MAX_CLOCK_DRIFT);

        let left_ms = ms(self.lease) / slow + ms(self.gate_to_wire);
        let right_ms = ms(self.promise) / fast;
        if left_ms > right_ms {
            return Err(TimingError::LeaseOutlivesPromise { left_ms, right_ms });
        }
        let wait_ms = ms(self.wait);
        let needed_ms = fast * (ms(self.grant) / slow + ms(self.gate_to_wire));
        if wait_ms < needed_ms {
            return Err(TimingError::WaitTooShort { wait_ms, needed_ms });
        }
        let needed = self.heartbeat + self.promise + 3 * self.stagger + self.election;
        if self.grant < needed {
            return Err(TimingError::GrantTooShort {
                grant_ms: self.grant.as_millis(),
                needed_ms: needed.as_millis(),
            });
        }
        if self.election_max >= self.promise {
            return Err(TimingError::LongerOwnLease {
                max_ms: self.election_max.as_millis(),
                promise_ms: self.promise.as_millis(),
            });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_profile_keeps_c1_and_c2() {
        for profile in [Profile::Lan, Profile::Fast, Profile::Wan] {
            assert_eq!(profile.timing().check(), Ok(()), "{profile}");
        }
    }

    #[test]
    fn a_profile_is_written_as_it_is_read() {
        for (text, profile) in
            [("lan", Profile::Lan), ("fast", Profile::Fast), ("wan", Profile::Wan)]
        {
            assert_eq!((profile.to_string().as_str(), text.parse()), (text, Ok(profile)));
        }
        assert!("LAN".parse::<Profile>().is_err());
    }

    /// Of round numbers, so that each rule has one at which it just holds: at the
    /// bound it does, a microsecond beyond it does not.
    #[test]
    fn each_rule_holds_up_to_its_bound_and_no_further() {
        const STEP: Duration = Duration::from_micros(1);
        let ms = Duration::from_millis;
        let holds = |timing: &Timing| timing.check().map_err(|e| std::mem::discriminant(&e));
        let broken = |error: TimingError| Err(std::mem::discriminant(&error));
        let rounded = |ms: f64| Duration::from_secs_f64((ms * 1e3).floor() / 1e6);
        let (slow, fast) = (1.0 - MAX_CLOCK_DRIFT, 1.0 + MAX_CLOCK_DRIFT);
        let timing = Timing { gate_to_wire: ms(7), wait: ms(400), ..Profile::Lan.timing() };

        // C1: L = (P / (1 + rho) - eps) (1 - rho).
        let lease = rounded((200.0 / fast - 7.0) * slow);
        let at = Timing { lease, ..timing };
        assert_eq!(holds(&at), Ok(()), "L = {lease:?}");
        let beyond = Timing { lease: lease + STEP, ..timing };
        let c1 = TimingError::LeaseOutlivesPromise { left_ms: 0.0, right_ms: 0.0 };
        assert_eq!(holds(&beyond), broken(c1));

        // C2: W = (1 + rho) (G / (1 - rho) + eps).
        let timing = at;
        let wait = rounded(fast * (320.0 / slow + 7.0)) + STEP;
        let at = Timing { wait, ..timing };
        assert_eq!(holds(&at), Ok(()), "W = {wait:?}");
        let beyond = Timing { wait: wait - STEP, ..timing };
        let c2 = TimingError::WaitTooShort { wait_ms: 0.0, needed_ms: 0.0 };
        assert_eq!(holds(&beyond), broken(c2));

        // G: a renewal, P, three candidates and an election.
        let timing = Timing { wait: ms(340), ..timing };
        let grant = ms(40 + 200 + 3 * 15 + 30);
        assert_eq!(holds(&Timing { grant, ..timing }), Ok(()));
        let beyond = Timing { grant: grant - STEP, ..timing };
        let g = TimingError::GrantTooShort { grant_ms: 0, needed_ms: 0 };
        assert_eq!(holds(&beyond), broken(g));

        // openraft's own lease ends before P.
        let at = Timing { election_max: timing.promise - STEP, ..timing };
        assert_eq!(holds(&at), Ok(()));
        let beyond = Timing { election_max: timing.promise, ..timing };
        let own = TimingError::LongerOwnLease { max_ms: 0, promise_ms: 0 };
        assert_eq!(holds(&beyond), broken(own));
    }

    /// Both sides of a rule at one number: it holds.
    #[test]
    fn what_is_just_enough_is_enough() {
        // 1 / (1 - rho) and 1 / (1 + rho) of these are binary fractions' neighbours:
        // found by trying, so that both sides come out as one number.
        let exact = (1..=4000_u64).filter_map(|lease| {
            let (slow, fast) = (1.0 - MAX_CLOCK_DRIFT, 1.0 + MAX_CLOCK_DRIFT);
            let lease = Duration::from_millis(lease);
            let left = lease.as_secs_f64() * 1e3 / slow;
            let promise = Duration::from_secs_f64(left * fast / 1e3);
            let right = promise.as_secs_f64() * 1e3 / fast;
            (left.to_bits() == right.to_bits()).then_some((lease, promise))
        });
        let base = Timing { gate_to_wire: Duration::ZERO, ..Profile::Wan.timing() };
        let mut tried = 0;
        for (lease, promise) in exact {
            tried += 1;
            let timing = Timing { lease, promise, ..base };
            let outlives = matches!(timing.check(), Err(TimingError::LeaseOutlivesPromise { .. }));
            assert!(!outlives, "L = {lease:?}, P = {promise:?}");
        }
        assert!(tried > 0);

        let exact = (1..=4000_u64).filter_map(|grant| {
            let (slow, fast) = (1.0 - MAX_CLOCK_DRIFT, 1.0 + MAX_CLOCK_DRIFT);
            let grant = Duration::from_millis(grant);
            let needed = fast * (grant.as_secs_f64() * 1e3 / slow);
            let wait = Duration::from_secs_f64(needed / 1e3);
            (needed.to_bits() == (wait.as_secs_f64() * 1e3).to_bits()).then_some((grant, wait))
        });
        let base = Timing { lease: Duration::ZERO, ..base };
        let mut tried = 0;
        for (grant, wait) in exact {
            tried += 1;
            let timing = Timing { grant, wait, ..base };
            let too_short = matches!(timing.check(), Err(TimingError::WaitTooShort { .. }));
            assert!(!too_short, "G = {grant:?}, W = {wait:?}");
        }
        assert!(tried > 0);
    }

    #[test]
    fn a_lease_longer_than_the_promise_is_refused() {
        let timing = Timing { lease: Duration::from_millis(199), ..Profile::Lan.timing() };
        let Err(TimingError::LeaseOutlivesPromise { left_ms, right_ms }) = timing.check() else {
            panic!("{timing:?}");
        };
        // In the unit that its name says.
        assert!(left_ms > 199.0 && right_ms < 200.0 && right_ms > 190.0);
    }

    #[test]
    fn a_wait_shorter_than_the_grant_is_refused() {
        let timing = Timing { wait: Duration::from_millis(321), ..Profile::Lan.timing() };
        assert!(matches!(timing.check(), Err(TimingError::WaitTooShort { .. })));
    }
}
