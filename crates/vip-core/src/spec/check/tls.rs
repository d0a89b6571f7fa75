//! How a check speaks TLS.

use super::error::CheckKindError;
use super::words::{CheckWords, hex, host};
use std::fmt;

/// SHA-256 of something.
pub type Digest = [u8; 32];

/// Most certificates of which one has to be shown: one of each of as many real servers.
const MAX_PINS: usize = 16;
const PINNED: &str = "sha256:";

/// Whose certificates are good.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Trust {
    /// Those that go back to a root that the observer's host trusts.
    #[default]
    Roots,
    /// All.
    Anyone,
    /// These, by what they are as a whole.
    Pinned(Vec<Digest>),
}

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tls {
    pub trust: Trust,
    /// Which name is asked for, and has to stand in the certificate; `None`: the host that
    /// is asked for, or the address.
    pub name: Option<String>,
}

impl Trust {
    fn read(text: &str) -> Result<Self, CheckKindError> {
        let bad = || {
            let instead = "verify, skip, or sha256:HEX[,HEX] of certificates";
            CheckKindError::bad("trust", text, instead)
        };
        match text {
            "verify" => return Ok(Self::Roots),
            "skip" => return Ok(Self::Anyone),
            _ => {}
        }
        let pins = text.strip_prefix(PINNED).ok_or_else(bad)?;
        let pins: Vec<_> =
            pins.split(',').map(|one| digest("pin", one)).collect::<Result<_, _>>()?;
        if pins.len() > MAX_PINS {
            let (what, count, most) = ("pins", pins.len(), MAX_PINS);
            return Err(CheckKindError::TooMany { what, count, most });
        }
        Ok(Self::Pinned(pins))
    }
}

impl fmt::Display for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Roots => f.write_str("verify"),
            Self::Anyone => f.write_str("skip"),
            Self::Pinned(pins) => {
                let pins: Vec<_> = pins.iter().map(|pin| hex(pin)).collect();
                write!(f, "{PINNED}{}", pins.join(","))
            }
        }
    }
}

pub(super) fn digest(what: &'static str, text: &str) -> Result<Digest, CheckKindError> {
    // As openssl writes fingerprints, too.
    let bare = text.replace(':', "");
    let bytes = data_encoding::HEXLOWER_PERMISSIVE.decode(bare.as_bytes()).ok();
    let digest = bytes.and_then(|bytes| Digest::try_from(bytes).ok());
    digest.ok_or_else(|| CheckKindError::bad(what, text, "a SHA-256 in hex"))
}

impl Tls {
    /// What the words say of it.
    pub(super) fn take(words: &mut CheckWords) -> Result<Self, CheckKindError> {
        let trust = words.tls.take().map(|text| Trust::read(&text)).transpose()?;
        let name = words.sni.take().map(|name| host("sni", name, false)).transpose()?;
        Ok(Self { trust: trust.unwrap_or_default(), name })
    }

    pub(super) fn say(&self, words: &mut CheckWords) {
        words.tls = Some(&self.trust).filter(|trust| **trust != Trust::Roots).map(Trust::to_string);
        words.sni.clone_from(&self.name);
    }
}
