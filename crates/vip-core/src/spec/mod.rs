//! What is wanted, as a person says it, checked as far as it can be alone.

mod check;
mod named;
mod policy;
mod ports;
mod real;
mod server;
mod table;
mod timing;
mod via;
mod vip;

pub use check::{
    Body, CheckKind, CheckKindError, CheckSpec, CheckWords, Digest, DnsCheck, ExecCheck, GrpcCheck,
    Header, HttpCheck, MAX_OTHERWISE, Method, RealCheck, RecordType, Reply, Statuses, Tls, Trust,
    UdpCheck,
};
pub use named::{HostName, MAX_NAMES, NamedReal, NamedRealError};
pub use policy::{AllDown, OnDown, Policy, Quorum, QuorumError};
pub use ports::{Ports, PortsError};
pub use real::{RealServer, RealSpec, RealSpecError};
pub use server::{Engine, Forward, MAX_REALS, Protocol, Scheduler, ServerSpec, ServerSpecError};
pub use table::{TableSize, TableSizeError};
pub use timing::{CheckTiming, TimingOutOfRange};
pub use via::{Provider, Via};
pub use vip::{AddressError, Placement, VipAddress, VipSpec, VipSpecError};
