//! An agent process: vip-core's leases over the small Raft. It does what
//! vip-agent's lease thread, leader task and RPC handlers do, without deciding
//! anything of its own.

use crate::disk::Write;
use crate::guard::{FromGuard, ToGuard};
use crate::mutant::Mutant;
use crate::raft::{After, Effect, Entry, Index, Payload, Raft, RaftMessage};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use vip_core::{
    Acknowledgement, Actor, Ask, Command, GrantAnswer, Grantee, Incarnation, LeaseAction,
    LeaseEvent, Leases, LeasesStart, Mono, NodeId, Op, PromiseReply, PromiseTicket, RaftView,
    Settled, State, Term, Timing, VipOrder, VipUid, Vote,
};

/// As in vip-agent: how long a leader keeps a request for a first grant.
const FIRST_GRANT_WAIT: Duration = Duration::from_millis(80);
/// As in vip-agent: the leader looks for work this often at least.
const LOOK: Duration = Duration::from_millis(20);
/// As in vip-agent: how long a stopping node waits for its VIPs to move.
const HAND_OVER_TIMEOUT: Duration = Duration::from_millis(1500);
/// As in vip-agent, with its interval.
const HAND_OVER_POLL: Duration = Duration::from_millis(2);

/// What nodes say to each other.
#[derive(Clone, Debug)]
pub(crate) enum Message {
    Raft(RaftMessage),
    Refused { remaining: Duration },
    HandOver { vote: Vote, to: NodeId },
    Renew { vote: Vote, sent_at: Mono },
    Renewed(Acknowledgement),
    Ask { id: u64, wanted: Vec<Grantee>, released: Vec<Grantee>, first: bool },
    Answer { id: u64, answer: GrantAnswer },
    Abdicate(Vote),
}

/// What an agent is told.
#[derive(Clone, Debug)]
pub(crate) enum Input {
    Start,
    Tick,
    Message(NodeId, Message),
    Durable(After),
    Guard(FromGuard),
    /// What Raft knows reaches the leases some time later.
    Observe,
    Applied,
    AskTimeout(u64),
    /// Somebody gives a command.
    Admin(Op),
    Voters(BTreeSet<NodeId>),
    /// Raft's own timer fires.
    Elect {
        pre: bool,
    },
    /// SIGTERM.
    Stop,
}

/// What an agent does.
#[derive(Debug)]
pub(crate) enum Out {
    Send(NodeId, Message),
    Guard(ToGuard),
    /// The session is given up.
    Hangup,
    Write(Write, After),
    /// To itself, soon.
    Soon(Input),
    /// To itself, after a while.
    After(Duration, Input),
    /// An entry is committed, as far as this node knows.
    Committed(Index, Arc<Entry>),
    /// The state after it.
    State(Arc<State>),
    Elected(Term),
    Exit,
    /// The agent alone ends, and is started again.
    StartOver,
}

struct Pending {
    from: NodeId,
    id: u64,
    wanted: Vec<Grantee>,
    until: Mono,
}

/// A stop under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stopping {
    No,
    Draining { until: Mono },
    HandingOver { until: Mono },
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
    observed: RaftView,
    observing: bool,
    applying: bool,
    asks: BTreeMap<u64, (Option<Incarnation>, Mono, bool)>,
    next_ask: u64,
    pending: Vec<Pending>,
    /// The leader's own proposals that are not applied yet.
    batch: VecDeque<(Term, Index)>,
    look_at: Mono,
    replicate_at: Mono,
    stopping: Stopping,
    /// Sessions that asked last, for the mutants that mix them up.
    asked: BTreeMap<VipUid, Grantee>,
    prepared: BTreeMap<VipUid, vip_core::Epoch>,
    /// Until when it is bound to others, for the mutants that forget the rest.
    promised_until: Mono,
    /// Of the vote that is being written.
    ticket: Option<PromiseTicket>,
    time_ms: u64,
    out: Vec<Out>,
}

/// What an agent starts with.
pub(crate) struct AgentStart {
    pub(crate) me: NodeId,
    pub(crate) peers: Vec<NodeId>,
    pub(crate) timing: Timing,
    pub(crate) mutant: Option<Mutant>,
    pub(crate) genesis: Arc<State>,
    pub(crate) raft: Raft,
}

impl Agent {
    pub(crate) fn new(now: Mono, start: AgentStart) -> Self {
        let AgentStart { me, peers, timing, mutant, genesis, raft } = start;
        let saved = raft.vote;
        // On the very first start nothing was ever promised.
        let quarantine = saved.term > Term(0) && mutant != Some(Mutant::NoQuarantine);
        let longest = if quarantine { timing.promise } else { Duration::ZERO };
        let interfaces = BTreeMap::new();
        let leases = Leases::new(now, LeasesStart { me, timing, saved, longest, interfaces });
        Self {
            me,
            peers,
            timing,
            mutant,
            leases,
            raft,
            state: genesis,
            applied: 0,
            observed: RaftView::default(),
            observing: false,
            applying: false,
            asks: BTreeMap::new(),
            next_ask: 0,
            pending: vec![],
            batch: VecDeque::new(),
            look_at: Mono::ZERO,
            replicate_at: Mono::ZERO,
            stopping: Stopping::No,
            asked: BTreeMap::new(),
            prepared: BTreeMap::new(),
            promised_until: now + longest,
            ticket: None,
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
        self.stopping != Stopping::No
    }

    pub(crate) fn state(&self) -> &Arc<State> {
        &self.state
    }

    /// Reacts, and says when to be called again at the latest.
    pub(crate) fn handle(&mut self, now: Mono, disk: bool, input: Input) -> (Vec<Out>, Mono) {
        self.leases.disk(disk);
        match input {
            Input::Start => {
                self.step(now, LeaseEvent::Applied(self.state.clone()));
                self.step(now, LeaseEvent::Raft(self.raft.view()));
                self.out.push(Out::Guard(ToGuard::Connect));
            }
            Input::Tick => self.tick(now),
            Input::Message(from, message) => self.receive(now, from, message),
            Input::Durable(after) => {
                let effects = self.raft.durable(after);
                self.perform(now, effects);
            }
            Input::Guard(message) => self.guard(now, message),
            Input::Observe => {
                self.observing = false;
                self.observe(now);
            }
            Input::Applied => {
                self.applying = false;
                let state = self.shown_state();
                self.step(now, LeaseEvent::Applied(state));
            }
            Input::AskTimeout(id) => self.answered(now, id, None),
            Input::Admin(op) => {
                if self.leases.leads_applied(now) {
                    self.propose(now, Actor("admin".into()), op);
                }
            }
            Input::Voters(voters) => {
                if self.leases.leads_applied(now) {
                    let effects = self.raft.change_voters(voters);
                    self.perform(now, effects);
                }
            }
            Input::Elect { pre } => self.elect(now, pre),
            Input::Stop => {
                self.leases.stop_holding();
                self.stopping = Stopping::Draining { until: now + HAND_OVER_TIMEOUT };
            }
        }
        self.settle(now);
        let next = [
            self.leases.next_tick(now),
            self.replicate_at,
            if self.raft.leads() { self.look_at } else { self.replicate_at },
            if self.stopping == Stopping::No { self.replicate_at } else { now + HAND_OVER_POLL },
        ];
        let next = next.into_iter().chain(self.pending.iter().map(|p| p.until)).min();
        (std::mem::take(&mut self.out), next.unwrap_or(now))
    }

    /// What follows from any input.
    fn settle(&mut self, now: Mono) {
        if self.leases.take_changed() {
            self.step(now, LeaseEvent::Tick);
            self.answer_pending(now);
            self.look_at = now;
        }
        self.take_commits();
        if now >= self.look_at {
            self.look_at = now + LOOK;
            self.look(now);
        }
        self.stop(now);
    }

    fn tick(&mut self, now: Mono) {
        if now >= self.replicate_at {
            self.replicate_at = now + self.timing.heartbeat;
            let mut effects = vec![];
            self.raft.replicate(&mut effects);
            self.perform(now, effects);
            if self.is(Mutant::RenewAfterLeaseEnd)
                && let Some(vote) = self.leases.own_leadership()
            {
                self.renew(now, vote);
            }
        }
        if self.leases.closed_in_vain(now) {
            self.out.push(Out::StartOver);
        }
        self.observe(now);
        self.answer_pending(now);
    }

    fn observe(&mut self, now: Mono) {
        let mut view = self.raft.view();
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
            let nested = state.vips.values().filter_map(|vip| vip.nested).map(|n| n.term).max();
            if let Some(term) = nested.filter(|term| *term < state.term) {
                Arc::make_mut(&mut state).previous_term = term;
            }
        }
        if self.is(Mutant::UnsettledRenewed) {
            let own = self.leases.claims().session();
            let term = state.term;
            for vip in Arc::make_mut(&mut state).vips.values_mut() {
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
                LeaseAction::Renew { vote, .. } => self.renew(now, vote),
                LeaseAction::Ask(ask) => self.ask(now, ask),
                LeaseAction::Abdicate(vote) => self.broadcast(&Message::Abdicate(vote)),
                LeaseAction::Order(orders) => {
                    for order in &orders {
                        if let VipOrder::Prepare { vip, epoch, .. } = order {
                            self.prepared.insert(*vip, *epoch);
                        }
                    }
                    self.out.push(Out::Guard(ToGuard::Orders(orders)));
                }
                LeaseAction::Ping => self.out.push(Out::Guard(ToGuard::Ping)),
                LeaseAction::Confirm => self.out.push(Out::Guard(ToGuard::Confirm)),
                LeaseAction::EndSession => self.out.push(Out::Hangup),
                LeaseAction::Elect { pre_vote } => self.elect(now, pre_vote),
            }
        }
    }

    fn elect(&mut self, now: Mono, pre: bool) {
        let effects = self.raft.elect(pre);
        self.perform(now, effects);
    }

    fn broadcast(&mut self, message: &Message) {
        let sends = self.peers.iter().map(|to| Out::Send(*to, message.clone()));
        self.out.extend(sends);
    }

    fn renew(&mut self, now: Mono, vote: Vote) {
        self.broadcast(&Message::Renew { vote, sent_at: now });
    }

    fn ask(&mut self, now: Mono, ask: Ask) {
        let Ask { leader, session, wanted, released, first } = ask;
        self.next_ask += 1;
        let id = self.next_ask;
        self.asks.insert(id, (session, now, first));
        self.out.push(Out::Send(leader, Message::Ask { id, wanted, released, first }));
        let wait = if first { FIRST_GRANT_WAIT } else { Duration::ZERO };
        self.out.push(Out::After(self.timing.promise + wait, Input::AskTimeout(id)));
    }

    fn answered(&mut self, now: Mono, id: u64, answer: Option<GrantAnswer>) {
        let Some((mut session, sent_at, first)) = self.asks.remove(&id) else { return };
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
        self.step(now, LeaseEvent::Answered { session, sent_at, first, answer });
    }

    fn perform(&mut self, now: Mono, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Saving(vote) => self.leases.saving_vote(now, vote),
                Effect::Write(write, after) => self.out.push(Out::Write(write, after)),
                Effect::Send(to, message) => {
                    let allowed = match &message {
                        RaftMessage::RequestVote { .. } => {
                            let forgets = self.is(Mutant::SelfVoteInLease);
                            self.leases.may_campaign(now).is_ok()
                                || (forgets && now >= self.promised_until)
                        }
                        RaftMessage::VoteReply { granted: true, pre: false, .. } => {
                            let ticket = self.ticket.take();
                            ticket.is_none_or(|ticket| self.leases.still_may_vote(now, ticket))
                        }
                        RaftMessage::Append { .. } => {
                            self.is(Mutant::RenewAfterLeaseEnd) || self.leases.may_renew(now)
                        }
                        RaftMessage::VoteReply { granted: true, pre: true, .. } => {
                            self.leases.promised_vote(now);
                            true
                        }
                        RaftMessage::VoteReply { .. } | RaftMessage::AppendReply { .. } => true,
                    };
                    if allowed {
                        self.out.push(Out::Send(to, Message::Raft(message)));
                    }
                }
            }
        }
        self.soon_observe();
        self.take_commits();
    }

    fn soon_observe(&mut self) {
        if !self.observing && self.raft.view() != self.observed {
            self.observing = true;
            self.out.push(Out::Soon(Input::Observe));
        }
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
            self.out.push(Out::State(self.state.clone()));
        }
        if !self.applying {
            self.applying = true;
            self.out.push(Out::Soon(Input::Applied));
        }
    }

    fn receive(&mut self, now: Mono, from: NodeId, message: Message) {
        match message {
            Message::Raft(message) => self.receive_raft(now, from, message),
            Message::Refused { remaining } => self.leases.peer_bound(now, remaining),
            Message::HandOver { vote, to } => {
                self.leases.handed_over_by(now, vote);
                if to == self.me && self.raft.vote.same_candidacy(&vote) {
                    self.elect(now, false);
                }
            }
            Message::Renew { vote, sent_at } => {
                if self.promise(now, vote) {
                    let claims = self.leases.claims();
                    let ack = Acknowledgement {
                        from: self.me,
                        vote,
                        sent_at,
                        able: self.leases.able(now),
                        stopping: self.leases.is_stopping(),
                        unable: claims.unable().into_iter().collect(),
                        open: claims.renewals().into_iter().collect(),
                    };
                    self.out.push(Out::Send(from, Message::Renewed(ack)));
                }
            }
            Message::Renewed(mut ack) => {
                if self.is(Mutant::AckAtReceiveTime) {
                    ack.sent_at = now;
                }
                self.step(now, LeaseEvent::Acknowledged(ack));
            }
            Message::Ask { id, wanted, released, first } => {
                self.leases.released_by(from, &released);
                for grantee in &wanted {
                    self.asked.insert(grantee.vip, *grantee);
                }
                if self.is(Mutant::UnsettledRenewed) {
                    let state = self.shown_state();
                    self.step(now, LeaseEvent::Applied(state));
                }
                let wait = if first { FIRST_GRANT_WAIT } else { Duration::ZERO };
                self.pending.push(Pending { from, id, wanted, until: now + wait });
                self.answer_pending(now);
            }
            Message::Answer { id, answer } => self.answered(now, id, Some(answer)),
            Message::Abdicate(vote) => self.leases.abdicated_by(now, vote),
        }
    }

    fn promise(&mut self, now: Mono, vote: Vote) -> bool {
        let reply = self.leases.renewed_by(now, vote, self.timing.promise);
        let promised = reply == PromiseReply::Promised;
        if promised {
            self.promised_until = now + self.timing.promise;
        }
        promised
    }

    fn receive_raft(&mut self, now: Mono, from: NodeId, message: RaftMessage) {
        match &message {
            RaftMessage::RequestVote { .. } => {
                let forgets = self.is(Mutant::LeaseForgotten) && !self.raft.leads();
                match self.leases.may_vote(now) {
                    Ok(ticket) => self.ticket = Some(ticket),
                    Err(_) if self.is(Mutant::NoVoteFilter) => {}
                    Err(_) if forgets && now >= self.promised_until => {}
                    Err(refused) => {
                        let remaining = refused.remaining;
                        self.out.push(Out::Send(from, Message::Refused { remaining }));
                        return;
                    }
                }
            }
            RaftMessage::Append { vote, .. } => {
                self.promise(now, *vote);
            }
            RaftMessage::VoteReply { .. } | RaftMessage::AppendReply { .. } => {}
        }
        let effects = self.raft.receive(from, message);
        self.perform(now, effects);
    }

    /// Requests that wait for something: answered when it can be said, or when
    /// their time is up.
    fn answer_pending(&mut self, now: Mono) {
        let pending = std::mem::take(&mut self.pending);
        for request in pending {
            let (answer, free_at) = self.leases.granted_to(now, request.from, &request.wanted);
            match free_at {
                Some(free_at) if now < request.until => {
                    // Looked at again when it is due, at the latest.
                    self.out.push(Out::After(free_at.since(now), Input::Tick));
                    self.pending.push(request);
                }
                _ => {
                    let message = Message::Answer { id: request.id, answer };
                    self.out.push(Out::Send(request.from, message));
                }
            }
        }
    }

    fn guard(&mut self, now: Mono, message: FromGuard) {
        match message {
            FromGuard::Welcome(session) => self.step(now, LeaseEvent::GuardUp(session)),
            FromGuard::Alive => self.step(now, LeaseEvent::GuardAlive),
            FromGuard::Notices(notices) => self.step(now, LeaseEvent::Notices(notices)),
            FromGuard::Gone => self.step(now, LeaseEvent::GuardDown),
        }
    }

    fn propose(&mut self, now: Mono, actor: Actor, op: Op) {
        self.time_ms += 1;
        let command = Command { time_ms: self.time_ms, actor, op };
        let (index, effects) = self.raft.propose(Payload::Command(command));
        self.batch.push_back((self.raft.vote.term, index));
        self.perform(now, effects);
    }

    /// What vip-agent's leader task does: one batch after the other.
    fn look(&mut self, now: Mono) {
        let term = self.raft.vote.term;
        let (leads, applied) = (self.raft.leads(), self.applied);
        self.batch.retain(|(of, index)| leads && *of == term && *index > applied);
        if !leads || !self.batch.is_empty() || !self.leases.leads_applied(now) {
            return;
        }
        let mut work = self.leases.leader_work(now);
        if self.is(Mutant::NestedAtOnce) {
            work.own = self.unnested();
        }
        let leader = || Actor("leader".into());
        if !work.moves.is_empty() {
            self.propose(now, leader(), Op::Assign { moves: work.moves });
        }
        if !work.own.is_empty() {
            self.propose(now, leader(), Op::Settle { grants: work.own, nested: true });
        }
        if !work.others.is_empty() {
            self.propose(now, leader(), Op::Settle { grants: work.others, nested: false });
        }
        if !work.releases.is_empty() {
            self.propose(now, leader(), Op::Released { releases: work.releases });
        }
        self.hand_leadership_away(now);
    }

    /// What this node holds and the log does not call nested in this term.
    fn unnested(&self) -> Vec<Grantee> {
        let nested = |grantee: &Grantee| {
            let vip = self.state.vip(grantee.vip);
            vip.is_some_and(|vip| {
                vip.holder != Some(self.me)
                    || vip.epoch != grantee.epoch
                    || vip
                        .nested
                        .is_some_and(|n| n.term == self.state.term && n.epoch == grantee.epoch)
            })
        };
        self.leases.claims().renewals().into_iter().filter(|grantee| !nested(grantee)).collect()
    }

    /// A witness, or a drained node, leads only while nobody else can.
    fn hand_leadership_away(&mut self, now: Mono) {
        if let Some(to) = self.leases.leads_instead_of(now) {
            self.hand_over(now, to);
        }
    }

    /// Ends this node's lease and hands leadership over, if that can be now.
    fn hand_over(&mut self, now: Mono, to: NodeId) {
        if !self.raft.has_all(to) {
            return;
        }
        let closed = self.leases.close_lease(now, to);
        if !closed && !self.is(Mutant::AbdicatedWhileOpen) {
            return;
        }
        if let Some(vote) = self.leases.own_leadership() {
            self.broadcast(&Message::HandOver { vote, to });
        }
    }

    /// SIGTERM: VIPs first, leadership last.
    fn stop(&mut self, now: Mono) {
        let Stopping::Draining { until } = self.stopping else {
            if let Stopping::HandingOver { until } = self.stopping {
                if !self.raft.leads() || now >= until {
                    self.out.push(Out::Exit);
                } else {
                    self.hand_over_to_successor(now);
                }
            }
            return;
        };
        let hurried = self.is(Mutant::AbdicatedWhileOpen);
        if hurried || self.leases.claims().holdings().is_empty() || now >= until {
            self.stopping = Stopping::HandingOver { until };
            self.hand_over_to_successor(now);
        }
    }

    fn hand_over_to_successor(&mut self, now: Mono) {
        if self.leases.has_lease(now)
            && let Some(to) = self.leases.successor(now)
        {
            self.hand_over(now, to);
        }
    }
}
