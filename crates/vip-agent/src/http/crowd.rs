//! Connections that are open at once.

use std::collections::BTreeMap;
use std::future::Future;
use tokio::task::{AbortHandle, JoinSet};

/// Most at once. Each has some 20 KiB, with its socket.
const MAX: usize = 512;

/// See the module. Where there are too many, whoever is there longest has to go: what is
/// asked properly is answered at once, so that is somebody who only sits there.
#[derive(Default)]
pub(super) struct Crowd {
    tasks: JoinSet<u64>,
    by_age: BTreeMap<u64, AbortHandle>,
    next: u64,
}

impl Crowd {
    pub(super) fn admit(&mut self, connection: impl Future<Output = ()> + Send + 'static) {
        if self.by_age.len() >= MAX
            && let Some((_, oldest)) = self.by_age.pop_first()
        {
            oldest.abort();
        }
        let number = self.next;
        self.next += 1;
        let task = self.tasks.spawn(async move {
            connection.await;
            number
        });
        self.by_age.insert(number, task);
    }

    /// Until one has left; for ever, if none is there.
    pub(super) async fn one_leaves(&mut self) {
        match self.tasks.join_next().await {
            Some(Ok(number)) => drop(self.by_age.remove(&number)),
            // It had to go, or panicked, in which case its place is taken until it is the
            // oldest.
            Some(Err(_)) => {}
            None => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::mpsc;

    #[tokio::test]
    async fn whoever_sits_there_longest_makes_place() {
        let (said, mut gone) = mpsc::unbounded_channel();
        let mut crowd = Crowd::default();
        for number in 0..MAX + 2 {
            let said = said.clone();
            crowd.admit(async move {
                // Dropped with the task.
                let _told = Tells(said, number);
                std::future::pending::<()>().await;
            });
            tokio::task::yield_now().await;
        }
        for expected in [0, 1] {
            crowd.one_leaves().await;
            assert_eq!(gone.recv().await, Some(expected));
        }
        assert!(gone.try_recv().is_err() && crowd.by_age.len() == MAX);
    }

    struct Tells(mpsc::UnboundedSender<usize>, usize);

    impl Drop for Tells {
        fn drop(&mut self) {
            let _ = self.0.send(self.1);
        }
    }
}
