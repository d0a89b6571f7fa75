//! What this node has to say for the log, to the leader; and the leader's ear. What the
//! log has is compared with what is so: what got lost on the way, or with a leader, is
//! said again, and nothing else ever is.

use crate::errors::{from_refusal, from_write, invalid, no_quorum};
use crate::node::Member;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::sleep;
use tonic::{Request, Response, Status};
use vip_core::{Hindrances, NodeId, Op, ServerOp, unsaid};
use vip_pki::speaker;
use vip_proto::v1;
use vip_proto::v1::edges_client::EdgesClient;

/// Between two reports: whoever has more to say by then says it at once.
const PACE: Duration = Duration::from_millis(100);
/// After one that was not taken, and in case that something became true by time alone.
const AGAIN: Duration = Duration::from_secs(2);
/// How long the leader may take.
const ANSWER: Duration = Duration::from_secs(5);
/// Items of one sort in a report.
const MOST: usize = 1000;

/// Runs for as long as the member does.
pub(crate) async fn report(member: Arc<Member>) {
    let stop = member.stopped();
    let mut applied = member.log.applied();
    let mut forwarded = member.forward.changes();
    loop {
        applied.borrow_and_update();
        forwarded.borrow_and_update();
        let report = what_is_unsaid(&member);
        let pause = if report == v1::TellEdgesRequest::default() {
            Duration::ZERO
        } else {
            match tell(&member, report).await {
                Ok(()) => PACE,
                Err(status) => {
                    tracing::debug!(why = status.message(), "the leader took no report");
                    AGAIN
                }
            }
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = sleep(pause) => {}
        }
        tokio::select! {
            () = stop.cancelled() => return,
            changed = applied.changed() => if changed.is_err() { return },
            _ = forwarded.changed() => {}
            () = sleep(AGAIN) => {}
        }
    }
}

fn what_is_unsaid(member: &Member) -> v1::TellEdgesRequest {
    let state = member.log.state();
    let me = member.meta.node;
    let hindered = unsaid(&state, me, |server| member.forward.how(server.uid));
    let retire = state.idle_retirements(member.log.time_ms(), me, &member.forward.idle());
    let idle = retire.into_iter().take(MOST).filter_map(|op| match op {
        ServerOp::Retire { server, seen } => Some((server, seen).into()),
        _ => None,
    });
    let hindered = hindered.into_iter().take(MOST).map(Into::into);
    v1::TellEdgesRequest { hindered: hindered.collect(), idle: idle.collect() }
}

async fn tell(member: &Arc<Member>, report: v1::TellEdgesRequest) -> Result<(), Status> {
    let leader = member.leases.leader().ok_or_else(|| no_quorum("no leader is known"))?;
    if leader == member.meta.node {
        return take(member, leader, report).await;
    }
    let channel = member.peers.channel(leader);
    let channel = channel.ok_or_else(|| no_quorum("the leader has no address here"))?;
    let mut request = Request::new(report);
    request.set_timeout(ANSWER);
    EdgesClient::new(channel).tell_edges(request).await.map(|_| ())
}

/// As the leader: writes what a node says to the log.
///
/// # Errors
/// This node does not lead, or cannot at the moment; or it is too much.
async fn take(member: &Member, node: NodeId, report: v1::TellEdgesRequest) -> Result<(), Status> {
    let v1::TellEdgesRequest { hindered, idle } = report;
    if hindered.len() > MOST || idle.len() > MOST {
        return Err(invalid(format!("more than {MOST} items in one report")));
    }
    let said: Hindrances = hindered.into_iter().map(Into::into).collect();
    let term = member.log.own_term()?;
    let mut ops: Vec<Op> = vec![];
    if !said.is_empty() {
        ops.push(ServerOp::Hinder { node, said }.into());
    }
    let idle = idle.into_iter().map(Into::into).collect();
    let state = member.log.state();
    let retire = state.idle_retirements(member.log.time_ms(), node, &idle);
    ops.extend(retire.into_iter().map(Op::from));
    for op in ops {
        let outcome = member.log.propose(term, op).await.map_err(|e| from_write(&e))?;
        outcome.accepted().map_err(|e| from_refusal(&e))?;
    }
    Ok(())
}

/// The leader's ear.
pub(crate) struct EdgesService(pub(crate) Arc<Member>);

#[tonic::async_trait]
impl v1::edges_server::Edges for EdgesService {
    async fn tell_edges(
        &self,
        request: Request<v1::TellEdgesRequest>,
    ) -> Result<Response<v1::TellEdgesReply>, Status> {
        let speaker = speaker(request.extensions());
        let speaker = speaker.ok_or_else(|| Status::permission_denied("only members report"))?;
        take(&self.0, speaker.node, request.into_inner()).await?;
        Ok(Response::new(v1::TellEdgesReply {}))
    }
}
