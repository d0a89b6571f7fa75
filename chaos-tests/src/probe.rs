//! A client that asks a VIP a thousand times a second and notes who answered,
//! when, by the Ethernet address of each reply and the kernel's own time stamp.
//!
//! It asks twice: as any client, whose neighbour cache follows announcements;
//! and each host directly, by its Ethernet address, whatever the cache says. A
//! host that should be silent and is not cannot hide behind the announcement of
//! another. It also notes who claims the VIP by ARP, asked or not.

use crate::net::{Lab, Mac, enter};
use anyhow::{Context, Result};
use nix::cmsg_space;
use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, recvmsg, setsockopt, sockopt::ReceiveTimestampns,
};
use nix::sys::time::TimeSpec;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::io::IoSliceMut;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long answers are waited for once nobody asks any more.
const LAST: Duration = Duration::from_millis(100);
/// Between two requests.
const INTERVAL: Duration = Duration::from_millis(1);
const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_ARP: u16 = 0x0806;
/// Sender's protocol address, in a frame.
const ARP_SENDER: std::ops::Range<usize> = 28..32;
const IPV4_AT: usize = 14;
const ICMP_ECHO_REPLY: u8 = 0;
/// ICMP ids of the two ways of asking.
const AS_CLIENT: u16 = 0x7669;
const DIRECTLY: u16 = 0x766a;
/// The client's own address in the lab.
const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 250);

/// One reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reply {
    /// When it came, ns since 1970, by the kernel.
    pub at_ns: u64,
    /// Who sent it.
    pub from: Mac,
    /// It was asked by its Ethernet address.
    pub direct: bool,
}

/// An ARP message with the VIP as the sender's address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// When it came, ns since 1970, by the kernel.
    pub at_ns: u64,
    /// Who sent it.
    pub from: Mac,
}

/// A running probe.
#[derive(Debug)]
pub struct Probe {
    stop: Arc<AtomicBool>,
    sender: Option<JoinHandle<Result<u32>>>,
    receiver: Option<JoinHandle<Result<Vec<Reply>>>>,
    listener: Option<JoinHandle<Result<Vec<Claim>>>>,
}

impl Probe {
    /// Starts probing `vip` from the lab's client.
    ///
    /// # Errors
    /// No sockets.
    pub fn start(lab: &Lab, vip: Ipv4Addr) -> Result<Self> {
        Self::start_towards(lab, vip, &[])
    }

    /// The same, and asks these Ethernet addresses directly as well.
    ///
    /// # Errors
    /// No sockets.
    pub fn start_towards(lab: &Lab, vip: Ipv4Addr, more: &[Mac]) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let (namespace, ended) = (lab.namespace("client"), stop.clone());
        let (own, hosts) = (lab.mac("client")?, [&lab.host_macs()?, more].concat());
        let (ready, listens) = std::sync::mpsc::channel::<()>();
        let sender = std::thread::spawn(move || {
            enter(&namespace)?;
            // Else the first answers are heard by nobody. One that failed says so itself.
            let _ = listens.recv();
            send(vip, own, &hosts, &ended)
        });
        let (namespace, ended) = (lab.namespace("client"), stop.clone());
        let receiver = std::thread::spawn(move || {
            enter(&namespace)?;
            let reply = |frame: &[u8], at_ns| {
                let (from, direct) = echo_reply(frame, vip)?;
                Some(Reply { at_ns, from, direct })
            };
            receive(ETHERTYPE_IPV4, reply, &ended, || drop(ready))
        });
        let (namespace, ended) = (lab.namespace("client"), stop.clone());
        let listener = std::thread::spawn(move || {
            enter(&namespace)?;
            let claim = |frame: &[u8], at_ns| {
                let from = arp_sender(frame, vip)?;
                Some(Claim { at_ns, from })
            };
            receive(ETHERTYPE_ARP, claim, &ended, || {})
        });
        let (receiver, listener) = (Some(receiver), Some(listener));
        Ok(Self { stop, sender: Some(sender), receiver, listener })
    }

    /// Ends it and returns what it saw.
    ///
    /// # Errors
    /// A socket failed meanwhile.
    pub fn finish(mut self) -> Result<Trace> {
        self.stop.store(true, Ordering::Relaxed);
        let ended = |_| anyhow::anyhow!("the probe panicked");
        let sender = self.sender.take().context("finished twice")?;
        let asked = sender.join().map_err(ended)??;
        let receiver = self.receiver.take().context("finished twice")?;
        let mut replies = receiver.join().map_err(ended)??;
        replies.sort_by_key(|r| r.at_ns);
        let listener = self.listener.take().context("finished twice")?;
        let claims = listener.join().map_err(ended)??;
        Ok(Trace { asked, replies, claims })
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// An echo request to `vip`, in a frame to `to`.
fn direct_request(own: Mac, to: Mac, vip: Ipv4Addr, sequence: u16) -> Result<Vec<u8>> {
    let mut frame = vec![];
    etherparse::PacketBuilder::ethernet2(own, to)
        .ipv4(CLIENT.octets(), vip.octets(), 64)
        .icmpv4_echo_request(DIRECTLY, sequence)
        .write(&mut frame, &[])?;
    Ok(frame)
}

/// An `AF_PACKET` socket that sends on the client's only interface.
pub(crate) fn packet_sender() -> Result<(Socket, SockAddr)> {
    let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(0)))?;
    socket.set_nonblocking(true)?;
    let index = nix::net::if_::if_nametoindex("eth0")?;
    #[expect(unsafe_code, reason = "socket2 has no constructor for sockaddr_ll")]
    // SAFETY: the storage is zeroed and larger than a sockaddr_ll, which has no
    // invalid bit patterns; the length set is the one of sockaddr_ll.
    let ((), address) = unsafe {
        SockAddr::try_init(|storage, len| {
            let link = storage.cast::<libc::sockaddr_ll>();
            (*link).sll_family = u16::try_from(libc::AF_PACKET).map_err(std::io::Error::other)?;
            (*link).sll_ifindex = i32::try_from(index).map_err(std::io::Error::other)?;
            let size = size_of::<libc::sockaddr_ll>();
            *len = u32::try_from(size).map_err(std::io::Error::other)?;
            Ok(())
        })
    }?;
    Ok((socket, address))
}

/// Returns how often it asked as a client does.
fn send(vip: Ipv4Addr, own: Mac, hosts: &[Mac], stop: &AtomicBool) -> Result<u32> {
    let (packets, link) = packet_sender()?;
    let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4))?;
    socket.set_nonblocking(true)?;
    let to = SockAddr::from(SocketAddr::new(IpAddr::V4(vip), 0));
    let begin = Instant::now();
    let mut count = 0u32;
    while !stop.load(Ordering::Relaxed) {
        let sequence = u16::try_from(count % 0x1_0000)?;
        let echo = etherparse::IcmpEchoHeader { id: AS_CLIENT, seq: sequence };
        let header =
            etherparse::Icmpv4Header::with_checksum(etherparse::Icmpv4Type::EchoRequest(echo), &[]);
        // Nobody to send to is what is measured.
        let _ = socket.send_to(&header.to_bytes(), &to);
        for host in hosts {
            let _ = packets.send_to(&direct_request(own, *host, vip, sequence)?, &link);
        }
        count += 1;
        let next = begin + INTERVAL * count;
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    Ok(count)
}

/// Frames of a type, as far as `parse` makes something of them.
fn receive<T>(
    ethertype: u16,
    parse: impl Fn(&[u8], u64) -> Option<T>,
    stop: &AtomicBool,
    listens: impl FnOnce(),
) -> Result<Vec<T>> {
    let protocol = Protocol::from(i32::from(ethertype.to_be()));
    let socket = Socket::new(Domain::PACKET, Type::RAW, Some(protocol))?;
    socket.set_read_timeout(Some(Duration::from_millis(50)))?;
    socket.set_recv_buffer_size(4 << 20)?;
    setsockopt(&socket, ReceiveTimestampns, &true)?;
    let mut parsed = vec![];
    let mut frame = [0u8; 256];
    let mut space = cmsg_space!(TimeSpec);
    listens();
    let mut until = None;
    // What was asked last is answered yet.
    while until.is_none_or(|until| Instant::now() < until) {
        if until.is_none() && stop.load(Ordering::Relaxed) {
            until = Some(Instant::now() + LAST);
        }
        let mut parts = [IoSliceMut::new(&mut frame)];
        let received =
            recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut space), MsgFlags::empty());
        let (len, at) = match received {
            Err(nix::Error::EAGAIN | nix::Error::EINTR | nix::Error::ENETDOWN) => continue,
            Err(e) => return Err(e.into()),
            Ok(message) => {
                let stamp = message.cmsgs()?.find_map(|c| match c {
                    ControlMessageOwned::ScmTimestampns(at) => Some(at),
                    _ => None,
                });
                (message.bytes, stamp)
            }
        };
        let Some(at) = at else { continue };
        let seconds = u64::try_from(at.tv_sec())?;
        let at_ns = seconds * 1_000_000_000 + u64::try_from(at.tv_nsec())?;
        parsed.extend(parse(&frame[..len.min(frame.len())], at_ns));
    }
    Ok(parsed)
}

/// Who claims `vip`, if that is what the frame is.
fn arp_sender(frame: &[u8], vip: Ipv4Addr) -> Option<Mac> {
    let claims = frame.get(ARP_SENDER)? == vip.octets();
    claims.then(|| frame.get(6..12)?.try_into().ok()).flatten()
}

/// Who sent an echo reply from `vip`, and whether it was asked directly, if that
/// is what the frame is.
fn echo_reply(frame: &[u8], vip: Ipv4Addr) -> Option<(Mac, bool)> {
    let from: Mac = frame.get(6..12)?.try_into().ok()?;
    let ip = frame.get(IPV4_AT..)?;
    let header_len = usize::from(ip.first()? & 0xf) * 4;
    let is_icmp = *ip.get(9)? == 1;
    let source: [u8; 4] = ip.get(12..16)?.try_into().ok()?;
    let reply = *ip.get(header_len)? == ICMP_ECHO_REPLY;
    let id: [u8; 2] = ip.get(header_len + 4..header_len + 6)?.try_into().ok()?;
    let direct = match u16::from_be_bytes(id) {
        AS_CLIENT => false,
        DIRECTLY => true,
        _ => return None,
    };
    (is_icmp && reply && Ipv4Addr::from(source) == vip).then_some((from, direct))
}

/// A span without an answer, between two answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outage {
    /// Last reply before.
    pub from_ns: u64,
    /// First reply after.
    pub to_ns: u64,
    /// Who answered before.
    pub before: Mac,
    /// Who answered after.
    pub after: Mac,
}

impl Outage {
    /// How long it was, ms.
    #[must_use]
    pub fn ms(&self) -> f64 {
        Duration::from_nanos(self.to_ns - self.from_ns).as_secs_f64() * 1e3
    }
}

/// All replies, in the order they came.
#[derive(Clone, Debug, Default)]
pub struct Trace {
    /// How often it asked as a client does.
    pub asked: u32,
    pub replies: Vec<Reply>,
    /// Who claimed the VIP.
    pub claims: Vec<Claim>,
}

impl Trace {
    /// Changes of the answering host as a client sees them, each with the span
    /// between.
    #[must_use]
    pub fn changes(&self) -> Vec<Outage> {
        self.gaps(|a, b| a.from != b.from)
    }

    /// What was asked as a client does, and never answered. A host that stood still as a whole
    /// answers late, which is none.
    #[must_use]
    pub fn lost(&self) -> usize {
        let answered = self.replies.iter().filter(|reply| !reply.direct).count();
        usize::try_from(self.asked).unwrap_or(usize::MAX).saturating_sub(answered)
    }

    /// Spans of at least `least` in which a client had no answer.
    #[must_use]
    pub fn outages(&self, least: Duration) -> Vec<Outage> {
        let least = u64::try_from(least.as_nanos()).unwrap_or(u64::MAX);
        self.gaps(|a, b| b.at_ns - a.at_ns >= least)
    }

    fn gaps(&self, is_one: impl Fn(&Reply, &Reply) -> bool) -> Vec<Outage> {
        let client: Vec<&Reply> = self.replies.iter().filter(|r| !r.direct).collect();
        let pairs = client.windows(2).filter(|w| is_one(w[0], w[1]));
        pairs
            .map(|w| Outage {
                from_ns: w[0].at_ns,
                to_ns: w[1].at_ns,
                before: w[0].from,
                after: w[1].from,
            })
            .collect()
    }

    /// Hosts that answered anybody, each as often as it took over: a host that appears
    /// again after another one answered in between was given the VIP again, or
    /// answered when it should not have. Which of the two, the epochs tell.
    #[must_use]
    pub fn holders(&self) -> Vec<Mac> {
        let mut holders: Vec<Mac> = self.replies.iter().map(|r| r.from).collect();
        holders.dedup();
        holders
    }

    /// Hosts that answered again within `span` after another one had answered:
    /// two at a time, unless the VIP was moved there and back.
    #[must_use]
    pub fn overlaps(&self, span: Duration) -> Vec<Mac> {
        let span = u64::try_from(span.as_nanos()).unwrap_or(u64::MAX);
        let mut stretches: Vec<(Mac, u64, u64)> = vec![];
        for reply in &self.replies {
            match stretches.last_mut() {
                Some((from, _, last)) if *from == reply.from => *last = reply.at_ns,
                _ => stretches.push((reply.from, reply.at_ns, reply.at_ns)),
            }
        }
        let again = |three: &[(Mac, u64, u64)]| match three {
            [(a, _, last), _, (b, first, _)] if a == b && first - last < span => Some(*a),
            _ => None,
        };
        stretches.windows(3).filter_map(again).collect()
    }

    /// The same, of those who answered or claimed the VIP by ARP.
    #[must_use]
    pub fn claimants(&self) -> Vec<Mac> {
        let replies = self.replies.iter().map(|r| (r.at_ns, r.from));
        let claims = self.claims.iter().map(|c| (c.at_ns, c.from));
        let mut all: Vec<(u64, Mac)> = replies.chain(claims).collect();
        all.sort_by_key(|(at, _)| *at);
        let mut claimants: Vec<Mac> = all.into_iter().map(|(_, from)| from).collect();
        claimants.dedup();
        claimants
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trace(replies: &[(u64, u8)]) -> Trace {
        let reply = |(at, from): &(u64, u8)| Reply {
            at_ns: at * 1_000_000,
            from: [*from; 6],
            direct: false,
        };
        Trace { asked: 0, replies: replies.iter().map(reply).collect(), claims: vec![] }
    }

    #[test]
    fn a_change_is_the_span_between_two_hosts() {
        let trace = trace(&[(1, 1), (2, 1), (12, 2), (13, 2)]);
        let changes = trace.changes();
        assert_eq!(changes.len(), 1);
        assert!((changes[0].ms() - 10.0).abs() < 1e-6);
        assert_eq!(trace.outages(Duration::from_millis(5)), changes);
    }

    #[test]
    fn two_hosts_that_answer_in_turn_are_seen() {
        assert_eq!(trace(&[(1, 1), (2, 2), (3, 1)]).holders().len(), 3);
    }

    #[test]
    fn a_late_announcement_of_a_host_that_is_silent_is_seen() {
        let mut trace = trace(&[(1, 1), (2, 2), (4, 2)]);
        trace.claims.push(Claim { at_ns: 3_000_000, from: [1; 6] });
        assert_eq!(trace.holders().len(), 2);
        assert_eq!(trace.claimants().len(), 4);
    }
}
