//! The lease RPCs, served on the lease thread.

use super::shared::LeaseShared;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep_until};
use tonic::{Request, Response, Status};
use vip_core::{Grantee, Mono, NodeId, PromiseReply, Verdict};
use vip_guard::boottime;
use vip_pki::{Identity, PeerInfo};
use vip_proto::v1;
use vip_proto::v1::lease_server::Lease;

/// The longest that a holder's request may be kept waiting: well below every
/// G, which runs from the time the request was sent.
const MAX_WAIT: Duration = Duration::from_millis(100);

/// Serves the other members' lease threads.
pub(super) struct LeaseService {
    pub(super) shared: Arc<LeaseShared>,
}

fn sender(extensions: &tonic::Extensions) -> Result<NodeId, Status> {
    match extensions.get::<PeerInfo>().map(|peer| &peer.identity) {
        Some(Identity::Node(node)) => Ok(*node),
        _ => Err(Status::permission_denied("only members have leases")),
    }
}

fn micros(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap_or(u64::MAX)
}

#[tonic::async_trait]
impl Lease for LeaseService {
    async fn renew(
        &self,
        request: Request<v1::RenewRequest>,
    ) -> Result<Response<v1::RenewReply>, Status> {
        let from = sender(request.extensions())?;
        let message = request.into_inner();
        let vote: vip_core::Vote =
            message.vote.ok_or_else(|| Status::invalid_argument("no vote"))?.into();
        if vote.node != from {
            return Err(Status::permission_denied("a lease is asked for by the leader itself"));
        }
        let promise = Duration::from_micros(message.promise_us);
        let mut inner = self.shared.lock();
        let reply = inner.renew_promise(boottime(), vote, promise);
        let other = match reply {
            PromiseReply::OtherVote(saved) => Some(saved.into()),
            PromiseReply::Promised | PromiseReply::StoreFirst => None,
        };
        Ok(Response::new(v1::RenewReply {
            promised: reply == PromiseReply::Promised,
            promise_us: micros(promise),
            vote: other,
            able: inner.able(),
            unable_vips: inner.claims.unable().iter().map(|vip| vip.0).collect(),
            stopping: inner.stopping,
            open: inner.epoch_open().into_iter().map(Into::into).collect(),
        }))
    }

    async fn grant(
        &self,
        request: Request<v1::GrantRequest>,
    ) -> Result<Response<v1::GrantReply>, Status> {
        let node = sender(request.extensions())?;
        let message = request.into_inner();
        let wanted: Vec<Grantee> = message.wanted.into_iter().map(Into::into).collect();
        let released: Vec<Grantee> = message.released.into_iter().map(Into::into).collect();
        let until = Instant::now() + Duration::from_micros(message.wait_us).min(MAX_WAIT);
        let mut changes = self.shared.changes();
        if self.shared.lock().take_releases(node, &released) {
            self.shared.touch();
        }
        loop {
            changes.borrow_and_update();
            let (reply, free_at) = self.decide(node, &wanted);
            let Some(free_at) = free_at.filter(|_| Instant::now() < until) else {
                return Ok(Response::new(reply));
            };
            let due = Instant::now() + free_at.since(boottime());
            tokio::select! {
                _ = changes.changed() => {}
                () = sleep_until(due.min(until)) => {}
            }
        }
    }

    async fn abdicate(
        &self,
        request: Request<v1::AbdicateRequest>,
    ) -> Result<Response<v1::AbdicateReply>, Status> {
        let from = sender(request.extensions())?;
        let vote: vip_core::Vote =
            request.into_inner().vote.ok_or_else(|| Status::invalid_argument("no vote"))?.into();
        if vote.node != from || !vote.committed {
            return Err(Status::permission_denied("a leadership is given up by the leader itself"));
        }
        tracing::info!(term = %vote.term, node = %from, "the leader says that its lease is over");
        self.shared.lock().leader_gone(boottime(), vote);
        self.shared.touch();
        Ok(Response::new(v1::AbdicateReply {}))
    }
}

impl LeaseService {
    /// What can be said now, and when the earliest undecided one is due.
    fn decide(&self, node: NodeId, wanted: &[Grantee]) -> (v1::GrantReply, Option<Mono>) {
        let now = boottime();
        let mut inner = self.shared.lock();
        let mut reply = v1::GrantReply::default();
        let mut free_at: Option<Mono> = None;
        for grantee in wanted {
            let request = vip_core::Request { node, grantee: *grantee };
            match inner.decide_grant(now, request) {
                Verdict::Granted => reply.granted.push((*grantee).into()),
                Verdict::Denied(denial) => reply.denied.push((*grantee, denial).into()),
                Verdict::Wait(at) => free_at = Some(free_at.map_or(at, |f| f.min(at))),
            }
        }
        // Something was granted: it must not wait for the rest.
        let free_at = free_at.filter(|_| reply.granted.is_empty());
        (reply, free_at)
    }
}
