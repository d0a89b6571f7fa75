//! Waiting for what the log or the leases say, without looking again and again.

use super::Member;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use vip_core::LEADER_LOOKS;
use vip_raft::Applied;

/// Tells that it may be worth looking again.
pub(crate) struct News {
    applied: watch::Receiver<Applied>,
    leases: watch::Receiver<()>,
}

impl News {
    /// Until there is something new since this was asked last, or since it was made.
    /// That somebody is not heard any more, and how far another has the log, is told
    /// by nobody: after [`LEADER_LOOKS`] one looks in any case.
    pub(crate) async fn next(&mut self) {
        tokio::select! {
            // Of a log that was closed there is no news, and no end of it either.
            Ok(()) = self.applied.changed() => {}
            Ok(()) = self.leases.changed() => {}
            () = sleep(LEADER_LOOKS) => {}
        }
    }
}

impl Member {
    /// From now on.
    pub(crate) fn news(&self) -> News {
        let mut news = News { applied: self.log.applied(), leases: self.leases.changes() };
        news.applied.mark_unchanged();
        news
    }

    /// Waits until `done`. Returns whether it is within `limit`.
    pub(crate) async fn comes_true(&self, limit: Duration, mut done: impl FnMut() -> bool) -> bool {
        let (until, mut news) = (Instant::now() + limit, self.news());
        while !done() {
            if Instant::now() >= until {
                return false;
            }
            news.next().await;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A member that left is waited for by nobody, but those who waited already are
    /// still there.
    #[tokio::test]
    async fn of_a_log_that_was_closed_there_is_no_news_all_the_time() {
        let (log, applied) = watch::channel(Applied::default());
        let (_leases, leases) = watch::channel(());
        let mut news = News { applied, leases };
        drop(log);
        let begun = Instant::now();
        for _ in 0..3 {
            news.next().await;
        }
        assert!(begun.elapsed() >= 3 * LEADER_LOOKS, "{:?}", begun.elapsed());
    }
}
