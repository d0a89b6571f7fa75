//! What follows when the kernel does not do what it is told.
//!
//! A list of actions may be about several VIPs. What fails of one ends what the list
//! says of that one, and nothing of the others: theirs may be the orders that silence
//! them.

use super::{Claim, Guard, GuardAction, GuardFailure, Phase, gates_first};
use crate::{Obstacle, VipUid, Why};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// VIPs, and the addresses that they have here.
type Concerned = BTreeMap<VipUid, Vec<IpAddr>>;

fn is_about(action: &GuardAction, concerned: &Concerned) -> bool {
    let has = |ip: &IpAddr| concerned.values().any(|ips| ips.contains(ip));
    match action {
        GuardAction::Gate { ip, .. } | GuardAction::Forget(ip) => has(ip),
        GuardAction::AddAddress(address) | GuardAction::DeleteAddress(address) => has(&address.ip),
        GuardAction::Probe(addresses) | GuardAction::Announce(addresses) => {
            addresses.iter().any(|address| has(&address.ip))
        }
        GuardAction::Notify(notice) => notice.vip().is_some_and(|vip| concerned.contains_key(&vip)),
        GuardAction::Deadline { .. } | GuardAction::RefreshAddresses(_) => false,
    }
}

impl Guard {
    /// The kernel did not carry out an action. Returns what to go on with in place of
    /// `rest`, which came after it in the same list.
    #[must_use]
    pub fn failed(&mut self, failure: &GuardFailure, rest: Vec<GuardAction>) -> Vec<GuardAction> {
        self.common.unsettle();
        let then = self.instead_of(failure, rest);
        self.tick_at = self.find_next_tick();
        then
    }

    fn instead_of(
        &mut self,
        failure: &GuardFailure,
        mut rest: Vec<GuardAction>,
    ) -> Vec<GuardAction> {
        if let GuardFailure::Gate { ip, .. } = failure {
            self.departed.unshut(*ip);
            // What it did not let go of must not be extended with the others.
            self.common.not_taken(*ip);
        }
        let concerned = self.concerned(failure);
        let mut instead = match failure {
            GuardFailure::Add(obstacle) => self.address_refused(obstacle.clone()),
            GuardFailure::Gate { ip, text } => {
                let is_shut = |claim: &Claim| claim.phase == Phase::Expired && claim.has(*ip);
                if !self.claims_ip(*ip) || self.claims.values().any(is_shut) {
                    return rest;
                }
                // It could not be trusted to fall silent on time, or to open.
                let mut instead = self.refused_by_gate(*ip, text);
                instead.extend(self.gates_of_sharers());
                instead
            }
            GuardFailure::Deadline { text, .. } => self.deadline_not_taken(&concerned, text),
            GuardFailure::Delete { ip } => {
                // Behind a shut gate an address is silent.
                if !self.limits.gated || self.departed.is_unshut(*ip) {
                    self.departed.lingers(*ip, self.limits.gated);
                    let is_told = |action: &GuardAction| {
                        matches!(action, GuardAction::Notify(_)) && is_about(action, &concerned)
                    };
                    rest.retain(|action| !is_told(action));
                }
                return rest;
            }
        };
        rest.retain(|action| !is_about(action, &concerned));
        instead.append(&mut rest);
        instead
    }

    /// Without it none that shares it could be trusted to fall silent on time, or to
    /// go on.
    fn deadline_not_taken(&mut self, sharers: &Concerned, text: &str) -> Vec<GuardAction> {
        self.common.retire();
        let first = sharers.values().filter_map(|ips| ips.first());
        gates_first(first.flat_map(|ip| self.refused_by_gate(*ip, text)))
    }

    fn refused_by_gate(&mut self, ip: IpAddr, text: &str) -> Vec<GuardAction> {
        let why = Why::NoGate(format!("it did not take the deadline: {text}"));
        self.address_refused(Obstacle { ip, why })
    }

    /// The VIPs that are let go of because of a failure, or would be silent without it.
    fn concerned(&self, failure: &GuardFailure) -> Concerned {
        let is_it = |claim: &Claim| match failure {
            GuardFailure::Add(obstacle) => claim.has(obstacle.ip),
            GuardFailure::Gate { ip, .. } | GuardFailure::Delete { ip } => claim.has(*ip),
            GuardFailure::Deadline { slot, .. } => claim.shares == Some(*slot),
        };
        let ips = |claim: &Claim| claim.addresses.iter().map(|address| address.ip).collect();
        let claims = self.claims.iter().filter(|(_, claim)| is_it(claim));
        let mut concerned: Concerned = claims.map(|(vip, claim)| (*vip, ips(claim))).collect();
        if let GuardFailure::Delete { ip } = failure {
            concerned.extend(self.departed.vip_of(*ip).map(|vip| (vip, vec![*ip])));
        }
        concerned
    }
}
