//! The gRPC types, generated from `proto/`, and their conversions to
//! `vip_core`'s, with an error for each bad field.

mod convert;
mod words;

pub use convert::{FieldError, read};
pub use words::Word;

/// Package `vip.v1`.
#[allow(
    unreachable_pub,
    clippy::too_many_lines,
    clippy::allow_attributes_without_reason,
    reason = "generated"
)]
pub mod v1 {
    tonic::include_proto!("vip.v1");
}

include!(concat!(env!("OUT_DIR"), "/words.rs"));

/// All files as a descriptor set, for gRPC reflection.
pub const DESCRIPTOR: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptor.bin"));

/// Our RPCs by path, and the number of what each says of its callers.
const ACCESS: &[(&str, i32)] = include!(concat!(env!("OUT_DIR"), "/access.rs"));

/// Our RPCs, and the least that a caller of each must be.
pub fn rpcs() -> impl Iterator<Item = (&'static str, v1::Access)> {
    ACCESS.iter().map(|(path, number)| {
        (*path, v1::Access::try_from(*number).unwrap_or(v1::Access::Unspecified))
    })
}

/// ALPN of the connections that carry leases, apart from everything else.
pub const ALPN_LEASE: &[u8] = b"vip-lease";
/// ALPN of all other gRPC connections (RFC 7540 §3.3).
pub const ALPN_GRPC: &[u8] = b"h2";
