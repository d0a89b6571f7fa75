//! What a host needs to forward for a virtual server: some hundred bytes for its guard,
//! which works out the tables.

use super::{Plan, PlanError};
use crate::{
    Address, Before, Forward, Generation, OnDown, Ports, Protocol, RealServer, Scheduler, Server,
    ServerUid, State, Vip,
};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forwarding {
    /// Of all that is said here.
    pub generation: Generation,
    /// The addresses that clients know, of the real servers' family.
    pub vips: Vec<Address>,
    pub protocol: Protocol,
    pub ports: Ports,
    pub scheduler: Scheduler,
    /// Direct routing or NAT: decided, never [`Forward::Auto`].
    pub forward: Forward,
    /// What the table in force is dealt from.
    pub plan: Plan,
    /// What the one before is dealt from, until it retires.
    pub before: Option<Plan>,
    /// What comes for a connection that no real server can have any more is answered with a
    /// reset. A guard of an earlier version knows nothing of it, so the order says it:
    /// [`TableOrder`](super::TableOrder).
    #[serde(skip)]
    pub resets: bool,
}

impl Forwarding {
    /// Of a virtual server, on a host where the cluster's names of interfaces mean these.
    /// `None`: there is nothing to forward.
    #[must_use]
    pub fn of(
        state: &State,
        server: &Server,
        interfaces: &BTreeMap<String, String>,
    ) -> Option<Self> {
        let vip = state.vip(server.vip)?;
        let plan = server.plan().ok()?;
        let before = server.plan_before().ok()?;
        Some(Self {
            generation: server.generation,
            // Where none of them is up, packets are the service's all the same, and dropped.
            vips: addresses(vip, server.reals.first()?.spec.ip, interfaces),
            protocol: server.spec.protocol,
            ports: server.spec.ports,
            scheduler: server.spec.scheduler,
            forward: server.forward,
            // Who is up may have connections that this host knows nothing of.
            resets: server.spec.policy.on_down == OnDown::Reset && plan.reals().is_empty(),
            plan,
            before,
        })
    }

    /// The real servers that packets are sent to: those of the plan. Whom only the table
    /// before names is none any more, and what it had goes to others.
    #[must_use]
    pub fn places(&self) -> BTreeSet<(IpAddr, u16)> {
        self.plan.reals().iter().map(RealServer::place).collect()
    }
}

impl Server {
    /// What the table in force is dealt from.
    ///
    /// # Errors
    /// [`PlanError`]: none that was let into the log.
    pub fn plan(&self) -> Result<Plan, PlanError> {
        Plan::new(self.seed, self.table_size, self.dealt(&self.reals))
    }

    /// The same of the table before, if there is one.
    ///
    /// # Errors
    /// [`PlanError`]: none that was let into the log.
    pub fn plan_before(&self) -> Result<Option<Plan>, PlanError> {
        let plan = |before: &Before| Plan::new(self.seed, self.table_size, before.reals.clone());
        self.before.as_ref().map(plan).transpose()
    }
}

fn addresses(vip: &Vip, real: IpAddr, interfaces: &BTreeMap<String, String>) -> Vec<Address> {
    let all = vip.spec.on_host(interfaces).into_iter();
    all.filter(|address| address.ip.is_ipv4() == real.is_ipv4()).collect()
}

impl State {
    /// The virtual servers there are, each with what is wanted of it.
    #[must_use]
    pub fn forwardings(&self) -> BTreeMap<ServerUid, Generation> {
        self.all_servers().map(|server| (server.uid, server.generation)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{apply, server, state_of, vip, voter};
    use crate::{RealPlace, ServerOp, ServerSpec, VipOp, VipSpec};

    fn state() -> State {
        let mut state = state_of([voter(1)]);
        let addresses = ["10.0.0.100/24", "fd00::100/64"].map(|ip| ip.parse().expect("valid"));
        let interface = Some("lan".into());
        let spec = VipSpec { addresses: addresses.into(), interface, ..vip("web", 100) };
        apply(&mut state, VipOp::Add { spec });
        let spec = ServerSpec { scheduler: Scheduler::Sh, ..server(&["10.0.0.11", "10.0.0.12"]) };
        apply(&mut state, ServerOp::Add { spec });
        state
    }

    fn forwarding(state: &State) -> Forwarding {
        let server = state.server_named("front").expect("there");
        Forwarding::of(state, server, &[("lan".into(), "ens5".into())].into()).expect("some")
    }

    #[test]
    fn a_host_is_told_what_the_log_says_in_its_own_names() {
        let forwarding = forwarding(&state());
        let vip = Address { ip: [10, 0, 0, 100].into(), prefix: 24, interface: "ens5".into() };
        assert_eq!(forwarding.vips, [vip], "the real servers are IPv4");
        assert_eq!((forwarding.forward, forwarding.scheduler), (Forward::Dr, Scheduler::Sh));
        assert_eq!((forwarding.before.is_none(), forwarding.plan.reals().len()), (true, 2));
    }

    /// Who is up may have connections that another holder knows of, and this one does not.
    #[test]
    fn connections_are_reset_where_nobody_is_up() {
        let mut state = state();
        let policy = crate::Policy { on_down: OnDown::Reset, ..Default::default() };
        let reals = ["10.0.0.13"].map(|real| real.parse().expect("valid"));
        let check = Some(crate::CheckKind::Tcp.into());
        let name = "checked".parse().expect("a name");
        let ports = 81.into();
        let spec = ServerSpec { name, ports, policy, check, reals: reals.into(), ..server(&[]) };
        apply(&mut state, ServerOp::Add { spec });
        let resets = |state: &State| {
            let server = state.server_named("checked").expect("there");
            Forwarding::of(state, server, &BTreeMap::new()).expect("some").resets
        };
        assert!(resets(&state), "nobody is known to be up");
        let uid = state.server_named("checked").expect("there").uid;
        let observed = crate::Observed { server: uid, ip: [10, 0, 0, 13].into(), port: 81 };
        let seen = vec![(observed, Some(crate::Opinion::Up))];
        apply(&mut state, ServerOp::Observe { node: crate::NodeId(1), seen });
        assert!(!resets(&state));
        assert!(!forwarding(&state).resets);
    }

    /// Each has a later generation, so that it can be told from what is in force.
    #[test]
    fn whatever_changes_is_another_generation() {
        let mut state = state();
        let mut seen = vec![forwarding(&state)];
        let name = || "front".parse().expect("valid");
        let place = RealPlace { ip: [10, 0, 0, 11].into(), port: None };
        apply(&mut state, ServerOp::DrainReal { server: name(), place, drained: true });
        seen.push(forwarding(&state));
        let (uid, generation) = state.forwardings().pop_first().expect("one");
        apply(&mut state, ServerOp::Retire { server: uid, seen: generation });
        seen.push(forwarding(&state));
        let spec = state.server_named("front").expect("there").spec.clone();
        let reals = ["10.0.0.11", "10.0.0.12"].map(|real| real.parse().expect("valid"));
        let spec = ServerSpec { ports: "81".parse().expect("valid"), reals: reals.into(), ..spec };
        apply(&mut state, ServerOp::Set { spec, seen: 1 });
        seen.push(forwarding(&state));
        let spec = state.vip_named("web").expect("there").spec.clone();
        let addresses = vec!["10.0.0.101/24".parse().expect("valid")];
        apply(&mut state, VipOp::Set { spec: VipSpec { addresses, ..spec }, seen: 0, guest: None });
        seen.push(forwarding(&state));
        for pair in seen.windows(2) {
            assert!(pair[0].generation < pair[1].generation, "{pair:?}");
            assert_ne!(pair[0], Forwarding { generation: pair[0].generation, ..pair[1].clone() });
        }
        apply(&mut state, ServerOp::RemoveReal { server: name(), place });
        assert_eq!(forwarding(&state).places(), [([10, 0, 0, 12].into(), 0)].into());
    }
}
