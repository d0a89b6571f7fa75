//! Who is told where a VIP is, and changes only what a token names, never does what an
//! earlier epoch's holder asked for after it did what a later one's did.

use super::Violation;
use crate::clock::Real;
use std::net::IpAddr;
use vip_core::{Epoch, VipUid};

/// A call for a VIP under an epoch is about to be done; `by`: what was done last. An address
/// may go from one VIP to another and back, whose epochs do not compare.
pub(crate) fn check(
    at: Real,
    (ip, host): (IpAddr, usize),
    by: (VipUid, Epoch),
    call: (VipUid, Epoch),
) -> Result<(), Violation> {
    let (vip, epoch) = call;
    if by.0 != vip || epoch >= by.1 {
        return Ok(());
    }
    let what = format!("{ip} goes to host {host} for VIP {vip} at epoch {epoch}, after {}", by.1);
    Err(Violation { rule: "late_call_never_wins", at, what })
}
