//! Real servers, which are well or not, and probes of them.

use super::servers::{REALS, real_ip};
use super::{What, World, micros};
use crate::agent::Input;
use std::net::IpAddr;
use std::time::Duration;
use vip_core::{Failure, Start};

/// One becomes well, or ill, so often while there are faults, microseconds.
const CHANGES: std::ops::Range<u64> = 50_000..500_000;
/// An answer takes so long, microseconds.
const ANSWER: std::ops::Range<u64> = 50..3_000;

/// How a real server is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Condition {
    #[default]
    Well,
    Refuses,
    Hangs,
}

impl World {
    /// From now on real servers become ill.
    pub(super) fn reals_live(&mut self) {
        let pause = micros(&mut self.rng, CHANGES);
        self.after(pause, 0, What::Reals);
    }

    pub(super) fn reals(&mut self) {
        if self.now >= self.scenario.healed_at {
            self.cut_from_reals = None;
            return;
        }
        // One of them again and again.
        // One node at a time loses its way to all of them.
        let lost = self.rng.usize(0..2 * self.hosts.len());
        self.cut_from_reals = Some(lost).filter(|lost| *lost < self.hosts.len());
        let last = if self.rng.bool() { REALS.start } else { self.rng.u8(REALS) };
        let all = [Condition::Well, Condition::Refuses, Condition::Hangs];
        let condition = *self.rng.choice(&all).unwrap_or(&Condition::Well);
        self.conditions.insert(real_ip(last), condition);
        self.trace(0, &format!("real server {last}: {condition:?}"));
        self.reals_live();
    }

    /// How one is. Members listen for as long as they have power.
    pub(super) fn condition(&self, ip: IpAddr) -> Condition {
        let member = (0..self.hosts.len()).find(|at| ip == member_ip(*at));
        match member.map(|at| self.hosts[at].powered) {
            Some(false) => Condition::Hangs,
            Some(true) => Condition::Well,
            None => self.conditions.get(&ip).copied().unwrap_or_default(),
        }
    }

    pub(super) fn probe_real(&mut self, at: usize, start: &Start) {
        let others = (0..self.hosts.len()).filter(|other| *other != at);
        // Who reaches nobody reaches no real server either.
        let is_cut = others.clone().all(|other| !self.network.is_whole(at, other));
        let is_cut = is_cut || self.cut_from_reals == Some(at);
        let condition =
            if is_cut { Condition::Hangs } else { self.condition(start.target.at.ip()) };
        let takes = match condition {
            Condition::Hangs => start.target.timing.timeout,
            Condition::Well | Condition::Refuses => micros(&mut self.rng, ANSWER),
        };
        let no = |why: &str| Err(Failure::There(why.to_owned()));
        let answer = match condition {
            Condition::Well => Ok(()),
            Condition::Refuses => no("connection refused"),
            Condition::Hangs => no("no answer"),
        };
        let run = self.hosts[at].agent_run;
        let input = Input::Probed(start.ticket, answer);
        self.after(takes.min(Duration::from_secs(1)), at, What::Agent { run, input });
    }
}

fn member_ip(at: usize) -> IpAddr {
    real_ip(u8::try_from(at + 1).unwrap_or(u8::MAX))
}
