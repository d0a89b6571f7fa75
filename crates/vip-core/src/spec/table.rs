//! How large a virtual server's table is.

use serde::{Deserialize, Serialize};

/// How many slots a table has. Primes, so that every server's preferences go through
/// all of them. Another size would move nearly every connection: it is decided once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "u16", try_from = "u16")]
pub enum TableSize {
    /// 1,021, for some ten servers where memory is scarce.
    Tiny,
    /// 4,093.
    Small,
    /// 16,381: even to a fiftieth for 150 servers, and filled in a third of a
    /// millisecond.
    #[default]
    Usual,
    /// 65,521: even to a hundredth for a thousand servers.
    Large,
}

/// From so many real servers on a table is large, unless somebody says otherwise.
const MANY: usize = 150;

/// No size that tables have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} is no size of a table: 1021, 4093, 16381 and 65521 are")]
pub struct TableSizeError(pub u16);

impl TableSize {
    /// All there are, the smallest first.
    pub const ALL: [Self; 4] = [Self::Tiny, Self::Small, Self::Usual, Self::Large];

    /// How many slots.
    #[must_use]
    pub const fn slots(self) -> u16 {
        match self {
            Self::Tiny => 1021,
            Self::Small => 4093,
            Self::Usual => 16_381,
            Self::Large => 65_521,
        }
    }

    /// What is sensible for so many real servers.
    #[must_use]
    pub const fn for_reals(count: usize) -> Self {
        if count > MANY { Self::Large } else { Self::Usual }
    }
}

impl From<TableSize> for u16 {
    fn from(size: TableSize) -> Self {
        size.slots()
    }
}

impl TryFrom<u16> for TableSize {
    type Error = TableSizeError;

    fn try_from(slots: u16) -> Result<Self, TableSizeError> {
        Self::ALL.into_iter().find(|size| size.slots() == slots).ok_or(TableSizeError(slots))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_the_number_of_its_slots() {
        for size in TableSize::ALL {
            assert_eq!(TableSize::try_from(size.slots()), Ok(size));
            let prime = (2..size.slots()).all(|divisor| size.slots() % divisor != 0);
            assert!(prime, "{size:?}");
        }
        assert_eq!(TableSize::try_from(1000), Err(TableSizeError(1000)));
        let sizes = [1, 150, 151].map(TableSize::for_reals);
        assert_eq!(sizes, [TableSize::Usual, TableSize::Usual, TableSize::Large]);
    }
}
