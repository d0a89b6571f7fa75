//! What an examination of this host finds, for `vipctl doctor`.

use std::time::{Duration, SystemTime};

/// How far clocks may be apart: signatures are good for five minutes (AWS, "Signature Version
/// 4", elements of a request).
const CLOCKS_APART: Duration = Duration::from_secs(60);

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Whether VIPs can be moved with that.
    pub is_well: bool,
    /// What was found; if it is not well, with what to do.
    pub text: String,
}

impl Finding {
    pub(crate) fn well(text: impl Into<String>) -> Self {
        Self { is_well: true, text: text.into() }
    }

    /// If this host's clock and an API's are far apart.
    pub(crate) fn of_clocks(whose: &str, there: SystemTime) -> Option<Self> {
        let here = SystemTime::now();
        let apart = here.duration_since(there).or_else(|_| there.duration_since(here)).ok()?;
        (apart > CLOCKS_APART).then(|| {
            let apart = apart.as_secs();
            Self::ill(format!(
                "this host's clock and {whose}'s are {apart} s apart: what is signed is refused, \
                 or credentials are over too early, from some minutes on"
            ))
        })
    }

    pub(crate) fn ill(text: impl Into<String>) -> Self {
        Self { is_well: false, text: text.into() }
    }
}
