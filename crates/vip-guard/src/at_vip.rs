//! Whether neighbours take what is sent to a VIP, as real servers of direct routing have to:
//! a SYN for the VIP goes to a neighbour's own Ethernet address, and what comes back tells.
//! On a thread of its own, which nobody waits for.
//!
//! Its hop limit is 1, so that a host without the VIP does not route it on to the holder, who
//! would answer; and a connection that is offered is refused at once.

use crate::packets::{Segment, Segments, Sender, SynFrame};
use crate::tables::Agent;
use crate::ways::route_to;
use futures_util::stream::FuturesUnordered;
use futures_util::{StreamExt, TryStreamExt};
use netlink_packet_core::{NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::link::LinkAttribute;
use netlink_packet_route::neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::{Handle, new_connection};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{interval, sleep, timeout};
use tracing::{debug, warn};
use vip_core::{AtVip, AtVipQuestion, Mac, TableNotice};

/// Questions that are asked at once: each is a packet or two, and a silent neighbour takes its
/// whole time.
const AT_ONCE: usize = 1024;
/// Questions that may wait beside them.
const WAITING: usize = 1024;
/// A packet may be lost: the question is sent again so often.
const AGAIN: Duration = Duration::from_millis(200);
/// What hears answers is closed after so long without a question: that takes the kernel a
/// while, and as long as it is open each packet for this host costs a look.
const LINGER: Duration = Duration::from_secs(10);
/// Where questions come from: ports that Linux gives nobody by itself (`ip_local_port_range`).
const PORTS: std::ops::Range<u16> = 61_000..65_535;

/// A question with whom to tell, and until when that is of use.
pub(crate) struct Asked {
    pub(crate) question: AtVipQuestion,
    pub(crate) limit: Duration,
    pub(crate) agent: Agent,
}

/// See the module. Dropping it ends the thread.
pub(crate) struct Asker(mpsc::Sender<Asked>);

impl Asker {
    pub(crate) fn start() -> io::Result<Self> {
        let (ask, questions) = mpsc::channel(WAITING);
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
        std::thread::Builder::new()
            .name("at-vip".into())
            .spawn(move || runtime.block_on(run(questions)))?;
        Ok(Self(ask))
    }

    /// False: there is no room for it.
    pub(crate) fn ask(&self, asked: Asked) -> bool {
        self.0.try_send(asked).is_ok()
    }
}

async fn run(mut questions: mpsc::Receiver<Asked>) {
    let netlink = match new_connection() {
        Ok((connection, handle, _messages)) => {
            tokio::spawn(connection);
            handle
        }
        Err(error) => return warn!(%error, "nobody is asked whether it takes a VIP's packets"),
    };
    while let Some(first) = questions.recv().await {
        match Wire::open(&netlink) {
            Ok(wire) => wire.serve(first, &mut questions).await,
            Err(error) => {
                warn!(%error, "a real server cannot be asked whether it takes a VIP's packets");
                first.tell(AtVip::NotAsked).await;
            }
        }
    }
}

impl Asked {
    async fn tell(self, answer: AtVip) {
        debug!(question = ?self.question, ?answer, "asked at a VIP");
        // One that is gone is told nothing.
        let _ = self.agent.send(TableNotice::AtVip(self.question, answer)).await;
    }
}

/// How a neighbour is reached.
struct Neighbour {
    ifindex: u32,
    /// This host's, towards it.
    source: IpAddr,
    from: Mac,
    to: Mac,
}

struct Wire<'a> {
    netlink: &'a Handle,
    sender: Sender,
    segments: Segments,
    port: u16,
    /// Who waits, by the number that an answer acknowledges.
    waiting: RefCell<BTreeMap<u32, oneshot::Sender<Segment>>>,
    next: RefCell<u32>,
}

impl<'a> Wire<'a> {
    fn open(netlink: &'a Handle) -> io::Result<Self> {
        let [port, next] = [random()?, random()?];
        let room = u32::from(PORTS.end - PORTS.start);
        let port = PORTS.start + u16::try_from(port % room).unwrap_or(0);
        let (sender, segments) = (Sender::open()?, Segments::open(port)?);
        let (waiting, next) = (RefCell::default(), RefCell::new(next));
        Ok(Self { netlink, sender, segments, port, waiting, next })
    }

    /// Until nobody asks any more.
    async fn serve(&self, first: Asked, questions: &mut mpsc::Receiver<Asked>) {
        let mut asking = FuturesUnordered::new();
        asking.push(self.answer(first));
        loop {
            tokio::select! {
                Some(next) = questions.recv(), if asking.len() < AT_ONCE => {
                    asking.push(self.answer(next));
                }
                Some(()) = asking.next(), if !asking.is_empty() => {}
                heard = self.segments.next() => match heard {
                    Ok(segment) => self.heard(segment),
                    Err(error) => {
                        warn!(%error, "answers for VIPs cannot be heard");
                        return;
                    }
                },
                () = sleep(LINGER), if asking.is_empty() => return,
            }
        }
    }

    fn heard(&self, segment: Segment) {
        if let Some(waits) = self.waiting.borrow_mut().remove(&segment.acknowledges) {
            let _ = waits.send(segment);
        }
    }

    async fn answer(&self, asked: Asked) {
        let answer = match self.neighbour(asked.question.real).await {
            Some(neighbour) => self.ask(&asked, &neighbour).await,
            None => AtVip::NotAsked,
        };
        asked.tell(answer).await;
    }

    async fn ask(&self, asked: &Asked, neighbour: &Neighbour) -> AtVip {
        let number = self.next.replace_with(|next| next.wrapping_add(0x9e37_79b9));
        let mut frame = SynFrame {
            macs: (neighbour.from, neighbour.to),
            ips: (neighbour.source, asked.question.vip.ip()),
            ports: (self.port, asked.question.vip.port()),
            number,
            is_reset: false,
        };
        let Some(syn) = frame.bytes() else { return AtVip::NotAsked };
        let (waits, mut heard) = oneshot::channel();
        self.waiting.borrow_mut().insert(number.wrapping_add(1), waits);
        let again = async {
            let mut ticks = interval(AGAIN);
            loop {
                ticks.tick().await;
                if let Err(error) = self.sender.send(neighbour.ifindex, &syn) {
                    break error;
                }
            }
        };
        let answer = tokio::select! {
            heard = timeout(asked.limit, &mut heard) => match heard {
                Ok(Ok(segment)) if segment.from != asked.question.vip => AtVip::Silent,
                Ok(Ok(segment)) if segment.resets => AtVip::Refuses,
                Ok(Ok(_)) => AtVip::Accepts,
                Ok(Err(_)) => AtVip::NotAsked,
                Err(_) => AtVip::Silent,
            },
            error = again => {
                debug!(%error, "a question was not sent");
                AtVip::NotAsked
            }
        };
        self.waiting.borrow_mut().remove(&number.wrapping_add(1));
        if answer == AtVip::Accepts {
            (frame.number, frame.is_reset) = (number.wrapping_add(1), true);
            let reset = frame.bytes().map(|reset| self.sender.send(neighbour.ifindex, &reset));
            // Else its kernel gives up by itself.
            let _ = reset;
        }
        answer
    }

    /// `None`: it is none of this host's, or nobody spoke with it yet.
    async fn neighbour(&self, ip: IpAddr) -> Option<Neighbour> {
        let (ifindex, source) = route_to(self.netlink, ip).await?;
        let links = self.netlink.link().get().match_index(ifindex).execute();
        let link = links.try_collect::<Vec<_>>().await.ok()?.into_iter().next()?;
        let from = link.attributes.iter().find_map(|attribute| match attribute {
            LinkAttribute::Address(bytes) => mac(bytes),
            _ => None,
        })?;
        let to = self.mac_of(ifindex, ip).await?;
        Some(Neighbour { ifindex, source, from, to })
    }

    async fn mac_of(&self, ifindex: u32, ip: IpAddr) -> Option<Mac> {
        let mut message = NeighbourMessage::default();
        message.header.ifindex = ifindex;
        let (family, destination) = match ip {
            IpAddr::V4(v4) => (AddressFamily::Inet, NeighbourAddress::Inet(v4)),
            IpAddr::V6(v6) => (AddressFamily::Inet6, NeighbourAddress::Inet6(v6)),
        };
        message.header.family = family;
        message.attributes.push(NeighbourAttribute::Destination(destination));
        let mut request = NetlinkMessage::from(RouteNetlinkMessage::GetNeighbour(message));
        // One, and not all (Linux 5.0).
        request.header.flags = NLM_F_REQUEST;
        let mut replies = self.netlink.clone().request(request).ok()?;
        let NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewNeighbour(found)) =
            replies.next().await?.payload
        else {
            return None;
        };
        found.attributes.iter().find_map(|attribute| match attribute {
            NeighbourAttribute::LinkLayerAddress(bytes) => mac(bytes),
            _ => None,
        })
    }
}

fn mac(bytes: &[u8]) -> Option<Mac> {
    bytes.try_into().ok().map(Mac)
}

fn random() -> io::Result<u32> {
    use std::io::Read;
    let mut bytes = [0; 4];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(u32::from_le_bytes(bytes))
}
