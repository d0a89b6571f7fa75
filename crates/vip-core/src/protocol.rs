//! Which form of RPCs and lease messages a version of vipd speaks with other nodes.
//!
//! Each call says so in its user agent (RFC 9110 section 10.1.5). Any two neighbouring
//! versions speak with each other; others are refused in words, rather than
//! misunderstood. What the log keeps has levels of its own ([`Level`](crate::Level)).

use std::fmt;

/// From the oldest that a version still speaks to its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Protocols {
    oldest: u32,
    newest: u32,
}

/// In a user agent, before the numbers.
const MARK: &str = "protocol/";

/// A node that this one must not be understood by, nor understand: what it speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the node that calls speaks protocols {0}, and the one that is called {here}: their versions \
     of vipd are no neighbours; go there by one in between",
    here = Protocols::HERE
)]
pub struct Foreign(Protocols);

impl Protocols {
    /// Those of this version.
    pub const HERE: Self =
        Self { oldest: 1, newest: if cfg!(feature = "next-version") { 2 } else { 1 } };

    /// Those of versions that did not say.
    const FIRST: Self = Self { oldest: 1, newest: 1 };

    /// What this version says of itself with each call.
    #[must_use]
    pub fn user_agent() -> String {
        format!("vipd/{} {MARK}{}", crate::Runs::here().version, Self::HERE)
    }

    /// What a caller says of itself.
    fn of_user_agent(text: &str) -> Option<Self> {
        let (_, numbers) = text.split_once(MARK)?;
        let (oldest, rest) = numbers.split_once('-')?;
        let newest = rest.split(' ').next()?;
        Some(Self { oldest: oldest.parse().ok()?, newest: newest.parse().ok()? })
    }

    /// Whether a node of `self` and one of `other` understand each other.
    fn meets(self, other: Self) -> bool {
        self.newest >= other.oldest && other.newest >= self.oldest
    }

    /// Whether this node may speak with one whose user agent this is.
    ///
    /// # Errors
    /// [`Foreign`].
    pub fn check(user_agent: Option<&str>) -> Result<(), Foreign> {
        let theirs = user_agent.and_then(Self::of_user_agent).unwrap_or(Self::FIRST);
        if theirs.meets(Self::HERE) { Ok(()) } else { Err(Foreign(theirs)) }
    }
}

impl fmt::Display for Protocols {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.oldest, self.newest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn from_to(oldest: u32, newest: u32) -> Protocols {
        Protocols { oldest, newest }
    }

    #[test]
    fn what_a_node_says_is_understood_by_its_like() {
        let said = format!("{} tonic/0.14.9", Protocols::user_agent());
        assert_eq!(Protocols::of_user_agent(&said), Some(Protocols::HERE));
        assert_eq!(Protocols::check(Some(&said)), Ok(()));
    }

    #[test]
    fn neighbours_understand_each_other_and_others_do_not() {
        for (one, other, meet) in [
            (from_to(1, 1), from_to(1, 1), true),
            (from_to(1, 2), from_to(1, 1), true),
            (from_to(2, 3), from_to(1, 2), true),
            (from_to(2, 3), from_to(1, 1), false),
            (from_to(3, 4), from_to(1, 2), false),
        ] {
            assert_eq!((one.meets(other), other.meets(one)), (meet, meet), "{one} {other}");
        }
    }

    #[test]
    fn who_speaks_otherwise_is_told_so() {
        let error = Protocols::check(Some("vipd/9.0 protocol/8-9")).expect_err("too new");
        let said = "the node that calls speaks protocols 8-9, and the one that is called 1-";
        assert!(error.to_string().starts_with(said), "{error}");
        let error = Protocols::check(Some("vipd/0.0 protocol/0-0")).expect_err("too old");
        assert_eq!(error, Foreign(from_to(0, 0)));
        for nothing in
            [None, Some(""), Some("grpc-python/1.0"), Some("protocol/"), Some("protocol/1-x")]
        {
            assert_eq!(Protocols::check(nothing), Ok(()), "{nothing:?}");
        }
    }
}
