//! Whether a load balancer is to send the clients of a VIP to this node.

use super::LeaseSnapshot;
use crate::{Epoch, Hindrance, Instead, Mono, Name, NodeId, State, VipUid};

/// Why it is not: a sentence without its end.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoClients {
    /// The log, as this node knows it, has no such VIP.
    #[error("this node knows of no VIP {0}")]
    Unknown(String),
    /// It is somebody else's.
    #[error("VIP {vip} is held by {holder}")]
    HeldBy {
        vip: Name,
        /// Its name.
        holder: String,
    },
    /// It is to answer nowhere.
    #[error("nobody holds VIP {0}")]
    Nobody(Name),
    /// It is this node's, and the gate is shut.
    #[error("this node is to hold VIP {0} and has no lease of it, or none any more")]
    Silent(Name),
    /// Too few real servers are up.
    #[error("virtual server {server} has too few real servers up ({up}): {instead}")]
    Short {
        server: Name,
        /// How many are.
        up: usize,
        /// Where clients would go.
        instead: Instead,
    },
    /// This node does not forward it as it should.
    #[error("virtual server {server} {why}")]
    NotForwarded {
        server: Name,
        /// The rest of the sentence.
        why: Hindrance,
    },
}

/// What the log says of a VIP, as far as its clients are concerned: worked out once for
/// as long as the log does not change.
#[derive(Clone, Debug)]
pub struct Frontage {
    vip: VipUid,
    epoch: Epoch,
    /// If this node does not answer.
    otherwise: NoClients,
    /// If it does.
    served: Result<(), NoClients>,
}

impl Frontage {
    /// Of the VIP of this name, for this node.
    ///
    /// # Errors
    /// There is none.
    pub fn of(state: &State, me: NodeId, name: &str) -> Result<Self, NoClients> {
        let vip = state.vip_named(name).ok_or_else(|| NoClients::Unknown(name.to_owned()))?;
        let name = vip.spec.name.clone();
        let otherwise = match vip.holder {
            None => NoClients::Nobody(name),
            Some(holder) if holder == me => NoClients::Silent(name),
            Some(node) => {
                let known = state.node_name(node);
                let holder = known.map_or_else(|| node.to_string(), ToString::to_string);
                NoClients::HeldBy { vip: name, holder }
            }
        };
        let served = served(state, me, vip.uid);
        Ok(Self { vip: vip.uid, epoch: vip.epoch, otherwise, served })
    }
}

/// Whether the clients of a VIP are served, once they are here.
fn served(state: &State, me: NodeId, vip: VipUid) -> Result<(), NoClients> {
    for server in state.all_servers().filter(|server| server.vip == vip) {
        let name = || server.spec.name.clone();
        // What nobody has seen yet may be up: another one that is added harms none.
        if let Some(instead) = server.lacks().filter(|_| !server.is_unseen()) {
            return Err(NoClients::Short { server: name(), up: server.up(), instead });
        }
        if let Some(why @ Hindrance::Refused(_)) = state.hindrance_said(server.uid, me) {
            return Err(NoClients::NotForwarded { server: name(), why: why.clone() });
        }
    }
    Ok(())
}

impl LeaseSnapshot {
    /// The epoch under which this node answers for a VIP, where clients that are sent here
    /// at `now` are served: the gate is open by the guard's word, and for longer than a
    /// packet needs to get out; and every virtual server has enough real servers.
    ///
    /// # Errors
    /// [`NoClients`]: why they are not.
    pub fn takes_clients(&self, now: Mono, frontage: &Frontage) -> Result<Epoch, NoClients> {
        match self.answers_until(frontage) {
            Some(until) if now < until => frontage.served.clone().map(|()| frontage.epoch),
            Some(_) | None => Err(frontage.otherwise.clone()),
        }
    }

    /// Until when it answers, if nothing renews the lease.
    #[must_use]
    pub fn answers_until(&self, frontage: &Frontage) -> Option<Mono> {
        let until = self.answering.until(frontage.vip, frontage.epoch)?;
        Some(until - self.gate_to_wire)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{ME, START, leading, promised};
    use super::super::{LeaseEvent, Leases};
    use super::*;
    use crate::testing::{apply, move_to, server, state_of, vip, voter};
    use crate::{GuardNotice, Incarnation, Profile, ServerOp, Term, VipOp};
    use std::sync::Arc;

    const WEB: VipUid = VipUid(1);

    fn frontage(state: &State) -> Frontage {
        Frontage::of(state, ME, "web").expect("it is there")
    }

    /// Node 1 leads, and is to hold `web` as its first epoch.
    fn holding() -> (State, Leases) {
        let mut state = state_of([voter(1), voter(2), voter(3)]);
        state.term = Term(1);
        apply(&mut state, VipOp::Add { spec: vip("web", 100) });
        move_to(&mut state, WEB, 1);
        let mut leases = leading();
        leases.step(START, LeaseEvent::GuardUp(Incarnation(7)));
        leases.step(START, LeaseEvent::Applied(Arc::new(state.clone())));
        (state, leases)
    }

    fn notice(leases: &mut Leases, notice: GuardNotice) {
        leases.step(START, LeaseEvent::Notices(vec![notice]));
    }

    #[test]
    fn clients_come_while_the_gate_is_open_and_no_longer() {
        let (state, mut leases) = holding();
        let web = frontage(&state);
        let at = |leases: &Leases, now| leases.snapshot().takes_clients(now, &web);
        let silent = Err(NoClients::Silent("web".parse().expect("a name")));
        let (vip, epoch) = (WEB, Epoch(1));
        notice(&mut leases, GuardNotice::Prepared { vip, epoch });
        assert_eq!(at(&leases, START), silent, "granted, and not open yet");
        notice(&mut leases, GuardNotice::Opened { vip, epoch });
        let timing = Profile::Lan.timing();
        let end = START + timing.lease - timing.gate_to_wire;
        assert_eq!(leases.snapshot().answers_until(&web), Some(end));
        assert_eq!(at(&leases, end - std::time::Duration::from_nanos(1)), Ok(epoch));
        assert_eq!(at(&leases, end), silent, "an answer would come too late");
        promised(&mut leases, START + timing.heartbeat);
        assert_eq!(at(&leases, end), Ok(epoch), "renewed");
        notice(&mut leases, GuardNotice::Expired { vip, epoch });
        assert_eq!(at(&leases, START), silent);
    }

    #[test]
    fn whoever_does_not_hold_it_says_who_does() {
        let (mut state, leases) = holding();
        let at = |state: &State, name: &str| {
            let known = Frontage::of(state, ME, name);
            known
                .and_then(|it| leases.snapshot().takes_clients(START, &it))
                .map_err(|e| e.to_string())
        };
        assert_eq!(at(&state, "wbe"), Err("this node knows of no VIP wbe".into()));
        move_to(&mut state, WEB, 2);
        assert_eq!(at(&state, "web"), Err("VIP web is held by n2".into()));
        let moves = vec![crate::Assignment {
            vip: WEB,
            seen: Epoch(2),
            to: None,
            cause: crate::Cause::Drain,
        }];
        apply(&mut state, VipOp::Assign { moves });
        assert_eq!(at(&state, "web"), Err("nobody holds VIP web".into()));
    }

    #[test]
    fn nobody_comes_where_nobody_serves() {
        let (mut state, mut leases) = holding();
        let (vip, epoch) = (WEB, Epoch(1));
        notice(&mut leases, GuardNotice::Prepared { vip, epoch });
        notice(&mut leases, GuardNotice::Opened { vip, epoch });
        let takes = |state: &State| leases.snapshot().takes_clients(START, &frontage(state));
        assert_eq!(takes(&state), Ok(epoch));
        apply(&mut state, ServerOp::Add { spec: server(&["10.0.0.21"]) });
        assert_eq!(takes(&state), Ok(epoch));
        let name: Name = "front".parse().expect("a name");
        let refused = Hindrance::Refused("its kernel cannot".into());
        let uid = state.server_named("front").expect("added").uid;
        let flawed = Hindrance::Flawed("one of its interfaces is slow".into());
        for (why, taken) in [(flawed, true), (refused.clone(), false)] {
            Arc::make_mut(&mut state.hindrances).entry(uid).or_default().insert(ME, why);
            assert_eq!(takes(&state).is_ok(), taken);
        }
        let not = NoClients::NotForwarded { server: name.clone(), why: refused };
        assert_eq!(takes(&state), Err(not));
        apply(&mut state, ServerOp::Set { spec: server(&["10.0.0.21@0"]), seen: 0 });
        let instead = Instead::Drop;
        assert_eq!(takes(&state), Err(NoClients::Short { server: name, up: 0, instead }));
    }
}
