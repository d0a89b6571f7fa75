//! Since when something has been so, as one leader sees by its own clock: the log's time may
//! stand, or jump, with whoever leads.

use crate::Mono;
use std::collections::BTreeMap;
use std::time::Duration;

/// See the module.
#[derive(Clone, Debug)]
pub struct Patience<K>(BTreeMap<K, Mono>);

impl<K> Default for Patience<K> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<K: Ord + Clone> Patience<K> {
    /// This is so now, and nothing else. Returns what has been so for as long as it takes
    /// without a look at which it was not.
    pub fn of(&mut self, now: Mono, so: impl IntoIterator<Item = (K, Duration)>) -> Vec<K> {
        let so: BTreeMap<K, Duration> = so.into_iter().collect();
        self.0.retain(|one, _| so.contains_key(one));
        for one in so.keys() {
            self.0.entry(one.clone()).or_insert(now);
        }
        let long = |one: &K, takes: Duration| {
            self.0.get(one).is_some_and(|since| now.since(*since) >= takes)
        };
        so.into_iter().filter(|(one, takes)| long(one, *takes)).map(|(one, _)| one).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_so_at_one_look_begins_anew() {
        let at = |s: u64| Mono(1_000_000_000) + Duration::from_secs(s);
        let mut patience = Patience::default();
        let mut of = |s, so: &[u8]| {
            patience.of(at(s), so.iter().map(|one| (*one, Duration::from_secs(u64::from(*one)))))
        };
        assert!(of(0, &[2, 5]).is_empty());
        assert!(of(1, &[2, 5]).is_empty());
        assert_eq!(of(2, &[2, 5]), [2]);
        assert_eq!(of(4, &[2]), [2], "the other one was gone");
        assert_eq!(of(5, &[2, 5]), [2]);
        assert_eq!(of(9, &[2, 5]), [2]);
        assert_eq!(of(10, &[2, 5]), [2, 5]);
    }
}
