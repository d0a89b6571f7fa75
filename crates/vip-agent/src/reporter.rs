//! What this node has to say for the log, to the leader; and the leader's ear. What the
//! log has is compared with what is so: what got lost on the way, or with a leader, is
//! said again, and nothing else ever is.

use crate::errors::{from_refusal, from_write, invalid, no_quorum};
use crate::node::Member;
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::{Instant, sleep, sleep_until};
use tonic::{Request, Response, Status};
use vip_core::{
    Hindrance, MAX_HINDERED, MAX_REALS_IN_ALL, NodeId, Op, Server, ServerOp, ServerUid, Sighting,
    unsaid,
};
use vip_pki::speaker;
use vip_proto::v1;
use vip_proto::v1::edges_client::EdgesClient;

/// Between two reports of a node, and between two looks.
const PACE: Duration = Duration::from_millis(100);
/// After one that was not taken, and in case that something became true by time alone.
const AGAIN: Duration = Duration::from_secs(2);
/// How long the leader may take.
const ANSWER: Duration = Duration::from_secs(5);
/// Real servers in a report, of which each may have a sentence: ten thousand that end at
/// once are a handful of entries.
const MOST_SEEN: usize = 2000;
/// Items of any other sort in a report: what is kept of a node may all go and others come.
const MOST: usize = 2 * MAX_HINDERED;

/// What a node may say at once of whether real servers answer: of all there can be. Who says
/// more often something else has so many in a second, some 100 kB of the log at most.
const SEEN_AT_ONCE: NonZeroU32 = NonZeroU32::new(14_000).expect("not zero");
const _: () = assert!(SEEN_AT_ONCE.get() as usize >= MAX_REALS_IN_ALL);
const SEEN_PER_SECOND: NonZeroU32 = NonZeroU32::new(400).expect("not zero");

/// What was looked at, by which it is told whether anything can be new.
type Seen = (Arc<BTreeMap<ServerUid, Arc<Server>>>, Arc<BTreeMap<ServerUid, OnNodes>>);
type OnNodes = BTreeMap<NodeId, Hindrance>;

/// Runs for as long as the member does.
pub(crate) async fn report(member: Arc<Member>) {
    let stop = member.stopped();
    let mut applied = member.log.applied();
    let mut forwarded = member.forward.changes();
    let mut sighted = member.sights.changes();
    let mut seen: Option<Seen> = None;
    let mut look_at = Instant::now();
    loop {
        let state = applied.borrow_and_update().state.clone();
        let is_same = seen.as_ref().is_some_and(|(servers, hindrances)| {
            Arc::ptr_eq(servers, &state.servers) && Arc::ptr_eq(hindrances, &state.hindrances)
        });
        let is_due = Instant::now() >= look_at;
        // Most entries of the log are about none of it.
        let is_told = forwarded.has_changed().unwrap_or_default();
        if !is_same || is_due || is_told || sighted.has_changed().unwrap_or_default() {
            forwarded.borrow_and_update();
            sighted.borrow_and_update();
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
            Ok(()) = sighted.changed() => sighted.mark_changed(),
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
    let seen = state.unsaid_sightings(me, &member.sights.all());
    let seen = seen.into_iter().take(MOST_SEEN).map(Into::into);
    v1::TellEdgesRequest {
        hindered: hindered.collect(),
        idle: idle.collect(),
        seen: seen.collect(),
    }
}

async fn tell(member: &Arc<Member>, report: v1::TellEdgesRequest) -> Result<(), Status> {
    let leader = member.leases.leader().ok_or_else(|| no_quorum("no leader is known"))?;
    if leader == member.meta.node {
        return take(member, leader, report, |_| true).await;
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
async fn take(
    member: &Member,
    node: NodeId,
    report: v1::TellEdgesRequest,
    may_say: impl Fn(NonZeroU32) -> bool,
) -> Result<(), Status> {
    let v1::TellEdgesRequest { hindered, idle, seen } = report;
    if hindered.len() > MOST || idle.len() > MOST || seen.len() > MOST_SEEN {
        return Err(invalid(format!(
            "more than {MOST_SEEN} real servers, or {MOST} other items, in one report"
        )));
    }
    let seen =
        seen.into_iter().map(Sighting::try_from).collect::<Result<_, _>>().map_err(invalid)?;
    let term = member.log.own_term()?;
    let state = member.log.state();
    let idle = idle.into_iter().map(Into::into).collect();
    let retire = state.idle_retirements(member.log.time_ms(), node, &idle);
    let mut ops: Vec<Op> = retire.into_iter().map(Op::from).collect();
    let said = state.news_of(node, hindered.into_iter().map(Into::into).collect());
    if !said.is_empty() {
        ops.push(ServerOp::Hinder { node, said }.into());
    }
    let mut seen = state.new_sightings(node, seen);
    // What there is no room for is said again.
    while let Some(count) = u32::try_from(seen.len()).ok().and_then(NonZeroU32::new) {
        if may_say(count) {
            ops.push(ServerOp::Observe { node, seen }.into());
            break;
        }
        seen.truncate(seen.len() / 2);
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
    sightings: DefaultKeyedRateLimiter<NodeId>,
}

impl EdgesService {
    pub(crate) fn new(member: Arc<Member>) -> Self {
        let quota = Quota::per_second(SEEN_PER_SECOND).allow_burst(SEEN_AT_ONCE);
        Self { member, heard: Mutex::default(), sightings: RateLimiter::keyed(quota) }
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
        let may_say = |count| matches!(self.sightings.check_key_n(&node, count), Ok(Ok(())));
        let taken = take(&self.member, node, request.into_inner(), may_say).await;
        self.has_heard(node);
        taken.map(|()| Response::new(v1::TellEdgesReply {}))
    }
}
