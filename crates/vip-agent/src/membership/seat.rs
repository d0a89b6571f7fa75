//! Whether this node is a member, and of what.

use crate::config::Config;
use crate::listening::{NotListening, listen};
use crate::node::{Member, MemberError, Meta, Streams};
use std::io;
use std::sync::{Arc, PoisonError, RwLock};
use tokio_util::sync::CancellationToken;
use tonic::Status;
use vip_core::Name;

/// Connections that the kernel keeps until they are taken: taking one is quick.
const LISTEN_BACKLOG: i32 = 128;

/// The port is taken, or not this host's.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot listen on {address}; if another program has the port, set node.listen in vipd.toml"
)]
pub struct ListenError {
    address: String,
    source: io::Error,
}

/// Serves a member's connections and gives it its tasks.
pub(crate) type Launch = Box<dyn Fn(&Arc<Seat>, &Arc<Member>, Streams) + Send + Sync>;

/// The agent, with or without a membership.
pub(crate) struct Seat {
    pub(crate) config: Config,
    pub(crate) name: Name,
    member: RwLock<Option<Arc<Member>>>,
    /// Whatever makes or ends a membership, one after the other.
    pub(crate) formation: tokio::sync::Mutex<()>,
    /// Cancelled when only a new process can go on.
    pub(crate) start_over: CancellationToken,
    /// Where it should listen beside the members' port, and does not.
    pub(crate) not_listening: NotListening,
    /// Serves a member that was started, and sets it to work.
    launch: Launch,
}

impl Seat {
    /// A node that is in no cluster.
    pub(crate) fn new(config: Config, name: Name, launch: Launch) -> Arc<Self> {
        Arc::new(Self {
            config,
            name,
            member: RwLock::new(None),
            formation: tokio::sync::Mutex::new(()),
            start_over: CancellationToken::new(),
            not_listening: NotListening::default(),
            launch,
        })
    }

    /// Starts a member and what it does. It is not this node's membership yet.
    pub(crate) async fn start(
        self: &Arc<Self>,
        meta: Meta,
        listener: std::net::TcpListener,
    ) -> Result<Arc<Member>, MemberError> {
        let (member, streams) = Member::start(&self.config, meta, listener).await?;
        (self.launch)(self, &member, streams);
        Ok(member)
    }

    pub(crate) fn member(&self) -> Option<Arc<Member>> {
        self.member.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn set_member(&self, member: Option<Arc<Member>>) {
        *self.member.write().unwrap_or_else(PoisonError::into_inner) = member;
    }

    /// Waits for its turn to make or end a membership.
    pub(crate) async fn begin_forming(&self) -> Result<tokio::sync::MutexGuard<'_, ()>, Status> {
        let turn = self.formation.lock().await;
        // What is on the disk is a membership, though none runs.
        if self.start_over.is_cancelled() {
            return Err(Status::unavailable("this agent starts over; try again"));
        }
        Ok(turn)
    }

    /// Binds this node's port.
    pub(crate) fn listen(&self) -> Result<std::net::TcpListener, ListenError> {
        let address = self.config.node.listen;
        listen(address, LISTEN_BACKLOG)
            .map_err(|source| ListenError { address: address.to_string(), source })
    }
}
