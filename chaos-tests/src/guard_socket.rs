//! The guard's socket, as somebody uses it who is no agent.

use crate::command::wait_for;
use anyhow::{Result, ensure};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(10);
/// Version 1 of the protocol, and no other.
const GREETING: &[u8; 8] = b"vipd\x01\0\x01\0";
/// A frame with the name of no cluster.
const HELLO: &[u8] = &[1, 0, 0, 0, 0];

/// Connects as an agent of no cluster, up to where the guard decides about it.
///
/// # Errors
/// Nobody listens in time, or it is no guard that understands version 1.
pub fn greet_guard(socket: &Path) -> Result<UnixStream> {
    let mut stream = wait_for("the guard", SOON, || UnixStream::connect(socket).ok())?;
    stream.set_read_timeout(Some(SOON))?;
    stream.write_all(GREETING)?;
    let mut greeting = [0; GREETING.len()];
    stream.read_exact(&mut greeting)?;
    // It understands this version beside its own.
    let lowest = u16::from_le_bytes([greeting[4], greeting[5]]);
    ensure!(greeting[..4] == GREETING[..4] && lowest == 1, "another greeting: {greeting:?}");
    stream.write_all(HELLO)?;
    Ok(stream)
}
