//! Real servers that say who they are, and clients that notice whose connection they
//! have, and whether it lives.

use crate::net::{Lab, enter};
use anyhow::{Context, Result, bail};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::oneshot;

/// A connection that says nothing for so long is lost: TCP tried again several times.
const SILENCE: Duration = Duration::from_secs(15);
/// A new one that is not there by then will not be.
const CONNECT: Duration = Duration::from_secs(5);
/// A datagram may be lost; so many in a row are not.
const DATAGRAMS: u32 = 20;
const DATAGRAM_ANSWER: Duration = Duration::from_millis(250);
/// Longest word and longest name.
const WORD: usize = 64;

/// A server in a host's namespace, that answers whatever it is told with its host's name;
/// by TCP and UDP.
#[derive(Debug)]
pub struct RealServer {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl RealServer {
    /// Starts one.
    ///
    /// # Errors
    /// It cannot listen there.
    pub fn start(lab: &Lab, host: &str, at: SocketAddr) -> Result<Self> {
        let (namespace, name) = (lab.namespace(host), host.to_owned());
        let (stop, stopped) = oneshot::channel::<()>();
        let (ready, is_ready) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            let served = || -> Result<()> {
                enter(&namespace)?;
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
                runtime.block_on(async {
                    let listener = TcpListener::bind(at).await?;
                    let datagrams = tokio::net::UdpSocket::bind(at).await?;
                    let _ = ready.send(());
                    tokio::select! {
                        _ = stopped => {}
                        result = serve(&listener, &name) => result?,
                        result = serve_datagrams(&datagrams, &name) => result?,
                    }
                    Ok(())
                })
            };
            if let Err(error) = served() {
                eprintln!("{name}: {error:#}");
            }
        });
        is_ready.recv().with_context(|| format!("{host} does not listen on {at}"))?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for RealServer {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn serve(listener: &TcpListener, name: &str) -> Result<()> {
    loop {
        let (mut stream, _) = listener.accept().await?;
        let name = name.to_owned();
        tokio::spawn(async move {
            let mut word = [0; WORD];
            while let Ok(1..) = stream.read(&mut word).await {
                if stream.write_all(name.as_bytes()).await.is_err() {
                    return;
                }
            }
        });
    }
}

async fn serve_datagrams(socket: &tokio::net::UdpSocket, name: &str) -> Result<()> {
    let mut word = [0; WORD];
    loop {
        let (_, from) = socket.recv_from(&mut word).await?;
        socket.send_to(name.as_bytes(), from).await?;
    }
}

/// Does something inside a host's namespace.
fn inside<T: Send + 'static>(
    lab: &Lab,
    host: &str,
    act: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let namespace = lab.namespace(host);
    let thread = std::thread::spawn(move || {
        enter(&namespace)?;
        act()
    });
    thread.join().map_err(|_| anyhow::anyhow!("it panicked"))?
}

/// Says something and returns who answered.
fn ask(stream: &mut TcpStream) -> Result<String> {
    stream.write_all(b"who?")?;
    let mut name = [0; WORD];
    match stream.read(&mut name)? {
        0 => bail!("the connection was closed"),
        length => Ok(String::from_utf8_lossy(&name[..length]).into_owned()),
    }
}

/// A client's connections, each with whom it has.
#[derive(Debug)]
pub struct Connections(Vec<(TcpStream, String)>);

impl Connections {
    /// Opens so many, from a host.
    ///
    /// # Errors
    /// One of them does not come about, or nobody answers.
    pub fn open(lab: &Lab, host: &str, to: SocketAddr, count: usize) -> Result<Self> {
        inside(lab, host, move || {
            let mut all = vec![];
            for number in 0..count {
                let opened = || {
                    let mut stream = TcpStream::connect_timeout(&to, CONNECT)?;
                    stream.set_read_timeout(Some(SILENCE))?;
                    let name = ask(&mut stream)?;
                    Ok((stream, name))
                };
                let opened: Result<_> = opened();
                all.push(opened.with_context(|| format!("connection {number} to {to}"))?);
            }
            Ok(Self(all))
        })
    }

    /// How many each real server has.
    #[must_use]
    pub fn of_each(&self) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for (_, name) in &self.0 {
            *counts.entry(name.clone()).or_default() += 1;
        }
        counts
    }

    /// Speaks on every one of them. Returns how many are lost, or somebody else's by now.
    pub fn lost(&mut self) -> usize {
        let lives =
            |(stream, name): &mut (TcpStream, String)| ask(stream).is_ok_and(|now| now == *name);
        self.0.iter_mut().map(lives).filter(|lives| !lives).count()
    }

    /// Ends those of a real server; returns how many.
    pub fn end_those_of(&mut self, name: &str) -> usize {
        let before = self.0.len();
        self.0.retain(|(_, of)| of != name);
        before - self.0.len()
    }
}

/// A client's UDP flows, each with whom it has.
#[derive(Debug)]
pub struct Flows(Vec<(UdpSocket, String)>);

fn ask_by_datagram(socket: &UdpSocket) -> Result<String> {
    let mut name = [0; WORD];
    for _ in 0..DATAGRAMS {
        socket.send(b"who?")?;
        if let Ok(length) = socket.recv(&mut name) {
            return Ok(String::from_utf8_lossy(&name[..length]).into_owned());
        }
    }
    bail!("nobody answers")
}

impl Flows {
    /// Begins so many, from a host.
    ///
    /// # Errors
    /// Nobody answers one.
    pub fn open(lab: &Lab, host: &str, to: SocketAddr, count: usize) -> Result<Self> {
        inside(lab, host, move || {
            let any: SocketAddr =
                if to.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0u16; 8], 0).into() };
            let open = |_| {
                let socket = UdpSocket::bind(any)?;
                socket.connect(to)?;
                socket.set_read_timeout(Some(DATAGRAM_ANSWER))?;
                let name = ask_by_datagram(&socket)?;
                Ok((socket, name))
            };
            Ok(Self((0..count).map(open).collect::<Result<_>>()?))
        })
    }

    /// Speaks on every one of them. Returns how many are lost, or somebody else's by now.
    #[must_use]
    pub fn lost(&self) -> usize {
        let lives = |(socket, name): &&(UdpSocket, String)| {
            ask_by_datagram(socket).is_ok_and(|now| now == *name)
        };
        self.0.iter().filter(|one| !lives(one)).count()
    }
}
