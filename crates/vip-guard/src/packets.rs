//! Packet sockets: one sends announcements, one hears claims.

use crate::frames::{Mac, arp_claim};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::io;
use std::mem::MaybeUninit;
use std::net::IpAddr;
use tokio::io::unix::AsyncFd;

/// Room for an ARP packet and the padding of the shortest Ethernet frame.
const ARP_BUFFER: usize = 128;

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

/// Hears the ARP packets of all interfaces.
pub(crate) struct Listener(AsyncFd<Socket>);

impl Listener {
    pub(crate) fn open() -> io::Result<Self> {
        let protocol = Protocol::from(i32::from(ETHERTYPE_ARP.to_be()));
        let socket = Socket::new(Domain::PACKET, Type::DGRAM, Some(protocol))?;
        socket.set_nonblocking(true)?;
        #[expect(unsafe_code, reason = "the contract of AsyncFd is I/O safety, which Socket keeps")]
        // SAFETY: `Socket` owns its descriptor and always returns the same one.
        let registered = unsafe { AsyncFd::register(socket) }?;
        Ok(Self(registered))
    }

    /// Waits for the next claim of an address by anybody.
    pub(crate) async fn claim(&self) -> io::Result<(Mac, IpAddr)> {
        loop {
            let mut ready = self.0.readable().await?;
            let mut buffer = [MaybeUninit::uninit(); ARP_BUFFER];
            let Ok(received) = ready.try_io(|fd| fd.get_ref().recv(&mut buffer)) else {
                continue;
            };
            let len = match received {
                Ok(len) => len.min(ARP_BUFFER),
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
            if let Some(claim) = arp_claim(&bytes) {
                return Ok(claim);
            }
        }
    }
}
