//! For how long some of a client's connections fail.

use crate::net::Lab;
use anyhow::{Context, Result, ensure};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// Between two connections.
const PACE: Duration = Duration::from_millis(5);
/// A connection that takes longer has failed.
const CONNECT: Duration = Duration::from_millis(200);
/// Nothing but good ones for so long is the end.
const GOOD: Duration = Duration::from_secs(1);

/// How long after now the last connection of the client began that does not come about, with
/// nothing but good ones after it.
///
/// # Errors
/// None fails, or they fail for longer than the limit.
pub fn unserved(lab: &Lab, target: SocketAddr, limit: Duration) -> Result<Duration> {
    let client = || -> Result<Duration> {
        lab.enter("client")?;
        let (begun, mut last) = (Instant::now(), Duration::ZERO);
        while begun.elapsed() < last + GOOD || last.is_zero() {
            ensure!(begun.elapsed() < limit, "it does not end, or begin");
            let at = begun.elapsed();
            if TcpStream::connect_timeout(&target, CONNECT).is_err() {
                last = at;
            }
            std::thread::sleep(PACE);
        }
        Ok(last)
    };
    std::thread::scope(|scope| scope.spawn(client).join()).ok().context("it panicked")?
}
