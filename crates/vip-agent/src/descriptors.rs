//! File descriptors. The connections of all kinds of callers together stay
//! below what a process gets by default; the rest is for the log, the guard and
//! the admin socket, which must work when the port is under attack.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Enough for every place that there is, many times over.
const WANTED: u64 = 65_536;

/// Raises the limit as far as it goes. A limit that cannot be raised is used as
/// it is: the places at the port are fewer.
pub(crate) fn raise_limit() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE).and_then(|(soft, hard)| {
        let wanted = WANTED.min(hard);
        if soft >= wanted {
            return Ok(());
        }
        setrlimit(Resource::RLIMIT_NOFILE, wanted, hard)
    });
    if let Err(error) = raised {
        tracing::warn!(%error, "the limit of open files cannot be raised");
    }
}

/// Open descriptors of this process, and its limit.
pub(crate) fn used() -> Option<(u64, u64)> {
    let open = std::fs::read_dir("/proc/self/fd").ok()?.count();
    let (limit, _) = getrlimit(Resource::RLIMIT_NOFILE).ok()?;
    Some((u64::try_from(open).ok()?, limit))
}
