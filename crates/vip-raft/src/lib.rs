//! openraft for vipd: a sled log store that syncs before it acknowledges,
//! snapshots, and gRPC transport. Rules about leases are asked for through
//! [`LeaseRules`]; nothing about VIPs is decided here.

mod convert;
mod disk;
mod frame;
mod log_disk;
mod log_store;
mod network;
mod node;
mod refound;
mod seal;
mod server;
mod sled_disk;
mod snapshot;
mod state_machine;
mod sync;
mod types;
mod votes;
mod votes_file;

pub use disk::Disk;
pub use frame::Newer;
pub use log_disk::{Beside, Change, LogDisk};
pub use log_store::{DOUBT, LogStore, StoreError};
pub use network::{Dial, LeaseRules, PeerChannels};
pub use node::{Changes, Ended, RaftNode, SNAPSHOT_AFTER, VipRaft, WriteError, open, prepare};
pub use refound::{LogEnd, found};
pub use server::{PeerOf, RaftService};
pub use snapshot::SnapshotData;
pub use state_machine::{Applied, StateMachine, Views};
pub use types::{Member, TypeConfig};
pub use votes_file::Saved;
