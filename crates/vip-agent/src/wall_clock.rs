//! This host's wall clock, and how it compares with the other members'.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};
use vip_core::{NodeId, OwnClockFar, WallClocks, moment};
use vip_guard::boottime;

/// Wall clock, ms since 1970: for people, tokens and certificates only.
pub(crate) fn wall_clock_ms() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map(|d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX)).unwrap_or(0)
}

/// A span for people.
pub(crate) fn about(seconds: i64) -> String {
    match seconds {
        i64::MIN..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

/// Compares, and says in the log when a difference begins or ends.
#[derive(Debug, Default)]
pub(crate) struct WallClockWatch(Mutex<Watched>);

#[derive(Debug, Default)]
struct Watched {
    clocks: WallClocks,
    /// Whose difference is in the log.
    said: BTreeSet<NodeId>,
}

impl WallClockWatch {
    fn lock(&self) -> MutexGuard<'_, Watched> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Another member's clock was just there. One that tells none (0) has none.
    pub(crate) fn heard(&self, node: NodeId, theirs_ms: u64) {
        if theirs_ms == 0 {
            return;
        }
        let mut watched = self.lock();
        watched.clocks.heard(boottime(), node, wall_clock_ms(), theirs_ms);
        let far = watched.clocks.far_from_own(boottime()).find(|(other, _)| *other == node);
        match far {
            Some((_, ahead_ms)) if watched.said.insert(node) => {
                tracing::warn!(%node, "its wall clock is {}", differs(ahead_ms));
            }
            None if watched.said.remove(&node) => {
                tracing::info!(%node, "its wall clock and this node's agree again");
            }
            _ => {}
        }
    }

    /// Whose clock is far from this node's, and how, in words.
    pub(crate) fn differences(&self) -> Vec<(NodeId, String)> {
        let watched = self.lock();
        let far = watched.clocks.far_from_own(boottime());
        far.map(|(node, ahead_ms)| (node, differs(ahead_ms))).collect()
    }

    /// See [`WallClocks::own_is_far`].
    pub(crate) fn own_is_far(&self, voters: &BTreeSet<NodeId>) -> Option<OwnClockFar> {
        self.lock().clocks.own_is_far(boottime(), voters)
    }
}

fn differs(ahead_ms: i64) -> String {
    let side = if ahead_ms > 0 { "ahead of" } else { "behind" };
    let seconds = i64::try_from(ahead_ms.unsigned_abs() / 1000).unwrap_or(i64::MAX);
    let own = wall_clock_ms();
    let (own, theirs) = (moment(own), moment(own.saturating_add_signed(ahead_ms)));
    format!("{} {side} this node's: {theirs} there and {own} here", about(seconds))
}
