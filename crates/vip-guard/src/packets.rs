//! Sockets for whole packets: one sends announcements and probes, others hear
//! claims.

pub(crate) use crate::frames::{Segment, SynFrame};

use crate::frames::{advertised_claim, arp_claim, segment};
use nix::sys::socket::{LinkAddr, recvfrom};
use socket2::{Domain, Protocol, SockAddr, SockFilter, Socket, Type};
use std::io;
use std::mem::MaybeUninit;
use std::net::IpAddr;
use std::os::fd::AsRawFd;
use tokio::io::unix::AsyncFd;
use vip_core::Mac;

/// Room for an ARP packet and the padding of the shortest Ethernet frame, and
/// for a neighbour advertisement with its option.
const BUFFER: usize = 128;

/// An address of the link layer, for `AF_PACKET` (packet(7)).
#[expect(unsafe_code, reason = "socket2 has no constructor for sockaddr_ll")]
fn link_address(ifindex: u32, protocol: u16) -> io::Result<SockAddr> {
    let ifindex = i32::try_from(ifindex).map_err(io::Error::other)?;
    // SAFETY: `storage` is zeroed and larger than a sockaddr_ll, which has no
    // invalid bit patterns; the length set is the one of sockaddr_ll.
    let ((), address) = unsafe {
        SockAddr::try_init(|storage, len| {
            let link = storage.cast::<libc::sockaddr_ll>();
            (*link).sll_family = u16::try_from(libc::AF_PACKET).map_err(io::Error::other)?;
            (*link).sll_protocol = protocol.to_be();
            (*link).sll_ifindex = ifindex;
            *len = u32::try_from(size_of::<libc::sockaddr_ll>()).map_err(io::Error::other)?;
            Ok(())
        })
    }?;
    Ok(address)
}

const ETHERTYPE_ARP: u16 = 0x0806;
const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_IPV6: u16 = 0x86dd;

/// Sends frames on any interface.
pub(crate) struct Sender(Socket);

impl Sender {
    pub(crate) fn open() -> io::Result<Self> {
        // Protocol 0: it receives nothing.
        let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(0)))?;
        socket.set_nonblocking(true)?;
        Ok(Self(socket))
    }

    pub(crate) fn send(&self, ifindex: u32, frame: &[u8]) -> io::Result<()> {
        self.0.send_to(frame, &link_address(ifindex, 0)?).map(|_| ())
    }
}

/// Hears who claims addresses, on all interfaces: in ARP packets, and in
/// neighbour advertisements.
pub(crate) struct Listener {
    arp: AsyncFd<Socket>,
    /// `None`: this host has no IPv6.
    advertisements: Option<AsyncFd<Socket>>,
}

/// Classic BPF for a raw ICMPv6 socket: neighbour advertisements whose hop limit
/// says that no router passed them on (RFC 4861 §7.1.2).
fn advertisements() -> [SockFilter; 6] {
    const LOAD_BYTE: u16 = 0x30;
    const JUMP_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    // The IPv6 header, wherever it is (SKF_NET_OFF); its hop limit is byte 7.
    const HOP_LIMIT: u32 = 0xfff0_0007;
    [
        SockFilter::new(LOAD_BYTE, 0, 0, HOP_LIMIT),
        SockFilter::new(JUMP_EQUAL, 0, 3, 255),
        SockFilter::new(LOAD_BYTE, 0, 0, 0),
        SockFilter::new(JUMP_EQUAL, 0, 1, 136),
        SockFilter::new(RETURN, 0, 0, u32::MAX),
        SockFilter::new(RETURN, 0, 0, 0),
    ]
}

fn register(socket: Socket) -> io::Result<AsyncFd<Socket>> {
    socket.set_nonblocking(true)?;
    #[expect(unsafe_code, reason = "the contract of AsyncFd is I/O safety, which Socket keeps")]
    // SAFETY: `Socket` owns its descriptor and always returns the same one.
    let registered = unsafe { AsyncFd::register(socket) }?;
    Ok(registered)
}

/// Hears answers to SYNs that were sent from the upper ports of this host, whatever its stack
/// makes of them.
pub(crate) struct Segments {
    v4: AsyncFd<Socket>,
    v6: AsyncFd<Socket>,
}

/// Classic BPF for packets without their Ethernet header: to a port or one above it, a segment of
/// TCP that acknowledges something and offers a connection or resets one (RFC 9293 section 3.1);
/// whole by IPv4, and behind an IPv6 header without extensions.
fn answers_to(first: u16) -> ([SockFilter; 13], [SockFilter; 10]) {
    const LOAD_BYTE: u16 = 0x30;
    const LOAD_HALF: u16 = 0x28;
    const LOAD_BYTE_BEHIND: u16 = 0x50;
    const LOAD_HALF_BEHIND: u16 = 0x48;
    const SKIP_HEADER: u16 = 0xb1;
    const AND: u16 = 0x54;
    const JUMP_EQUAL: u16 = 0x15;
    const JUMP_NOT_BELOW: u16 = 0x35;
    const JUMP_ANY_OF: u16 = 0x45;
    const RETURN: u16 = 0x06;
    const TCP: u32 = 6;
    const MORE_OR_LATER: u32 = 0x3fff;
    const SYN_RST_ACK: u32 = 0x16;
    const SYN_ACK: u32 = 0x12;
    const RST_ACK: u32 = 0x14;
    let all = u32::try_from(BUFFER).unwrap_or(u32::MAX);
    let v4 = [
        SockFilter::new(LOAD_BYTE, 0, 0, 9),
        SockFilter::new(JUMP_EQUAL, 0, 10, TCP),
        SockFilter::new(LOAD_HALF, 0, 0, 6),
        SockFilter::new(JUMP_ANY_OF, 8, 0, MORE_OR_LATER),
        SockFilter::new(SKIP_HEADER, 0, 0, 0),
        SockFilter::new(LOAD_HALF_BEHIND, 0, 0, 2),
        SockFilter::new(JUMP_NOT_BELOW, 0, 5, first.into()),
        SockFilter::new(LOAD_BYTE_BEHIND, 0, 0, 13),
        SockFilter::new(AND, 0, 0, SYN_RST_ACK),
        SockFilter::new(JUMP_EQUAL, 1, 0, SYN_ACK),
        SockFilter::new(JUMP_EQUAL, 0, 1, RST_ACK),
        SockFilter::new(RETURN, 0, 0, all),
        SockFilter::new(RETURN, 0, 0, 0),
    ];
    let v6 = [
        SockFilter::new(LOAD_BYTE, 0, 0, 6),
        SockFilter::new(JUMP_EQUAL, 0, 7, TCP),
        SockFilter::new(LOAD_HALF, 0, 0, 42),
        SockFilter::new(JUMP_NOT_BELOW, 0, 5, first.into()),
        SockFilter::new(LOAD_BYTE, 0, 0, 53),
        SockFilter::new(AND, 0, 0, SYN_RST_ACK),
        SockFilter::new(JUMP_EQUAL, 1, 0, SYN_ACK),
        SockFilter::new(JUMP_EQUAL, 0, 1, RST_ACK),
        SockFilter::new(RETURN, 0, 0, all),
        SockFilter::new(RETURN, 0, 0, 0),
    ];
    (v4, v6)
}

impl Segments {
    pub(crate) fn open(first: u16) -> io::Result<Self> {
        let (v4, v6) = answers_to(first);
        let hears = |ethertype: u16, filter: &[SockFilter]| {
            // It hears nothing before it has its filter.
            let socket = Socket::new(Domain::PACKET, Type::DGRAM, Some(Protocol::from(0)))?;
            socket.attach_filter(filter)?;
            socket.bind(&link_address(0, ethertype)?)?;
            register(socket)
        };
        Ok(Self { v4: hears(ETHERTYPE_IPV4, &v4)?, v6: hears(ETHERTYPE_IPV6, &v6)? })
    }

    /// Waits for the next one that acknowledges something.
    pub(crate) async fn next(&self) -> io::Result<Segment> {
        tokio::select! {
            segment = next_segment(&self.v4) => segment,
            segment = next_segment(&self.v6) => segment,
        }
    }
}

impl Listener {
    pub(crate) fn open() -> io::Result<Self> {
        let protocol = Protocol::from(i32::from(ETHERTYPE_ARP.to_be()));
        let arp = register(Socket::new(Domain::PACKET, Type::DGRAM, Some(protocol))?)?;
        let advertisements = match Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::ICMPV6)) {
            Ok(socket) => {
                socket.attach_filter(&advertisements())?;
                Some(register(socket)?)
            }
            Err(e) if e.raw_os_error() == Some(libc::EAFNOSUPPORT) => None,
            Err(e) => return Err(e),
        };
        Ok(Self { arp, advertisements })
    }

    /// Waits for the next claim of an address by anybody.
    pub(crate) async fn claim(&self) -> io::Result<(Mac, IpAddr)> {
        let advertised = async {
            match &self.advertisements {
                Some(socket) => next(socket, advertised_claim).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            claim = next(&self.arp, arp_claim) => claim,
            claim = advertised => claim,
        }
    }
}

/// The next packet that claims something.
async fn next(
    socket: &AsyncFd<Socket>,
    claim: impl Fn(&[u8]) -> Option<(Mac, IpAddr)>,
) -> io::Result<(Mac, IpAddr)> {
    loop {
        let mut ready = socket.readable().await?;
        let mut buffer = [MaybeUninit::uninit(); BUFFER];
        let Ok(received) = ready.try_io(|fd| fd.get_ref().recv(&mut buffer)) else {
            continue;
        };
        let len = match received {
            Ok(len) => len.min(BUFFER),
            // An interface went down; the socket hears the others still.
            Err(e) if e.raw_os_error() == Some(libc::ENETDOWN) => continue,
            Err(e) => return Err(e),
        };
        let bytes: Vec<u8> = buffer[..len]
            .iter()
            .map(|byte| {
                #[expect(unsafe_code, reason = "recv returned how many bytes it wrote")]
                // SAFETY: the kernel wrote the first `len` bytes.
                unsafe {
                    byte.assume_init()
                }
            })
            .collect();
        if let Some(claim) = claim(&bytes) {
            return Ok(claim);
        }
    }
}

/// The next segment, and whose Ethernet address it is from.
async fn next_segment(socket: &AsyncFd<Socket>) -> io::Result<Segment> {
    loop {
        let mut ready = socket.readable().await?;
        let mut buffer = [0; BUFFER];
        let received =
            ready.try_io(|socket| Ok(recvfrom::<LinkAddr>(socket.as_raw_fd(), &mut buffer)?));
        let Ok(received) = received else { continue };
        let (len, from) = match received {
            Ok((len, from)) => (len.min(BUFFER), from.and_then(|from| from.addr())),
            // An interface went down; the socket hears the others still.
            Err(e) if e.raw_os_error() == Some(libc::ENETDOWN) => continue,
            Err(e) => return Err(e),
        };
        if let Some(segment) = from.and_then(|mac| segment(Mac(mac), &buffer[..len])) {
            return Ok(segment);
        }
    }
}
