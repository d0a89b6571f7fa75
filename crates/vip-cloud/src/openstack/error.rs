//! Why a call came to nothing.

use crate::http::Answer;
use serde_json::Value;

const CHANGED: &str = "it changed since it was looked at";

/// Why nothing came of a call, or nobody knows.
#[derive(Debug, thiserror::Error)]
pub(super) enum CallError {
    /// It answered that it does not.
    #[error("OpenStack {what}: HTTP {status}: {message}")]
    Api { what: &'static str, status: u16, message: String },
    #[error("{0}")]
    Other(String),
}

impl CallError {
    /// By an answer.
    pub(super) fn refused(what: &'static str, answer: &Answer) -> Self {
        let message = message(&answer.body).unwrap_or_else(|| match answer.status {
            412 => CHANGED.to_owned(),
            _ => "it says nothing that can be read".to_owned(),
        });
        Self::Api { what, status: answer.status, message }
    }

    /// It is not as it was seen.
    pub(super) fn changed() -> Self {
        Self::Api { what: "port", status: 412, message: CHANGED.to_owned() }
    }

    /// Nobody knows.
    pub(super) fn is_unheard(&self) -> bool {
        matches!(self, Self::Other(_)) || self.is_busy()
    }

    /// Others fare no better now, or it is tried again.
    pub(super) fn is_busy(&self) -> bool {
        matches!(self, Self::Api { status, .. } if matches!(status, 412 | 429 | 500..))
    }

    /// There is no such thing.
    pub(super) fn is_unknown(&self) -> bool {
        matches!(self, Self::Api { status: 404, .. })
    }
}

/// What Neutron, or whoever stands before it, says of a refusal.
fn message(body: &str) -> Option<String> {
    let body: Value = serde_json::from_str(body).ok()?;
    let said = ["NeutronError", "error"].iter().map(|key| &body[*key]);
    said.filter_map(|error| error["message"].as_str().or_else(|| error.as_str()))
        .find(|text| !text.is_empty())
        .map(ToOwned::to_owned)
}
