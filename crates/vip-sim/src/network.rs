//! The network between hosts: cuts in one direction, loss, delay, duplication,
//! reordering.

use std::collections::BTreeMap;
use std::time::Duration;

/// How messages fare, apart from cuts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Weather {
    /// Share of messages lost.
    pub(crate) loss: f64,
    /// Share of messages that arrive twice.
    pub(crate) duplicate: f64,
    /// Share of messages that are late by up to `spike`.
    pub(crate) late: f64,
    pub(crate) spike: Duration,
}

impl Weather {
    pub(crate) const FAIR: Self =
        Self { loss: 0.0, duplicate: 0.0, late: 0.0, spike: Duration::ZERO };
}

pub(crate) struct Network {
    /// Longest time that a message takes in fair weather.
    pub(crate) latency: Duration,
    pub(crate) weather: Weather,
    /// Cuts from one host to another; several faults may cut the same link.
    cuts: BTreeMap<(usize, usize), u32>,
    /// How much longer a message takes over some links.
    slow: BTreeMap<(usize, usize), Duration>,
}

impl Network {
    pub(crate) fn new(latency: Duration) -> Self {
        Self { latency, weather: Weather::FAIR, cuts: BTreeMap::new(), slow: BTreeMap::new() }
    }

    pub(crate) fn cut(&mut self, links: &[(usize, usize)]) {
        for link in links {
            *self.cuts.entry(*link).or_default() += 1;
        }
    }

    pub(crate) fn mend(&mut self, links: &[(usize, usize)]) {
        for link in links {
            if let Some(count) = self.cuts.get_mut(link) {
                *count -= 1;
                if *count == 0 {
                    self.cuts.remove(link);
                }
            }
        }
    }

    /// Whether two hosts reach each other.
    pub(crate) fn is_whole(&self, one: usize, other: usize) -> bool {
        ![(one, other), (other, one)].iter().any(|link| self.cuts.contains_key(link))
    }

    pub(crate) fn slow(&mut self, links: &[(usize, usize)], by: Duration) {
        self.slow.extend(links.iter().map(|link| (*link, by)));
    }

    pub(crate) fn mend_all(&mut self) {
        self.cuts.clear();
        self.slow.clear();
        self.weather = Weather::FAIR;
    }

    /// After how long each copy of a message arrives; none if it is lost.
    pub(crate) fn send(&self, rng: &mut fastrand::Rng, from: usize, to: usize) -> Vec<Duration> {
        if self.cuts.contains_key(&(from, to)) || rng.f64() < self.weather.loss {
            return vec![];
        }
        let copies = 1 + usize::from(rng.f64() < self.weather.duplicate);
        let slow = self.slow.get(&(from, to)).copied().unwrap_or_default();
        (0..copies).map(|_| slow + self.delay(rng)).collect()
    }

    fn delay(&self, rng: &mut fastrand::Rng) -> Duration {
        let fair = self.latency.mul_f64(0.1 + 0.9 * rng.f64());
        if rng.f64() < self.weather.late {
            return fair + self.weather.spike.mul_f64(rng.f64());
        }
        fair
    }
}
