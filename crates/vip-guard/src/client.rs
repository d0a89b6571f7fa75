//! The agent's end of the guard's socket.

use crate::clock::boottime;
use crate::protocol::{
    AT_VIP, EXTEND_ALL, FORWARD, Frames, FromGuard, GateReport, Hello, TABLES, ToGuard, VERSIONS,
    Versions, write_frame,
};
use std::io;
use std::path::{Path, PathBuf};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use vip_core::{Incarnation, TableOrder, VipOrder};

/// Why there is no session with the guard.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// Nobody listens, or the socket broke.
    #[error("the guard's socket {path} does not answer")]
    Io {
        /// The socket.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Another agent has it, or what that one held is not certainly silent yet.
    #[error(
        "the guard at {0} serves another agent, or what that one held is not certainly silent yet. \
         A second vipd on this host needs a network namespace of its own"
    )]
    Busy(PathBuf),
    /// Deadlines of this process mean another time to the guard.
    #[error(
        "the guard at {0} reads another clock: one of the two runs in a time namespace. Nothing \
         is held here; run both in the same"
    )]
    OtherClock(PathBuf),
    /// One of the two was upgraded far beyond the other.
    #[error(
        "the guard at {path} speaks {theirs} of the protocol between guard and agent, and this \
         agent {VERSIONS}. Nothing is held here; restart the older of the two (`systemctl restart \
         vipd-guard vipd`)"
    )]
    OtherVersion {
        /// The guard's socket.
        path: PathBuf,
        /// What it understands.
        theirs: Versions,
    },
}

/// Sends orders.
#[derive(Debug)]
pub struct GuardWriter {
    socket: OwnedWriteHalf,
    /// Of the protocol, as both understand it.
    version: u16,
}

/// Receives notices.
#[derive(Debug)]
pub struct GuardReader(Frames<OwnedReadHalf>);

impl GuardWriter {
    /// Sends one message.
    ///
    /// # Errors
    /// The guard is gone.
    pub async fn send(&mut self, message: &ToGuard) -> io::Result<()> {
        write_frame(&mut self.socket, message).await
    }

    /// As this guard is told it: an earlier one resets nothing.
    #[must_use]
    pub fn in_its_words(&self, message: ToGuard) -> ToGuard {
        match message {
            ToGuard::Tables(orders) if self.version < AT_VIP => {
                ToGuard::Tables(orders.into_iter().map(TableOrder::without_reset).collect())
            }
            other => other,
        }
    }

    /// Whether the guard understands a message. If not, it was started before an
    /// upgrade; what it is told of [`VipOrder::ExtendAll`] it has to be told one by
    /// one.
    #[must_use]
    pub fn is_understood(&self, message: &ToGuard) -> bool {
        let is_new = |order: &VipOrder| matches!(order, VipOrder::ExtendAll { .. });
        let is_put = |order: &TableOrder| !matches!(order, TableOrder::Drop(_));
        let resets = |order: &TableOrder| matches!(order, TableOrder::PutResetting(..));
        let since = match message {
            ToGuard::Tables(orders) if orders.iter().any(resets) => AT_VIP,
            ToGuard::Tables(orders) if orders.iter().any(is_put) => FORWARD,
            ToGuard::AskAtVip(..) | ToGuard::Listen(_) => AT_VIP,
            ToGuard::Count(_) | ToGuard::Members(_) => FORWARD,
            ToGuard::Tables(_) => TABLES,
            ToGuard::Orders(orders) if orders.iter().any(is_new) => EXTEND_ALL,
            ToGuard::Orders(_) | ToGuard::Consider(_) | ToGuard::Ping | ToGuard::Confirmed => 1,
        };
        self.version >= since
    }

    /// Whether the guard forwards for virtual servers.
    #[must_use]
    pub fn forwards(&self) -> bool {
        self.version >= FORWARD
    }

    /// Whether it asks real servers of direct routing.
    #[must_use]
    pub fn asks_at_vips(&self) -> bool {
        self.version >= AT_VIP
    }
}

impl GuardReader {
    /// Waits for the next message. Whoever stops waiting has missed nothing.
    ///
    /// # Errors
    /// The guard is gone.
    pub async fn receive(&mut self) -> io::Result<FromGuard> {
        self.0.next().await
    }
}

/// Opens a session for the agent of `cluster`. The guard lets go of everything
/// when it ends.
///
/// # Errors
/// [`LinkError`].
pub async fn connect(
    path: &Path,
    cluster: &str,
) -> Result<(GuardWriter, GuardReader, Incarnation, GateReport), LinkError> {
    let io = |source| LinkError::Io { path: path.to_owned(), source };
    let before = boottime();
    let (mut read, mut write) = UnixStream::connect(path).await.map_err(io)?.into_split();
    VERSIONS.write(&mut write).await.map_err(io)?;
    // Before anything else: what follows depends on it.
    let theirs = Versions::read(&mut read).await.map_err(io)?;
    let Some(version) = VERSIONS.common(theirs) else {
        return Err(LinkError::OtherVersion { path: path.to_owned(), theirs });
    };
    let hello = Hello { cluster: cluster.to_owned() };
    write_frame(&mut write, &hello).await.map_err(io)?;
    let mut reader = GuardReader(Frames::of(read));
    match reader.receive().await.map_err(io)? {
        FromGuard::Welcome { now, .. } if now < before || now > boottime() => {
            Err(LinkError::OtherClock(path.to_owned()))
        }
        FromGuard::Welcome { incarnation, gate, .. } => {
            Ok((GuardWriter { socket: write, version }, reader, incarnation, gate))
        }
        FromGuard::Busy => Err(LinkError::Busy(path.to_owned())),
        FromGuard::Interfaces(_)
        | FromGuard::Hindered(_)
        | FromGuard::Notices(_)
        | FromGuard::Tables(_)
        | FromGuard::TableCounters(_)
        | FromGuard::Alive => Err(io(io::ErrorKind::InvalidData.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::UnixListener;

    #[tokio::test]
    async fn a_guard_of_another_age_is_named_with_what_to_do() {
        let dir = tempfile::tempdir().expect("made");
        let path = dir.path().join("guard.sock");
        let listener = UnixListener::bind(&path).expect("bound");
        let theirs = Versions { lowest: 8, highest: 9 };
        let guard = async {
            let (mut stream, _) = listener.accept().await.expect("an agent");
            theirs.write(&mut stream).await.expect("written");
            Versions::read(&mut stream).await.expect("its greeting")
        };
        let (greeted, linked) = tokio::join!(guard, connect(&path, "c"));
        assert_eq!(greeted, VERSIONS);
        let error = linked.map(|_| ()).expect_err("no session").to_string();
        assert!(error.contains("versions 8 to 9") && error.contains("restart"), "{error}");
    }

    /// One of the two was upgraded, the other not yet.
    #[tokio::test]
    async fn a_guard_of_before_is_not_told_what_it_would_not_understand() {
        let dir = tempfile::tempdir().expect("made");
        let path = dir.path().join("guard.sock");
        let listener = UnixListener::bind(&path).expect("bound");
        let all = VipOrder::ExtendAll {
            incarnation: Incarnation(1),
            cover: vip_core::Cover::default(),
            deadline: boottime(),
        };
        for (highest, understands) in [(1, false), (EXTEND_ALL, true), (FORWARD, true)] {
            let guard = async {
                let (mut stream, _) = listener.accept().await.expect("an agent");
                Versions { lowest: 1, highest }.write(&mut stream).await.expect("written");
                Versions::read(&mut stream).await.expect("its greeting");
                // What a socket is closed on unread breaks the other's pipe.
                let _: Hello = Frames::of(&mut stream).next().await.expect("its cluster");
                let gate = GateReport::Missing(String::new());
                let (incarnation, now) = (Incarnation(1), boottime());
                let welcome = FromGuard::Welcome { incarnation, gate, now };
                write_frame(&mut stream, &welcome).await.expect("written");
            };
            let ((), linked) = tokio::join!(guard, connect(&path, "c"));
            let (writer, ..) = linked.expect("a session");
            assert!(writer.is_understood(&ToGuard::Ping));
            let orders = ToGuard::Orders(vec![all.clone()]);
            assert_eq!(writer.is_understood(&orders), understands);
            let count = ToGuard::Count(vip_core::ServerUid(1));
            assert_eq!(writer.is_understood(&count), highest == FORWARD);
            assert_eq!(writer.forwards(), highest == FORWARD);
        }
    }
}
