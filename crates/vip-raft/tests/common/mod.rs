//! What the tests share.

use std::time::Duration;
use vip_core::{NodeId, Presumption, PromiseTicket, Refused, Speaker, Term, Vote};
use vip_raft::LeaseRules;

/// No promises: a single voter needs none.
pub(crate) struct NoRules;

impl LeaseRules for NoRules {
    fn saving_vote(&self, _: Vote) {}
    fn candidacy_waits(&self, _: Vote) -> Duration {
        Duration::ZERO
    }
    fn vote_is_durable(&self, _: Vote) {}
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
