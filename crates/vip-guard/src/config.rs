//! How to run a guard, and why it does not.

use crate::kernel::KernelError;
use ipnet::IpNet;
use std::io;
use std::path::PathBuf;
use vip_datapath::GateError;

/// How to run a guard.
#[derive(Clone, Debug)]
pub struct GuardConfig {
    /// Where the agent finds it. Its directory also keeps what a later run has
    /// to know.
    pub socket: PathBuf,
    /// Run also where eBPF cannot load.
    pub gate_optional: bool,
    /// Addresses that may be added; empty: any unicast address that is not a
    /// gateway's, nor one that clouds keep for themselves.
    pub allow: Vec<IpNet>,
    /// Where real servers may be; empty: in networks that this host is connected to and in
    /// private ones, but no gateway, and no address that clouds keep for themselves.
    pub allow_real: Vec<IpNet>,
}

/// Why the guard does not run.
#[derive(Debug, thiserror::Error)]
pub enum GuardError {
    /// A second guard on one socket.
    #[error("another guard has {0}; it was left alone")]
    AlreadyRunning(PathBuf),
    /// A second guard in one network namespace, where it would take the first
    /// one's addresses for leftovers.
    #[error(
        "another guard holds VIPs in this network namespace; it was left alone. One guard serves \
         one agent: a second vipd on this host needs a network namespace of its own"
    )]
    NamespaceTaken,
    /// The place of locks is not this user's alone.
    #[error(
        "{0} must belong to root or to the guard's user, and be writable by nobody else: who can \
         write there can stop the guard"
    )]
    LockPlace(PathBuf),
    /// A file or socket could not be made.
    #[error("{path}")]
    File {
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The program before this one left something else.
    #[error("what the program before had cannot be gone on with")]
    Resume(#[source] io::Error),
    /// Netlink or a packet socket refused.
    #[error("{what} needs CAP_NET_ADMIN and CAP_NET_RAW")]
    Rights {
        /// What was tried.
        what: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The kernel could not be asked.
    #[error("{0}")]
    Kernel(String),
    /// The gate's program is there, and its maps are not.
    #[error("what the gate's program forwards by cannot be had: {0}")]
    Forwarder(String),
    /// No gate, and the configuration requires one.
    #[error(
        "the lease gate cannot be loaded; without it a frozen node may answer beyond its lease. \
         Set gate = \"optional\" in [guard] of vipd.toml to accept that"
    )]
    Gate(#[source] GateError),
}

impl From<KernelError> for GuardError {
    fn from(error: KernelError) -> Self {
        Self::Kernel(error.to_string())
    }
}
