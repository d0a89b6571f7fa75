//! The largest P that this node may still have promised: for how long it is bound
//! after a restart.

use std::io;
use std::time::Duration;
use vip_core::Profile;
use vip_raft::LogStore;

/// Of a record that is lost: as long as there is any.
const LONGEST: Duration = Profile::Wan.timing().promise;

/// What was promised before this start. Before the first promise of `promise` is given,
/// the disk has it; once all longer ones have run out, it has no more than that.
pub(super) async fn at_start(store: &LogStore, promise: Duration) -> io::Result<Duration> {
    let before = store.saved().longest.unwrap_or(LONGEST);
    if before < promise {
        store.longest_promise(promise).await?;
    }
    if store.saved().longest != Some(promise) {
        tokio::spawn(run_out(store.clone(), before, promise));
    }
    Ok(before)
}

async fn run_out(store: LogStore, longest: Duration, promise: Duration) {
    tokio::time::sleep(longest).await;
    if let Err(e) = store.longest_promise(promise).await {
        tracing::warn!(error = %e, "how long a promise lasts is not written");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;
    use std::sync::Arc;
    use tokio::time::Instant;

    const LAN: Duration = Profile::Lan.timing().promise;
    const LIMIT: Duration = Duration::from_secs(20);

    fn store(dir: &Path) -> LogStore {
        LogStore::open(dir, Arc::new(crate::node::late_rules::LateRules::default())).expect("opens")
    }

    async fn started(dir: &Path, promise: Duration) -> (LogStore, Duration) {
        let store = store(dir);
        let before = at_start(&store, promise).await.expect("written");
        (store, before)
    }

    /// A node that changed its profile is bound by the old one once more.
    #[tokio::test]
    async fn the_largest_stays_until_it_has_run_out() {
        let dir = tempfile::tempdir().expect("a directory");
        assert_eq!(started(dir.path(), LAN).await.1, Duration::ZERO);
        assert_eq!(started(dir.path(), LONGEST).await.1, LAN);
        let (store, before) = started(dir.path(), LAN).await;
        assert_eq!((before, store.saved().longest), (LONGEST, Some(LONGEST)));
        let begun = Instant::now();
        while store.saved().longest != Some(LAN) {
            assert!(begun.elapsed() < LIMIT, "{:?}", store.saved());
            tokio::task::yield_now().await;
        }
        assert!(begun.elapsed() > LONGEST * 9 / 10);
    }

    #[tokio::test]
    async fn damage_does_not_shorten_what_was_promised() {
        let dir = tempfile::tempdir().expect("a directory");
        drop(started(dir.path(), LAN).await);
        let file = dir.path().join("votes");
        let mut bytes = std::fs::read(&file).expect("there");
        bytes[12] ^= 1;
        std::fs::write(&file, bytes).expect("written");
        assert_eq!(started(dir.path(), LAN).await.1, LONGEST);
    }
}
