//! Changing what is wanted of a VIP that is there.
//!
//! ```text
//!  placement ──────────────────────> nothing moves
//!  addresses that a guest of it answers for, on the same node
//!     ──────────────────────────────> join it, under its epoch: what it has goes on
//!  any other change of addresses or interface
//!     ──────────────────────────────> the next epoch, on the same node
//! ```
//!
//! What a VIP gives up stays its own until every epoch that had it has ended:
//! its holder may not have heard of it yet.

use super::State;
use super::command::Position;
use super::vip::Dropped;
use crate::{Cause, Epoch, Guest, Outcome, Refusal, Vip, VipAddress, VipEvent, VipSpec, VipUid};
use std::net::{IpAddr, SocketAddr};

impl State {
    pub(super) fn set_vip(
        &mut self,
        at: Position,
        actor: &str,
        spec: &VipSpec,
        seen: u32,
        guest: Option<VipUid>,
    ) -> Result<Outcome, Refusal> {
        spec.check()?;
        let unknown = || Refusal::UnknownVip { name: spec.name.to_string() };
        let old = self.vip_named(spec.name.as_str()).ok_or_else(unknown)?.clone();
        if old.revision != seen {
            return Err(Refusal::VipChanged { vip: spec.name.clone() });
        }
        let guest = guest.map(|uid| self.guest_of(&old, uid).cloned()).transpose()?;
        if *spec == old.spec && guest.is_none() {
            return Ok(Outcome::Unchanged);
        }
        let is_own =
            |vip: &Vip| vip.uid == old.uid || guest.as_ref().is_some_and(|g| g.uid == vip.uid);
        self.check_free(&spec.addresses, is_own)?;
        self.check_addresses(Some(&old), spec)?;
        let joined = guest.as_ref().map_or(&[][..], |guest| &guest.spec.addresses);
        let come = spec.addresses.iter().filter(|a| !old.spec.has(a.ip));
        let unknown_come = come.filter(|a| !joined.iter().any(|b| b.ip == a.ip)).count() > 0;
        let stays = !unknown_come && keeps_all(&old, spec);
        if let Some(guest) = &guest {
            self.forget_vip(guest.uid);
        }
        let (now, term) = (self.time_ms, at.term);
        let newly_resolved = spec.via.is_resolved() && !old.spec.via.is_resolved();
        let Some(vip) = self.vip_mut(old.uid) else { return Ok(Outcome::Unchanged) };
        vip.drop_all_but(&spec.addresses);
        vip.spec = spec.clone();
        vip.revision += 1;
        if unknown_come || newly_resolved {
            // Somebody else may have what it never answered for here.
            vip.answered = Epoch(0);
        }
        if old.spec.addresses != spec.addresses || !is_where_it_was(&old.spec, spec) {
            self.servers_follow_vip(old.uid);
        }
        let name = spec.name.clone();
        let is_assigned = old.epoch != Epoch(0);
        // Of a guest that joins it, something is announced already, and later than it was.
        let rank = if is_assigned { self.next_rank(old.uid) } else { 0 };
        let Some(vip) = self.vip_mut(old.uid) else { return Ok(Outcome::Unchanged) };
        vip.rank = rank;
        if stays || !is_assigned {
            self.record(actor, VipEvent::Set { vip: name });
            return Ok(Outcome::Done);
        }
        (vip.epoch, vip.assigned_in, vip.since_ms) = (vip.epoch.next(), term, now);
        vip.cause = Some(Cause::Command);
        let (holder, epoch) = (vip.holder, vip.epoch);
        let (from, to, cause) = (holder, holder, Cause::Command);
        self.record(actor, VipEvent::Set { vip: name.clone() });
        self.record(actor, VipEvent::Assigned { vip: name, from, to, epoch, cause });
        Ok(Outcome::Done)
    }

    /// A guest of a VIP, on the same node: both answer, and what one has the other
    /// can take over there.
    fn guest_of(&self, vip: &Vip, uid: VipUid) -> Result<&Vip, Refusal> {
        let answers = |vip: &Vip| vip.answered == vip.epoch && vip.fenced < vip.epoch;
        let is_its = |guest: &&Vip| guest.guest == Some(Guest { of: vip.uid, trial: false });
        let guest = self.vip(uid).filter(is_its);
        let together = |guest: &&Vip| vip.holder.is_some() && vip.holder == guest.holder;
        guest
            .filter(together)
            .filter(|guest| answers(vip) && answers(guest))
            .ok_or_else(|| Refusal::NotTogether { vip: vip.spec.name.clone() })
    }

    /// One that is there for a change of another. Nobody holds a trial, so its
    /// addresses may be anybody's.
    pub(super) fn add_guest(&mut self, spec: &VipSpec, guest: Guest) -> Result<Outcome, Refusal> {
        spec.check()?;
        if !self.vips.contains_key(&guest.of) {
            return Err(Refusal::UnknownVip { name: format!("with id {}", guest.of) });
        }
        if self.vip_named(spec.name.as_str()).is_some() {
            return Err(Refusal::VipExists { name: spec.name.clone() });
        }
        self.check_addresses(None, spec)?;
        if !guest.trial {
            self.check_free(&spec.addresses, |_| false)?;
        }
        self.new_vip(spec).guest = Some(guest);
        Ok(Outcome::Done)
    }

    pub(super) fn end_guest(&mut self, uid: VipUid) -> Outcome {
        if self.vips.get(&uid).is_none_or(|vip| vip.guest.is_none()) {
            return Outcome::Unchanged;
        }
        self.forget_vip(uid);
        Outcome::Done
    }

    /// Whether addresses can be given to a VIP: they are nobody's, but for the
    /// VIPs that `is_own`.
    pub(super) fn check_free(
        &self,
        addresses: &[VipAddress],
        is_own: impl Fn(&Vip) -> bool,
    ) -> Result<(), Refusal> {
        for VipAddress { ip, .. } in addresses.iter().copied() {
            for vip in self.all_vips().filter(|vip| vip.is_wanted() && !is_own(vip)) {
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

fn is_where_it_was(old: &VipSpec, spec: &VipSpec) -> bool {
    old.interface == spec.interface && (old.via, &old.params) == (spec.via, &spec.params)
}

/// Whether every address stays where it is.
fn keeps_all(old: &Vip, spec: &VipSpec) -> bool {
    let kept = old.spec.addresses.iter().all(|address| spec.addresses.contains(address));
    kept && is_where_it_was(&old.spec, spec)
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
    use crate::{Actor, Command, Grantee, Incarnation, NodeId, Op, Via, VipOp};

    const WEB: VipUid = VipUid(1);
    const GUEST: VipUid = VipUid(2);

    fn command(state: &mut State, op: impl Into<Op>) -> Outcome {
        let command =
            Command { time_ms: 1, actor: Actor("test".into()), term: None, op: op.into() };
        state.apply(1, &command)
    }

    fn grantee(vip: VipUid, epoch: u64) -> Grantee {
        Grantee { vip, epoch: Epoch(epoch), incarnation: Incarnation(7) }
    }

    /// It answers on this node, under its next epoch.
    fn answers_on(state: &mut State, vip: VipUid, node: u64) {
        move_to(state, vip, node);
        let grants = vec![grantee(vip, state.vip(vip).expect("there").epoch.0)];
        apply(state, VipOp::Settle { grants: grants.clone(), nested: false });
        apply(state, VipOp::Answered { grants });
    }

    /// `web` with .100 on n1, and its guest with .101 on n1.
    fn beside() -> State {
        let mut state = state_of([voter(1), voter(2)]);
        apply(&mut state, VipOp::Add { spec: vip("web", 100) });
        answers_on(&mut state, WEB, 1);
        let guest = Guest { of: WEB, trial: false };
        apply(&mut state, VipOp::AddGuest { spec: vip("guest", 101), guest });
        answers_on(&mut state, GUEST, 1);
        state
    }

    fn set(state: &State, spec: VipSpec) -> Op {
        VipOp::Set { spec, seen: state.vip(WEB).expect("there").revision, guest: None }.into()
    }

    fn web(last: &[u8]) -> VipSpec {
        let addresses = last.iter().flat_map(|last| vip("web", *last).addresses).collect();
        VipSpec { addresses, ..vip("web", 100) }
    }

    fn join(spec: VipSpec) -> Op {
        VipOp::Set { spec, seen: 0, guest: Some(GUEST) }.into()
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
        let op = set(&state, web(&[101]));
        apply(&mut state, op);
        let after = state.vip(WEB).expect("there");
        assert_eq!((after.epoch, after.holder), (Epoch(2), Some(NodeId(1))));
        let taken = command(&mut state, VipOp::Add { spec: vip("next", 100) });
        assert!(matches!(taken, Outcome::Refused(Refusal::AddressLeaving { .. })), "{taken:?}");
        // That the next epoch was granted proves it.
        apply(&mut state, VipOp::Settle { grants: vec![grantee(WEB, 2)], nested: false });
        apply(&mut state, VipOp::Add { spec: vip("next", 100) });
    }

    #[test]
    fn what_was_given_up_haunts_also_when_the_vip_is_removed() {
        let mut state = beside();
        let op = set(&state, web(&[102]));
        apply(&mut state, op);
        apply(&mut state, VipOp::Remove { name: "web".parse().expect("valid") });
        let next = vip("next", 100);
        apply(&mut state, VipOp::Add { spec: next.clone() });
        assert_eq!(state.haunting(&next.addresses).count(), 1);
    }

    /// Of all VIPs that nodes announce, whatever becomes of them.
    #[test]
    fn what_is_announced_later_has_a_higher_rank() {
        let mut state = state_of([voter(1), voter(2)]);
        let announced = |name, last| VipSpec { via: Via::Bgp, ..vip(name, last) };
        apply(&mut state, VipOp::Add { spec: vip("other", 101) });
        apply(&mut state, VipOp::Add { spec: announced("web", 100) });
        let rank = |state: &State, uid: VipUid| state.vip(uid).expect("there").rank;
        let (other, uid) = (VipUid(1), VipUid(2));
        assert_eq!(rank(&state, uid), 0, "nobody holds it");
        move_to(&mut state, other, 1);
        move_to(&mut state, uid, 1);
        move_to(&mut state, uid, 2);
        assert_eq!((rank(&state, other), rank(&state, uid)), (0, 2));
        // Changed under the same epoch, and under the next one.
        for addresses in [&[100, 102][..], &[100]] {
            let spec = VipSpec { addresses: web(addresses).addresses, ..announced("web", 100) };
            let before = rank(&state, uid);
            let seen = state.vip(uid).expect("there").revision;
            apply(&mut state, VipOp::Set { spec, seen, guest: None });
            assert_eq!(rank(&state, uid), before + 1, "{addresses:?}");
        }
        // The next one that has its address begins where it ended.
        apply(&mut state, VipOp::Remove { name: "web".parse().expect("valid") });
        apply(&mut state, VipOp::Add { spec: announced("web", 100) });
        move_to(&mut state, VipUid(3), 1);
        assert_eq!(rank(&state, VipUid(3)), 5);
        let spec = VipSpec { via: Via::Garp, ..announced("web", 100) };
        apply(&mut state, VipOp::Set { spec, seen: 0, guest: None });
        assert_eq!(rank(&state, VipUid(3)), 0, "it is announced no more");
    }

    #[test]
    fn a_change_of_placement_moves_nothing_and_of_the_interface_begins_an_epoch() {
        let mut state = beside();
        let placed = VipSpec { placement: crate::Placement::Leader, ..web(&[100]) };
        let op = set(&state, placed.clone());
        apply(&mut state, op);
        assert_eq!(state.vip(WEB).expect("there").epoch, Epoch(1));
        let named = VipSpec { interface: Some("eth1".into()), ..placed };
        let op = set(&state, named.clone());
        apply(&mut state, op);
        assert_eq!(state.vip(WEB).expect("there").epoch, Epoch(2));
        let again = set(&state, named);
        let again = command(&mut state, again);
        assert_eq!(again, Outcome::Unchanged);
    }

    #[test]
    fn a_trial_is_held_by_nobody_and_keeps_nothing_from_anybody() {
        let mut state = beside();
        let trial = VipSpec { name: "trial".parse().expect("valid"), ..web(&[100, 103]) };
        let guest = Guest { of: WEB, trial: true };
        apply(&mut state, VipOp::AddGuest { spec: trial, guest });
        let uid = state.vip_named("trial").expect("there").uid;
        let view = crate::NodeView { alive: true, able: true, ..Default::default() };
        let views = [(NodeId(1), view)].into();
        let moves = crate::decide(&state, NodeId(1), &views, |vip| vip.fenced);
        assert!(moves.iter().all(|step| step.vip != uid), "{moves:?}");
        apply(&mut state, VipOp::Add { spec: vip("next", 103) });
        assert!(state.vips_by_name().iter().all(|vip| vip.uid != uid));
        let events = state.events.latest();
        apply(&mut state, VipOp::EndGuest { vip: uid });
        assert_eq!((state.events.latest(), state.vip_or_retired(uid)), (events, None));
    }

    #[test]
    fn a_guest_ends_with_its_host_and_nobody_else_is_one() {
        let mut state = beside();
        assert_eq!(command(&mut state, VipOp::EndGuest { vip: WEB }), Outcome::Unchanged);
        let taken =
            VipOp::AddGuest { spec: vip("web", 102), guest: Guest { of: WEB, trial: true } };
        assert!(matches!(command(&mut state, taken), Outcome::Refused(Refusal::VipExists { .. })));
        apply(&mut state, VipOp::Add { spec: vip("other", 102) });
        answers_on(&mut state, VipUid(3), 1);
        let foreign = VipOp::Set { spec: web(&[100, 102]), seen: 0, guest: Some(VipUid(3)) };
        let refused = command(&mut state, foreign);
        assert!(matches!(refused, Outcome::Refused(Refusal::NotTogether { .. })), "{refused:?}");
        apply(&mut state, VipOp::Remove { name: "web".parse().expect("valid") });
        assert!(state.vip(GUEST).is_none() && state.vip_or_retired(GUEST).is_some());
    }

    #[test]
    fn a_change_of_what_was_changed_since_changes_nothing() {
        let mut state = beside();
        apply(&mut state, join(web(&[100, 101])));
        let late = command(&mut state, VipOp::Set { spec: web(&[100]), seen: 0, guest: None });
        assert!(matches!(late, Outcome::Refused(Refusal::VipChanged { .. })), "{late:?}");
    }

    /// Another host may have them: they are claimed as for the first time.
    #[test]
    fn addresses_that_nobody_answered_for_are_claimed_as_new() {
        let mut state = beside();
        let op = set(&state, web(&[100, 104]));
        apply(&mut state, op);
        let after = state.vip(WEB).expect("there");
        assert_eq!((after.epoch, after.answered), (Epoch(2), Epoch(0)));
    }

    #[test]
    fn addresses_of_others_are_refused_and_nothing_changes() {
        let mut state = beside();
        let before = state.clone();
        for last in [&[100, 101][..], &[1], &[100, 100]] {
            let op = set(&state, web(last));
            let refused = command(&mut state, op);
            assert!(matches!(refused, Outcome::Refused(_)), "{last:?}: {refused:?}");
        }
        assert_eq!(state, before);
    }
}
