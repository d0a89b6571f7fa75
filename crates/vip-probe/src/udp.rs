//! Whether a datagram is answered (RFC 768).

use crate::words::failure;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;
use tokio::net::UdpSocket;
use tokio::time::timeout;
use vip_core::{Failure, Reply, UdpCheck};

/// Longest datagram that is read.
const MAX_REPLY: usize = 4096;
/// Who needs to say nothing has had most of the time, and the probe ends before it is called
/// late.
const SILENCE: f64 = 0.9;

/// A socket that hears of nobody else, and of it if nobody listens there (ICMP).
pub(crate) async fn connected(at: SocketAddr) -> Result<UdpSocket, Failure> {
    let any = if at.is_ipv4() {
        IpAddr::from(Ipv4Addr::UNSPECIFIED)
    } else {
        IpAddr::from(Ipv6Addr::UNSPECIFIED)
    };
    let here = |error| failure(&error);
    let socket = UdpSocket::bind((any, 0)).await.map_err(here)?;
    socket.connect(at).await.map_err(here)?;
    Ok(socket)
}

pub(crate) async fn send(socket: &UdpSocket, bytes: &[u8]) -> Result<(), Failure> {
    socket.send(bytes).await.map(drop).map_err(|error| failure(&error))
}

pub(crate) async fn receive(socket: &UdpSocket) -> Result<Vec<u8>, Failure> {
    let mut buffer = vec![0; MAX_REPLY];
    let len = socket.recv(&mut buffer).await.map_err(|error| failure(&error))?;
    buffer.truncate(len);
    Ok(buffer)
}

pub(crate) async fn probe(
    at: SocketAddr,
    check: &UdpCheck,
    limit: Duration,
) -> Result<(), Failure> {
    let socket = connected(at).await?;
    send(&socket, &check.sends).await?;
    let reply = match check.expect {
        Reply::None => match timeout(limit.mul_f64(SILENCE), receive(&socket)).await {
            Ok(reply) => reply?,
            Err(_) => return Ok(()),
        },
        Reply::Any | Reply::Begins(_) => receive(&socket).await?,
    };
    match &check.expect {
        Reply::Begins(wanted) if !reply.starts_with(wanted) => {
            let begins: String = reply.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
            Err(Failure::There(format!("its reply begins with {begins}")))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{LONG, said, text};
    use vip_core::CheckWords;

    #[tokio::test]
    async fn a_datagram_is_answered_as_it_should_be() {
        let socket = UdpSocket::bind("127.0.0.1:0").await.expect("bound");
        let at = socket.local_addr().expect("an address");
        let echo = tokio::spawn(async move {
            let mut buffer = [0; 512];
            while let Ok((len, from)) = socket.recv_from(&mut buffer).await {
                if buffer[0] != 0 {
                    socket.send_to(&buffer[..len], from).await.expect("sent");
                }
            }
        });
        let ask = |kind: &str, expect: Option<String>, ms| {
            said(at, CheckWords { expect, ..CheckWords::of(kind) }, ms)
        };
        assert_eq!(ask("udp:0a0b0c", None, LONG).await, None);
        assert_eq!(ask("udp:0a0b0c", text("0a0b"), LONG).await, None);
        let other = ask("udp:0a0b0c", text("0b"), LONG).await;
        assert_eq!(other.as_deref(), Some("its reply begins with 0a0b0c"));
        let silent = ask("udp:00", None, 100).await;
        assert_eq!(silent.as_deref(), Some("no answer within 100 ms"));
        assert_eq!(ask("udp:00", text("none"), 100).await, None, "it need not say anything");
        echo.abort();
        let _ = echo.await;
        let gone = ask("udp:00", text("none"), 1000).await;
        assert_eq!(gone.as_deref(), Some("connection refused"), "its host says so");
    }
}
