//! Requests by HTTP, each on a connection of its own, from any host.

use crate::net::Lab;
use anyhow::{Context, Result, anyhow};
use socket2::{Domain, Socket, Type};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Whoever takes longer does not answer.
const ANSWER: Duration = Duration::from_secs(2);
const MAX_ANSWER: u64 = 64 << 10;

/// What was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    pub status: u16,
    /// Lines of the header, in small letters.
    pub header: Vec<String>,
    pub body: String,
}

/// Connects from a host.
///
/// # Errors
/// Nobody listens, or answers.
pub fn connect(lab: &Lab, from: &str, at: SocketAddr) -> Result<TcpStream> {
    let connected = std::thread::scope(|scope| {
        let client = scope.spawn(|| -> Result<TcpStream> {
            lab.enter(from)?;
            let socket = Socket::new(Domain::for_address(at), Type::STREAM, None)?;
            socket.set_read_timeout(Some(ANSWER))?;
            socket.connect_timeout(&at.into(), ANSWER)?;
            Ok(socket.into())
        });
        client.join()
    });
    connected.map_err(|_| anyhow!("the client panicked"))?
}

impl Asked {
    /// Asks for a path.
    ///
    /// # Errors
    /// Nothing comes that is an answer.
    pub fn by(lab: &Lab, from: &str, at: SocketAddr, method: &str, path: &str) -> Result<Self> {
        // Who is asked is to end the connection without being told.
        Self::with(connect(lab, from, at)?, &format!("{method} {path}"), "Host: vipd")
    }

    /// Asks for a path by somebody who would keep the connection.
    ///
    /// # Errors
    /// Nothing comes that is an answer.
    pub fn through(lab: &Lab, from: &str, at: SocketAddr, path: &str) -> Result<Self> {
        let lines = "Host: vipd\r\nConnection: close";
        Self::with(connect(lab, from, at)?, &format!("GET {path}"), lines)
    }

    fn with(mut stream: TcpStream, what: &str, lines: &str) -> Result<Self> {
        write!(stream, "{what} HTTP/1.1\r\n{lines}\r\n\r\n")?;
        Self::read(stream)
    }

    /// What comes, until the other side ends.
    ///
    /// # Errors
    /// It does not, or is no answer.
    pub fn read(stream: TcpStream) -> Result<Self> {
        let mut text = String::new();
        stream.take(MAX_ANSWER).read_to_string(&mut text)?;
        let (head, body) = text.split_once("\r\n\r\n").with_context(|| format!("{text:?}"))?;
        let mut lines = head.lines().map(str::to_lowercase);
        let first = lines.next().unwrap_or_default();
        let status = first.split(' ').nth(1).and_then(|status| status.parse().ok());
        let status = status.with_context(|| first.clone())?;
        Ok(Self { status, header: lines.collect(), body: body.to_owned() })
    }

    /// What a line of the header says.
    #[must_use]
    pub fn says(&self, name: &str) -> Option<&str> {
        let prefix = format!("{name}: ");
        self.header.iter().find_map(|line| line.strip_prefix(&prefix))
    }
}
