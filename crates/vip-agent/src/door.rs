//! Who gets in: from an accepted connection to the server that is for it.
//!
//! ```text
//!  accept ─┬─ from a member's address ─> places of its own ─┐
//!          └─ from anywhere else ─> rate ─> few places ─────┴─> TLS handshake
//!  handshake ─┬─ member, lease protocol ─> lease thread
//!             ├─ member ─> all services
//!             ├─ person ─> people's services, small
//!             └─ no certificate ─> joining alone, smallest
//! ```
//!
//! What strangers do to their own places does not reach those of members, and
//! what one stranger costs is bounded before anything is done for it.

use crate::rate::Rate;
use crate::refusals::Refusals;
use arc_swap::ArcSwap;
use governor::Quota;
use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use vip_pki::{
    Connections, Identity, Limits, PeerStream, Places, ServerConfig, SharedRoster, accept, origin,
};
use vip_proto::ALPN_LEASE;

/// Connections that wait for their handshake.
const QUEUED: usize = 64;
/// Handshakes under way of members' addresses.
const MEMBER_HANDSHAKES: Limits = Limits { all: 128, each: 16 };
/// How long one may take: a member may be busy.
const MEMBER_HANDSHAKE: Duration = Duration::from_secs(5);
/// Handshakes under way of anybody else.
const STRANGER_HANDSHAKES: Limits = Limits { all: 32, each: 8 };
/// How long one may take.
const STRANGER_HANDSHAKE: Duration = Duration::from_secs(2);
/// New connections a second of one stranger, and of all: each costs a signature
/// and a key agreement.
const EACH_STRANGER: Quota = quota(20);
const ALL_STRANGERS: Quota = quota(200);

const fn quota(per_second: u32) -> Quota {
    let (Some(rate), Some(burst)) = (NonZeroU32::new(per_second), NonZeroU32::new(2 * per_second))
    else {
        panic!("a rate is not zero")
    };
    Quota::per_second(rate).allow_burst(burst)
}

/// Where connections are handed in.
#[derive(Clone)]
pub(crate) struct Door {
    members: Arc<ArcSwap<BTreeSet<IpAddr>>>,
    to_members: mpsc::Sender<(TcpStream, SocketAddr)>,
    to_strangers: mpsc::Sender<(TcpStream, SocketAddr)>,
    dropped: Arc<Refusals>,
}

/// What waits behind it.
pub(crate) struct Hall {
    members: mpsc::Receiver<(TcpStream, SocketAddr)>,
    strangers: mpsc::Receiver<(TcpStream, SocketAddr)>,
}

/// A door, and what is behind.
pub(crate) fn door() -> (Door, Hall) {
    let (to_members, members) = mpsc::channel(QUEUED);
    let (to_strangers, strangers) = mpsc::channel(QUEUED);
    let door = Door { members: Arc::default(), to_members, to_strangers, dropped: Arc::default() };
    (door, Hall { members, strangers })
}

impl Door {
    /// Never waits: beyond the queues' depth a connection is dropped, and peers
    /// try again.
    pub(crate) fn knock(&self, stream: TcpStream, from: SocketAddr) {
        // IPv4 comes to a listener of both families as IPv6.
        let from = SocketAddr::new(from.ip().to_canonical(), from.port());
        let known = self.members.load().contains(&from.ip());
        let to = if known { &self.to_members } else { &self.to_strangers };
        if to.try_send((stream, from)).is_err() && known {
            self.dropped.say(|others| {
                tracing::warn!(%from, others, "a member's connection was dropped: too many wait");
            });
        }
    }

    /// The addresses that members have.
    pub(crate) fn members_are(&self, addresses: BTreeSet<IpAddr>) {
        self.members.store(Arc::new(addresses));
    }
}

/// How a handshake is done, and where its connection goes.
#[derive(Clone)]
pub(crate) struct Reception {
    pub(crate) config: Arc<dyn Fn() -> Arc<ServerConfig> + Send + Sync>,
    pub(crate) roster: SharedRoster,
    pub(crate) connections: Connections,
    pub(crate) to_lease: mpsc::Sender<PeerStream>,
    pub(crate) to_members: mpsc::Sender<PeerStream>,
    pub(crate) to_people: mpsc::Sender<PeerStream>,
    pub(crate) to_strangers: mpsc::Sender<PeerStream>,
}

impl Reception {
    /// Receives from both queues, for as long as there is a door.
    pub(crate) async fn run(self, hall: Hall) {
        let members = async {
            let (mut hall, places) = (hall.members, Places::new(MEMBER_HANDSHAKES));
            let failed = Arc::new(Refusals::default());
            while let Some((stream, from)) = hall.recv().await {
                let failed = failed.clone();
                self.receive(stream, from, &places, MEMBER_HANDSHAKE, move |error| {
                    failed.say(|others| {
                        tracing::info!(%from, %error, others, "a member's TLS handshake failed");
                    });
                });
            }
        };
        let strangers = async {
            let (mut hall, places) = (hall.strangers, Places::new(STRANGER_HANDSHAKES));
            let rate = Rate::new(EACH_STRANGER, ALL_STRANGERS);
            while let Some((stream, from)) = hall.recv().await {
                if rate.allows(from.ip()) {
                    self.receive(stream, from, &places, STRANGER_HANDSHAKE, move |error| {
                        tracing::debug!(%from, %error, "TLS handshake failed");
                    });
                }
            }
        };
        tokio::join!(members, strangers);
    }

    fn receive(
        &self,
        stream: TcpStream,
        from: SocketAddr,
        places: &Places<IpAddr>,
        limit: Duration,
        failed: impl FnOnce(io::Error) + Send + 'static,
    ) {
        let place = places.enter(origin(from.ip()));
        let this = self.clone();
        tokio::spawn(async move {
            let config = (this.config)();
            let accepted = accept(stream, from, config, &this.roster, &this.connections, limit);
            let lost = place.lost();
            let accepted = tokio::select! {
                accepted = accepted => accepted,
                () = lost.cancelled() => return,
            };
            match accepted {
                Ok(stream) => this.show_in(stream).await,
                Err(error) => failed(error),
            }
        });
    }

    async fn show_in(&self, stream: PeerStream) {
        let lease = stream.alpn() == Some(ALPN_LEASE);
        let to = match stream.identity() {
            Identity::Node(_) if lease => &self.to_lease,
            // Nobody else gets near the lease thread.
            _ if lease => return,
            Identity::Node(_) => &self.to_members,
            Identity::User { .. } => &self.to_people,
            Identity::Anonymous => &self.to_strangers,
        };
        let _ = to.send(stream).await;
    }
}
