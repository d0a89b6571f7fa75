//! The other members: where they are, and channels to them.

use super::tls::Tls;
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use tonic::transport::Channel;
use vip_core::NodeId;
use vip_raft::{PeerChannels, RaftNode};

/// See the module.
#[derive(Clone)]
pub(crate) struct Peers {
    raft: RaftNode,
    channels: PeerChannels,
    tls: Tls,
    /// Where they are, as the join said.
    joined: Arc<[(NodeId, String)]>,
}

impl Peers {
    pub(super) fn of(
        raft: RaftNode,
        channels: PeerChannels,
        tls: Tls,
        joined: impl IntoIterator<Item = (NodeId, String)>,
    ) -> Self {
        Self { raft, channels, tls, joined: joined.into_iter().collect() }
    }

    /// The shared channel to a member.
    pub(crate) fn channel(&self, node: NodeId) -> Option<Channel> {
        let state = self.raft.state();
        let address = state.nodes.get(&node)?.advertise.clone();
        Some(self.channel_at(node, &address))
    }

    /// The same where its address is known already.
    pub(super) fn channel_at(&self, node: NodeId, address: &str) -> Channel {
        self.channels.get(node, address)
    }

    /// A connection of its own to a member, for what may take its time.
    pub(crate) fn patient_channel(&self, node: NodeId, address: &str) -> Channel {
        self.tls.patient_channel(node, address, |configs| configs.grpc.clone())
    }

    /// The same, by this node's key alone: for one whose issuer may have been replaced.
    pub(super) fn renewing_channel(&self, node: NodeId, address: &str) -> Channel {
        self.tls.patient_channel(node, address, |configs| configs.renewal.clone())
    }

    /// The same without any certificate: for one that may have been removed.
    pub(super) fn asking_channel(&self, node: NodeId, address: &str) -> Channel {
        self.tls.patient_channel(node, address, |configs| configs.asking.clone())
    }

    /// All of them and where they are, as Raft knows, or, before it knows any, as the
    /// join said.
    pub(super) fn all(&self) -> Vec<(NodeId, String)> {
        let mut members = self.raft.members();
        if members.is_empty() {
            members.extend(self.joined.iter().cloned());
        }
        members.into_iter().filter(|(node, _)| *node != self.raft.id()).collect()
    }

    /// The addresses of the members and of this node, as far as they are written as such.
    pub(super) fn addresses(&self) -> BTreeSet<IpAddr> {
        let state = self.raft.state();
        let known = state.nodes.values().map(|node| node.advertise.clone());
        // Raft knows its members before the log is applied.
        let addresses = known.chain(self.raft.members().into_iter().map(|(_, address)| address));
        addresses.filter_map(|a| Some(a.parse::<SocketAddr>().ok()?.ip().to_canonical())).collect()
    }

    /// A node was removed.
    pub(super) fn forget(&self, node: NodeId) {
        self.channels.forget(node);
    }
}
