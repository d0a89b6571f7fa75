//! Real servers by a DNS name, as a person writes them.

use super::real::{MAX_WEIGHT, RealSpec, WEIGHTS};
use crate::excerpt;
use crate::text::as_text;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// Most names of one virtual server: each is asked for again and again.
pub const MAX_NAMES: usize = 64;
/// Longest name, as text (RFC 1035 section 3.1 has 255 bytes with the lengths of labels).
const MAX_NAME: usize = 253;
/// Longest label (RFC 1035 section 2.3.4).
const MAX_LABEL: usize = 63;

/// A name from the root of DNS on: what a host's search list would make of a shorter one is
/// another thing on each host.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HostName(String);

/// `NAME[:PORT][@WEIGHT]`: each address that the name has is a real server.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NamedReal {
    pub name: HostName,
    /// Their own port; `None`: the one that the client named.
    pub port: Option<u16>,
    /// The share of each; 0: no new connections.
    pub weight: u16,
}

/// Why a text names no real servers.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NamedRealError {
    /// Not of this form.
    #[error(
        "{0:?} is no name of real servers: use NAME[:PORT][@WEIGHT] with a whole DNS name, such as \
         web.example.com:8080; weights are {WEIGHTS}"
    )]
    Syntax(String),
}

impl HostName {
    /// The name as text, without a dot at its end.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// A label of a host (RFC 1123 section 2.1), and the `_` that others are seen to have.
fn is_label(label: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    (1..=MAX_LABEL).contains(&label.len())
        && label.bytes().all(allowed)
        && !label.starts_with('-')
        && !label.ends_with('-')
}

impl FromStr for HostName {
    type Err = NamedRealError;

    fn from_str(text: &str) -> Result<Self, NamedRealError> {
        let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
        let last = name.rsplit_once('.').map(|(_, last)| last);
        let is_name = last.is_some_and(|last| !last.bytes().all(|b| b.is_ascii_digit()));
        if !is_name || name.len() > MAX_NAME || !name.split('.').all(is_label) {
            return Err(NamedRealError::Syntax(excerpt(text)));
        }
        Ok(Self(name))
    }
}

as_text!(HostName, NamedRealError);

impl FromStr for NamedReal {
    type Err = NamedRealError;

    fn from_str(text: &str) -> Result<Self, NamedRealError> {
        let syntax = || NamedRealError::Syntax(excerpt(text));
        let (before, weight) = match text.split_once('@') {
            Some((before, weight)) => (before, weight.parse().map_err(|_| syntax())?),
            None => (text, 1),
        };
        let (name, port) = match before.split_once(':') {
            Some((name, port)) => (name, Some(port.parse().map_err(|_| syntax())?)),
            None => (before, None),
        };
        if port == Some(0) || weight > MAX_WEIGHT {
            return Err(syntax());
        }
        Ok(Self { name: name.parse().map_err(|_| syntax())?, port, weight })
    }
}

as_text!(NamedReal, NamedRealError);

impl fmt::Display for NamedReal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.name)?;
        if let Some(port) = self.port {
            write!(f, ":{port}")?;
        }
        if self.weight != 1 {
            write!(f, "@{}", self.weight)?;
        }
        Ok(())
    }
}

impl NamedReal {
    /// Whether a person meant a name, and not an address.
    #[must_use]
    pub fn is_meant(text: &str) -> bool {
        let host = text.split(['@', ':']).next().unwrap_or_default();
        text.matches(':').count() < 2 && host.bytes().any(|b| b.is_ascii_alphabetic())
    }

    /// The real server at one of its addresses.
    #[must_use]
    pub const fn at(&self, ip: IpAddr) -> RealSpec {
        RealSpec { ip, port: self.port, weight: self.weight }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_written_as_it_is_read() {
        for text in ["web.example.com", "web.example.com:8080", "a-1._tcp.example.com:80@3"] {
            assert_eq!(text.parse::<NamedReal>().map(|real| real.to_string()), Ok(text.to_owned()));
            assert!(NamedReal::is_meant(text));
        }
        let upper: NamedReal = "Web.Example.COM.:80@1".parse().expect("a name");
        assert_eq!(upper.to_string(), "web.example.com:80");
        let at = upper.at([10, 0, 0, 1].into());
        assert_eq!(at.to_string(), "10.0.0.1:80");
    }

    #[test]
    fn what_is_no_whole_name_is_refused_with_the_form() {
        let (label, name) = ("a".repeat(64), format!("{}com", "abc.".repeat(63)));
        for bad in [
            "",
            "web",
            "localhost",
            ".com",
            "a..com",
            "-a.com",
            "a-.com",
            "a b.com",
            "a.com:",
            "a.com:0",
            "a.com:65536",
            "a.com@257",
            "a.com@",
            "10.0.0.1",
            "a.1",
            &format!("{label}.com"),
            &name,
        ] {
            assert!(bad.parse::<NamedReal>().is_err(), "{bad}");
        }
        for address in ["10.0.0.1:80", "[fd00::a]:80", "fd00::a", "fd00::a@2", "10.0.0.1@2"] {
            assert!(!NamedReal::is_meant(address), "{address}");
        }
    }
}
