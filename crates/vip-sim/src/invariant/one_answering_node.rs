//! An address answers on at most one host at any time.
//!
//! Where a deadline shut the gate, packets may be on their way to the wire for
//! some time longer. Where an order did, they are not counted: the report of
//! it leaves the host behind them.

use super::Violation;
use crate::clock::Real;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

pub(crate) struct OneAnsweringNode {
    /// Per address and host: until when it answers, or may have.
    until: BTreeMap<(IpAddr, usize), Real>,
    gate_to_wire: Duration,
}

impl OneAnsweringNode {
    pub(crate) fn new(gate_to_wire: Duration) -> Self {
        Self { until: BTreeMap::new(), gate_to_wire }
    }

    /// From now on `host` answers for `ip` until `until`, unless it is changed
    /// again. In the past: it is silent.
    pub(crate) fn changed(
        &mut self,
        now: Real,
        host: usize,
        ip: IpAddr,
        until: Real,
    ) -> Result<(), Violation> {
        if until <= now {
            self.silent(now, ip, host);
            return Ok(());
        }
        let other =
            self.until.iter().find(|((address, other), last): &(&(IpAddr, usize), &Real)| {
                *address == ip && *other != host && **last > now
            });
        if let Some(((_, other), last)) = other {
            let what = format!(
                "host {host} answers for {ip} until {until}, while host {other} does until {last}"
            );
            return Err(Violation { rule: "one_answering_node", at: now, what });
        }
        self.until.insert((ip, host), until.plus(self.gate_to_wire));
        Ok(())
    }

    /// Shut by an order. What a deadline shut before stays on its way.
    fn silent(&mut self, now: Real, ip: IpAddr, host: usize) {
        let shut = |until: &mut Real| {
            if *until > now.plus(self.gate_to_wire) {
                *until = now;
            }
        };
        self.until.entry((ip, host)).and_modify(shut);
    }

    /// The host tells that it released: what it sent before is gone.
    pub(crate) fn released(&mut self, now: Real, host: usize, ip: IpAddr) {
        self.until.entry((ip, host)).and_modify(|until| *until = now.min(*until));
    }

    /// The host has no power any more.
    pub(crate) fn host_gone(&mut self, now: Real, host: usize) {
        for ((_, at), until) in &mut self.until {
            if *at == host {
                *until = now.min(*until);
            }
        }
    }

    /// Who answers for an address now.
    pub(crate) fn answering(&self, now: Real, ip: IpAddr) -> Option<usize> {
        let answers =
            |((address, _), until): &(&(IpAddr, usize), &Real)| *address == ip && **until > now;
        self.until.iter().find(answers).map(|((_, host), _)| *host)
    }
}
