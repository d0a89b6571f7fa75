//! The kernel's part of a VIP: the lease gate and the forwarder in eBPF.
//!
//! ```text
//!  bpf/vipd.c     what is done with a packet, in order
//!      gate.h     may the address answer now
//!      forward.h  which real server a packet of a virtual server goes to
//!      nat.h      rewriting it      icmp.h   errors about it      parse.h   what it is
//!      maps.h     what both read, and `layout.rs` writes
//! ```
//!
//! `vipd.o` beside them is committed, so that building vipd needs no clang (`cargo xtask
//! verify` compares it with its source where clang is present). This crate loads it,
//! writes its maps, and keeps it first on every interface.

mod btf;
mod forward;
mod gate;
mod inherit;
mod layout;
mod map;
mod netfilter;
mod object;
mod probe;
mod syscall;
mod tcx;

pub use forward::{
    ForwardEngine, ForwardError, ForwardMaps, LeftEngine, MOST_REALS, MOST_TABLES, Place, Places,
    Real, Reply, Service, Surroundings, Unforwarded, Way,
};
pub use gate::{Device, Gate, GateError, Header, LeftGate};
pub use inherit::Inherited;
pub use object::{ObjectError, object_name};
pub use probe::forward_engine;
pub use tcx::Trial;
