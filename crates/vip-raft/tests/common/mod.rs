//! What the tests share.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;
use vip_core::{NodeId, Presumption, PromiseTicket, Refused, Speaker, Term, Vote};
use vip_raft::LeaseRules;

/// No promises: a single voter needs none.
#[derive(Default)]
pub(crate) struct NoRules {
    /// Looks at which a candidacy still has to wait.
    pub(crate) waits: AtomicU32,
    /// A vote was durable before.
    pub(crate) early: AtomicBool,
}

impl LeaseRules for NoRules {
    fn saving_vote(&self, _: Vote) {}
    fn candidacy_waits(&self, _: Vote) -> Duration {
        let waits = |left: u32| left.checked_sub(1);
        match self.waits.fetch_update(Ordering::Relaxed, Ordering::Relaxed, waits) {
            Ok(_) => Duration::from_millis(1),
            Err(_) => Duration::ZERO,
        }
    }
    fn vote_is_durable(&self, _: Vote) {
        self.early.fetch_or(self.waits.load(Ordering::Relaxed) > 0, Ordering::Relaxed);
    }
    fn may_lead(&self, _: Speaker, _: Term) -> Result<(), Presumption> {
        Ok(())
    }
    fn may_campaign(&self) -> Result<(), Refused> {
        Ok(())
    }
    fn may_vote(&self) -> Result<PromiseTicket, Refused> {
        Err(Refused { remaining: Duration::ZERO })
    }
    fn still_may_vote(&self, _: PromiseTicket) -> bool {
        true
    }
    fn may_renew(&self) -> bool {
        true
    }
    fn leader_heard(&self, _: Vote) {}
    fn peer_bound(&self, _: Duration) {}
    fn promised_vote(&self, _: NodeId) {}
    fn abdicated(&self, _: Vote) {}
    fn may_transfer(&self, _: Vote) -> bool {
        true
    }
}
