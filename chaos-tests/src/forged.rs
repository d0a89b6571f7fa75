//! ARP frames that anybody on the segment can send.

use crate::net::{Lab, Mac, enter};
use crate::probe::packet_sender;
use anyhow::Result;
use etherparse::{ArpEthIpv4Packet, ArpOperation, EtherType, Ethernet2Header};
use std::net::Ipv4Addr;
use std::time::Duration;

impl Lab {
    /// Sends the announcement that `ip` is at `mac`, from a host, as often and
    /// with such pauses: one that was recorded, or one that was made up.
    ///
    /// # Errors
    /// No socket.
    pub fn replay(
        &self,
        host: &str,
        (mac, ip): (Mac, Ipv4Addr),
        times: u32,
        pause: Duration,
    ) -> Result<()> {
        let namespace = self.namespace(host);
        let packet = ArpEthIpv4Packet {
            operation: ArpOperation::REQUEST,
            sender_mac: mac,
            sender_ipv4: ip.octets(),
            target_mac: [0; 6],
            target_ipv4: ip.octets(),
        };
        let (source, destination) = (mac, [0xff; 6]);
        let header = Ethernet2Header { source, destination, ether_type: EtherType::ARP };
        let frame = [&header.to_bytes()[..], &packet.to_bytes()[..]].concat();
        let thread = std::thread::spawn(move || {
            enter(&namespace)?;
            let (socket, link) = packet_sender()?;
            for _ in 0..times {
                socket.send_to(&frame, &link)?;
                std::thread::sleep(pause);
            }
            Ok(())
        });
        thread.join().map_err(|_| anyhow::anyhow!("it panicked"))?
    }
}
