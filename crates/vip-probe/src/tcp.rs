//! Whether somebody listens.

use crate::Failure;
use std::io::{Error, ErrorKind};
use std::net::SocketAddr;
use tokio::net::TcpSocket;

/// Opens a connection (RFC 9293), and ends it at once: ordinarily the one who ends it
/// remembers it for a minute, and these are many.
pub(crate) async fn probe(at: SocketAddr) -> Result<(), Failure> {
    let socket = if at.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() };
    let socket = socket.map_err(Failure::Here)?;
    socket.set_zero_linger().map_err(Failure::Here)?;
    socket.connect(at).await.map(drop).map_err(failure)
}

fn failure(error: Error) -> Failure {
    let words = match error.kind() {
        ErrorKind::ConnectionRefused => "connection refused",
        ErrorKind::ConnectionReset => "connection reset",
        ErrorKind::HostUnreachable => "no route to it",
        ErrorKind::NetworkUnreachable => "its network cannot be reached",
        ErrorKind::TimedOut => "no answer",
        _ => return Failure::Here(error),
    };
    Failure::There(words.to_owned())
}

#[cfg(test)]
mod tests {
    use crate::{Failure, probe};
    use std::net::SocketAddr;
    use std::time::{Duration, Instant};
    use tokio::net::TcpListener;
    use vip_core::{CheckKind, CheckTiming, Target};

    fn target(at: SocketAddr, timeout_ms: u64) -> Target {
        let timeout = Duration::from_millis(timeout_ms);
        let timing = CheckTiming { timeout, ..CheckTiming::default() };
        Target { at, kind: CheckKind::Tcp, timing }
    }

    /// What a probe says of the server; nothing: it is well.
    async fn said(at: SocketAddr, timeout_ms: u64) -> Option<String> {
        match probe(target(at, timeout_ms)).await {
            Ok(()) => None,
            Err(Failure::There(why)) => Some(why),
            Err(Failure::Here(error)) => panic!("{error}"),
        }
    }

    #[test]
    fn what_this_host_lacks_says_nothing_of_the_server() {
        for lacks in [libc::EMFILE, libc::ENOBUFS, libc::EADDRNOTAVAIL, libc::EPERM] {
            let error = std::io::Error::from_raw_os_error(lacks);
            assert!(matches!(super::failure(error), Failure::Here(_)), "{lacks}");
        }
        for says in [libc::ECONNREFUSED, libc::EHOSTUNREACH, libc::ETIMEDOUT] {
            let error = std::io::Error::from_raw_os_error(says);
            assert!(matches!(super::failure(error), Failure::There(_)), "{says}");
        }
    }

    #[tokio::test]
    async fn one_that_listens_is_well_and_one_that_does_not_is_refused() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let at = listener.local_addr().expect("an address");
        assert_eq!(said(at, 5000).await, None);
        drop(listener);
        assert_eq!(said(at, 5000).await.as_deref(), Some("connection refused"));
    }

    /// Its queue is full: the kernel answers no more.
    #[tokio::test]
    async fn one_that_hangs_has_failed_after_its_timeout() {
        let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
        socket.bind("127.0.0.1:0".parse().expect("an address")).expect("bound");
        let listener = socket.listen(1).expect("listens");
        let at = listener.local_addr().expect("an address");
        let mut held = vec![];
        loop {
            let opens = tokio::net::TcpStream::connect(at);
            match tokio::time::timeout(Duration::from_millis(200), opens).await {
                Ok(opened) => held.push(opened.expect("opened")),
                Err(_) => break,
            }
            assert!(held.len() < 100, "it never hangs");
        }
        let begun = Instant::now();
        assert_eq!(said(at, 300).await.as_deref(), Some("no answer within 300 ms"));
        assert!(begun.elapsed() >= Duration::from_millis(300));
    }
}
