//! `[http] tcp`: a port that is open only while clients of a VIP are served here.

use super::RETRY;
use super::sight::Sight;
use crate::essential;
use crate::listening::listen;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::time::sleep;
use vip_core::Mono;
use vip_guard::boottime;

/// Connections that the kernel completes while this process stands still: a frozen node is
/// to look dead to whoever asks it, and this many may not notice.
const BACKLOG: i32 = 1;

/// Waits where clients are served here until then, or are not.
async fn until_it_changes(sight: &Sight, name: &str, until: Option<Mono>) {
    let Some(member) = sight.seat.member() else {
        return sleep(essential::LOOK).await;
    };
    let (mut leases, mut applied) = (member.leases.changes(), member.log.applied());
    let look = || sight.takes_clients_until(&member, name);
    // What changed before the two were subscribed to told nobody.
    if look().is_some() != until.is_some() {
        return;
    }
    let ends = until.map_or(essential::LOOK, |until| until.since(boottime()));
    tokio::select! {
        _ = leases.changed() => {}
        _ = applied.changed() => {}
        () = sleep(ends.min(essential::LOOK)) => {}
    }
}

/// Takes connections, and ends each at once: to be open is all there is to say.
async fn be_open(listener: Option<&TcpListener>) {
    let Some(listener) = listener else { return std::future::pending().await };
    while let Ok((stream, _)) = listener.accept().await {
        drop(stream);
    }
    sleep(RETRY).await;
}

/// Never ends.
pub(super) async fn run(sight: Arc<Sight>, name: String, address: SocketAddr) {
    let key = format!("http.tcp.{name}");
    let mut listener = None;
    loop {
        let member = sight.seat.member();
        let until = member.and_then(|member| sight.takes_clients_until(&member, &name));
        if until.is_none() {
            listener = None;
            sight.seat.not_listening.is_not_wanted(&key);
        } else if listener.is_none() {
            let listens = listen(address, BACKLOG).and_then(TcpListener::from_std);
            sight.seat.not_listening.at(&key, address, listens.as_ref().err());
            listener = listens.ok();
        }
        tokio::select! {
            () = until_it_changes(&sight, &name, until) => {}
            () = be_open(listener.as_ref()) => {}
        }
    }
}
