//! Connections: dialling with TLS, accepting with TLS, and cutting those of a
//! node that was removed.

use crate::names::Identity;
use crate::roster::SharedRoster;
use crate::verify::{leaf_identity, leaf_role};
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, ServerConfig};
use rustls_pki_types::ServerName;
use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::transport::server::Connected;
use tonic::transport::{Channel, Endpoint, Uri};
use tower::service_fn;
use vip_core::{NodeId, Role, Speaker};

/// A handshake that takes longer is not one.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// An idle connection is tried this often, and given up when it does not
/// answer for as long: a vote must not be the first to find out that its peer
/// was restarted meanwhile.
const KEEP_ALIVE: Duration = Duration::from_millis(500);

/// Why a connection could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// No TCP connection.
    #[error("cannot connect to {address}")]
    Tcp {
        /// Where.
        address: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// No TLS on it.
    #[error("{address} did not prove to be who it should be")]
    Tls {
        /// Where.
        address: String,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// How to reach one server.
#[derive(Clone)]
pub struct Connector {
    /// `address:port`.
    pub address: String,
    /// Name that its certificate must have.
    pub server_name: String,
    /// TLS.
    pub config: Arc<ClientConfig>,
    /// Time for TCP and TLS each.
    pub timeout: Duration,
    /// How long sent data may stay unacknowledged before the connection is
    /// given up (RFC 5482), so that a healed path is used at once rather than
    /// after TCP's next retransmission.
    pub unacknowledged: Duration,
}

fn endpoint() -> Endpoint {
    Endpoint::from_static("http://vipd.invalid")
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE)
        .keep_alive_while_idle(true)
}

impl Connector {
    async fn connect(&self) -> Result<tokio_rustls::client::TlsStream<TcpStream>, ConnectError> {
        let address = || self.address.clone();
        let tcp = |source| ConnectError::Tcp { address: address(), source };
        let tls = |source| ConnectError::Tls { address: address(), source };
        let late = |_| io::Error::from(io::ErrorKind::TimedOut);
        let stream = tokio::time::timeout(self.timeout, TcpStream::connect(&self.address))
            .await
            .map_err(late)
            .flatten()
            .map_err(tcp)?;
        stream.set_nodelay(true).map_err(tcp)?;
        let socket = socket2::SockRef::from(&stream);
        socket.set_tcp_user_timeout(Some(self.unacknowledged)).map_err(tcp)?;
        let name = ServerName::try_from(self.server_name.clone())
            .map_err(|e| tls(io::Error::new(io::ErrorKind::InvalidInput, e)))?;
        let handshake = TlsConnector::from(self.config.clone()).connect(name, stream);
        tokio::time::timeout(self.timeout, handshake).await.map_err(late).flatten().map_err(tls)
    }

    /// A gRPC channel that connects when it is used, and again when it broke.
    #[must_use]
    pub fn channel(self) -> Channel {
        let endpoint = endpoint();
        endpoint.connect_with_connector_lazy(service_fn(move |_: Uri| {
            let this = self.clone();
            async move { this.connect().await.map(TokioIo::new) }
        }))
    }

    /// A gRPC channel that is connected.
    ///
    /// # Errors
    /// [`ConnectError`].
    pub async fn connected_channel(self) -> Result<Channel, ConnectError> {
        let mut first = Some(self.connect().await?);
        let address = self.address.clone();
        let endpoint = endpoint();
        let connector = service_fn(move |_: Uri| {
            let (this, first) = (self.clone(), first.take());
            async move {
                match first {
                    Some(stream) => Ok(TokioIo::new(stream)),
                    None => this.connect().await.map(TokioIo::new),
                }
            }
        });
        endpoint
            .connect_with_connector(connector)
            .await
            .map_err(|e| ConnectError::Tls { address, source: io::Error::other(e) })
    }
}

/// A channel to a server outside our trust yet, as a joiner or a person has
/// it: the configuration pins the root.
///
/// # Errors
/// [`ConnectError`].
pub async fn pinned_channel(
    address: &str,
    config: Arc<ClientConfig>,
    timeout: Duration,
) -> Result<Channel, ConnectError> {
    let connector = Connector {
        address: address.to_owned(),
        // Any node of the pinned cluster will do.
        server_name: "node.invalid".into(),
        config,
        timeout,
        unacknowledged: HANDSHAKE_TIMEOUT,
    };
    connector.connected_channel().await
}

/// The connections that others made to this node.
#[derive(Clone, Default)]
pub struct Connections(Arc<Mutex<Registry>>);

#[derive(Default)]
struct Registry {
    next: u64,
    open: BTreeMap<u64, (Identity, CancellationToken)>,
}

impl Connections {
    fn enter(&self, identity: Identity) -> (u64, CancellationToken) {
        let mut registry = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        registry.next += 1;
        let (id, token) = (registry.next, CancellationToken::new());
        registry.open.insert(id, (identity, token.clone()));
        (id, token)
    }

    fn leave(&self, id: u64) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).open.remove(&id);
    }

    /// Cuts every connection of a node.
    pub fn cut(&self, node: NodeId) {
        let registry = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (identity, token) in registry.open.values() {
            if *identity == Identity::Node(node) {
                token.cancel();
            }
        }
    }
}

/// An accepted connection of a known peer. Reads and writes fail once it was
/// cut.
pub struct PeerStream {
    stream: tokio_rustls::server::TlsStream<TcpStream>,
    identity: Identity,
    role: Option<Role>,
    address: SocketAddr,
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
    id: u64,
    connections: Connections,
}

/// Does the TLS handshake on an accepted connection. Whose certificate it saw
/// is in the stream's connect info.
///
/// # Errors
/// The handshake failed or took too long.
pub async fn accept(
    stream: TcpStream,
    address: SocketAddr,
    config: Arc<ServerConfig>,
    roster: &SharedRoster,
    connections: &Connections,
) -> io::Result<PeerStream> {
    stream.set_nodelay(true)?;
    let handshake = TlsAcceptor::from(config).accept(stream);
    let stream = tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake).await??;
    let leaf = stream.get_ref().1.peer_certificates().and_then(|c| c.first());
    let role = leaf.and_then(leaf_role);
    let identity = match leaf {
        None => Identity::Anonymous,
        Some(leaf) => leaf_identity(leaf, roster.load().cluster())
            .ok_or_else(|| io::Error::from(io::ErrorKind::PermissionDenied))?,
    };
    let (id, token) = connections.enter(identity.clone());
    let cut = Box::pin(token.clone().cancelled_owned());
    // It may have been removed between its handshake and its entry here.
    if let Identity::Node(node) = identity
        && roster.load().removed().contains(&node)
    {
        token.cancel();
    }
    let connections = connections.clone();
    Ok(PeerStream { stream, identity, role, address, cut, id, connections })
}

impl PeerStream {
    /// The protocol that the two sides agreed on.
    #[must_use]
    pub fn alpn(&self) -> Option<&[u8]> {
        self.stream.get_ref().1.alpn_protocol()
    }

    fn check(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        match self.cut.as_mut().poll(context) {
            Poll::Ready(()) => Err(io::ErrorKind::ConnectionAborted.into()),
            Poll::Pending => Ok(()),
        }
    }
}

impl Drop for PeerStream {
    fn drop(&mut self) {
        self.connections.leave(self.id);
    }
}

/// Who made a connection; in the extensions of each of its requests.
#[derive(Clone, Debug)]
pub struct PeerInfo {
    /// Who.
    pub identity: Identity,
    /// Of a member, what its certificate says it is.
    pub role: Option<Role>,
    /// From where.
    pub address: SocketAddr,
}

impl PeerInfo {
    /// The member that speaks, if it is one.
    #[must_use]
    pub fn speaker(&self) -> Option<Speaker> {
        match self.identity {
            Identity::Node(node) => Some(Speaker { node, role: self.role }),
            _ => None,
        }
    }
}

impl Connected for PeerStream {
    type ConnectInfo = PeerInfo;
    fn connect_info(&self) -> PeerInfo {
        PeerInfo { identity: self.identity.clone(), role: self.role, address: self.address }
    }
}

impl AsyncRead for PeerStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check(context)?;
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for PeerStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.check(context)?;
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
