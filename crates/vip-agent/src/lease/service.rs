//! The lease RPCs, served on the lease thread.

use super::shared::LeaseShared;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep, sleep_until};
use tonic::{Request, Response, Status};
use vip_core::{Grantee, NodeId, PromiseReply, Report};
use vip_guard::boottime;
use vip_pki::{Identity, PeerInfo};
use vip_proto::v1;
use vip_proto::v1::lease_server::Lease;

/// The longest that a holder's request may be kept waiting: well below every
/// G, which runs from the time the request was sent.
const MAX_WAIT: Duration = Duration::from_millis(100);

/// Of many VIPs some are free a little earlier than others: one answer for
/// what is free within this time costs less than one for each.
const GATHER: Duration = Duration::from_millis(5);

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
        let reply = self.shared.with(|leases, now| {
            let reply = leases.renewed_by(now, vote, promise);
            let other = match reply {
                PromiseReply::OtherVote(saved) => Some(saved.into()),
                PromiseReply::Promised | PromiseReply::StoreFirst => None,
            };
            v1::RenewReply {
                promised: reply == PromiseReply::Promised,
                promise_us: micros(promise),
                vote: other,
                report: Some(leases.report(now).into()),
            }
        });
        Ok(Response::new(reply))
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
        let report = message.report.map(Report::try_from).transpose();
        let report = report.map_err(|e| Status::invalid_argument(e.to_string()))?;
        self.shared.with(|leases, _| leases.released_by(node, &released, report));
        let decide = || self.shared.with(|leases, now| leases.granted_to(now, node, &wanted));
        loop {
            changes.borrow_and_update();
            let (mut answer, free_at) = decide();
            let Some(free_at) = free_at.filter(|_| Instant::now() < until) else {
                let all = answer.granted.len() + answer.denied.len() == wanted.len();
                if !all && !answer.granted.is_empty() && Instant::now() + GATHER < until {
                    sleep(GATHER).await;
                    answer = decide().0;
                }
                return Ok(Response::new(v1::GrantReply {
                    granted: answer.granted.into_iter().map(Into::into).collect(),
                    denied: answer.denied.into_iter().map(Into::into).collect(),
                }));
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
        self.shared.with(|leases, now| leases.abdicated_by(now, vote));
        Ok(Response::new(v1::AbdicateReply {}))
    }
}
