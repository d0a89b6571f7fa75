//! How a network is told on which node a VIP is.

use crate::Level;
use crate::words::words;
use serde::{Deserialize, Serialize};

/// See the module.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Via {
    /// By gratuitous ARP and unsolicited neighbour advertisements, in its own subnet.
    #[default]
    Garp,
    /// Not at all: a load balancer asks the nodes.
    Lb,
}

words!(Via, "way to move a VIP" { Garp => "garp", Lb => "lb" });

impl Via {
    /// Whether neighbours resolve its addresses. Of others nobody asks by ARP, so nobody is
    /// asked or told by it, and they are on loopback, where no kernel answers for them.
    #[must_use]
    pub const fn is_resolved(self) -> bool {
        match self {
            Self::Garp => true,
            Self::Lb => false,
        }
    }

    /// Whether an earlier version has no other.
    #[must_use]
    pub fn is_usual(&self) -> bool {
        *self == Self::default()
    }

    /// Since when the log can have it.
    #[must_use]
    pub const fn since(self) -> Level {
        match self {
            Self::Garp => Level::FIRST,
            Self::Lb => Level::VIAS,
        }
    }
}
