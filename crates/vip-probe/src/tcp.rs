//! Whether somebody listens.

use crate::words::failure;
use std::net::SocketAddr;
use tokio::net::{TcpSocket, TcpStream};
use vip_core::Failure;

/// Opens a connection (RFC 9293) that ends with a reset: ordinarily the one who ends it
/// remembers it for a minute, and these are many.
pub(crate) async fn connect(at: SocketAddr) -> Result<TcpStream, Failure> {
    let socket = if at.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() };
    let here = |error| failure(&error);
    let socket = socket.map_err(here)?;
    socket.set_zero_linger().map_err(here)?;
    socket.set_nodelay(true).map_err(here)?;
    socket.connect(at).await.map_err(here)
}

#[cfg(test)]
mod tests {
    use crate::testing;
    use std::net::SocketAddr;
    use std::time::{Duration, Instant};
    use tokio::net::TcpListener;
    use vip_core::CheckWords;

    async fn said(at: SocketAddr, timeout_ms: u64) -> Option<String> {
        testing::said(at, CheckWords::of("tcp"), timeout_ms).await
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
