//! What has to be so for a while before the leader says it: ways to real servers that are
//! broken, or whole again, and servers that were held down for long enough.

use super::{PathChange, ServerOp};
use crate::log::State;
use crate::{Mono, Observed, Patience};
use std::time::Duration;

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Lasting {
    paths: Patience<PathChange>,
    held: Patience<(Observed, u64)>,
}

impl Lasting {
    /// What to say now, by the leader's own clock. `held_for`: how long a server is held down.
    pub fn over(&mut self, now: Mono, state: &State, held_for: Duration) -> Vec<ServerOp> {
        let paths = self.paths.of(now, state.path_changes());
        let held = self.held.of(now, state.held().into_iter().map(|one| (one, held_for)));
        let reals: Vec<_> = held.into_iter().map(|(observed, _)| observed).collect();
        let paths = (!paths.is_empty()).then(|| ServerOp::from(paths));
        let release = (!reals.is_empty()).then_some(ServerOp::Release { reals });
        let all = paths.into_iter().chain(release);
        all.filter(|op| state.may_take(&op.clone().into()).is_ok()).collect()
    }
}
