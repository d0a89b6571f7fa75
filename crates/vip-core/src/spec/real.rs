//! A real server, as a person writes it.

use crate::text::as_text;
use crate::{excerpt, no_peer};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

/// Largest weight: what is heavier beside others would leave them hardly a slot.
pub(super) const MAX_WEIGHT: u16 = 256;
/// The same in words.
pub(super) const WEIGHTS: &str = "0 to 256";

/// `ADDR[:PORT][@WEIGHT]`, an IPv6 address with a port in brackets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RealSpec {
    /// Where it is.
    pub ip: IpAddr,
    /// Its own port; `None`: the one that the client named.
    pub port: Option<u16>,
    /// Its share beside the others'; 0: no new connections.
    pub weight: u16,
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

impl RealServer {
    /// Its address and port.
    #[must_use]
    pub const fn place(&self) -> (IpAddr, u16) {
        (self.ip, self.port)
    }
}

/// Why a text is no real server.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RealSpecError {
    /// Not of this form.
    #[error(
        "{0:?} is no real server: use ADDR[:PORT][@WEIGHT], such as 192.0.2.7:8080 or \
         [2001:db8::7]:8080@3; weights are {WEIGHTS}"
    )]
    Syntax(String),
    /// An address where no other host can be.
    #[error("{0} cannot be a real server: it is {1}")]
    Unfit(IpAddr, &'static str),
}

/// An address, in brackets or not, and a port.
fn place(text: &str) -> Option<(IpAddr, Option<u16>)> {
    if let Some((ip, rest)) = text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        let ip: Ipv6Addr = ip.parse().ok()?;
        return match rest.strip_prefix(':') {
            Some(port) => Some((ip.into(), Some(port.parse().ok()?))),
            None => rest.is_empty().then_some((ip.into(), None)),
        };
    }
    if let Ok(ip) = text.parse() {
        return Some((ip, None));
    }
    let (ip, port) = text.split_once(':')?;
    Some((IpAddr::V4(ip.parse().ok()?), Some(port.parse().ok()?)))
}

impl FromStr for RealSpec {
    type Err = RealSpecError;

    fn from_str(text: &str) -> Result<Self, RealSpecError> {
        let syntax = || RealSpecError::Syntax(excerpt(text));
        let (before, weight) = match text.split_once('@') {
            Some((before, weight)) => (before, weight.parse().map_err(|_| syntax())?),
            None => (text, 1),
        };
        let (ip, port) = place(before).ok_or_else(syntax)?;
        if port == Some(0) || weight > MAX_WEIGHT {
            return Err(syntax());
        }
        match no_peer(ip) {
            Some(kind) => Err(RealSpecError::Unfit(ip, kind)),
            None => Ok(Self { ip, port, weight }),
        }
    }
}

as_text!(RealSpec, RealSpecError);

impl fmt::Display for RealSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.ip, self.port) {
            (ip, None) => write!(f, "{ip}")?,
            (IpAddr::V4(ip), Some(port)) => write!(f, "{ip}:{port}")?,
            (IpAddr::V6(ip), Some(port)) => write!(f, "[{ip}]:{port}")?,
        }
        if self.weight != 1 {
            write!(f, "@{}", self.weight)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_real_server_is_written_as_it_is_read() {
        for text in [
            "192.0.2.7",
            "192.0.2.7:8080",
            "192.0.2.7@0",
            "192.0.2.7:8080@256",
            "2001:db8::7",
            "[2001:db8::7]:8080",
            "[2001:db8::7]:8080@3",
            "2001:db8::7@2",
        ] {
            assert_eq!(text.parse::<RealSpec>().map(|real| real.to_string()), Ok(text.to_owned()));
        }
        let plain: RealSpec = "[2001:db8::7]@1".parse().expect("a real server");
        assert_eq!(plain.to_string(), "2001:db8::7");
    }

    #[test]
    fn what_is_no_real_server_is_refused_with_the_form() {
        for bad in [
            "",
            "web",
            "192.0.2.7:",
            "192.0.2.7:0",
            "192.0.2.7:65536",
            "192.0.2.7@",
            "192.0.2.7@-1",
            "192.0.2.7@257",
            "192.0.2.7/24",
            "[192.0.2.7]:80",
            "[2001:db8::7]80",
            "[2001:db8::7",
            "192.0.2.7:80:81",
            "192.0.2.7@1@2",
        ] {
            let error = bad.parse::<RealSpec>().expect_err(bad);
            assert!(matches!(error, RealSpecError::Syntax(_)), "{bad}: {error}");
        }
        for unfit in
            ["127.0.0.1", "169.254.169.254:80", "224.0.0.1", "[fe80::1]:80", "::1", "0.0.0.0"]
        {
            let error = unfit.parse::<RealSpec>().expect_err(unfit);
            assert!(matches!(error, RealSpecError::Unfit(..)), "{unfit}: {error}");
        }
    }
}
