//! Who is told where a VIP is, and changes only what a token names, never does what an
//! earlier epoch's holder asked for after it did what a later one's did.

use super::Violation;
use crate::clock::Real;
use vip_core::{Epoch, VipUid};

/// A call of `epoch` is about to be done; `by`: what was done last.
pub(crate) fn check(
    at: Real,
    (vip, host): (VipUid, usize),
    by: Epoch,
    epoch: Epoch,
) -> Result<(), Violation> {
    if epoch >= by {
        return Ok(());
    }
    let what = format!("VIP {vip} goes to host {host} under epoch {epoch}, after {by}");
    Err(Violation { rule: "late_call_never_wins", at, what })
}
