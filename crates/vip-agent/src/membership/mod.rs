//! Becoming a member, being one, and ceasing to be one.

mod activation;
mod admitting;
mod backup;
mod data_dir;
mod formation;
mod look_back;
mod refounding;
mod seat;
mod upkeep;

pub(crate) use admitting::ClusterService;
pub(crate) use backup::{Backup, LONGEST};
pub(crate) use data_dir::BEFORE;
pub(crate) use formation::{
    Initialised, RECOVERY_FILE, create_token, forget_membership, init, join,
};
pub(crate) use look_back::reached;
pub(crate) use refounding::{adopt, recover, restore};
pub(crate) use seat::{Launch, Seat};
pub(crate) use upkeep::keep_up;

pub use seat::ListenError;
