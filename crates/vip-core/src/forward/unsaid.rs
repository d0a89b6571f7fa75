//! What a node has to tell the log of how virtual servers are on it.

use super::Programmed;
use crate::{Hindrance, Hindrances, MAX_HINDERED, NodeId, Server, State};

/// What hinders virtual servers on node `me`, where the log has it otherwise. `how` a
/// virtual server is there, and which flaw it has.
pub fn unsaid(
    state: &State,
    me: NodeId,
    how: impl Fn(&Server) -> (Programmed, Option<String>),
) -> Hindrances {
    let mut room = MAX_HINDERED.saturating_sub(state.hindered_on(me).count());
    let mut unsaid = Hindrances::new();
    for server in state.all_servers() {
        let (uid, wanted) = (server.uid, server.generation);
        let now = match how(server) {
            (Programmed::InForce(has), flaw) if has >= wanted => flaw.map(Hindrance::Flawed),
            // What an old order met with is being tried anew.
            (Programmed::Refused { wanted: refused, why }, _)
                if refused.is_none_or(|refused| refused >= wanted) =>
            {
                Some(Hindrance::Refused(why))
            }
            _ => continue,
        };
        let now = now.map(|now| now.cut());
        let known = state.hindrance_said(uid, me);
        if known.is_none() && now.is_some() {
            if room == 0 {
                continue;
            }
            room -= 1;
        }
        if known != now.as_ref() {
            unsaid.insert(uid, now);
        }
    }
    unsaid
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{apply, server, state_of, vip, voter};
    use crate::{Generation, ServerOp, ServerSpec, ServerUid, VipOp};
    use std::collections::BTreeMap;

    const ME: NodeId = NodeId(1);

    fn state(servers: u64) -> State {
        let mut state = state_of([voter(1), voter(2)]);
        apply(&mut state, VipOp::Add { spec: vip("web", 100) });
        for number in 1..=servers {
            let name = format!("s{number}").parse().expect("a name");
            let port = u16::try_from(number).expect("small");
            let spec = ServerSpec { name, ports: port.into(), ..server(&["10.0.0.11"]) };
            apply(&mut state, ServerOp::Add { spec });
        }
        state
    }

    fn refused(wanted: Option<u64>, why: &str) -> (Programmed, Option<String>) {
        (Programmed::Refused { wanted: wanted.map(Generation), why: why.into() }, None)
    }

    fn in_force(flaw: Option<&str>) -> (Programmed, Option<String>) {
        (Programmed::InForce(Generation(1)), flaw.map(str::to_owned))
    }

    fn tell(state: &mut State, said: Hindrances) {
        apply(state, ServerOp::Hinder { node: ME, said });
    }

    #[test]
    fn what_the_log_knows_is_not_said_again() {
        let mut state = state(2);
        let why = "w".repeat(1000);
        let how = |server: &Server| match server.uid {
            ServerUid(1) => refused(Some(1), &why),
            _ => in_force(Some("narrow")),
        };
        let said = unsaid(&state, ME, how);
        assert_eq!(said.len(), 2);
        tell(&mut state, said.clone());
        assert_eq!(unsaid(&state, ME, how), Hindrances::new());
        assert_eq!(state.news_of(ME, said), Hindrances::new());
        let of_nothing = [(ServerUid(9), Some(Hindrance::Flawed("no".into())))].into();
        assert_eq!(state.news_of(ME, of_nothing), Hindrances::new());
        let kept = state.hindrances.values().flat_map(BTreeMap::values).map(ToString::to_string);
        assert!(kept.clone().all(|text| text.len() < 300), "{:?}", kept.collect::<Vec<_>>());
        let mended = unsaid(&state, ME, |_| in_force(None));
        assert_eq!(mended, [(ServerUid(1), None), (ServerUid(2), None)].into());
        tell(&mut state, mended);
        assert!(state.hindrances.is_empty());
    }

    /// A guard that is started again says nothing for a moment: that is no news.
    #[test]
    fn what_nobody_knows_is_not_said() {
        let mut state = state(1);
        for how in [Programmed::NotYet, Programmed::Nothing, Programmed::InForce(Generation(0))] {
            assert_eq!(unsaid(&state, ME, |_| (how.clone(), None)), Hindrances::new());
        }
        assert_eq!(unsaid(&state, ME, |_| refused(Some(0), "old")), Hindrances::new());
        let said = unsaid(&state, ME, |_| refused(None, "its guard is old"));
        tell(&mut state, said);
        assert_eq!(unsaid(&state, ME, |_| (Programmed::NotYet, None)), Hindrances::new());
        assert_eq!(state.hindered_on(ME).count(), 1);
    }

    #[test]
    fn of_many_the_log_keeps_some_and_is_told_no_more() {
        let most = u64::try_from(MAX_HINDERED).expect("small");
        let mut state = state(most + 10);
        let before = state.events.latest();
        let said = unsaid(&state, ME, |_| refused(None, "its guard is old"));
        tell(&mut state, said);
        assert_eq!(state.hindered_on(ME).count(), MAX_HINDERED);
        assert_eq!(state.events.latest() - before, 1, "one reason is one event");
        assert_eq!(unsaid(&state, ME, |_| refused(None, "its guard is old")), Hindrances::new());
        // A node that says more than it may.
        let all = state.all_servers().map(|server| server.uid);
        let more = all.map(|uid| (uid, Some(Hindrance::Refused("no".into())))).collect();
        tell(&mut state, more);
        assert_eq!(state.hindered_on(ME).count(), MAX_HINDERED);
    }

    #[test]
    fn what_is_removed_is_hindered_no_more() {
        let mut state = state(2);
        for node in [1, 2] {
            let said = unsaid(&state, NodeId(node), |_| refused(None, "no"));
            apply(&mut state, ServerOp::Hinder { node: NodeId(node), said });
        }
        apply(&mut state, ServerOp::Remove { name: "s1".parse().expect("a name") });
        assert_eq!(state.hindered_on(ME).map(|(uid, _)| uid).collect::<Vec<_>>(), [ServerUid(2)]);
        apply(&mut state, crate::NodeOp::Remove { node: NodeId(2) });
        assert_eq!(state.hindered_on(NodeId(2)).count(), 0);
        let said = [(ServerUid(2), Some(Hindrance::Refused("no".into())))].into();
        apply(&mut state, ServerOp::Hinder { node: NodeId(2), said });
        assert_eq!(state.hindered_on(NodeId(2)).count(), 0, "it is no member");
    }
}
