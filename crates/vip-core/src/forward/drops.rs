//! Why a host's program dropped packets of virtual servers.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// In the program's order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[repr(u32)]
pub enum DropReason {
    /// The gate was shut.
    Shut,
    /// A frame for another host, which a switch floods.
    NotForUs,
    /// More extension headers than are parsed.
    Headers,
    /// The rest of a datagram whose first part was not seen.
    NoFirst,
    /// It came as far as its hops allow.
    Hops,
    /// The table names none.
    NoReal,
    /// There is no route to the real server.
    NoWay,
    /// It came by an interface without Ethernet headers.
    NoEthernet,
    /// The kernel refused to rewrite it.
    NotWritten,
    /// The first part of a datagram that does not hold its own header.
    Truncated,
}

/// How many, by reason.
pub type Drops = BTreeMap<DropReason, u64>;

impl DropReason {
    /// All there are.
    pub const ALL: [Self; 10] = [
        Self::Shut,
        Self::NotForUs,
        Self::Headers,
        Self::NoFirst,
        Self::Hops,
        Self::NoReal,
        Self::NoWay,
        Self::NoEthernet,
        Self::NotWritten,
        Self::Truncated,
    ];

    /// Whether somebody has something to mend: others come from the network as it is.
    #[must_use]
    pub const fn is_trouble(self) -> bool {
        matches!(self, Self::NoReal | Self::NoWay | Self::NoEthernet | Self::NotWritten)
    }
}

impl fmt::Display for DropReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Shut => "for a VIP that this host does not answer for",
            Self::NotForUs => "for other hosts, flooded by a switch",
            Self::Headers => "with too many extension headers",
            Self::NoFirst => "parts of datagrams whose first part was not seen",
            Self::Hops => "at the end of their hops",
            Self::NoReal => "for a virtual server without a real server that takes any",
            Self::NoWay => "for real servers that this host has no route to",
            Self::NoEthernet => "by interfaces without Ethernet headers, which are not forwarded",
            Self::NotWritten => "that the kernel did not rewrite",
            Self::Truncated => "first parts that do not hold their own header",
        })
    }
}
