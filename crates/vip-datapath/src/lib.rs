//! The kernel's part of a VIP: the lease gate in eBPF.
//!
//! `bpf/gate.c` decides per packet; `gate.o` beside it is committed, so that
//! building vipd needs no clang (`cargo xtask verify` compares the two where
//! clang is present). This crate loads it, writes its deadlines, and keeps it
//! first on every interface.

mod btf;
mod gate;
mod layout;
mod netfilter;
mod syscall;
mod tcx;

pub use gate::{Device, Gate, GateError, Header};
