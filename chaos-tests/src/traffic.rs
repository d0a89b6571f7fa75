//! Real servers that say who they are, and clients that notice whose connection they
//! have, and whether it lives.

use crate::command::within;
use crate::net::{Lab, enter};
use anyhow::{Context, Result, bail};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::oneshot;

/// A connection that says nothing for so long is lost: TCP tried again several times.
const SILENCE: Duration = Duration::from_secs(30);
/// A new one that is not there by then will not be.
const CONNECT: Duration = Duration::from_secs(5);
/// A datagram may be lost; so many in a row are not.
const DATAGRAMS: u32 = 20;
const DATAGRAM_ANSWER: Duration = Duration::from_millis(250);
/// Longest word and longest name.
const WORD: usize = 64;
const QUESTION: &[u8] = b"who?";
/// Bytes that a server pushes at a time, and how often.
const PUSHED: usize = 16;
const PUSHES: Duration = Duration::from_millis(10);
/// The same in bulk: more than a segment that is left to the device.
const BULK: usize = 128 << 10;

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
            while let Ok(length @ 1..) = stream.read(&mut word).await {
                let answered = match &word[..length] {
                    b"push" => push(&mut stream, &name).await,
                    b"bulk" => bulk(&mut stream, &name).await,
                    _ => stream.write_all(name.as_bytes()).await,
                };
                if answered.is_err() {
                    return;
                }
            }
        });
    }
}

/// One word after the other, none of them asked for.
async fn push(stream: &mut tokio::net::TcpStream, name: &str) -> std::io::Result<()> {
    let word = named(name, PUSHED);
    loop {
        stream.write_all(&word).await?;
        tokio::time::sleep(PUSHES).await;
    }
}

/// A lot, in segments as large as they can be.
async fn bulk(stream: &mut tokio::net::TcpStream, name: &str) -> std::io::Result<()> {
    let words = named(name, PUSHED).repeat(BULK / PUSHED);
    loop {
        stream.write_all(&words).await?;
        tokio::time::sleep(PUSHES).await;
    }
}

/// A name, filled up to so many bytes.
fn named(name: &str, length: usize) -> Vec<u8> {
    let mut word = name.as_bytes().to_vec();
    word.resize(length, b' ');
    word
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
    stream.write_all(QUESTION)?;
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

/// What a server sends of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// A word now and then.
    Push,
    /// A lot.
    Bulk,
}

/// Connections on which servers speak all the while.
#[derive(Debug)]
pub struct Streams {
    streams: Vec<TcpStream>,
    readers: Vec<JoinHandle<Result<()>>>,
    /// Words of each that were as they should be.
    heard: Arc<Vec<AtomicU64>>,
}

impl Streams {
    /// Opens so many, from a host.
    ///
    /// # Errors
    /// One of them does not come about.
    pub fn open(
        lab: &Lab,
        host: &str,
        to: SocketAddr,
        (kind, count): (Stream, usize),
    ) -> Result<Self> {
        let word: &[u8] = if kind == Stream::Push { b"push" } else { b"bulk" };
        let streams = inside(lab, host, move || {
            let open = |_| {
                let mut stream = TcpStream::connect_timeout(&to, CONNECT)?;
                stream.set_read_timeout(Some(SILENCE))?;
                stream.write_all(word)?;
                Ok(stream)
            };
            (0..count).map(open).collect::<Result<Vec<_>>>()
        })?;
        let heard = Arc::new((0..count).map(|_| AtomicU64::new(0)).collect::<Vec<_>>());
        let mut readers = vec![];
        for (number, stream) in streams.iter().enumerate() {
            let (mut stream, heard) = (stream.try_clone()?, heard.clone());
            readers.push(std::thread::spawn(move || {
                let mut first = [0; PUSHED];
                stream.read_exact(&mut first)?;
                let mut word = first;
                while word == first {
                    heard[number].fetch_add(1, Ordering::Relaxed);
                    stream.read_exact(&mut word)?;
                }
                bail!("something else came")
            }));
        }
        Ok(Self { streams, readers, heard })
    }

    /// How many do not go on.
    #[must_use]
    pub fn lost(&self) -> usize {
        let before: Vec<u64> = self.heard.iter().map(|one| one.load(Ordering::Relaxed)).collect();
        let stands = || {
            let pairs = self.heard.iter().zip(&before);
            pairs.filter(|(now, before)| now.load(Ordering::Relaxed) == **before).count()
        };
        let _ = within(SILENCE, || (stands() == 0).then_some(()));
        stands()
    }
}

impl Drop for Streams {
    fn drop(&mut self) {
        for stream in &self.streams {
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
        for reader in self.readers.drain(..) {
            let _ = reader.join();
        }
    }
}

/// A client's UDP flows, each with whom it has.
#[derive(Debug)]
pub struct Flows(Vec<(UdpSocket, String)>);

fn ask_by_datagram(socket: &UdpSocket, question: &[u8]) -> Result<String> {
    let mut name = [0; WORD];
    for _ in 0..DATAGRAMS {
        socket.send(question)?;
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
        Self::open_with(lab, host, to, (count, QUESTION.len()))
    }

    /// The same with datagrams of so many bytes: they may be sent in parts.
    ///
    /// # Errors
    /// Nobody answers one.
    pub fn open_with(
        lab: &Lab,
        host: &str,
        to: SocketAddr,
        (count, bytes): (usize, usize),
    ) -> Result<Self> {
        inside(lab, host, move || {
            let question = QUESTION.repeat(bytes.div_ceil(QUESTION.len()));
            let any: SocketAddr =
                if to.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0u16; 8], 0).into() };
            let open = |_| {
                let socket = UdpSocket::bind(any)?;
                socket.connect(to)?;
                socket.set_read_timeout(Some(DATAGRAM_ANSWER))?;
                let name = ask_by_datagram(&socket, &question)?;
                Ok((socket, name))
            };
            Ok(Self((0..count).map(open).collect::<Result<_>>()?))
        })
    }

    /// Speaks on every one of them. Returns how many are lost, or somebody else's by now.
    #[must_use]
    pub fn lost(&self) -> usize {
        let lives = |(socket, name): &&(UdpSocket, String)| {
            ask_by_datagram(socket, QUESTION).is_ok_and(|now| now == *name)
        };
        self.0.iter().filter(|one| !lives(one)).count()
    }
}

/// Between two datagrams of a [`Patter`].
const PATTER: Duration = Duration::from_micros(200);
/// An answer that did not come by then was lost.
const STRAGGLERS: Duration = Duration::from_secs(1);

/// A client that sends datagrams without a pause, and counts the answers.
#[derive(Debug)]
pub struct Patter {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<(u64, u64)>>,
}

impl Patter {
    /// Begins, from a host.
    ///
    /// # Errors
    /// There is no socket.
    pub fn start(lab: &Lab, host: &str, to: SocketAddr) -> Result<Self> {
        let socket = inside(lab, host, move || {
            let socket = UdpSocket::bind("0.0.0.0:0")?;
            socket.connect(to)?;
            socket.set_nonblocking(true)?;
            Ok(socket)
        })?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            let mut name = [0; WORD];
            let (mut sent, mut answered) = (0, 0);
            let begun = Instant::now();
            while !stopped.load(Ordering::Relaxed) {
                // As many as are due: a busy machine sends them a little later.
                while u128::from(sent) * PATTER.as_micros() <= begun.elapsed().as_micros() {
                    socket.send(QUESTION)?;
                    sent += 1;
                }
                while socket.recv(&mut name).is_ok() {
                    answered += 1;
                }
                std::thread::sleep(PATTER);
            }
            let _ = within(STRAGGLERS, || {
                while socket.recv(&mut name).is_ok() {
                    answered += 1;
                }
                (answered == sent).then_some(())
            });
            Ok((sent, answered))
        });
        Ok(Self { stop, thread })
    }

    /// Ends. Returns how many were sent, and how many of them answered.
    ///
    /// # Errors
    /// One could not be sent.
    pub fn finish(self) -> Result<(u64, u64)> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| anyhow::anyhow!("it panicked"))?
    }
}
