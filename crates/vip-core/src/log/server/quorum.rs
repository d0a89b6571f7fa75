//! Whether enough real servers of a virtual one are up, and where its clients go if not.

use super::{Real, Server, ServerEvent};
use crate::{AllDown, Policy, Quorum, RealServer};
use serde::{Deserialize, Serialize};
use std::fmt;

/// Where clients of a virtual server without a quorum go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Instead {
    /// To the sorry server.
    Sorry,
    /// To those that were served last.
    KeepLast,
    /// Nowhere.
    Drop,
}

/// The rest of a sentence.
impl fmt::Display for Instead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sorry => "clients get the sorry server",
            Self::KeepLast => "clients are sent to those that are up, or were last",
            Self::Drop => "what comes for it is dropped",
        })
    }
}

impl Server {
    /// Of those that take new connections: how many are up, how many may be, and how many
    /// there are.
    fn counts(&self) -> [usize; 3] {
        let takes = || self.reals.iter().filter(|real| real.weight() > 0);
        let unknown = |real: &&Real| self.spec.check.is_some() && real.health.is_up.is_none();
        let up = takes().filter(|real| self.is_well(real)).count();
        [up, up + takes().filter(unknown).count(), takes().count()]
    }

    /// Where clients go without a quorum.
    #[must_use]
    pub fn instead(&self) -> Instead {
        let takes = |real: &Real| self.serves(real) && real.weight() > 0;
        match (self.spec.policy.sorry, self.spec.policy.all_down) {
            (Some(_), _) => Instead::Sorry,
            (None, AllDown::KeepLast) if self.reals.iter().any(takes) => Instead::KeepLast,
            (None, AllDown::KeepLast | AllDown::Drop) => Instead::Drop,
        }
    }

    /// What becomes of new connections, where too few of its real servers take any.
    #[must_use]
    pub fn lacks(&self) -> Option<Instead> {
        match (self.is_short, self.up()) {
            (true, _) => Some(self.instead()),
            (false, 0) if self.dealt(&self.reals).iter().all(|real| real.weight == 0) => {
                Some(Instead::Drop)
            }
            (false, _) => None,
        }
    }

    /// Whether nobody has seen any of its real servers yet.
    #[must_use]
    pub fn is_unseen(&self) -> bool {
        let is_new = |real: &Real| real.health.is_up.is_none();
        self.spec.check.is_some() && !self.reals.is_empty() && self.reals.iter().all(is_new)
    }

    /// How many of its real servers are up and take new connections.
    #[must_use]
    pub fn up(&self) -> usize {
        self.counts()[0]
    }

    /// Looks whether enough are up, where these were served before. What there is to tell of
    /// it, if that changed. Of the usual policy nothing is kept: an earlier version has none,
    /// and with nobody up nobody is served in any case.
    pub(super) fn count_anew(&mut self, served: &[RealServer]) -> Option<ServerEvent> {
        if self.spec.policy.is_usual() {
            self.is_short = false;
            self.reals.iter_mut().for_each(|real| real.kept = false);
            return None;
        }
        let Quorum { up: needed, hysteresis } = self.spec.policy.quorum;
        let [up, may_be, all] = self.counts();
        self.keep(served, up);
        let was = self.is_short;
        self.is_short = if was {
            let enough = usize::from(needed) + usize::from(hysteresis);
            // With all that there are it is back, however many more were asked for.
            up < enough.min(all).max(usize::from(needed))
        } else {
            // What nobody has seen yet may be up.
            may_be < usize::from(needed)
        };
        if was == self.is_short {
            return None;
        }
        let server = self.spec.name.clone();
        let up = u32::try_from(up).unwrap_or(u32::MAX);
        Some(if self.is_short {
            ServerEvent::Down { server, up, needed, instead: self.instead() }
        } else {
            ServerEvent::Up { server, up }
        })
    }

    /// Remembers who was served when nobody is up any more, for as long as nobody is.
    fn keep(&mut self, served: &[RealServer], up: usize) {
        if up == 0 && self.reals.iter().any(|real| real.kept) {
            return;
        }
        let was_served = |place| served.iter().any(|one| one.place() == place);
        let place = |real: &Real| self.dealt_one(&real.spec, 1).place();
        let kept = |real: &Real| up == 0 && was_served(place(real));
        let kept: Vec<_> = self.reals.iter().map(kept).collect();
        for (real, kept) in self.reals.iter_mut().zip(kept) {
            real.kept = kept;
        }
    }

    /// Whether one is up, as far as is known.
    pub(super) fn is_well(&self, real: &Real) -> bool {
        self.spec.check.is_none() || real.health.is_up == Some(true)
    }

    /// Whether one of its real servers is sent anything.
    #[must_use]
    pub fn serves(&self, real: &Real) -> bool {
        self.is_well(real) || (real.kept && self.keeps_last())
    }

    /// Whether its real servers get new connections. Those that are up keep what they have
    /// in any case.
    pub(super) fn takes_new(&self) -> bool {
        !self.is_short || self.keeps_last()
    }

    fn keeps_last(&self) -> bool {
        let Policy { sorry, all_down, .. } = &self.spec.policy;
        sorry.is_none() && *all_down == AllDown::KeepLast
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{apply, server, state_of, vip, voter};
    use crate::{
        Actor, CheckKind, Command, EventKind, Forwarding, NodeId, NodeOp, Observed, Op, Opinion,
        Outcome, ServerOp, ServerSpec, ServerUid, State, VipOp,
    };
    use std::collections::BTreeMap;

    fn with(policy: Policy) -> State {
        let mut state = state_of([voter(1)]);
        apply(&mut state, VipOp::Add { spec: vip("web", 100) });
        let reals = ["10.0.0.11", "10.0.0.12", "10.0.0.13"];
        let spec = ServerSpec { check: Some(CheckKind::Tcp.into()), policy, ..server(&reals) };
        assert_eq!(at(&mut state, ServerOp::Add { spec }), Outcome::Done);
        state
    }

    fn at(state: &mut State, op: impl Into<Op>) -> Outcome {
        let command =
            Command { time_ms: 1, actor: Actor("test".into()), term: None, op: op.into() };
        state.apply(1, &command)
    }

    /// The last parts of who gets new connections.
    fn served(state: &State) -> Vec<u8> {
        let server = state.server(ServerUid(1)).expect("there");
        let forwarding = Forwarding::of(state, server, &BTreeMap::new()).expect("something");
        let last = |ip: std::net::IpAddr| match ip {
            std::net::IpAddr::V4(ip) => ip.octets()[3],
            std::net::IpAddr::V6(_) => panic!("v4"),
        };
        let takes = forwarding.plan.reals().iter().filter(|real| real.weight > 0);
        takes.map(|real| last(real.ip)).collect()
    }

    fn sees(state: &mut State, last: u8, up: bool) {
        let observed = Observed { server: ServerUid(1), ip: [10, 0, 0, last].into(), port: 80 };
        let opinion = if up { Opinion::Up } else { Opinion::Down("refused".into()) };
        let seen = vec![(observed, Some(opinion))];
        assert_eq!(at(state, ServerOp::Observe { node: NodeId(1), seen }), Outcome::Done);
    }

    fn told(state: &State) -> Vec<String> {
        let events = state.events.after(0).into_iter().filter_map(|event| match &event.what {
            EventKind::Server(ServerEvent::Down { up, needed, instead, .. }) => {
                Some(format!("{up} of {needed}: {instead:?}"))
            }
            EventKind::Server(ServerEvent::Up { up, .. }) => Some(format!("{up}")),
            _ => None,
        });
        events.collect()
    }

    const NOBODY: [u8; 0] = [];
    const TWO: Quorum = Quorum { up: 2, hysteresis: 1 };

    #[test]
    fn with_too_few_up_it_counts_as_down_and_comes_back_with_some_more() {
        let mut state = with(Policy { quorum: TWO, ..Policy::default() });
        sees(&mut state, 11, true);
        assert_eq!(served(&state), [11], "the others may be up");
        sees(&mut state, 12, false);
        sees(&mut state, 13, true);
        assert_eq!(served(&state), [11, 13]);
        sees(&mut state, 13, false);
        assert_eq!(served(&state), NOBODY, "one is too few");
        let keeps = state.server(ServerUid(1)).expect("there").plan().expect("a plan");
        assert_eq!(keeps.reals().len(), 1, "it keeps the connections that it has");
        sees(&mut state, 13, true);
        assert_eq!(served(&state), NOBODY, "it needs one more to come back");
        sees(&mut state, 12, true);
        assert_eq!(served(&state), [11, 12, 13]);
        assert_eq!(told(&state), ["1 of 2: Drop", "3"]);
    }

    /// A real server that is taken away could never come back.
    #[test]
    fn it_is_back_with_all_that_there_are() {
        let mut state = with(Policy { quorum: TWO, ..Policy::default() });
        for (last, up) in [(11, true), (12, true), (13, false), (12, false), (12, true)] {
            sees(&mut state, last, up);
        }
        assert_eq!(served(&state), NOBODY);
        let place = "10.0.0.13".parse::<crate::RealSpec>().expect("one");
        let place = crate::RealPlace { ip: place.ip, port: None };
        let server = "front".parse().expect("a name");
        assert_eq!(at(&mut state, ServerOp::RemoveReal { server, place }), Outcome::Done);
        assert_eq!(served(&state), [11, 12]);
    }

    #[test]
    fn the_sorry_server_takes_everybody_while_there_is_no_quorum() {
        let sorry = Some("10.0.0.99".parse().expect("one"));
        let mut state = with(Policy { sorry, ..Policy::default() });
        assert_eq!(served(&state), NOBODY, "nobody knows yet");
        for last in [11, 12, 13] {
            sees(&mut state, last, false);
        }
        assert_eq!(served(&state), [99]);
        // Its connections outlive that: it stays in the table, for no new ones.
        sees(&mut state, 12, true);
        let has = state.server(ServerUid(1)).expect("there").plan().expect("a plan");
        assert_eq!(has.reals().len(), 2);
        assert_eq!(served(&state), [12]);
        assert_eq!(told(&state), ["0 of 1: Sorry", "1"]);
    }

    #[test]
    fn who_was_served_last_is_kept_where_that_is_wanted() {
        let policy = Policy { all_down: AllDown::KeepLast, ..Policy::default() };
        let mut state = with(policy);
        for (last, up) in [(11, true), (12, true), (13, false)] {
            sees(&mut state, last, up);
        }
        assert_eq!(served(&state), [11, 12]);
        sees(&mut state, 11, false);
        assert_eq!(served(&state), [12]);
        sees(&mut state, 12, false);
        assert_eq!(served(&state), [12], "the last one");
        let spec = state.server(ServerUid(1)).expect("there").spec.clone();
        let reals = ["10.0.0.12", "10.0.0.13"].map(|real| real.parse().expect("one"));
        let spec = ServerSpec { reals: reals.into(), ..spec };
        assert_eq!(at(&mut state, ServerOp::Set { spec, seen: 0 }), Outcome::Done);
        assert_eq!(served(&state), [12], "and it stays so");
        sees(&mut state, 13, true);
        assert_eq!(served(&state), [13]);
        assert_eq!(told(&state), ["0 of 1: KeepLast", "1"]);
    }

    #[test]
    fn some_that_are_up_are_better_than_who_was_served_last() {
        let policy = Policy { quorum: TWO, all_down: AllDown::KeepLast, ..Policy::default() };
        let mut state = with(policy);
        for (last, up) in [(11, true), (12, true), (13, false), (12, false)] {
            sees(&mut state, last, up);
        }
        assert_eq!(served(&state), [11]);
        sees(&mut state, 11, false);
        assert_eq!(served(&state), [11], "the last one");
    }

    #[test]
    fn a_sorry_server_that_cannot_be_is_refused() {
        let add = |sorry: &str| {
            let mut state = state_of([voter(1)]);
            apply(&mut state, VipOp::Add { spec: vip("web", 100) });
            let sorry = Some(sorry.parse().expect("one"));
            let policy = Policy { sorry, ..Policy::default() };
            let spec = ServerSpec { policy, ..server(&["10.0.0.11", "10.0.0.12"]) };
            at(&mut state, ServerOp::Add { spec })
        };
        for bad in ["10.0.0.11", "fd00::1", "10.0.0.100", "10.0.0.99@0"] {
            assert!(matches!(add(bad), Outcome::Refused(_)), "{bad}: {:?}", add(bad));
        }
        assert_eq!(add("10.0.0.99"), Outcome::Done);
    }

    /// Whoever is in a table twice is in none: nothing would be forwarded.
    #[test]
    fn a_member_that_is_the_sorry_server_too_is_in_the_table_once() {
        let mut state = state_of([voter(1), voter(2)]);
        apply(&mut state, VipOp::Add { spec: vip("web", 100) });
        let sorry = Some("10.0.0.2".parse().expect("one"));
        let policy = Policy { sorry, quorum: TWO, ..Policy::default() };
        let spec = ServerSpec { policy, reals: vec![], real_nodes: Some(80), ..server(&[]) };
        assert_eq!(at(&mut state, ServerOp::Add { spec }), Outcome::Done);
        let drained = NodeOp::Drain { node: NodeId(1), drained: true };
        assert_eq!(at(&mut state, drained), Outcome::Done);
        assert!(state.server(ServerUid(1)).expect("there").is_short);
        assert_eq!(served(&state), [2], "however it counts");
        let other = Some("fd00::2".parse().expect("one"));
        let policy = Policy { sorry: other, ..Policy::default() };
        let spec = ServerSpec {
            name: "six".parse().expect("a name"),
            policy,
            reals: vec![],
            ports: 81.into(),
            real_nodes: Some(81),
            ..server(&[])
        };
        assert!(matches!(at(&mut state, ServerOp::Add { spec }), Outcome::Refused(_)));
    }

    /// An earlier version could not read what it would be told.
    #[test]
    fn of_the_usual_policy_the_log_keeps_nothing() {
        let mut state = with(Policy::default());
        for last in [11, 12, 13] {
            sees(&mut state, last, true);
        }
        for last in [11, 12, 13] {
            sees(&mut state, last, false);
        }
        assert_eq!((served(&state), told(&state)), (vec![], vec![]));
        let server = state.server(ServerUid(1)).expect("there");
        assert!(!server.is_short && server.reals.iter().all(|real| !real.kept), "{server:?}");
    }
}
