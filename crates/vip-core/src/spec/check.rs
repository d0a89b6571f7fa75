//! How real servers are checked, as a person says it.

use crate::text::as_text;
use crate::{CheckTiming, Name, excerpt};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// What a probe does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum CheckKind {
    /// Opens a connection, and ends it.
    Tcp,
}

/// Kinds that a later version may have.
const LATER: [&str; 7] = ["http", "https", "grpc", "dns", "udp", "icmp", "exec"];

/// Why a text is no kind of check.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CheckKindError {
    /// There is none of this name.
    #[error("{0:?} is no kind of check: use tcp, or none")]
    Unknown(String),
    /// Not in this version.
    #[error("checks by {0} are in no version yet: use tcp, or none")]
    NotYet(&'static str),
}

impl FromStr for CheckKind {
    type Err = CheckKindError;

    fn from_str(text: &str) -> Result<Self, CheckKindError> {
        let word = text.split(':').next().unwrap_or_default();
        match LATER.into_iter().find(|later| *later == word) {
            Some(later) => Err(CheckKindError::NotYet(later)),
            None if text == "tcp" => Ok(Self::Tcp),
            None => Err(CheckKindError::Unknown(excerpt(text))),
        }
    }
}

as_text!(CheckKind, CheckKindError);

impl fmt::Display for CheckKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp => f.write_str("tcp"),
        }
    }
}

/// How the real servers of a virtual one are checked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckSpec {
    pub kind: CheckKind,
    #[serde(flatten)]
    pub timing: CheckTiming,
    /// `None`: where connections go.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// The nodes that may observe; empty: all active ones.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub observers: Vec<Name>,
}

impl From<CheckKind> for CheckSpec {
    fn from(kind: CheckKind) -> Self {
        Self { kind, timing: CheckTiming::default(), port: None, observers: vec![] }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_is_written_as_it_is_read_and_others_are_refused_by_name() {
        assert_eq!("tcp".parse::<CheckKind>().map(|kind| kind.to_string()), Ok("tcp".to_owned()));
        for (later, name) in [("http:/ready", "http"), ("exec:NAME,ARG", "exec"), ("icmp", "icmp")]
        {
            assert_eq!(later.parse::<CheckKind>(), Err(CheckKindError::NotYet(name)));
        }
        for bad in ["", "TCP", "tcp:80", "ping"] {
            let error = bad.parse::<CheckKind>().expect_err(bad);
            assert_eq!(error, CheckKindError::Unknown(bad.to_owned()));
        }
    }

    /// As the log has it: a version of later reads it, and what nobody said is not there.
    #[test]
    fn what_the_log_keeps_of_a_check() {
        let check = CheckSpec::from(CheckKind::Tcp);
        let text = serde_json::to_string(&check).expect("written");
        assert_eq!(
            text,
            r#"{"kind":"tcp","interval_ms":2000,"timeout_ms":1000,"rise":1,"fall":3}"#
        );
        assert_eq!(serde_json::from_str::<CheckSpec>(&text).expect("read"), check);
    }
}
