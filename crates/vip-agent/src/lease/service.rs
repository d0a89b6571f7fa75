//! The lease RPCs, served on the lease thread.

use super::shared::LeaseShared;
use crate::wall_clock::wall_clock_ms;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::sleep;
use tonic::{Request, Response, Status};
use vip_core::{PromiseReply, Report, ReportId, Speaker, Term, Waiting, WaitingStep, Wanted};
use vip_guard::boottime;
use vip_pki::speaker;
use vip_proto::v1;
use vip_proto::v1::lease_server::Lease;

/// Serves the other members' lease threads.
pub(super) struct LeaseService {
    pub(super) shared: Arc<LeaseShared>,
}

fn sender(extensions: &tonic::Extensions) -> Result<Speaker, Status> {
    speaker(extensions).ok_or_else(|| Status::permission_denied("only members have leases"))
}

impl LeaseService {
    fn may_lead(&self, speaker: Speaker, term: Term) -> Result<(), Status> {
        let may = self.shared.read(|leases, _| leases.may_lead(speaker, term));
        may.map_err(|presumption| Status::permission_denied(presumption.to_string()))
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
        if vote.node != from.node {
            return Err(Status::permission_denied("a lease is asked for by the leader itself"));
        }
        self.may_lead(from, vote.term)?;
        self.shared.wall_clocks().heard(from.node, message.wall_ms);
        let promise = Duration::from_micros(message.promise_us);
        let known = ReportId { run: message.known_run, seq: message.known_seq };
        let reply = self.shared.with(|leases, now| {
            let reply = leases.renewed_by(now, vote, promise, known);
            let other = match reply {
                PromiseReply::OtherVote(saved) => Some(saved.into()),
                PromiseReply::Promised | PromiseReply::StoreFirst | PromiseReply::Unheeded => None,
            };
            let report = leases.latest_report();
            v1::RenewReply {
                promised: reply == PromiseReply::Promised,
                promise_us: micros(promise),
                vote: other,
                wall_ms: wall_clock_ms(),
                report_run: report.run,
                report_seq: report.seq,
            }
        });
        Ok(Response::new(reply))
    }

    async fn grant(
        &self,
        request: Request<v1::GrantRequest>,
    ) -> Result<Response<v1::GrantReply>, Status> {
        let node = sender(request.extensions())?.node;
        let message = request.into_inner();
        let wait = Duration::from_micros(message.wait_us);
        let wanted = Wanted::from(message);
        let mut changes = self.shared.changed.subscribe();
        let mut waiting = Waiting::of(boottime(), node, wanted, wait);
        loop {
            changes.borrow_and_update();
            match self.shared.with(|leases, now| waiting.step(now, leases)) {
                WaitingStep::Answer(answer) => {
                    return Ok(Response::new(answer.into()));
                }
                WaitingStep::Until(at) => tokio::select! {
                    _ = changes.changed() => {}
                    () = sleep(at.since(boottime())) => {}
                },
            }
        }
    }

    async fn report(
        &self,
        request: Request<v1::ReportRequest>,
    ) -> Result<Response<v1::ReportReply>, Status> {
        let node = sender(request.extensions())?.node;
        let report = request.into_inner().report.map(Report::try_from).transpose();
        let report = report.map_err(|e| Status::invalid_argument(e.to_string()))?;
        let report = report.ok_or_else(|| Status::invalid_argument("no report"))?;
        let heard = self.shared.with(|leases, now| leases.reported_by(now, node, report));
        let nobody = || Status::unavailable("this node does not lead, or does not know it yet");
        heard.then(|| Response::new(v1::ReportReply {})).ok_or_else(nobody)
    }

    async fn abdicate(
        &self,
        request: Request<v1::AbdicateRequest>,
    ) -> Result<Response<v1::AbdicateReply>, Status> {
        let from = sender(request.extensions())?;
        let vote: vip_core::Vote =
            request.into_inner().vote.ok_or_else(|| Status::invalid_argument("no vote"))?.into();
        if vote.node != from.node || !vote.committed {
            return Err(Status::permission_denied("a leadership is given up by the leader itself"));
        }
        self.may_lead(from, vote.term)?;
        tracing::info!(term = %vote.term, node = %from.node, "the leader says that its lease is over");
        self.shared.with(|leases, now| leases.abdicated_by(now, vote));
        Ok(Response::new(v1::AbdicateReply {}))
    }
}
