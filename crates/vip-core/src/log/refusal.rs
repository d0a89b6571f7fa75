//! Why the replicated state refused a command. Nothing was changed.

use crate::{
    AddressError, Epoch, Name, NodeId, ServerRefusal, Term, TokenError, TokenId, VipSpecError,
};
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// Why a command was refused; the state is as before.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Refusal {
    /// A leader's own decision that reached the log under a later one.
    #[error("it was decided in term {decided} and came in term {term}")]
    OtherTerm {
        /// When it was decided.
        decided: Term,
        /// The entry's.
        term: Term,
    },
    /// Members run a version that does not know such an operation.
    #[error("not every node understands this yet: upgrade vipd on {nodes} first")]
    NotEverywhere {
        /// Which, with what they run.
        nodes: String,
    },
    /// A node that would not understand what the log says.
    #[error(
        "this node runs vipd {version}, which does not understand all that the log of this \
         cluster says; install the version that the others run"
    )]
    TooOld {
        /// What it runs.
        version: String,
    },
    /// A second `init` in one log.
    #[error("this node is already a member of cluster {name}")]
    ClusterExists {
        /// That cluster.
        name: Name,
    },
    /// A name is taken by a node.
    #[error(
        "a node named {name} exists already (id {node}); if it is gone for good, run \
         `vipctl node remove {name}` first, or give this node another name"
    )]
    NodeNameTaken { name: Name, node: NodeId },
    /// No such node.
    #[error("there is no node {name}; `vipctl node list` shows those there are")]
    UnknownNode {
        /// What was asked for.
        name: String,
    },
    /// The token does not admit.
    #[error("the join token {token} was refused: {error}")]
    Token {
        token: TokenId,
        /// Why.
        error: TokenError,
    },
    /// No such token.
    #[error("there is no token {token}; `vipctl token list` shows those there are")]
    UnknownToken {
        /// What was asked for.
        token: TokenId,
    },
    /// Nobody of that name has a certificate.
    #[error("{user} has no login; `vipctl login list` shows those there are")]
    UnknownLogin {
        /// Who was meant.
        user: String,
    },
    /// Another VIP has the name.
    #[error(
        "a VIP named {name} exists already and differs from this one: `vipctl vip set {name}` changes it"
    )]
    VipExists { name: Name },
    /// Another VIP has an address.
    #[error("{ip} belongs to VIP {vip} already")]
    AddressTaken {
        /// The address.
        ip: IpAddr,
        vip: Name,
    },
    /// A VIP gave it up, and may not have heard so.
    #[error(
        "{ip} was an address of VIP {vip} until now, and may still answer there; try again in a \
         moment"
    )]
    AddressLeaving {
        /// The address.
        ip: IpAddr,
        vip: Name,
    },
    /// Somebody else changed it since it was looked at.
    #[error("VIP {vip} was changed meanwhile by somebody else; look at it, and try again")]
    VipChanged { vip: Name },
    /// It does not answer where its guest does.
    #[error("VIP {vip} moved while its addresses to come were prepared; try again")]
    NotTogether { vip: Name },
    /// A node's own address.
    #[error("{ip} is the address of node {node}: a VIP that moves cannot be where a node lives")]
    AddressOfNode {
        /// The address.
        ip: IpAddr,
        node: Name,
    },
    /// No such VIP.
    #[error("there is no VIP {name}; `vipctl vip list` shows those there are")]
    UnknownVip {
        /// What was asked for.
        name: String,
    },
    /// Another member is reached there.
    #[error(
        "{node} is reached at {advertise}: set node.advertise in vipd.toml to an address of this \
         host; if {node} is gone, remove it first: vipctl node remove {node}"
    )]
    PlaceTaken {
        /// Where.
        advertise: String,
        node: Name,
    },
    /// A node cannot be reached at an address that moves.
    #[error(
        "{advertise} is an address of VIP {vip}, which moves: set node.advertise in vipd.toml to \
         an address of this host"
    )]
    PlaceIsVip {
        /// Where.
        advertise: String,
        vip: Name,
    },
    /// The node cannot hold VIPs now.
    #[error("node {name} cannot hold a VIP: {why}")]
    CannotHold {
        /// The node.
        name: Name,
        /// Why not.
        why: String,
    },
    /// An assignment that another one overtook.
    #[error("VIP {vip} is at epoch {actual}, not {expected}")]
    EpochMoved {
        vip: Name,
        /// What the proposer saw.
        expected: Epoch,
        actual: Epoch,
    },
    /// About virtual servers.
    #[error(transparent)]
    Server(#[from] ServerRefusal),
    /// The spec is wrong in itself.
    #[error("{text}")]
    Spec {
        /// What is wrong.
        text: String,
    },
    /// An issuing key that was replaced.
    #[error("this issuing key was in use before, and was replaced; make a new one")]
    IssuerReplaced,
    /// A new issuing key is for those that stay.
    #[error(
        "{name} is to be removed for cause and is still a member: the new issuing key would go to \
         it. Finish its removal first"
    )]
    SuspectStays {
        /// The node.
        name: Name,
    },
    /// The last node that can vote and hold.
    #[error(
        "{name} is the last voter: the cluster would end with it; stop vipd and delete its data directory instead"
    )]
    LastVoter {
        /// The node.
        name: Name,
    },
}

impl From<VipSpecError> for Refusal {
    fn from(error: VipSpecError) -> Self {
        Self::Spec { text: error.to_string() }
    }
}

impl From<AddressError> for Refusal {
    fn from(error: AddressError) -> Self {
        Self::Spec { text: error.to_string() }
    }
}
