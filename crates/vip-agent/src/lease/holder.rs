//! Carries out what the claims decide: orders to the guard, requests to the
//! leader, or to itself when it leads.

use super::guard_link::{GuardNews, Orders};
use super::shared::{GuardStatus, Inner, LeaseShared};
use std::collections::BTreeMap;
use std::sync::Arc;
use vip_core::{
    Address, ClaimAction, ClaimEvent, Denial, Grantee, Incarnation, Mono, Request, Verdict, Vip,
    VipOrder,
};
use vip_guard::{ToGuard, boottime};

/// What the claims want of the lease loop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Wants {
    /// Ask the leader now.
    pub(super) ask: bool,
    /// Report releases now.
    pub(super) report: bool,
}

impl Wants {
    fn and(self, other: Self) -> Self {
        Self { ask: self.ask || other.ask, report: self.report || other.report }
    }
}

/// The holder's side of a node.
pub(super) struct Holder {
    shared: Arc<LeaseShared>,
    interfaces: BTreeMap<String, String>,
    orders: Option<Orders>,
    /// When the guard last showed that it runs.
    alive_at: Mono,
    /// Deadline that the guard was told last for what this node holds as
    /// leader.
    extended: Mono,
}

impl Holder {
    pub(super) fn new(shared: Arc<LeaseShared>, interfaces: BTreeMap<String, String>) -> Self {
        Self { shared, interfaces, orders: None, alive_at: Mono::ZERO, extended: Mono::ZERO }
    }

    pub(super) fn has_guard(&self) -> bool {
        self.orders.is_some()
    }

    /// News of the guard.
    pub(super) fn guard_news(&mut self, news: GuardNews) -> Wants {
        let event = match news {
            GuardNews::Up(incarnation, gate, orders) => {
                self.orders = Some(orders);
                self.alive_at = boottime();
                let mut inner = self.shared.lock();
                inner.guard = GuardStatus::Present(gate);
                inner.guard_lost_at = None;
                drop(inner);
                ClaimEvent::GuardUp(incarnation)
            }
            GuardNews::Down => {
                self.orders = None;
                let mut inner = self.shared.lock();
                inner.guard = GuardStatus::Absent;
                inner.guard_lost_at = Some(boottime());
                drop(inner);
                ClaimEvent::GuardDown
            }
            GuardNews::Alive => {
                self.alive_at = boottime();
                return Wants::default();
            }
            GuardNews::Notice(notice) => {
                self.alive_at = boottime();
                tracing::debug!(?notice, "guard");
                if let vip_core::GuardNotice::Refused { vip, epoch, why } = &notice {
                    tracing::error!(%vip, %epoch, %why, "the guard did not claim a VIP");
                }
                ClaimEvent::Notice(notice)
            }
        };
        self.extended = Mono::ZERO;
        let wants = self.step(event);
        self.shared.touch();
        wants.and(self.sync())
    }

    /// Compares the log with the claims.
    pub(super) fn sync(&mut self) -> Wants {
        let actions = {
            let mut inner = self.shared.lock();
            let Inner { claims, state, .. } = &mut *inner;
            let interfaces = &self.interfaces;
            claims.sync(boottime(), state, |vip| addresses(vip, interfaces))
        };
        self.carry_out(actions)
    }

    fn step(&mut self, event: ClaimEvent) -> Wants {
        let actions = self.shared.lock().claims.step(boottime(), event);
        self.carry_out(actions)
    }

    fn carry_out(&mut self, actions: Vec<ClaimAction>) -> Wants {
        let mut wants = Wants::default();
        let mut batch = vec![];
        for action in actions {
            match action {
                ClaimAction::Order(order) => batch.push(order),
                ClaimAction::AskNow => wants.ask = true,
                ClaimAction::ReportNow => wants.report = true,
            }
        }
        self.order(batch);
        wants
    }

    fn order(&mut self, batch: Vec<VipOrder>) {
        let Some(orders) = self.orders.as_ref().filter(|_| !batch.is_empty()) else { return };
        if !orders.send(ToGuard::Orders(batch)) {
            // So far behind that its view is worthless. Dropping the sender
            // ends the session, and with it everything held.
            tracing::error!("the guard does not keep up; starting over with it");
            self.orders = None;
        }
    }

    /// At each heartbeat: is the guard there, and not just connected? A frozen
    /// one lets its VIPs fall silent and would keep them.
    pub(super) fn ping(&mut self, now: Mono) -> Wants {
        let patience = self.shared.lock().timing.grant;
        let Some(orders) = &self.orders else { return Wants::default() };
        if now >= self.alive_at + patience {
            tracing::error!("the guard does not answer; its VIPs go to others");
            return self.guard_news(GuardNews::Down);
        }
        let _ = orders.send(ToGuard::Ping);
        Wants::default()
    }

    /// Neighbours may have learnt something else meanwhile: have the guard
    /// announce again what it holds.
    pub(super) fn confirm(&self) {
        if let Some(orders) = &self.orders {
            // Not worth a session; announcements repeat by themselves.
            let _ = orders.send(ToGuard::Confirmed);
        }
    }

    /// As leader: decides on this node's own requests and keeps its deadlines
    /// at its lease end. Returns when an undecided one is due.
    pub(super) fn hold_as_leader(&mut self) -> (Option<Mono>, Wants) {
        let now = boottime();
        let mut outcome = vec![];
        let mut free_at: Option<Mono> = None;
        let (session, lease_end, news) = {
            let mut inner = self.shared.lock();
            let lease_end = inner.lease_end(now);
            let me = inner.me;
            let releases = inner.claims.releases();
            let news = inner.take_releases(me, &releases);
            let waiting = inner.claims.waiting();
            // Renewals of many VIPs cost; half a heartbeat of lease is enough.
            let renew = lease_end >= self.extended + inner.timing.heartbeat / 2;
            let renewals = if renew { inner.claims.renewals() } else { vec![] };
            if renew {
                self.extended = lease_end;
            }
            for grantee in waiting.into_iter().chain(renewals) {
                match inner.decide_grant(now, Request { node: me, grantee }) {
                    Verdict::Wait(at) => free_at = Some(free_at.map_or(at, |f| f.min(at))),
                    verdict => outcome.push((grantee, verdict)),
                }
            }
            (inner.claims.session(), lease_end, news)
        };
        if news {
            self.shared.touch();
        }
        let granted = outcome.iter().filter(|(_, v)| *v == Verdict::Granted).map(|(g, _)| *g);
        let granted: Vec<_> = granted.collect();
        let denied = outcome.into_iter().filter_map(|(grantee, verdict)| match verdict {
            Verdict::Denied(denial) => Some((grantee, denial)),
            Verdict::Granted | Verdict::Wait(_) => None,
        });
        let wants = self.answered(session, granted, denied.collect(), lease_end);
        (free_at, wants)
    }

    /// The leader's answer to requests that were sent in `session`; grants run
    /// until `deadline`.
    pub(super) fn answered(
        &mut self,
        session: Option<Incarnation>,
        granted: Vec<Grantee>,
        denied: Vec<(Grantee, Denial)>,
        deadline: Mono,
    ) -> Wants {
        let mut wants = Wants::default();
        let mut deadlines = vec![];
        for grantee in granted {
            let actions =
                self.shared.lock().claims.step(boottime(), ClaimEvent::Granted(grantee, deadline));
            // One order for all of them: a thousand VIPs are one frame.
            for action in actions {
                match action {
                    ClaimAction::Order(VipOrder::Extend { deadlines: one, .. }) => {
                        deadlines.extend(one);
                    }
                    other => wants = wants.and(self.carry_out(vec![other])),
                }
            }
        }
        if let (Some(incarnation), false) = (session, deadlines.is_empty()) {
            self.order(vec![VipOrder::Extend { incarnation, deadlines }]);
        }
        for (grantee, denial) in denied {
            wants = wants.and(self.step(ClaimEvent::Denied(grantee, denial)));
        }
        wants
    }
}

/// A VIP's addresses on this host's interfaces.
fn addresses(vip: &Vip, interfaces: &BTreeMap<String, String>) -> Vec<Address> {
    let wanted = vip.spec.interface.clone().unwrap_or_default();
    let interface = interfaces.get(&wanted).cloned().unwrap_or(wanted);
    let address = |a: &vip_core::VipAddress| Address {
        ip: a.ip,
        prefix: a.prefix,
        interface: interface.clone(),
    };
    vip.spec.addresses.iter().map(address).collect()
}
