//! Real servers that say nothing to clients who begin to speak with them, as the holder's
//! counters have it. It decides nothing: they are looked at sooner.
//!
//! ```text
//!  connections began, and no client said anything more     whoever is refused, or not answered
//!  by NAT: packets went there, and none came back
//! ```
//!
//! So for two looks in a row, since what began just now has had no time.

use super::Counter;
use crate::{Forward, Mono};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

/// One that was told of is not told of again for so long: clients that have nothing to say, or
/// strangers who only begin, cost a probe now and then.
const AGAIN: Duration = Duration::from_secs(10);

/// What was counted of one real server, and what that looks like.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    counter: Counter,
    /// Something was asked, and nothing came of it, by the look before.
    asked: bool,
    told: Option<Mono>,
}

/// Of the real servers of one virtual server.
#[derive(Clone, Debug, Default)]
pub struct Mutes(BTreeMap<(IpAddr, u16), Seen>);

impl Mutes {
    /// What was counted by now. Who is mute, by address and port.
    pub fn look(
        &mut self,
        now: Mono,
        forward: Forward,
        counted: &BTreeMap<(IpAddr, u16), Counter>,
    ) -> Vec<(IpAddr, u16)> {
        self.0.retain(|place, _| counted.contains_key(place));
        let mut mute = vec![];
        for (place, counter) in counted {
            let Some(seen) = self.0.get_mut(place) else {
                // What came before it was looked at is no news.
                self.0.insert(*place, Seen { counter: *counter, ..Seen::default() });
                continue;
            };
            let since = |of: fn(&Counter) -> u64| of(counter).saturating_sub(of(&seen.counter));
            let (opened, packets) = (since(|one| one.connections), since(|one| one.packets));
            let is_heard = if forward == Forward::Nat {
                since(|one| one.replies) > 0 && (opened == 0 || packets > opened)
            } else {
                packets > opened
            };
            let is_asked = if forward == Forward::Nat { packets > 0 } else { opened > 0 };
            let is_mute = seen.asked && !is_heard;
            seen.asked = !is_heard && (is_asked || seen.asked) && !is_mute;
            seen.counter = *counter;
            if is_mute && seen.told.is_none_or(|told| now.since(told) >= AGAIN) {
                seen.told = Some(now);
                mute.push(*place);
            }
        }
        mute
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: (IpAddr, u16) = (IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 11)), 0);

    /// Looks twice a second at these: connections, packets (theirs among them) and replies
    /// since the look before. At which of them it is mute.
    fn looks(forward: Forward, all: &[(u64, u64, u64)]) -> Vec<usize> {
        let mut mutes = Mutes::default();
        let mut counter = Counter::default();
        assert_eq!(mutes.look(Mono(0), forward, &[(PLACE, counter)].into()), []);
        let mut mute = vec![];
        for (number, (connections, packets, replies)) in all.iter().enumerate() {
            counter.connections += connections;
            counter.packets += packets;
            counter.replies += replies;
            let now = Mono(500_000_000 * (number as u64 + 1));
            if mutes.look(now, forward, &[(PLACE, counter)].into()) == [PLACE] {
                mute.push(number);
            }
        }
        mute
    }

    #[test]
    fn who_is_asked_and_not_heard_for_two_looks_is_mute() {
        for forward in [Forward::Dr, Forward::Nat] {
            assert_eq!(looks(forward, &[(1, 1, 0), (0, 0, 0), (0, 0, 0)]), [1], "{forward}");
            assert_eq!(looks(forward, &[(0, 0, 0), (9, 9, 0), (3, 3, 0)]), [2], "{forward}");
            assert_eq!(looks(forward, &[(1, 1, 1), (0, 5, 4), (2, 40, 30)]), [0; 0], "{forward}");
            assert_eq!(looks(forward, &[(0, 0, 0); 9]), [0; 0], "{forward}");
        }
        // By NAT a refusal comes back by the holder, and so does silence of who had much to say.
        assert_eq!(looks(Forward::Nat, &[(2, 2, 2), (2, 2, 2)]), [1]);
        assert_eq!(looks(Forward::Nat, &[(0, 7, 0), (0, 7, 0)]), [1]);
        assert_eq!(looks(Forward::Dr, &[(0, 7, 0), (0, 7, 0)]), [0; 0], "nobody knows");
    }

    #[test]
    fn one_that_stays_mute_is_told_of_now_and_then() {
        let told = looks(Forward::Dr, &[(1, 1, 0); 60]);
        let apart = told.windows(2).map(|pair| pair[1] - pair[0]);
        assert!(
            told.len() >= 2 && apart.clone().all(|looks| (20..=22).contains(&looks)),
            "{told:?}"
        );
    }

    /// Its number is given out again, and counts from nothing.
    #[test]
    fn a_counter_that_begins_anew_is_no_news() {
        let mut mutes = Mutes::default();
        let with = |connections| {
            let counter = Counter { connections, packets: connections, ..Counter::default() };
            [(PLACE, counter)].into()
        };
        for count in [9, 0, 0] {
            assert_eq!(mutes.look(Mono(1), Forward::Dr, &with(count)), []);
        }
        assert_eq!(mutes.look(Mono(1), Forward::Dr, &[].into()), []);
        assert!(mutes.0.is_empty());
    }
}
