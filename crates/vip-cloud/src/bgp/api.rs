//! GoBGP's API, version 3, as far as it is used here.

#![allow(
    unreachable_pub,
    missing_docs,
    dead_code,
    clippy::all,
    clippy::pedantic,
    clippy::allow_attributes_without_reason,
    reason = "generated"
)]

tonic::include_proto!("apipb");
