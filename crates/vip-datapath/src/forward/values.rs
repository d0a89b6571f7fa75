//! What is written into the forwarder's maps, and read from them.

use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use std::num::NonZeroU32;
use vip_core::{Mono, Ports, Protocol, TableSize};

/// An address's one port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    pub ip: IpAddr,
    pub protocol: Protocol,
    pub port: u16,
}

/// An address's ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Places {
    pub ip: IpAddr,
    pub protocol: Protocol,
    pub ports: Ports,
}

/// What the program needs of a virtual server to choose a real one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Service {
    /// See [`vip_core::Plan::seed`].
    pub seed: u64,
    /// Of both tables.
    pub size: TableSize,
    /// By the client's address, and not by its port.
    pub by_address: bool,
    /// The destination is rewritten.
    pub nat: bool,
    /// There was a change: connections of slots that it moved are remembered.
    pub remembers: bool,
    /// What comes for a connection that nobody can have any more is answered with a reset.
    pub resets: bool,
    /// Until when a UDP flow that is not known goes by the table before.
    pub settles: Mono,
    /// Number of the table in force.
    pub table: u32,
    /// Of the one before; the same, where it has retired.
    pub before: u32,
}

/// How a real server is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Not at all: what would go there is dropped and counted.
    None,
    /// It is on this host.
    Here,
    /// By a neighbour on this interface: itself, or a gateway.
    Hop { ifindex: u32, hop: IpAddr },
}

/// A real server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Real {
    /// The only service that sends it anything.
    pub service: NonZeroU32,
    pub ip: IpAddr,
    /// `None`: as the client named it.
    pub port: Option<u16>,
    pub way: Way,
}

/// Of which VIP a real server's packets are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reply {
    pub vip: IpAddr,
    /// `None`: as the real server has it.
    pub port: Option<u16>,
    /// The VIP's interface.
    pub ifindex: u32,
    /// Number of the real server.
    pub real: u32,
    /// It is on this host, where the VIP is the source and the port alone is rewritten.
    pub here: bool,
}
