//! Why what somebody says of a check is none.

use crate::excerpt;
use crate::words::UnknownWord;

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CheckKindError {
    /// There is none of this name.
    #[error(
        "{0:?} is no kind of check: use tcp, http:/PATH, https:/PATH, grpc[:SERVICE], \
         dns:NAME/TYPE, udp:HEX, icmp, exec:NAME[,ARGUMENT,..] or none"
    )]
    Unknown(String),
    /// Something that this kind does not look at.
    #[error("a check by {kind} has no {what}: leave --check-{what} out")]
    NotFor {
        what: &'static str,
        /// The kind's word.
        kind: String,
    },
    /// A text that says something else than it should.
    #[error("{text:?} is no {what} of a check: use {instead}")]
    Bad {
        what: &'static str,
        text: String,
        /// What would be one.
        instead: &'static str,
    },
    /// A word that means nothing where it stands.
    #[error(transparent)]
    Word(#[from] UnknownWord),
    /// The log would keep it, on every node, for good.
    #[error(
        "the header {0} carries a secret, and the log keeps what a check sends: let the real \
         server answer its checks without one"
    )]
    Secret(String),
    /// Two words of one thing.
    #[error(
        "a check looks at a text of the body or at its digest: take the other one back, with \
         --check-body \"\" or --check-digest \"\""
    )]
    BodyAndDigest,
    /// There is none to look at.
    #[error(
        "an answer to HEAD has no body: take what is wanted of it back, with --check-body \"\" or \
         --check-digest \"\""
    )]
    NoBody,
    /// Too many.
    #[error("{count} of {what}: at most {most}")]
    TooMany {
        what: &'static str,
        count: usize,
        /// How many may be.
        most: usize,
    },
}

impl CheckKindError {
    pub(super) fn bad(what: &'static str, text: &str, instead: &'static str) -> Self {
        Self::Bad { what, text: excerpt(text), instead }
    }
}
