//! Which faults a seed makes, and when.

use super::directed::Scheme;
use super::{Fault, HostShape, Link, Processes, Reshape, Victim, chance, node, span};
use crate::clock::Real;
use crate::kernel::Trouble;
use crate::network::Weather;
use std::collections::BTreeSet;
use std::time::Duration;
use vip_core::NodeId;

/// What can go wrong, by kind. Each seed has few kinds and much of them: what
/// two rare faults do together shows only where both are common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Links are cut, in one direction or both.
    Cut,
    /// Messages are lost, late, or come twice.
    Weather,
    /// Processes stand still.
    Freeze,
    /// Processes are killed.
    Kill,
    /// A host loses its power.
    Power,
    /// A disk takes long.
    SlowDisk,
    /// Somebody campaigns out of turn.
    Elect,
    /// A node is stopped in order.
    Stop,
    /// The voters change.
    Voters,
    /// A VIP is moved there and back.
    Move,
    /// A node is drained.
    Drain,
    /// An agent's tasks stand still between looking and acting.
    Stall,
    /// A VIP is removed and added again, or unpinned.
    Recreate,
    /// Addresses come and go.
    Reshape,
    /// Interfaces appear, and take the gate or do not.
    Interface,
    /// The VIP's interface loses its link.
    Link,
    /// The kernel refuses what the guard wants.
    Kernel,
    /// Somebody else deletes the address, or claims it.
    Foreign,
    /// Virtual servers and their real servers come, go and change.
    Servers,
    /// Several faults that together hit one fact that only one process knows.
    Scheme(Scheme),
}

impl Kind {
    /// All of them.
    pub fn all() -> impl Iterator<Item = Self> {
        use Kind as K;
        let plain = [
            K::Cut,
            K::Weather,
            K::Freeze,
            K::Kill,
            K::Power,
            K::SlowDisk,
            K::Elect,
            K::Stop,
            K::Voters,
            K::Move,
            K::Drain,
            K::Stall,
            K::Recreate,
            K::Reshape,
            K::Interface,
            K::Link,
            K::Kernel,
            K::Foreign,
            K::Servers,
        ];
        plain.into_iter().chain(Scheme::ALL.iter().copied().map(K::Scheme))
    }
}

/// Collects faults.
pub(super) struct Plan<'a> {
    rng: &'a mut fastrand::Rng,
    p: Duration,
    n: usize,
    hosts: &'a [HostShape],
    faults: Vec<(Real, Fault)>,
}

/// What a seed makes go wrong.
pub(super) struct Planned {
    pub(super) faults: Vec<(Real, Fault)>,
    /// Each kind as often as it was injected.
    pub(super) kinds: Vec<Kind>,
}

impl<'a> Plan<'a> {
    pub(super) fn new(rng: &'a mut fastrand::Rng, p: Duration, hosts: &'a [HostShape]) -> Self {
        Self { rng, p, n: hosts.len(), hosts, faults: vec![] }
    }

    pub(super) fn make(mut self, from: Real, to: Real, only: Option<Scheme>) -> Planned {
        let all: Vec<Kind> = Kind::all().collect();
        let pick = |rng: &mut fastrand::Rng| all[rng.usize(0..all.len())];
        let kinds: Vec<Kind> = (0..self.rng.usize(1..=5)).map(|_| pick(self.rng)).collect();
        let kinds = only.map_or(kinds, |scheme| vec![Kind::Scheme(scheme)]);
        let pace = span(self.rng, self.p / 6, self.p * 3);
        let mut at = from;
        let mut injected = vec![];
        while at < to {
            let kind = *self.rng.choice(&kinds).unwrap_or(&Kind::Cut);
            self.one(kind, at);
            injected.push(kind);
            at = at.plus(span(self.rng, pace / 4, pace * 2));
        }
        let victim = self.victim();
        self.faults.push((to, Fault::Heal(victim)));
        Planned { faults: self.faults, kinds: injected }
    }

    fn push(&mut self, at: Real, fault: Fault) {
        self.faults.push((at, fault));
    }

    fn reshape(&mut self, at: Real, long: Duration, short: Duration) {
        use Reshape as R;
        let is = |how| Fault::Reshape(how);
        let other = self.host();
        let steps: [(Duration, Fault); 4] = match self.rng.usize(0..4) {
            // As `vip set` does it, and one step more.
            0 => {
                let last = [R::First, R::Second, R::Both, R::Gone];
                let last = *self.rng.choice(&last).unwrap_or(&R::First);
                [
                    (long, is(R::Guest)),
                    (long, is(R::Together)),
                    (short, is(R::Join)),
                    (long, is(last)),
                ]
            }
            // What just joined goes elsewhere, with the rest or alone.
            1 => {
                let away = Fault::Move(other);
                [(long, is(R::Guest)), (long, is(R::Together)), (short, is(R::Join)), (short, away)]
            }
            // What one gives up another is given, on another host.
            2 => {
                let apart = is(R::Apart(other));
                [(long, is(R::Both)), (short, is(R::First)), (short, is(R::Other)), (long, apart)]
            }
            _ => {
                let apart = is(R::Apart(other));
                [(long, is(R::Guest)), (short, apart), (long, is(R::Join)), (short, is(R::First))]
            }
        };
        let mut at = at;
        for (pause, fault) in steps {
            if chance(self.rng, 0.95) {
                self.push(at, fault);
            }
            at = at.plus(pause);
        }
    }

    fn host(&mut self) -> usize {
        self.rng.usize(0..self.n)
    }

    fn processes(&mut self) -> Processes {
        *self
            .rng
            .choice(&[Processes::Agent, Processes::Guard, Processes::Both])
            .unwrap_or(&Processes::Both)
    }

    fn one(&mut self, kind: Kind, at: Real) {
        let host = self.host();
        let end = at.plus(span(self.rng, self.p / 10, self.p * 5));
        match kind {
            Kind::Cut => self.cut(at, end),
            Kind::Weather => {
                let weather = self.weather();
                self.push(at, Fault::Weather(weather));
                self.push(end, Fault::Weather(Weather::FAIR));
            }
            Kind::Freeze => {
                let who = self.processes();
                self.push(at, Fault::Freeze(host, who));
                self.push(end, Fault::Thaw(host, who));
            }
            Kind::Kill => {
                let who = self.processes();
                self.push(at, Fault::Kill(host, who));
            }
            Kind::Power => {
                self.push(at, Fault::PowerOff(host));
                self.push(end, Fault::PowerOn(host));
            }
            Kind::SlowDisk => {
                let delay = span(self.rng, self.p / 20, self.p * 6);
                self.push(at, Fault::SlowDisk(host, delay));
                self.push(end, Fault::SlowDisk(host, Duration::ZERO));
            }
            Kind::Elect => {
                let pre = self.rng.bool();
                self.push(at, Fault::Elect(host, pre));
            }
            Kind::Stop => self.push(at, Fault::Stop(host)),
            Kind::Voters => {
                let voters = self.voters();
                self.push(at, Fault::Voters(voters));
            }
            Kind::Move => {
                // Back and forth: a late grant of the first epoch meets the third.
                self.push(at, Fault::Move(host));
                let (other, soon) = (self.host(), span(self.rng, self.p / 50, self.p));
                self.push(at.plus(soon), Fault::Move(other));
                self.push(at.plus(soon * 2), Fault::Move(host));
            }
            Kind::Drain => {
                self.push(at, Fault::Drain(host, true));
                self.push(end, Fault::Drain(host, false));
            }
            Kind::Stall => {
                let stall = span(self.rng, self.p / 50, self.p * 4);
                self.push(at, Fault::Stall(host, stall));
                self.push(end, Fault::Stall(host, Duration::ZERO));
            }
            Kind::Recreate
            | Kind::Reshape
            | Kind::Interface
            | Kind::Link
            | Kind::Kernel
            | Kind::Foreign => self.around_vips(kind, host, at, end),
            Kind::Servers => {
                let salt = self.rng.u64(..);
                self.push(at, Fault::Servers(salt));
            }
            Kind::Scheme(scheme) => {
                let salt = self.rng.u64(..);
                self.push(at, Fault::Scheme(scheme, salt));
            }
        }
    }

    /// What befalls the VIPs, and where they are.
    fn around_vips(&mut self, kind: Kind, host: usize, at: Real, end: Real) {
        match kind {
            Kind::Recreate => {
                let fault = if chance(self.rng, 0.3) { Fault::Recreate } else { Fault::AutoPlace };
                self.push(at, fault);
            }
            Kind::Reshape => {
                let long = span(self.rng, self.p / 2, self.p * 2);
                let short = span(self.rng, self.p / 100, self.p / 3);
                self.reshape(at, long, short);
            }
            Kind::Interface => {
                let takes_gate = chance(self.rng, 0.7);
                self.push(at, Fault::NewInterface { host, takes_gate });
            }
            Kind::Link => {
                self.push(at, Fault::Link(host, false));
                self.push(end, Fault::Link(host, true));
            }
            Kind::Kernel => {
                let trouble = self.trouble();
                self.push(at, Fault::Kernel(host, trouble));
                self.push(end, Fault::Kernel(host, Trouble::None));
            }
            Kind::Foreign => {
                let lost = chance(self.rng, 0.5);
                let fault = if lost { Fault::LoseAddress(host) } else { Fault::ForeignClaim(host) };
                self.push(at, fault);
            }
            _ => {}
        }
    }

    fn trouble(&mut self) -> Trouble {
        use Trouble as T;
        let all = [T::GateWrites, T::Deletions, T::GateWritesAndDeletions, T::Additions];
        *self.rng.choice(&all).unwrap_or(&T::GateWrites)
    }

    fn weather(&mut self) -> Weather {
        let share = |rng: &mut fastrand::Rng| if chance(rng, 0.5) { rng.f64() * 0.4 } else { 0.0 };
        Weather {
            loss: share(self.rng),
            duplicate: share(self.rng),
            late: share(self.rng),
            spike: span(self.rng, self.p / 20, self.p * 2),
        }
    }

    fn cut(&mut self, at: Real, end: Real) {
        let links = self.links();
        self.push(at, Fault::Cut(links.clone()));
        self.push(end, Fault::Mend(links));
    }

    /// Links around one host, a pair, or between two groups; both ways or one.
    fn links(&mut self) -> Vec<Link> {
        let host = self.host();
        let others = (0..self.n).filter(|other| *other != host);
        let out: Vec<Link> = match self.rng.usize(0..3) {
            0 => others.map(|other| (host, other)).collect(),
            1 => {
                let other = (host + 1 + self.rng.usize(0..self.n - 1)) % self.n;
                vec![(host, other)]
            }
            _ => {
                let side: Vec<bool> = (0..self.n).map(|_| self.rng.bool()).collect();
                let pairs = (0..self.n).flat_map(|a| (0..self.n).map(move |b| (a, b)));
                pairs.filter(|(a, b)| side[*a] && !side[*b]).collect()
            }
        };
        let back = out.iter().map(|(a, b)| (*b, *a));
        match self.rng.usize(0..4) {
            0 => out,
            1 => back.collect(),
            _ => back.chain(out.iter().copied()).collect(),
        }
    }

    /// Any set of nodes that may vote, of at least one.
    fn voters(&mut self) -> BTreeSet<NodeId> {
        let mut ids: Vec<usize> = (0..self.n).filter(|at| self.hosts[*at].role.votes()).collect();
        self.rng.shuffle(&mut ids);
        let keep = self.rng.usize(1..=ids.len());
        ids.truncate(keep);
        ids.into_iter().map(node).collect()
    }

    /// Progress is owed though one node stays dead, mute, deaf, or cut from
    /// another.
    fn victim(&mut self) -> Option<Victim> {
        let host = self.host();
        if self.hosts.iter().filter(|h| h.votes).count() < 3 {
            return None;
        }
        let others: Vec<usize> = (0..self.n).filter(|other| *other != host).collect();
        let cut = match self.rng.usize(0..8) {
            0 => return Some(Victim { host, dead: true, cut: vec![] }),
            1 => others.iter().map(|other| (host, *other)).collect(),
            2 => others.iter().map(|other| (*other, host)).collect(),
            3 => vec![(host, others[0]), (others[0], host)],
            _ => return None,
        };
        Some(Victim { host, dead: false, cut })
    }
}
