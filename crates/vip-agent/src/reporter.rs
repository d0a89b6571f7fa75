//! What this node has to say for the log, to the leader; and the leader's ear. What the
//! log has is compared with what is so: what got lost on the way, or with a leader, is
//! said again, and nothing else ever is.

use crate::errors::{from_refusal, from_write, invalid, no_quorum};
use crate::node::Member;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::{Instant, sleep, sleep_until};
use tonic::{Request, Response, Status};
use vip_core::{Hindrance, MAX_HINDERED, NodeId, Op, Server, ServerOp, ServerUid, unsaid};
use vip_pki::speaker;
use vip_proto::v1;
use vip_proto::v1::edges_client::EdgesClient;

/// Between two reports of a node, and between two looks.
const PACE: Duration = Duration::from_millis(100);
/// After one that was not taken, and in case that something became true by time alone.
const AGAIN: Duration = Duration::from_secs(2);
/// How long the leader may take.
const ANSWER: Duration = Duration::from_secs(5);
/// Items of one sort in a report: what is kept of a node may all go and others come.
const MOST: usize = 2 * MAX_HINDERED;

/// What was looked at, by which it is told whether anything can be new.
type Seen = (Arc<BTreeMap<ServerUid, Arc<Server>>>, Arc<BTreeMap<ServerUid, OnNodes>>);
type OnNodes = BTreeMap<NodeId, Hindrance>;

/// Runs for as long as the member does.
pub(crate) async fn report(member: Arc<Member>) {
    let stop = member.stopped();
    let mut applied = member.log.applied();
    let mut forwarded = member.forward.changes();
    let mut seen: Option<Seen> = None;
    let mut look_at = Instant::now();
    loop {
        let state = applied.borrow_and_update().state.clone();
        let is_same = seen.as_ref().is_some_and(|(servers, hindrances)| {
            Arc::ptr_eq(servers, &state.servers) && Arc::ptr_eq(hindrances, &state.hindrances)
        });
        let is_due = Instant::now() >= look_at;
        // Most entries of the log are about none of it.
        if !is_same || is_due || forwarded.has_changed().unwrap_or_default() {
            forwarded.borrow_and_update();
            seen = Some((state.servers.clone(), state.hindrances.clone()));
            look_at = Instant::now() + AGAIN;
            let report = what_is_unsaid(&member);
            if report != v1::TellEdgesRequest::default()
                && let Err(status) = tell(&member, report).await
            {
                tracing::debug!(why = status.message(), "the leader took no report");
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = sleep(PACE) => {}
            }
        }
        tokio::select! {
            () = stop.cancelled() => return,
            changed = applied.changed() => if changed.is_err() { return },
            Ok(()) = forwarded.changed() => forwarded.mark_changed(),
            () = sleep_until(look_at) => {}
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
    let term = member.log.own_term()?;
    let state = member.log.state();
    let idle = idle.into_iter().map(Into::into).collect();
    let retire = state.idle_retirements(member.log.time_ms(), node, &idle);
    let mut ops: Vec<Op> = retire.into_iter().map(Op::from).collect();
    let said = state.news_of(node, hindered.into_iter().map(Into::into).collect());
    if !said.is_empty() {
        ops.push(ServerOp::Hinder { node, said }.into());
    }
    for op in ops {
        let outcome = member.log.propose(term, op).await.map_err(|e| from_write(&e))?;
        outcome.accepted().map_err(|e| from_refusal(&e))?;
    }
    Ok(())
}

/// The leader's ear. It hears each node once at a time, and not more often than a node
/// that is well says anything: each word may be an entry of the log.
pub(crate) struct EdgesService {
    member: Arc<Member>,
    /// From when on a node is heard again.
    heard: Mutex<BTreeMap<NodeId, Instant>>,
}

impl EdgesService {
    pub(crate) fn new(member: Arc<Member>) -> Self {
        Self { member, heard: Mutex::default() }
    }

    /// Whether it is heard now. For as long as that may take it is not again.
    fn hears(&self, node: NodeId) -> bool {
        let now = Instant::now();
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        let hears = heard.get(&node).is_none_or(|again| now >= *again);
        if hears {
            heard.insert(node, now + ANSWER);
        }
        hears
    }

    fn has_heard(&self, node: NodeId) {
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        heard.insert(node, Instant::now() + PACE / 2);
    }
}

#[tonic::async_trait]
impl v1::edges_server::Edges for EdgesService {
    async fn tell_edges(
        &self,
        request: Request<v1::TellEdgesRequest>,
    ) -> Result<Response<v1::TellEdgesReply>, Status> {
        let speaker = speaker(request.extensions());
        let speaker = speaker.ok_or_else(|| Status::permission_denied("only members report"))?;
        let node = speaker.node;
        if !self.hears(node) {
            return Err(Status::resource_exhausted("this node is being heard; a moment later"));
        }
        let taken = take(&self.member, node, request.into_inner()).await;
        self.has_heard(node);
        taken.map(|()| Response::new(v1::TellEdgesReply {}))
    }
}
