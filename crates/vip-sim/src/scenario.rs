//! What a seed makes of the world: its shape, and what goes wrong when.

use crate::clock::Real;
use crate::network::Weather;
use std::collections::BTreeSet;
use std::time::Duration;
use vip_core::{NodeId, Profile, Role};

/// A directed link.
pub(crate) type Link = (usize, usize);

/// Which processes of a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Processes {
    Agent,
    Guard,
    Both,
}

/// What stays broken to the end.
#[derive(Clone, Debug)]
pub(crate) struct Victim {
    pub(crate) host: usize,
    pub(crate) dead: bool,
    pub(crate) cut: Vec<Link>,
}

/// Something that goes wrong, or somebody's command.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    Cut(Vec<Link>),
    Mend(Vec<Link>),
    Weather(Weather),
    Freeze(usize, Processes),
    Thaw(usize, Processes),
    Kill(usize, Processes),
    PowerOff(usize),
    PowerOn(usize),
    SlowDisk(usize, Duration),
    /// Raft's own timer fires, with or without pre-vote.
    Elect(usize, bool),
    Stop(usize),
    Voters(BTreeSet<NodeId>),
    Move(usize),
    AutoPlace,
    Drain(usize, bool),
    /// Removes the VIP and adds it again, with the same address.
    Recreate,
    /// Everything that is broken is mended, but for one node if there is a
    /// quorum without it.
    Heal(Option<Victim>),
    /// A gate is opened without a right to it.
    DoubleAnswer,
}

#[derive(Clone, Debug)]
pub(crate) struct HostShape {
    pub(crate) role: Role,
    pub(crate) votes: bool,
    pub(crate) offset: u64,
    pub(crate) rate_ppm: i64,
}

#[derive(Clone, Debug)]
pub(crate) struct Scenario {
    pub(crate) profile: Profile,
    pub(crate) sticky: bool,
    pub(crate) hosts: Vec<HostShape>,
    pub(crate) latency: Duration,
    pub(crate) write: Duration,
    pub(crate) faults: Vec<(Real, Fault)>,
    pub(crate) healed_at: Real,
    pub(crate) ends_at: Real,
    /// Largest distance of a clock's rate from what the algorithm allows,
    /// millionths.
    pub(crate) beyond_ppm: i64,
}

/// One in so many worlds has a clock that no rule covers.
const WILD_CLOCKS: u64 = 16;
/// Allowed distance of a rate, millionths (rho).
const RHO_PPM: i64 = 1000;
/// How long the faults last, in promises.
const TROUBLE: std::ops::RangeInclusive<u32> = 10..=25;

fn chance(rng: &mut fastrand::Rng, share: f64) -> bool {
    rng.f64() < share
}

/// A time between two, small ones as likely as large ones.
fn span(rng: &mut fastrand::Rng, low: Duration, high: Duration) -> Duration {
    let ratio = high.as_secs_f64() / low.as_secs_f64();
    low.mul_f64(ratio.powf(rng.f64()))
}

impl Scenario {
    pub(crate) fn of(seed: u64) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let rng = &mut rng;
        let profile = if chance(rng, 0.7) { Profile::Lan } else { Profile::Fast };
        let timing = profile.timing();
        let (hosts, beyond_ppm) = hosts(rng);
        let latency = timing.heartbeat.mul_f64(0.005 + 0.02 * rng.f64());
        let started = Real::default().plus(timing.promise * 6);
        let healed_at = started.plus(timing.promise * rng.u32(TROUBLE));
        let ends_at = healed_at.plus(crate::invariant::progress_bound(&timing));
        let mut plan = Plan { rng, p: timing.promise, n: hosts.len(), faults: vec![] };
        plan.make(started, healed_at, &hosts);
        let faults = plan.faults;
        Self {
            profile,
            sticky: chance(rng, 0.5),
            hosts,
            latency,
            write: latency * 2,
            faults,
            healed_at,
            ends_at,
            beyond_ppm,
        }
    }
}

fn hosts(rng: &mut fastrand::Rng) -> (Vec<HostShape>, i64) {
    let count = *rng.choice(&[3, 3, 3, 4, 5]).unwrap_or(&3);
    let wild = rng.u64(0..WILD_CLOCKS) == 0;
    let mut beyond_ppm = 0;
    let hosts = (0..count)
        .map(|at| {
            let role = match at {
                0 | 1 => Role::Voter,
                2 if chance(rng, 0.2) => Role::Witness,
                3 if chance(rng, 0.4) => Role::Learner,
                _ => Role::Voter,
            };
            // The extremes are where it breaks.
            let extreme = *rng.choice(&[-RHO_PPM, RHO_PPM, 0]).unwrap_or(&0);
            let rate_ppm = if wild { extreme * rng.i64(1..20) } else { extreme };
            beyond_ppm = beyond_ppm.max(rate_ppm.abs() - RHO_PPM);
            HostShape { role, votes: role.votes(), offset: rng.u64(1 << 30..1 << 40), rate_ppm }
        })
        .collect();
    (hosts, beyond_ppm)
}

/// Collects faults. Each seed has few kinds and much of them: what two rare
/// faults do together shows only where both are common.
struct Plan<'a> {
    rng: &'a mut fastrand::Rng,
    p: Duration,
    n: usize,
    faults: Vec<(Real, Fault)>,
}

const KINDS: usize = 15;

impl Plan<'_> {
    fn make(&mut self, from: Real, to: Real, hosts: &[HostShape]) {
        let kinds: Vec<usize> =
            (0..self.rng.usize(1..=5)).map(|_| self.rng.usize(0..KINDS)).collect();
        let pace = span(self.rng, self.p / 6, self.p * 3);
        let mut at = from;
        while at < to {
            let kind = *self.rng.choice(&kinds).unwrap_or(&0);
            self.one(kind, at, hosts);
            at = at.plus(span(self.rng, pace / 4, pace * 2));
        }
        let victim = self.victim(hosts);
        self.faults.push((to, Fault::Heal(victim)));
    }

    fn push(&mut self, at: Real, fault: Fault) {
        self.faults.push((at, fault));
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

    fn one(&mut self, kind: usize, at: Real, hosts: &[HostShape]) {
        let host = self.host();
        let end = at.plus(span(self.rng, self.p / 10, self.p * 5));
        match kind {
            0 => self.cut(at, end),
            1 => {
                let weather = self.weather();
                self.push(at, Fault::Weather(weather));
                self.push(end, Fault::Weather(Weather::FAIR));
            }
            2 => {
                let who = self.processes();
                self.push(at, Fault::Freeze(host, who));
                self.push(end, Fault::Thaw(host, who));
            }
            3 => {
                let who = self.processes();
                self.push(at, Fault::Kill(host, who));
            }
            4 => {
                self.push(at, Fault::PowerOff(host));
                self.push(end, Fault::PowerOn(host));
            }
            5 => {
                let delay = span(self.rng, self.p / 20, self.p * 6);
                self.push(at, Fault::SlowDisk(host, delay));
                self.push(end, Fault::SlowDisk(host, Duration::ZERO));
            }
            6 => {
                let pre = self.rng.bool();
                self.push(at, Fault::Elect(host, pre));
            }
            7 => self.push(at, Fault::Stop(host)),
            8 => {
                let voters = self.voters(hosts);
                self.push(at, Fault::Voters(voters));
            }
            9 => {
                // Back and forth: a late grant of the first epoch meets the third.
                self.push(at, Fault::Move(host));
                let (other, soon) = (self.host(), span(self.rng, self.p / 50, self.p));
                self.push(at.plus(soon), Fault::Move(other));
                self.push(at.plus(soon * 2), Fault::Move(host));
            }
            10 => {
                self.push(at, Fault::Drain(host, true));
                self.push(end, Fault::Drain(host, false));
            }
            11 => self.mixed_sessions(at, host),
            12 => self.overtaken(at, host),
            13 => self.exchanged_voters(at, host, hosts),
            _ => {
                let fault = if chance(self.rng, 0.3) { Fault::Recreate } else { Fault::AutoPlace };
                self.push(at, fault);
            }
        }
    }

    /// A new holder's guard is replaced while its first grant is on its way,
    /// then frozen, while the VIP moves on.
    fn mixed_sessions(&mut self, at: Real, host: usize) {
        let (p, other) = (self.p, self.host());
        let late = Weather { late: 0.5, spike: p, ..Weather::FAIR };
        self.push(at, Fault::Weather(late));
        self.push(at, Fault::Move(host));
        let killed = at.plus(span(self.rng, p / 100, p / 4));
        self.push(killed, Fault::Kill(host, Processes::Guard));
        let frozen = killed.plus(span(self.rng, p / 10, p));
        self.push(frozen, Fault::Freeze(host, Processes::Guard));
        let moved = frozen.plus(span(self.rng, p / 100, p / 2));
        self.push(moved, Fault::Move(other));
        let end = moved.plus(p * 2);
        self.push(end, Fault::Thaw(host, Processes::Guard));
        self.push(end, Fault::Weather(Weather::FAIR));
    }

    /// A leader is overtaken by a node that it did not reach, and campaigns
    /// again while its gate may still be open.
    fn overtaken(&mut self, at: Real, leader: usize) {
        let (p, other) = (self.p, (leader + 1 + self.rng.usize(0..self.n - 1)) % self.n);
        let unheard = vec![(leader, other)];
        self.push(at, Fault::Cut(unheard.clone()));
        let free = at.plus(p.mul_f64(1.05 + self.rng.f64()));
        self.push(free, Fault::Elect(other, false));
        self.push(free, Fault::Mend(unheard));
        let again = free.plus(span(self.rng, p / 100, p / 2));
        self.push(again, Fault::Elect(leader, false));
        let moved = again.plus(span(self.rng, p / 100, p / 4));
        self.push(moved, Fault::Move(other));
    }

    /// One voter takes another's place, and then a leader reaches only the one
    /// that went.
    fn exchanged_voters(&mut self, at: Real, leader: usize, hosts: &[HostShape]) {
        let votes = |at: &usize| *at != leader && hosts[*at].role.votes();
        let mut others: Vec<usize> = (0..hosts.len()).filter(votes).collect();
        self.rng.shuffle(&mut others);
        let &[came, went, stays, ..] = others.as_slice() else { return };
        let voters = |hosts: [usize; 3]| Fault::Voters(hosts.into_iter().map(node).collect());
        self.push(at, voters([leader, went, stays]));
        let exchanged = at.plus(span(self.rng, self.p / 4, self.p * 2));
        self.push(exchanged, voters([leader, came, stays]));
        let links = [came, stays].into_iter().flat_map(|host| [(host, leader), (leader, host)]);
        let links: Vec<Link> = links.collect();
        let cut = exchanged.plus(span(self.rng, self.p / 20, self.p));
        self.push(cut, Fault::Cut(links.clone()));
        self.push(cut.plus(self.p * 3), Fault::Mend(links));
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

    /// Any set of nodes that may vote, of at least two.
    fn voters(&mut self, hosts: &[HostShape]) -> BTreeSet<NodeId> {
        let mut ids: Vec<usize> = (0..hosts.len()).filter(|at| hosts[*at].role.votes()).collect();
        self.rng.shuffle(&mut ids);
        let keep = self.rng.usize(2..=ids.len());
        ids.truncate(keep);
        ids.into_iter().map(node).collect()
    }

    /// Progress is owed though one node stays dead, mute, deaf, or cut from
    /// another.
    fn victim(&mut self, hosts: &[HostShape]) -> Option<Victim> {
        let host = self.host();
        if hosts.iter().filter(|h| h.votes).count() < 3 {
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

/// The node on a host.
pub(crate) fn node(host: usize) -> NodeId {
    NodeId(host as u64 + 1)
}

/// The host of a node.
pub(crate) fn host(node: NodeId) -> usize {
    usize::try_from(node.0).unwrap_or_default() - 1
}
