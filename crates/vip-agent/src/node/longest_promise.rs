//! The largest P that this node may still have promised: for how long it is bound
//! after a restart.

use std::io;
use std::path::Path;
use std::time::Duration;
use vip_core::Profile;
use vip_raft::LogStore;

/// Of a record that is lost: as long as there is any.
const LONGEST: Duration = Profile::Wan.timing().promise;

/// Where it was before it stood beside the vote.
const OLD_FILE: &str = "longest-promise-ms";

/// What was promised before this start. Before the first promise of `promise` is given,
/// the disk has it; once all longer ones have run out, it has no more than that. It is
/// written in any case: what an earlier process read or wrote may be in memory alone.
pub(super) async fn at_start(
    store: &LogStore,
    dir: &Path,
    promise: Duration,
) -> io::Result<Duration> {
    let old_file = dir.join(OLD_FILE);
    let old = || std::fs::read_to_string(&old_file).ok()?.trim().parse().ok();
    let before = store.saved().longest.or_else(|| old().map(Duration::from_millis));
    let before = before.unwrap_or(LONGEST);
    store.longest_promise(before.max(promise)).await?;
    match std::fs::remove_file(&old_file) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    if before > promise {
        tokio::spawn(run_out(store.clone(), before, promise));
    }
    Ok(before)
}

async fn run_out(store: LogStore, longest: Duration, promise: Duration) {
    // A slewed clock is an eighth off at most.
    tokio::time::sleep(longest * 9 / 8).await;
    if let Err(e) = store.longest_promise(promise).await {
        tracing::warn!(error = %e, "how long a promise lasts is not written");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::Instant;

    const LAN: Duration = Profile::Lan.timing().promise;
    const LIMIT: Duration = Duration::from_secs(20);

    fn store(dir: &Path) -> LogStore {
        LogStore::open(dir).expect("opens")
    }

    async fn started(dir: &Path, promise: Duration) -> (LogStore, Duration) {
        let store = store(dir);
        let before = at_start(&store, dir, promise).await.expect("written");
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
    async fn what_stood_in_a_file_of_its_own_is_taken_over() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join(OLD_FILE);
        std::fs::write(&file, "200").expect("written");
        std::fs::write(dir.path().join("votes"), lost()).expect("written");
        assert_eq!(started(dir.path(), LAN).await.1, LAN);
        assert!(!file.exists());
    }

    /// A file of votes with one bad slot.
    fn lost() -> Vec<u8> {
        let dir = tempfile::tempdir().expect("a directory");
        drop(store(dir.path()));
        let mut bytes = std::fs::read(dir.path().join("votes")).expect("there");
        bytes[12] ^= 1;
        bytes
    }

    #[tokio::test]
    async fn damage_does_not_shorten_what_was_promised() {
        let dir = tempfile::tempdir().expect("a directory");
        drop(started(dir.path(), LAN).await);
        std::fs::write(dir.path().join("votes"), lost()).expect("written");
        assert_eq!(started(dir.path(), LAN).await.1, LONGEST);
    }
}
