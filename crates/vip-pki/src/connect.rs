//! Connections: dialling with TLS, accepting with TLS, and cutting those of a
//! node that was removed.

use crate::ca::spki_hash;
use crate::leaf::{leaf_identity, leaf_role};
use crate::names::Identity;
use crate::newcomers::CATCH_UP;
use crate::places::{Limits, Place, Places, origin};
use crate::roster::{Roster, SharedRoster};
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, ServerConfig};
use rustls_pki_types::ServerName;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tokio_util::sync::CancellationToken;
use tonic::transport::server::Connected;
use tonic::transport::{Channel, Endpoint, Uri};
use tower::service_fn;
use vip_core::{Name, NodeId, Protocols, Role, Speaker};

/// An idle connection is tried this often, and given up when it does not
/// answer for as long: a vote must not be the first to find out that its peer
/// was restarted meanwhile.
const KEEP_ALIVE: Duration = Duration::from_millis(500);

/// As [`Connector::unacknowledged`], for one command or join.
const PINNED_UNACKNOWLEDGED: Duration = Duration::from_secs(5);

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

/// What went wrong with TLS, for people: the library says it in its own types.
fn in_words(error: io::Error) -> io::Error {
    use rustls::{CertificateError as C, Error as E};
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<E>());
    let text = match inner {
        Some(E::InvalidCertificate(C::Other(other))) => vip_core::chain(&*other.0),
        Some(E::InvalidCertificate(C::NotValidForName)) => "its certificate is not a node's".into(),
        Some(E::AlertReceived(_)) => "it refused the certificate of this one".into(),
        Some(E::InvalidMessage(_)) => "what answers there does not speak TLS".into(),
        Some(E::PeerIncompatible(_)) => "it speaks another version of TLS".into(),
        _ => return error,
    };
    io::Error::new(error.kind(), text)
}

fn endpoint() -> Endpoint {
    let endpoint = Endpoint::from_static("http://vipd.invalid");
    // Printable, so it can be a header.
    let said = endpoint.clone().user_agent(Protocols::user_agent());
    said.unwrap_or(endpoint)
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE)
        .keep_alive_while_idle(true)
}

impl Connector {
    async fn connect(&self) -> Result<tokio_rustls::client::TlsStream<TcpStream>, ConnectError> {
        let address = || self.address.clone();
        let tcp = |source| ConnectError::Tcp { address: address(), source };
        let tls = |source| ConnectError::Tls { address: address(), source: in_words(source) };
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
        let config = self.config.clone();
        self.channel_with(move || config.clone())
    }

    /// The same, each time with the configuration of then: a channel may outlive
    /// the certificate that it began with.
    #[must_use]
    pub fn channel_with(
        self,
        config: impl Fn() -> Arc<ClientConfig> + Send + Sync + 'static,
    ) -> Channel {
        let endpoint = endpoint();
        endpoint.connect_with_connector_lazy(service_fn(move |_: Uri| {
            let this = Self { config: config(), ..self.clone() };
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
        unacknowledged: PINNED_UNACKNOWLEDGED,
    };
    connector.connected_channel().await
}

/// Connections of members, each: leases, Raft and relayed commands, and those
/// from before a new certificate.
const MEMBER_CONNECTIONS: Limits = Limits { all: 512, each: 16 };
/// Of people: commands, and events that are followed.
const USER_CONNECTIONS: Limits = Limits { all: 128, each: 16 };
/// Of machines that join, by where they come from.
const STRANGER_CONNECTIONS: Limits = Limits { all: 16, each: 4 };
/// How long a member whose issuer is not trusted here may take to renew its
/// certificate.
const RENEWS_WITHIN: Duration = Duration::from_secs(5);
/// How long a machine that joins may take for a request, and to be idle.
const STRANGER_STAYS: Duration = Duration::from_secs(20);

/// A node, with the issuer of its certificate. They share places.
#[derive(Clone)]
struct Member {
    node: NodeId,
    /// Empty where that was not trusted to begin with: it may renew and no more.
    issuer: String,
}

impl Member {
    /// Whether its issuer was retired since it came.
    fn ended(&self, roster: &Roster) -> bool {
        !self.issuer.is_empty() && !roster.trusts_issuer(&self.issuer)
    }
}

impl PartialEq for Member {
    fn eq(&self, other: &Self) -> bool {
        self.node == other.node
    }
}

/// A person, with the key of one of their certificates. They share places.
#[derive(Clone)]
struct Person {
    name: Name,
    key: String,
}

impl Person {
    /// Whether the login ended since.
    fn ended(&self, roster: &Roster) -> bool {
        !roster.lists_key(&self.key)
    }
}

impl PartialEq for Person {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

/// The connections that others made to this node.
#[derive(Clone)]
pub struct Connections {
    members: Arc<Places<Member>>,
    users: Arc<Places<Person>>,
    strangers: Arc<Places<IpAddr>>,
}

impl Default for Connections {
    fn default() -> Self {
        Self {
            members: Arc::new(Places::new(MEMBER_CONNECTIONS)),
            users: Arc::new(Places::new(USER_CONNECTIONS)),
            strangers: Arc::new(Places::new(STRANGER_CONNECTIONS)),
        }
    }
}

/// Held for as long as a connection is.
type Held = Box<dyn Send + Sync>;

impl Connections {
    fn enter(
        &self,
        identity: &Identity,
        from: IpAddr,
        issuer: String,
        key: String,
    ) -> (Held, CancellationToken) {
        fn held<K: Send + Sync + 'static>(place: Place<K>) -> (Held, CancellationToken) {
            let lost = place.lost();
            (Box::new(place), lost)
        }
        match identity {
            Identity::Node(node) => held(self.members.enter(Member { node: *node, issuer })),
            Identity::User { name, .. } => {
                held(self.users.enter(Person { name: name.clone(), key }))
            }
            Identity::Anonymous => held(self.strangers.enter(origin(from))),
        }
    }

    /// Cuts what rests on a certificate that is good no more: a login that ended,
    /// an issuer that was retired.
    pub fn cut_ended(&self, roster: &Roster) {
        self.users.cut(|person| person.ended(roster));
        self.members.cut(|member| member.ended(roster));
    }

    /// Cuts every connection of a node.
    pub fn cut(&self, node: NodeId) {
        self.members.cut(|member| member.node == node);
    }
}

/// An accepted connection. Reads and writes fail once it was cut.
pub struct PeerStream {
    stream: tokio_rustls::server::TlsStream<TcpStream>,
    identity: Identity,
    role: Option<Role>,
    issuer: String,
    roster: SharedRoster,
    address: SocketAddr,
    cut: Pin<Box<dyn Future<Output = ()> + Send>>,
    _held: Held,
}

/// Does the TLS handshake on an accepted connection, within `limit`. Whose
/// certificate it saw is in the stream's connect info.
///
/// # Errors
/// The handshake failed or took too long.
pub async fn accept(
    stream: TcpStream,
    address: SocketAddr,
    config: Arc<ServerConfig>,
    roster: &SharedRoster,
    connections: &Connections,
    limit: Duration,
) -> io::Result<PeerStream> {
    stream.set_nodelay(true)?;
    let handshake = TlsAcceptor::from(config).accept(stream);
    let stream = tokio::time::timeout(limit, handshake).await??;
    let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
    let leaf = chain.first();
    let role = leaf.and_then(leaf_role);
    let issuer = chain.get(1).and_then(spki_hash).unwrap_or_default();
    let outdated = leaf.is_some() && !roster.load().trusts_issuer(&issuer);
    let identity = match leaf {
        None => Identity::Anonymous,
        Some(leaf) => leaf_identity(leaf, roster.load().cluster())
            .ok_or_else(|| io::Error::from(io::ErrorKind::PermissionDenied))?,
    };
    let key = leaf.and_then(spki_hash).unwrap_or_default();
    let good = if outdated { String::new() } else { issuer.clone() };
    let (held, token) = connections.enter(&identity, address.ip(), good, key);
    let stays = match identity {
        Identity::Anonymous => Some(STRANGER_STAYS),
        // By then the log knows it, and it comes back, or it is none of ours.
        Identity::Node(node) if !roster.load().has(node) => Some(CATCH_UP),
        // Either side may have been behind. It comes back with what it has by then;
        // until it is cut it would use this connection for ever, in vain.
        Identity::Node(_) if outdated => Some(RENEWS_WITHIN),
        Identity::Node(_) | Identity::User { .. } => None,
    };
    let lost = token.clone().cancelled_owned();
    let cut = Box::pin(async move {
        match stays {
            None => lost.await,
            Some(limit) => {
                let _ = tokio::time::timeout(limit, lost).await;
            }
        }
    });
    // It may have been removed, or what it showed retired, between its handshake
    // and its entry here.
    let now = roster.load();
    connections.cut_ended(&now);
    if let Identity::Node(node) = identity
        && now.removed().contains(&node)
    {
        token.cancel();
    }
    let roster = roster.clone();
    Ok(PeerStream { stream, identity, role, issuer, roster, address, cut, _held: held })
}

impl PeerStream {
    /// Who it is.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

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

/// Who made a connection; in the extensions of each of its requests.
#[derive(Clone, Debug)]
pub struct PeerInfo {
    pub identity: Identity,
    /// Of a member, what its certificate says it is.
    pub role: Option<Role>,
    /// The key (SPKI hash) of the CA that signed its certificate.
    pub issuer: String,
    roster: SharedRoster,
    /// From where.
    pub address: SocketAddr,
}

impl PeerInfo {
    /// The member that speaks, if it is one. Whether its CA was replaced, or is not
    /// known here, is a matter of now: this node may have been behind when the
    /// connection was made.
    #[must_use]
    pub fn speaker(&self) -> Option<Speaker> {
        let Identity::Node(node) = self.identity else { return None };
        let outdated = !self.roster.load().trusts_issuer(&self.issuer);
        Some(Speaker { node, role: self.role, outdated })
    }
}

/// The member that made a request, if it was one.
#[must_use]
pub fn speaker(extensions: &tonic::Extensions) -> Option<Speaker> {
    extensions.get::<PeerInfo>()?.speaker()
}

impl Connected for PeerStream {
    type ConnectInfo = PeerInfo;
    fn connect_info(&self) -> PeerInfo {
        PeerInfo {
            identity: self.identity.clone(),
            role: self.role,
            issuer: self.issuer.clone(),
            roster: self.roster.clone(),
            address: self.address,
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_rests_on_a_retired_issuer_or_an_ended_login_is_cut() {
        let connections = Connections::default();
        let enter = |identity: &Identity, issuer: &str, key: &str| {
            let from = IpAddr::from([192, 0, 2, 1]);
            connections.enter(identity, from, issuer.to_owned(), key.to_owned())
        };
        let node = Identity::Node(NodeId(1));
        let (name, role) = ("eve".parse().expect("a name"), vip_core::AdminRole::Viewer);
        let eve = Identity::User { name, role };
        // What renews came with an issuer that was not trusted to begin with.
        let (old, new, renews) =
            (enter(&node, "old", ""), enter(&node, "new", ""), enter(&node, "", ""));
        let (listed, ended) = (enter(&eve, "new", "k1"), enter(&eve, "new", "k2"));
        let roster = Roster::of_join("c".into(), "new".into(), []);
        connections.cut_ended(&roster.with_login("k1"));
        let cut = [&old, &new, &renews, &listed, &ended].map(|(_, token)| token.is_cancelled());
        assert_eq!(cut, [true, false, false, false, true]);
    }
}
