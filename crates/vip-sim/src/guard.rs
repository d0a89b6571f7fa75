//! A guard process: vip-core's guard, its one session, and what it does to the
//! kernel.

use std::collections::BTreeSet;
use std::net::IpAddr;
use vip_core::{
    Guard, GuardAction, GuardEvent, GuardFailure, GuardNotice, Incarnation, Limits, Mono, Profile,
    TableNotice, TableOrder, VipOrder,
};

/// What a guard process takes up.
#[derive(Clone, Debug)]
pub(crate) enum GuardInput {
    Tick,
    Message(Connection, ToGuard),
    Kernel(GuardEvent),
    /// Interfaces came, went, or lost their link.
    Links,
    /// A new interface, which takes the gate.
    GateOn,
    /// The periodic comparison.
    Reconcile,
    /// The second lane comes to say what it has.
    TellTables(Connection),
    /// It comes to an order.
    Table(Connection, TableOrder),
}

/// What an agent sends.
#[derive(Clone, Debug)]
pub(crate) enum ToGuard {
    Connect,
    Orders(Vec<VipOrder>),
    Ping,
    Confirm,
    Tables(Vec<TableOrder>),
    /// The connection ended.
    Gone,
}

/// What a guard answers.
#[derive(Clone, Debug)]
pub(crate) enum FromGuard {
    Welcome(Incarnation),
    Notices(Vec<GuardNotice>),
    Tables(TableNotice),
    Alive,
    Gone,
}

/// The two ends of one connection.
pub(crate) type Connection = u64;

#[derive(Debug)]
pub(crate) struct GuardProcess {
    guard: Guard,
    /// The agent's connection.
    pub(crate) connection: Option<Connection>,
}

fn limits() -> Limits {
    let longest = Profile::Wan.timing();
    let (longest_grant, gate_to_wire) = (longest.grant, longest.gate_to_wire);
    Limits { longest_grant, gate_to_wire, gated: true }
}

impl GuardProcess {
    pub(crate) fn new() -> Self {
        Self { guard: Guard::new(limits()), connection: None }
    }

    /// Its program is replaced while it runs: what the next one goes on with is what this
    /// one wrote down.
    pub(crate) fn hand_over(&mut self) {
        let written = postcard::to_stdvec(&self.guard).expect("a guard can be written");
        let next: Guard = postcard::from_bytes(&written).expect("as it was written");
        assert_eq!(postcard::to_stdvec(&next).as_ref(), Ok(&written), "it is the same");
        self.guard = next.inherited(limits());
    }

    pub(crate) fn next_tick(&self) -> Option<Mono> {
        self.guard.next_tick()
    }

    pub(crate) fn tick(&mut self, now: Mono) -> Vec<GuardAction> {
        self.guard.step(now, GuardEvent::Tick)
    }

    /// Takes a message; returns what to do and what to answer beside notices.
    pub(crate) fn receive(
        &mut self,
        now: Mono,
        rng: &mut fastrand::Rng,
        connection: Connection,
        message: ToGuard,
    ) -> (Vec<GuardAction>, Option<FromGuard>) {
        if matches!(message, ToGuard::Connect)
            && self.connection.is_none()
            && self.guard.is_silent()
        {
            self.connection = Some(connection);
            let incarnation = Incarnation(rng.u64(1..));
            let came = GuardEvent::AgentCame { incarnation, cluster: String::new() };
            let actions = self.guard.step(now, came);
            return (actions, Some(FromGuard::Welcome(incarnation)));
        }
        if self.connection != Some(connection) {
            // Busy with another agent.
            let refused = matches!(message, ToGuard::Connect).then_some(FromGuard::Gone);
            return (vec![], refused);
        }
        let step = |guard: &mut Guard, event| guard.step(now, event);
        match message {
            ToGuard::Connect => (vec![], None),
            ToGuard::Orders(orders) => {
                let orders = orders.into_iter().map(GuardEvent::Order);
                (orders.flat_map(|order| step(&mut self.guard, order)).collect(), None)
            }
            // They went the other way.
            ToGuard::Tables(_) => (vec![], None),
            ToGuard::Ping => (vec![], Some(FromGuard::Alive)),
            ToGuard::Confirm => (step(&mut self.guard, GuardEvent::Confirmed), None),
            ToGuard::Gone => {
                self.connection = None;
                (step(&mut self.guard, GuardEvent::AgentGone), None)
            }
        }
    }

    /// Something happened in the kernel.
    pub(crate) fn kernel(&mut self, now: Mono, event: GuardEvent) -> Vec<GuardAction> {
        self.guard.step(now, event)
    }

    /// An action failed; see [`Guard::failed`].
    pub(crate) fn failed(
        &mut self,
        failure: &GuardFailure,
        rest: Vec<GuardAction>,
    ) -> Vec<GuardAction> {
        self.guard.failed(failure, rest)
    }

    /// Compares what should be there with what is; returns events for what
    /// differs, and what nobody wants.
    pub(crate) fn compare(&self, there: &BTreeSet<IpAddr>) -> (Vec<GuardEvent>, Vec<IpAddr>) {
        let wanted: BTreeSet<IpAddr> =
            self.guard.wanted_addresses().into_iter().map(|a| a.ip).collect();
        let missing = wanted.difference(there).map(|ip| GuardEvent::AddressGone(*ip));
        let gone = self.guard.departed().into_iter().filter(|ip| !there.contains(ip));
        let events = missing.chain(gone.map(GuardEvent::AddressDeleted)).collect();
        (events, there.difference(&wanted).copied().collect())
    }

    /// Asked to stop: lets go of everything.
    pub(crate) fn stop(&mut self, now: Mono) -> Vec<GuardAction> {
        self.guard.step(now, GuardEvent::Stop)
    }
}
