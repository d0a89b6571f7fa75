//! Identifiers, each a type of its own so that they cannot be mixed up.

use serde::{Deserialize, Serialize};
use std::fmt;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
        )]
        #[serde(transparent)]
        pub struct $name(pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

id! {
    /// A member of the cluster. Given by the log, never used twice.
    NodeId
}
id! {
    /// A VIP for as long as it exists. A VIP removed and added again under the
    /// same name gets a new one, so that fencing never mixes the two.
    VipUid
}
id! {
    /// A virtual server for as long as it exists.
    ServerUid
}
id! {
    /// Counts what was wanted of a virtual server's table: a later one is higher.
    Generation
}
id! {
    /// Per-VIP fencing number: +1 at each change of holder.
    Epoch
}
id! {
    /// Raft's term, and nothing else.
    Term
}
id! {
    /// Random number of one session between an agent and its guard. An epoch
    /// is bound to the session it was first granted to, so that a grant or a
    /// release that was delayed can never speak for another session.
    Incarnation
}

impl Term {
    /// The term after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl Epoch {
    /// The epoch after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }

    /// The epoch before this one; epoch 0 is never granted and stays.
    #[must_use]
    pub fn previous(self) -> Self {
        Self(self.0.saturating_sub(1))
    }
}

/// Names a join token in lists, the log and error messages. Not secret.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TokenId(pub String);

impl fmt::Display for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// An epoch and the guard session it is bound to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Grantee {
    pub vip: VipUid,
    pub epoch: Epoch,
    /// The session.
    pub incarnation: Incarnation,
}
