//! As holder: what the guard is told, what the leader is asked for.

use super::{GrantAnswer, LeaseAction, Leases, Wants};
use crate::{
    Address, ClaimAction, ClaimEvent, Cover, Grantee, GuardNotice, Incarnation, Mono, NodeId,
    Obstacle, Vip, VipOrder, VipUid, Vote,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What a node asks its leader for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Wanted {
    /// To answer, for the first time or again. The leader may take its time.
    First(Vec<Grantee>),
    /// To go on with all that it has leased, by the name of the set.
    Cover(Cover),
    /// The same one by one, as another set has this name there, or may have.
    All(Vec<Grantee>),
}

impl Wanted {
    /// Those that are named one by one.
    #[must_use]
    pub fn named(&self) -> &[Grantee] {
        match self {
            Self::First(grantees) | Self::All(grantees) => grantees,
            Self::Cover(_) => &[],
        }
    }
}

/// A request to the leader.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ask {
    /// Whom.
    pub leader: NodeId,
    /// The guard session that asks.
    pub session: Option<Incarnation>,
    /// For what.
    pub wanted: Wanted,
}

impl Leases {
    pub(super) fn guard_up(
        &mut self,
        now: Mono,
        session: Incarnation,
        actions: &mut Vec<LeaseAction>,
    ) {
        self.guard.present = true;
        self.guard.lost_at = None;
        self.guard.alive_at = now;
        self.guard.extended = Mono::ZERO;
        self.guard.named_to = None;
        self.considered = Arc::default();
        self.consider(actions);
        self.guard_changed(now, [ClaimEvent::GuardUp(session)], actions);
        // Only now, with every gate of this host shut, is the old leadership
        // certainly over.
        if let Some(vote) = self.resigns.take() {
            self.promise.own_term_abdicated(self.me, vote.term);
            self.leadership_is_over(now, vote);
            actions.push(LeaseAction::Abdicate(vote));
        }
    }

    pub(super) fn guard_down(&mut self, now: Mono, actions: &mut Vec<LeaseAction>) {
        self.guard.present = false;
        self.guard.lost_at = Some(now);
        self.guard_changed(now, [ClaimEvent::GuardDown], actions);
    }

    pub(super) fn hindered(
        &mut self,
        now: Mono,
        hindered: BTreeMap<VipUid, Obstacle>,
        actions: &mut Vec<LeaseAction>,
    ) {
        self.guard.alive_at = now;
        self.guard_changed(now, [ClaimEvent::Hindered(hindered)], actions);
    }

    /// Tells the guard which VIPs there are, if that changed.
    pub(super) fn consider(&mut self, actions: &mut Vec<LeaseAction>) {
        let vips = self.state.vips.clone();
        if Arc::ptr_eq(&self.considered, &vips) || !self.guard.present {
            return;
        }
        let told = self.considered.len() == vips.len()
            && self.considered.iter().zip(vips.iter()).all(|(told, now)| {
                told.0 == now.0 && (Arc::ptr_eq(told.1, now.1) || told.1.spec == now.1.spec)
            });
        self.considered = vips.clone();
        if told {
            return;
        }
        let all = vips.iter().map(|(uid, vip)| (*uid, addresses(vip, &self.interfaces)));
        actions.push(LeaseAction::Consider(all.collect()));
    }

    pub(super) fn notices(
        &mut self,
        now: Mono,
        notices: Vec<GuardNotice>,
        actions: &mut Vec<LeaseAction>,
    ) {
        self.guard.alive_at = now;
        self.guard_changed(now, notices.into_iter().map(ClaimEvent::Notice), actions);
    }

    /// The log is compared once for all of it: a thousand VIPs are one change.
    fn guard_changed(
        &mut self,
        now: Mono,
        events: impl IntoIterator<Item = ClaimEvent>,
        actions: &mut Vec<LeaseAction>,
    ) {
        for event in events {
            self.claim(now, event, actions);
        }
        (self.changed, self.reporting.due) = (true, true);
        self.sync(now, actions);
    }

    /// Compares the log with the claims.
    pub(super) fn sync(&mut self, now: Mono, actions: &mut Vec<LeaseAction>) {
        let Self { claims, state, interfaces, .. } = self;
        let due = claims.sync(now, state, |vip| addresses(vip, interfaces));
        self.take(due, actions);
    }

    fn claim(&mut self, now: Mono, event: ClaimEvent, actions: &mut Vec<LeaseAction>) {
        let due = self.claims.step(now, &self.state, event);
        self.take(due, actions);
    }

    fn take(&mut self, due: Vec<ClaimAction>, actions: &mut Vec<LeaseAction>) {
        let mut batch = vec![];
        for action in due {
            match action {
                ClaimAction::Order(order) => batch.push(order),
                ClaimAction::AskNow => self.wants.ask = true,
                ClaimAction::ReportNow => self.reporting.due = true,
                ClaimAction::NameAll => self.name_all(),
            }
        }
        self.order(batch, actions);
    }

    fn order(&self, batch: Vec<VipOrder>, actions: &mut Vec<LeaseAction>) {
        if self.guard.present && !batch.is_empty() {
            actions.push(LeaseAction::Order(batch));
        }
    }

    /// At each heartbeat: is the guard there, and not just connected? A frozen
    /// one lets its VIPs fall silent and would keep them.
    pub(super) fn ping(&mut self, now: Mono, actions: &mut Vec<LeaseAction>) {
        if !self.guard.present {
            return;
        }
        if now >= self.guard.alive_at + self.timing.grant {
            actions.push(LeaseAction::EndSession);
            self.guard_down(now, actions);
        } else {
            actions.push(LeaseAction::Ping);
        }
    }

    /// As leader: decides on this node's own requests and keeps its deadlines
    /// at its lease end. Returns when an undecided one is due.
    pub(super) fn hold_as_leader(
        &mut self,
        now: Mono,
        actions: &mut Vec<LeaseAction>,
    ) -> Option<Mono> {
        let (me, session, lease_end) = (self.me, self.claims.session(), self.lease_end(now));
        let released = self.claims.releases();
        self.take_releases(me, &released);
        let mut waiting = self.claims.waiting();
        // An order costs; half a heartbeat of lease is enough.
        if lease_end >= self.guard.extended + self.timing.heartbeat / 2 {
            self.guard.extended = lease_end;
            self.guard.told.clear();
            while let Some(wanted) = self.own_leadership().and_then(|own| self.renewal(own)) {
                let by_name = matches!(wanted, Wanted::Cover(_));
                let (answer, _) = self.decide_grants(now, me, &wanted);
                let renewed = answer.covered.is_some();
                self.take_answer(now, session, answer, lease_end, actions);
                if renewed || !by_name {
                    break;
                }
                self.guard.named_to = None;
            }
        } else {
            waiting.retain(|grantee| !self.guard.told.contains(grantee));
        }
        let (answer, free_at) = self.decide_grants(now, me, &Wanted::First(waiting));
        self.guard.told.extend(&answer.granted);
        self.take_answer(now, session, answer, lease_end, actions);
        free_at
    }

    /// What to ask the leader of this vote for to go on with what is leased. It was
    /// told of what that is once; from then on the name is enough, until it turns out
    /// to be that of another set there.
    fn renewal(&mut self, leader: Vote) -> Option<Wanted> {
        let cover = self.claims.cover();
        if cover.is_empty() {
            return None;
        }
        let named = self.guard.named_to.replace(leader) == Some(leader);
        let by_name = named && !self.claims.is_releasing();
        self.guard.by_name = by_name;
        Some(if by_name { Wanted::Cover(cover) } else { Wanted::All(self.claims.renewals()) })
    }

    /// The guard, or the leader, has another set than this node.
    pub(super) fn name_all(&mut self) {
        self.guard.named_to = None;
        self.guard.extended = Mono::ZERO;
        self.wants.renew = true;
    }

    /// The leader's answer to a request of this node.
    pub(super) fn answered(
        &mut self,
        now: Mono,
        session: Option<Incarnation>,
        sent_at: Mono,
        answer: GrantAnswer,
        actions: &mut Vec<LeaseAction>,
    ) {
        // A leader holds by its lease alone; an older grant would outlive it.
        if self.leading.is_none() {
            self.take_answer(now, session, answer, sent_at + self.timing.grant, actions);
        }
    }

    /// Grants run until `deadline`.
    fn take_answer(
        &mut self,
        now: Mono,
        session: Option<Incarnation>,
        answer: GrantAnswer,
        deadline: Mono,
        actions: &mut Vec<LeaseAction>,
    ) {
        // A thousand VIPs are one frame to the guard.
        let (mut deadlines, mut others) = (vec![], vec![]);
        for grantee in answer.granted {
            for action in self.claims.step(now, &self.state, ClaimEvent::Granted(grantee, deadline))
            {
                match action {
                    ClaimAction::Order(VipOrder::Extend { deadlines: one, .. }) => {
                        deadlines.extend(one);
                    }
                    other => others.push(other),
                }
            }
        }
        if let (Some(incarnation), false) = (session, deadlines.is_empty()) {
            self.order(vec![VipOrder::Extend { incarnation, deadlines }], actions);
        }
        if let (Some(incarnation), Some(cover)) = (session, answer.covered) {
            self.order(vec![VipOrder::ExtendAll { incarnation, cover, deadline }], actions);
        }
        self.reporting.due |= !answer.denied.is_empty();
        for (grantee, denial) in answer.denied {
            others.extend(self.claims.step(now, &self.state, ClaimEvent::Denied(grantee, denial)));
        }
        self.take(others, actions);
    }

    /// As holder under another leader: renews, asks for what is new.
    pub(super) fn ask_leader(&mut self, now: Mono, wants: Wants, actions: &mut Vec<LeaseAction>) {
        let Some(leader) = self.leader(now).filter(|leader| *leader != self.me) else { return };
        let Some((vote, _)) = self.heard else { return };
        let session = self.claims.session();
        // A grant would last for longer than others wait.
        let wants = Wants {
            renew: wants.renew && self.clock_is_well,
            ask: wants.ask && self.clock_is_well,
        };
        let renewal = wants.renew.then(|| self.renewal(vote)).flatten();
        let waiting = if wants.ask { self.claims.waiting() } else { vec![] };
        let first = !waiting.is_empty() && !self.first_grant_pending;
        self.first_grant_pending |= first;
        for wanted in renewal.into_iter().chain(first.then_some(Wanted::First(waiting))) {
            actions.push(LeaseAction::Ask(Box::new(Ask { leader, session, wanted })));
        }
    }
}

/// A VIP's addresses on this host's interfaces.
fn addresses(vip: &Vip, interfaces: &BTreeMap<String, String>) -> Vec<Address> {
    let wanted = vip.spec.interface.clone().unwrap_or_default();
    let interface = interfaces.get(&wanted).cloned().unwrap_or(wanted);
    let address = |a: &crate::VipAddress| Address {
        ip: a.ip,
        prefix: a.prefix,
        interface: interface.clone(),
    };
    vip.spec.addresses.iter().map(address).collect()
}
