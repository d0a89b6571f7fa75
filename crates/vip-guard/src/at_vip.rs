//! Whether neighbours take what is sent to a VIP, as real servers of direct routing have to:
//! a SYN for the VIP goes to a neighbour's own Ethernet address, and what comes back tells.
//! On a thread of its own, which nobody waits for.
//!
//! With a hop limit of 1, which goes no further: a host without the VIP may route it on to the
//! holder, who has somebody else answer. Where nothing comes back it is asked once more with that
//! of any packet, since a host may pass it on to containers of its own; then its own Ethernet
//! address alone is believed. A connection that is offered is refused at once.

use crate::allow::objection_to_real;
use crate::packets::{Segment, Segments, Sender, SynFrame};
use crate::ways::{Scenery, route_to};
use arc_swap::ArcSwap;
use futures_util::stream::FuturesUnordered;
use futures_util::{StreamExt, TryStreamExt};
use ipnet::IpNet;
use netlink_packet_core::{NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::link::LinkAttribute;
use netlink_packet_route::neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::{Handle, new_connection};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
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
/// As far as packets of clients go.
const HOPS: u8 = 64;
/// No host passes it on.
const NO_FURTHER: u8 = 1;
/// An offer is made again and again for so long, at intervals that grow.
const OFFERS_LAST: Duration = Duration::from_secs(10);
/// A neighbour's own answer is there by then.
const FIRST: Duration = Duration::from_millis(100);
/// What hears answers is closed after so long without a question: that takes the kernel a
/// while, and as long as it is open each packet for this host costs a look.
const LINGER: Duration = Duration::from_secs(10);
/// Where questions come from, each from another one: what the one before left half open at a
/// host would keep it from answering. Linux gives them to nobody by itself
/// (`ip_local_port_range`).
const FIRST_PORT: u16 = 61_000;

/// Whoever asked, as it is told of tables.
type Agent = Arc<mpsc::Sender<TableNotice>>;

/// A question with whom to tell, and until when that is of use.
pub(crate) struct Asked {
    pub(crate) question: AtVipQuestion,
    pub(crate) limit: Duration,
    pub(crate) agent: Agent,
}

/// The host, once it was looked at: nobody is asked before.
pub(crate) type Scene = Arc<OnceLock<Arc<ArcSwap<Scenery>>>>;

/// See the module. Dropping it ends the thread.
pub(crate) struct Asker(mpsc::Sender<Asked>);

impl Asker {
    /// Asks those that may be real servers, as root has it. `None`: nobody can be asked.
    pub(crate) fn start(allow: Vec<IpNet>) -> (Option<Self>, Scene) {
        let scene = Scene::default();
        let started = Self::try_start(allow, scene.clone());
        let started =
            started.inspect_err(|error| warn!(%error, "real servers are not asked at VIPs"));
        (started.ok(), scene)
    }

    fn try_start(allow: Vec<IpNet>, scene: Scene) -> io::Result<Self> {
        let (ask, questions) = mpsc::channel(WAITING);
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
        std::thread::Builder::new()
            .name("at-vip".into())
            .spawn(move || runtime.block_on(run(Host { allow, scene }, questions)))?;
        Ok(Self(ask))
    }

    /// False: there is no room for it.
    pub(crate) fn ask(&self, asked: Asked) -> bool {
        self.0.try_send(asked).is_ok()
    }
}

struct Host {
    allow: Vec<IpNet>,
    scene: Scene,
}

impl Host {
    fn may_ask(&self, real: IpAddr) -> bool {
        let scenery = self.scene.get().map(|scenery| scenery.load());
        scenery.is_some_and(|known| objection_to_real(&self.allow, &known.view, real).is_none())
    }
}

async fn run(host: Host, mut questions: mpsc::Receiver<Asked>) {
    let netlink = match new_connection() {
        Ok((connection, handle, _messages)) => {
            tokio::spawn(connection);
            handle
        }
        Err(error) => return warn!(%error, "nobody is asked whether it takes a VIP's packets"),
    };
    while let Some(first) = questions.recv().await {
        match Wire::open(&host, &netlink) {
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
    host: &'a Host,
    netlink: &'a Handle,
    sender: Sender,
    segments: Segments,
    /// Who waits, by whom an answer comes from and what it acknowledges: a number that nobody
    /// else can know.
    waiting: RefCell<BTreeMap<(SocketAddr, u32), oneshot::Sender<Segment>>>,
    /// What nobody waits for any more, by the same.
    over: RefCell<BTreeMap<(SocketAddr, u32), Over>>,
}

/// A question that is over. What is offered late, or again, is refused as well: half open at a
/// server it would take a place for a minute.
struct Over {
    ifindex: u32,
    reset: SynFrame,
    since: Instant,
}

impl<'a> Wire<'a> {
    fn open(host: &'a Host, netlink: &'a Handle) -> io::Result<Self> {
        let (sender, segments) = (Sender::open()?, Segments::open(FIRST_PORT)?);
        let (waiting, over) = Default::default();
        Ok(Self { host, netlink, sender, segments, waiting, over })
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
        let of = (segment.from, segment.acknowledges);
        if let Some(waits) = self.waiting.borrow_mut().remove(&of) {
            let _ = waits.send(segment);
        } else if let Some(over) = self.over.borrow().get(&of) {
            self.refuse(over, &segment);
        }
    }

    async fn answer(&self, asked: Asked) {
        let real = asked.question.real;
        let neighbour = if self.host.may_ask(real) { self.neighbour(real).await } else { None };
        let answer = match neighbour {
            Some(neighbour) => self.ask(&asked, &neighbour).await,
            None => Ok(AtVip::NotAsked),
        };
        let answer = answer.inspect_err(|error| debug!(%error, "a question was not sent"));
        asked.tell(answer.unwrap_or(AtVip::NotAsked)).await;
    }

    async fn ask(&self, asked: &Asked, neighbour: &Neighbour) -> io::Result<AtVip> {
        let (vip, begun) = (asked.question.vip, Instant::now());
        let mut heard = self.send(vip, neighbour, (NO_FURTHER, FIRST.min(asked.limit))).await?;
        if heard.is_none() {
            let left = asked.limit.saturating_sub(begun.elapsed()).max(FIRST);
            let further = self.send(vip, neighbour, (HOPS, left)).await?;
            heard = further.filter(|segment| segment.mac == neighbour.to);
        }
        Ok(match heard {
            None => AtVip::Silent,
            Some(segment) if segment.resets => AtVip::Refuses,
            Some(_) => AtVip::Accepts,
        })
    }

    /// One question, and what is heard of it within the time.
    async fn send(
        &self,
        vip: SocketAddr,
        neighbour: &Neighbour,
        (hops, limit): (u8, Duration),
    ) -> io::Result<Option<Segment>> {
        let (number, port) = (random()?, random()? % u32::from(u16::MAX - FIRST_PORT));
        let port = FIRST_PORT + u16::try_from(port).unwrap_or_default();
        let mut frame = SynFrame {
            macs: (neighbour.from, neighbour.to),
            ips: (neighbour.source, vip.ip()),
            ports: (port, vip.port()),
            number,
            hops,
            is_reset: false,
        };
        let syn = frame.bytes().ok_or(io::ErrorKind::InvalidInput)?;
        let (waits, heard) = oneshot::channel();
        let key = (vip, number.wrapping_add(1));
        self.waiting.borrow_mut().insert(key, waits);
        // What nobody waits for any more would be offered, and refused by nobody.
        let times = 1 + limit.saturating_sub(AGAIN).as_millis() / AGAIN.as_millis();
        let again = async {
            let mut ticks = interval(AGAIN);
            for _ in 0..times {
                ticks.tick().await;
                if let Err(error) = self.sender.send(neighbour.ifindex, &syn) {
                    return error;
                }
            }
            std::future::pending().await
        };
        let heard = tokio::select! {
            heard = timeout(limit, heard) => Ok(heard.ok().and_then(Result::ok)),
            error = again => Err(error),
        };
        self.waiting.borrow_mut().remove(&key);
        frame.is_reset = true;
        frame.number = key.1;
        let over = Over { ifindex: neighbour.ifindex, reset: frame, since: Instant::now() };
        if let Ok(Some(segment)) = &heard {
            self.refuse(&over, segment);
        }
        let mut all = self.over.borrow_mut();
        all.retain(|_, over| over.since.elapsed() < OFFERS_LAST);
        all.insert(key, over);
        heard
    }

    /// What is offered nobody takes.
    fn refuse(&self, over: &Over, segment: &Segment) {
        if !segment.resets {
            let macs = (over.reset.macs.0, segment.mac);
            let reset = SynFrame { macs, ..over.reset }.bytes();
            // Else its kernel gives up by itself.
            let _ = reset.map(|reset| self.sender.send(over.ifindex, &reset));
        }
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
