//! The lease rules that the log store is opened with, before there are any.

use crate::lease::LeaseShared;
use std::sync::Arc;
use std::time::Duration;

/// Rules that are set after the store was opened.
#[derive(Default)]
pub(super) struct LateRules(std::sync::OnceLock<Arc<LeaseShared>>);

impl LateRules {
    pub(super) fn set(&self, rules: Arc<LeaseShared>) {
        let _ = self.0.set(rules);
    }
}

impl vip_raft::LeaseRules for LateRules {
    fn saving_vote(&self, vote: vip_core::Vote) {
        if let Some(rules) = self.0.get() {
            rules.saving_vote(vote);
        }
    }
    fn candidacy_waits(&self, vote: vip_core::Vote) -> Duration {
        self.0.get().map_or(Duration::ZERO, |rules| rules.candidacy_waits(vote))
    }
    fn vote_is_durable(&self, vote: vip_core::Vote) {
        if let Some(rules) = self.0.get() {
            rules.vote_is_durable(vote);
        }
    }
    fn may_lead(
        &self,
        speaker: vip_core::Speaker,
        term: vip_core::Term,
    ) -> Result<(), vip_core::Presumption> {
        self.0.get().map_or(Ok(()), |rules| rules.may_lead(speaker, term))
    }
    fn may_campaign(&self) -> Result<(), vip_core::Refused> {
        self.0.get().map_or(Ok(()), |rules| rules.may_campaign())
    }
    fn may_vote(&self) -> Result<vip_core::PromiseTicket, vip_core::Refused> {
        let unset = vip_core::Refused { remaining: Duration::ZERO };
        self.0.get().map_or(Err(unset), |rules| rules.may_vote())
    }
    fn still_may_vote(&self, ticket: vip_core::PromiseTicket) -> bool {
        self.0.get().is_some_and(|rules| rules.still_may_vote(ticket))
    }
    fn may_renew(&self) -> bool {
        self.0.get().is_some_and(|rules| rules.may_renew())
    }
    fn leader_heard(&self, vote: vip_core::Vote) {
        if let Some(rules) = self.0.get() {
            rules.leader_heard(vote);
        }
    }
    fn peer_bound(&self, remaining: Duration) {
        if let Some(rules) = self.0.get() {
            rules.peer_bound(remaining);
        }
    }
    fn promised_vote(&self, candidate: vip_core::NodeId) {
        if let Some(rules) = self.0.get() {
            rules.promised_vote(candidate);
        }
    }
    fn abdicated(&self, vote: vip_core::Vote) {
        if let Some(rules) = self.0.get() {
            rules.abdicated(vote);
        }
    }
    fn may_transfer(&self, vote: vip_core::Vote) -> bool {
        self.0.get().is_some_and(|rules| rules.may_transfer(vote))
    }
}
