//! How often each kind of fault was injected, and in how many worlds each pair
//! of kinds met: a blind spot is to show.

use crate::scenario::Kind;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// Sums over many worlds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Coverage {
    injected: BTreeMap<Kind, u64>,
    /// Of two different kinds, the smaller first.
    met: BTreeMap<(Kind, Kind), u64>,
}

impl Coverage {
    /// Takes note of what one world had.
    pub fn add(&mut self, kinds: &[Kind]) {
        for kind in kinds {
            *self.injected.entry(*kind).or_default() += 1;
        }
        let present: BTreeSet<Kind> = kinds.iter().copied().collect();
        for a in &present {
            for b in present.range(a..).skip(1) {
                *self.met.entry((*a, *b)).or_default() += 1;
            }
        }
    }

    /// The pairs in order of how many worlds they met in, rarest first; those
    /// that never did as well.
    #[must_use]
    pub fn pairs(&self) -> Vec<((Kind, Kind), u64)> {
        let all: Vec<Kind> = Kind::all().collect();
        let mut pairs = vec![];
        for (at, a) in all.iter().enumerate() {
            for b in &all[at + 1..] {
                let pair = (*a.min(b), *a.max(b));
                pairs.push((pair, self.met.get(&pair).copied().unwrap_or_default()));
            }
        }
        pairs.sort_by_key(|(_, worlds)| *worlds);
        pairs
    }

    /// How often a kind was injected.
    #[must_use]
    pub fn injected(&self, kind: Kind) -> u64 {
        self.injected.get(&kind).copied().unwrap_or_default()
    }
}

impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "injected:")?;
        for kind in Kind::all() {
            write!(f, " {kind:?} {}", self.injected(kind))?;
        }
        let pairs = self.pairs();
        write!(f, "\n{} pairs of kinds; worlds in which the rarest met:", pairs.len())?;
        for ((a, b), worlds) in pairs.iter().take(5) {
            write!(f, " {a:?}+{b:?} {worlds}")?;
        }
        Ok(())
    }
}
