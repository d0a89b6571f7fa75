//! Changing what is wanted of a VIP that is there.
//!
//! ```text
//!  placement ──────────────────────> nothing moves
//!  addresses that another VIP was given and answers for, on the same node
//!     ──────────────────────────────> join it, under its epoch: nothing falls silent
//!  any other change of addresses or interface
//!     ──────────────────────────────> the next epoch, on the same node
//! ```
//!
//! What a VIP gives up stays its own until every epoch that had it has ended:
//! its holder may not have heard of it yet.

use super::State;
use crate::command::Position;
use crate::vip::Dropped;
use crate::{Cause, Epoch, EventKind, Name, Outcome, Refusal, Vip, VipAddress, VipSpec};
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

impl State {
    pub(super) fn set_vip(
        &mut self,
        at: Position,
        actor: &str,
        spec: &VipSpec,
        guest: Option<&Name>,
    ) -> Result<Outcome, Refusal> {
        spec.check()?;
        let unknown = |name: &Name| Refusal::UnknownVip { name: name.to_string() };
        let old = self.vip_named(spec.name.as_str()).ok_or_else(|| unknown(&spec.name))?.clone();
        let guest = match guest {
            Some(name) => {
                let guest = self.vip_named(name.as_str()).ok_or_else(|| unknown(name))?;
                answer_together(&old, guest)?;
                Some(guest.clone())
            }
            None => None,
        };
        if *spec == old.spec && guest.is_none() {
            return Ok(Outcome::Unchanged);
        }
        let own: Vec<_> =
            [Some(old.uid), guest.as_ref().map(|g| g.uid)].into_iter().flatten().collect();
        self.check_free(&spec.addresses, |vip| own.contains(&vip.uid))?;
        let stays = stays_as_it_is(&old, spec, guest.as_ref());
        if let Some(guest) = guest {
            self.forget_vip(guest.uid);
        }
        let (now, term) = (self.time_ms, at.term);
        let Some(vip) = self.vips.get_mut(&old.uid) else { return Ok(Outcome::Unchanged) };
        vip.drop_all_but(&spec.addresses);
        vip.spec = spec.clone();
        vip.revision += 1;
        let name = spec.name.clone();
        if stays || vip.epoch == Epoch(0) {
            self.record(actor, EventKind::VipSet { vip: name });
            return Ok(Outcome::Done);
        }
        (vip.epoch, vip.assigned_in, vip.since_ms) = (vip.epoch.next(), term, now);
        vip.cause = Some(Cause::Command);
        let (holder, epoch) = (vip.holder, vip.epoch);
        let (from, to, cause) = (holder, holder, Cause::Command);
        self.record(actor, EventKind::VipSet { vip: name.clone() });
        self.record(actor, EventKind::VipAssigned { vip: name, from, to, epoch, cause });
        Ok(Outcome::Done)
    }

    /// One that nobody is to hold, with addresses that others may have.
    pub(super) fn try_vip(&mut self, spec: &VipSpec) -> Result<Outcome, Refusal> {
        spec.check()?;
        if self.vip_named(spec.name.as_str()).is_some() {
            return Err(Refusal::VipExists { name: spec.name.clone() });
        }
        self.new_vip(spec).trial = true;
        Ok(Outcome::Done)
    }

    /// Whether addresses can be given to a VIP: they are nobody's, but for the
    /// VIPs that `is_own`.
    pub(super) fn check_free(
        &self,
        addresses: &[VipAddress],
        is_own: impl Fn(&Vip) -> bool,
    ) -> Result<(), Refusal> {
        for VipAddress { ip, .. } in addresses.iter().copied() {
            for vip in self.vips.values().filter(|vip| !vip.trial && !is_own(vip)) {
                let name = || vip.spec.name.clone();
                if vip.spec.has(ip) {
                    return Err(Refusal::AddressTaken { ip, vip: name() });
                }
                if vip.may_still_have(ip) {
                    return Err(Refusal::AddressLeaving { ip, vip: name() });
                }
            }
            let lives_there =
                |advertise: &str| advertise.parse::<SocketAddr>().is_ok_and(|at| at.ip() == ip);
            if let Some(node) = self.nodes.values().find(|n| lives_there(&n.advertise)) {
                return Err(Refusal::AddressOfNode { ip, node: node.name.clone() });
            }
        }
        Ok(())
    }
}

/// Both answer, on one node: what one has the other can take over there.
fn answer_together(vip: &Vip, guest: &Vip) -> Result<(), Refusal> {
    let answers = |vip: &Vip| vip.answered == vip.epoch && vip.fenced < vip.epoch;
    let together = vip.holder.is_some() && vip.holder == guest.holder && vip.uid != guest.uid;
    if together && answers(vip) && answers(guest) {
        return Ok(());
    }
    let (vip, guest) = (vip.spec.name.clone(), guest.spec.name.clone());
    Err(Refusal::NotTogether { vip, guest })
}

/// Whether the holder goes on under its epoch: with every address that it has,
/// where it has it, and others that it answers for already.
fn stays_as_it_is(old: &Vip, spec: &VipSpec, guest: Option<&Vip>) -> bool {
    let kept = old.spec.addresses.iter().all(|address| spec.addresses.contains(address));
    let brought: BTreeSet<IpAddr> =
        guest.into_iter().flat_map(|guest| &guest.spec.addresses).map(|a| a.ip).collect();
    let come = |a: &&VipAddress| !old.spec.addresses.contains(a);
    let all_brought = spec.addresses.iter().filter(come).all(|a| brought.contains(&a.ip));
    kept && all_brought && spec.interface == old.spec.interface
}

impl Vip {
    /// Whether an address that it gave up may still answer by one of its epochs.
    fn may_still_have(&self, ip: IpAddr) -> bool {
        self.dropped.iter().any(|dropped| dropped.ip == ip && self.fenced < dropped.epoch)
    }

    /// It gives up every address but these.
    fn drop_all_but(&mut self, addresses: &[VipAddress]) {
        let (fenced, epoch) = (self.fenced, self.epoch);
        self.dropped.retain(|dropped| fenced < dropped.epoch);
        let gone = self.spec.addresses.iter().map(|a| a.ip);
        let gone = gone.filter(|ip| !addresses.iter().any(|a| a.ip == *ip));
        self.dropped.extend(gone.map(|ip| Dropped { ip, epoch }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{apply, move_to, state_of, vip, voter};
    use crate::{Actor, Command, Grantee, Incarnation, NodeId, Op, VipUid};

    const WEB: VipUid = VipUid(1);
    const GUEST: VipUid = VipUid(2);

    fn command(state: &mut State, op: Op) -> Outcome {
        let command = Command { time_ms: 1, actor: Actor("test".into()), term: None, op };
        state.apply(1, &command)
    }

    fn grantee(vip: VipUid, epoch: u64) -> Grantee {
        Grantee { vip, epoch: Epoch(epoch), incarnation: Incarnation(7) }
    }

    /// It answers on this node, under its next epoch.
    fn answers_on(state: &mut State, vip: VipUid, node: u64) {
        move_to(state, vip, node);
        let grants = vec![grantee(vip, state.vip(vip).expect("there").epoch.0)];
        apply(state, Op::Settle { grants: grants.clone(), nested: false });
        apply(state, Op::Answered { grants });
    }

    /// `web` with .100 on n1, and `guest` with .101 on n1.
    fn beside() -> State {
        let mut state = state_of([voter(1), voter(2)]);
        for (uid, spec) in [(WEB, vip("web", 100)), (GUEST, vip("guest", 101))] {
            apply(&mut state, Op::AddVip { spec });
            answers_on(&mut state, uid, 1);
        }
        state
    }

    fn web(last: &[u8]) -> VipSpec {
        let addresses = last.iter().flat_map(|last| vip("web", *last).addresses).collect();
        VipSpec { addresses, ..vip("web", 100) }
    }

    fn join(spec: VipSpec) -> Op {
        Op::SetVip { spec, guest: Some("guest".parse().expect("valid")) }
    }

    #[test]
    fn what_a_guest_answers_for_joins_without_a_new_epoch() {
        let mut state = beside();
        apply(&mut state, join(web(&[100, 101])));
        let after = state.vip(WEB).expect("there");
        assert_eq!((after.epoch, after.holder, after.revision), (Epoch(1), Some(NodeId(1)), 1));
        assert_eq!(state.vip(GUEST), None);
        // Whoever holds it next waits until the guest has certainly ended.
        assert!(state.vip_or_retired(GUEST).is_some());
        assert_eq!(state.haunting(&after.spec.addresses).count(), 1);
    }

    #[test]
    fn a_guest_elsewhere_or_that_does_not_answer_joins_nothing() {
        for moved in [WEB, GUEST] {
            let mut state = beside();
            move_to(&mut state, moved, 2);
            let before = state.clone();
            let refused = command(&mut state, join(web(&[100, 101])));
            assert!(
                matches!(refused, Outcome::Refused(Refusal::NotTogether { .. })),
                "{refused:?}"
            );
            assert_eq!(state.vips, before.vips);
            // On its way, it has not answered there.
            move_to(&mut state, moved, 1);
            let refused = command(&mut state, join(web(&[100, 101])));
            assert!(
                matches!(refused, Outcome::Refused(Refusal::NotTogether { .. })),
                "{refused:?}"
            );
        }
    }

    #[test]
    fn what_it_gives_up_is_nobodys_until_it_has_ended_there() {
        let mut state = beside();
        apply(&mut state, join(web(&[100, 101])));
        apply(&mut state, Op::SetVip { spec: web(&[101]), guest: None });
        let after = state.vip(WEB).expect("there");
        assert_eq!((after.epoch, after.holder), (Epoch(2), Some(NodeId(1))));
        let taken = command(&mut state, Op::AddVip { spec: vip("next", 100) });
        assert!(matches!(taken, Outcome::Refused(Refusal::AddressLeaving { .. })), "{taken:?}");
        // That the next epoch was granted proves it.
        apply(&mut state, Op::Settle { grants: vec![grantee(WEB, 2)], nested: false });
        apply(&mut state, Op::AddVip { spec: vip("next", 100) });
    }

    #[test]
    fn what_was_given_up_haunts_also_when_the_vip_is_removed() {
        let mut state = beside();
        apply(&mut state, Op::SetVip { spec: web(&[102]), guest: None });
        apply(&mut state, Op::RemoveVip { name: "web".parse().expect("valid") });
        let next = vip("next", 100);
        apply(&mut state, Op::AddVip { spec: next.clone() });
        assert_eq!(state.haunting(&next.addresses).count(), 1);
    }

    #[test]
    fn a_change_of_placement_moves_nothing_and_of_the_interface_begins_an_epoch() {
        let mut state = beside();
        let placed = VipSpec { placement: crate::Placement::Leader, ..web(&[100]) };
        apply(&mut state, Op::SetVip { spec: placed.clone(), guest: None });
        assert_eq!(state.vip(WEB).expect("there").epoch, Epoch(1));
        let named = VipSpec { interface: Some("eth1".into()), ..placed };
        apply(&mut state, Op::SetVip { spec: named.clone(), guest: None });
        assert_eq!(state.vip(WEB).expect("there").epoch, Epoch(2));
        let again = command(&mut state, Op::SetVip { spec: named, guest: None });
        assert_eq!(again, Outcome::Unchanged);
    }

    #[test]
    fn a_trial_is_held_by_nobody_and_keeps_nothing_from_anybody() {
        let mut state = beside();
        let trial = VipSpec { name: "trial".parse().expect("valid"), ..web(&[100, 103]) };
        apply(&mut state, Op::TryVip { spec: trial });
        let uid = state.vip_named("trial").expect("there").uid;
        let view = crate::NodeView { alive: true, able: true, ..Default::default() };
        let views = [(NodeId(1), view)].into();
        let moves = crate::decide(&state, NodeId(1), &views, |vip| vip.fenced);
        assert!(moves.iter().all(|step| step.vip != uid), "{moves:?}");
        apply(&mut state, Op::AddVip { spec: vip("next", 103) });
        assert!(state.vips_by_name().iter().all(|vip| vip.uid != uid));
        let events = state.events.len();
        apply(&mut state, Op::RemoveVip { name: "trial".parse().expect("valid") });
        assert_eq!((state.events.len(), state.vip_or_retired(uid)), (events, None));
    }

    #[test]
    fn addresses_of_others_are_refused_and_nothing_changes() {
        let mut state = beside();
        let before = state.clone();
        for last in [&[100, 101][..], &[1], &[100, 100]] {
            let refused = command(&mut state, Op::SetVip { spec: web(last), guest: None });
            assert!(matches!(refused, Outcome::Refused(_)), "{last:?}: {refused:?}");
        }
        assert_eq!(state, before);
    }
}
