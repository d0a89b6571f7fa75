//! Whoever comes back, or is new beside others, gets its share of new connections in steps:
//! its caches are cold, and so many clients at once would bring it down again.

use super::{Real, Server, ServerOp};
use crate::log::State;
use crate::{Observed, Outcome};
use std::collections::BTreeMap;
use std::time::Duration;

/// Steps to a whole share.
pub(super) const SHARES: u8 = 4;

impl Server {
    /// How long it takes until a whole share; none: at once.
    fn slow_start(&self) -> Duration {
        self.spec.check.as_ref().map_or(Duration::ZERO, |check| check.slow_start)
    }

    /// With what a real server begins that is up from now on.
    pub(super) fn first_share(&self, now_ms: u64) -> u8 {
        // At first all of them are new.
        u8::from(!self.slow_start().is_zero() && !self.is_new(now_ms))
    }

    /// How much of its share it has, per cent; `None`: all of it.
    #[must_use]
    pub fn share_percent(&self, real: &Real) -> Option<u32> {
        let slowly = !self.slow_start().is_zero() && real.rising > 0;
        slowly.then(|| u32::from(real.rising) * 100 / u32::from(SHARES))
    }

    /// Its weight in a table.
    pub(super) fn share(&self, real: &Real) -> u16 {
        if self.slow_start().is_zero() {
            return real.weight();
        }
        let has = if real.rising == 0 { SHARES } else { real.rising };
        real.weight() * u16::from(has)
    }
}

impl State {
    /// Those that are to have more, once it has been so for as long.
    #[must_use]
    pub fn rising(&self) -> Vec<((Observed, u8), Duration)> {
        let slow = self.all_servers().filter(|server| !server.slow_start().is_zero());
        let all = slow.flat_map(|server| server.reals.iter().map(move |real| (server, real)));
        let rising = all.filter(|(_, real)| real.rising > 0);
        let step = |(server, real): (&Server, &Real)| {
            let takes = server.slow_start() / u32::from(SHARES);
            ((server.observed(&real.spec), real.rising), takes)
        };
        rising.map(step).take(super::health::MOST_AT_ONCE).collect()
    }

    pub(super) fn raise(&mut self, actor: &str, reals: &[(Observed, u8)]) -> Outcome {
        let mut changed = BTreeMap::new();
        for (observed, seen) in reals {
            let known = self.server(observed.server);
            let is_it = |server: &&Server| {
                let mut reals = server.reals.iter();
                reals.any(|real| server.observed(&real.spec) == *observed && real.rising == *seen)
            };
            if *seen == 0 || !known.as_ref().is_some_and(is_it) {
                continue;
            }
            if let Some((_, real)) = self.to_change(&mut changed, *observed) {
                real.rising = (seen + 1) % SHARES;
            }
        }
        let outcome = if changed.is_empty() { Outcome::Unchanged } else { Outcome::Done };
        for (uid, raised) in changed {
            let Some(known) = self.server(uid) else { continue };
            let mut server = known.clone();
            let short = server.deal_anew(known.dealt(&known.reals), raised.reals, self.time_ms);
            self.put_server(server);
            self.record_all(actor, short);
        }
        outcome
    }
}

impl From<Vec<(Observed, u8)>> for ServerOp {
    fn from(reals: Vec<(Observed, u8)>) -> Self {
        Self::Raise { reals }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{apply, server, state_of, vip, voter};
    use crate::{CheckKind, CheckSpec, NodeId, Opinion, ServerSpec, ServerUid, VipOp};

    const ONE: ServerUid = ServerUid(1);

    fn observed(last: u8) -> Observed {
        Observed { server: ONE, ip: [10, 0, 0, last].into(), port: 80 }
    }

    fn sees(state: &mut State, last: u8, up: bool) {
        let opinion = if up { Opinion::Up } else { Opinion::Down("no".into()) };
        let seen = vec![(observed(last), Some(opinion))];
        apply(state, ServerOp::Observe { node: NodeId(1), seen });
    }

    fn weights(state: &State) -> Vec<u16> {
        let server = state.server(ONE).expect("there");
        server.dealt(&server.reals).iter().map(|real| real.weight).collect()
    }

    fn slow(slow_start: Duration) -> State {
        let mut state = state_of([voter(1)]);
        apply(&mut state, VipOp::Add { spec: vip("web", 100) });
        let check = Some(CheckSpec { slow_start, ..CheckKind::Tcp.into() });
        let reals = server(&["10.0.0.11", "10.0.0.12@2"]);
        apply(&mut state, ServerOp::Add { spec: ServerSpec { check, ..reals } });
        for last in [11, 12] {
            sees(&mut state, last, true);
        }
        state
    }

    #[test]
    fn one_that_is_back_has_its_share_in_steps() {
        let mut state = slow(Duration::from_secs(40));
        assert_eq!((weights(&state), state.rising()), (vec![4, 8], vec![]), "they all are new");
        // When first answers are over.
        state.time_ms += 600_000;
        sees(&mut state, 12, false);
        sees(&mut state, 12, true);
        for (has, weight) in [(1, 2), (2, 4), (3, 6)] {
            assert_eq!(weights(&state), [4, weight]);
            let step = (observed(12), has);
            assert_eq!(state.rising(), [(step, Duration::from_secs(10))]);
            let stale = ServerOp::Raise { reals: vec![(observed(12), has - 1), (observed(11), 0)] };
            apply(&mut state, stale);
            assert_eq!(state.rising(), [(step, Duration::from_secs(10))], "of another time");
            apply(&mut state, ServerOp::from(vec![step]));
        }
        assert_eq!((weights(&state), state.rising()), (vec![4, 8], vec![]));
        // Whoever goes on the way begins anew.
        sees(&mut state, 11, false);
        sees(&mut state, 11, true);
        let step = (observed(11), 1);
        apply(&mut state, ServerOp::from(vec![step]));
        sees(&mut state, 11, false);
        sees(&mut state, 11, true);
        assert_eq!(weights(&state), [1, 8]);
    }

    #[test]
    fn without_it_nothing_of_it_is_in_the_log() {
        let mut state = slow(Duration::ZERO);
        state.time_ms += 600_000;
        sees(&mut state, 12, false);
        sees(&mut state, 12, true);
        assert_eq!((weights(&state), state.rising()), (vec![1, 2], vec![]));
        let text = serde_json::to_string(state.server(ONE).expect("there")).expect("written");
        assert!(!text.contains("rising") && !text.contains("slow"), "{text}");
    }
}
