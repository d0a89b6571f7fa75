//! The ports of a virtual server.

use crate::excerpt;
use crate::text::as_text;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Every port.
const ANY: &str = "any";

/// One port, some in a row, or all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Ports {
    first: u16,
    last: u16,
}

/// Why a text says no ports.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} says no ports: use one such as 80, some in a row such as 8000-8010, or any")]
pub struct PortsError(String);

impl Ports {
    /// All of them.
    pub const ANY: Self = Self { first: 1, last: u16::MAX };

    /// The only one, if it is one.
    #[must_use]
    pub fn single(self) -> Option<u16> {
        (self.first == self.last).then_some(self.first)
    }

    /// The first and the last.
    #[must_use]
    pub const fn bounds(self) -> (u16, u16) {
        (self.first, self.last)
    }

    /// As prefixes of 16 bits: each the first port that it covers, and how many of its
    /// bits are the same for all of those.
    #[must_use]
    pub fn prefixes(self) -> Vec<(u16, u32)> {
        let (mut next, last) = (u32::from(self.first), u32::from(self.last));
        let mut prefixes = vec![];
        while next <= last {
            // The largest block that begins here and does not go beyond.
            let open = next.trailing_zeros().min((last + 1 - next).ilog2());
            prefixes.push((u16::try_from(next).unwrap_or_default(), u16::BITS - open));
            next += 1 << open;
        }
        prefixes
    }

    /// Whether both have one.
    #[must_use]
    pub const fn overlaps(self, other: Self) -> bool {
        self.first <= other.last && other.first <= self.last
    }
}

impl From<u16> for Ports {
    /// This one alone.
    fn from(port: u16) -> Self {
        Self { first: port, last: port }
    }
}

impl FromStr for Ports {
    type Err = PortsError;

    fn from_str(text: &str) -> Result<Self, PortsError> {
        if text == ANY {
            return Ok(Self::ANY);
        }
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let port = |text: &str| text.parse::<u16>().ok().filter(|port| *port > 0);
        let ports = port(first).zip(port(last)).filter(|(first, last)| first <= last);
        let (first, last) = ports.ok_or_else(|| PortsError(excerpt(text)))?;
        Ok(Self { first, last })
    }
}

as_text!(Ports, PortsError);

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::ANY {
            return f.pad(ANY);
        }
        match self.single() {
            Some(port) => f.pad(&port.to_string()),
            None => f.pad(&format!("{}-{}", self.first, self.last)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ports(text: &str) -> Ports {
        text.parse().expect("ports")
    }

    #[test]
    fn ports_are_read_as_they_are_written() {
        for text in ["80", "8000-8010", "any", "65535", "1-2"] {
            assert_eq!(ports(text).to_string(), text);
        }
        assert_eq!(ports("80-80"), ports("80"));
        assert_eq!(ports("1-65535"), Ports::ANY);
        for bad in ["", "0", "0-9", "9-8", "65536", "http", "80-", "-80", "1-2-3", "80,81"] {
            assert!(bad.parse::<Ports>().is_err(), "{bad}");
        }
        assert_eq!((ports("7").single(), ports("7-8").single()), (Some(7), None));
        assert_eq!(ports("7-8").bounds(), (7, 8));
    }

    #[test]
    fn prefixes_cover_each_port_once_and_no_other() {
        for text in ["80", "8000-8010", "any", "65535", "1-2", "32768-65535", "7-9"] {
            let ports = ports(text);
            let covered = ports.prefixes().into_iter().flat_map(|(first, bits)| {
                let first = u32::from(first);
                assert_eq!(first % (1 << (16 - bits)), 0, "{text}: {first}/{bits}");
                first..first + (1 << (16 - bits))
            });
            let (first, last) = ports.bounds();
            assert!(covered.eq(u32::from(first)..=u32::from(last)), "{text}");
        }
        assert_eq!(ports("8-15").prefixes(), [(8, 13)]);
        assert_eq!(ports("any").prefixes().len(), 16);
    }

    #[test]
    fn ports_overlap_where_both_have_one() {
        let overlap = |one: &str, other: &str| {
            let (one, other) = (ports(one), ports(other));
            assert_eq!(one.overlaps(other), other.overlaps(one));
            one.overlaps(other)
        };
        assert!(overlap("80", "80") && overlap("80", "any") && overlap("1-80", "80-90"));
        assert!(overlap("1-9", "3-4"));
        assert!(!overlap("80", "81") && !overlap("1-79", "80-90"));
    }
}
