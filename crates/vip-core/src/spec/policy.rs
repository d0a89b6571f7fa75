//! What becomes of a virtual server of which too few real servers are up.

use super::real::RealSpec;
use crate::excerpt;
use crate::text::as_text;
use crate::words::words;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Most real servers that can be asked for: as many as there can be.
const MOST: u16 = 1000;

/// How many real servers have to be up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Quorum {
    /// With fewer it counts as down.
    pub up: u16,
    /// With so many more it is back, or with all that there are.
    pub hysteresis: u16,
}

impl Default for Quorum {
    fn default() -> Self {
        Self { up: 1, hysteresis: 0 }
    }
}

/// Why a text says no quorum.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no quorum: use N or N,HYSTERESIS, such as 2 or 2,1; N is 1 to {MOST}")]
pub struct QuorumError(String);

impl FromStr for Quorum {
    type Err = QuorumError;

    fn from_str(text: &str) -> Result<Self, QuorumError> {
        let (up, hysteresis) = text.split_once(',').unwrap_or((text, "0"));
        let number = |text: &str| text.parse::<u16>().ok().filter(|number| *number <= MOST);
        let both = number(up).filter(|up| *up > 0).zip(number(hysteresis));
        let (up, hysteresis) = both.ok_or_else(|| QuorumError(excerpt(text)))?;
        Ok(Self { up, hysteresis })
    }
}

as_text!(Quorum, QuorumError);

impl fmt::Display for Quorum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { up, hysteresis } = self;
        if *hysteresis == 0 { write!(f, "{up}") } else { write!(f, "{up},{hysteresis}") }
    }
}

/// Where clients go who find no quorum and no sorry server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AllDown {
    /// Nowhere: what they send is dropped.
    #[default]
    Drop,
    /// To those that are up, or if none is to those that were last, down as they may be.
    KeepLast,
}

words!(AllDown, "way with all real servers down" { Drop => "drop", KeepLast => "keep-last" });

/// What becomes of the connections of a real server that is down.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnDown {
    /// They go to those that are up, who reset them; where none is they are dropped.
    #[default]
    Leave,
    /// Where none is up the holder resets them.
    Reset,
}

words!(OnDown, "way with a real server that is down" { Leave => "leave", Reset => "reset" });

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Policy {
    #[serde(skip_serializing_if = "is_usual")]
    pub quorum: Quorum,
    /// Takes everybody while there is no quorum. Nothing checks it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sorry: Option<RealSpec>,
    #[serde(skip_serializing_if = "is_usual")]
    pub all_down: AllDown,
    #[serde(skip_serializing_if = "is_usual")]
    pub on_down: OnDown,
}

fn is_usual<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl Policy {
    /// Whether it is what nobody has to ask for.
    #[must_use]
    pub fn is_usual(&self) -> bool {
        is_usual(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quorum_is_written_as_it_is_read() {
        for (text, up, hysteresis) in [("1", 1, 0), ("2,1", 2, 1), ("1000", 1000, 0)] {
            let quorum = Quorum { up, hysteresis };
            assert_eq!(text.parse(), Ok(quorum));
            assert_eq!(quorum.to_string(), text);
        }
        for bad in ["", "0", "1,", "-1", "1001", "2,1,1", "two"] {
            assert_eq!(bad.parse::<Quorum>(), Err(QuorumError(bad.to_owned())), "{bad}");
        }
        assert_eq!(serde_json::to_string(&Policy::default()).expect("written"), "{}");
    }
}
