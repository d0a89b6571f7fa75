//! What a host's guard forwards by, beside what the log wants of it. Level-triggered:
//! what differs is ordered, whatever was ordered before, and what was refused is tried
//! again after a while.

use super::{Drops, Forwarding, TableNotice, TableOrder};
use crate::{Generation, IDLE_AFTER, Mono, ServerUid};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// What the kernel refuses it may take later, and a real server that was not allowed may
/// be: somebody changed the host.
const TRY_AGAIN: Duration = Duration::from_secs(10);

/// How a virtual server is on a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Programmed {
    /// As of this generation.
    InForce(Generation),
    /// Not as it is wanted.
    Refused {
        /// What would be in force.
        wanted: Option<Generation>,
        /// The rest of a sentence.
        why: String,
    },
    /// It is being done, or the guard is not there.
    NotYet,
    /// There is nothing of it, and nothing is to come.
    Nothing,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Programming {
    session: Option<Session>,
    /// A guard is there that was started before an upgrade, and cannot forward.
    is_old: bool,
}

/// What a guard said, and what it was told.
#[derive(Debug, Default)]
struct Session {
    /// It said what it has.
    told: bool,
    /// What it has of an earlier agent's: ordered anew, since that may have known
    /// another log.
    found: BTreeSet<ServerUid>,
    in_force: BTreeMap<ServerUid, Generation>,
    /// What is in force and has a flaw.
    flaws: BTreeMap<ServerUid, String>,
    /// What it did not answer yet.
    ordered: BTreeMap<ServerUid, Option<Generation>>,
    refused: BTreeMap<ServerUid, Refused>,
    /// When somebody last spoke by the table before.
    spoke: BTreeMap<ServerUid, (Generation, Mono)>,
    dropped: Drops,
}

#[derive(Debug)]
struct Refused {
    wanted: Option<Generation>,
    why: String,
    at: Mono,
}

impl Programming {
    /// A guard is there.
    pub fn up(&mut self) {
        *self = Self { session: Some(Session::default()), is_old: false };
    }

    /// One is there that cannot forward.
    pub fn up_without(&mut self) {
        *self = Self { session: None, is_old: true };
    }

    /// It is gone, with whatever it had.
    pub fn down(&mut self) {
        *self = Self::default();
    }

    /// What it says.
    pub fn heard(&mut self, now: Mono, notice: TableNotice) {
        let Some(session) = &mut self.session else { return };
        match notice {
            TableNotice::AllInForce(all) => {
                let found = all.into_keys().collect();
                *session = Session { told: true, found, ..Session::default() };
            }
            TableNotice::InForce { server, generation } => {
                session.answered(server, generation);
                session.found.remove(&server);
                session.spoke.remove(&server);
                match generation {
                    Some(generation) => session.in_force.insert(server, generation),
                    None => {
                        session.flaws.remove(&server);
                        session.in_force.remove(&server)
                    }
                };
            }
            TableNotice::Refused { server, wanted, why } => {
                session.answered(server, wanted);
                session.refused.insert(server, Refused { wanted, why, at: now });
            }
            TableNotice::Flawed { server, why } => {
                match why {
                    Some(why) => session.flaws.insert(server, why),
                    None => session.flaws.remove(&server),
                };
            }
            TableNotice::Spoke { server, generation, at } => {
                session.spoke.insert(server, (generation, at));
            }
            TableNotice::Dropped(dropped) => session.dropped = dropped,
            TableNotice::Counted { .. } | TableNotice::AtVip(..) | TableNotice::Mute(..) => {}
        }
    }

    /// What is to be ordered now, of what is wanted.
    pub fn orders(
        &mut self,
        now: Mono,
        wanted: &BTreeMap<ServerUid, Generation>,
        of: impl Fn(ServerUid) -> Option<Forwarding>,
    ) -> Vec<TableOrder> {
        let Some(session) = self.session.as_mut().filter(|session| session.told) else {
            return vec![];
        };
        session.refused.retain(|server, refused| {
            let is_wanted = wanted.get(server).copied() == refused.wanted;
            is_wanted && now < refused.at + TRY_AGAIN
        });
        let mut orders = vec![];
        for server in session.gone(wanted) {
            if !session.waits_for(server, None) {
                orders.push(TableOrder::Drop(server));
            }
        }
        for (server, generation) in wanted {
            let is_there = session.in_force.get(server) == Some(generation);
            if is_there || session.waits_for(*server, Some(*generation)) {
                continue;
            }
            let order = of(*server).map(|all| TableOrder::put(*server, all));
            orders.extend(order);
        }
        let ordered = orders.iter().map(|order| (order.server(), order.wanted()));
        session.ordered.extend(ordered);
        orders
    }

    /// Whether the guard has answered for all that is wanted, so that a VIP may be
    /// opened there.
    #[must_use]
    pub fn is_in_step(&self, wanted: &BTreeMap<ServerUid, Generation>) -> bool {
        let Some(session) = self.session.as_ref().filter(|session| session.told) else {
            return false;
        };
        wanted.iter().all(|(server, generation)| {
            session.in_force.get(server) == Some(generation)
                || session.refused.get(server).is_some_and(|r| r.wanted == Some(*generation))
        })
    }

    /// Whether the guard said that it has nothing, and was told of nothing.
    #[must_use]
    pub fn has_nothing(&self) -> bool {
        self.session.as_ref().is_some_and(|session| {
            let Session { told, found, in_force, ordered, .. } = session;
            *told && found.is_empty() && in_force.is_empty() && ordered.is_empty()
        })
    }

    /// How a virtual server is on this host.
    #[must_use]
    pub fn of(&self, server: ServerUid) -> Programmed {
        let Some(session) = &self.session else {
            let why = "its guard was started before an upgrade and cannot forward: restart it \
                       (`systemctl restart vipd-guard vipd`)";
            return match self.is_old {
                true => Programmed::Refused { wanted: None, why: why.into() },
                false => Programmed::NotYet,
            };
        };
        match (session.refused.get(&server), session.in_force.get(&server)) {
            (Some(Refused { wanted, why, .. }), _) => {
                Programmed::Refused { wanted: *wanted, why: why.clone() }
            }
            (None, Some(generation)) => Programmed::InForce(*generation),
            (None, None) if session.may_come(server) => Programmed::NotYet,
            (None, None) => Programmed::Nothing,
        }
    }

    /// What of a virtual server will not work on this host, though it is in force.
    #[must_use]
    pub fn flaw(&self, server: ServerUid) -> Option<&str> {
        self.session.as_ref()?.flaws.get(&server).map(String::as_str)
    }

    /// The tables before that nobody spoke by for [`IDLE_AFTER`], each by what is in force.
    #[must_use]
    pub fn idle(&self, now: Mono) -> BTreeMap<ServerUid, Generation> {
        let spoke = self.session.iter().flat_map(|session| &session.spoke);
        let idle = spoke.filter(|(_, (_, at))| now >= *at + IDLE_AFTER);
        idle.map(|(server, (generation, _))| (*server, *generation)).collect()
    }

    /// What was dropped on this host since its guard started, and why.
    #[must_use]
    pub fn dropped(&self) -> Drops {
        self.session.as_ref().map(|session| session.dropped.clone()).unwrap_or_default()
    }

    /// When something is to be tried again.
    #[must_use]
    pub fn next_try(&self) -> Option<Mono> {
        let refused = self.session.iter().flat_map(|session| session.refused.values());
        refused.map(|refused| refused.at + TRY_AGAIN).min()
    }
}

impl Session {
    fn answered(&mut self, server: ServerUid, wanted: Option<Generation>) {
        if self.ordered.get(&server) == Some(&wanted) {
            self.ordered.remove(&server);
        }
        self.refused.remove(&server);
    }

    fn may_come(&self, server: ServerUid) -> bool {
        !self.told || self.found.contains(&server) || self.ordered.contains_key(&server)
    }

    fn waits_for(&self, server: ServerUid, wanted: Option<Generation>) -> bool {
        self.ordered.get(&server) == Some(&wanted) || self.refused.contains_key(&server)
    }

    /// What it has, or will have, of servers that are not wanted.
    fn gone(&self, wanted: &BTreeMap<ServerUid, Generation>) -> BTreeSet<ServerUid> {
        let ordered = self.ordered.iter().filter(|(_, wanted)| wanted.is_some());
        let all = self.found.iter().chain(self.in_force.keys());
        let all = all.chain(ordered.map(|(server, _)| server));
        all.filter(|server| !wanted.contains_key(server)).copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{apply, server, state_of, vip, voter};
    use crate::{ServerOp, State, VipOp};

    const NOW: Mono = Mono(1_000_000_000);
    const ONE: ServerUid = ServerUid(1);
    const TWO: ServerUid = ServerUid(2);

    fn forwarding(generation: u64) -> Forwarding {
        let mut state: State = state_of([voter(1)]);
        apply(&mut state, VipOp::Add { spec: vip("web", 100) });
        apply(&mut state, ServerOp::Add { spec: server(&["10.0.0.11"]) });
        let server = state.server_named("front").expect("there");
        let generation = Generation(generation);
        let known = Forwarding::of(&state, server, &BTreeMap::new());
        Forwarding { generation, ..known.expect("some") }
    }

    fn wanted(all: &[(ServerUid, u64)]) -> BTreeMap<ServerUid, Generation> {
        all.iter().map(|(server, generation)| (*server, Generation(*generation))).collect()
    }

    fn orders(
        programming: &mut Programming,
        now: Mono,
        all: &[(ServerUid, u64)],
    ) -> Vec<(ServerUid, Option<u64>)> {
        let wanted = wanted(all);
        let of = |server: ServerUid| wanted.get(&server).map(|wanted| forwarding(wanted.0));
        let orders = programming.orders(now, &wanted, of);
        orders.iter().map(|order| (order.server(), order.wanted().map(|g| g.0))).collect()
    }

    fn in_force(server: ServerUid, generation: Option<u64>) -> TableNotice {
        TableNotice::InForce { server, generation: generation.map(Generation) }
    }

    fn refused(server: ServerUid, wanted: u64) -> TableNotice {
        TableNotice::Refused { server, wanted: Some(Generation(wanted)), why: "no".into() }
    }

    /// One that said what it has.
    fn up(found: &[(ServerUid, u64)]) -> Programming {
        let mut programming = Programming::default();
        programming.up();
        programming.heard(NOW, TableNotice::AllInForce(wanted(found)));
        programming
    }

    #[test]
    fn nothing_is_ordered_of_a_guard_that_did_not_say_what_it_has() {
        let mut programming = Programming::default();
        assert_eq!(orders(&mut programming, NOW, &[(ONE, 1)]), []);
        programming.up();
        assert_eq!(orders(&mut programming, NOW, &[(ONE, 1)]), []);
        assert!(!programming.is_in_step(&wanted(&[])), "nor may a VIP be opened there");
        programming.heard(NOW, TableNotice::AllInForce(BTreeMap::new()));
        assert!(programming.is_in_step(&wanted(&[])));
        assert_eq!(orders(&mut programming, NOW, &[(ONE, 1)]), [(ONE, Some(1))]);
        programming.down();
        assert_eq!(programming.of(ONE), Programmed::NotYet);
        assert!(!programming.is_in_step(&wanted(&[])));
    }

    #[test]
    fn what_differs_is_ordered_once() {
        let mut programming = up(&[]);
        let both = [(ONE, 1), (TWO, 1)];
        assert_eq!(orders(&mut programming, NOW, &both), [(ONE, Some(1)), (TWO, Some(1))]);
        assert_eq!(orders(&mut programming, NOW, &both), []);
        assert_eq!(orders(&mut programming, NOW, &[(ONE, 2), (TWO, 1)]), [(ONE, Some(2))]);
        programming.heard(NOW, in_force(ONE, Some(1)));
        assert_eq!(orders(&mut programming, NOW, &[(ONE, 2), (TWO, 1)]), [], "it is on its way");
        programming.heard(NOW, in_force(ONE, Some(2)));
        assert_eq!(programming.of(ONE), Programmed::InForce(Generation(2)));
        assert!(!programming.is_in_step(&wanted(&[(ONE, 2), (TWO, 1)])));
        programming.heard(NOW, in_force(TWO, Some(1)));
        assert!(programming.is_in_step(&wanted(&[(ONE, 2), (TWO, 1)])));
    }

    /// The agent before may have known another log, whose numbers are others'.
    #[test]
    fn what_an_earlier_agent_left_is_ordered_anew_or_dropped() {
        let mut programming = up(&[(ONE, 1), (TWO, 1)]);
        assert!(!programming.is_in_step(&wanted(&[(ONE, 1)])));
        assert_eq!(orders(&mut programming, NOW, &[(ONE, 1)]), [(TWO, None), (ONE, Some(1))]);
        programming.heard(NOW, in_force(TWO, None));
        programming.heard(NOW, in_force(ONE, Some(1)));
        assert_eq!(orders(&mut programming, NOW, &[(ONE, 1)]), []);
        assert!(programming.is_in_step(&wanted(&[(ONE, 1)])));
    }

    #[test]
    fn what_is_not_wanted_any_more_is_dropped_also_before_it_is_there() {
        let mut programming = up(&[]);
        assert_eq!(orders(&mut programming, NOW, &[(ONE, 1)]), [(ONE, Some(1))]);
        assert_eq!(orders(&mut programming, NOW, &[]), [(ONE, None)]);
        programming.heard(NOW, in_force(ONE, Some(1)));
        assert_eq!(orders(&mut programming, NOW, &[]), [], "it is on its way");
        programming.heard(NOW, in_force(ONE, None));
        assert_eq!(orders(&mut programming, NOW, &[]), []);
        assert_eq!(programming.of(ONE), Programmed::Nothing);
    }

    /// What an agent before had put there may still be forwarded.
    #[test]
    fn nothing_is_there_once_nothing_can_be() {
        let mut programming = Programming::default();
        assert_eq!(programming.of(ONE), Programmed::NotYet, "nobody knows");
        programming.up();
        assert_eq!(programming.of(ONE), Programmed::NotYet, "it did not say yet");
        programming.heard(NOW, TableNotice::AllInForce(wanted(&[(ONE, 1)])));
        assert_eq!(
            (programming.of(ONE), programming.of(TWO)),
            (Programmed::NotYet, Programmed::Nothing)
        );
        orders(&mut programming, NOW, &[]);
        assert_eq!(programming.of(ONE), Programmed::NotYet);
        programming.heard(NOW, in_force(ONE, None));
        assert_eq!(programming.of(ONE), Programmed::Nothing);
    }

    #[test]
    fn a_guard_that_cannot_forward_says_so_and_holds_nobody_up() {
        let mut programming = Programming::default();
        programming.up_without();
        let Programmed::Refused { why, .. } = programming.of(ONE) else { panic!("refused") };
        assert!(why.contains("restart"), "{why}");
        assert_eq!(orders(&mut programming, NOW, &[(ONE, 1)]), []);
        programming.up();
        assert_eq!(programming.of(ONE), Programmed::NotYet);
    }

    #[test]
    fn what_is_refused_is_tried_again_after_a_while_or_when_it_changed() {
        let mut programming = up(&[]);
        assert_eq!(programming.next_try(), None);
        orders(&mut programming, NOW, &[(ONE, 1)]);
        programming.heard(NOW, refused(ONE, 1));
        let (wanted_was, why) = (Some(Generation(1)), "no".to_owned());
        assert_eq!(programming.of(ONE), Programmed::Refused { wanted: wanted_was, why });
        assert!(programming.is_in_step(&wanted(&[(ONE, 1)])), "others' VIPs wait for nothing");
        assert!(!programming.is_in_step(&wanted(&[(ONE, 2)])));
        let soon = NOW + TRY_AGAIN - Duration::from_nanos(1);
        assert_eq!(orders(&mut programming, soon, &[(ONE, 1)]), []);
        assert_eq!(programming.next_try(), Some(NOW + TRY_AGAIN));
        assert_eq!(orders(&mut programming, NOW + TRY_AGAIN, &[(ONE, 1)]), [(ONE, Some(1))]);
        programming.heard(NOW + TRY_AGAIN, refused(ONE, 1));
        assert_eq!(orders(&mut programming, NOW + TRY_AGAIN, &[(ONE, 2)]), [(ONE, Some(2))]);
        programming.heard(NOW + TRY_AGAIN, in_force(ONE, Some(2)));
        assert_eq!(programming.of(ONE), Programmed::InForce(Generation(2)));
    }

    #[test]
    fn a_flaw_stays_until_it_is_mended_or_nothing_is_there() {
        let mut programming = up(&[]);
        let flawed =
            |why: Option<&str>| TableNotice::Flawed { server: ONE, why: why.map(str::to_owned) };
        programming.heard(NOW, in_force(ONE, Some(1)));
        programming.heard(NOW, flawed(Some("narrow")));
        assert_eq!(programming.flaw(ONE), Some("narrow"));
        assert_eq!(programming.of(ONE), Programmed::InForce(Generation(1)));
        programming.heard(NOW, flawed(None));
        assert_eq!(programming.flaw(ONE), None);
        // It is told of before what it is a flaw of.
        programming.heard(NOW, flawed(Some("narrow")));
        programming.heard(NOW, in_force(ONE, Some(2)));
        assert_eq!(programming.flaw(ONE), Some("narrow"));
        programming.heard(NOW, in_force(ONE, None));
        assert_eq!(programming.flaw(ONE), None);
    }

    #[test]
    fn a_guard_has_nothing_once_it_said_so_and_until_it_is_ordered_something() {
        let mut programming = Programming::default();
        assert!(!programming.has_nothing(), "none is there");
        programming.up();
        assert!(!programming.has_nothing(), "it did not say yet");
        assert!(!up(&[(ONE, 1)]).has_nothing());
        let mut programming = up(&[]);
        assert!(programming.has_nothing());
        orders(&mut programming, NOW, &[(ONE, 1)]);
        assert!(!programming.has_nothing());
        programming.heard(NOW, in_force(ONE, Some(1)));
        assert!(!programming.has_nothing());
    }

    #[test]
    fn a_table_before_is_idle_once_nobody_spoke_by_it_for_long() {
        let mut programming = up(&[]);
        let spoke = |at| TableNotice::Spoke { server: ONE, generation: Generation(2), at };
        assert_eq!(programming.idle(Mono(u64::MAX)), wanted(&[]));
        programming.heard(NOW, spoke(NOW));
        assert_eq!(programming.idle(NOW + IDLE_AFTER - Duration::from_nanos(1)), wanted(&[]));
        assert_eq!(programming.idle(NOW + IDLE_AFTER), wanted(&[(ONE, 2)]));
        let later = NOW + Duration::from_secs(10);
        programming.heard(later, spoke(later));
        assert_eq!(programming.idle(NOW + IDLE_AFTER), wanted(&[]));
        programming.heard(later, in_force(ONE, Some(3)));
        assert_eq!(programming.idle(Mono(u64::MAX)), wanted(&[]));
    }

    /// A table that cannot be taken out is asked for again, and not at once.
    #[test]
    fn a_drop_that_failed_is_no_loop() {
        let mut programming = up(&[(ONE, 1)]);
        assert_eq!(orders(&mut programming, NOW, &[]), [(ONE, None)]);
        let why = "no".to_owned();
        programming.heard(NOW, TableNotice::Refused { server: ONE, wanted: None, why });
        assert_eq!(orders(&mut programming, NOW, &[]), []);
        assert_eq!(orders(&mut programming, NOW + TRY_AGAIN, &[]), [(ONE, None)]);
    }
}
