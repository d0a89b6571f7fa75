//! One node's part in promises, leases, grants and claims: the whole of the
//! lease path's decisions, for the lease thread to carry out.
//!
//! ```text
//!  Raft leads, applied ──┐                     ┌──> Renew to the members
//!  acknowledgements ─────┤                     ├──> Ask the leader
//!  leader's answers ─────┼──> step(now, ..) ───┼──> Guard: orders, ping, confirm
//!  guard's notices ──────┤                     ├──> Elect
//!  time ─────────────────┘                     └──> Abdicate
//!  requests of other nodes ──> renewed_by, granted_to, abdicated_by, may_vote
//! ```

mod clients;
mod doors;
mod guard_session;
mod hand_over;
mod holder;
mod leader;
mod recording;
mod reporting;
mod snapshot;
mod succession;
mod voter;
mod waiting;
mod work;

pub use clients::{Frontage, NoClients};
pub use doors::{LeaseInput, LeaseOutput};
pub use hand_over::{HAND_OVER_POLL, HandOver, HandOverStep};
pub use holder::{Ask, Asked, FIRST_GRANT_WAIT, Wanted};
pub use leader::{Acknowledgement, Answers};
pub use recording::{Recording, RecordingError, Replayed};
pub use snapshot::LeaseSnapshot;
pub use waiting::{Waiting, WaitingStep};
pub use work::LeaderWork;

use crate::{
    Address, ClaimEvent, Claims, Cover, Grantee, GuardNotice, Incarnation, Mac, Mono, NodeId,
    Obstacle, Promise, Report, ReportId, Runs, State, Term, Timing, VipOrder, VipUid, Vote, Voters,
};
use guard_session::GuardSession;
use holder::Holder;
use leader::Leader;
use recording::Recorder;
use reporting::Reporting;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use voter::Voter;

/// A leader looks for work this often at least: liveness changes by time alone.
pub const LEADER_LOOKS: Duration = Duration::from_millis(20);

/// What this node's Raft says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RaftView {
    /// The term that it leads, by a vote of its own that is committed.
    pub leads: Option<Term>,
    /// Voter sets of the effective and the committed configuration.
    pub voters: Voters,
}

/// What a node starts with.
#[derive(Clone, Debug)]
pub struct LeasesStart {
    /// This node.
    pub me: NodeId,
    /// The profile's timings.
    pub timing: Timing,
    /// This process, drawn at random.
    pub run: u64,
    /// The vote as last saved.
    pub saved: Vote,
    /// That vote stands for one that may be lost.
    pub in_doubt: bool,
    /// The largest P ever promised; the quarantine lasts as long.
    pub longest: Duration,
    /// Cluster-wide names of interfaces to this host's.
    pub interfaces: BTreeMap<String, String>,
}

/// What the lease path is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LeaseEvent {
    /// Time passed.
    Tick,
    /// Raft's leadership or membership may have changed.
    Raft(RaftView),
    /// The log was applied up to here.
    Applied(Arc<State>),
    /// A guard accepted this agent, and is not in use yet: every gate of this host is shut.
    GuardCame,
    /// It is in use.
    GuardUp(Incarnation),
    /// The guard is gone.
    GuardDown,
    /// It answered a ping.
    GuardAlive,
    /// The interfaces of this host that have addresses.
    Interfaces(BTreeSet<Mac>),
    /// What the guard could not hold, as its host is: all of it.
    Hindered(BTreeMap<VipUid, Obstacle>),
    /// The guard says, in order.
    Notices(Vec<GuardNotice>),
    /// Who has to be told where a VIP is confirmed that it is here.
    Taken(VipUid, crate::Epoch),
    /// They will not hear of it.
    NotTaken(VipUid, crate::Epoch, Obstacle),
    /// This is what they have, to be written down before it is changed.
    Saw(VipUid, crate::ViaToken),
    /// A member promised.
    Acknowledged(Acknowledgement),
    /// A report of this node did not get to its leader.
    Unreported(ReportId),
    /// The leader's answer to an [`Ask`] of this node, or that none came.
    Answered {
        /// The guard session that asked.
        session: Option<Incarnation>,
        /// When the request was sent.
        sent_at: Mono,
        /// For what.
        asked: Asked,
        /// Granted and denied; `None`: no answer.
        answer: Option<GrantAnswer>,
    },
}

/// A leader's answer to a request for grants.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrantAnswer {
    /// Granted, from the requester's send time for G.
    pub granted: Vec<Grantee>,
    /// Not granted.
    pub denied: Vec<(Grantee, crate::Denial)>,
    /// All of this set is renewed, in the same way. `None` to a request by name:
    /// another set has that name here.
    pub covered: Option<Cover>,
}

/// What the lease thread does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LeaseAction {
    /// Ask every other member to renew its promise.
    Renew {
        /// The leader's committed vote.
        vote: Vote,
        /// P.
        promise: Duration,
        /// The report that is known of each.
        known: BTreeMap<NodeId, ReportId>,
    },
    /// Ask the leader for grants.
    Ask(Box<Ask>),
    /// Tell the leader of this vote what this node says of itself.
    Report(Vote, Box<Report>),
    /// Tell every other member that this leadership is over.
    Abdicate(Vote),
    /// Orders to the guard.
    Order(Vec<VipOrder>),
    /// Tell the guard which VIPs there are.
    Consider(Vec<(VipUid, Vec<Address>)>),
    /// Ask the guard whether it runs.
    Ping,
    /// Have the guard announce again what it holds.
    Confirm,
    /// Give up the session with the guard, which does not answer.
    EndSession,
    /// Ask for votes.
    Elect {
        /// Whether to ask first whether the votes would be granted.
        pre_vote: bool,
    },
}

/// What to do at the end of a step, beside what is due by time.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
struct Wants {
    /// Ask the leader to renew what is open.
    renew: bool,
    /// Ask the leader for first grants.
    ask: bool,
}

/// What this node is and goes by, whatever it is about to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Scene {
    me: NodeId,
    timing: Timing,
    /// What runs here.
    runs: Runs,
    /// The log's, as last taken over.
    state: Arc<State>,
    voters: Voters,
    stopping: bool,
    disk_is_well: bool,
    clock_is_well: bool,
}

impl Scene {
    /// The members without a promise to wait for: everybody else in the log.
    fn others(&self) -> impl Iterator<Item = NodeId> {
        self.state.nodes.keys().copied().filter(|id| *id != self.me)
    }
}

/// See the module. Each part has its own fields; what needs two of them is decided
/// here.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Leases {
    scene: Scene,
    voter: Voter,
    leader: Leader,
    holder: Holder,
    guard: GuardSession,
    reporting: Reporting,
    heartbeat_at: Mono,
    wake_at: Option<Mono>,
    wants: Wants,
    changed: bool,
    /// As what the leader saw, when it found nothing to change in the log last. Gone
    /// when anything came in since that it could find something in.
    #[serde(skip)]
    idle_as: Option<work::Seen>,
    /// What happened lately, if that is kept.
    #[serde(skip)]
    recorder: Option<Box<Recorder>>,
}

impl Leases {
    /// At process start, in quarantine.
    #[must_use]
    pub fn new(now: Mono, start: LeasesStart) -> Self {
        let LeasesStart { me, timing, run, saved, in_doubt, longest, interfaces } = start;
        let mut promise = Promise::at_start(now, saved, longest);
        if in_doubt {
            promise.doubt();
        }
        // The caller stored this one before it started us.
        promise.longest_stored(timing.promise);
        let scene = Scene {
            me,
            timing,
            runs: Runs::here(),
            state: Arc::default(),
            voters: Voters::default(),
            stopping: false,
            disk_is_well: true,
            clock_is_well: true,
        };
        let led = (saved.committed && saved.node == me).then_some(saved);
        Self {
            scene,
            voter: Voter::bound_by(promise),
            leader: Leader::default(),
            holder: Holder::of(Claims::new(me)),
            guard: GuardSession::on(interfaces, led),
            reporting: Reporting::of_run(run),
            heartbeat_at: Mono::ZERO,
            wake_at: None,
            wants: Wants::default(),
            changed: false,
            idle_as: None,
            recorder: None,
        }
    }

    /// Takes note of an event and returns everything that is due now, in order.
    fn on_event(&mut self, now: Mono, event: LeaseEvent) -> Vec<LeaseAction> {
        let mut actions = vec![];
        match event {
            LeaseEvent::Tick => {}
            LeaseEvent::Raft(view) => self.raft(now, view),
            LeaseEvent::Applied(state) => {
                self.scene.state = state;
                (self.changed, self.reporting.due) = (true, true);
                self.consider(&mut actions);
                self.sync(now, &mut actions);
            }
            LeaseEvent::GuardCame => self.resign(now, &mut actions),
            LeaseEvent::GuardUp(session) => self.guard_up(now, session, &mut actions),
            LeaseEvent::GuardDown => self.guard_down(now, &mut actions),
            LeaseEvent::GuardAlive => {
                self.guard.is_alive(now);
                self.holder.claims.guard_is_heard();
            }
            LeaseEvent::Interfaces(macs) => self.interfaces_are(macs),
            LeaseEvent::Hindered(hindered) => self.hindered(now, hindered, &mut actions),
            LeaseEvent::Notices(notices) => self.notices(now, notices, &mut actions),
            LeaseEvent::Taken(vip, epoch) => {
                self.guard_changed(now, [ClaimEvent::Taken(vip, epoch)], &mut actions);
            }
            LeaseEvent::Saw(vip, token) => {
                self.guard_changed(now, [ClaimEvent::Saw(vip, token)], &mut actions);
            }
            LeaseEvent::NotTaken(vip, epoch, why) => {
                self.guard_changed(now, [ClaimEvent::NotTaken(vip, epoch, why)], &mut actions);
            }
            LeaseEvent::Acknowledged(ack) => self.acknowledged(&ack, &mut actions),
            LeaseEvent::Unreported(id) => self.reporting.lost(id),
            LeaseEvent::Answered { session, sent_at, asked, answer } => {
                self.holder.is_answered(asked);
                let first = asked != Asked::More;
                if let Some(answer) = answer {
                    // The rest may be free by now.
                    self.wants.ask |= first && answer.denied.is_empty();
                    let other = answer == GrantAnswer::default();
                    // To each by its own name it would say no more than this.
                    if !first && other && self.holder.take_by_name() {
                        self.name_all();
                    }
                    self.answered(now, session, sent_at, answer, &mut actions);
                }
            }
        }
        self.leader.inherits(&self.scene.state);
        self.pump(now, &mut actions);
        actions
    }

    /// When [`LeaseEvent::Tick`] is due next.
    #[must_use]
    pub fn next_tick(&self) -> Mono {
        let due = [self.campaign_due(), self.wake_at].into_iter().flatten();
        due.fold(self.heartbeat_at, Mono::min)
    }

    /// Whether anything changed since this was last asked that others may wait
    /// for: grants, leadership, what is held.
    pub fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    fn on_stop(&mut self) {
        self.scene.stopping = true;
        (self.changed, self.reporting.due) = (true, true);
    }

    fn on_disk(&mut self, is_well: bool) {
        self.scene.disk_is_well = is_well;
        self.reporting.due = true;
    }

    fn on_clock(&mut self, is_well: bool) {
        self.scene.clock_is_well = is_well;
        (self.changed, self.reporting.due) = (true, true);
        self.voter.promise.clock(is_well);
    }

    /// This node.
    #[must_use]
    pub fn me(&self) -> NodeId {
        self.scene.me
    }

    /// The timings it runs with.
    #[must_use]
    pub fn timing(&self) -> &Timing {
        &self.scene.timing
    }

    /// The log's state, as last taken over.
    #[must_use]
    pub fn state(&self) -> &Arc<State> {
        &self.scene.state
    }

    /// Its claims.
    #[must_use]
    pub fn claims(&self) -> &Claims {
        &self.holder.claims
    }

    /// Who leads, as far as this node can be sure: itself with a lease, or the
    /// leader that it promised to and that promise still runs.
    #[must_use]
    pub fn leader(&self, now: Mono) -> Option<NodeId> {
        if self.has_lease(now) {
            return Some(self.scene.me);
        }
        let (vote, at) = self.voter.heard()?;
        (now < at + self.scene.timing.promise).then_some(vote.node)
    }

    /// Does what is due: heartbeats, grants, an election.
    fn pump(&mut self, now: Mono, actions: &mut Vec<LeaseAction>) {
        self.wake_at = None;
        if now >= self.heartbeat_at {
            // From now, not from when it was due: a stall is not made up for.
            self.heartbeat_at = now + self.scene.timing.heartbeat;
            self.heartbeat(now, actions);
            self.ping(now, actions);
            // What a node cannot do for now it can later, without a word from anybody.
            self.reporting.due |= self.holder.claims.ages();
            if self.holder.claims.may_differ() {
                self.sync(now, actions);
            }
            self.wants.renew = true;
            self.wants.ask = true;
            self.reporting.again = true;
        }
        let wants = std::mem::take(&mut self.wants);
        if self.leader.is_leading() {
            self.wake_at = self.hold_as_leader(now, actions);
        } else {
            self.report_to_leader(now, actions);
            self.ask_leader(now, wants, actions);
        }
        if self.campaign_due().is_some_and(|due| now >= due) {
            self.campaign(now, actions);
        }
    }
}

#[cfg(test)]
mod tests;
