//! One probe of one real server: what a check does, and how what went wrong is said.
//!
//! When it is done, and what several answers come to, is `vip_core`'s matter.

mod tcp;

use std::io;
use std::time::Duration;
use tokio::time::timeout;
use vip_core::{CheckKind, Target};

/// Why a probe has not succeeded.
#[derive(Debug)]
pub enum Failure {
    /// The server is not well: the rest of a sentence.
    There(String),
    /// This host could not probe it.
    Here(io::Error),
}

/// Probes a real server once. Takes no longer than its timeout.
///
/// # Errors
/// [`Failure`].
pub async fn probe(target: Target) -> Result<(), Failure> {
    let Target { at, kind, timing } = target;
    let answer = match kind {
        CheckKind::Tcp => tcp::probe(at),
    };
    let late = |_| Failure::There(format!("no answer within {}", spoken(timing.timeout)));
    timeout(timing.timeout, answer).await.map_err(late)?
}

fn spoken(span: Duration) -> String {
    if span.subsec_millis() == 0 {
        format!("{} s", span.as_secs())
    } else {
        format!("{} ms", span.as_millis())
    }
}
