//! Reading the leases, for everybody who decides nothing in them.

use super::GuardStatus;
use super::shared::{LeaseShared, lock};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tokio::sync::watch;
use vip_core::{
    CalledLease, Epoch, Fitness, Frontage, Goal, Mono, NoClients, NodeId, OwnClockFar, Progress,
    State, TooFast, Vip, VipUid, Vote,
};
use vip_guard::boottime;

/// See the module. What is asked many times a second is read of a snapshot: whoever is
/// held up while reading holds up no lease.
#[derive(Clone)]
pub(crate) struct LeaseView {
    shared: Arc<LeaseShared>,
}

impl LeaseView {
    pub(crate) fn of(shared: Arc<LeaseShared>) -> Self {
        Self { shared }
    }

    /// Tells that something is new: grants, leadership, what is held. Nobody tells of
    /// what time alone ends.
    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.shared.changed.subscribe()
    }

    /// See [`vip_core::LeaseSnapshot::leader`].
    pub(crate) fn leader(&self) -> Option<NodeId> {
        self.shared.snapshot.load().leader(boottime())
    }

    /// See [`vip_core::LeaseSnapshot::has_lease`].
    pub(crate) fn has_lease(&self) -> bool {
        self.shared.snapshot.load().has_lease(boottime())
    }

    /// See [`vip_core::LeaseSnapshot::leads_applied`].
    pub(crate) fn leads_applied(&self) -> bool {
        self.shared.snapshot.load().leads_applied(boottime())
    }

    /// See [`vip_core::LeaseSnapshot::disk_is_well`].
    pub(crate) fn disk_is_well(&self) -> bool {
        self.shared.snapshot.load().disk_is_well()
    }

    /// See [`vip_core::LeaseSnapshot::own_leadership`].
    pub(crate) fn own_leadership(&self) -> Option<Vote> {
        self.shared.snapshot.load().own_leadership()
    }

    /// See [`vip_core::LeaseSnapshot::alive`].
    pub(crate) fn alive(&self) -> BTreeSet<NodeId> {
        self.shared.snapshot.load().alive(boottime())
    }

    /// See [`vip_core::Leases::successor`].
    pub(crate) fn successor(&self) -> Option<NodeId> {
        self.shared.read(|leases, now| leases.successor(now))
    }

    /// See [`vip_core::Leases::leads_instead_of`].
    pub(crate) fn leads_instead_of(&self) -> Option<NodeId> {
        self.shared.read(|leases, now| leases.leads_instead_of(now))
    }

    /// See [`vip_core::Leases::transferred_in_vain`].
    pub(crate) fn transferred_in_vain(&self) -> bool {
        self.shared.read(|leases, now| leases.transferred_in_vain(now))
    }

    /// Whether this host answers for a VIP, by the guard's word.
    pub(crate) fn holds(&self, vip: &Vip) -> bool {
        self.shared.read(|leases, _| leases.claims().is_open(vip.uid, vip.epoch))
    }

    /// See [`vip_core::Claims::told_of`].
    pub(crate) fn told_of(&self, state: &State) -> BTreeMap<VipUid, CalledLease> {
        if !state.all_vips().any(|vip| vip.spec.via.is_called()) {
            return BTreeMap::new();
        }
        self.shared.read(|leases, _| leases.claims().told_of(state))
    }

    /// See [`vip_core::LeaseSnapshot::takes_clients`].
    pub(crate) fn takes_clients(&self, frontage: &Frontage) -> Result<Epoch, NoClients> {
        self.shared.snapshot.load().takes_clients(boottime(), frontage)
    }

    /// See [`vip_core::LeaseSnapshot::answers_until`].
    pub(crate) fn answers_until(&self, frontage: &Frontage) -> Option<Mono> {
        self.shared.snapshot.load().answers_until(frontage)
    }

    /// See [`vip_core::Leases::fitness_of`].
    pub(crate) fn fitness_of(&self, node: NodeId) -> Option<Fitness> {
        self.shared.read(|leases, now| leases.fitness_of(now, node))
    }

    /// See [`vip_core::Leases::target`].
    pub(crate) fn target(&self, vip: &Vip) -> Option<NodeId> {
        self.shared.read(|leases, now| leases.target(now, vip))
    }

    /// See [`Goal::look`].
    pub(crate) fn look(&self, goal: &mut Goal, state: &State) -> Progress {
        self.shared.read(|leases, now| goal.look(now, state, leases))
    }

    /// The guard, as it was there last.
    pub(crate) fn guard(&self) -> GuardStatus {
        lock(&self.shared.guard).clone()
    }

    /// What is wrong with this host's clock.
    pub(crate) fn clock_trouble(&self) -> Option<TooFast> {
        self.shared.clock.trouble()
    }

    /// Whose wall clock is far from this node's, and how, in words.
    pub(crate) fn clock_differences(&self) -> Vec<(NodeId, String)> {
        self.shared.wall_clocks().differences()
    }

    /// See [`vip_core::WallClocks::own_is_far`].
    pub(crate) fn own_clock_is_far(&self, voters: &BTreeSet<NodeId>) -> Option<OwnClockFar> {
        self.shared.wall_clocks().own_is_far(voters)
    }
}
