//! What an examination of this host finds, for `vipctl doctor`.

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

    pub(crate) fn ill(text: impl Into<String>) -> Self {
        Self { is_well: false, text: text.into() }
    }
}
