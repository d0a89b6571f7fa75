//! Until when what is held here answers, as the guard was told last.

use crate::{Epoch, Mono, VipUid};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// Of one VIP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Leased {
    epoch: Epoch,
    /// The guard answers, by its own word.
    open: bool,
    until: Mono,
    /// How often all were extended together before that was said.
    after: u64,
}

/// Of all that is leased here. Of a thousand VIPs that are renewed together nothing is
/// written but one deadline, and a copy costs nothing.
///
/// What the guard was told counts once it showed that it heard: by its word about a VIP, or
/// by its answer to a ping that was sent after. One that stands still lets the gate shut.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Answering {
    leased: Arc<BTreeMap<VipUid, Leased>>,
    /// How often all were extended together, and until when last.
    together: (u64, Mono),
    /// Until when at each ping that is not answered.
    pinged: VecDeque<Mono>,
    /// Until when at the last that was.
    heard: Mono,
}

/// Pings that are remembered: a session ends long before.
const MAX_PINGED: usize = 1024;

impl Answering {
    /// Until when this host answers for a VIP under an epoch; `None`: it does not.
    #[must_use]
    pub fn until(&self, vip: VipUid, epoch: Epoch) -> Option<Mono> {
        let one = self.leased.get(&vip).filter(|one| one.open && one.epoch == epoch)?;
        let (times, deadline) = self.together;
        let by_all = || deadline.min(self.heard.max(one.until));
        Some(if one.after == times { one.until } else { by_all() })
    }

    /// The guard was told of one, which answers already by its own word or not.
    pub(super) fn extended(&mut self, vip: VipUid, epoch: Epoch, until: Mono, open: bool) {
        let one = Leased { epoch, open, until, after: self.together.0 };
        Arc::make_mut(&mut self.leased).insert(vip, one);
    }

    /// The guard was told of all, by one name.
    pub(super) fn extended_all(&mut self, until: Mono) {
        self.together = (self.together.0 + 1, until);
    }

    /// The guard has another set open, and moved no deadline.
    pub(super) fn extended_in_vain(&mut self) {
        self.together.1 = self.heard.min(self.together.1);
        let heard = self.heard;
        self.pinged.iter_mut().for_each(|deadline| *deadline = heard.min(*deadline));
    }

    /// The guard is asked for a sign of life.
    pub(super) fn pinged(&mut self) {
        if self.pinged.len() < MAX_PINGED {
            self.pinged.push_back(self.together.1);
        }
    }

    /// It gave one, and so heard all that was said before it was asked.
    pub(super) fn heard(&mut self) {
        if let Some(deadline) = self.pinged.pop_front() {
            self.heard = deadline;
        }
    }

    /// The guard says that it answers.
    pub(super) fn opened(&mut self, vip: VipUid, epoch: Epoch) {
        self.set_open(vip, epoch, true);
    }

    /// The guard says that it does not any more. What it was told since it may have taken.
    pub(super) fn expired(&mut self, vip: VipUid, epoch: Epoch) {
        self.set_open(vip, epoch, false);
    }

    fn set_open(&mut self, vip: VipUid, epoch: Epoch, open: bool) {
        let is_other = |one: &&Leased| one.epoch == epoch && one.open != open;
        if self.leased.get(&vip).filter(is_other).is_some()
            && let Some(one) = Arc::make_mut(&mut self.leased).get_mut(&vip)
        {
            one.open = open;
        }
    }

    /// It is not leased any more.
    pub(super) fn ended(&mut self, vip: VipUid) {
        if self.leased.contains_key(&vip) {
            Arc::make_mut(&mut self.leased).remove(&vip);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WEB: VipUid = VipUid(1);

    /// The guard hears of it at once.
    fn all(answering: &mut Answering, until: u64) {
        answering.extended_all(Mono(until));
        answering.pinged();
        answering.heard();
    }

    #[test]
    fn the_last_word_to_the_guard_counts_also_where_it_is_less() {
        let mut answering = Answering::default();
        let until = |answering: &Answering| answering.until(WEB, Epoch(1));
        answering.opened(WEB, Epoch(1));
        assert_eq!(until(&answering), None, "nothing was granted");
        answering.extended(WEB, Epoch(1), Mono(50), false);
        assert_eq!(until(&answering), None, "the guard did not say so yet");
        answering.opened(WEB, Epoch(1));
        assert_eq!(until(&answering), Some(Mono(50)));
        all(&mut answering, 90);
        assert_eq!(until(&answering), Some(Mono(90)));
        all(&mut answering, 80);
        assert_eq!(until(&answering), Some(Mono(80)));
        answering.extended(WEB, Epoch(1), Mono(70), true);
        assert_eq!(until(&answering), Some(Mono(70)));
        all(&mut answering, 75);
        assert_eq!(until(&answering), Some(Mono(75)));
        assert_eq!(answering.until(WEB, Epoch(2)), None);
    }

    #[test]
    fn a_guard_that_stands_still_lets_the_gate_shut() {
        let mut answering = Answering::default();
        answering.extended(WEB, Epoch(1), Mono(50), false);
        answering.opened(WEB, Epoch(1));
        let until = |answering: &Answering| answering.until(WEB, Epoch(1));
        answering.extended_all(Mono(90));
        answering.pinged();
        answering.extended_all(Mono(130));
        answering.pinged();
        assert_eq!(until(&answering), Some(Mono(50)), "it heard of the first alone");
        answering.heard();
        assert_eq!(until(&answering), Some(Mono(90)));
        // It has another set: neither of two counts that were under way.
        answering.extended_all(Mono(170));
        answering.extended_in_vain();
        answering.extended_in_vain();
        answering.heard();
        assert_eq!(until(&answering), Some(Mono(90)));
    }

    #[test]
    fn another_epoch_is_opened_anew() {
        let mut answering = Answering::default();
        answering.extended(WEB, Epoch(1), Mono(50), false);
        answering.opened(WEB, Epoch(1));
        answering.extended(WEB, Epoch(2), Mono(60), false);
        assert_eq!([1, 2].map(|epoch| answering.until(WEB, Epoch(epoch))), [None, None]);
        answering.opened(WEB, Epoch(1));
        assert_eq!(answering.until(WEB, Epoch(2)), None, "a word about the epoch before");
        answering.opened(WEB, Epoch(2));
        assert_eq!(answering.until(WEB, Epoch(2)), Some(Mono(60)));
        answering.ended(WEB);
        assert_eq!(answering.until(WEB, Epoch(2)), None);
    }

    /// The guard says that it expired, then takes what was on its way to it.
    #[test]
    fn what_opens_again_after_a_late_word_answers() {
        let mut answering = Answering::default();
        answering.extended(WEB, Epoch(1), Mono(50), false);
        answering.opened(WEB, Epoch(1));
        answering.extended(WEB, Epoch(1), Mono(90), true);
        answering.expired(WEB, Epoch(1));
        assert_eq!(answering.until(WEB, Epoch(1)), None);
        answering.opened(WEB, Epoch(1));
        assert_eq!(answering.until(WEB, Epoch(1)), Some(Mono(90)));
    }
}
