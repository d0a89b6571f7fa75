//! Whether a host echoes (RFC 792, RFC 4443), by the kernel's own sockets for it, which need
//! no right but that of the group (`net.ipv4.ping_group_range`).

use crate::udp::{receive, send};
use crate::words::failure;
use etherparse::{IcmpEchoHeader, Icmpv4Header, Icmpv4Type, Icmpv6Header, Icmpv6Type};
use socket2::{Domain, Protocol, Socket, Type};
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use tokio::net::UdpSocket;
use vip_core::Failure;

/// What comes back is ours.
const NONCE: usize = 16;
/// A head of both families (type, code, checksum, id, number).
const HEAD: usize = 8;
const ECHO_REPLY: [u8; 2] = [0, 129];
const FORBIDDEN: &str = "this host lets nobody ping who is not root: sysctl -w \
                         net.ipv4.ping_group_range=\"0 2147483647\"";

fn socket(ip: IpAddr) -> Result<UdpSocket, Failure> {
    let (domain, protocol) = match ip {
        IpAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4),
        IpAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6),
    };
    let socket = Socket::new(domain, Type::DGRAM, Some(protocol));
    let socket = socket.map_err(|error| match error.kind() {
        ErrorKind::PermissionDenied => Failure::Here(FORBIDDEN.to_owned()),
        _ => failure(&error),
    })?;
    let here = |error| failure(&error);
    socket.set_nonblocking(true).map_err(here)?;
    socket.connect(&SocketAddr::new(ip, 0).into()).map_err(here)?;
    UdpSocket::from_std(socket.into()).map_err(here)
}

pub(crate) async fn probe(ip: IpAddr) -> Result<(), Failure> {
    let socket = socket(ip)?;
    let mut nonce = [0; NONCE];
    fastrand::fill(&mut nonce);
    // The kernel writes its own id, and the checksum.
    let echo = IcmpEchoHeader { id: 0, seq: 1 };
    let head = match ip {
        IpAddr::V4(_) => Icmpv4Header::new(Icmpv4Type::EchoRequest(echo)).to_bytes().to_vec(),
        IpAddr::V6(_) => Icmpv6Header::new(Icmpv6Type::EchoRequest(echo)).to_bytes().to_vec(),
    };
    send(&socket, &[&head[..], &nonce].concat()).await?;
    loop {
        let reply = receive(&socket).await?;
        let is_reply = reply.first().is_some_and(|kind| ECHO_REPLY.contains(kind));
        if is_reply && reply.get(HEAD..) == Some(&nonce) {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Prober;
    use std::time::Duration;
    use vip_core::{CheckKind, CheckTiming, Target};

    /// As this machine allows it: it is one or the other, and says which.
    #[tokio::test]
    async fn loopback_echoes_or_this_host_says_why_it_cannot_ask() {
        let range = std::fs::read_to_string("/proc/sys/net/ipv4/ping_group_range");
        let range: Vec<u32> = range
            .expect("there")
            .split_whitespace()
            .map(|number| number.parse().expect("a number"))
            .collect();
        let status = std::fs::read_to_string("/proc/self/status").expect("there");
        let groups =
            status.lines().filter(|line| line.starts_with("Gid:") || line.starts_with("Groups:"));
        let may = groups
            .flat_map(|line| line.split_whitespace().skip(1))
            .filter_map(|number| number.parse::<u32>().ok())
            .any(|group| (range[0]..=range[1]).contains(&group));
        let timeout = Duration::from_secs(5);
        let has_v6 = std::net::UdpSocket::bind("[::1]:0").is_ok();
        for ip in ["127.0.0.1", "::1"].into_iter().filter(|ip| *ip != "::1" || has_v6) {
            let at = SocketAddr::new(ip.parse().expect("an address"), 0);
            let timing = CheckTiming { timeout, interval: timeout, ..CheckTiming::default() };
            let target = Target { at, kind: CheckKind::Icmp.into(), timing };
            let wanted = if may { Ok(()) } else { Err(Failure::Here(FORBIDDEN.to_owned())) };
            assert_eq!(Prober::new(None, None).probe(&target).await, wanted, "{ip}");
        }
    }
}
