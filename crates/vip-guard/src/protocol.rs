//! What agent and guard say to each other: postcard in frames of a four-byte
//! little-endian length. Before that each says which versions of all this it
//! understands, in bytes that are the same in every version; the highest that both
//! have is spoken. One of the two may have been restarted after an upgrade, and the
//! other not yet.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use vip_core::{
    Address, AtVipQuestion, GuardNotice, Incarnation, Mac, Mono, Obstacle, ServerUid,
    TableCounters, TableNotice, TableOrder, VipOrder, VipUid,
};

/// Versions that are understood here.
pub(crate) const VERSIONS: Versions = Versions { lowest: 1, highest: AT_VIP };

/// From this one on there is [`VipOrder::ExtendAll`].
pub(crate) const EXTEND_ALL: u16 = 2;

/// From this one on there is the second lane: [`ToGuard::Tables`],
/// [`FromGuard::Tables`], [`FromGuard::TableCounters`].
pub(crate) const TABLES: u16 = 3;

/// From this one on tables are put in force: [`TableOrder::Put`], [`ToGuard::Count`],
/// [`ToGuard::Members`].
pub(crate) const FORWARD: u16 = 4;

/// From this one on there are [`TableNotice::Spoke`] and [`TableNotice::Dropped`].
#[cfg(feature = "server")]
pub(crate) const SPOKE: u16 = 5;

/// From this one on there are [`ToGuard::AskAtVip`], [`TableNotice::AtVip`],
/// [`ToGuard::Listen`], [`TableNotice::Mute`] and [`TableOrder::PutResetting`].
pub(crate) const AT_VIP: u16 = 6;

/// First bytes of a connection, both ways.
const GREETING: [u8; 4] = *b"vipd";

/// Which versions of the protocol a side understands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Versions {
    /// The first of them.
    pub lowest: u16,
    /// The last.
    pub highest: u16,
}

impl std::fmt::Display for Versions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self { lowest, highest } if lowest == highest => write!(f, "version {lowest}"),
            Self { lowest, highest } => write!(f, "versions {lowest} to {highest}"),
        }
    }
}

impl Versions {
    /// Whether this one is among them.
    #[cfg(feature = "server")]
    pub(crate) fn has(self, version: u16) -> bool {
        (self.lowest..=self.highest).contains(&version)
    }

    /// The one to speak with whoever understands `other`.
    #[must_use]
    pub fn common(self, other: Self) -> Option<u16> {
        let common = self.highest.min(other.highest);
        (common >= self.lowest.max(other.lowest)).then_some(common)
    }

    pub(crate) async fn write(self, to: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
        let (lowest, highest) = (self.lowest.to_le_bytes(), self.highest.to_le_bytes());
        to.write_all(&[&GREETING[..], &lowest, &highest].concat()).await
    }

    pub(crate) async fn read(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Self> {
        let mut greeting = [0; GREETING.len()];
        from.read_exact(&mut greeting).await?;
        if greeting != GREETING {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "it is no vipd"));
        }
        Ok(Self { lowest: from.read_u16_le().await?, highest: from.read_u16_le().await? })
    }
}

/// Longest frame: a thousand VIPs of a few addresses fit with room to spare.
const MAX_FRAME: u32 = 4 << 20;

/// The agent's first word.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The id of its cluster: epochs are a cluster's own.
    pub cluster: String,
}

/// From the agent, after [`Hello`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToGuard {
    /// Orders about VIPs, to be carried out in this order. Any number of them is
    /// one message, so that a thousand VIPs do not fill a queue.
    Orders(Vec<VipOrder>),
    /// All VIPs there are, whoever holds them. Answered by
    /// [`FromGuard::Hindered`], and again whenever that changes.
    Consider(Vec<(VipUid, Vec<Address>)>),
    /// Are you there? Answered by [`FromGuard::Alive`].
    Ping,
    /// Peers came back, or leadership was confirmed after trouble: announce
    /// again.
    Confirmed,
    /// On the second lane: what is wanted of tables.
    Tables(Vec<TableOrder>),
    /// On the second lane: what was forwarded for a virtual server? Answered by
    /// [`TableNotice::Counted`].
    Count(ServerUid),
    /// Ethernet addresses of all that may hold VIPs: whose packets real servers on this
    /// host take.
    Members(BTreeSet<Mac>),
    /// On the second lane: does a neighbour take what is sent to a VIP? Answered by
    /// [`TableNotice::AtVip`], if it can be within so many ms.
    AskAtVip(AtVipQuestion, u32),
    /// On the second lane: of these virtual servers it is told who is mute
    /// ([`TableNotice::Mute`]), and of no others.
    Listen(BTreeSet<ServerUid>),
}

/// How the guard enforces deadlines.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum GateReport {
    /// The kernel enforces them.
    Enforced {
        /// What it would not enforce for an interface that appears while the
        /// guard stands still, and why; empty: nothing.
        weakness: String,
    },
    /// Nothing does but the guard itself.
    Missing(String),
}

/// From the guard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromGuard {
    /// The session began.
    Welcome {
        /// Its number.
        incarnation: Incarnation,
        /// How deadlines are enforced.
        gate: GateReport,
        /// The guard's clock, which has to be the agent's.
        now: Mono,
    },
    /// The answer to a ping.
    Alive,
    /// Another agent has the guard.
    Busy,
    /// What of [`ToGuard::Consider`] could not be here, as the host is: all of it.
    Hindered(BTreeMap<VipUid, Obstacle>),
    /// The interfaces of this host that have addresses, when that changed.
    Interfaces(BTreeSet<Mac>),
    /// What happened to VIPs, in order. Any number of notices is one message,
    /// so that a thousand VIPs are one change.
    Notices(Vec<GuardNotice>),
    /// On the second lane: what is in force.
    Tables(TableNotice),
    /// How the second lane does, when that changed.
    TableCounters(TableCounters),
}

pub(crate) async fn write_frame<T: Serialize>(
    to: &mut (impl AsyncWrite + Unpin),
    message: &T,
) -> io::Result<()> {
    let body = postcard::to_stdvec(message).map_err(io::Error::other)?;
    let len = u32::try_from(body.len()).ok().filter(|len| *len <= MAX_FRAME);
    let len = len.ok_or_else(|| io::Error::other("frame too long"))?;
    let mut frame = len.to_le_bytes().to_vec();
    frame.extend_from_slice(&body);
    to.write_all(&frame).await
}

/// Bytes that there is room for at each read.
const AT_ONCE: usize = 16 << 10;

/// Reads frames.
#[derive(Debug)]
pub(crate) struct Frames<R> {
    from: R,
    /// What came of the next one, and behind it.
    unread: Vec<u8>,
}

impl<R: AsyncRead + Unpin> Frames<R> {
    pub(crate) fn of(from: R) -> Self {
        Self::behind(from, vec![])
    }

    /// Those that begin with what was read already.
    pub(crate) fn behind(from: R, unread: Vec<u8>) -> Self {
        Self { from, unread }
    }

    /// What was read and is of no whole frame yet.
    #[cfg(feature = "server")]
    pub(crate) fn unread(&self) -> &[u8] {
        &self.unread
    }

    /// Waits for the next one. Whoever stops waiting has missed nothing.
    pub(crate) async fn next<T: DeserializeOwned>(&mut self) -> io::Result<T> {
        loop {
            if let Some((len, rest)) = self.unread.split_first_chunk() {
                let len = u32::from_le_bytes(*len);
                if len > MAX_FRAME {
                    return Err(io::Error::new(io::ErrorKind::InvalidData, "frame too long"));
                }
                if let Some(body) = rest.get(..len as usize) {
                    let read = postcard::from_bytes(body);
                    self.unread.drain(..size_of::<u32>() + len as usize);
                    return read.map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e));
                }
            }
            self.unread.reserve(AT_ONCE);
            if self.from.read_buf(&mut self.unread).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vip_core::Epoch;

    #[tokio::test]
    async fn a_frame_comes_out_as_it_went_in() {
        let order = VipOrder::Release { vip: VipUid(1), epoch: Epoch(2) };
        let sent = ToGuard::Orders(vec![order]);
        let mut wire = vec![];
        write_frame(&mut wire, &sent).await.expect("written");
        let mut frames = Frames::of(wire.as_slice());
        let read: ToGuard = frames.next().await.expect("read");
        assert_eq!((read, frames.unread()), (sent, &[][..]));
    }

    /// Of a frame that comes in two parts the first is kept, and so is what comes with the
    /// second: by another program, if need be.
    #[tokio::test]
    async fn a_frame_that_is_not_whole_can_be_read_on_by_somebody_else() {
        let (mut writer, reader) = tokio::io::duplex(1024);
        let mut wire = vec![];
        write_frame(&mut wire, &ToGuard::Ping).await.expect("written");
        let mut frames = Frames::of(reader);
        for cut in 0..wire.len() {
            writer.write_all(&wire[..cut]).await.expect("written");
            {
                let mut next = std::pin::pin!(frames.next::<ToGuard>());
                let waits = std::future::poll_fn(|cx| {
                    std::task::Poll::Ready(next.as_mut().poll(cx).is_pending())
                });
                assert!(waits.await, "{cut}");
            }
            let unread = frames.unread().to_vec();
            assert_eq!(unread, wire[..cut]);
            frames = Frames::behind(frames.from, unread);
            writer.write_all(&[&wire[cut..], &wire].concat()).await.expect("written");
            for _ in 0..2 {
                assert_eq!(frames.next::<ToGuard>().await.expect("read"), ToGuard::Ping);
            }
        }
    }

    #[tokio::test]
    async fn neighbours_find_the_version_that_both_have() {
        let of = |lowest, highest| Versions { lowest, highest };
        for (one, other, common) in [
            (of(1, 1), of(1, 1), Some(1)),
            (of(1, 2), of(1, 1), Some(1)),
            (of(1, 2), of(2, 3), Some(2)),
            (of(1, 1), of(2, 3), None),
        ] {
            assert_eq!((one.common(other), other.common(one)), (common, common));
            let mut wire = vec![];
            one.write(&mut wire).await.expect("written");
            assert_eq!(Versions::read(&mut wire.as_slice()).await.expect("read"), one);
        }
        assert!(Versions::read(&mut &[0; 8][..]).await.is_err());
    }

    #[tokio::test]
    async fn garbage_and_huge_lengths_are_errors() {
        for bytes in [&[0xff; 8][..], &[3, 0, 0, 0, 99, 99, 99], &[1, 0]] {
            assert!(Frames::of(bytes).next::<ToGuard>().await.is_err());
        }
    }

    proptest::proptest! {
        /// Whatever comes through the socket: refused, or what would be sent.
        #[test]
        fn a_frame_is_refused_or_means_something(
            length in proptest::prelude::any::<u8>(),
            body in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200),
        ) {
            let wire = [&u32::from(length).to_le_bytes()[..], &body].concat();
            let runtime = tokio::runtime::Builder::new_current_thread().build().expect("made");
            runtime.block_on(async {
                let mut again = vec![];
                if let Ok(read) = Frames::of(wire.as_slice()).next::<ToGuard>().await {
                    write_frame(&mut again, &read).await.expect("written");
                    let twice = Frames::of(again.as_slice()).next::<ToGuard>().await;
                    assert_eq!(twice.expect("read"), read);
                }
                let _ = Frames::of(wire.as_slice()).next::<Hello>().await;
                let _ = Frames::of(wire.as_slice()).next::<FromGuard>().await;
            });
        }
    }
}
