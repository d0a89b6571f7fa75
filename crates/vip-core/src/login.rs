//! People: what a role may, and who has a certificate.

use crate::{Name, excerpt};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// What a person may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AdminRole {
    /// Look.
    Viewer,
    /// Move, add and remove VIPs; drain.
    Operator,
    /// Everything: members and tokens too.
    Admin,
}

impl AdminRole {
    /// As in certificates and on the command line.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for AdminRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for AdminRole {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        [Self::Viewer, Self::Operator, Self::Admin]
            .into_iter()
            .find(|r| r.as_str() == text)
            .ok_or_else(|| format!("{:?} is no role: use viewer, operator or admin", excerpt(text)))
    }
}

/// A certificate that a person was given. What is not listed is no login,
/// whoever signed it: a stolen issuing key makes none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Login {
    /// Who.
    pub user: Name,
    /// What they may.
    pub role: AdminRole,
    /// SHA-256 of the public key (SPKI), hex.
    pub spki: String,
    /// Until when, log time in ms since 1970.
    pub expires_ms: u64,
    /// The key (SPKI hash) of the CA that signed it.
    #[serde(default)]
    pub issuer: String,
    /// Who issued it.
    pub issued_by: String,
}
