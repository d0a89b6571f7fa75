//! VIPs as the log knows them: adding, removing, pinning, and the fencing facts
//! about their epochs.

mod fencing;

use super::State;
use super::command::Position;
use super::reports::{forget, take_over};
use crate::{
    Cause, Conflict, Epoch, Grantee, Incarnation, Level, MAX_TOKEN, Name, NodeId, Obstacle,
    Outcome, Refusal, Term, ViaToken, VipAddress, VipSpec, VipUid,
};
use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use std::sync::Arc;

/// That an epoch was granted at least once, and to which guard session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settled {
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
    pub pinned: Option<NodeId>,
    /// Assigned holder. Whether it answers yet is the lease's business.
    pub holder: Option<NodeId>,
    /// Epoch of the assignment; 0: never assigned.
    pub epoch: Epoch,
    /// Term in which it was assigned.
    pub assigned_in: Term,
    /// Log time of the assignment, ms since 1970.
    pub since_ms: u64,
    /// Why it was assigned.
    pub cause: Option<Cause>,
    /// Latest epoch known to have been granted.
    pub settled: Option<Settled>,
    /// Latest nesting in a leader lease.
    pub nested: Option<Nested>,
    /// Latest epoch whose holder was seen to answer; 0: it never did.
    pub answered: Epoch,
    /// Every epoch up to this one is known to answer nowhere, for good.
    pub fenced: Epoch,
    /// It is there for a change of another VIP, and no longer than that takes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guest: Option<Guest>,
    /// Counts the changes of its spec.
    pub revision: u32,
    /// What its holder saw of where it was, before it tells anybody that it is here: of an
    /// epoch that is over none is taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<ViaToken>,
    /// How many assignments there were of VIPs that nodes announce, up to its latest. Of two
    /// announcements of an address the one with the higher is the later, also if the VIP was
    /// another one then: epochs begin anew with each. Absent where nobody used it.
    #[serde(default, skip_serializing_if = "super::state::is_zero")]
    pub rank: u64,
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
            token: None,
            rank: 0,
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

/// One change of a VIP's holder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assignment {
    pub vip: VipUid,
    /// The epoch that the proposer saw; the assignment gets the next one.
    pub seen: Epoch,
    /// The new holder.
    pub to: Option<NodeId>,
    /// Why.
    pub cause: Cause,
}

/// What hinders a node from holding a VIP now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObstacleChange {
    pub vip: VipUid,
    pub node: NodeId,
    /// What; nothing any more.
    pub why: Option<Obstacle>,
}

/// Whom a node hears claim an address of a VIP now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConflictChange {
    pub vip: VipUid,
    /// The node that hears it.
    pub node: NodeId,
    /// What; nothing any more.
    pub what: Option<Conflict>,
}

/// A change of VIPs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum VipOp {
    /// Adds a VIP.
    Add {
        /// What is wanted.
        spec: VipSpec,
    },
    /// Adds a VIP for a change of another one.
    AddGuest {
        /// What is wanted, under a name of its own.
        spec: VipSpec,
        /// For which, and what for.
        guest: Guest,
    },
    /// Removes one that was added for a change, if it is there.
    EndGuest { vip: VipUid },
    /// Changes what is wanted of a VIP that is there.
    Set {
        /// All of it, under the VIP's name.
        spec: VipSpec,
        /// The revision that it changes; of any other it changes nothing.
        seen: u32,
        /// A guest of it, whose addresses it takes over and which ends with that.
        /// Both answer on one node, or it is refused.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        guest: Option<VipUid>,
    },
    /// Removes a VIP.
    Remove { name: Name },
    /// Pins a VIP to a node, or lets placement decide again.
    Pin {
        name: Name,
        /// Where to.
        to: Option<NodeId>,
    },
    /// Changes holders, all or none of one entry.
    Assign {
        /// Each VIP at most once.
        moves: Vec<Assignment>,
    },
    /// Epochs that were granted at least once. With `nested`, the proposer
    /// itself holds them, and its gate never outlives its leader lease.
    Settle {
        grants: Vec<Grantee>,
        /// The proposing leader holds them itself.
        nested: bool,
    },
    /// Why nodes cannot hold VIPs, where that changed.
    Obstacles {
        /// Each VIP and node at most once.
        changes: Vec<ObstacleChange>,
    },
    /// Epochs whose holder answers.
    Answered { grants: Vec<Grantee> },
    /// Who claims addresses of VIPs beside their holders, where that changed.
    Conflicts {
        /// Each VIP and node at most once.
        changes: Vec<ConflictChange>,
    },
    /// What holders saw, before they change it.
    Saw {
        /// Each VIP at most once.
        tokens: Vec<(VipUid, ViaToken)>,
    },
    /// Removed VIPs that answer nowhere any more: the leader waited for as long
    /// as anybody can have been granted them.
    Outwaited { vips: Vec<VipUid> },
    /// Epochs that answer nowhere any more, for good.
    Released { releases: Vec<Grantee> },
}

/// What happened to a VIP.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum VipEvent {
    /// A VIP was added.
    Added {
        /// Its name.
        vip: Name,
    },
    /// A VIP is claimed although other hosts answer for it.
    Unprobed {
        /// Its name.
        vip: Name,
    },
    /// Somebody said where a VIP is to be, or that its placement decides again.
    Pinned {
        /// Its name.
        vip: Name,
        /// The node.
        to: Option<NodeId>,
    },
    /// What is wanted of a VIP was changed.
    Set {
        /// Its name.
        vip: Name,
    },
    /// A VIP was removed.
    Removed {
        /// Its name.
        vip: Name,
    },
    /// A VIP was given to a holder.
    Assigned {
        vip: Name,
        /// The holder before.
        from: Option<NodeId>,
        /// The holder now.
        to: Option<NodeId>,
        /// The new epoch.
        epoch: Epoch,
        /// Why.
        cause: Cause,
    },
    /// A node could not hold a VIP.
    Obstacle { vip: Name, node: NodeId, why: Obstacle },
    /// It was not found at its holder any more, who takes it back.
    MovedAway {
        vip: Name,
        /// The holder.
        from: NodeId,
    },
    /// Another host claims an address of a VIP beside its holder.
    Conflict {
        vip: Name,
        /// The node that heard it.
        node: NodeId,
        /// The address, and who claims it.
        what: Conflict,
        /// The member that this is, if it is one.
        member: Option<NodeId>,
    },
    /// The holder of this epoch answers.
    Answers {
        vip: Name,
        /// The holder.
        node: NodeId,
        epoch: Epoch,
    },
    /// The holder of this epoch is silent for good.
    Released { vip: Name, epoch: Epoch },
}

impl VipOp {
    /// Since when there is such an operation.
    #[must_use]
    pub const fn since(&self) -> Level {
        match self {
            Self::Add { spec } | Self::AddGuest { spec, .. } | Self::Set { spec, .. } => {
                spec.via.since()
            }
            Self::Saw { .. } => Level::VIAS,
            Self::EndGuest { .. }
            | Self::Remove { .. }
            | Self::Pin { .. }
            | Self::Assign { .. }
            | Self::Settle { .. }
            | Self::Obstacles { .. }
            | Self::Answered { .. }
            | Self::Conflicts { .. }
            | Self::Outwaited { .. }
            | Self::Released { .. } => Level::FIRST,
        }
    }
}

impl State {
    /// Why a node cannot hold a VIP, as it says.
    #[must_use]
    pub fn hindrance(&self, vip: &Vip, node: NodeId) -> Option<Refusal> {
        let why = self.obstacles.get(&vip.uid)?.get(&node)?;
        self.cannot_hold(node, why.to_string())
    }

    pub(crate) fn cannot_hold(&self, node: NodeId, why: String) -> Option<Refusal> {
        let name = self.nodes.get(&node)?.name.clone();
        Some(Refusal::CannotHold { name, why })
    }

    pub(super) fn apply_to_vip(
        &mut self,
        at: Position,
        actor: &str,
        op: &VipOp,
    ) -> Result<Outcome, Refusal> {
        match op {
            VipOp::Add { spec } => self.add_vip(actor, spec),
            VipOp::AddGuest { spec, guest } => self.add_guest(spec, *guest),
            VipOp::EndGuest { vip } => Ok(self.end_guest(*vip)),
            VipOp::Set { spec, seen, guest } => self.set_vip(at, actor, spec, *seen, *guest),
            VipOp::Remove { name } => self.remove_vip(actor, name),
            VipOp::Pin { name, to } => self.pin_vip(actor, name, *to),
            VipOp::Assign { moves } => self.assign(at, actor, moves),
            VipOp::Settle { grants, nested } => Ok(self.settle(at, grants, *nested)),
            VipOp::Obstacles { changes } => Ok(self.obstacles_changed(actor, changes)),
            VipOp::Answered { grants } => Ok(self.answered(actor, grants)),
            VipOp::Conflicts { changes } => Ok(self.conflicts_changed(actor, changes)),
            VipOp::Outwaited { vips } => {
                Arc::make_mut(&mut self.retired).retain(|old| !vips.contains(&old.uid));
                Ok(Outcome::Done)
            }
            VipOp::Released { releases } => Ok(self.released(actor, releases)),
            VipOp::Saw { tokens } => Ok(self.saw(actor, tokens)),
        }
    }

    /// A VIP that was to stay on a node goes where placement wants it.
    pub(super) fn unpin_from(&mut self, node: NodeId) {
        let pinned = self.all_vips().filter(|vip| vip.pinned == Some(node));
        for uid in pinned.map(|vip| vip.uid).collect::<Vec<_>>() {
            if let Some(vip) = self.vip_mut(uid) {
                vip.pinned = None;
            }
        }
    }

    fn add_vip(&mut self, actor: &str, spec: &VipSpec) -> Result<Outcome, Refusal> {
        spec.check()?;
        if let Some(there) = self.vip_named(spec.name.as_str()) {
            let uid = there.uid;
            let other = VipSpec { no_probe: spec.no_probe, ..there.spec.clone() };
            if other != *spec {
                return Err(Refusal::VipExists { name: spec.name.clone() });
            }
            // Who was refused for a foreign host says the same again, and that
            // it is meant.
            return match self.vip_mut(uid) {
                Some(vip) if spec.no_probe && !vip.spec.no_probe => {
                    vip.spec.no_probe = true;
                    self.record(actor, VipEvent::Unprobed { vip: spec.name.clone() });
                    Ok(Outcome::Done)
                }
                _ => Ok(Outcome::Unchanged),
            };
        }
        self.check_free(&spec.addresses, |_| false)?;
        self.check_addresses(None, spec)?;
        self.new_vip(spec);
        self.record(actor, VipEvent::Added { vip: spec.name.clone() });
        Ok(Outcome::Done)
    }

    pub(super) fn new_vip(&mut self, spec: &VipSpec) -> &mut Vip {
        self.next_vip += 1;
        let uid = VipUid(self.next_vip);
        let vips = Arc::make_mut(&mut self.vips);
        Arc::make_mut(vips.entry(uid).or_insert_with(|| Arc::new(Vip::new(uid, spec.clone()))))
    }

    fn remove_vip(&mut self, actor: &str, name: &Name) -> Result<Outcome, Refusal> {
        let uid = self.uid_of(name)?;
        self.vip(uid).map_or(Ok(()), |vip| self.check_unused(vip))?;
        self.forget_vip(uid);
        self.record(actor, VipEvent::Removed { vip: name.clone() });
        Ok(Outcome::Done)
    }

    /// It is none any more, and so are its guests. What may still answer for it is
    /// remembered.
    pub(super) fn forget_vip(&mut self, uid: VipUid) {
        let is_guest = |vip: &&Vip| vip.guest.is_some_and(|guest| guest.of == uid);
        let guests: Vec<_> = self.all_vips().filter(is_guest).map(|vip| vip.uid).collect();
        for guest in guests {
            self.forget_vip(guest);
        }
        Arc::make_mut(&mut self.obstacles).remove(&uid);
        Arc::make_mut(&mut self.conflicts).remove(&uid);
        if self.cut_off.contains_key(&uid) {
            Arc::make_mut(&mut self.cut_off).remove(&uid);
        }
        if let Some(mut vip) = Arc::make_mut(&mut self.vips).remove(&uid)
            && vip.fenced < vip.epoch
        {
            let known = Arc::make_mut(&mut vip);
            let whole = |ip: IpAddr| if ip.is_ipv4() { 32 } else { 128 };
            let dropped = std::mem::take(&mut known.dropped).into_iter();
            let dropped = dropped.map(|d| VipAddress { ip: d.ip, prefix: whole(d.ip) });
            known.spec.addresses.extend(dropped);
            Arc::make_mut(&mut self.retired).push(vip);
        }
    }

    fn pin_vip(
        &mut self,
        actor: &str,
        name: &Name,
        to: Option<NodeId>,
    ) -> Result<Outcome, Refusal> {
        let uid = self.uid_of(name)?;
        if let Some(id) = to {
            self.check_may_hold(id)?;
        }
        match self.vip_mut(uid) {
            Some(vip) if vip.pinned != to => vip.pinned = to,
            _ => return Ok(Outcome::Unchanged),
        }
        self.record_of(uid, actor, VipEvent::Pinned { vip: name.clone(), to });
        Ok(Outcome::Done)
    }

    /// An event of a VIP that people know of.
    fn record_of(&mut self, uid: VipUid, actor: &str, what: VipEvent) {
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

    fn assign(
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
            let rank = self.next_rank(step.vip);
            let Some(vip) = self.vip_mut(step.vip) else { continue };
            let from = vip.holder;
            vip.holder = step.to;
            vip.epoch = vip.epoch.next();
            vip.assigned_in = at.term;
            vip.since_ms = now;
            vip.cause = Some(step.cause);
            vip.rank = rank;
            if vip.pinned != step.to {
                // Pinned until that node fails, not until it comes back.
                vip.pinned = None;
            }
            let (vip, epoch) = (vip.spec.name.clone(), vip.epoch);
            let assigned = VipEvent::Assigned { vip, from, to: step.to, epoch, cause: step.cause };
            self.record_of(step.vip, actor, assigned);
        }
        Ok(Outcome::Done)
    }

    /// Of an assignment that is made of a VIP.
    pub(super) fn next_rank(&mut self, vip: VipUid) -> u64 {
        if !self.vip(vip).is_some_and(|vip| vip.spec.via.is_announced_by_each()) {
            return 0;
        }
        self.announced += 1;
        self.announced
    }

    /// Of the current epoch alone: whoever held an earlier one has seen nothing that counts.
    fn saw(&mut self, actor: &str, tokens: &[(VipUid, ViaToken)]) -> Outcome {
        for (uid, token) in tokens {
            let Some(vip) = self.vip_mut(*uid).filter(|vip| vip.epoch == token.epoch) else {
                continue;
            };
            if token.text.len() > MAX_TOKEN || vip.token.as_ref() == Some(token) {
                continue;
            }
            vip.token = Some(token.clone());
            // It was here: what is seen now somebody else did, or an earlier call.
            if vip.answered == vip.epoch
                && let (vip, Some(from)) = (vip.spec.name.clone(), vip.holder)
            {
                self.record_of(*uid, actor, VipEvent::MovedAway { vip, from });
            }
        }
        Outcome::Done
    }

    fn obstacles_changed(&mut self, actor: &str, changes: &[ObstacleChange]) -> Outcome {
        for ObstacleChange { vip: uid, node, why } in changes {
            let Some(vip) = self.vips.get(uid).map(|vip| vip.spec.name.clone()) else { continue };
            if !self.nodes.contains_key(node) {
                continue;
            }
            if take_over(&mut self.obstacles, (*uid, *node), why.as_ref())
                && let Some(why) = why.clone()
            {
                self.record_of(*uid, actor, VipEvent::Obstacle { vip, node: *node, why });
            }
        }
        Outcome::Done
    }

    fn conflicts_changed(&mut self, actor: &str, changes: &[ConflictChange]) -> Outcome {
        for ConflictChange { vip: uid, node, what } in changes {
            let Some(vip) = self.vips.get(uid).map(|vip| vip.spec.name.clone()) else { continue };
            if !self.nodes.contains_key(node) {
                continue;
            }
            if take_over(&mut self.conflicts, (*uid, *node), what.as_ref())
                && let Some(what) = *what
            {
                let member = self.node_with(what.mac);
                self.record(actor, VipEvent::Conflict { vip, node: *node, what, member });
            }
        }
        Outcome::Done
    }

    /// Of a node that is no member any more.
    pub(super) fn forget_reports_of(&mut self, id: NodeId) {
        forget(&mut self.obstacles, id);
        forget(&mut self.conflicts, id);
        forget(&mut self.hindrances, id);
        forget(&mut self.cut_off, id);
    }
}
