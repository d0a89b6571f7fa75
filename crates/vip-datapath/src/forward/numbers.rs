//! Numbers that are given out and come back, the one that has been back for longest
//! first: whoever still remembers one is the less likely to meet another's.

use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

/// See the module.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Numbers {
    /// None from here on was given out yet.
    next: u32,
    below: u32,
    back: VecDeque<u32>,
}

impl Numbers {
    /// All there are below this one.
    pub(crate) fn below(below: u32) -> Self {
        Self { next: 0, below, back: VecDeque::new() }
    }

    pub(crate) fn take(&mut self) -> Option<u32> {
        if self.next < self.below {
            self.next += 1;
            return Some(self.next - 1);
        }
        self.back.pop_front()
    }

    pub(crate) fn give_back(&mut self, number: u32) {
        self.back.push_back(number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_given_out_again_after_all_others() {
        let mut numbers = Numbers::below(3);
        assert_eq!([numbers.take(), numbers.take()], [Some(0), Some(1)]);
        numbers.give_back(0);
        numbers.give_back(1);
        assert_eq!([numbers.take(), numbers.take(), numbers.take()], [2, 0, 1].map(Some));
        assert_eq!(numbers.take(), None);
    }
}
