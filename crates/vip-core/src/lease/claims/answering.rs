//! Until when what is held here answers, as the guard was told last.

use crate::{Epoch, Mono, VipUid};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
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
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Answering {
    leased: Arc<BTreeMap<VipUid, Leased>>,
    /// How often all were extended together, and until when last.
    together: (u64, Mono),
    /// Until when at the time before.
    before: Mono,
}

impl Answering {
    /// Until when this host answers for a VIP under an epoch; `None`: it does not.
    #[must_use]
    pub fn until(&self, vip: VipUid, epoch: Epoch) -> Option<Mono> {
        let one = self.leased.get(&vip).filter(|one| one.open && one.epoch == epoch)?;
        let (times, deadline) = self.together;
        Some(if one.after == times { one.until } else { deadline })
    }

    /// The guard was told of one.
    pub(super) fn extended(&mut self, vip: VipUid, epoch: Epoch, until: Mono) {
        let open = self.leased.get(&vip).is_some_and(|one| one.open && one.epoch == epoch);
        let one = Leased { epoch, open, until, after: self.together.0 };
        Arc::make_mut(&mut self.leased).insert(vip, one);
    }

    /// The guard was told of all, by one name.
    pub(super) fn extended_all(&mut self, until: Mono) {
        self.before = self.together.1;
        self.together = (self.together.0 + 1, until);
    }

    /// The guard has another set open, and moved no deadline.
    pub(super) fn extended_in_vain(&mut self) {
        self.together.1 = self.before.min(self.together.1);
    }

    /// The guard says that it answers.
    pub(super) fn opened(&mut self, vip: VipUid, epoch: Epoch) {
        if let Some(one) = Arc::make_mut(&mut self.leased).get_mut(&vip)
            && one.epoch == epoch
        {
            one.open = true;
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

    #[test]
    fn the_last_word_to_the_guard_counts_also_where_it_is_less() {
        let mut answering = Answering::default();
        let until = |answering: &Answering| answering.until(WEB, Epoch(1));
        answering.opened(WEB, Epoch(1));
        assert_eq!(until(&answering), None, "nothing was granted");
        answering.extended(WEB, Epoch(1), Mono(50));
        assert_eq!(until(&answering), None, "the guard did not say so yet");
        answering.opened(WEB, Epoch(1));
        assert_eq!(until(&answering), Some(Mono(50)));
        answering.extended_all(Mono(90));
        assert_eq!(until(&answering), Some(Mono(90)));
        answering.extended_all(Mono(80));
        assert_eq!(until(&answering), Some(Mono(80)));
        answering.extended_all(Mono(95));
        answering.extended_in_vain();
        assert_eq!(until(&answering), Some(Mono(80)));
        answering.extended(WEB, Epoch(1), Mono(70));
        assert_eq!(until(&answering), Some(Mono(70)));
        answering.extended_all(Mono(75));
        assert_eq!(until(&answering), Some(Mono(75)));
        assert_eq!(answering.until(WEB, Epoch(2)), None);
    }

    #[test]
    fn another_epoch_is_opened_anew() {
        let mut answering = Answering::default();
        answering.extended(WEB, Epoch(1), Mono(50));
        answering.opened(WEB, Epoch(1));
        answering.extended(WEB, Epoch(2), Mono(60));
        assert_eq!([1, 2].map(|epoch| answering.until(WEB, Epoch(epoch))), [None, None]);
        answering.opened(WEB, Epoch(1));
        assert_eq!(answering.until(WEB, Epoch(2)), None, "a word about the epoch before");
        answering.opened(WEB, Epoch(2));
        assert_eq!(answering.until(WEB, Epoch(2)), Some(Mono(60)));
        answering.ended(WEB);
        assert_eq!(answering.until(WEB, Epoch(2)), None);
    }
}
