//! Targets on loopback.

use crate::Prober;
use std::net::SocketAddr;
use std::time::Duration;
use vip_core::{CheckKind, CheckTiming, CheckWords, Failure, Target};

pub(crate) const LONG: u64 = 5000;

pub(crate) fn target(at: SocketAddr, words: CheckWords, timeout_ms: u64) -> Target {
    let timeout = Duration::from_millis(timeout_ms);
    let timing = CheckTiming { timeout, ..CheckTiming::default() };
    let kind = CheckKind::try_from(words).expect("a kind");
    Target { at, kind: kind.into(), timing }
}

/// What a probe says of the server; nothing: it is well.
pub(crate) async fn said(at: SocketAddr, words: CheckWords, timeout_ms: u64) -> Option<String> {
    match Prober::new(None, None).probe(&target(at, words, timeout_ms)).await {
        Ok(()) => None,
        Err(Failure::There(why)) => Some(why),
        Err(Failure::Here(error)) => panic!("{error}"),
    }
}

pub(crate) fn text(text: &str) -> Option<String> {
    Some(text.to_owned())
}
