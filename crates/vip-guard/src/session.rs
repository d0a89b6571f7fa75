//! Agents at the socket: greeted, read and written to on tasks of their own.
//! The guard's loop never waits for one.

use crate::clock::boottime;
use crate::protocol::{
    AT_VIP, FORWARD, Frames, FromGuard, GateReport, Hello, SPOKE, TABLES, ToGuard, VERSIONS,
    Versions, write_frame,
};
use crate::tables::TableLane;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tracing::{debug, info, warn};
use vip_core::{Incarnation, TableNotice, VipOrder};
use vip_datapath::Inherited;

/// Orders that may wait while one is carried out.
const ORDERS_QUEUED: usize = 256;
/// Messages that an agent may be behind. One that reads nothing any more is
/// given up, and everything that it held is let go of.
const MESSAGES_QUEUED: usize = 1024;
/// Words on tables that wait for the socket; the second lane waits beyond it.
const TABLE_NOTICES_QUEUED: usize = 64;
/// Claims made and released between two looks at what else is to be done:
/// renewals of what is held already do not wait for a thousand new addresses.
const CHUNK: usize = 128;
/// Connections that did not say who they are yet.
const GREETINGS: usize = 16;
/// How long they may take to.
const GREETING_TIMEOUT: Duration = Duration::from_secs(1);
/// Longest name of a cluster: its id has 32 digits.
const CLUSTER_LEN: usize = 64;

/// A connection that said what it is.
pub(crate) struct Arrival {
    /// The agent's process.
    process: Option<i32>,
    /// For whom it speaks.
    pub(crate) cluster: String,
    /// Of the protocol, as both understand it.
    version: u16,
    reader: Frames<OwnedReadHalf>,
    writer: OwnedWriteHalf,
}

/// The agents' door.
pub(crate) struct Door {
    /// Those who knock, for as long as this lives.
    pub(crate) arrivals: mpsc::Receiver<Arrival>,
    socket: OwnedFd,
}

impl Door {
    /// Opens it.
    ///
    /// # Errors
    /// The socket cannot be made.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        // The lock is ours, so a socket that is there belongs to nobody.
        match std::fs::remove_file(path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        let listener = std::os::unix::net::UnixListener::bind(path)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))?;
        Self::at(listener.into())
    }

    /// Those who knocked and were not looked at yet wait for the next run.
    ///
    /// # Errors
    /// There is no room for a descriptor.
    pub(crate) fn leave(&self) -> io::Result<Inherited> {
        Inherited::of(&self.socket)
    }

    /// As an earlier run left it.
    ///
    /// # Errors
    /// It is no socket.
    pub(crate) fn inherit(left: Inherited) -> io::Result<Self> {
        Self::at(left.take()?)
    }

    fn at(socket: OwnedFd) -> io::Result<Self> {
        let listener = std::os::unix::net::UnixListener::from(socket.try_clone()?);
        listener.set_nonblocking(true)?;
        let (send, arrivals) = mpsc::channel(1);
        tokio::spawn(accept(UnixListener::from_std(listener)?, send));
        Ok(Self { arrivals, socket })
    }
}

async fn accept(listener: UnixListener, arrivals: mpsc::Sender<Arrival>) {
    let places = Arc::new(Semaphore::new(GREETINGS));
    while let Ok((stream, _)) = listener.accept().await {
        // Without a place left it is dropped; agents try again.
        let Ok(place) = places.clone().try_acquire_owned() else { continue };
        let arrivals = arrivals.clone();
        tokio::spawn(async move {
            if let Some(arrival) = greet(stream).await {
                let _ = arrivals.send(arrival).await;
            }
            drop(place);
        });
    }
}

async fn greet(stream: UnixStream) -> Option<Arrival> {
    let peer = stream.peer_cred().ok()?;
    let own = nix::unistd::geteuid().as_raw();
    if peer.uid() != 0 && peer.uid() != own {
        warn!(uid = peer.uid(), "refused a stranger on the guard's socket");
        return None;
    }
    let (mut reader, mut writer) = stream.into_split();
    let greeting = async {
        let theirs = Versions::read(&mut reader).await?;
        VERSIONS.write(&mut writer).await?;
        let Some(version) = VERSIONS.common(theirs) else {
            warn!("the agent speaks {theirs} of the guard's protocol, and this guard {VERSIONS}");
            return Err(io::Error::from(io::ErrorKind::Unsupported));
        };
        let mut frames = Frames::of(reader);
        Ok((version, frames.next().await?, frames))
    };
    let (version, Hello { cluster }, reader) =
        timeout(GREETING_TIMEOUT, greeting).await.ok()?.ok()?;
    if cluster.len() > CLUSTER_LEN {
        warn!("refused a greeting that names no cluster of vipd");
        return None;
    }
    Some(Arrival { process: peer.pid(), cluster, version, reader, writer })
}

impl Arrival {
    /// Turns it away.
    pub(crate) fn refuse(mut self) {
        tokio::spawn(async move {
            let _ =
                timeout(GREETING_TIMEOUT, write_frame(&mut self.writer, &FromGuard::Busy)).await;
        });
    }

    /// Makes it the agent, and that of the second lane.
    pub(crate) fn admit(
        self,
        gate: GateReport,
        tables: &Arc<TableLane>,
    ) -> Option<(Incarnation, Session)> {
        let Self { process, cluster: _, version, reader, writer } = self;
        let incarnation = Incarnation(random()?);
        let halves = (reader, writer);
        let (mut session, notices) = Session::with((process, version), halves, tables).ok()?;
        session.tell(FromGuard::Welcome { incarnation, gate, now: boottime() });
        if version >= TABLES {
            tables.serve(notices);
        }
        info!(%incarnation, "an agent came");
        Some((incarnation, session))
    }
}

/// The one agent. Dropping it ends the connection.
pub(crate) struct Session {
    process: Option<i32>,
    version: u16,
    /// `None` once it is too far behind.
    messages: Option<mpsc::Sender<Outgoing>>,
    orders: mpsc::Receiver<ToGuard>,
    /// Claims to be made and released, in this order, when nothing else is to
    /// be done.
    pub(crate) backlog: VecDeque<VipOrder>,
    reader: Reader,
    writer: JoinHandle<()>,
    socket: OwnedFd,
}

/// The task that reads.
struct Reader {
    /// `None`: the connection ended.
    task: JoinHandle<Option<Unread>>,
    /// It ends between two messages.
    end: Option<oneshot::Sender<()>>,
}

/// What is to be read, and where it goes.
pub(crate) struct Unread {
    frames: Frames<OwnedReadHalf>,
    messages: mpsc::Sender<ToGuard>,
}

impl Reader {
    fn start(unread: Unread, tables: Arc<TableLane>) -> Self {
        let (end, ends) = oneshot::channel();
        Self { task: tokio::spawn(read(unread, tables, ends)), end: Some(end) }
    }
}

/// What is written to the agent.
enum Outgoing {
    Message(FromGuard),
    /// All before it is with the kernel.
    Written(oneshot::Sender<()>),
}

/// A [`Session`] for the next run of this process: the agent does not notice.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct LeftSession {
    socket: Inherited,
    process: Option<i32>,
    version: u16,
    unread: Vec<u8>,
    backlog: VecDeque<VipOrder>,
}

impl LeftSession {
    /// Whether this program speaks as that of before did.
    pub(crate) fn is_understood(&self) -> bool {
        VERSIONS.has(self.version)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.reader.task.abort();
        self.writer.abort();
    }
}

impl Session {
    /// And where its second lane says what happened.
    ///
    /// # Errors
    /// There is no room for a descriptor.
    fn with(
        (process, version): (Option<i32>, u16),
        (frames, writer): (Frames<OwnedReadHalf>, OwnedWriteHalf),
        tables: &Arc<TableLane>,
    ) -> io::Result<(Self, mpsc::Sender<TableNotice>)> {
        let stream: &UnixStream = writer.as_ref();
        let socket = stream.as_fd().try_clone_to_owned()?;
        let (messages, outgoing) = mpsc::channel(MESSAGES_QUEUED);
        let (incoming, orders) = mpsc::channel(ORDERS_QUEUED);
        let (notices, of_tables) = mpsc::channel(TABLE_NOTICES_QUEUED);
        let writer = tokio::spawn(write((writer, version), outgoing, of_tables));
        let reader = Reader::start(Unread { frames, messages: incoming }, tables.clone());
        let (messages, backlog) = (Some(messages), VecDeque::new());
        Ok((Self { process, version, messages, orders, backlog, reader, writer, socket }, notices))
    }

    /// Reads no more until [`Self::read_on`]. Returns the messages that were read
    /// before, in order, and what is to be read; `None`: the agent is gone.
    pub(crate) async fn pause(&mut self) -> (Vec<ToGuard>, Option<Unread>) {
        drop(self.reader.end.take());
        let mut messages = vec![];
        let unread = loop {
            // It may wait for room that only this makes.
            tokio::select! {
                biased;
                Some(message) = self.orders.recv() => messages.push(message),
                unread = &mut self.reader.task => break unread.ok().flatten(),
            }
        };
        while let Ok(message) = self.orders.try_recv() {
            messages.push(message);
        }
        (messages, unread)
    }

    pub(crate) fn read_on(&mut self, unread: Unread, tables: &Arc<TableLane>) {
        self.reader = Reader::start(unread, tables.clone());
    }

    /// Waits until all that the agent was told is with the kernel. Whether it is.
    pub(crate) async fn written(&mut self) -> bool {
        let (done, written) = oneshot::channel();
        let Some(messages) = &self.messages else { return false };
        messages.try_send(Outgoing::Written(done)).is_ok() && written.await.is_ok()
    }

    /// For the next run of this process, after a pause and all that is written; or, without
    /// what is unread, to try whether it could be.
    ///
    /// # Errors
    /// There is no room for a descriptor.
    pub(crate) fn leave(&self, unread: Option<&Unread>) -> io::Result<LeftSession> {
        Ok(LeftSession {
            socket: Inherited::of(&self.socket)?,
            process: self.process,
            version: self.version,
            unread: unread.map(|unread| unread.frames.unread().to_vec()).unwrap_or_default(),
            backlog: self.backlog.clone(),
        })
    }

    /// As an earlier run left it.
    ///
    /// # Errors
    /// It is no socket.
    pub(crate) fn inherit(left: LeftSession, tables: &Arc<TableLane>) -> io::Result<Self> {
        let LeftSession { socket, process, version, unread, backlog } = left;
        let stream = std::os::unix::net::UnixStream::from(socket.take()?);
        stream.set_nonblocking(true)?;
        let (reader, writer) = UnixStream::from_std(stream)?.into_split();
        let frames = Frames::behind(reader, unread);
        let (mut session, notices) = Self::with((process, version), (frames, writer), tables)?;
        session.backlog = backlog;
        if version >= TABLES {
            tables.serve_on(notices);
        }
        Ok(session)
    }

    /// Whether the same process arrived again.
    pub(crate) fn is_with(&self, arrival: &Arrival) -> bool {
        self.process.is_some_and(|pid| pid > 0) && self.process == arrival.process
    }

    /// The next message; `None`: the agent is gone, or given up.
    pub(crate) async fn next(&mut self) -> Option<ToGuard> {
        self.messages.as_ref()?;
        self.orders.recv().await
    }

    /// Whether the agent knows of the second lane.
    pub(crate) fn has_tables(&self) -> bool {
        self.version >= TABLES
    }

    /// Never waits. A broken connection shows in [`Self::next`].
    pub(crate) fn tell(&mut self, message: FromGuard) {
        debug!(?message, "to the agent");
        let Some(messages) = &self.messages else { return };
        if let Err(mpsc::error::TrySendError::Full(_)) =
            messages.try_send(Outgoing::Message(message))
        {
            warn!("the agent does not read what it is told; giving it up");
            self.messages = None;
        }
    }

    /// The next orders that do not depend on each other: one for each VIP, and no
    /// claim after a release, which may give up what is claimed.
    pub(crate) fn next_chunk(&mut self) -> Vec<VipOrder> {
        next_chunk(&mut self.backlog)
    }
}

fn next_chunk(backlog: &mut VecDeque<VipOrder>) -> Vec<VipOrder> {
    let (mut vips, mut releases, mut chunk) = (BTreeSet::new(), false, vec![]);
    while chunk.len() < CHUNK
        && let Some(order) = backlog.pop_front_if(|order| match order {
            VipOrder::Prepare { vip, .. } => !releases && vips.insert(*vip),
            VipOrder::Release { vip, .. } => vips.insert(*vip),
            VipOrder::Extend { .. } | VipOrder::ExtendAll { .. } => true,
        })
    {
        releases |= matches!(order, VipOrder::Release { .. });
        chunk.push(order);
    }
    chunk
}

fn random() -> Option<u64> {
    use std::io::Read;
    let mut bytes = [0; 8];
    std::fs::File::open("/dev/urandom").ok()?.read_exact(&mut bytes).ok()?;
    Some(u64::from_le_bytes(bytes))
}

/// Until `ends` does, or the connection: then there is nothing more to be read.
async fn read(
    mut unread: Unread,
    tables: Arc<TableLane>,
    mut ends: oneshot::Receiver<()>,
) -> Option<Unread> {
    loop {
        let message = tokio::select! {
            biased;
            _ = &mut ends => return Some(unread),
            message = unread.frames.next() => message.ok()?,
        };
        let goes_on = match message {
            ToGuard::Tables(orders) => {
                tables.order(orders);
                true
            }
            ToGuard::Count(server) => {
                tables.count(server);
                true
            }
            ToGuard::AskAtVip(question, limit_ms) => {
                tables.ask_at_vip(question, Duration::from_millis(limit_ms.into()));
                true
            }
            ToGuard::Listen(servers) => {
                tables.listen(servers);
                true
            }
            of_leases => unread.messages.send(of_leases).await.is_ok(),
        };
        if !goes_on {
            return None;
        }
    }
}

/// From which version on an agent understands this.
const fn since(notice: &TableNotice) -> u16 {
    match notice {
        TableNotice::AllInForce(_) | TableNotice::InForce { .. } => TABLES,
        TableNotice::Refused { .. } | TableNotice::Flawed { .. } | TableNotice::Counted { .. } => {
            FORWARD
        }
        TableNotice::Spoke { .. } | TableNotice::Dropped(_) => SPOKE,
        TableNotice::AtVip(..) | TableNotice::Mute(..) => AT_VIP,
    }
}

async fn write(
    (mut writer, version): (OwnedWriteHalf, u16),
    mut messages: mpsc::Receiver<Outgoing>,
    mut tables: mpsc::Receiver<TableNotice>,
) {
    loop {
        let message = tokio::select! {
            biased;
            message = messages.recv() => match message {
                Some(Outgoing::Message(message)) => Some(message),
                Some(Outgoing::Written(done)) => {
                    while let Ok(notice) = tables.try_recv() {
                        let Some(message) = of_tables(notice, version) else { continue };
                        if write_frame(&mut writer, &message).await.is_err() {
                            return;
                        }
                    }
                    let _ = done.send(());
                    continue;
                }
                None => break,
            },
            Some(notice) = tables.recv() => of_tables(notice, version),
        };
        let Some(message) = message else { continue };
        if write_frame(&mut writer, &message).await.is_err() {
            break;
        }
    }
}

/// What an agent is told; of what it did not order, or orders again, nothing.
fn of_tables(notice: TableNotice, version: u16) -> Option<FromGuard> {
    (version >= since(&notice)).then_some(FromGuard::Tables(notice))
}

#[cfg(test)]
mod tests {
    use super::*;
    use vip_core::{Epoch, Probe, VipUid};

    /// Its orders wait, its notices wait, and every word of the other lane comes
    /// through at once, both ways.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_second_lane_that_is_stuck_holds_up_nothing_of_the_first() {
        const LIMIT: Duration = Duration::from_secs(20);
        let dir = tempfile::tempdir().expect("a directory");
        let socket = dir.path().join("guard.sock");
        let mut arrivals = Door::open(&socket).expect("listens").arrivals;
        let (let_go, wait) = std::sync::mpsc::channel::<()>();
        let lane = TableLane::start(move || {
            Some(move |work| {
                let _ = wait.recv();
                crate::tables::nothing_there(work)
            })
        });
        let lane = Arc::new(lane.expect("started"));
        let serve = async {
            let arrival = arrivals.recv().await.expect("an agent");
            arrival.admit(GateReport::Missing(String::new()), &lane).expect("admitted").1
        };
        let (linked, mut session) = tokio::join!(crate::connect(&socket, "c"), serve);
        let (mut writer, mut reader, ..) = linked.expect("a session");

        let order = |server| vip_core::TableOrder::Drop(vip_core::ServerUid(server));
        for round in 0..500 {
            let orders = ToGuard::Tables((0..100).map(order).collect());
            writer.send(&orders).await.expect("sent");
            writer.send(&ToGuard::Ping).await.expect("sent");
            let heard = timeout(LIMIT, session.next()).await.expect("in time");
            assert_eq!(heard, Some(ToGuard::Ping), "round {round}");
            session.tell(FromGuard::Alive);
            let answer = timeout(LIMIT, reader.receive()).await.expect("in time");
            assert_eq!(answer.expect("read"), FromGuard::Alive, "round {round}");
        }
        let counters = lane.counters();
        assert!(counters.done == 0 && counters.waiting > 0, "{counters:?}");

        drop(let_go);
        let (mut told, mut gone) = (0, BTreeSet::new());
        while gone.len() < 100 {
            let notice = timeout(LIMIT, reader.receive()).await.expect("in time").expect("read");
            match notice {
                FromGuard::Tables(TableNotice::AllInForce(all)) => {
                    assert!(all.is_empty());
                    told += 1;
                }
                FromGuard::Tables(TableNotice::InForce { server, generation: None }) => {
                    assert!(told > 0, "what is in force is told first");
                    gone.insert(server);
                }
                other => panic!("{other:?}"),
            }
        }
    }

    /// What one gives up another may be given: if the first fails, the second
    /// must not have begun.
    #[test]
    fn a_claim_is_not_carried_out_beside_a_release_before_it() {
        let release = |vip| VipOrder::Release { vip: VipUid(vip), epoch: Epoch(1) };
        let prepare = |vip| {
            let (vip, epoch, probe, known) = (VipUid(vip), Epoch(1), Probe::No, BTreeSet::new());
            VipOrder::Prepare { vip, epoch, addresses: vec![], probe, known }
        };
        let mut backlog: VecDeque<_> =
            [prepare(1), release(2), release(3), prepare(4), prepare(5), prepare(5)].into();
        let mut chunks = vec![];
        while !backlog.is_empty() {
            chunks.push(next_chunk(&mut backlog).len());
        }
        assert_eq!(chunks, [3, 2, 1]);
    }
}
