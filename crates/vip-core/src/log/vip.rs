//! VIPs as the log knows them: adding, removing, pinning, and the fencing facts
//! about their epochs.

use super::State;
use super::command::Position;
use crate::{
    Assignment, Cause, ConflictChange, Epoch, EventKind, Grantee, Incarnation, Name, NodeId,
    ObstacleChange, Outcome, Refusal, Term, VipAddress, VipSpec, VipUid,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// That an epoch was granted at least once, and to which guard session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settled {
    /// The epoch.
    pub epoch: Epoch,
    /// The guard session that may renew it; no other ever may.
    pub incarnation: Incarnation,
    /// The node that it is on; no other may speak for it.
    pub node: NodeId,
}

/// That from here on the leader of `term` itself holds `epoch`, with a gate
/// deadline that never exceeds its leader lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Nested {
    /// The leader's term.
    pub term: Term,
    /// The epoch.
    pub epoch: Epoch,
}

/// What a VIP is to another one, which is being changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Guest {
    /// The other one.
    pub of: VipUid,
    /// Nobody is to hold it: nodes say whether they could.
    pub trial: bool,
}

/// An address that a VIP gave up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dropped {
    /// The address.
    pub ip: IpAddr,
    /// The last epoch that had it.
    pub epoch: Epoch,
}

/// A VIP with all that the log knows of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vip {
    /// Fencing identity.
    pub uid: VipUid,
    /// What is wanted.
    pub spec: VipSpec,
    /// Pinned there by `vip move --to`, until that node fails.
    #[serde(default)]
    pub pinned: Option<NodeId>,
    /// Assigned holder. Whether it answers yet is the lease's business.
    #[serde(default)]
    pub holder: Option<NodeId>,
    /// Epoch of the assignment; 0: never assigned.
    #[serde(default)]
    pub epoch: Epoch,
    /// Term in which it was assigned.
    #[serde(default)]
    pub assigned_in: Term,
    /// Log time of the assignment, ms since 1970.
    #[serde(default)]
    pub since_ms: u64,
    /// Why it was assigned.
    #[serde(default)]
    pub cause: Option<Cause>,
    /// Latest epoch known to have been granted.
    #[serde(default)]
    pub settled: Option<Settled>,
    /// Latest nesting in a leader lease.
    #[serde(default)]
    pub nested: Option<Nested>,
    /// Latest epoch whose holder was seen to answer; 0: it never did.
    #[serde(default)]
    pub answered: Epoch,
    /// Every epoch up to this one is known to answer nowhere, for good.
    #[serde(default)]
    pub fenced: Epoch,
    /// It is there for a change of another VIP, and no longer than that takes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guest: Option<Guest>,
    /// Counts the changes of its spec.
    #[serde(default)]
    pub revision: u32,
    /// What it had before, and may still answer for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dropped: Vec<Dropped>,
}

impl Vip {
    /// A VIP that nobody holds yet.
    #[must_use]
    pub fn new(uid: VipUid, spec: VipSpec) -> Self {
        Self {
            uid,
            spec,
            pinned: None,
            holder: None,
            epoch: Epoch(0),
            assigned_in: Term(0),
            since_ms: 0,
            cause: None,
            settled: None,
            nested: None,
            answered: Epoch(0),
            fenced: Epoch(0),
            guest: None,
            revision: 0,
            dropped: vec![],
        }
    }

    /// Nothing that is known of who holds it counts any more, and one epoch more
    /// than is known of may have been granted.
    pub(crate) fn begin_anew(&mut self) {
        (self.holder, self.pinned, self.settled, self.nested) = (None, None, None, None);
        (self.epoch, self.answered) = (self.epoch.next(), Epoch(0));
    }

    /// Whether somebody is to hold it.
    #[must_use]
    pub fn is_wanted(&self) -> bool {
        self.guest.is_none_or(|guest| !guest.trial)
    }

    /// The guard session that an epoch is known to be bound to.
    #[must_use]
    pub fn bound(&self, epoch: Epoch) -> Option<Incarnation> {
        self.settled_at(epoch).map(|s| s.incarnation)
    }

    pub(crate) fn settled_at(&self, epoch: Epoch) -> Option<Settled> {
        self.settled.filter(|s| s.epoch == epoch)
    }
}

impl State {
    pub(super) fn add_vip(&mut self, actor: &str, spec: &VipSpec) -> Result<Outcome, Refusal> {
        spec.check()?;
        if let Some(there) = self.vip_named(spec.name.as_str()) {
            let uid = there.uid;
            let other = VipSpec { no_probe: spec.no_probe, ..there.spec.clone() };
            if other != *spec {
                return Err(Refusal::VipExists { name: spec.name.clone() });
            }
            // Who was refused for a foreign host says the same again, and that
            // it is meant.
            return match self.vips.get_mut(&uid) {
                Some(vip) if spec.no_probe && !vip.spec.no_probe => {
                    vip.spec.no_probe = true;
                    self.record(actor, EventKind::VipUnprobed { vip: spec.name.clone() });
                    Ok(Outcome::Done)
                }
                _ => Ok(Outcome::Unchanged),
            };
        }
        self.check_free(&spec.addresses, |_| false)?;
        self.new_vip(spec);
        self.record(actor, EventKind::VipAdded { vip: spec.name.clone() });
        Ok(Outcome::Done)
    }

    pub(super) fn new_vip(&mut self, spec: &VipSpec) -> &mut Vip {
        self.next_vip += 1;
        let uid = VipUid(self.next_vip);
        self.vips.entry(uid).or_insert_with(|| Vip::new(uid, spec.clone()))
    }

    pub(super) fn remove_vip(&mut self, actor: &str, name: &Name) -> Result<Outcome, Refusal> {
        let uid = self.uid_of(name)?;
        self.forget_vip(uid);
        self.record(actor, EventKind::VipRemoved { vip: name.clone() });
        Ok(Outcome::Done)
    }

    /// It is none any more, and so are its guests. What may still answer for it is
    /// remembered.
    pub(super) fn forget_vip(&mut self, uid: VipUid) {
        let is_guest = |vip: &&Vip| vip.guest.is_some_and(|guest| guest.of == uid);
        let guests: Vec<_> = self.vips.values().filter(is_guest).map(|vip| vip.uid).collect();
        for guest in guests {
            self.forget_vip(guest);
        }
        self.obstacles.remove(&uid);
        self.conflicts.remove(&uid);
        if let Some(mut vip) = self.vips.remove(&uid)
            && vip.fenced < vip.epoch
        {
            let whole = |ip: IpAddr| if ip.is_ipv4() { 32 } else { 128 };
            let dropped = std::mem::take(&mut vip.dropped).into_iter();
            let dropped = dropped.map(|d| VipAddress { ip: d.ip, prefix: whole(d.ip) });
            vip.spec.addresses.extend(dropped);
            self.retired.push(vip);
        }
    }

    pub(super) fn pin_vip(
        &mut self,
        actor: &str,
        name: &Name,
        to: Option<NodeId>,
    ) -> Result<Outcome, Refusal> {
        let uid = self.uid_of(name)?;
        if let Some(id) = to {
            self.check_may_hold(id)?;
        }
        match self.vips.get_mut(&uid) {
            Some(vip) if vip.pinned != to => vip.pinned = to,
            _ => return Ok(Outcome::Unchanged),
        }
        self.record_of(uid, actor, EventKind::VipPinned { vip: name.clone(), to });
        Ok(Outcome::Done)
    }

    /// An event of a VIP that people know of.
    fn record_of(&mut self, uid: VipUid, actor: &str, what: EventKind) {
        if self.vip_or_retired(uid).is_some_and(|vip| vip.guest.is_none()) {
            self.record(actor, what);
        }
    }

    fn check_may_hold(&self, id: NodeId) -> Result<(), Refusal> {
        let Some(node) = self.nodes.get(&id) else {
            return Err(Refusal::UnknownNode { name: id.to_string() });
        };
        if node.may_hold() {
            return Ok(());
        }
        let why = if node.role.holds() {
            format!("it is {}", node.state.as_str())
        } else {
            format!("it is a {}", node.role)
        };
        Err(Refusal::CannotHold { name: node.name.clone(), why })
    }

    fn uid_of(&self, name: &Name) -> Result<VipUid, Refusal> {
        let unknown = || Refusal::UnknownVip { name: name.to_string() };
        self.vip_named(name.as_str()).map(|vip| vip.uid).ok_or_else(unknown)
    }

    pub(super) fn assign(
        &mut self,
        at: Position,
        actor: &str,
        moves: &[Assignment],
    ) -> Result<Outcome, Refusal> {
        // All are checked before any is made: an entry is applied whole or not at all.
        for step in moves {
            let Some(vip) = self.vip(step.vip) else {
                return Err(Refusal::UnknownVip { name: format!("with id {}", step.vip) });
            };
            if vip.epoch != step.seen {
                let (expected, actual) = (step.seen, vip.epoch);
                return Err(Refusal::EpochMoved { vip: vip.spec.name.clone(), expected, actual });
            }
            if let Some(to) = step.to {
                self.check_may_hold(to)?;
            }
        }
        let now = self.time_ms;
        for step in moves {
            let Some(vip) = self.vips.get_mut(&step.vip) else { continue };
            let from = vip.holder;
            vip.holder = step.to;
            vip.epoch = vip.epoch.next();
            vip.assigned_in = at.term;
            vip.since_ms = now;
            vip.cause = Some(step.cause);
            if vip.pinned != step.to {
                // Pinned until that node fails, not until it comes back.
                vip.pinned = None;
            }
            let (vip, epoch) = (vip.spec.name.clone(), vip.epoch);
            let assigned =
                EventKind::VipAssigned { vip, from, to: step.to, epoch, cause: step.cause };
            self.record_of(step.vip, actor, assigned);
        }
        Ok(Outcome::Done)
    }

    pub(super) fn settle(&mut self, at: Position, grants: &[Grantee], nested: bool) -> Outcome {
        for grant in grants {
            let Some(vip) = self.vips.get_mut(&grant.vip) else { continue };
            if grant.epoch > vip.epoch || grant.epoch <= vip.fenced {
                continue;
            }
            // Of an epoch that was overtaken meanwhile nobody knows the node.
            let holder = vip.holder.filter(|_| grant.epoch == vip.epoch);
            let first = vip.settled.is_none_or(|s| s.epoch < grant.epoch);
            if let (true, Some(node)) = (first, holder) {
                let (epoch, incarnation) = (grant.epoch, grant.incarnation);
                vip.settled = Some(Settled { epoch, incarnation, node });
                // That it was granted proves that everything before it had ended.
                vip.fenced = vip.fenced.max(grant.epoch.previous());
                let fenced = vip.fenced;
                vip.dropped.retain(|dropped| fenced < dropped.epoch);
            }
            if nested && vip.bound(grant.epoch) == Some(grant.incarnation) {
                vip.nested = Some(Nested { term: at.term, epoch: grant.epoch });
            }
        }
        Outcome::Done
    }

    pub(super) fn answered(&mut self, actor: &str, grants: &[Grantee]) -> Outcome {
        for grant in grants {
            let Some(vip) = self.vips.get_mut(&grant.vip) else { continue };
            let by = vip.settled_at(grant.epoch).filter(|s| s.incarnation == grant.incarnation);
            let Some(node) = by.map(|s| s.node).filter(|_| vip.answered < grant.epoch) else {
                continue;
            };
            vip.answered = grant.epoch;
            let vip = vip.spec.name.clone();
            let answers = EventKind::VipAnswers { vip, node, epoch: grant.epoch };
            self.record_of(grant.vip, actor, answers);
        }
        Outcome::Done
    }

    pub(super) fn obstacles_changed(&mut self, actor: &str, changes: &[ObstacleChange]) -> Outcome {
        for ObstacleChange { vip: uid, node, why } in changes {
            let Some(vip) = self.vips.get(uid).map(|vip| vip.spec.name.clone()) else { continue };
            if !self.nodes.contains_key(node) {
                continue;
            }
            if take_over(&mut self.obstacles, (*uid, *node), why.as_ref())
                && let Some(why) = why.clone()
            {
                self.record_of(*uid, actor, EventKind::VipObstacle { vip, node: *node, why });
            }
        }
        Outcome::Done
    }

    pub(super) fn conflicts_changed(&mut self, actor: &str, changes: &[ConflictChange]) -> Outcome {
        for ConflictChange { vip: uid, node, what } in changes {
            let Some(vip) = self.vips.get(uid).map(|vip| vip.spec.name.clone()) else { continue };
            if !self.nodes.contains_key(node) {
                continue;
            }
            if take_over(&mut self.conflicts, (*uid, *node), what.as_ref())
                && let Some(what) = *what
            {
                let member = self.node_with(what.mac);
                self.record(actor, EventKind::VipConflict { vip, node: *node, what, member });
            }
        }
        Outcome::Done
    }

    /// Of a node that is no member any more.
    pub(super) fn forget_reports_of(&mut self, id: NodeId) {
        for vip in self.vips.keys() {
            take_over(&mut self.obstacles, (*vip, id), None);
            take_over(&mut self.conflicts, (*vip, id), None);
        }
    }

    pub(super) fn released(&mut self, actor: &str, releases: &[Grantee]) -> Outcome {
        for release in releases {
            if let Some(vip) = self.vips.get_mut(&release.vip) {
                if fence(vip, release) {
                    let vip = vip.spec.name.clone();
                    let released = EventKind::VipReleased { vip, epoch: release.epoch };
                    self.record_of(release.vip, actor, released);
                }
            } else if let Some(at) = self.retired.iter().position(|old| old.uid == release.vip) {
                let vip = &mut self.retired[at];
                fence(vip, release);
                if vip.fenced >= vip.epoch {
                    self.retired.swap_remove(at);
                }
            }
        }
        Outcome::Done
    }
}

/// Takes over what a node says of a VIP now, or that it says nothing any more.
/// Returns whether it is news.
fn take_over<T: Clone + PartialEq>(
    known: &mut BTreeMap<VipUid, BTreeMap<NodeId, T>>,
    (vip, node): (VipUid, NodeId),
    said: Option<&T>,
) -> bool {
    let nodes = known.entry(vip).or_default();
    let is_news = said != nodes.get(&node);
    match said {
        Some(said) if is_news => {
            nodes.insert(node, said.clone());
        }
        Some(_) => {}
        None => {
            nodes.remove(&node);
        }
    }
    if nodes.is_empty() {
        known.remove(&vip);
    }
    is_news
}

/// Takes note that an epoch ended, if the release speaks for the session that
/// the epoch is bound to.
fn fence(vip: &mut Vip, release: &Grantee) -> bool {
    let known = vip.bound(release.epoch) == Some(release.incarnation);
    if !known || release.epoch <= vip.fenced {
        return false;
    }
    vip.fenced = release.epoch;
    true
}
