//! Which foreign claims an agent hears of: anybody on the network can make many.

use crate::{Mac, Mono};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

/// For so long a claim is told of once.
const WINDOW: Duration = Duration::from_secs(1);
/// Strangers that are told of in that time, where a decision may rest on it.
const STRANGERS: usize = 8;

/// What one claim of ours heard.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Hearing {
    /// Members, and who may be one: each is heard, whatever strangers do.
    known: BTreeSet<Mac>,
    since: Mono,
    told: BTreeSet<(IpAddr, Mac)>,
    strangers: usize,
}

impl Hearing {
    pub(super) fn of(known: BTreeSet<Mac>) -> Self {
        Self { known, ..Self::default() }
    }

    /// Whether the agent is to hear that `mac` claims `ip`. `decides`: something
    /// may follow from it.
    pub(super) fn tells(&mut self, now: Mono, ip: IpAddr, mac: Mac, decides: bool) -> bool {
        if self.since == Mono::ZERO || now >= self.since + WINDOW {
            (self.since, self.strangers) = (now, 0);
            self.told.clear();
        }
        if self.told.contains(&(ip, mac)) {
            return false;
        }
        if !self.known.contains(&mac) {
            if self.strangers >= if decides { STRANGERS } else { 1 } {
                return false;
            }
            self.strangers += 1;
        }
        self.told.insert((ip, mac))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Mono = Mono(5_000_000_000);

    #[test]
    fn a_flood_of_strangers_is_told_of_a_few_times_and_hides_no_member() {
        let member = Mac([2, 0, 0, 0, 0, 1]);
        let ip = IpAddr::from([10, 0, 0, 100]);
        for (decides, most) in [(true, STRANGERS), (false, 1)] {
            let mut hearing = Hearing::of([member].into());
            let strangers = (0..10_000_u16).map(|n| {
                let [a, b] = n.to_be_bytes();
                Mac([6, 0, 0, 0, a, b])
            });
            let told = strangers.filter(|mac| hearing.tells(START, ip, *mac, decides)).count();
            assert_eq!(told, most);
            assert!(hearing.tells(START, ip, member, decides), "the member is heard");
            assert!(!hearing.tells(START, ip, member, decides), "once");
            assert!(hearing.tells(START + WINDOW, ip, member, decides), "and again later");
        }
    }
}
