//! How a network is told on which node a VIP is.

use super::check::is_file_name;
use crate::words::words;
use crate::{Level, excerpt};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The program's name, in the folder of such programs.
const FILE: &str = "file";
/// See the module.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Via {
    /// By gratuitous ARP and unsolicited neighbour advertisements, in its own subnet.
    #[default]
    Garp,
    /// Not at all: a load balancer asks the nodes.
    Lb,
    /// By a program of the operator's own.
    Exec,
}

words!(Via, "way to move a VIP" { Garp => "garp", Lb => "lb", Exec => "exec" });

impl Via {
    /// Whether neighbours resolve its addresses. Of others nobody asks by ARP, so nobody is
    /// asked or told by it, and they are on loopback, where no kernel answers for them.
    #[must_use]
    pub const fn is_resolved(self) -> bool {
        match self {
            Self::Garp | Self::Exec => true,
            Self::Lb => false,
        }
    }

    /// Whether somebody has to be told before its holder answers, who takes a while.
    #[must_use]
    pub const fn is_called(self) -> bool {
        match self {
            Self::Garp | Self::Lb => false,
            Self::Exec => true,
        }
    }

    /// Checks what is said beside it.
    ///
    /// # Errors
    /// What is wrong, as the rest of a sentence.
    pub(super) fn check(self, params: &BTreeMap<String, String>) -> Result<(), String> {
        let known: &[&str] = match self {
            Self::Garp | Self::Lb => &[],
            Self::Exec => &[FILE],
        };
        if let Some(other) = params.keys().find(|key| !known.contains(&key.as_str())) {
            return Err(format!("--via {self} takes no parameter {:?}", excerpt(other)));
        }
        if let Some(missing) = known.iter().find(|key| !params.contains_key(**key)) {
            return Err(format!("--via {self} wants --param {missing}=.."));
        }
        match params.get(FILE) {
            Some(file) if !is_file_name(file) => Err(format!(
                "{:?} names no program: letters, digits, '.', '_' and '-', and no '.' at first",
                excerpt(file)
            )),
            _ => Ok(()),
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
            Self::Lb | Self::Exec => Level::VIAS,
        }
    }
}
