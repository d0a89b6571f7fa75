//! What is read from this host's disk now and then. Reading takes some ms, or for ever, so
//! probes share what was read, and none of them reads.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::time::timeout;
use vip_core::Failure;

/// It is read again after so long.
const FRESH: Duration = Duration::from_secs(600);
/// Where it was not to be had, somebody mends that, and wants to see it.
const FRESH_FAILURE: Duration = Duration::from_secs(10);
/// Whoever needs it first waits for so long.
const READ: Duration = Duration::from_millis(500);

/// Why it is not to be had: the rest of a sentence.
type Read<T> = Result<T, String>;

/// See the module.
pub(crate) struct Fresh<T>(Arc<Known<T>>);

struct Known<T> {
    what: &'static str,
    read: Box<dyn Fn() -> Read<T> + Send + Sync>,
    value: watch::Sender<Option<(Instant, Read<T>)>>,
    is_read: AtomicBool,
}

impl<T: Clone> Known<T> {
    /// What cannot be had any more is kept as it was.
    fn read(&self) {
        let read = (self.read)();
        self.value.send_modify(|known| {
            let before = known.take().and_then(|(_, before)| before.ok());
            let kept = match (read, before) {
                (Err(_), Some(before)) => Ok(before),
                (read, _) => read,
            };
            *known = Some((Instant::now(), kept));
        });
        self.is_read.store(false, Ordering::Release);
    }
}

impl<T: Clone + Send + Sync + 'static> Fresh<T> {
    /// `what` it is, and how it is read.
    pub(crate) fn new(
        what: &'static str,
        read: impl Fn() -> Read<T> + Send + Sync + 'static,
    ) -> Self {
        let (value, is_read) = (watch::Sender::new(None), AtomicBool::new(false));
        Self(Arc::new(Known { what, read: Box::new(read), value, is_read }))
    }

    /// # Errors
    /// It is not to be had: this host's own lack.
    pub(crate) async fn get(&self) -> Result<T, Failure> {
        let mut known = self.0.value.subscribe();
        let now = known.borrow_and_update().clone();
        let is_fresh = |(read_at, value): &(Instant, Read<T>)| {
            read_at.elapsed() < if value.is_ok() { FRESH } else { FRESH_FAILURE }
        };
        if !now.as_ref().is_some_and(is_fresh) && !self.0.is_read.swap(true, Ordering::AcqRel) {
            let all = self.0.clone();
            tokio::task::spawn_blocking(move || all.read());
        }
        let value = match now {
            Some((_, value)) => Some(value),
            None => {
                let read = timeout(READ, known.wait_for(Option::is_some)).await;
                let read = read.ok().and_then(Result::ok);
                read.and_then(|read| Some(read.as_ref()?.1.clone()))
            }
        };
        let late = || Err(format!("this host has not read {} yet", self.0.what));
        value.unwrap_or_else(late).map_err(Failure::Here)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    /// A disk that fails for a while takes nothing away that was known.
    #[tokio::test]
    async fn what_cannot_be_had_any_more_is_kept() {
        let there = Arc::new(Mutex::new(Err("no disk".to_owned())));
        let read = there.clone();
        let fresh = Fresh::new("a number", move || read.lock().expect("a lock").clone());
        assert_eq!(fresh.get().await, Err(Failure::Here("no disk".to_owned())));
        for (says, wanted) in [(Ok(1), 1), (Err("no disk".to_owned()), 1), (Ok(2), 2)] {
            *there.lock().expect("a lock") = says;
            fresh.0.read();
            assert_eq!(fresh.get().await, Ok(wanted));
        }
    }
}
