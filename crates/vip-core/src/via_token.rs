//! What a holder saw of where a VIP is, before it changes that.

use crate::Epoch;
use serde::{Deserialize, Serialize};

/// What names the state that a holder saw, to those who have to know where a VIP is: they
/// change that state alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ViaToken {
    /// The holder's.
    pub epoch: Epoch,
    /// Of the look: the same state may be seen twice, and be changed in between.
    pub number: u64,
    /// As they say it.
    pub text: String,
}

/// Longest that is kept: it is in every state.
pub const MAX_TOKEN: usize = 256;
