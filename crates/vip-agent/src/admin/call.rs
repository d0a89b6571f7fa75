//! One call: who asks, until when, where it is carried out, and when its effect
//! holds.

use super::streams::Streams;
use crate::access::Caller;
use crate::errors::{from_refusal, from_write, no_quorum, not_a_member};
use crate::membership::Seat;
use crate::node::Member;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep};
use tonic::transport::Channel;
use tonic::{Request, Status};
use vip_core::{Actor, NodeState, Op, Outcome, Role, State, excerpt};
use vip_pki::{Identity, PeerInfo};
use vip_proto::v1::admin_client::AdminClient;

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
pub(super) const POLL: Duration = Duration::from_millis(5);
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

/// Where a call is carried out.
pub(super) enum Route {
    Here,
    There(AdminClient<Channel>),
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
                let state = member.raft.state();
                let relay = state.nodes.get(node);
                let relay = relay.ok_or_else(|| Status::permission_denied("not a member"))?;
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
            let state = call.member.raft.state();
            let may = state
                .nodes
                .get(node)
                .is_some_and(|n| n.role == Role::Voter && n.state != NodeState::Joining);
            if !may {
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
        loop {
            member.refuse_if_removed()?;
            match member.shared.leader() {
                Some(leader) if leader == member.meta.node => {
                    let ready = member.shared.leads_applied();
                    if ready {
                        return Ok(Route::Here);
                    }
                }
                Some(_) if self.relayed => return Err(Status::aborted(LEADER_MOVED)),
                Some(leader) => {
                    if let Some(channel) = member.channel(leader) {
                        return Ok(Route::There(AdminClient::new(channel)));
                    }
                }
                None => {}
            }
            if Instant::now() >= until {
                return Err(no_quorum("this node knows of no leader, so nothing was done"));
            }
            sleep(POLL).await;
        }
    }

    /// Whether a relayed command met a node that leads no more: nothing was done,
    /// and the one that does is known soon.
    pub(super) fn goes_on_after(&self, status: &Status) -> bool {
        let moved = status.code() == tonic::Code::Aborted && status.message() == LEADER_MOVED;
        moved && !self.time_left().is_zero()
    }

    /// The leader, if it is another node.
    pub(super) fn leader(&self) -> Option<AdminClient<Channel>> {
        let leader = self.member.shared.leader().filter(|l| *l != self.member.meta.node)?;
        Some(AdminClient::new(self.member.channel(leader).filter(|_| !self.relayed)?))
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
        let write = self.member.propose_as(self.actor.clone(), op, self.time_left());
        let outcome = write.await.map_err(|e| from_write(&e))?;
        outcome.accepted().map_err(|refusal| from_refusal(&refusal))
    }

    /// Waits until `look` finds something in the state; `missing` says what is
    /// still awaited.
    pub(super) async fn wait<T>(
        &self,
        mut look: impl FnMut(&State) -> Option<T>,
        missing: impl Fn(&State) -> String,
    ) -> Result<T, Status> {
        let mut changes = self.member.shared.changes();
        loop {
            let state = self.member.raft.state();
            if let Some(found) = look(&state) {
                return Ok(found);
            }
            if self.time_left().is_zero() {
                return Err(Status::deadline_exceeded(format!(
                    "{}. The command was accepted and goes on",
                    missing(&state)
                )));
            }
            tokio::select! {
                _ = changes.changed() => {}
                () = sleep(POLL) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
