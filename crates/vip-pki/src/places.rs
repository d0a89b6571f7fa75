//! Places for connections: so many in all, so many for each. Whoever comes when
//! there is none left gets the place of the oldest, its own before others', so
//! that nobody is locked out by those who came before and stay.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};
use tokio_util::sync::CancellationToken;

/// How many there are.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub all: usize,
    /// For each.
    pub each: usize,
}

/// Where a connection comes from, for counting: an IPv4 address, or the /64
/// that somebody with one IPv6 address has all of (RFC 4291 section 2.5.4).
#[must_use]
pub fn origin(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(ip) => IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() & !u128::from(u64::MAX))),
        v4 @ IpAddr::V4(_) => v4,
    }
}

/// See the module.
#[derive(Debug)]
pub struct Places<K> {
    limits: Limits,
    taken: Arc<Mutex<Taken<K>>>,
}

#[derive(Debug)]
struct Taken<K> {
    next: u64,
    /// Oldest first.
    places: VecDeque<(u64, K, CancellationToken)>,
}

/// A place, until it is dropped or somebody else needs it.
#[derive(Debug)]
pub struct Place<K> {
    number: u64,
    lost: CancellationToken,
    taken: Arc<Mutex<Taken<K>>>,
}

fn lock<K>(taken: &Mutex<Taken<K>>) -> std::sync::MutexGuard<'_, Taken<K>> {
    taken.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<K: Clone + PartialEq> Places<K> {
    /// All free.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        let taken = Taken { next: 0, places: VecDeque::new() };
        Self { limits, taken: Arc::new(Mutex::new(taken)) }
    }

    /// Takes a place.
    #[must_use]
    pub fn enter(&self, who: K) -> Place<K> {
        let mut taken = lock(&self.taken);
        let of_who = taken.places.iter().filter(|(_, other, _)| *other == who).count();
        let goes = if of_who >= self.limits.each {
            taken.places.iter().position(|(_, other, _)| *other == who)
        } else {
            (taken.places.len() >= self.limits.all).then_some(0)
        };
        if let Some((_, _, lost)) = goes.and_then(|at| taken.places.remove(at)) {
            lost.cancel();
        }
        taken.next += 1;
        let (number, lost) = (taken.next, CancellationToken::new());
        taken.places.push_back((number, who, lost.clone()));
        Place { number, lost, taken: self.taken.clone() }
    }

    /// Takes all places of some away.
    pub fn cut(&self, whose: impl Fn(&K) -> bool) {
        let taken = lock(&self.taken);
        for (_, _, lost) in taken.places.iter().filter(|(_, who, _)| whose(who)) {
            lost.cancel();
        }
    }
}

impl<K> Place<K> {
    /// Cancelled when the place is lost.
    #[must_use]
    pub fn lost(&self) -> CancellationToken {
        self.lost.clone()
    }
}

impl<K> Drop for Place<K> {
    fn drop(&mut self) {
        let mut taken = lock(&self.taken);
        taken.places.retain(|(number, ..)| *number != self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn there(place: &Place<char>) -> bool {
        !place.lost.is_cancelled()
    }

    #[test]
    fn the_oldest_goes_its_own_before_others() {
        let places = Places::new(Limits { all: 3, each: 2 });
        let (a1, a2, b1) = (places.enter('a'), places.enter('a'), places.enter('b'));
        let a3 = places.enter('a');
        assert_eq!([&a1, &a2, &b1, &a3].map(there), [false, true, true, true]);
        drop(a1);
        let c1 = places.enter('c');
        assert_eq!([&a2, &b1, &a3, &c1].map(there), [false, true, true, true]);
    }

    #[test]
    fn a_place_that_was_given_back_is_free() {
        let places = Places::new(Limits { all: 2, each: 2 });
        let first = places.enter('a');
        for _ in 0..100 {
            drop(places.enter('b'));
        }
        assert!(there(&first));
        assert_eq!(lock(&places.taken).places.len(), 1);
    }

    #[test]
    fn whoever_is_cut_loses_all_of_its_places() {
        let places = Places::new(Limits { all: 9, each: 9 });
        let (a, b) = (places.enter('a'), places.enter('b'));
        places.cut(|who| *who == 'a');
        assert_eq!([&a, &b].map(there), [false, true]);
    }

    #[test]
    fn an_ipv6_network_is_one_origin_and_an_ipv4_address_is() {
        let of = |ip: &str| origin(ip.parse().expect("an address"));
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:1:2:3"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
        assert_eq!(of("::ffff:192.0.2.1"), of("192.0.2.1"));
    }
}
