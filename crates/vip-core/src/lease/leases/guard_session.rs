//! As the guard's agent: whether the guard is there, and what it was told.

use super::{LeaseAction, Leases, Scene};
use crate::{
    ClaimEvent, Fitness, Grantee, GuardNotice, Incarnation, MAX_MACS, Mac, Mono, Obstacle, Vip,
    VipUid, Vote,
};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// How long a lost guard may take to come back before its node is passed over.
const GUARD_GRACE: Duration = Duration::from_millis(500);

/// What this node knows of its guard.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct GuardSession {
    present: bool,
    /// It is restarted at once, and its node then reclaims faster than another
    /// could take over.
    lost_at: Option<Mono>,
    /// When it last showed that it runs.
    alive_at: Mono,
    /// Cluster-wide names of interfaces to this host's.
    interfaces: BTreeMap<String, String>,
    /// Of this host's interfaces that have addresses.
    macs: BTreeSet<Mac>,
    /// The VIPs that it was told of.
    considered: Arc<BTreeMap<VipUid, Arc<Vip>>>,
    /// Deadline that it was told last for what this node holds as leader.
    extended: Mono,
    /// Of what it was told since. It need not hear it again for every notice of
    /// another VIP.
    told: BTreeSet<Grantee>,
    /// This node led in its saved vote, and says that this is over once every
    /// gate of its host is shut.
    resigns: Option<Vote>,
}

impl GuardSession {
    /// None yet, on a host with these interfaces; with the vote by which this node
    /// led, if that was the last thing it did.
    pub(super) fn on(interfaces: BTreeMap<String, String>, resigns: Option<Vote>) -> Self {
        Self {
            present: false,
            lost_at: None,
            alive_at: Mono::ZERO,
            interfaces,
            macs: BTreeSet::new(),
            considered: Arc::default(),
            extended: Mono::ZERO,
            told: BTreeSet::new(),
            resigns,
        }
    }

    pub(super) fn is_present(&self) -> bool {
        self.present
    }

    pub(super) fn interfaces(&self) -> &BTreeMap<String, String> {
        &self.interfaces
    }

    pub(super) fn macs(&self) -> &BTreeSet<Mac> {
        &self.macs
    }

    /// It showed that it runs.
    pub(super) fn is_alive(&mut self, now: Mono) {
        self.alive_at = now;
    }

    fn up(&mut self, now: Mono) {
        (self.present, self.lost_at, self.alive_at) = (true, None, now);
        self.extended = Mono::ZERO;
        self.considered = Arc::default();
    }

    fn down(&mut self, now: Mono) {
        (self.present, self.lost_at) = (false, Some(now));
    }

    /// No gate of this host can be open but by what is claimed: it says so, or it has
    /// been gone for longer than any grant.
    pub(super) fn is_certain(&self, now: Mono, grant: Duration) -> bool {
        self.present || self.lost_at.is_none_or(|at| now >= at + grant)
    }

    /// It is connected, and does nothing.
    fn is_frozen(&self, now: Mono, grant: Duration) -> bool {
        self.present && now >= self.alive_at + grant
    }

    /// What the node can do with it, and with this scene.
    pub(super) fn fitness(&self, now: Mono, scene: &Scene) -> Fitness {
        let restarting = self.lost_at.is_some_and(|at| now < at + GUARD_GRACE);
        if !self.present && !restarting {
            Fitness::NoGuard
        } else if !scene.disk_is_well {
            Fitness::Disk
        } else if !scene.clock_is_well {
            Fitness::Clock
        } else {
            Fitness::Fit
        }
    }

    /// Tells it which VIPs there are, if that changed.
    fn consider(&mut self, scene: &Scene) -> Option<LeaseAction> {
        let vips = &scene.state.vips;
        if Arc::ptr_eq(&self.considered, vips) || !self.present {
            return None;
        }
        let told = self.considered.len() == vips.len()
            && self.considered.iter().zip(vips.iter()).all(|(told, now)| {
                told.0 == now.0 && (Arc::ptr_eq(told.1, now.1) || told.1.spec == now.1.spec)
            });
        self.considered = vips.clone();
        let all = || vips.iter().map(|(uid, vip)| (*uid, vip.spec.on_host(&self.interfaces)));
        (!told).then(|| LeaseAction::Consider(all().collect()))
    }

    /// Whether a leader whose lease ends then is to tell it of all that it holds. An
    /// order costs; half a heartbeat of lease is enough.
    pub(super) fn is_to_extend(&mut self, lease_end: Mono, heartbeat: Duration) -> bool {
        let due = lease_end >= self.extended + heartbeat / 2;
        if due {
            self.extended = lease_end;
            self.told.clear();
        }
        due
    }

    /// It is to be told again.
    pub(super) fn tell_again(&mut self) {
        self.extended = Mono::ZERO;
    }

    /// It was told of these since it heard of all last.
    pub(super) fn heard_of(&mut self, granted: &[Grantee]) {
        self.told.extend(granted);
    }

    /// Whether it was.
    pub(super) fn has_heard_of(&self, grantee: &Grantee) -> bool {
        self.told.contains(grantee)
    }
}

impl Leases {
    pub(super) fn guard_up(
        &mut self,
        now: Mono,
        session: Incarnation,
        actions: &mut Vec<LeaseAction>,
    ) {
        self.guard.up(now);
        self.holder.names_all();
        self.consider(actions);
        self.guard_changed(now, [ClaimEvent::GuardUp(session)], actions);
        self.resign(now, actions);
    }

    /// Only with every gate of this host shut is the old leadership certainly over.
    pub(super) fn resign(&mut self, now: Mono, actions: &mut Vec<LeaseAction>) {
        if let Some(vote) = self.guard.resigns.take() {
            self.voter.promise.own_term_abdicated(self.scene.me, vote.term);
            self.leadership_is_over(now, vote);
            actions.push(LeaseAction::Abdicate(vote));
        }
    }

    pub(super) fn guard_down(&mut self, now: Mono, actions: &mut Vec<LeaseAction>) {
        self.guard.down(now);
        self.guard_changed(now, [ClaimEvent::GuardDown], actions);
    }

    pub(super) fn hindered(
        &mut self,
        now: Mono,
        hindered: BTreeMap<VipUid, Obstacle>,
        actions: &mut Vec<LeaseAction>,
    ) {
        self.guard.is_alive(now);
        self.guard_changed(now, [ClaimEvent::Hindered(hindered)], actions);
    }

    pub(super) fn notices(
        &mut self,
        now: Mono,
        notices: Vec<GuardNotice>,
        actions: &mut Vec<LeaseAction>,
    ) {
        self.guard.is_alive(now);
        self.guard_changed(now, notices.into_iter().map(ClaimEvent::Notice), actions);
    }

    pub(super) fn interfaces_are(&mut self, macs: BTreeSet<Mac>) {
        let macs = macs.into_iter().take(MAX_MACS).collect();
        let other = self.guard.macs != macs;
        self.changed |= other;
        self.reporting.due |= other;
        self.guard.macs = macs;
    }

    pub(super) fn consider(&mut self, actions: &mut Vec<LeaseAction>) {
        actions.extend(self.guard.consider(&self.scene));
    }

    /// At each heartbeat: is the guard there, and not just connected? A frozen
    /// one lets its VIPs fall silent and would keep them.
    pub(super) fn ping(&mut self, now: Mono, actions: &mut Vec<LeaseAction>) {
        if self.guard.is_frozen(now, self.scene.timing.grant) {
            actions.push(LeaseAction::EndSession);
            self.guard_down(now, actions);
        } else if self.guard.present {
            self.holder.claims.guard_is_pinged();
            actions.push(LeaseAction::Ping);
        }
    }

    /// Whether this node can hold VIPs, or is about to.
    #[must_use]
    pub fn fitness(&self, now: Mono) -> Fitness {
        self.guard.fitness(now, &self.scene)
    }
}

#[cfg(test)]
mod tests {
    use super::super::LeaseEvent;
    use super::super::tests::{START, leading};
    use super::*;
    use crate::testing::vip;

    const GRANT: Duration = Duration::from_millis(320);
    const JUST: Duration = Duration::from_nanos(1);

    fn session() -> GuardSession {
        GuardSession::on([("lan".to_owned(), "ens5".to_owned())].into(), None)
    }

    #[test]
    fn a_guard_that_is_lost_is_given_the_time_of_a_restart() {
        let mut leases = leading();
        assert_eq!(leases.fitness(START), Fitness::NoGuard, "there was none");
        leases.step(START, LeaseEvent::GuardUp(Incarnation(7)));
        assert_eq!(leases.fitness(START), Fitness::Fit);
        leases.step(START, LeaseEvent::GuardDown);
        assert_eq!(leases.fitness(START + GUARD_GRACE - JUST), Fitness::Fit);
        assert_eq!(leases.fitness(START + GUARD_GRACE), Fitness::NoGuard);
    }

    /// What it had open ends with the last grant, at the latest.
    #[test]
    fn a_guard_that_is_gone_says_nothing_for_as_long_as_a_grant_lasts() {
        let mut guard = session();
        assert!(!guard.is_present() && guard.is_certain(START, GRANT), "no gate was ever open");
        guard.up(START);
        assert!(guard.is_present() && guard.is_certain(START, GRANT));
        guard.down(START);
        assert!(!guard.is_present() && !guard.is_certain(START + GRANT - JUST, GRANT));
        assert!(guard.is_certain(START + GRANT, GRANT));
    }

    #[test]
    fn a_guard_that_is_connected_and_shows_no_life_is_frozen() {
        let mut guard = session();
        guard.up(START);
        assert!(!guard.is_frozen(START + GRANT - JUST, GRANT));
        assert!(guard.is_frozen(START + GRANT, GRANT));
        guard.is_alive(START + JUST);
        assert!(!guard.is_frozen(START + GRANT, GRANT));
        guard.down(START);
        assert!(!guard.is_frozen(START + GRANT * 2, GRANT), "it is not connected");
    }

    #[test]
    fn names_of_interfaces_are_this_hosts() {
        let guard = session();
        assert_eq!(guard.interfaces().get("lan").map(String::as_str), Some("ens5"));
        assert_eq!(guard.interfaces().len(), 1);
        let on = |interface: Option<&str>| {
            let spec = crate::VipSpec { interface: interface.map(Into::into), ..vip("web", 100) };
            let vip = Vip::new(VipUid(1), spec);
            let [address] = &vip.spec.on_host(guard.interfaces())[..] else { panic!("one") };
            assert_eq!((address.ip.to_string().as_str(), address.prefix), ("10.0.0.100", 24));
            address.interface.clone()
        };
        assert_eq!((on(Some("lan")).as_str(), on(Some("eth9")).as_str()), ("ens5", "eth9"));
        assert_eq!(on(None), "");
    }

    #[test]
    fn what_it_was_told_of_is_remembered_until_it_hears_of_all() {
        let mut guard = session();
        let grantee =
            |vip| Grantee { vip: VipUid(vip), epoch: crate::Epoch(1), incarnation: Incarnation(7) };
        guard.heard_of(&[grantee(1)]);
        assert!(guard.has_heard_of(&grantee(1)) && !guard.has_heard_of(&grantee(2)));
        assert!(guard.is_to_extend(START, GRANT));
        assert!(!guard.has_heard_of(&grantee(1)));
    }

    #[test]
    fn a_guard_is_asked_for_a_sign_of_life_and_left_when_it_gives_none() {
        let mut leases = leading();
        let (heartbeat, grant) = (leases.scene.timing.heartbeat, leases.scene.timing.grant);
        leases.step(START, LeaseEvent::GuardUp(Incarnation(7)));
        let asked = leases.step(START + heartbeat, LeaseEvent::Tick);
        assert!(asked.contains(&LeaseAction::Ping), "{asked:?}");
        let left = leases.step(START + grant, LeaseEvent::Tick);
        assert!(left.contains(&LeaseAction::EndSession), "{left:?}");
        assert_eq!(leases.fitness(START + grant + GUARD_GRACE), Fitness::NoGuard);
    }

    #[test]
    fn what_the_guard_says_of_its_host_is_news() {
        let mut leases = leading();
        leases.step(START, LeaseEvent::GuardUp(Incarnation(7)));
        leases.take_changed();
        let macs = || BTreeSet::from([Mac([2, 0, 0, 0, 0, 1])]);
        leases.step(START, LeaseEvent::Interfaces(macs()));
        assert!(leases.take_changed());
        leases.step(START, LeaseEvent::Interfaces(macs()));
        assert!(!leases.take_changed(), "it was said");
        let what = Obstacle { ip: [10, 0, 0, 100].into(), why: crate::Why::NoLink };
        let hindered = BTreeMap::from([(VipUid(1), what)]);
        leases.step(START, LeaseEvent::Hindered(hindered.clone()));
        assert_eq!(leases.claims().obstacles(), hindered);
    }
}
