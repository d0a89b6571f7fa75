//! A check in words: as it is written on the command line, and in the log.

use super::error::CheckKindError;
use serde::{Deserialize, Serialize};
use std::net::Ipv6Addr;

/// See the module. What is absent is as usual.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CheckWords {
    /// tcp, `http:/PATH`, and so on.
    pub kind: String,
    /// What has to come back: statuses, an answer, bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expect: Option<String>,
    /// Of HTTP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// Of HTTP: whom is asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Of HTTP: `Name: value`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<String>,
    /// A text that an answer by HTTP has to contain.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    /// SHA-256 of the body of an answer by HTTP, in hex.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// Whose certificate is good.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<String>,
    /// Which name the certificate has to have.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sni: Option<String>,
}

impl CheckWords {
    /// A kind alone.
    #[must_use]
    pub fn of(kind: &str) -> Self {
        Self { kind: kind.to_owned(), ..Self::default() }
    }

    /// The kind's own word, without what follows it.
    #[must_use]
    pub fn word(&self) -> &str {
        self.kind.split(':').next().unwrap_or_default()
    }

    /// What is left of it when a kind has taken what it looks at: nothing.
    pub(super) fn end(self) -> Result<(), CheckKindError> {
        let kind = self.word().to_owned();
        let Self { kind: _, expect, method, host, headers, body, digest, tls, sni } = self;
        let said = [
            ("expect", expect.is_some()),
            ("method", method.is_some()),
            ("host", host.is_some()),
            ("header", !headers.is_empty()),
            ("body", body.is_some()),
            ("digest", digest.is_some()),
            ("tls", tls.is_some()),
            ("sni", sni.is_some()),
        ];
        match said.into_iter().find(|(_, is_said)| *is_said) {
            Some((what, _)) => Err(CheckKindError::NotFor { what, kind }),
            None => Ok(()),
        }
    }
}

/// Longest path, header or text of a body: a log entry is no place for more.
const MAX_TEXT: usize = 1024;

/// A text that can stand in a line of HTTP.
pub(super) fn visible(
    what: &'static str,
    text: String,
    is_good: impl Fn(char) -> bool,
    instead: &'static str,
) -> Result<String, CheckKindError> {
    let is_good = !text.is_empty() && text.len() <= MAX_TEXT && text.chars().all(is_good);
    if is_good { Ok(text) } else { Err(CheckKindError::bad(what, &text, instead)) }
}

/// Longest name, and part of one (RFC 1035, section 2.3.4).
const MAX_NAME: usize = 253;
const MAX_LABEL: usize = 63;

/// Whether it is a name that resolvers and certificates know, with or without the last dot.
pub(super) fn is_name(text: &str) -> bool {
    let is_good = |label: &str| {
        let letters = |letter: char| letter.is_ascii_alphanumeric() || "-_".contains(letter);
        (1..=MAX_LABEL).contains(&label.len())
            && label.chars().all(letters)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let bare = text.strip_suffix('.').unwrap_or(text);
    bare.len() <= MAX_NAME && bare.split('.').all(is_good)
}

/// A name, or an address; where one is asked for by HTTP with its port, too.
pub(super) fn host(
    what: &'static str,
    text: String,
    may_have_port: bool,
) -> Result<String, CheckKindError> {
    let is_port = |port: &str| port.parse::<u16>().is_ok_and(|port| port > 0);
    let is_v6 = |text: &str| text.parse::<Ipv6Addr>().is_ok();
    let bracketed = text.strip_prefix('[').and_then(|rest| rest.split_once(']'));
    let is_good = match (bracketed, text.rsplit_once(':')) {
        (Some((ip, rest)), _) => {
            let rest_is_good = rest.is_empty() || rest.strip_prefix(':').is_some_and(is_port);
            may_have_port && is_v6(ip) && rest_is_good
        }
        (None, Some(_)) if is_v6(&text) => !may_have_port,
        (None, Some((name, port))) => may_have_port && is_name(name) && is_port(port),
        (None, None) => is_name(&text),
    };
    let instead = "a host's name or address";
    if is_good { Ok(text) } else { Err(CheckKindError::bad(what, &text, instead)) }
}

const HEX: &str = "bytes in hex, such as 0aff";

/// Most bytes that are sent, or looked for, in a datagram.
const MAX_BYTES: usize = 512;

pub(super) fn bytes(what: &'static str, text: &str) -> Result<Vec<u8>, CheckKindError> {
    let bytes = data_encoding::HEXLOWER_PERMISSIVE.decode(text.as_bytes());
    let good = bytes.ok().filter(|bytes| (1..=MAX_BYTES).contains(&bytes.len()));
    good.ok_or_else(|| CheckKindError::bad(what, text, HEX))
}

pub(super) fn hex(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(bytes)
}
