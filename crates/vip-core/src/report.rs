//! What one node says of itself, to the leader.
//!
//! Everything that a decision rests on comes in one message, so that no fact
//! overtakes its reason: a VIP that a node let go of comes with why it cannot
//! hold it, or it would be given back to it. It is sent when it changed, and to
//! each new leader; a lease message says only which one is the latest.

use crate::{Grantee, Mac, Name, Runs, ViaToken, VipUid};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

/// Why an address cannot be on a host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Why {
    /// Its interface has no link.
    NoLink,
    /// There is no interface of this name.
    NoInterface(String),
    /// No interface has a subnet with it.
    NoRoute,
    /// It belongs on this interface, and was on another one.
    WrongInterface(String),
    /// Outside the host's own allowlist.
    NotAllowed,
    /// Multicast, loopback, unspecified.
    NotUnicast,
    /// The host has it for itself.
    HostHasIt,
    /// The host routes through it.
    Gateway,
    /// The lease gate does not hold it.
    NoGate(String),
    /// The kernel refused.
    Kernel(String),
    /// Another host has it.
    Answered(Mac),
    /// A member answers for it, and is not its holder.
    AnsweredBy(Name),
    /// IPv6 is switched off on its interface.
    NoIpv6(String),
    /// Who has to be told where it is does not take it from this node.
    NotTaken(String),
}

/// Another host claims an address of a VIP (RFC 5227).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Conflict {
    /// The address.
    pub ip: IpAddr,
    pub mac: Mac,
}

/// Most interfaces of one node that the log names.
pub const MAX_MACS: usize = 16;

/// Why a node cannot hold a VIP.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Obstacle {
    /// The address that cannot be there.
    pub ip: IpAddr,
    pub why: Why,
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ip = self.ip;
        match &self.why {
            Why::NoLink => write!(f, "the interface of {ip} has no link"),
            Why::NoInterface(name) => write!(f, "no interface {name}"),
            Why::NoRoute => {
                write!(f, "no interface has a subnet with {ip}: name one with --interface")
            }
            Why::WrongInterface(name) => {
                write!(f, "{ip} was on another interface than {name}, where it belongs now")
            }
            Why::NotAllowed => write!(f, "{ip} is outside `allow` of [guard] in its vipd.toml"),
            Why::NotUnicast => write!(f, "{ip} is not a unicast address"),
            Why::HostHasIt => write!(f, "the host has {ip} already, and vipd did not add it"),
            Why::Gateway => write!(f, "{ip} is a gateway of the host"),
            Why::NoGate(text) => write!(f, "the lease gate cannot hold {ip}: {text}"),
            Why::Kernel(text) => write!(f, "the kernel refused {ip}: {text}"),
            Why::NoIpv6(name) => {
                write!(
                    f,
                    "IPv6 is off on {name} (net.ipv6.conf.{name}.disable_ipv6): no {ip} there"
                )
            }
            Why::NotTaken(text) => write!(f, "{ip} cannot be moved here: {text}"),
            Why::Answered(mac) => write!(
                f,
                "another host has {ip}: {mac} answers for it. If that is meant to be: --no-probe"
            ),
            Why::AnsweredBy(node) => {
                write!(
                    f,
                    "{node} answers for {ip} without holding it: take the address away there, or \
                     switch that host off"
                )
            }
        }
    }
}

/// Whether a node can hold anything at all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Fitness {
    /// It can, as far as this goes.
    Fit,
    /// Nothing puts an address on its host.
    #[default]
    NoGuard,
    /// Its disk does not keep up.
    Disk,
    /// Its clock does not run as leases assume.
    Clock,
}

impl Fitness {
    /// Why not, as the end of a sentence.
    #[must_use]
    pub const fn trouble(self) -> Option<&'static str> {
        match self {
            Self::Fit => None,
            Self::NoGuard => Some("its guard is not there"),
            Self::Disk => Some("its disk does not keep up with the log"),
            Self::Clock => Some("its clock does not run as leases assume"),
        }
    }
}

/// Which report.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReportId {
    /// The node's process, drawn at random at its start.
    pub run: u64,
    /// Counts the changes within a run: messages overtake each other.
    pub seq: u64,
}

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    pub id: ReportId,
    /// Whether the node can hold VIPs.
    pub fitness: Fitness,
    /// It is about to stop.
    pub stopping: bool,
    /// VIPs that it does not try to hold at the moment.
    pub unable: BTreeSet<VipUid>,
    /// Why it could not hold VIPs when it last tried.
    pub obstacles: BTreeMap<VipUid, Obstacle>,
    /// What it answers for.
    pub open: BTreeSet<Grantee>,
    /// What it let go of, as long as the log does not know.
    pub released: BTreeSet<Grantee>,
    /// Of that, which revision of the spec, where it was changed ever.
    pub revisions: BTreeMap<VipUid, u32>,
    /// Whom it heard claim addresses of VIPs that it holds, or is about to.
    pub conflicts: BTreeMap<VipUid, Conflict>,
    /// What it saw of where VIPs are, before it tells anybody that they are here.
    pub tokens: BTreeMap<VipUid, ViaToken>,
    /// Its interfaces that have addresses, at most [`MAX_MACS`].
    pub macs: BTreeSet<Mac>,
    pub runs: Runs,
}

impl Report {
    /// Whether this one was made after `other`, as far as they tell.
    #[must_use]
    pub fn follows(&self, other: &Self) -> bool {
        self.id.run != other.id.run || self.id.seq >= other.id.seq
    }

    /// Whether both say the same.
    #[must_use]
    pub fn says_the_same(&self, other: &Self) -> bool {
        *self == Self { id: self.id, ..other.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_obstacle_says_what_to_do() {
        let obstacle = Obstacle { ip: [10, 9, 9, 9].into(), why: Why::NoRoute };
        let text = "no interface has a subnet with 10.9.9.9: name one with --interface";
        assert_eq!(obstacle.to_string(), text);
    }

    #[test]
    fn an_obstacle_comes_out_of_the_log_as_it_went_in() {
        for why in [Why::NoRoute, Why::NoInterface("eth9".into()), Why::Kernel("no".into())] {
            let obstacle = Obstacle { ip: [10, 9, 9, 9].into(), why };
            let json = serde_json::to_string(&obstacle).expect("plain");
            assert_eq!(serde_json::from_str::<Obstacle>(&json).expect(&json), obstacle);
        }
    }

    #[test]
    fn reports_are_compared_by_what_they_say() {
        let of =
            |seq, fitness| Report { id: ReportId { run: 1, seq }, fitness, ..Report::default() };
        assert!(of(1, Fitness::Fit).says_the_same(&of(2, Fitness::Fit)));
        assert!(!of(1, Fitness::Fit).says_the_same(&of(1, Fitness::Disk)));
    }

    #[test]
    fn whoever_cannot_hold_says_why() {
        assert_eq!(Fitness::Fit.trouble(), None);
        let why = [Fitness::NoGuard, Fitness::Disk, Fitness::Clock].map(Fitness::trouble);
        for (why, word) in why.into_iter().zip(["guard", "disk", "clock"]) {
            assert!(why.is_some_and(|why| why.contains(word)), "{why:?}");
        }
    }

    #[test]
    fn a_report_of_the_same_run_follows_by_number() {
        let of = |run, seq| Report { id: ReportId { run, seq }, ..Default::default() };
        let first = of(1, 5);
        assert!(!of(1, 4).follows(&first));
        assert!(Report { fitness: Fitness::Fit, ..of(1, 5) }.follows(&first));
        assert!(of(2, 0).follows(&first), "it was restarted");
    }
}
