//! When names of real servers are asked for, and what their answers come to.
//!
//! A server of names may tell some of many addresses each time. So an address is one of a name
//! until it was in no answer for [`LINGER`], and in none of the last [`WITHOUT`] that came; who
//! does not answer clients any more is found by checks, and sooner.

use crate::{HostName, Mono};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

/// An address that was in no answer for so long is the name's no more,
const LINGER: Duration = Duration::from_secs(60);
/// once so many answers came without it.
const WITHOUT: u8 = 3;
/// While one is missing the name is asked for as often.
const MISSING: Duration = Duration::from_secs(20);
/// A name is asked for no more often, whatever its TTL: each answer may be an entry of the log.
const LEAST: Duration = Duration::from_secs(5);
/// And no less often: who changes a record waits no longer than that.
const MOST: Duration = Duration::from_secs(300);
/// After a failure.
const AGAIN: Duration = Duration::from_secs(10);

struct Asked {
    /// `None`: it is being asked for.
    next: Option<Mono>,
    seen: BTreeMap<IpAddr, Seen>,
}

/// An address, as answers have it.
struct Seen {
    /// When it was in one last.
    last: Mono,
    /// How many came since without it.
    without: u8,
}

/// See the module. The leader's.
#[derive(Default)]
pub struct Resolving(BTreeMap<HostName, Asked>);

impl Resolving {
    /// These names are to be asked for, and no others: new ones at once, and with what they
    /// resolved to last.
    pub fn follow(&mut self, now: Mono, names: BTreeMap<HostName, BTreeSet<IpAddr>>) {
        self.0.retain(|name, _| names.contains_key(name));
        for (name, known) in names {
            let seen =
                || known.into_iter().map(|ip| (ip, Seen { last: now, without: 0 })).collect();
            self.0.entry(name).or_insert_with(|| Asked { next: Some(now), seen: seen() });
        }
    }

    /// The name that is due for longest, if one is. It is not due again before it is answered.
    pub fn next(&mut self, now: Mono) -> Option<HostName> {
        let due = self.0.iter_mut().filter(|(_, asked)| asked.next.is_some_and(|at| at <= now));
        let (name, asked) = due.min_by_key(|(_, asked)| asked.next)?;
        asked.next = None;
        Some(name.clone())
    }

    /// When the next one is due.
    #[must_use]
    pub fn next_at(&self) -> Option<Mono> {
        self.0.values().filter_map(|asked| asked.next).min()
    }

    /// A name was answered, with how long that holds. What it resolves to; `None`: nobody wants
    /// to know any more.
    pub fn answered(
        &mut self,
        now: Mono,
        name: &HostName,
        answer: Result<(Vec<IpAddr>, Duration), String>,
    ) -> Option<Result<Vec<IpAddr>, String>> {
        let asked = self.0.get_mut(name)?;
        let (addresses, ttl) = match answer {
            Ok(answer) => answer,
            Err(why) => {
                asked.next = Some(now + AGAIN);
                return Some(Err(why));
            }
        };
        asked.seen.values_mut().for_each(|seen| seen.without = seen.without.saturating_add(1));
        let there = addresses.into_iter().map(|ip| (ip, Seen { last: now, without: 0 }));
        asked.seen.extend(there);
        asked.seen.retain(|_, seen| seen.without < WITHOUT || now.since(seen.last) < LINGER);
        let is_missing = asked.seen.values().any(|seen| seen.without > 0);
        let most = if is_missing { MISSING } else { MOST };
        asked.next = Some(now + ttl.clamp(LEAST, most));
        Some(Ok(asked.seen.keys().copied().collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL: Duration = Duration::from_secs(20);

    fn at(seconds: u64) -> Mono {
        Mono(seconds * 1_000_000_000)
    }

    fn ips(all: &[u8]) -> Vec<IpAddr> {
        all.iter().map(|last| [10, 0, 0, *last].into()).collect()
    }

    fn following(names: &[&str], known: &[u8]) -> Resolving {
        let mut resolving = Resolving::default();
        let of = |name: &&str| (name.parse().expect("a name"), ips(known).into_iter().collect());
        resolving.follow(at(0), names.iter().map(of).collect());
        resolving
    }

    #[test]
    fn an_address_is_a_names_until_it_was_in_no_answer_for_a_minute_and_in_none_of_three() {
        let name = "a.example.com".parse().expect("a name");
        // As the leader before had it.
        let mut resolving = following(&["a.example.com"], &[1, 2, 3]);
        assert_eq!(resolving.next(at(0)), Some("a.example.com".parse().expect("a name")));
        assert_eq!((resolving.next(at(9)), resolving.next_at()), (None, None), "it is asked for");
        let mut answers = |now, all: &[u8]| {
            let answer = resolving.answered(at(now), &name, Ok((ips(all), TTL)));
            (answer, resolving.next_at())
        };
        let is = |all: &[u8], next| (Some(Ok(ips(all))), Some(at(next)));
        assert_eq!(answers(1, &[2, 4]), is(&[1, 2, 3, 4], 21));
        assert_eq!(answers(21, &[3, 4]), is(&[1, 2, 3, 4], 41));
        assert_eq!(answers(41, &[2, 4]), is(&[1, 2, 3, 4], 61), "one goes, and not so soon");
        assert_eq!(answers(61, &[2, 4]), is(&[2, 3, 4], 81));
        // Long after, and three all the same.
        assert_eq!(answers(300, &[4]), is(&[2, 4], 320));
        assert_eq!(answers(320, &[4]), is(&[2, 4], 340));
        assert_eq!(answers(340, &[4]), is(&[4], 360));
    }

    /// Time without an answer says nothing of who is missing.
    #[test]
    fn some_of_many_with_a_long_ttl_or_after_a_failure_take_nobody_away() {
        let name = "a.example.com".parse().expect("a name");
        let mut resolving = following(&["a.example.com"], &[1, 2, 3, 4]);
        let mut now = 0;
        for round in 0_u8..20 {
            let some = if round.is_multiple_of(2) { [1, 2] } else { [3, 4] };
            let answer = resolving.answered(at(now), &name, Ok((ips(&some), TTL * 10)));
            assert_eq!(answer, Some(Ok(ips(&[1, 2, 3, 4]))), "{round}");
            now = resolving.next_at().expect("it is due").0 / 1_000_000_000;
            if round == 9 {
                assert!(resolving.answered(at(now), &name, Err("no answer".into())).is_some());
                now += 1000;
            }
        }
    }

    #[test]
    fn a_name_is_asked_for_by_its_ttl_within_bounds_and_sooner_after_a_failure() {
        let name: HostName = "a.example.com".parse().expect("a name");
        let mut resolving = following(&["a.example.com"], &[1]);
        let next = |resolving: &mut Resolving, answer| {
            resolving.answered(at(1000), &name, answer).expect("it is wanted").ok();
            resolving.next_at().expect("it is due").since(at(1000)).as_secs()
        };
        let with = |ttl| Ok((ips(&[1]), Duration::from_secs(ttl)));
        assert_eq!([0, 4, 7, 40].map(|ttl| next(&mut resolving, with(ttl))), [5, 5, 7, 40]);
        assert_eq!(next(&mut resolving, Err("no answer".into())), 10);
        resolving.follow(at(0), BTreeMap::new());
        assert_eq!(resolving.answered(at(0), &name, with(1)), None, "nobody wants to know");
    }

    /// Many that fail are due again and again.
    #[test]
    fn who_waits_longest_is_asked_for_first() {
        let names = ["a.example.com", "b.example.com", "c.example.com"];
        let mut resolving = following(&names, &[1]);
        let mut asked = vec![];
        for now in 0..60 {
            let Some(name) = resolving.next(at(now * 10)) else { continue };
            resolving.answered(at(now * 10), &name, Err("no answer".to_owned()));
            asked.push(name);
        }
        for name in names {
            let name: HostName = name.parse().expect("a name");
            assert_eq!(asked.iter().filter(|one| **one == name).count(), 20, "{name}");
        }
    }
}
