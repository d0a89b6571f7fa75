//! What a virtual server's table is made of: some hundred bytes, which say all of its
//! thousands of slots.

use serde::{Deserialize, Serialize};
use std::net::IpAddr;

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
}

impl From<TableSize> for u16 {
    fn from(size: TableSize) -> Self {
        size.slots()
    }
}

/// No size that tables have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} is no size of a table: 1021, 4093, 16381 and 65521 are")]
pub struct NoTableSize(pub u16);

impl TryFrom<u16> for TableSize {
    type Error = NoTableSize;

    fn try_from(slots: u16) -> Result<Self, NoTableSize> {
        Self::ALL.into_iter().find(|size| size.slots() == slots).ok_or(NoTableSize(slots))
    }
}

/// A real server that connections may be sent to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RealServer {
    /// Where it is.
    pub ip: IpAddr,
    /// Its own port; 0: the one that the client named.
    pub port: u16,
    /// Its share beside the others'; 0: nothing new.
    pub weight: u16,
}

/// Input of a table.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Keeps the tables of two virtual servers with the same real servers apart.
    pub seed: u64,
    pub size: TableSize,
    /// In any order, no two with one address and port.
    pub reals: Vec<RealServer>,
}
