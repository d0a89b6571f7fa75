//! Strangers: a host with many addresses and nothing but the members' port,
//! that does all at once what costs a server most.

use crate::grpc::call;
use crate::net::Lab;
use anyhow::{Context, Result, anyhow};
use bytes::Bytes;
use h2::client::SendRequest;
use http::Request;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

/// Addresses of the host, each an origin of its own.
const ADDRESSES: std::ops::Range<u8> = 150..170;
/// Connections that say nothing, per target.
const SILENT: usize = 300;
/// What a connection may take before another is tried.
const LIMIT: Duration = Duration::from_secs(5);
/// Requests at a time on one connection.
const STREAMS: usize = 60;
/// A message that says it is so long and never ends.
const UNFINISHED: usize = 4 << 20;

/// What came of it.
#[derive(Debug, Default)]
pub struct Counts {
    /// TCP connections.
    pub connections: AtomicU64,
    /// TLS handshakes that a target finished.
    pub handshakes: AtomicU64,
    /// Requests begun.
    pub requests: AtomicU64,
}

/// Runs until it is dropped.
pub struct Strangers {
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<Result<()>>>,
    counts: Arc<Counts>,
}

/// Believes whoever answers.
#[derive(Debug)]
struct Anybody(Arc<rustls::crypto::CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// For one protocol, and whoever answers.
pub(crate) fn tls(protocol: &[u8]) -> Result<Arc<ClientConfig>> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody(provider)))
        .with_no_client_auth();
    config.alpn_protocols = vec![protocol.to_vec()];
    Ok(Arc::new(config))
}

type Tls = tokio_rustls::client::TlsStream<TcpStream>;

/// One of them: where it speaks from, whom it bothers.
#[derive(Clone)]
struct Stranger {
    from: IpAddr,
    to: SocketAddr,
    tls: Arc<ClientConfig>,
    unfinished: Bytes,
    counts: Arc<Counts>,
}

impl Stranger {
    async fn tcp(&self) -> Result<TcpStream> {
        let socket = TcpSocket::new_v4()?;
        socket.bind((self.from, 0).into())?;
        let stream = timeout(LIMIT, socket.connect(self.to)).await??;
        self.counts.connections.fetch_add(1, Ordering::Relaxed);
        Ok(stream)
    }

    async fn tls(&self) -> Result<Tls> {
        let name = ServerName::try_from("node.invalid")?;
        let connector = tokio_rustls::TlsConnector::from(self.tls.clone());
        let stream = timeout(LIMIT, connector.connect(name, self.tcp().await?)).await??;
        self.counts.handshakes.fetch_add(1, Ordering::Relaxed);
        Ok(stream)
    }

    async fn http(&self) -> Result<SendRequest<Bytes>> {
        let (requests, connection) =
            timeout(LIMIT, h2::client::handshake(self.tls().await?)).await??;
        tokio::spawn(async move {
            let _ = connection.await;
        });
        Ok(requests)
    }

    /// Says nothing, on as many connections as there are places to be had.
    async fn be_silent(self, share: usize) -> Result<()> {
        let mut held = VecDeque::new();
        loop {
            if let Ok(stream) = self.tcp().await {
                held.push_back(stream);
            }
            if held.len() > share {
                held.pop_front();
            }
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Begins requests to join that it never ends.
    async fn begin(self) -> Result<()> {
        loop {
            let _ = timeout(LIMIT, self.begin_once()).await;
            sleep(Duration::from_millis(50)).await;
        }
    }

    async fn begin_once(&self) -> Result<()> {
        let mut requests = self.http().await?;
        let mut bodies = vec![];
        for _ in 0..STREAMS {
            requests = timeout(Duration::from_millis(200), requests.ready()).await??;
            let (_, mut body) = requests.send_request(join()?, false)?;
            self.counts.requests.fetch_add(1, Ordering::Relaxed);
            body.send_data(self.unfinished.clone(), false)?;
            bodies.push(body);
        }
        std::future::pending().await
    }

    /// Asks to join with a name that fills a megabyte.
    async fn ask(self) -> Result<()> {
        loop {
            let _ = timeout(LIMIT, self.ask_once()).await;
            sleep(Duration::from_millis(100)).await;
        }
    }

    async fn ask_once(&self) -> Result<()> {
        let mut requests = self.http().await?.ready().await?;
        let (reply, mut body) = requests.send_request(join()?, false)?;
        self.counts.requests.fetch_add(1, Ordering::Relaxed);
        let length = 1 << 20;
        // Field 2, a text, and its length as a varint of three bytes.
        let mut message = vec![0, 0, 16, 0, 4, 0x12, 0x80, 0x80, 0x40];
        message.resize(9 + length, b'x');
        body.send_data(message.into(), true)?;
        reply.await.map(|_| ()).map_err(Into::into)
    }

    /// Makes the other side prove who it is, and goes.
    async fn shake_hands(self) -> Result<()> {
        loop {
            let _ = self.tls().await;
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Speaks no protocol that there is.
    async fn babble(self) -> Result<()> {
        loop {
            if let Ok(mut stream) = self.tcp().await {
                let noise: Vec<u8> =
                    std::iter::repeat_with(|| fastrand::u8(..)).take(2000).collect();
                let _ = stream.write_all(&noise).await;
            }
            sleep(Duration::from_millis(20)).await;
        }
    }
}

fn join() -> Result<Request<()>> {
    Ok(call("vip.v1.Cluster/Join").body(())?)
}

async fn run(targets: Vec<SocketAddr>, counts: Arc<Counts>) -> Result<()> {
    let tls = tls(b"h2")?;
    let mut unfinished = vec![0];
    unfinished.extend_from_slice(&u32::try_from(UNFINISHED)?.to_be_bytes());
    unfinished.resize(UNFINISHED / 2, b'x');
    let unfinished = Bytes::from(unfinished);
    let mut tasks = tokio::task::JoinSet::new();
    for to in targets {
        for (number, last) in ADDRESSES.enumerate() {
            let from = IpAddr::from([10, 77, 0, last]);
            let (tls, unfinished, counts) = (tls.clone(), unfinished.clone(), counts.clone());
            let one = Stranger { from, to, tls, unfinished, counts };
            tasks.spawn(one.clone().be_silent(SILENT / ADDRESSES.len()));
            match number % 5 {
                0 | 1 => tasks.spawn(one.begin()),
                2 => tasks.spawn(one.ask()),
                3 => tasks.spawn(one.shake_hands()),
                _ => tasks.spawn(one.babble()),
            };
        }
    }
    match tasks.join_next().await {
        Some(ended) => ended?,
        None => Ok(()),
    }
}

impl Strangers {
    /// Begins, from a host of the lab.
    ///
    /// # Errors
    /// The host takes no more addresses, or there is no thread.
    pub fn start(lab: &Lab, host: &str, targets: Vec<SocketAddr>) -> Result<Self> {
        for last in ADDRESSES {
            lab.ip(host, &["address", "add", &format!("10.77.0.{last}/24"), "dev", "eth0"])?;
        }
        let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
        setrlimit(Resource::RLIMIT_NOFILE, most, most)?;
        let (stop, mut stopped) = watch::channel(false);
        let counts = Arc::new(Counts::default());
        let (namespace, counted) = (lab.namespace(host), counts.clone());
        let work = move || {
            crate::net::enter(&namespace)?;
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                tokio::select! {
                    ended = run(targets, counted) => ended,
                    _ = stopped.changed() => Ok(()),
                }
            })
        };
        let thread = std::thread::Builder::new().name("strangers".into()).spawn(work)?;
        Ok(Self { stop, thread: Some(thread), counts })
    }

    /// What came of it so far.
    #[must_use]
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Ends them.
    ///
    /// # Errors
    /// They ended before.
    pub fn finish(mut self) -> Result<()> {
        let _ = self.stop.send(true);
        let thread = self.thread.take().context("ended already")?;
        thread.join().map_err(|_| anyhow!("the strangers panicked"))?
    }
}

impl Drop for Strangers {
    fn drop(&mut self) {
        let _ = self.stop.send(true);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
