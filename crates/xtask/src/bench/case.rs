//! What is done to a VIP's holder, and to whose.

use anyhow::Result;
use chaos_tests::Lab;
use clap::ValueEnum;
use std::net::Ipv4Addr;

pub(super) const VIP: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 100);
/// What happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Case {
    Planned,
    PowerOff,
    Isolation,
    Freeze,
    /// SIGKILL to the deciding process; the host lives.
    Killed,
    /// The holder does not lead.
    PowerOffElsewhere,
    /// The leader does not hold.
    LeaderLost,
    /// The leader and another holder at once, of five.
    LeaderAndHolder,
    /// All nodes at once; counted from their start.
    Restart,
    /// The holder hears nobody, but is heard.
    Deaf,
    /// The holder hears everybody, but is not heard.
    Mute,
    /// The holder was isolated and comes back.
    Heal,
    /// The guard's program is replaced in its process.
    Replaced,
}

impl Case {
    pub(super) fn title(self) -> &'static str {
        match self {
            Self::Planned => "planned move",
            Self::PowerOff => "power off",
            Self::Isolation => "isolation",
            Self::Freeze => "freeze",
            Self::Killed => "agent killed, host alive",
            Self::PowerOffElsewhere => "power off, holder does not lead",
            Self::LeaderLost => "leader lost, holder elsewhere",
            Self::LeaderAndHolder => "leader and holder at once, of 5",
            Self::Restart => "all restarted, from the start",
            Self::Deaf => "holder hears nobody",
            Self::Mute => "nobody hears the holder",
            Self::Heal => "heal of an isolated node",
            Self::Replaced => "guard's program replaced",
        }
    }

    /// Whether it means anything without a leader.
    fn concerns(self, kind: Kind) -> bool {
        let leader = [Self::PowerOffElsewhere, Self::LeaderLost, Self::LeaderAndHolder];
        // What has no guard has nothing to be compared with.
        self != Self::Replaced && (kind.profile().is_some() || !leader.contains(&self))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    Keepalived1s,
    Keepalived100ms,
    VipdLan,
    VipdFast,
}

impl Kind {
    pub(super) fn title(self) -> &'static str {
        match self {
            Self::Keepalived1s => "keepalived 1 s",
            Self::Keepalived100ms => "keepalived 0.1 s",
            Self::VipdLan => "vipd lan",
            Self::VipdFast => "vipd fast",
        }
    }

    pub(super) fn profile(self) -> Option<&'static str> {
        match self {
            Self::Keepalived1s | Self::Keepalived100ms => None,
            Self::VipdLan => Some("lan"),
            Self::VipdFast => Some("fast"),
        }
    }
}

/// Every cell of the table.
pub(super) fn cells() -> impl Iterator<Item = (Case, Kind)> {
    let kinds = |case: &Case| {
        let case = *case;
        Kind::value_variants().iter().map(move |kind| (case, *kind))
    };
    Case::value_variants().iter().flat_map(kinds).filter(|(case, kind)| case.concerns(*kind))
}

/// Its name among the results.
pub(super) fn name(case: Case, kind: Kind) -> String {
    format!("{case:?} / {}", kind.title())
}

/// Hosts with a VIP that answers.
pub(super) trait System {
    fn lab(&self) -> &Lab;
    fn hosts(&self) -> Vec<String>;
    fn holder(&self) -> &'static str;
    /// What comes before the moment that counts.
    fn prepare(&mut self, case: Case) -> Result<()>;
    fn hurt(&mut self, case: Case) -> Result<()>;
    /// Loses so many per cent of what nodes tell each other.
    fn lose(&mut self, percent: u8) -> Result<()>;
}
