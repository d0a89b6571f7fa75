//! What the forwarder's maps hold, as `bpf/maps.h` has it.

use super::values::{Place, Real, Reply, Service, Way};
use std::net::IpAddr;
use std::num::NonZeroU32;
use vip_core::{Counter, Protocol, octets};

/// `struct place`.
pub(crate) type PlaceKey = [u8; 20];
/// `struct range` behind its prefix.
pub(crate) type RangeKey = [u8; 20];
/// `struct service`, `struct real`, `struct reply`, in words as they lie in memory.
pub(crate) type ServiceValue = [u64; 5];
pub(crate) type RealValue = [u8; 48];
pub(crate) type ReplyValue = [u8; 32];
/// `struct counter`.
pub(crate) type CounterValue = [u64; 4];

/// Bits of a range's key before the port.
pub(crate) const BEFORE_PORT: u32 = 144;

const BY_ADDRESS: u32 = 1;
const NAT: u32 = 2;
const REMEMBERS: u32 = 4;
const RESETS: u32 = 8;
const LOCAL: u16 = 1;

/// By the numbers of IANA.
const fn number(protocol: Protocol) -> u8 {
    match protocol {
        Protocol::Tcp => 6,
        Protocol::Udp => 17,
    }
}

/// Bytes one after the other.
struct Bytes<const N: usize> {
    bytes: [u8; N],
    at: usize,
}

impl<const N: usize> Bytes<N> {
    const fn new() -> Self {
        Self { bytes: [0; N], at: 0 }
    }

    fn then(mut self, bytes: &[u8]) -> Self {
        self.bytes[self.at..self.at + bytes.len()].copy_from_slice(bytes);
        self.at += bytes.len();
        self
    }

    fn port(self, port: Option<u16>) -> Self {
        self.then(&port.unwrap_or(0).to_be_bytes())
    }
}

pub(crate) fn place(Place { ip, protocol, port }: Place) -> PlaceKey {
    Bytes::new().then(&octets(ip)).port(Some(port)).then(&[number(protocol)]).bytes
}

pub(crate) fn range(ip: IpAddr, protocol: Protocol, port: u16) -> RangeKey {
    Bytes::new().then(&octets(ip)).then(&[0, number(protocol)]).port(Some(port)).bytes
}

/// Two halves of a word, the lower one first in memory.
fn halves(first: u32, second: u32) -> u64 {
    let [a, b, c, d] = first.to_ne_bytes();
    let [e, f, g, h] = second.to_ne_bytes();
    u64::from_ne_bytes([a, b, c, d, e, f, g, h])
}

pub(crate) fn service(id: NonZeroU32, service: &Service) -> ServiceValue {
    let Service { seed, size, by_address, nat, remembers, resets, settles, table, before } =
        *service;
    let flag = |set: bool, flag: u32| if set { flag } else { 0 };
    let flags = flag(by_address, BY_ADDRESS) | flag(nat, NAT) | flag(remembers, REMEMBERS);
    let flags = flags | flag(resets, RESETS);
    let sizes = halves(size.slots().into(), flags);
    [seed, settles.0, halves(table, before), sizes, halves(id.get(), 0)]
}

pub(crate) fn real(real: &Real) -> RealValue {
    let (hop, ifindex, flags) = match real.way {
        Way::None => (real.ip, 0, 0),
        Way::Here => (real.ip, 0, LOCAL),
        Way::Hop { ifindex, hop } => (hop, ifindex, 0),
    };
    let value = Bytes::new().then(&octets(real.ip)).then(&octets(hop));
    let value = value.then(&ifindex.to_ne_bytes()).port(real.port).then(&flags.to_ne_bytes());
    value.then(&real.service.get().to_ne_bytes()).bytes
}

pub(crate) fn reply(reply: &Reply) -> ReplyValue {
    let Reply { vip, port, ifindex, real, here } = *reply;
    let value = Bytes::new().then(&octets(vip)).then(&ifindex.to_ne_bytes());
    let flags = if here { LOCAL } else { 0 };
    value.then(&real.to_ne_bytes()).port(port).then(&flags.to_ne_bytes()).bytes
}

pub(crate) fn counter(values: impl IntoIterator<Item = CounterValue>) -> Counter {
    values.into_iter().fold(Counter::default(), |sum, [packets, bytes, connections, replies]| {
        Counter {
            packets: sum.packets.wrapping_add(packets),
            bytes: sum.bytes.wrapping_add(bytes),
            connections: sum.connections.wrapping_add(connections),
            replies: sum.replies.wrapping_add(replies),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A prefix of a range's key may leave some of the port open, and nothing before it.
    #[test]
    fn a_range_has_its_port_last() {
        let ip = IpAddr::from([192, 0, 2, 1]);
        let key = range(ip, Protocol::Udp, 0x1234);
        assert_eq!(key[..16], octets(ip));
        assert_eq!(key[16..], [0, 17, 0x12, 0x34]);
        assert_eq!(BEFORE_PORT as usize, (key.len() - 2) * 8);
    }
}
