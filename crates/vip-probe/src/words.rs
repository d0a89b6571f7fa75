//! What the kernel says of a server, in words.

use std::io::{Error, ErrorKind};
use vip_core::Failure;

/// What went wrong with a socket: the server's doing, or this host's.
pub(crate) fn failure(error: &Error) -> Failure {
    match spoken(error) {
        Some(words) => Failure::There(words.to_owned()),
        None => Failure::Here(format!("this host cannot probe: {error}")),
    }
}

/// What the server or the network did; `None`: nothing, it is this host.
pub(crate) fn spoken(error: &Error) -> Option<&'static str> {
    Some(match error.kind() {
        ErrorKind::ConnectionRefused => "connection refused",
        ErrorKind::ConnectionReset => "connection reset",
        ErrorKind::ConnectionAborted | ErrorKind::BrokenPipe | ErrorKind::UnexpectedEof => {
            "it ended the connection before its answer"
        }
        ErrorKind::HostUnreachable => "no route to it",
        ErrorKind::NetworkUnreachable => "its network cannot be reached",
        ErrorKind::TimedOut => "no answer",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_this_host_lacks_says_nothing_of_the_server() {
        for lacks in [libc::EMFILE, libc::ENOBUFS, libc::EADDRNOTAVAIL, libc::EPERM] {
            let error = Error::from_raw_os_error(lacks);
            assert!(matches!(failure(&error), Failure::Here(_)), "{lacks}");
        }
        for says in [libc::ECONNREFUSED, libc::EHOSTUNREACH, libc::ETIMEDOUT, libc::EPIPE] {
            let error = Error::from_raw_os_error(says);
            assert!(matches!(failure(&error), Failure::There(_)), "{says}");
        }
    }
}
