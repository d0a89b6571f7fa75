//! As holder: what the guard is told, what the leader is asked for.

use super::{GrantAnswer, LeaseAction, Leases, Wants};
use crate::{
    ClaimAction, ClaimEvent, Claims, Cover, Grantee, Incarnation, Mono, NodeId, VipOrder, Vote,
};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// How long a holder has the leader keep a request for a first grant. It sends
/// another one then.
pub const FIRST_GRANT_WAIT: Duration = Duration::from_millis(80);

/// What a request is about, for whoever hears what became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Asked {
    /// To answer, for the first time or again. The leader may take its time.
    First,
    /// To hold with the gate shut, for the first time. The same.
    Shut,
    /// To go on.
    More,
}

impl Asked {
    /// How long the leader may keep it.
    #[must_use]
    pub const fn wait(self) -> Duration {
        match self {
            Self::First | Self::Shut => FIRST_GRANT_WAIT,
            Self::More => Duration::ZERO,
        }
    }
}

/// What a node asks its leader for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Wanted {
    /// To answer, for the first time or again. The leader may take its time.
    First(Vec<Grantee>),
    /// To have it with the gate shut: it is in no set. The leader may take its time.
    Shut(Vec<Grantee>),
    /// To have that for longer.
    StayShut(Vec<Grantee>),
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
            Self::First(grantees)
            | Self::Shut(grantees)
            | Self::StayShut(grantees)
            | Self::All(grantees) => grantees,
            Self::Cover(_) => &[],
        }
    }

    /// What it is about.
    #[must_use]
    pub const fn asked(&self) -> Asked {
        match self {
            Self::First(_) => Asked::First,
            Self::Shut(_) => Asked::Shut,
            Self::StayShut(_) | Self::Cover(_) | Self::All(_) => Asked::More,
        }
    }
}

/// A request to the leader.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ask {
    pub leader: NodeId,
    /// The guard session that asks.
    pub session: Option<Incarnation>,
    /// For what.
    pub wanted: Wanted,
}

/// What this node has leased or wants to, and what its leader was told of that.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Holder {
    pub(super) claims: Claims,
    first_grant_pending: bool,
    shut_pending: bool,
    /// The leader, by its vote, to whom each of what is leased here was named.
    named_to: Option<Vote>,
    /// It was asked for that by one name last.
    by_name: bool,
}

impl Holder {
    pub(super) fn of(claims: Claims) -> Self {
        Self {
            claims,
            first_grant_pending: false,
            shut_pending: false,
            named_to: None,
            by_name: false,
        }
    }

    /// From here on each is named again.
    pub(super) fn names_all(&mut self) {
        self.named_to = None;
    }

    /// What to ask the leader of this vote for to go on with what is leased. It was
    /// told of what that is once; from then on the name is enough, until it turns out
    /// to be that of another set there.
    fn renewal(&mut self, leader: Vote) -> Option<Wanted> {
        let cover = self.claims.cover();
        if cover.is_empty() {
            return None;
        }
        let named = self.named_to.replace(leader) == Some(leader);
        self.by_name = named && !self.claims.is_releasing();
        let all = || Wanted::All(self.claims.renewals());
        Some(if self.by_name { Wanted::Cover(cover) } else { all() })
    }

    /// What to ask for first, unless that is under way.
    fn first(&mut self) -> Option<Wanted> {
        let waiting = self.claims.waiting();
        let first = !waiting.is_empty() && !self.first_grant_pending;
        self.first_grant_pending |= first;
        first.then_some(Wanted::First(waiting))
    }

    /// The same with the gate shut.
    fn shut(&mut self) -> Option<Wanted> {
        let seeking = self.claims.seeking();
        let asks = !seeking.is_empty() && !self.shut_pending;
        self.shut_pending |= asks;
        asks.then_some(Wanted::Shut(seeking))
    }

    /// A request was answered, or was not.
    pub(super) fn is_answered(&mut self, asked: Asked) {
        match asked {
            Asked::First => self.first_grant_pending = false,
            Asked::Shut => self.shut_pending = false,
            Asked::More => {}
        }
    }

    /// Whether it was asked by one name last; not any more after this.
    pub(super) fn take_by_name(&mut self) -> bool {
        std::mem::take(&mut self.by_name)
    }
}

impl Leases {
    /// The log is compared once for all of it: a thousand VIPs are one change.
    pub(super) fn guard_changed(
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
        let interfaces = self.guard.interfaces();
        let addresses = |vip: &crate::Vip| vip.spec.on_host(interfaces);
        let due = self.holder.claims.sync(now, &self.scene.state, addresses);
        self.take(due, actions);
    }

    fn claim(&mut self, now: Mono, event: ClaimEvent, actions: &mut Vec<LeaseAction>) {
        let due = self.holder.claims.step(now, &self.scene.state, event);
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
        if self.guard.is_present() && !batch.is_empty() {
            actions.push(LeaseAction::Order(batch));
        }
    }

    /// As leader: decides on this node's own requests and keeps its deadlines
    /// at its lease end. Returns when an undecided one is due.
    pub(super) fn hold_as_leader(
        &mut self,
        now: Mono,
        actions: &mut Vec<LeaseAction>,
    ) -> Option<Mono> {
        let (me, session, lease_end) =
            (self.scene.me, self.holder.claims.session(), self.lease_end(now));
        let released = self.holder.claims.releases();
        self.take_releases(me, &released);
        let mut waiting = self.holder.claims.waiting();
        if self.guard.is_to_extend(lease_end, self.scene.timing.heartbeat) {
            while let Some(wanted) = self.own_leadership().and_then(|own| self.holder.renewal(own))
            {
                let by_name = matches!(wanted, Wanted::Cover(_));
                let (answer, _) = self.decide_grants(now, me, &wanted);
                let renewed = answer.covered.is_some();
                self.take_answer(now, session, answer, lease_end, actions);
                if renewed || !by_name {
                    break;
                }
                self.holder.names_all();
            }
        } else {
            waiting.retain(|grantee| !self.guard.has_heard_of(grantee));
        }
        let (answer, free_at) = self.decide_grants(now, me, &Wanted::First(waiting));
        self.guard.heard_of(&answer.granted);
        self.take_answer(now, session, answer, lease_end, actions);
        let claims = &self.holder.claims;
        let shut = Wanted::Shut([claims.seeking(), claims.taking_by()].concat());
        let (answer, shut_free_at) = self.decide_grants(now, me, &shut);
        self.take_answer(now, session, answer, lease_end, actions);
        free_at.into_iter().chain(shut_free_at).min()
    }

    /// The guard, or the leader, has another set than this node.
    pub(super) fn name_all(&mut self) {
        self.holder.names_all();
        self.guard.tell_again();
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
        if !self.leader.is_leading() {
            self.take_answer(now, session, answer, sent_at + self.scene.timing.grant, actions);
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
        let taking = (!answer.granted.is_empty()).then(|| self.holder.claims.taking());
        // A thousand VIPs are one frame to the guard.
        let (mut deadlines, mut others) = (vec![], vec![]);
        for grantee in answer.granted {
            for action in self.holder.claims.step(
                now,
                &self.scene.state,
                ClaimEvent::Granted(grantee, deadline),
            ) {
                match action {
                    ClaimAction::Order(VipOrder::Extend { deadlines: one, .. }) => {
                        deadlines.extend(one);
                    }
                    other => others.push(other),
                }
            }
        }
        // Whoever tells others where they are waits for that.
        self.changed |= taking.is_some_and(|before| {
            let lasts = |(epoch, until): &(crate::Epoch, Mono), of| *epoch == of && now < *until;
            let is_new = |(vip, (epoch, _)): (&crate::VipUid, &(crate::Epoch, Mono))| {
                !before.get(vip).is_some_and(|before| lasts(before, *epoch))
            };
            self.holder.claims.taking().iter().any(is_new)
        });
        if let (Some(incarnation), false) = (session, deadlines.is_empty()) {
            self.order(vec![VipOrder::Extend { incarnation, deadlines }], actions);
        }
        if let (Some(incarnation), Some(cover)) = (session, answer.covered) {
            self.holder.claims.granted_together(deadline);
            self.order(vec![VipOrder::ExtendAll { incarnation, cover, deadline }], actions);
        }
        self.reporting.due |= !answer.denied.is_empty();
        for (grantee, denial) in answer.denied {
            others.extend(self.holder.claims.step(
                now,
                &self.scene.state,
                ClaimEvent::Denied(grantee, denial),
            ));
        }
        self.take(others, actions);
    }

    /// As holder under another leader: renews, asks for what is new.
    pub(super) fn ask_leader(&mut self, now: Mono, wants: Wants, actions: &mut Vec<LeaseAction>) {
        let Some(leader) = self.leader(now).filter(|leader| *leader != self.scene.me) else {
            return;
        };
        let Some((vote, _)) = self.voter.heard() else { return };
        let session = self.holder.claims.session();
        // A grant would last for longer than others wait.
        let wants = Wants {
            renew: wants.renew && self.scene.clock_is_well,
            ask: wants.ask && self.scene.clock_is_well,
        };
        let renewal = wants.renew.then(|| self.holder.renewal(vote)).flatten();
        let first = wants.ask.then(|| self.holder.first()).flatten();
        let shut = wants.ask.then(|| self.holder.shut()).flatten();
        let taking = wants.renew.then(|| self.holder.claims.taking_by());
        let taking = taking.filter(|all| !all.is_empty()).map(Wanted::StayShut);
        for wanted in renewal.into_iter().chain(first).chain(shut).chain(taking) {
            actions.push(LeaseAction::Ask(Box::new(Ask { leader, session, wanted })));
        }
    }
}
