//! Of what two hosts announce to routers one is the later.

use super::Violation;
use crate::clock::Real;
use std::net::IpAddr;

/// One is told something with a rank: `same`: another host that announces the address with it.
pub(crate) fn check(
    at: Real,
    (ip, host): (IpAddr, usize),
    rank: u64,
    same: Option<usize>,
) -> Result<(), Violation> {
    let Some(other) = same else { return Ok(()) };
    let what = format!("{ip} has rank {rank} on host {host}, and on {other}");
    Err(Violation { rule: "later_counts", at, what })
}
