//! Whom this node heard claim addresses of its VIPs.

use crate::{Conflict, Mono, VipUid};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

/// How long after it was heard last a conflict is reported as one. While it is,
/// others about the same VIP are not: what a stranger sends must not fill the
/// log.
const REMEMBERED: Duration = Duration::from_mins(1);

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Heard {
    what: Conflict,
    at: Mono,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Conflicts(BTreeMap<VipUid, Heard>);

impl Conflicts {
    pub(super) fn heard(&mut self, now: Mono, vip: VipUid, what: Conflict) {
        let heard = self.0.entry(vip).or_insert(Heard { what, at: now });
        if heard.what == what {
            heard.at = now;
        }
    }

    pub(super) fn forget(&mut self, now: Mono, is_there: impl Fn(VipUid) -> bool) {
        self.0.retain(|vip, heard| is_there(*vip) && now < heard.at + REMEMBERED);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn all(&self) -> BTreeMap<VipUid, Conflict> {
        self.0.iter().map(|(vip, heard)| (*vip, heard.what)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Mac;

    const START: Mono = Mono(5_000_000_000);
    const WEB: VipUid = VipUid(1);

    fn by(last: u8) -> Conflict {
        Conflict { ip: [10, 0, 0, 100].into(), mac: Mac([2, 0, 0, 0, 0, last]) }
    }

    #[test]
    fn a_flood_under_many_names_is_one_conflict_a_minute() {
        let mut conflicts = Conflicts::default();
        for at in 0..60 {
            for name in 1..=250 {
                let now = START + Duration::from_secs(at);
                conflicts.forget(now, |_| true);
                conflicts.heard(now, WEB, by(name));
                assert_eq!(conflicts.all(), [(WEB, by(1))].into());
            }
        }
        let over = START + Duration::from_secs(119);
        assert!(!conflicts.is_empty(), "the first one is heard to the end");
        conflicts.forget(over - Duration::from_nanos(1), |_| true);
        assert!(!conflicts.is_empty());
        conflicts.forget(over, |_| true);
        assert!(conflicts.is_empty() && conflicts.all().is_empty());
        // Another one does not make it last.
        conflicts.heard(START, WEB, by(1));
        conflicts.heard(over, WEB, by(2));
        conflicts.forget(START + REMEMBERED, |_| true);
        assert!(conflicts.is_empty());
        conflicts.heard(START, WEB, by(1));
        conflicts.forget(START, |_| false);
        assert!(conflicts.is_empty(), "its VIP is gone");
    }
}
