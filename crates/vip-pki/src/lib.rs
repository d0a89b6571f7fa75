//! The cluster's own PKI: root and issuing CA, node and admin certificates,
//! and the TLS configurations that use them.
//!
//! Who may connect is decided by certificates *and* by the replicated roster:
//! a removed node's certificate is worth nothing from the moment the log says
//! so, and an expired one still works for a node whose key the log knows, so
//! that an expired certificate never stops a failover.

mod bad_chain;
mod ca;
mod connect;
mod files;
mod identity;
mod issued;
mod leaf;
mod names;
mod newcomers;
mod places;
mod roster;
mod seen;
mod verify;

pub use bad_chain::BadChain;
pub use ca::{
    CaError, Issuer, NewCa, ROOT_DAYS, USER_LIFE, check_root_key, generate_cluster_ca, sha256_hex,
    spki_of_certificate, spki_of_csr,
};
pub use connect::{
    ConnectError, Connections, Connector, PeerInfo, PeerStream, accept, pinned_channel, speaker,
};
pub use files::write_secret;
pub use identity::{IdentityError, NodeIdentity, NodeKey, PkiDir, chain_pem};
pub use issued::{Expected, NotIssued, check_issuer};
pub use names::{Identity, cluster_id, node_server_name, user_server_name};
pub use places::{Limits, Place, Places, origin};
pub use roster::{Denied, Roster, SharedRoster};
pub use rustls::{ClientConfig, Error as TlsError, ServerConfig};
pub use verify::{
    asking_config, client_config, pinned_config, renewal_config, server_config, user_config,
};
