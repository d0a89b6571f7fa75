//! One probe of one real server: what a check does, and how what went wrong is said.
//!
//! When it is done, and what several answers come to, is `vip_core`'s matter.

mod dns;
pub mod exec;
mod fresh;
mod grpc;
mod http;
mod icmp;
mod names;
mod tcp;
#[cfg(test)]
mod testing;
mod tls;
mod udp;
mod words;

pub use names::resolve;
use std::path::PathBuf;
use std::time::Duration;
use tls::HostTls;
pub use tls::Identity;
use tokio::time::timeout;
use vip_core::{CheckKind, Failure, Target};

/// What probes have in common.
pub struct Prober {
    tls: HostTls,
    programs: Option<PathBuf>,
}

impl Prober {
    /// One that has the programs of exec checks run by whoever listens at a socket; `None`:
    /// nobody does. Servers that want a certificate of whoever asks are shown this host's own,
    /// if it has one.
    #[must_use]
    pub fn new(programs: Option<PathBuf>, identity: Option<Identity>) -> Self {
        Self { tls: HostTls::new(identity), programs }
    }

    /// Probes a real server once. Takes no longer than its timeout, by a program half a second
    /// more, and reads no more than 64 KiB.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn probe(&self, target: &Target) -> Result<(), Failure> {
        let Target { at, kind, timing } = target;
        let answer = async {
            match &**kind {
                CheckKind::Tcp => tcp::connect(*at).await.map(drop),
                CheckKind::Http(check) => http::probe(&self.tls, *at, check).await,
                CheckKind::Grpc(check) => grpc::probe(&self.tls, *at, check).await,
                CheckKind::Dns(check) => dns::probe(*at, check).await,
                CheckKind::Udp(check) => udp::probe(*at, check, timing.timeout).await,
                CheckKind::Icmp => icmp::probe(at.ip()).await,
                CheckKind::Exec(check) => {
                    exec::probe(self.programs.as_deref(), *at, check, timing.timeout).await
                }
            }
        };
        if matches!(**kind, CheckKind::Exec(_)) {
            // Who runs it says when it is late.
            let late = |_| Failure::Here(exec::SILENT.to_owned());
            return timeout(timing.timeout + exec::GRACE, answer).await.map_err(late)?;
        }
        let late = |_| Failure::There(format!("no answer within {}", spoken(timing.timeout)));
        timeout(timing.timeout, answer).await.map_err(late)?
    }
}

fn spoken(span: Duration) -> String {
    if span.subsec_millis() == 0 {
        format!("{} s", span.as_secs())
    } else {
        format!("{} ms", span.as_millis())
    }
}
