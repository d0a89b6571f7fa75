//! Tasks without which an agent is worse than none.
//!
//! An agent whose lease thread is gone still votes and never leads, and one
//! without a leader task leads and assigns nothing. Others take its VIPs only
//! if it is gone as a whole.

use futures_util::FutureExt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// How long that may take: a disk may hang.
const LAST_WORD: Duration = Duration::from_secs(1);

/// What is done before the process ends by [`gone`].
static LAST: OnceLock<Box<dyn Fn() + Send + Sync>> = OnceLock::new();

/// Has this be done before the process ends; the first who asks is heard.
pub(crate) fn at_the_end(last: impl Fn() + Send + Sync + 'static) {
    let _ = LAST.set(Box::new(last));
}

/// Ends the process: a task is gone without which it is worse than none.
pub(crate) fn gone(name: &str) -> ! {
    static ENDING: AtomicBool = AtomicBool::new(false);
    // Others find the same thing broken while the first has its last word.
    if ENDING.swap(true, Ordering::SeqCst) {
        loop {
            std::thread::park();
        }
    }
    tracing::error!(task = name, "a task that the agent cannot do without is gone; ending");
    if let Some(last) = LAST.get() {
        std::thread::spawn(|| {
            std::thread::sleep(LAST_WORD);
            std::process::abort();
        });
        let _ = catch_unwind(AssertUnwindSafe(last));
    }
    // The guard lets go when the connection ends; there is nothing to unwind.
    std::process::abort();
}

/// Runs a task; the process ends if it panics.
pub(crate) fn spawn(name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
    tokio::spawn(async move {
        if AssertUnwindSafe(task).catch_unwind().await.is_err() {
            gone(name);
        }
    });
}

/// Runs a thread's work; the process ends if it panics.
pub(crate) fn run(name: &'static str, work: impl FnOnce()) {
    if catch_unwind(AssertUnwindSafe(work)).is_err() {
        gone(name);
    }
}

/// Between two looks at something that moves.
pub(crate) const LOOK: Duration = Duration::from_millis(500);
/// So many looks at something that does not move: longer than any stall of a
/// busy machine, and this task had its turns meanwhile, so the process was not
/// frozen as a whole.
const PATIENCE: u32 = 20;

/// Ends the process when `count` stands still: a thread that is stuck is no
/// better than one that is gone.
pub(crate) async fn watch(name: &'static str, look: Duration, count: impl Fn() -> u64) {
    let (mut last, mut still) = (count(), 0);
    loop {
        tokio::time::sleep(look).await;
        let now = count();
        still = if now == last { still + 1 } else { 0 };
        last = now;
        if still >= PATIENCE {
            tracing::error!(task = name, "it does not move any more");
            gone(name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    /// Set in the child process of the test below.
    const CHILD: &str = "VIPD_ESSENTIAL_CHILD";
    const BEGUN: &str = "the last word";
    const WRITTEN: &str = "what was to be written out";

    /// Not a test: what the child does, which must not live to its end.
    #[test]
    fn child_loses_something_essential() {
        let Some(what) = std::env::var_os(CHILD) else { return };
        let hangs = what == "hangs";
        at_the_end(move || {
            println!("{BEGUN}");
            // Another thread finds the same, and must neither do this again nor end
            // the process first.
            std::thread::spawn(|| gone("another"));
            std::thread::sleep(LAST_WORD / if hangs { 1 } else { 10 } * 2);
            println!("{WRITTEN}");
        });
        if what == "thread" || hangs {
            run("test", || panic!("on purpose"));
        } else {
            let runtime = tokio::runtime::Runtime::new().expect("a runtime");
            runtime.block_on(async {
                match what.to_str() {
                    Some("still") => spawn("test", watch("test", Duration::from_millis(1), || 1)),
                    _ => spawn("test", async { panic!("on purpose") }),
                }
                std::future::pending::<()>().await;
            });
        }
    }

    #[tokio::test]
    async fn what_moves_however_slowly_is_left_alone() {
        let looks = std::cell::Cell::new(0);
        let count = || {
            looks.set(looks.get() + 1);
            looks.get() / u64::from(PATIENCE)
        };
        let (look, long) = (Duration::from_millis(1), Duration::from_millis(500));
        assert!(tokio::time::timeout(long, watch("test", look, count)).await.is_err());
        assert!(looks.get() > 2 * u64::from(PATIENCE));
    }

    #[test]
    fn the_process_ends_with_its_lease_thread_and_its_tasks() {
        use std::os::unix::process::ExitStatusExt;
        for what in ["thread", "task", "still", "hangs"] {
            let own = std::env::current_exe().expect("this program");
            let mut child = Command::new(own);
            child.args(["child_loses_something_essential", "--nocapture"]).env(CHILD, what);
            let outcome = child.output().expect("started");
            assert_eq!(
                outcome.status.signal(),
                Some(nix::sys::signal::Signal::SIGABRT as i32),
                "{what}"
            );
            let said = String::from_utf8_lossy(&outcome.stdout);
            assert_eq!(said.matches(BEGUN).count(), 1, "{what}: {said}");
            assert_eq!(said.contains(WRITTEN), what != "hangs", "{what}");
        }
    }
}
