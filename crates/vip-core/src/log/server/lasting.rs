//! What has to be so for a while before the leader says it: ways to real servers that are
//! broken, or whole again, nodes that see nothing of what others see, servers that were
//! held down for long enough, and those whose shares rise.

use super::say::BACK_AFTER;
use super::{PathChange, SayChange, ServerOp};
use crate::health::HELD_FOR;
use crate::log::State;
use crate::{Mono, Observed, Patience};

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Lasting {
    paths: Patience<PathChange>,
    say: Patience<SayChange>,
    held: Patience<(Observed, u64)>,
    rising: Patience<(Observed, u8)>,
}

impl Lasting {
    /// What to say now, by the leader's own clock. What takes minutes is over `sooner` by this
    /// factor: the simulator's worlds last for seconds.
    pub fn over(&mut self, now: Mono, state: &State, sooner: u32) -> Vec<ServerOp> {
        let (held_for, back_after) = (HELD_FOR / sooner, BACK_AFTER / sooner);
        let paths = self.paths.of(now, state.path_changes());
        let held = self.held.of(now, state.held().into_iter().map(|one| (one, held_for)));
        let reals: Vec<_> = held.into_iter().map(|(observed, _)| observed).collect();
        let paths = (!paths.is_empty()).then(|| ServerOp::from(paths));
        let release = (!reals.is_empty()).then_some(ServerOp::Release { reals });
        let say = self.say.of(now, state.say_changes(back_after)).into_iter().map(ServerOp::from);
        let rising = self.rising.of(now, state.rising());
        let raise = (!rising.is_empty()).then(|| ServerOp::from(rising));
        let all = say.chain(paths).chain(release).chain(raise);
        all.filter(|op| state.may_take(&op.clone().into()).is_ok()).collect()
    }
}
