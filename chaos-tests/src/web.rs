//! A client of pages, and of names.

use crate::net::Lab;
use crate::strangers::tls;
use anyhow::{Context, Result, ensure};
use rustls::pki_types::ServerName;
use socket2::{Domain, Socket, Type};
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Duration;

/// Whoever takes longer does not answer.
const ANSWER: Duration = Duration::from_secs(2);
/// A page is a name.
const MAX_PAGE: u64 = 4096;

/// A page that a client asks for, each time on a connection of its own.
#[derive(Clone, Copy, Debug)]
pub struct Page {
    pub at: SocketAddr,
    pub by_tls: bool,
    /// One of the client's addresses.
    pub from: IpAddr,
}

impl Page {
    /// Asks for it once, as the client in its namespace.
    ///
    /// # Errors
    /// It does not come.
    pub fn get(&self, lab: &Lab) -> Result<String> {
        let got = std::thread::scope(|scope| {
            let client = scope.spawn(|| {
                lab.enter("client")?;
                self.ask()
            });
            client.join()
        });
        got.map_err(|_| anyhow::anyhow!("the client panicked"))?
    }

    fn ask(&self) -> Result<String> {
        let socket = Socket::new(Domain::for_address(self.at), Type::STREAM, None)?;
        socket.bind(&SocketAddr::new(self.from, 0).into())?;
        socket.set_read_timeout(Some(ANSWER))?;
        socket.connect_timeout(&self.at.into(), ANSWER)?;
        let mut stream = std::net::TcpStream::from(socket);
        if self.by_tls {
            let name = ServerName::from(self.at.ip());
            let mut tls = rustls::ClientConnection::new(tls(b"http/1.1")?, name)?;
            page(rustls::Stream::new(&mut tls, &mut stream))
        } else {
            page(stream)
        }
    }
}

fn page(mut stream: impl Read + Write) -> Result<String> {
    stream.write_all(b"GET / HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n")?;
    let mut reply = String::new();
    stream.take(MAX_PAGE).read_to_string(&mut reply)?;
    let (head, body) = reply.split_once("\r\n\r\n").context("no page")?;
    ensure!(head.starts_with("HTTP/1.1 200"), "{head}");
    Ok(body.to_owned())
}

/// Asks a server of names for an address of a name (RFC 1035), as the client in its
/// namespace.
///
/// # Errors
/// It does not answer, or has none.
pub fn resolve(lab: &Lab, server: SocketAddr, name: &str) -> Result<Ipv4Addr> {
    let ask = || -> Result<Ipv4Addr> {
        lab.enter("client")?;
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.set_read_timeout(Some(ANSWER))?;
        socket.connect(server)?;
        // One question, of class IN and type A.
        let mut question = vec![7, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        for label in name.split('.') {
            question.push(u8::try_from(label.len())?);
            question.extend_from_slice(label.as_bytes());
        }
        question.extend_from_slice(&[0, 0, 1, 0, 1]);
        socket.send(&question)?;
        let mut reply = [0; 512];
        let length = socket.recv(&mut reply)?;
        let reply = &reply[..length];
        ensure!(reply.starts_with(&[7, 7]) && reply[3] & 15 == 0, "it answers {reply:?}");
        let last: [u8; 4] = reply.last_chunk().copied().context("no answer")?;
        ensure!(reply[7] == 1, "it has no address");
        Ok(last.into())
    };
    let asked = std::thread::scope(|scope| scope.spawn(ask).join());
    asked.map_err(|_| anyhow::anyhow!("the client panicked"))?
}
