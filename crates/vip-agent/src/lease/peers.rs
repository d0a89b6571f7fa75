//! Two connections to each peer, used in turn, so that one lost segment does
//! not stop the leases.

use std::collections::BTreeMap;
use tonic::transport::Channel;
use vip_core::NodeId;
use vip_proto::v1::lease_client::LeaseClient;
use vip_raft::Dial;

const CONNECTIONS: usize = 2;

struct Pair {
    address: String,
    clients: [LeaseClient<Channel>; CONNECTIONS],
    turn: usize,
}

/// The clients of all peers.
pub(crate) struct LeasePeers {
    dial: Dial,
    pairs: BTreeMap<NodeId, Pair>,
}

impl LeasePeers {
    pub(crate) fn new(dial: Dial) -> Self {
        Self { dial, pairs: BTreeMap::new() }
    }

    /// The next client of a peer.
    pub(super) fn client(&mut self, node: NodeId, address: &str) -> LeaseClient<Channel> {
        let fresh = || Pair {
            address: address.to_owned(),
            clients: std::array::from_fn(|_| LeaseClient::new((self.dial)(node, address))),
            turn: 0,
        };
        let pair = self.pairs.entry(node).or_insert_with(fresh);
        if pair.address != address {
            *pair = fresh();
        }
        pair.turn = (pair.turn + 1) % CONNECTIONS;
        pair.clients[pair.turn].clone()
    }

    /// Forgets peers that are no members any more.
    pub(super) fn keep(&mut self, members: impl Fn(NodeId) -> bool) {
        self.pairs.retain(|node, _| members(*node));
    }

    /// Dials anew, with the certificates of now.
    pub(super) fn clear(&mut self) {
        self.pairs.clear();
    }
}
