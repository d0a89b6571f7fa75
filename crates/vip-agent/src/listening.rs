//! Where this node listens, and where it cannot.

use socket2::{Domain, Socket, Type};
use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::sync::{Mutex, PoisonError};

/// Listens; the kernel keeps so many connections until they are taken. `[::]` is every
/// address, of IPv4 too, and of that alone where IPv6 is off.
///
/// # Errors
/// The port is taken, or the address not this host's.
pub(crate) fn listen(address: SocketAddr, backlog: i32) -> io::Result<TcpListener> {
    let every = address.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED);
    let bind = |address: SocketAddr| -> io::Result<TcpListener> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
        if every && address.is_ipv6() {
            socket.set_only_v6(false)?;
        }
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(backlog)?;
        Ok(socket.into())
    };
    match bind(address) {
        Err(e)
            if every
                && matches!(e.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL)) =>
        {
            bind((Ipv4Addr::UNSPECIFIED, address.port()).into())
        }
        result => result,
    }
}

/// Where it should listen and does not, by the key of the configuration.
#[derive(Debug, Default)]
pub(crate) struct NotListening(Mutex<BTreeMap<String, String>>);

impl NotListening {
    /// How it is there now. Told once for as long as it stays the same.
    pub(crate) fn at(&self, key: &str, address: SocketAddr, failed: Option<&io::Error>) {
        let why = failed.map(|why| format!("nothing listens at {address} ({key}): {why}"));
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.get(key) == why.as_ref() {
            return;
        }
        match why {
            Some(why) => {
                tracing::warn!("{why}; it is tried again");
                all.insert(key.to_owned(), why);
            }
            None => {
                tracing::info!(%address, key, "listens now");
                all.remove(key);
            }
        }
    }

    /// It need not listen there now.
    pub(crate) fn is_not_wanted(&self, key: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
    }

    /// What is wrong, by the ends of sentences.
    pub(crate) fn all(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }
}
