//! The routers that a speaker is to talk to, as they were seen a moment ago.

use super::neighbour::Neighbour;
use super::speaker::Speaker;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Mutex;

/// So long one look counts for all VIPs, well or not: a speaker that hangs is waited for once,
/// and not once for each of them.
const KNOWN: Duration = Duration::from_millis(500);

/// What was seen of them last, and when.
#[derive(Debug, Default)]
pub(super) struct Neighbours(Mutex<Option<(Instant, Seen)>>);

type Seen = Result<Arc<[Neighbour]>, String>;

impl Neighbours {
    /// # Errors
    /// The speaker does not say, as a sentence.
    pub(super) async fn now(&self, speaker: &Speaker) -> Seen {
        let mut last = self.0.lock().await;
        if let Some((_, seen)) = last.as_ref().filter(|(at, _)| at.elapsed() < KNOWN) {
            return seen.clone();
        }
        let seen: Seen = speaker.neighbours().await.map(Into::into).map_err(Into::into);
        *last = Some((Instant::now(), seen.clone()));
        seen
    }
}
