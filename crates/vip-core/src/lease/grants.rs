//! The leader's decision who may answer for a VIP, until when.
//!
//! An assignment may be committed at any time; what keeps two nodes from
//! answering is the first grant of the new epoch. It waits until every earlier
//! epoch has ended:
//!
//! - the session it was bound to released it, or
//! - it was assigned in this leader's term, and this leader never granted it, or
//! - W has passed since this leader last granted one of them, or
//! - this leader granted none, and W has passed since its election, or the
//!   earlier holder led the term before and held within its own leader lease.
//!
//! A first grant is one VIP's own. What a node has is then renewed together, by
//! the name of the set.

mod covers;

use crate::{
    Cause, Epoch, Grantee, Incarnation, LeaderLease, Mono, NodeId, State, Term, Timing, Vip, VipUid,
};
use covers::Covers;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A node's request to answer, or to go on answering.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// Who asks.
    pub node: NodeId,
    /// For what, with the asking guard's session.
    pub grantee: Grantee,
    /// The gate stays shut: it is not renewed with what the node answers for.
    pub shut: bool,
}

/// Why a request cannot be granted, now or ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Denial {
    /// No lease, or its own term's first entry is not applied yet.
    NotLeading,
    /// The log says somebody else, or another epoch.
    NotHolder,
    /// The epoch ended.
    Ended,
    /// The epoch is bound to another guard session of the same node. If that
    /// session is over, the node releases the epoch in its name.
    OtherSession(Incarnation),
}

/// The answer to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Granted, from the requester's send time for G.
    Granted,
    /// Not yet: an earlier epoch may still answer, at most until then.
    Wait(Mono),
    /// No.
    Denied(Denial),
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Issued {
    epoch: Epoch,
    incarnation: Incarnation,
    node: NodeId,
    at: Mono,
    /// The epoch's first grant was this leader's, so no earlier leader's grant
    /// can have left a longer deadline at the holder's gate.
    first: bool,
    /// It is renewed with all that the node has.
    covered: bool,
}

impl Issued {
    fn is_to(&self, node: NodeId, grantee: Grantee) -> bool {
        (self.node, self.epoch, self.incarnation) == (node, grantee.epoch, grantee.incarnation)
    }

    fn grantee(&self, vip: VipUid) -> Grantee {
        Grantee { vip, epoch: self.epoch, incarnation: self.incarnation }
    }
}

/// What one leader granted in its term. Volatile.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Grants {
    /// Latest grant per VIP by itself, with the greatest epoch granted.
    issued: BTreeMap<VipUid, Issued>,
    /// What is renewed together.
    covers: Covers,
    /// Per VIP: ended up to here, known before the log says so.
    ended: BTreeMap<VipUid, Epoch>,
    /// Per VIP: the epoch whose holder asked, so it is ready to answer.
    prepared: BTreeMap<VipUid, Epoch>,
    /// Per VIP that was not assigned in this term yet when the log reached it: its epoch then.
    /// Later ones nobody else can have granted.
    #[serde(default)]
    inherited: Option<BTreeMap<VipUid, Epoch>>,
}

impl Grants {
    /// Every epoch of the VIP up to this one has ended, for good.
    #[must_use]
    pub fn ended(&self, vip: &Vip) -> Epoch {
        self.ended.get(&vip.uid).copied().unwrap_or_default().max(vip.fenced)
    }

    /// Takes note of what earlier leaders left, from the first state that has an entry of this
    /// term: it holds every assignment that they committed.
    pub fn inherit(&mut self, lease: &LeaderLease, state: &State) {
        let term = lease.term();
        if self.inherited.is_some() || state.term != term {
            return;
        }
        let left = state.all_vips().filter(|vip| vip.assigned_in < term);
        self.inherited = Some(left.map(|vip| (vip.uid, vip.epoch)).collect());
    }

    /// The greatest epoch before the current one that somebody may have granted. One that was
    /// assigned in this term, and that this leader did not grant, was granted by nobody.
    fn may_have_been_granted(&self, vip: &Vip) -> Epoch {
        let before = vip.epoch.previous();
        let inherited = self.inherited.as_ref().and_then(|all| all.get(&vip.uid));
        let Some(inherited) = inherited else { return before };
        let issued = self.issued.get(&vip.uid).map_or(Epoch(0), |issued| issued.epoch);
        issued.max(*inherited).min(before)
    }

    /// Decides on requests, and takes note of what it grants.
    pub fn request(
        &mut self,
        now: Mono,
        requests: impl IntoIterator<Item = Request>,
        lease: &LeaderLease,
        state: &State,
        timing: &Timing,
    ) -> Vec<(Grantee, Verdict)> {
        // The state has seen an entry of this term: it then holds every
        // assignment that earlier leaders committed.
        let leads = state.term == lease.term() && lease.is_valid(now);
        let decide = |request: Request| {
            let verdict = if leads {
                self.decide(now, request, lease, state, timing)
            } else {
                Verdict::Denied(Denial::NotLeading)
            };
            (request.grantee, verdict)
        };
        requests.into_iter().map(decide).collect()
    }

    /// The lease runs.
    fn decide(
        &mut self,
        now: Mono,
        request: Request,
        lease: &LeaderLease,
        state: &State,
        timing: &Timing,
    ) -> Verdict {
        let wanted = request.grantee;
        let Some(vip) = state.vip(wanted.vip) else {
            return Verdict::Denied(Denial::NotHolder);
        };
        if vip.holder != Some(request.node) || vip.epoch != wanted.epoch {
            return self.superseded(now, request, vip);
        }
        if self.prepared.insert(wanted.vip, wanted.epoch) != Some(wanted.epoch) {
            self.covers.outdated();
        }
        if self.ended(vip) >= wanted.epoch {
            return Verdict::Denied(Denial::Ended);
        }
        let bound = self.bound(vip, wanted.epoch);
        match bound {
            Some(session) if session != wanted.incarnation => {
                return Verdict::Denied(Denial::OtherSession(session));
            }
            Some(_) => {}
            None => {
                let free_at = self.first_grant_at(vip, lease, state, timing);
                if now < free_at {
                    return Verdict::Wait(free_at);
                }
            }
        }
        let before = self.issued.get(&wanted.vip).filter(|i| i.epoch == wanted.epoch);
        // That nobody settled it is not enough: an earlier leader may have
        // granted it and gone before it could say so.
        let here = vip.assigned_in == lease.term() && bound.is_none();
        let first = before.map_or(here, |i| i.first);
        let Grantee { vip: uid, epoch, incarnation } = wanted;
        let node = request.node;
        // What was asked for before the gate opened, and comes late, takes nothing out of a set
        // that is renewed.
        let covered = !request.shut || before.is_some_and(|i| i.covered && i.is_to(node, wanted));
        if covered {
            self.cover(node, incarnation);
        } else {
            self.covers.outdated();
        }
        let issued = Issued { epoch, incarnation, node, at: now, first, covered };
        self.issued.insert(uid, issued);
        Verdict::Granted
    }

    /// A holder asks for the epoch before the current one. In a planned move it
    /// goes on until its successor is ready: a thousand VIPs take longer than a
    /// lease. Told no, it releases.
    fn superseded(&mut self, now: Mono, request: Request, vip: &Vip) -> Verdict {
        let Request { node, grantee, .. } = request;
        let goes_on = self.hands_over(vip, grantee.epoch);
        match self.issued.get_mut(&vip.uid).filter(|issued| issued.is_to(node, grantee)) {
            Some(issued) if goes_on => {
                issued.at = now;
                Verdict::Granted
            }
            _ => Verdict::Denied(Denial::NotHolder),
        }
    }

    /// Whether the holder of this epoch goes on, as its successor is not ready.
    fn hands_over(&self, vip: &Vip, epoch: Epoch) -> bool {
        let ready = self.prepared.get(&vip.uid) == Some(&vip.epoch);
        let planned = vip.holder.is_some() && vip.cause.is_some_and(Cause::is_planned);
        planned && !ready && epoch.next() == vip.epoch && self.ended(vip) < epoch
    }

    /// The session that an epoch is bound to, if it was ever granted as far as
    /// anybody knows.
    fn bound(&self, vip: &Vip, epoch: Epoch) -> Option<Incarnation> {
        self.bound_to(vip, epoch).map(|(_, session)| session)
    }

    fn bound_to(&self, vip: &Vip, epoch: Epoch) -> Option<(NodeId, Incarnation)> {
        let here = self.issued.get(&vip.uid).filter(|i| i.epoch == epoch);
        let log = || vip.settled_at(epoch).map(|s| (s.node, s.incarnation));
        here.map(|i| (i.node, i.incarnation)).or_else(log)
    }

    /// When every epoch before the current one has certainly ended.
    fn first_grant_at(
        &self,
        vip: &Vip,
        lease: &LeaderLease,
        state: &State,
        timing: &Timing,
    ) -> Mono {
        let through = self.may_have_been_granted(vip);
        let own = if self.ended(vip) >= through {
            Mono::ZERO
        } else {
            self.silent_at(vip, through, lease, state.previous_term, timing)
        };
        // An address may have belonged to a VIP that was removed meanwhile.
        let haunting = state
            .haunting(&vip.spec.addresses)
            .filter(|old| self.ended(old) < old.epoch)
            .map(|old| self.silent_at(old, old.epoch, lease, state.previous_term, timing));
        haunting.fold(own, Mono::max)
    }

    /// When every epoch of `vip` up to `through` has certainly ended.
    fn silent_at(
        &self,
        vip: &Vip,
        through: Epoch,
        lease: &LeaderLease,
        previous_term: Term,
        timing: &Timing,
    ) -> Mono {
        match self.granted_at(vip.uid) {
            Some(granted_at) => granted_at + timing.wait,
            None if nested_before(vip, through, previous_term) => Mono::ZERO,
            None => lease.elected_at() + timing.wait,
        }
    }

    /// The epoch ended, says the node that held it. Believed only from the
    /// session that the epoch is bound to: then it is true for good.
    pub fn released(&mut self, vip: &Vip, from: NodeId, release: Grantee) -> bool {
        if self.bound_to(vip, release.epoch) != Some((from, release.incarnation)) {
            return false;
        }
        let ended = self.ended.entry(release.vip).or_default();
        *ended = release.epoch.max(*ended);
        self.covers.outdated();
        true
    }

    /// Grants of epochs that the log does not know as settled (or, for the
    /// leader's own, as nested in this term) yet.
    ///
    /// What `me` holds nests in its leader lease only once no deadline beyond
    /// that can be left at its gate: at once, if the epoch began in this term;
    /// else G after the election, as earlier leaders granted from send times
    /// before it. (That the gate was told of a shorter deadline proves nothing:
    /// its guard may be frozen.)
    #[must_use]
    pub fn unsettled(
        &self,
        now: Mono,
        state: &State,
        me: NodeId,
        elected_at: Mono,
        timing: &Timing,
    ) -> (Vec<Grantee>, Vec<Grantee>) {
        let outlived = now >= elected_at + timing.grant;
        let (mut own, mut others) = (vec![], vec![]);
        for (uid, issued) in &self.issued {
            let Some(vip) = state.vip(*uid) else { continue };
            if issued.epoch != vip.epoch || self.ended(vip) >= issued.epoch {
                continue;
            }
            let (epoch, incarnation) = (issued.epoch, issued.incarnation);
            let grantee = Grantee { vip: *uid, epoch, incarnation };
            let nested = vip.nested.is_some_and(|n| n.term == state.term && n.epoch == epoch);
            if vip.holder == Some(me) && !nested && (issued.first || outlived) {
                own.push(grantee);
            } else if vip.holder != Some(me) && vip.bound(epoch).is_none() {
                others.push(grantee);
            }
        }
        (own, others)
    }

    /// Removed VIPs that certainly answer nowhere any more, which the log does
    /// not know yet: nobody can be granted them, and whoever was has had his
    /// time.
    #[must_use]
    pub fn outwaited(
        &self,
        now: Mono,
        lease: &LeaderLease,
        state: &State,
        timing: &Timing,
    ) -> Vec<VipUid> {
        let silent =
            |old: &&Vip| now >= self.silent_at(old, old.epoch, lease, state.previous_term, timing);
        state.retired_vips().filter(silent).map(|old| old.uid).collect()
    }

    /// Releases that the log does not know yet.
    #[must_use]
    pub fn unlogged_releases(&self, state: &State) -> Vec<Grantee> {
        let known = |(uid, epoch): (&VipUid, &Epoch)| {
            let vip = state.vip_or_retired(*uid)?;
            let incarnation = vip.bound(*epoch)?;
            (vip.fenced < *epoch).then_some(Grantee { vip: *uid, epoch: *epoch, incarnation })
        };
        self.ended.iter().filter_map(known).collect()
    }
}

/// Whether, as far as the log tells, the current epoch's first grant has to wait
/// for an earlier one to end by itself.
pub(crate) fn waits(vip: &Vip, state: &State) -> bool {
    let before = vip.epoch.previous();
    vip.fenced < before
        && !vip.cause.is_some_and(Cause::is_planned)
        && !nested_before(vip, before, state.previous_term)
}

/// Whether `through` was held by the leader of the term right before this one,
/// within its leader lease: it ended with that lease, and no leader came
/// between who could have granted it again.
fn nested_before(vip: &Vip, through: Epoch, previous_term: Term) -> bool {
    vip.nested.is_some_and(|n| n.term == previous_term && n.epoch >= through)
}

#[cfg(test)]
mod tests;
