//! What a seed makes of the world: its shape, and what goes wrong when.

mod directed;
mod plan;

use crate::clock::Real;
use crate::kernel::Trouble;
use crate::network::Weather;
pub use directed::Scheme;
pub(crate) use directed::{Cast, Directed};
pub use plan::Kind;
use plan::{Plan, Planned};
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

/// A step of changing which addresses the VIP has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reshape {
    /// A VIP with the second address.
    Guest,
    /// It goes where the other one is.
    Together,
    /// It and the other VIP go to this host.
    Apart(usize),
    /// It joins that.
    Join,
    /// Both addresses, without a guest.
    Both,
    /// The first address alone.
    First,
    /// The second address alone.
    Second,
    /// Another VIP with the second address.
    Other,
    /// Neither guest nor other any more.
    Gone,
}

/// Something that goes wrong, or somebody's command.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    Cut(Vec<Link>),
    Mend(Vec<Link>),
    /// What is sent over these links takes so much longer.
    Slow(Vec<Link>, Duration),
    Weather(Weather),
    Freeze(usize, Processes),
    Thaw(usize, Processes),
    Kill(usize, Processes),
    PowerOff(usize),
    PowerOn(usize),
    SlowDisk(usize, Duration),
    /// The agent's tasks stand still between looking and acting.
    Stall(usize, Duration),
    /// Raft's own timer fires, with or without pre-vote.
    Elect(usize, bool),
    Stop(usize),
    Voters(BTreeSet<NodeId>),
    Move(usize),
    AutoPlace,
    Drain(usize, bool),
    /// Removes the VIP and adds it again, with the same address.
    Recreate,
    /// Changes which addresses the VIP has.
    Reshape(Reshape),
    /// An interface appears, and takes the gate's program or does not.
    NewInterface {
        host: usize,
        takes_gate: bool,
    },
    Kernel(usize, Trouble),
    /// The interface of the VIP loses its link, or gets it back.
    Link(usize, bool),
    /// Somebody changes a virtual server.
    Servers(u64),
    /// Something else deletes the VIP's address.
    LoseAddress(usize),
    /// A foreign host claims it.
    ForeignClaim(usize),
    /// Several faults around whoever leads then.
    Scheme(Scheme, u64),
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

impl HostShape {
    /// Whether the clock runs as the algorithm assumes.
    pub(crate) fn clock_is_well(&self) -> bool {
        self.rate_ppm.abs() <= RHO_PPM
    }
}

/// How it is with whoever has to be told where VIPs are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Manners {
    /// It changes what a token names, and nothing else.
    pub(crate) conditional: bool,
    /// It refuses calls until all is healed.
    pub(crate) refuses: bool,
    /// For so long it may say what was before a change.
    pub(crate) lag: Duration,
    /// Each host has one of its own, which announces what it is told, and routers prefer what
    /// was announced last.
    pub(crate) announces: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct Scenario {
    pub(crate) profile: Profile,
    pub(crate) sticky: bool,
    /// Somebody has to be told where the VIP is.
    pub(crate) called: Option<Manners>,
    pub(crate) hosts: Vec<HostShape>,
    pub(crate) latency: Duration,
    pub(crate) write: Duration,
    pub(crate) faults: Vec<(Real, Fault)>,
    /// Kinds of faults, as often as they were injected.
    pub(crate) kinds: Vec<Kind>,
    pub(crate) healed_at: Real,
    pub(crate) ends_at: Real,
}

/// One in so many worlds has clocks that are slewed, which their agents notice.
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
    pub(crate) fn of(seed: u64, only: Option<Scheme>) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let rng = &mut rng;
        let profile = if chance(rng, 0.7) { Profile::Lan } else { Profile::Fast };
        let timing = profile.timing();
        let hosts = hosts(rng);
        let latency = timing.heartbeat.mul_f64(0.005 + 0.02 * rng.f64());
        let started = Real::default().plus(timing.promise * 6);
        let healed_at = started.plus(timing.promise * rng.u32(TROUBLE));
        let ends_at = healed_at.plus(crate::invariant::progress_bound(&timing));
        let Planned { faults, kinds } =
            Plan::new(rng, timing.promise, &hosts).make(started, healed_at, only);
        Self {
            profile,
            sticky: chance(rng, 0.5),
            called: chance(rng, 0.3).then(|| Manners {
                conditional: chance(rng, 0.7),
                refuses: chance(rng, 0.3),
                lag: timing.promise.mul_f64(rng.f64()),
                announces: chance(rng, 0.3),
            }),
            hosts,
            latency,
            write: latency * 2,
            faults,
            kinds,
            healed_at,
            ends_at,
        }
    }
}

fn hosts(rng: &mut fastrand::Rng) -> Vec<HostShape> {
    let count = *rng.choice(&[3, 3, 3, 4, 5]).unwrap_or(&3);
    let wild = rng.u64(0..WILD_CLOCKS) == 0;
    (0..count)
        .map(|at| {
            let role = match at {
                0 | 1 => Role::Voter,
                2 if chance(rng, 0.2) => Role::Witness,
                3 if chance(rng, 0.4) => Role::Learner,
                _ => Role::Voter,
            };
            // The extremes are where it breaks.
            let extreme = *rng.choice(&[-RHO_PPM, RHO_PPM, 0]).unwrap_or(&0);
            let rate_ppm = if wild { extreme * rng.i64(1..84) } else { extreme };
            HostShape { role, votes: role.votes(), offset: rng.u64(1 << 30..1 << 40), rate_ppm }
        })
        .collect()
}

/// The node on a host.
pub(crate) fn node(host: usize) -> NodeId {
    NodeId(host as u64 + 1)
}

/// The host of a node.
pub(crate) fn host(node: NodeId) -> usize {
    usize::try_from(node.0).unwrap_or_default() - 1
}
