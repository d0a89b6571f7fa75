//! An agent process: vip-core's leases over the small Raft. It does what
//! vip-agent's lease thread, leader task and RPC handlers do, without deciding
//! anything of its own.

mod calls;
mod core_loop;
mod leader;
mod messages;
mod probing;
mod tables;

pub(crate) use messages::{Input, Message, Out, Task};

use crate::guard::{FromGuard, ToGuard};
use crate::mutant::Mutant;
use crate::raft::{Index, Payload, Raft, RaftMessage, Snapshot};
use calls::Calls;
pub(crate) use calls::pace;
use core_loop::{CoreLoop, Proposal};
use probing::{Probing, Told};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tables::Lane;
use vip_core::{
    Acknowledgement, Actor, Ask, Asked, Cover, GrantAnswer, Grantee, HAND_OVER_POLL, HandOver,
    Incarnation, LEADER_LOOKS, LeaseAction, LeaseEvent, Leases, LeasesStart, Mono, NodeId,
    PATIENCE_IN_DOUBT, PromiseReply, RaftView, Recording, ReportId, Settled, State, Term, Timing,
    VipOrder, VipUid, Vote, Waiting, WaitingStep, Wanted,
};

/// How often the leader looks for what others left unfinished.
const UPKEEP: Duration = Duration::from_millis(200);
/// Entries between two snapshots: few, so that most worlds have some.
const SNAPSHOT_AFTER: Index = 10;

struct Pending {
    from: NodeId,
    id: u64,
    /// The name that it asks by.
    cover: Option<Cover>,
    waiting: Waiting,
    looks_at: Mono,
}

/// How the host is doing.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Conditions {
    /// For how long its oldest write has been waiting.
    pub(crate) oldest_write: Duration,
    /// Its clock runs as leases assume.
    pub(crate) clock_is_well: bool,
    /// How long a task stands still between looking and acting.
    pub(crate) stall: Duration,
}

pub(crate) struct Agent {
    me: NodeId,
    peers: Vec<NodeId>,
    timing: Timing,
    mutant: Option<Mutant>,
    leases: Leases,
    pub(crate) raft: Raft,
    state: Arc<State>,
    applied: Index,
    core: CoreLoop,
    /// What Raft shows of itself: nothing new while it saves a vote.
    shown: RaftView,
    observed: RaftView,
    observing: bool,
    applying: bool,
    /// See [`AgentStart::lost_up_to`].
    lost_up_to: Option<Term>,
    bears_until: Mono,
    asks: BTreeMap<u64, (Option<Incarnation>, Mono, Asked)>,
    calls: Calls,
    next_ask: u64,
    pending: Vec<Pending>,
    /// The leader's own proposals that are not applied yet.
    batch: Vec<Proposal>,
    proposed: u64,
    look_at: Mono,
    replicate_at: Mono,
    upkeep_at: Mono,
    ending: Option<HandOver>,
    stall: Duration,
    lane: Lane,
    probing: Probing,
    told: Told,
    /// Sessions that asked last, for the mutants that mix them up.
    asked: BTreeMap<VipUid, Grantee>,
    prepared: BTreeMap<VipUid, vip_core::Epoch>,
    /// Until when it is bound to others, and to whom last, for the mutants that
    /// forget the rest.
    promised_until: Mono,
    time_ms: u64,
    out: Vec<Out>,
}

/// What an agent starts with.
pub(crate) struct AgentStart {
    pub(crate) me: NodeId,
    /// Which of the agents of its host.
    pub(crate) run: u64,
    pub(crate) peers: Vec<NodeId>,
    pub(crate) timing: Timing,
    pub(crate) mutant: Option<Mutant>,
    pub(crate) genesis: Arc<State>,
    pub(crate) raft: Raft,
    /// A vote may be lost, of this term or an earlier one; that of `raft` stands for it.
    pub(crate) lost_up_to: Option<Term>,
    /// Whether it keeps what happens to its leases.
    pub(crate) record: bool,
}

impl Agent {
    /// What it kept.
    pub(crate) fn take_recordings(&mut self) -> Vec<Recording> {
        self.leases.take_recordings()
    }

    /// Whether it may be the only voter.
    pub(crate) fn votes_alone(&self) -> bool {
        self.raft.view().voters.0.iter().any(|set| set.len() < 2)
    }

    pub(crate) fn new(now: Mono, start: AgentStart) -> Self {
        let AgentStart { me, run, peers, timing, mutant, genesis, mut raft, lost_up_to, record } =
            start;
        let applied = raft.snapshot.as_ref().map_or(0, |snapshot| snapshot.index);
        let state = raft.snapshot.as_ref().map_or(genesis, |snapshot| snapshot.state.clone());
        raft.commit = applied;
        let (saved, shown) = (raft.vote, raft.view());
        raft.demote();
        // On the very first start nothing was ever promised.
        let ever = saved.term > Term(0) || lost_up_to.is_some();
        let quarantine = ever && mutant != Some(Mutant::NoQuarantine);
        let longest = if quarantine { timing.promise } else { Duration::ZERO };
        let interfaces = BTreeMap::new();
        let in_doubt = lost_up_to.is_some();
        let start = LeasesStart { me, timing, run, saved, in_doubt, longest, interfaces };
        let mut leases = Leases::new(now, start);
        if record {
            leases.record();
        }
        Self {
            me,
            peers,
            timing,
            mutant,
            leases,
            raft,
            state,
            applied,
            core: CoreLoop::default(),
            shown,
            observed: RaftView::default(),
            observing: false,
            lost_up_to,
            bears_until: now + timing.promise * PATIENCE_IN_DOUBT,
            applying: false,
            asks: BTreeMap::new(),
            calls: Calls::new(me, &timing, mutant),
            next_ask: 0,
            pending: vec![],
            batch: vec![],
            proposed: 0,
            look_at: Mono::ZERO,
            replicate_at: Mono::ZERO,
            upkeep_at: Mono::ZERO,
            ending: None,
            stall: Duration::ZERO,
            lane: Lane::default(),
            probing: Probing::new(me),
            told: Told::default(),
            asked: BTreeMap::new(),
            prepared: BTreeMap::new(),
            promised_until: now + longest,
            time_ms: 0,
            out: vec![],
        }
    }

    fn is(&self, mutant: Mutant) -> bool {
        self.mutant == Some(mutant)
    }

    pub(crate) fn has_lease(&self, now: Mono) -> bool {
        self.leases.has_lease(now)
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.ending.is_some()
    }

    pub(crate) fn state(&self) -> &Arc<State> {
        &self.state
    }

    /// Reacts, and says when to be called again at the latest.
    pub(crate) fn handle(&mut self, now: Mono, host: Conditions, input: Input) -> (Vec<Out>, Mono) {
        self.leases.disk(now, host.oldest_write, false);
        self.leases.clock(now, host.clock_is_well);
        self.stall = host.stall;
        match input {
            Input::Start => {
                self.step(now, LeaseEvent::Applied(self.state.clone()));
                self.step(now, LeaseEvent::Raft(self.shown.clone()));
                self.out.push(Out::Guard(ToGuard::Connect));
            }
            Input::Tick => self.tick(now),
            Input::Message(from, message) => self.receive(now, from, message),
            Input::Durable(written, after) => self.durable(now, written, after),
            Input::Enqueue(task) => self.enqueue(now, task),
            Input::Write(write, after) => self.write(now, write, after),
            Input::Guard(message) => self.guard(now, message),
            Input::Observe => {
                self.observing = false;
                self.observe(now);
            }
            Input::Applied => {
                self.applying = false;
                let state = self.shown_state();
                self.step(now, LeaseEvent::Applied(state));
                self.follow_log(now);
            }
            Input::AskTimeout(id) => self.answered(now, id, None),
            Input::Probed(ticket, answer) => self.probed(now, ticket, answer),
            Input::Called(id, reply) => self.called(now, id, reply),
            Input::Admin(op) => {
                if self.leases.leads_applied(now) {
                    self.propose(now, Actor("admin".into()), None, *op);
                }
            }
            Input::Voters(voters) => {
                if self.leases.leads_applied(now) {
                    self.enqueue_later(now, Task::Voters(voters));
                }
            }
            Input::Elect { pre } => self.enqueue(now, Task::Elect { pre }),
            Input::Stop => self.ending = Some(HandOver::of_everything(now, &mut self.leases)),
        }
        self.settle(now);
        let next = [
            self.leases.next_tick(),
            self.replicate_at,
            if self.raft.leads() { self.look_at } else { self.replicate_at },
            if self.ending.is_none() { self.replicate_at } else { now + HAND_OVER_POLL },
        ];
        let next = next
            .into_iter()
            .chain(self.probes_at())
            .chain(self.calls.next())
            .chain(self.pending.iter().map(|p| p.looks_at))
            .min();
        (std::mem::take(&mut self.out), next.unwrap_or(now))
    }

    /// What follows from any input.
    fn settle(&mut self, now: Mono) {
        self.call(now);
        if self.leases.take_changed() {
            self.step(now, LeaseEvent::Tick);
            self.answer_pending(now);
            self.look_at = now;
        }
        self.take_commits();
        if now >= self.look_at {
            self.look_at = now + LEADER_LOOKS;
            self.look(now);
        }
        if self.probes_at().is_none_or(|at| at <= now) {
            self.probe(now);
        }
        self.end(now);
    }

    fn tick(&mut self, now: Mono) {
        if now >= self.replicate_at {
            self.replicate_at = now + self.timing.heartbeat;
            self.heartbeat_due(now);
            self.ask_how_far(now);
            if self.is(Mutant::RenewAfterLeaseEnd)
                && let Some(vote) = self.leases.own_leadership()
            {
                self.renew(now, vote, &BTreeMap::new());
            }
        }
        if now >= self.upkeep_at {
            self.upkeep_at = now + UPKEEP;
            self.keep_up(now);
        }
        if self.leases.transferred_in_vain(now) {
            self.out.push(Out::StartOver);
        }
        self.observe(now);
        self.answer_pending(now);
        self.lane_tick(now);
    }

    fn observe(&mut self, now: Mono) {
        let mut view = self.shown.clone();
        if self.is(Mutant::LeaseKeptOverMembership)
            && view.leads.is_some()
            && view.leads == self.observed.leads
        {
            view.voters.clone_from(&self.observed.voters);
        }
        if view.leads.is_some() && view.leads != self.observed.leads {
            self.out.extend(view.leads.map(Out::Elected));
        }
        self.observed.clone_from(&view);
        self.step(now, LeaseEvent::Raft(view));
    }

    /// The state as the leases get to see it.
    fn shown_state(&self) -> Arc<State> {
        let mut state = self.state.clone();
        if self.is(Mutant::NestedForever) {
            let nested = state.all_vips().filter_map(|vip| vip.nested).map(|n| n.term).max();
            if let Some(term) = nested.filter(|term| *term < state.term) {
                Arc::make_mut(&mut state).previous_term = term;
            }
        }
        if self.is(Mutant::UnsettledRenewed) {
            let own = self.leases.claims().session();
            let term = state.term;
            let vips = &mut Arc::make_mut(&mut state).vips;
            for vip in Arc::make_mut(vips).values_mut().map(Arc::make_mut) {
                let unsettled = vip.settled.is_none_or(|s| s.epoch < vip.epoch);
                let Some(node) = vip.holder.filter(|_| unsettled && vip.assigned_in < term) else {
                    continue;
                };
                let asked = self.asked.get(&vip.uid).filter(|g| g.epoch == vip.epoch);
                let asked = asked.map(|g| g.incarnation);
                let session = if node == self.me { own } else { asked };
                if let Some(incarnation) = session {
                    vip.settled = Some(Settled { epoch: vip.epoch, incarnation, node });
                }
            }
        }
        state
    }

    fn step(&mut self, now: Mono, event: LeaseEvent) {
        for action in self.leases.step(now, event) {
            match action {
                LeaseAction::Renew { vote, known, .. } => self.renew(now, vote, &known),
                LeaseAction::Ask(ask) => self.ask(now, *ask),
                LeaseAction::Abdicate(vote) => self.broadcast(&Message::Abdicate(vote)),
                LeaseAction::Order(orders) => {
                    for order in &orders {
                        if let VipOrder::Prepare { vip, epoch, .. } = order {
                            self.prepared.insert(*vip, *epoch);
                        }
                    }
                    self.out.push(Out::Guard(ToGuard::Orders(orders)));
                }
                // A host of the simulator says what it cannot hold when it is asked to.
                LeaseAction::Consider(_) => {}
                LeaseAction::Ping => self.out.push(Out::Guard(ToGuard::Ping)),
                LeaseAction::Report(vote, report) => {
                    self.out.push(Out::Send(vote.node, Message::Report(report)));
                }
                LeaseAction::Confirm => self.out.push(Out::Guard(ToGuard::Confirm)),
                LeaseAction::EndSession => self.out.push(Out::Hangup),
                LeaseAction::Elect { pre_vote } => {
                    self.enqueue_later(now, Task::Elect { pre: pre_vote });
                }
            }
        }
    }

    fn broadcast(&mut self, message: &Message) {
        let sends = self.peers.iter().map(|to| Out::Send(*to, message.clone()));
        self.out.extend(sends);
    }

    fn renew(&mut self, now: Mono, vote: Vote, known: &BTreeMap<NodeId, ReportId>) {
        let renewal = |to: &NodeId| {
            let known = known.get(to).copied().unwrap_or_default();
            Out::Send(*to, Message::Renew { vote, sent_at: now, known })
        };
        self.out.extend(self.peers.iter().map(renewal));
    }

    fn ask(&mut self, now: Mono, ask: Ask) {
        let Ask { leader, session, wanted } = ask;
        let asked = wanted.asked();
        self.next_ask += 1;
        let id = self.next_ask;
        self.asks.insert(id, (session, now, asked));
        self.out.push(Out::Send(leader, Message::Ask { id, wanted }));
        self.out.push(Out::After(self.timing.promise + asked.wait(), Input::AskTimeout(id)));
    }

    fn answered(&mut self, now: Mono, id: u64, answer: Option<GrantAnswer>) {
        let Some((mut session, sent_at, asked)) = self.asks.remove(&id) else { return };
        let answer = answer.map(|mut answer| {
            for grantee in &mut answer.granted {
                if self.is(Mutant::StaleEpoch)
                    && let Some(epoch) = self.prepared.get(&grantee.vip)
                {
                    grantee.epoch = *epoch;
                }
                if self.is(Mutant::EarlierSession)
                    && let Some(present) = self.leases.claims().session()
                {
                    grantee.incarnation = present;
                    session = Some(present);
                }
            }
            answer
        });
        self.step(now, LeaseEvent::Answered { session, sent_at, asked, answer });
    }

    fn take_commits(&mut self) {
        if self.applied >= self.raft.commit {
            return;
        }
        while self.applied < self.raft.commit {
            self.applied += 1;
            let entry = self.raft.log[self.applied - 1].clone();
            let state = Arc::make_mut(&mut self.state);
            state.enter(entry.term);
            if let Payload::Command(command) = &entry.payload {
                state.apply(self.applied as u64, command);
            }
            self.out.push(Out::Committed(self.applied, entry));
            self.out.push(Out::State(self.applied, self.state.clone()));
        }
        self.soon_apply();
        let made = self.raft.snapshot.as_ref().map_or(0, |snapshot| snapshot.index);
        if self.applied >= made + SNAPSHOT_AFTER {
            self.keep_snapshot(Snapshot { index: self.applied, state: self.state.clone() });
        }
    }

    fn soon_apply(&mut self) {
        if !self.applying {
            self.applying = true;
            self.out.push(Out::Soon(Input::Applied));
        }
    }

    /// A restart begins with it, and late followers get it.
    fn keep_snapshot(&mut self, snapshot: Snapshot) {
        self.raft.snapshot = Some(snapshot.clone());
        self.out.push(Out::Snapshot(snapshot));
    }

    fn receive(&mut self, now: Mono, from: NodeId, message: Message) {
        match message {
            Message::Raft(message) => self.receive_raft(now, from, message),
            Message::Refused { remaining } => self.leases.peer_bound(now, remaining),
            Message::HandOver { vote, to } => {
                self.leases.handed_over_by(now, vote);
                if to == self.me {
                    self.enqueue(now, Task::TransferredBy(vote));
                }
            }
            Message::Renew { vote, sent_at, known } => {
                if self.promise(now, vote, Some(known)) {
                    let report = self.leases.latest_report();
                    let ack = Acknowledgement { from: self.me, vote, sent_at, report };
                    self.out.push(Out::Send(from, Message::Renewed(ack)));
                }
            }
            Message::Renewed(mut ack) => {
                if self.is(Mutant::AckAtReceiveTime) {
                    ack.sent_at = now;
                }
                self.step(now, LeaseEvent::Acknowledged(ack));
            }
            Message::Report(report) => drop(self.leases.reported_by(now, from, *report)),
            Message::Ask { id, wanted } => {
                let wait = wanted.asked().wait();
                self.asked.extend(wanted.named().iter().map(|grantee| (grantee.vip, *grantee)));
                if self.is(Mutant::UnsettledRenewed) {
                    let state = self.shown_state();
                    self.step(now, LeaseEvent::Applied(state));
                }
                let cover = match &wanted {
                    Wanted::Cover(cover) => Some(*cover),
                    _ => None,
                };
                let waiting = Waiting::of(now, from, wanted, wait);
                self.pending.push(Pending { from, id, cover, waiting, looks_at: now });
                self.answer_pending(now);
            }
            Message::Answer { id, answer } => self.answered(now, id, Some(answer)),
            Message::Abdicate(vote) => self.leases.abdicated_by(now, vote),
            Message::HowFar => {
                if self.leases.leads_applied(now) {
                    self.out.push(Out::Send(from, Message::LogGoesTo(self.applied)));
                }
            }
            Message::LogGoesTo(index) => self.log_goes_to(now, index),
            Message::Sightings(seen) => self.hear_sightings(now, from, seen),
        }
    }

    fn promise(&mut self, now: Mono, vote: Vote, known: Option<ReportId>) -> bool {
        let promise = self.timing.promise;
        let reply = match known {
            Some(known) => self.leases.renewed_by(now, vote, promise, known),
            None => self.leases.heard_of(now, vote, promise),
        };
        let promised = reply == PromiseReply::Promised;
        if promised {
            self.promised_until = now + self.timing.promise;
        }
        promised
    }

    fn receive_raft(&mut self, now: Mono, from: NodeId, message: RaftMessage) {
        let mut ticket = None;
        match &message {
            RaftMessage::RequestVote { .. } => {
                let forgets = self.is(Mutant::LeaseForgotten) && !self.raft.leads();
                match self.leases.may_vote(now) {
                    Ok(permission) => ticket = Some(permission),
                    Err(_) if self.is(Mutant::NoVoteFilter) => {}
                    Err(_) if forgets && now >= self.promised_until => {}
                    Err(refused) => {
                        let remaining = refused.remaining;
                        self.out.push(Out::Send(from, Message::Refused { remaining }));
                        return;
                    }
                }
            }
            RaftMessage::Append { vote, .. } | RaftMessage::Install { vote, .. }
                if now < self.bears_until
                    && self.lost_up_to.is_some_and(|lost| vote.term <= lost.next()) =>
            {
                return;
            }
            RaftMessage::Append { vote, .. } | RaftMessage::Install { vote, .. } => {
                self.promise(now, *vote, None);
            }
            RaftMessage::VoteReply { .. } | RaftMessage::AppendReply { .. } => {}
        }
        // Between the rules' word and openraft's turn the RPC's task may stand
        // still; entries are not asked about, they only renew.
        let task = Task::Message { from, message, ticket };
        if ticket.is_some() {
            self.enqueue_later(now, task);
        } else {
            self.enqueue(now, task);
        }
    }

    /// Requests that wait for something: answered when it can be said.
    fn answer_pending(&mut self, now: Mono) {
        for mut request in std::mem::take(&mut self.pending) {
            match request.waiting.step(now, &mut self.leases) {
                WaitingStep::Until(at) => {
                    request.looks_at = at;
                    self.pending.push(request);
                }
                WaitingStep::Answer(mut answer) => {
                    if self.is(Mutant::CoverIgnored) && self.leases.has_lease(now) {
                        answer.covered = request.cover;
                    }
                    let message = Message::Answer { id: request.id, answer };
                    self.out.push(Out::Send(request.from, message));
                }
            }
        }
    }

    fn guard(&mut self, now: Mono, message: FromGuard) {
        match message {
            FromGuard::Welcome(session) => self.lane_up(now, session),
            FromGuard::Tables(notice) => self.lane_said(now, notice),
            FromGuard::Alive => self.step(now, LeaseEvent::GuardAlive),
            FromGuard::Notices(notices) => self.step(now, LeaseEvent::Notices(notices)),
            FromGuard::Gone => {
                self.lane_down();
                self.step(now, LeaseEvent::GuardDown);
            }
        }
    }
}
