//! Event streams that people follow: so many each. Whoever opens one more loses
//! the oldest.

use crate::access::Caller;
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
