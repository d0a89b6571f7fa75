//! One call: who asks, until when, where it is carried out, and when its effect
//! holds.

use super::streams::Streams;
use crate::access::Caller;
use crate::errors::{
    from_hopeless, from_refusal, from_relay, from_write, internal, no_quorum, not_a_member,
};
use crate::membership::Seat;
use crate::node::Member;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use tonic::transport::Channel;
use tonic::{Request, Response, Status};
use vip_core::{
    Actor, Goal, Node, NodeId, NodeState, Op, Outcome, Progress, Removal, Role, State, excerpt,
    moment,
};
use vip_pki::{Identity, PeerInfo};

/// What a node that leads no more answers to a relayed command.
const LEADER_MOVED: &str = "the leader changed while the command was relayed";
/// Carries the actor from a relaying member to the leader.
const ACTOR_HEADER: &str = "vipd-actor";
/// For callers that set no deadline.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);
/// The answer has to leave before the caller's own timer fires.
pub(super) const ANSWER_MARGIN: Duration = Duration::from_millis(150);
/// How long the leader may take to answer a read.
const READ_TIMEOUT: Duration = Duration::from_millis(300);
/// For so long a command waits for a leader: several elections. What does not
/// have one then needs somebody's hands.
const LEADER_PATIENCE: Duration = Duration::from_secs(6);

/// What all faces of the service share.
#[derive(Default)]
pub(crate) struct Desk {
    /// Examinations of this host, one after the other.
    pub(super) examination: tokio::sync::Mutex<()>,
    /// Events that are followed.
    pub(super) streams: Streams,
}

/// See the module.
#[derive(Clone)]
pub(crate) struct AdminService {
    pub(super) agent: Arc<Seat>,
    pub(super) desk: Arc<Desk>,
}

/// One call.
pub(super) struct Call {
    pub(super) member: Arc<Member>,
    pub(super) actor: Actor,
    pub(super) deadline: Instant,
    relayed: bool,
}

/// What is found, or a sentence that says what is awaited.
pub(super) enum Look<T> {
    Found(T),
    Missing(String),
}

/// Where a call is carried out.
pub(super) enum Route {
    Here,
    There(Channel),
}

/// The time that a caller allows (gRPC over HTTP/2, "Timeout").
pub(super) fn timeout(metadata: &tonic::metadata::MetadataMap) -> Duration {
    let parse = || {
        let text = metadata.get("grpc-timeout")?.to_str().ok()?;
        let (value, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
        let value: u64 = value.parse().ok()?;
        Some(match unit {
            "H" => Duration::from_secs(value.saturating_mul(3600)),
            "M" => Duration::from_secs(value.saturating_mul(60)),
            "S" => Duration::from_secs(value),
            "m" => Duration::from_millis(value),
            "u" => Duration::from_micros(value),
            "n" => Duration::from_nanos(value),
            _ => return None,
        })
    };
    parse().unwrap_or(DEFAULT_TIMEOUT).min(Duration::from_secs(3600))
}

/// The member that passes a call on. One that was removed may not know it yet,
/// and is told just that: a leave is then at its end.
fn relay(state: &State, node: NodeId) -> Result<&Node, Status> {
    state.nodes.get(&node).ok_or_else(|| {
        match state.tombstones.get(&node).and_then(|known| known.removed.as_ref()) {
            Some(Removal { time_ms, actor }) => Status::not_found(format!(
                "this node was removed from the cluster on {} by {actor}. Nothing was done",
                moment(*time_ms)
            )),
            None => Status::permission_denied("not a member"),
        }
    })
}

impl AdminService {
    pub(crate) fn new(agent: Arc<Seat>, desk: Arc<Desk>) -> Self {
        Self { agent, desk }
    }

    pub(super) fn call<T>(&self, request: &Request<T>) -> Result<Call, Status> {
        let member = self.agent.member().ok_or_else(not_a_member)?;
        let caller = request.extensions().get::<Caller>();
        let caller = caller.ok_or_else(|| Status::permission_denied("unknown caller"))?;
        let (actor, relayed) = match caller {
            Caller::LocalRoot => (format!("root@{}", member.meta.name), false),
            Caller::Peer(Identity::User { name, role }) => {
                let peer = request.extensions().get::<PeerInfo>().map(|p| p.address.ip());
                let from = peer.map(|ip| ip.to_string()).unwrap_or_default();
                (format!("{name} ({role}) from {from}"), false)
            }
            Caller::Peer(Identity::Node(node)) => {
                let state = member.log.state();
                let relay = relay(&state, *node)?;
                let text = request.metadata().get(ACTOR_HEADER).and_then(|v| v.to_str().ok());
                (format!("{} via {}", excerpt(text.unwrap_or("unknown")), relay.name), true)
            }
            Caller::Peer(Identity::Anonymous) => {
                return Err(Status::permission_denied("no certificate"));
            }
        };
        let deadline = Instant::now() + timeout(request.metadata()).saturating_sub(ANSWER_MARGIN);
        Ok(Call { member, actor: Actor(actor), deadline, relayed })
    }

    /// As [`Self::call`], for calls that change something: a member that is no
    /// voter relays none of them.
    pub(super) fn change<T>(&self, request: &Request<T>) -> Result<Call, Status> {
        let call = self.call(request)?;
        if let Some(Caller::Peer(Identity::Node(node))) = request.extensions().get::<Caller>() {
            let state = call.member.log.state();
            let relay = relay(&state, *node)?;
            if relay.role != Role::Voter || relay.state == NodeState::Joining {
                return Err(Status::permission_denied(
                    "learners and witnesses relay no changes; run the command on a voter",
                ));
            }
        }
        Ok(call)
    }
}

impl Call {
    pub(super) fn time_left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    /// Waits for a leader and says whether that is this node.
    pub(super) async fn route(&self) -> Result<Route, Status> {
        let member = &self.member;
        let until = Instant::now() + self.time_left().min(LEADER_PATIENCE);
        let mut news = member.news();
        loop {
            member.refuse_if_removed()?;
            match member.leases.leader() {
                Some(leader) if leader == member.meta.node => {
                    let ready = member.leases.leads_applied();
                    if ready {
                        return Ok(Route::Here);
                    }
                }
                Some(_) if self.relayed => return Err(Status::aborted(LEADER_MOVED)),
                Some(leader) => {
                    if let Some(channel) = member.peers.channel(leader) {
                        return Ok(Route::There(channel));
                    }
                }
                None => {}
            }
            if Instant::now() >= until {
                return Err(no_quorum("this node knows of no leader, so nothing was done"));
            }
            news.next().await;
        }
    }

    /// Passes a command on to the leader; `None`: that is this node.
    pub(super) async fn on_leader<T, F>(
        &self,
        ask: impl Fn(Channel) -> F,
    ) -> Result<Option<Response<T>>, Status>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let mut news = self.member.news();
        while let Route::There(leader) = self.route().await? {
            match ask(leader).await {
                // Nothing was done, and the one that leads now is known soon.
                Err(status) if is_moved(&status) && !self.time_left().is_zero() => {
                    news.next().await;
                }
                result => return result.map(Some).map_err(from_relay),
            }
        }
        Ok(None)
    }

    /// The leader, if it is another node.
    pub(super) fn leader(&self) -> Option<Channel> {
        let leader = self.member.leases.leader().filter(|l| *l != self.member.meta.node)?;
        self.member.peers.channel(leader).filter(|_| !self.relayed)
    }

    /// As [`Self::relay`], for reads: a leader that was just lost must not keep
    /// a person waiting.
    pub(super) fn read<T>(&self, message: T) -> Request<T> {
        let mut request = self.relay(message);
        request.set_timeout(self.time_left().min(READ_TIMEOUT));
        request
    }

    /// The same call, for the leader.
    pub(super) fn relay<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.set_timeout(self.time_left());
        if let Ok(actor) = self.actor.0.parse() {
            request.metadata_mut().insert(ACTOR_HEADER, actor);
        }
        request
    }

    /// Writes to the log as this caller.
    pub(super) async fn propose(&self, op: impl Into<Op>) -> Result<Outcome, Status> {
        let write = self.member.log.propose_as(self.actor.clone(), op, self.time_left());
        let outcome = write.await.map_err(|e| from_write(&e))?;
        outcome.accepted().map_err(|refusal| from_refusal(&refusal))
    }

    /// Waits until `look` finds something in the state.
    pub(super) async fn wait<T>(
        &self,
        mut look: impl FnMut(&Arc<State>) -> Look<T>,
    ) -> Result<T, Status> {
        let mut news = self.member.news();
        loop {
            let state = self.member.log.state();
            match look(&state) {
                Look::Found(found) => return Ok(found),
                Look::Missing(what) if self.time_left().is_zero() => return Err(late(&what)),
                Look::Missing(_) => {}
            }
            news.next().await;
        }
    }

    /// Waits until a command's effect holds. Returns the state in which it did.
    pub(super) async fn reach(&self, mut goal: Goal) -> Result<Arc<State>, Status> {
        let look = |state: &Arc<State>| match self.member.leases.look(&mut goal, state) {
            Progress::Holds => Look::Found(Ok(state.clone())),
            Progress::Hopeless(why) => Look::Found(Err(from_hopeless(&why))),
            Progress::Missing(what) => Look::Missing(what),
        };
        self.wait(look).await?
    }
}

pub(super) fn late(missing: &str) -> Status {
    Status::deadline_exceeded(format!("{missing}. The command was accepted and goes on"))
}

fn is_moved(status: &Status) -> bool {
    status.code() == tonic::Code::Aborted && status.message() == LEADER_MOVED
}

/// Runs to its end also when the caller goes away: half a membership is worse
/// than none.
pub(super) async fn to_its_end<T: Send + 'static>(
    work: impl Future<Output = Result<T, Status>> + Send + 'static,
) -> Result<Response<T>, Status> {
    let done = tokio::spawn(work).await;
    done.map_err(|e| internal("the command failed", &e))?.map(Response::new)
}

/// Answers with what the leader says to the same call, unless that is this node.
macro_rules! on_leader {
    ($call:ident, $message:ident, $client:ident, $method:ident) => {
        let ask = |leader| {
            let request = $call.relay($message.clone());
            async move { $client::new(leader).$method(request).await }
        };
        if let Some(reply) = $call.on_leader(ask).await? {
            return Ok(reply);
        }
    };
}
pub(super) use on_leader;

/// Answers with what the leader says, whose state is the newest; goes on with this
/// node's where no leader answers.
macro_rules! ask_leader {
    ($call:ident, $message:ident, $client:ident, $method:ident) => {
        if let Some(leader) = $call.leader()
            && let Ok(reply) = $client::new(leader).$method($call.read($message)).await
        {
            return Ok(reply);
        }
    };
}
pub(super) use ask_leader;

#[cfg(test)]
mod tests {
    use super::*;
    use tonic::Code;
    use vip_core::Tombstone;

    #[test]
    fn a_node_that_was_removed_hears_just_that() {
        let tombstone = |removed| Tombstone {
            name: "n2".parse().expect("a name"),
            spki: String::new(),
            macs: [].into(),
            removed,
            cut_off: false,
        };
        let removal = Removal { time_ms: 0, actor: "root@n1".into() };
        let mut state = State::default();
        let gone = [(NodeId(2), tombstone(Some(removal))), (NodeId(3), tombstone(None))];
        state.tombstones = Arc::new(gone.into());
        let told = |node| relay(&state, NodeId(node)).expect_err("it is no member");
        assert_eq!(told(2).code(), Code::NotFound);
        assert!(told(2).message().contains("removed") && told(2).message().contains("root@n1"));
        assert_eq!(
            (told(3).code(), told(4).code()),
            (Code::PermissionDenied, Code::PermissionDenied)
        );
    }

    #[test]
    fn a_callers_timeout_is_read_in_every_unit() {
        for (text, expected) in [
            ("5S", Duration::from_secs(5)),
            ("1500m", Duration::from_millis(1500)),
            ("1H", Duration::from_secs(3600)),
            ("x", DEFAULT_TIMEOUT),
            ("", DEFAULT_TIMEOUT),
        ] {
            let mut metadata = tonic::metadata::MetadataMap::new();
            metadata.insert("grpc-timeout", text.parse().expect("ascii"));
            assert_eq!(timeout(&metadata), expected, "{text}");
        }
    }
}
