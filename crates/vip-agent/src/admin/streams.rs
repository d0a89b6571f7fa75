//! Event streams that people follow: so many each. Whoever opens one more loses
//! the oldest.

use crate::admin::access::Caller;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio_stream::Stream;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use vip_pki::{Identity, Limits, Place, Places};

/// A person has some windows open; a stream's queue and its HTTP/2 window cost
/// some 100 KB.
const STREAMS: Limits = Limits { all: 256, each: 8 };

/// Who follows.
pub(crate) struct Streams(Places<String>);

impl Default for Streams {
    fn default() -> Self {
        Self(Places::new(STREAMS))
    }
}

impl Streams {
    /// A place for a stream of this caller.
    pub(super) fn enter(&self, caller: Option<&Caller>) -> Place<String> {
        self.0.enter(match caller {
            Some(Caller::Peer(Identity::User { name, .. })) => name.to_string(),
            Some(Caller::Peer(Identity::Node(node))) => format!("node {node}"),
            _ => "root".to_owned(),
        })
    }
}

/// A stream that ends when its place is lost.
pub(super) struct Placed<S> {
    stream: S,
    lost: Pin<Box<WaitForCancellationFutureOwned>>,
    place: Place<String>,
}

impl<S> Placed<S> {
    pub(super) fn new(stream: S, place: Place<String>) -> Self {
        let lost: CancellationToken = place.lost();
        Self { stream, lost: Box::pin(lost.cancelled_owned()), place }
    }
}

impl<S: Stream + Unpin> Stream for Placed<S> {
    type Item = S::Item;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<S::Item>> {
        let this = &mut *self;
        if this.lost.as_mut().poll(context).is_ready() || this.place.is_lost() {
            return Poll::Ready(None);
        }
        Pin::new(&mut this.stream).poll_next(context)
    }
}
