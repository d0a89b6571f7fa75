//! `vip.v1.Overview`: the cluster as a whole.

use super::call::{AdminService, Call};
use super::sight::{Sight, name};
use super::warnings::{nobody_can_ask, sentence, warnings};
use crate::access::Caller;
use crate::errors::{from_call, internal};
use crate::lease::GuardStatus;
use crate::membership::Backup;
use crate::node::Member;
use std::pin::Pin;
use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status};
use vip_guard::GateReport;
use vip_proto::v1;
use vip_proto::v1::overview_client::OverviewClient;

/// Of one part of a backup: well below what a message may have.
pub(super) const PART: usize = 256 << 10;

type Parts<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl v1::overview_server::Overview for AdminService {
    async fn status(
        &self,
        request: Request<v1::StatusRequest>,
    ) -> Result<Response<v1::StatusReply>, Status> {
        let (call, message) = (self.call(&request)?, request.into_inner());
        let mut own = status(&call.member);
        own.warnings.extend(nobody_can_ask(&self.agent.config.http, &call.member.log.state()));
        own.warnings.extend(self.agent.not_listening.all().iter().map(|why| sentence(why)));
        if let Some(leader) = call.leader()
            && let Ok(reply) = OverviewClient::new(leader).status(call.read(message)).await
        {
            // The cluster as the leader sees it, this host as it is.
            let v1::StatusReply { node, gate, gate_missing, warnings, .. } = own;
            let reply =
                v1::StatusReply { node, gate, gate_missing, warnings, ..reply.into_inner() };
            return Ok(Response::new(reply));
        }
        if own.quorum && !own.fresh {
            let text = "The leader did not answer: this is what this node knew last.";
            own.warnings.push(text.into());
        }
        Ok(Response::new(own))
    }

    type EventsStream = Parts<v1::Event>;

    async fn events(
        &self,
        request: Request<v1::EventsRequest>,
    ) -> Result<Response<Self::EventsStream>, Status> {
        let call = self.call(&request)?;
        let place = self.desk.streams.enter(request.extensions().get::<Caller>());
        let message = request.into_inner();
        let events = super::events::events(&call.member, message.after, message.follow, place);
        Ok(Response::new(events))
    }

    type BackupStream = Parts<v1::BackupPart>;

    async fn backup(
        &self,
        request: Request<v1::BackupRequest>,
    ) -> Result<Response<Self::BackupStream>, Status> {
        let (call, message) = (self.call(&request)?, request.into_inner());
        if let Some(leader) = call.leader()
            && let Ok(parts) = OverviewClient::new(leader).backup(call.relay(message)).await
        {
            let parts = parts.into_inner().map(|part| part.map_err(from_call));
            return Ok(Response::new(Box::pin(parts)));
        }
        backup(&call).map(Response::new)
    }
}

/// What the log says, as this node knows it.
fn backup(call: &Call) -> Result<Parts<v1::BackupPart>, Status> {
    // Before the state is looked at, as in `status`.
    let fresh = call.member.leases.leads_applied();
    let applied = call.member.log.applied().borrow().clone();
    let backup = Backup { state: (*applied.state).clone(), index: applied.index };
    let bytes = backup.write().map_err(|e| internal("the backup", &e))?;
    let parts = bytes.chunks(PART).map(|part| Ok(v1::BackupPart { data: part.to_vec(), fresh }));
    let parts: Vec<_> = parts.collect();
    Ok(Box::pin(tokio_stream::iter(parts)))
}

fn status(member: &Member) -> v1::StatusReply {
    // Before the state is looked at: nobody else can have committed anything
    // until now, so the state has it all.
    let fresh = member.leases.leads_applied();
    let state = member.log.state();
    let leader = member.leases.leader();
    let (gate, gate_missing) = gate(member.leases.guard());
    v1::StatusReply {
        cluster: member.meta.cluster_name.to_string(),
        term: state.term.0,
        leader: name(&state, leader),
        // The leader's lease, or this node's promise to it, is the proof.
        quorum: leader.is_some(),
        nodes: super::nodes::all(member),
        vips: super::vips::all(&Sight::of(member)),
        node: member.meta.name.to_string(),
        profile: v1::Profile::from(state.profile()).into(),
        warnings: warnings(member),
        gate: gate.into(),
        gate_missing,
        fresh,
        removed: member.removal(),
    }
}

/// How it is with the gate, and why it is missing.
fn gate(guard: GuardStatus) -> (v1::Gate, Option<String>) {
    match guard {
        GuardStatus::Absent => (v1::Gate::NoGuard, None),
        GuardStatus::Present(GateReport::Enforced { .. }) => (v1::Gate::Enforced, None),
        GuardStatus::Present(GateReport::Missing(why)) => (v1::Gate::Missing, Some(why)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gate_that_is_missing_says_why() {
        let present = |report| gate(GuardStatus::Present(report));
        let why = "the kernel is too old";
        let missing = present(GateReport::Missing(why.into()));
        assert_eq!(missing, (v1::Gate::Missing, Some(why.into())));
        let enforced = present(GateReport::Enforced { weakness: String::new() });
        assert_eq!(enforced, (v1::Gate::Enforced, None));
        assert_eq!(gate(GuardStatus::Absent), (v1::Gate::NoGuard, None));
    }
}
