//! A small Raft: elections with and without pre-vote, replication, joint
//! configurations. It stands in for openraft, whose promises it keeps and no
//! more; the lease rules around it are the agent's.

use crate::disk::Write;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use vip_core::{Command, NodeId, RaftView, State, Term, Vote, Voters};

/// Index of an entry in the log, from 1; 0 is before the first.
pub(crate) type Index = usize;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Payload {
    Blank,
    /// One set, or two while it is joint.
    Membership(Vec<BTreeSet<NodeId>>),
    Command(Command),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) term: Term,
    pub(crate) payload: Payload,
}

/// Place of a log's last entry, for comparing logs.
pub(crate) type Last = (Term, Index);

#[derive(Clone, Debug)]
pub(crate) enum RaftMessage {
    RequestVote {
        vote: Vote,
        last: Last,
        pre: bool,
    },
    VoteReply {
        vote: Vote,
        granted: bool,
        pre: bool,
        saved: Vote,
    },
    Append {
        vote: Vote,
        previous: Last,
        entries: Vec<Arc<Entry>>,
        commit: Index,
    },
    AppendReply {
        vote: Vote,
        saved: Vote,
        matched: Option<Index>,
    },
    /// A snapshot, with the entries that it stands for: the model keeps them to
    /// compare logs, the node that installs it applies none of them.
    Install {
        vote: Vote,
        snapshot: Snapshot,
        entries: Vec<Arc<Entry>>,
    },
}

/// The state after an entry.
#[derive(Clone, Debug)]
pub(crate) struct Snapshot {
    pub(crate) index: Index,
    pub(crate) state: Arc<State>,
}

/// Entries kept behind a snapshot, for followers that are a little late.
const KEPT: usize = 4;

/// What follows once a write is durable.
#[derive(Clone, Debug)]
pub(crate) enum After {
    /// The candidate asks for votes.
    Ask(Vote),
    /// The leader counts its own copy.
    Own {
        vote: Vote,
        through: Index,
    },
    /// Reply to the sender.
    Reply {
        to: NodeId,
        message: RaftMessage,
    },
    Nothing,
}

/// What Raft wants done.
#[derive(Debug)]
pub(crate) enum Effect {
    Send(NodeId, RaftMessage),
    Write(Write, After),
    /// A vote is about to be written.
    Saving(Vote),
    /// The state is this one now.
    Installed(Snapshot),
}

#[derive(Debug)]
enum Role {
    Follower,
    Candidate {
        granted: BTreeSet<NodeId>,
        pre: bool,
        vote: Vote,
    },
    Leader {
        next: BTreeMap<NodeId, Index>,
        matched: BTreeMap<NodeId, Index>,
        /// It gives leadership away, and proposes nothing any more.
        transferring: bool,
    },
}

#[derive(Debug)]
pub(crate) struct Raft {
    me: NodeId,
    peers: Vec<NodeId>,
    initial: BTreeSet<NodeId>,
    pub(crate) vote: Vote,
    pub(crate) log: Vec<Arc<Entry>>,
    pub(crate) commit: Index,
    /// The last one made here; what is older than some entries before it is not
    /// sent any more.
    pub(crate) snapshot: Option<Snapshot>,
    role: Role,
}

impl Raft {
    pub(crate) fn new(
        me: NodeId,
        peers: Vec<NodeId>,
        initial: BTreeSet<NodeId>,
        vote: Vote,
        log: Vec<Arc<Entry>>,
    ) -> Self {
        let (commit, snapshot) = (0, None);
        Self { me, peers, initial, vote, log, commit, snapshot, role: Role::Follower }
    }

    pub(crate) fn leads(&self) -> bool {
        matches!(self.role, Role::Leader { .. })
    }

    pub(crate) fn last(&self) -> Last {
        (self.term_at(self.log.len()), self.log.len())
    }

    fn term_at(&self, index: Index) -> Term {
        index.checked_sub(1).and_then(|at| self.log.get(at)).map_or(Term(0), |e| e.term)
    }

    fn membership(&self, through: Index) -> Vec<BTreeSet<NodeId>> {
        let sets = self.log[..through.min(self.log.len())].iter().rev().find_map(|entry| {
            match &entry.payload {
                Payload::Membership(sets) => Some(sets.clone()),
                Payload::Blank | Payload::Command(_) => None,
            }
        });
        sets.unwrap_or_else(|| vec![self.initial.clone()])
    }

    pub(crate) fn effective(&self) -> Vec<BTreeSet<NodeId>> {
        self.membership(self.log.len())
    }

    /// The last configuration that is certainly committed, as openraft sees it: a
    /// change is begun only when the one before is, so of the last two in the
    /// log the earlier one, if this node does not know better.
    fn committed_membership(&self) -> Vec<BTreeSet<NodeId>> {
        let is_membership = |entry: &Arc<Entry>| matches!(entry.payload, Payload::Membership(_));
        let last = self.log.iter().rposition(is_membership).unwrap_or(0);
        self.membership(self.commit.max(last))
    }

    pub(crate) fn view(&self) -> RaftView {
        let mut sets = vec![];
        for set in self.effective().into_iter().chain(self.committed_membership()) {
            if !sets.contains(&set) {
                sets.push(set);
            }
        }
        let leads = self.leads().then_some(self.vote.term);
        RaftView { leads, voters: Voters(sets) }
    }

    fn is_quorum(&self, nodes: &BTreeSet<NodeId>) -> bool {
        let sets = self.effective();
        sets.iter().all(|set| set.intersection(nodes).count() > set.len() / 2)
    }

    fn save(&mut self, vote: Vote, after: After, effects: &mut Vec<Effect>) {
        self.vote = vote;
        effects.push(Effect::Saving(vote));
        effects.push(Effect::Write(Write::Vote(vote), after));
    }

    fn others(&self) -> Vec<NodeId> {
        self.peers.clone()
    }

    /// Begins an election.
    pub(crate) fn elect(&mut self, pre: bool) -> Vec<Effect> {
        let mut effects = vec![];
        // As in openraft, and Ongaro's thesis, 4.2.2: a voter of the committed
        // configuration campaigns too, though a later one without it is in its
        // log: perhaps nobody else has the whole log.
        if self.leads() || !self.view().voters.contains(self.me) {
            return effects;
        }
        let vote = Vote { term: Term(self.vote.term.0 + 1), node: self.me, committed: false };
        self.role = Role::Candidate { granted: BTreeSet::from([self.me]), pre, vote };
        if pre {
            self.request(vote, true, &mut effects);
            self.count(&mut effects);
        } else {
            self.save(vote, After::Ask(vote), &mut effects);
        }
        effects
    }

    fn request(&self, vote: Vote, pre: bool, effects: &mut Vec<Effect>) {
        let message = RaftMessage::RequestVote { vote, last: self.last(), pre };
        effects.extend(self.others().into_iter().map(|to| Effect::Send(to, message.clone())));
    }

    fn count(&mut self, effects: &mut Vec<Effect>) {
        let Role::Candidate { granted, pre, vote } = &self.role else { return };
        let (pre, vote) = (*pre, *vote);
        if !self.is_quorum(granted) {
            return;
        }
        if pre {
            effects.extend(self.elect(false));
            return;
        }
        let next = self.others().into_iter().map(|id| (id, self.log.len() + 1)).collect();
        self.role = Role::Leader { next, matched: BTreeMap::new(), transferring: false };
        self.save(Vote { committed: true, ..vote }, After::Nothing, effects);
        self.push(vec![Payload::Blank], effects);
    }

    /// Appends to the leader's own log. Returns the last index, if this node
    /// leads and goes on doing so.
    pub(crate) fn propose(&mut self, payload: Payload) -> (Option<Index>, Vec<Effect>) {
        let mut effects = vec![];
        if !matches!(self.role, Role::Leader { transferring: false, .. }) {
            return (None, effects);
        }
        self.push(vec![payload], &mut effects);
        (Some(self.log.len()), effects)
    }

    /// The leader gives leadership away. Returns whether it is one.
    pub(crate) fn transfer(&mut self) -> bool {
        match &mut self.role {
            Role::Leader { transferring, .. } => {
                *transferring = true;
                true
            }
            Role::Follower | Role::Candidate { .. } => false,
        }
    }

    fn push(&mut self, payloads: Vec<Payload>, effects: &mut Vec<Effect>) {
        let (term, from) = (self.vote.term, self.log.len());
        let entries: Vec<_> =
            payloads.into_iter().map(|payload| Arc::new(Entry { term, payload })).collect();
        self.log.extend(entries.iter().cloned());
        let after = After::Own { vote: self.vote, through: self.log.len() };
        effects.push(Effect::Write(Write::Log { from, entries }, after));
        self.replicate(effects);
    }

    /// Sends each peer what it lacks, or a heartbeat.
    pub(crate) fn replicate(&self, effects: &mut Vec<Effect>) {
        let Role::Leader { next, .. } = &self.role else { return };
        for (to, next) in next {
            if let Some(snapshot) = self.snapshot.as_ref().filter(|s| *next + KEPT <= s.index) {
                let (vote, snapshot) = (self.vote, snapshot.clone());
                let entries = self.log[..snapshot.index].to_vec();
                effects.push(Effect::Send(*to, RaftMessage::Install { vote, snapshot, entries }));
                continue;
            }
            let previous = (self.term_at(next - 1), next - 1);
            let entries = self.log[next - 1..].to_vec();
            let commit = self.commit;
            let message = RaftMessage::Append { vote: self.vote, previous, entries, commit };
            effects.push(Effect::Send(*to, message));
        }
    }

    /// Whether this node leads though a committed configuration is without it.
    pub(crate) fn is_removed_leader(&self) -> bool {
        let has_me = |sets: &[BTreeSet<NodeId>]| sets.iter().any(|set| set.contains(&self.me));
        self.leads() && !has_me(&self.effective()) && !has_me(&self.membership(self.commit))
    }

    /// A removed leader stops leading.
    pub(crate) fn retire(&mut self) {
        if self.is_removed_leader() {
            self.role = Role::Follower;
        }
    }

    /// The voter that has most of the log.
    pub(crate) fn best_voter(&self) -> Option<NodeId> {
        let Role::Leader { matched, .. } = &self.role else { return None };
        let voters = self.effective().into_iter().flatten().filter(|id| *id != self.me);
        voters.max_by_key(|id| matched.get(id).copied().unwrap_or_default())
    }

    /// Whether a follower has everything.
    pub(crate) fn has_all(&self, node: NodeId) -> bool {
        match &self.role {
            Role::Leader { matched, .. } => matched.get(&node) == Some(&self.log.len()),
            Role::Follower | Role::Candidate { .. } => false,
        }
    }

    /// A write became durable.
    pub(crate) fn durable(&mut self, after: After) -> Vec<Effect> {
        let mut effects = vec![];
        match after {
            After::Ask(vote) => {
                let asks = |role: &Role| matches!(role, Role::Candidate { vote: v, pre: false, .. } if *v == vote);
                if self.vote == vote && asks(&self.role) {
                    self.request(vote, false, &mut effects);
                    self.count(&mut effects);
                }
            }
            After::Own { vote, through } => {
                if self.vote == vote
                    && let Role::Leader { matched, .. } = &mut self.role
                {
                    matched.insert(self.me, through);
                    self.advance(&mut effects);
                }
            }
            After::Reply { to, message } => effects.push(Effect::Send(to, message)),
            After::Nothing => {}
        }
        effects
    }

    fn advance(&mut self, effects: &mut Vec<Effect>) {
        let Role::Leader { matched, .. } = &self.role else { return };
        for index in (self.commit + 1..=self.log.len()).rev() {
            if self.term_at(index) != self.vote.term {
                break;
            }
            let have: BTreeSet<NodeId> =
                matched.iter().filter(|(_, m)| **m >= index).map(|(id, _)| *id).collect();
            if self.is_quorum(&have) {
                self.commit = index;
                self.replicate(effects);
                break;
            }
        }
        // The second half of a joint change.
        let effective = self.effective();
        if effective.len() == 2 && self.membership(self.commit) == effective {
            self.push(vec![Payload::Membership(vec![effective[1].clone()])], effects);
        }
    }

    /// The leader changes who votes. Refused while a change is under way.
    pub(crate) fn change_voters(&mut self, voters: BTreeSet<NodeId>) -> Vec<Effect> {
        let effective = self.effective();
        let settled = effective.len() == 1 && self.membership(self.commit) == effective;
        let caught_up = match &self.role {
            Role::Leader { matched, .. } => voters
                .iter()
                .all(|id| *id == self.me || matched.get(id).is_some_and(|m| *m >= self.commit)),
            Role::Follower | Role::Candidate { .. } => false,
        };
        let own_term = self.term_at(self.commit) == self.vote.term;
        let mut effects = vec![];
        if settled && caught_up && own_term && voters != effective[0] {
            let joint = Payload::Membership(vec![effective[0].clone(), voters]);
            self.push(vec![joint], &mut effects);
        }
        effects
    }

    fn follow(&mut self, vote: Vote, after: After, effects: &mut Vec<Effect>) {
        self.role = Role::Follower;
        self.save(vote, after, effects);
    }

    /// A higher vote was seen in a reply.
    fn saw(&mut self, saved: Vote, effects: &mut Vec<Effect>) {
        if saved.term > self.vote.term {
            let vote = Vote { committed: false, ..saved };
            self.follow(vote, After::Nothing, effects);
        }
    }

    /// Handles a message. Votes are asked for here only if the lease rules
    /// allow them.
    pub(crate) fn receive(&mut self, from: NodeId, message: RaftMessage) -> Vec<Effect> {
        let mut effects = vec![];
        match message {
            RaftMessage::RequestVote { vote, last, pre } => {
                self.vote_requested(from, vote, last, pre, &mut effects);
            }
            RaftMessage::VoteReply { vote, granted, pre, saved } => {
                if let Role::Candidate { granted: all, pre: p, vote: v } = &mut self.role
                    && *p == pre
                    && *v == vote
                    && granted
                {
                    all.insert(from);
                    self.count(&mut effects);
                } else if !granted {
                    self.saw(saved, &mut effects);
                }
            }
            RaftMessage::Append { vote, previous, entries, commit } => {
                self.append(from, vote, previous, entries, commit, &mut effects);
            }
            RaftMessage::Install { vote, snapshot, entries } => {
                self.install(from, vote, snapshot, entries, &mut effects);
            }
            RaftMessage::AppendReply { vote, saved, matched } => {
                self.saw(saved, &mut effects);
                if self.vote == vote
                    && let Role::Leader { next, matched: have, .. } = &mut self.role
                {
                    let next = next.entry(from).or_insert(1);
                    if let Some(matched) = matched {
                        let known = have.entry(from).or_default();
                        *known = matched.max(*known);
                        *next = (*known + 1).max(*next);
                        self.advance(&mut effects);
                    } else {
                        *next = have.get(&from).copied().unwrap_or_default() + 1;
                    }
                }
            }
        }
        effects
    }

    fn vote_requested(
        &mut self,
        from: NodeId,
        vote: Vote,
        last: Last,
        pre: bool,
        effects: &mut Vec<Effect>,
    ) {
        let newer =
            vote.term > self.vote.term || (vote.same_candidacy(&self.vote) && !self.vote.committed);
        let granted = newer && last >= self.last();
        let reply = |saved| RaftMessage::VoteReply { vote, granted, pre, saved };
        if pre || !granted {
            effects.push(Effect::Send(from, reply(self.vote)));
            return;
        }
        let after = After::Reply { to: from, message: reply(vote) };
        self.follow(vote, after, effects);
    }

    /// Whether a leader's message is followed; then its vote is taken over.
    fn follows(&mut self, vote: Vote, effects: &mut Vec<Effect>) -> bool {
        let acceptable = vote.term > self.vote.term
            || (vote.term == self.vote.term
                && (vote.node == self.vote.node || !self.vote.committed)
                && !self.leads());
        if acceptable && self.vote == vote {
            self.role = Role::Follower;
        } else if acceptable {
            self.follow(vote, After::Nothing, effects);
        }
        acceptable
    }

    fn install(
        &mut self,
        from: NodeId,
        vote: Vote,
        snapshot: Snapshot,
        entries: Vec<Arc<Entry>>,
        effects: &mut Vec<Effect>,
    ) {
        let reply = |saved, matched| RaftMessage::AppendReply { vote, saved, matched };
        if !self.follows(vote, effects) {
            effects.push(Effect::Send(from, reply(self.vote, None)));
            return;
        }
        let index = snapshot.index;
        let message = reply(vote, Some(index));
        let term = entries.last().map_or(Term(0), |entry| entry.term);
        if self.term_at(index) != term {
            self.log.clone_from(&entries);
            let write = Write::Log { from: 0, entries };
            effects.push(Effect::Write(write, After::Nothing));
        }
        if index > self.commit {
            self.commit = index;
            effects.push(Effect::Installed(snapshot));
        }
        // Behind whatever is still being written.
        let write = Write::Log { from: self.log.len(), entries: vec![] };
        effects.push(Effect::Write(write, After::Reply { to: from, message }));
    }

    fn append(
        &mut self,
        from: NodeId,
        vote: Vote,
        previous: Last,
        entries: Vec<Arc<Entry>>,
        commit: Index,
        effects: &mut Vec<Effect>,
    ) {
        let reply = |saved, matched| RaftMessage::AppendReply { vote, saved, matched };
        if !self.follows(vote, effects) {
            effects.push(Effect::Send(from, reply(self.vote, None)));
            return;
        }
        let (term, at) = previous;
        if self.log.len() < at || self.term_at(at) != term {
            effects.push(Effect::Send(from, reply(vote, None)));
            return;
        }
        let through = at + entries.len();
        let differs = |offset: &usize| {
            let index = at + offset + 1;
            self.log.len() < index || self.term_at(index) != entries[*offset].term
        };
        let first = (0..entries.len()).find(differs);
        let message = reply(vote, Some(through));
        if let Some(first) = first {
            let (keep, entries) = (at + first, entries[first..].to_vec());
            self.log.truncate(keep);
            self.log.extend(entries.iter().cloned());
            let after = After::Reply { to: from, message };
            effects.push(Effect::Write(Write::Log { from: keep, entries }, after));
        } else {
            // Behind whatever is still being written.
            let write = Write::Log { from: self.log.len(), entries: vec![] };
            effects.push(Effect::Write(write, After::Reply { to: from, message }));
        }
        self.commit = self.commit.max(commit.min(through));
    }
}
