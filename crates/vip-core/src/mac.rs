//! Ethernet addresses.

use crate::excerpt;
use crate::text::as_text;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// An Ethernet address (EUI-48).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Mac(pub [u8; 6]);

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Not an Ethernet address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no Ethernet address such as 02:00:00:00:00:01")]
pub struct MacError(String);

impl FromStr for Mac {
    type Err = MacError;

    fn from_str(text: &str) -> Result<Self, MacError> {
        let error = || MacError(excerpt(text));
        let mut bytes = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            let part = parts.next().filter(|part| part.len() == 2).ok_or_else(error)?;
            *byte = u8::from_str_radix(part, 16).map_err(|_| error())?;
        }
        parts.next().is_none().then_some(Self(bytes)).ok_or_else(error)
    }
}

as_text!(Mac, MacError);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mac_is_read_as_it_is_written() {
        let mac = Mac([2, 0, 0xa, 0xff, 0, 9]);
        assert_eq!(mac.to_string(), "02:00:0a:ff:00:09");
        assert_eq!(mac.to_string().parse(), Ok(mac));
        assert_eq!(format!("{mac:?}"), "02:00:0a:ff:00:09");
        let json = serde_json::to_string(&mac).expect("text");
        assert_eq!(
            (json.as_str(), serde_json::from_str(&json).ok()),
            ("\"02:00:0a:ff:00:09\"", Some(mac))
        );
        for bad in
            ["", "02:00:0a:ff:00", "02:00:0a:ff:00:09:01", "2:0:a:ff:0:9", "02:00:0a:ff:00:0g"]
        {
            assert!(bad.parse::<Mac>().is_err(), "{bad}");
        }
    }
}
