//! How much of the log a version of vipd understands.
//!
//! Any two neighbouring versions work together. A version with a new operation, or
//! a new field in what the log keeps, has the next level; such a field is absent
//! wherever nobody used it. The log knows the level of every member, and refuses
//! what one of them would not understand.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Of a version, or what has to be understood.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Level(pub u32);

impl Level {
    /// The least there is.
    pub const FIRST: Self = Self(1);
    /// Virtual servers.
    pub const SERVERS: Self = Self(2);
    /// What hinders virtual servers on nodes.
    pub const HINDRANCES: Self = Self(3);
    /// Checks of real servers.
    pub const CHECKS: Self = Self(4);
    /// Checks by more than a connection, and observers that say why they cannot.
    pub const KINDS: Self = Self(5);
    /// Checks by programs, real servers that are checked otherwise than others, or start
    /// slowly, and nodes that have no say in what is up.
    pub const PROGRAMS: Self = Self(6);
    /// Real servers by DNS names, and connections that are reset.
    pub const NAMES: Self = Self(7);
    /// VIPs that are not announced.
    pub const VIAS: Self = Self(8);
    /// That of this version.
    #[cfg(not(feature = "next-version"))]
    pub const HERE: Self = Self::VIAS;
    /// That of a version with one operation more.
    #[cfg(feature = "next-version")]
    pub const HERE: Self = Self(9);
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Longest name of a version that a node is heard to say.
pub const MAX_VERSION: usize = 40;

/// What a node runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Runs {
    /// What it understands of the log.
    pub level: Level,
    /// The version's name, for people.
    pub version: String,
}

impl Runs {
    /// What is running here.
    #[must_use]
    pub fn here() -> Self {
        let next = if cfg!(feature = "next-version") { "+next" } else { "" };
        Self { level: Level::HERE, version: format!("{}{next}", env!("CARGO_PKG_VERSION")) }
    }

    /// What another node says that it runs.
    #[must_use]
    pub fn said(level: u32, version: &str) -> Self {
        let printable = version.chars().filter(|c| c.is_ascii_graphic());
        Self { level: Level(level), version: printable.take(MAX_VERSION).collect() }
    }
}

impl fmt::Display for Runs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(if self.version.is_empty() { "an unknown version" } else { &self.version })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_node_says_that_it_runs_is_short_and_can_be_shown() {
        let runs = Runs::said(7, "0.9.1\u{1b}[2J\n ü");
        assert_eq!((runs.level, runs.to_string().as_str()), (Level(7), "0.9.1[2J"));
        assert_eq!(runs.level.to_string(), "7");
        assert_eq!(Runs::said(1, &"9".repeat(999)).version.len(), MAX_VERSION);
        assert_eq!(Runs::default().to_string(), "an unknown version");
    }

    #[test]
    fn a_version_with_an_operation_more_has_a_higher_level() {
        let next = cfg!(feature = "next-version");
        let all = [
            Level::SERVERS,
            Level::HINDRANCES,
            Level::CHECKS,
            Level::KINDS,
            Level::PROGRAMS,
            Level::NAMES,
            Level::VIAS,
        ];
        assert!(all.is_sorted() && Level::FIRST < Level::SERVERS);
        assert_eq!(Level::HERE.0 - Level::VIAS.0, u32::from(next));
        assert_eq!(Runs::here().version.ends_with("+next"), next);
    }
}
