//! How the slots of a table are dealt: "Maglev: A Fast and Reliable Software Network
//! Load Balancer" (Eisenbud et al., NSDI 2016), section 3.4.
//!
//! ```text
//!  each server prefers all slots, in an order of its own
//!  in turns each takes the free slot that it likes best, until none is left
//!        A: 3 0 4 1 2      B: 0 2 4 1 3          0 1 2 3 4
//!        A 3, B 0, A 4, B 2, A 1         ──>     B A B A A
//! ```
//!
//! A server that goes leaves its slots to others, which hardly trade theirs. The paper
//! leaves open how weights change the turns; here a weight is what is saved up in each
//! round, and a turn costs as much as the heaviest has.

use super::Plan;
use crate::{RealServer, octets};
use aws_lc_rs::digest::{SHA256, digest};
use std::array;

/// Not dealt yet. No index is as high: servers are fewer than slots, of which there
/// are fewer than this.
const FREE: u16 = u16::MAX;

/// One server's order of all slots, and how far it came.
struct Preference {
    index: u16,
    weight: u32,
    saved: u32,
    next: u32,
    skip: u32,
}

impl Preference {
    fn new(plan: &Plan, price: u32, index: u16, real: &RealServer) -> Self {
        let slots = u64::from(plan.size().slots());
        let [offset, skip] = hashes(plan.seed(), real);
        let within = |number: u64| u32::try_from(number).unwrap_or_default();
        let weight = real.weight.into();
        Self {
            index,
            weight,
            // The first round is everybody's: who has a weight has a slot.
            saved: price - weight,
            next: within(offset % slots),
            skip: within(skip % (slots - 1) + 1),
        }
    }

    /// Whether it may take one in this round.
    fn has_turn(&mut self, price: u32) -> bool {
        self.saved += self.weight;
        let has = self.saved >= price;
        if has {
            self.saved -= price;
        }
        has
    }

    /// Takes the free slot that it likes best. There is one.
    fn take(&mut self, slots: &mut [u16]) {
        let count = u32::try_from(slots.len()).unwrap_or(u32::MAX);
        loop {
            let slot = self.next as usize;
            self.next = (self.next + self.skip) % count;
            if slots[slot] == FREE {
                slots[slot] = self.index;
                return;
            }
        }
    }
}

/// The paper's `h1` and `h2`: two numbers of 64 bits from the first half of SHA-256
/// over seed, address (16 bytes, v4 mapped) and port; all big-endian.
fn hashes(seed: u64, real: &RealServer) -> [u64; 2] {
    let mut input = Vec::with_capacity(26);
    input.extend(seed.to_be_bytes());
    input.extend(octets(real.ip));
    input.extend(real.port.to_be_bytes());
    let hash = digest(&SHA256, &input);
    [0, 8].map(|from| u64::from_be_bytes(array::from_fn(|byte| hash.as_ref()[from + byte])))
}

impl Plan {
    /// For each slot the index of its server in [`Plan::reals`], or nothing where nobody
    /// has a weight.
    ///
    /// The same on every node and in every version: connections depend on it.
    #[must_use]
    pub fn slots(&self) -> Vec<u16> {
        deal(self)
    }
}

fn deal(plan: &Plan) -> Vec<u16> {
    let count = plan.size().slots();
    let indexed = (0..count).zip(plan.reals());
    let reals: Vec<(u16, &RealServer)> = indexed.filter(|(_, real)| real.weight > 0).collect();
    let Some(price) = reals.iter().map(|(_, real)| u32::from(real.weight)).max() else {
        return vec![];
    };
    let preferences = reals.iter().map(|(index, real)| Preference::new(plan, price, *index, real));
    let mut preferences: Vec<_> = preferences.collect();
    let mut slots = vec![FREE; count.into()];
    let mut left = slots.len();
    loop {
        for preference in &mut preferences {
            if !preference.has_turn(price) {
                continue;
            }
            preference.take(&mut slots);
            left -= 1;
            if left == 0 {
                return slots;
            }
        }
    }
}

#[cfg(test)]
mod tests;
