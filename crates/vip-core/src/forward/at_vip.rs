//! Whether a direct-routing real server takes what is sent to a VIP: asked on the wire, since
//! at its own address it answers all the same.

use crate::{CheckKind, Forward, Protocol, ServerUid, State};
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, SocketAddr};

/// A question to the guard, which has a packet for the VIP go to a neighbour's Ethernet
/// address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct AtVipQuestion {
    /// Whose VIP it is.
    pub server: ServerUid,
    /// The neighbour.
    pub real: IpAddr,
    /// The VIP, and the port that connections are opened to.
    pub vip: SocketAddr,
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AtVip {
    /// A connection could be opened.
    Accepts,
    /// The address is there, and nobody listens at it.
    Refuses,
    /// Nothing came back within the time for it.
    Silent,
    /// It is no neighbour of this host, or could not be asked from here.
    NotAsked,
}

impl AtVipQuestion {
    /// Why an answer means that clients wait in vain, as the rest of a sentence; `None`: it does
    /// not mean that. By the real server's check, which it just passed at its own address.
    #[must_use]
    pub fn failure(&self, answer: AtVip, check: (&CheckKind, u16)) -> Option<String> {
        let (vip, (kind, port)) = (self.vip, check);
        let connects = matches!(kind, CheckKind::Tcp | CheckKind::Http(_) | CheckKind::Grpc(_));
        match answer {
            AtVip::Silent => Some(format!(
                "no VIP on its loopback, or nobody there: it is well at its own address, and does not \
                 answer what is sent there for {vip} (`vipctl vs show NAME --setup`)"
            )),
            AtVip::Refuses if connects && port == vip.port() => Some(format!(
                "it listens at its own address alone: what is sent there for {vip} is refused"
            )),
            AtVip::Accepts | AtVip::Refuses | AtVip::NotAsked => None,
        }
    }
}

impl State {
    /// What there is to ask of a real server that is well by itself: of TCP by direct routing,
    /// for each address of the VIP that its packets may be for. Of several ports the one that
    /// it is checked at, or none: nobody need listen at each. A member has the VIP from its
    /// guard, once it is up.
    #[must_use]
    pub fn at_vip(&self, server: ServerUid, real: IpAddr, checked: u16) -> Vec<AtVipQuestion> {
        let Some(server) = self.server(server) else { return vec![] };
        let by_dr = server.forward == Forward::Dr && server.spec.protocol == Protocol::Tcp;
        if !by_dr || self.node_at(real).is_some() {
            return vec![];
        }
        let (first, last) = server.spec.ports.bounds();
        let port = if (first..=last).contains(&checked) { checked } else { first };
        if port != checked && first != last {
            return vec![];
        }
        let vip = self.vip(server.vip);
        let addresses = vip.into_iter().flat_map(|vip| &vip.spec.addresses).map(|own| own.ip);
        let same = addresses.filter(|ip| ip.is_ipv4() == real.is_ipv4());
        let server = server.uid;
        same.map(|ip| AtVipQuestion { server, real, vip: SocketAddr::new(ip, port) }).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{apply, server, state_of, vip, voter};
    use crate::{ServerOp, ServerSpec, VipOp, VipSpec};

    fn checked() -> ServerSpec {
        ServerSpec { check: Some(CheckKind::Tcp.into()), ..server(&["10.0.0.11"]) }
    }

    fn state(spec: ServerSpec) -> State {
        let mut state = state_of([voter(1)]);
        let addresses = ["10.0.0.100/24", "fd00::100/64"];
        let addresses = addresses.map(|ip| ip.parse().expect("valid")).into();
        let interface = Some("lan".into());
        apply(&mut state, VipOp::Add { spec: VipSpec { addresses, interface, ..vip("web", 1) } });
        apply(&mut state, ServerOp::Add { spec });
        state
    }

    fn questions(spec: ServerSpec) -> Vec<AtVipQuestion> {
        let port = spec.check.as_ref().and_then(|check| check.port).unwrap_or(80);
        let state = state(spec);
        let server = state.server_named("front").expect("there");
        state.at_vip(server.uid, server.reals[0].spec.ip, port)
    }

    fn asked(spec: ServerSpec) -> Vec<String> {
        questions(spec).iter().map(|one| one.vip.to_string()).collect()
    }

    #[test]
    fn what_goes_to_a_vip_by_direct_routing_is_asked_for_in_the_real_servers_family() {
        let spec = checked();
        assert_eq!(spec.ports.single(), Some(80));
        assert_eq!(asked(spec.clone()), ["10.0.0.100:80"]);
        let v6 = ServerSpec { reals: vec!["fd00::11".parse().expect("valid")], ..spec.clone() };
        assert_eq!(asked(v6), ["[fd00::100]:80"]);
        let nat = ServerSpec { forward: Forward::Nat, ..spec.clone() };
        assert_eq!(asked(nat), [""; 0]);
        let member = ServerSpec { reals: vec!["10.0.0.1".parse().expect("valid")], ..spec.clone() };
        assert_eq!(asked(member), [""; 0]);
        let ports = |text: &str| ServerSpec { ports: text.parse().expect("valid"), ..spec.clone() };
        let at = |mut spec: ServerSpec, port| {
            spec.check.as_mut().expect("checked").port = Some(port);
            asked(spec)
        };
        assert_eq!(at(ports("80-90"), 85)[0], "10.0.0.100:85");
        assert_eq!(at(ports("80-90"), 91), [""; 0]);
        assert_eq!(at(ports("80"), 91)[0], "10.0.0.100:80");
    }

    #[test]
    fn silence_is_a_failure_and_so_is_who_listens_at_its_own_address_alone() {
        let question = questions(checked())[0];
        let fails = |answer, check| question.failure(answer, check).unwrap_or_default();
        let checked = (&CheckKind::Tcp, 80);
        assert!(fails(AtVip::Silent, checked).starts_with("no VIP on its loopback"));
        assert!(fails(AtVip::Refuses, checked).contains("10.0.0.100:80 is refused"));
        assert_eq!(fails(AtVip::Accepts, checked), "");
        assert_eq!(fails(AtVip::NotAsked, checked), "");
        // It was seen to listen elsewhere, or not to listen.
        assert_eq!(fails(AtVip::Refuses, (&CheckKind::Tcp, 81)), "");
        assert_eq!(fails(AtVip::Refuses, (&CheckKind::Icmp, 80)), "");
        assert!(fails(AtVip::Silent, (&CheckKind::Icmp, 0)).len() < 240, "the log keeps all of it");
    }
}
