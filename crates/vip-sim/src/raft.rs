//! A small Raft: elections with and without pre-vote, replication, joint
//! configurations. It stands in for openraft, whose promises it keeps and no
//! more; the lease rules around it are the agent's.

mod voters;

use crate::disk::Write;
pub(crate) use crate::entry::{Entry, Index, Payload, Snapshot};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use vip_core::{NodeId, Term, Vote};

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

/// Who said yes to a vote, or would.
#[derive(Debug)]
struct Tally {
    vote: Vote,
    granted: BTreeSet<NodeId>,
}

#[derive(Debug)]
enum Role {
    Follower,
    Candidate(Tally),
    Leader {
        next: BTreeMap<NodeId, Index>,
        matched: BTreeMap<NodeId, Index>,
        /// It gives leadership away, and proposes nothing any more.
        transferring: bool,
        /// Whom the second step of its change of voters is to leave.
        wanted: Option<BTreeSet<NodeId>>,
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
    /// Writes that are not durable yet.
    under_way: usize,
    /// It asks who would vote for it. Beside a candidacy, perhaps.
    asking: Option<Tally>,
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
        let (role, under_way, asking) = (Role::Follower, 0, None);
        Self { me, peers, initial, vote, log, commit, snapshot, role, under_way, asking }
    }

    /// A leader is not restored: after a restart its own vote counts as a
    /// candidate's. Not on the disk.
    pub(crate) fn demote(&mut self) {
        self.vote.committed &= self.vote.node != self.me;
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

    fn write(&mut self, write: Write, after: After, effects: &mut Vec<Effect>) {
        self.under_way += 1;
        effects.push(Effect::Write(write, after));
    }

    /// Replies behind whatever is still being written.
    fn reply_when_written(&mut self, to: NodeId, message: RaftMessage, effects: &mut Vec<Effect>) {
        if self.under_way == 0 {
            effects.push(Effect::Send(to, message));
        } else {
            let nothing = Write::Log { from: self.log.len(), entries: vec![] };
            self.write(nothing, After::Reply { to, message }, effects);
        }
    }

    fn save(&mut self, vote: Vote, after: After, effects: &mut Vec<Effect>) {
        self.vote = vote;
        effects.push(Effect::Saving(vote));
        self.write(Write::Vote(vote), after, effects);
    }

    /// The other voters of the configuration that counts.
    fn voters(&self) -> impl Iterator<Item = NodeId> {
        let all: BTreeSet<NodeId> = self.effective().into_iter().flatten().collect();
        all.into_iter().filter(|id| *id != self.me)
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
        let tally = Tally { vote, granted: BTreeSet::from([self.me]) };
        if pre {
            self.asking = Some(tally);
            self.request(vote, true, &mut effects);
            self.count_words(&mut effects);
        } else {
            (self.role, self.asking) = (Role::Candidate(tally), None);
            self.save(vote, After::Ask(vote), &mut effects);
        }
        effects
    }

    fn request(&self, vote: Vote, pre: bool, effects: &mut Vec<Effect>) {
        let message = RaftMessage::RequestVote { vote, last: self.last(), pre };
        effects.extend(self.voters().map(|to| Effect::Send(to, message.clone())));
    }

    /// Enough said that they would vote for it.
    fn count_words(&mut self, effects: &mut Vec<Effect>) {
        if self.asking.as_ref().is_some_and(|asking| self.is_quorum(&asking.granted)) {
            effects.extend(self.elect(false));
        }
    }

    fn count_votes(&mut self, effects: &mut Vec<Effect>) {
        let Role::Candidate(Tally { vote, granted }) = &self.role else { return };
        let vote = *vote;
        if !self.is_quorum(granted) {
            return;
        }
        let next = self.peers.iter().map(|id| (*id, self.log.len() + 1)).collect();
        let (matched, transferring, wanted) = (BTreeMap::new(), false, None);
        self.role = Role::Leader { next, matched, transferring, wanted };
        self.asking = None;
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
            Role::Follower | Role::Candidate(_) => false,
        }
    }

    fn push(&mut self, payloads: Vec<Payload>, effects: &mut Vec<Effect>) {
        let (term, from) = (self.vote.term, self.log.len());
        let entries: Vec<_> =
            payloads.into_iter().map(|payload| Arc::new(Entry { term, payload })).collect();
        self.log.extend(entries.iter().cloned());
        let after = After::Own { vote: self.vote, through: self.log.len() };
        self.write(Write::Log { from, entries }, after, effects);
        self.replicate(effects);
    }

    /// A leader's heartbeat. One that gives leadership away sends none.
    pub(crate) fn heartbeat(&self) -> Vec<Effect> {
        let mut effects = vec![];
        if !self.is_transferring() {
            self.replicate(&mut effects);
        }
        effects
    }

    pub(crate) fn is_transferring(&self) -> bool {
        matches!(self.role, Role::Leader { transferring: true, .. })
    }

    /// Sends each peer what it lacks.
    fn replicate(&self, effects: &mut Vec<Effect>) {
        let Role::Leader { next, .. } = &self.role else { return };
        effects.extend(next.iter().map(|(to, next)| self.batch(*to, *next)));
    }

    fn batch(&self, to: NodeId, next: Index) -> Effect {
        if let Some(snapshot) = self.snapshot.as_ref().filter(|s| next + KEPT <= s.index) {
            let (vote, snapshot) = (self.vote, snapshot.clone());
            let entries = self.log[..snapshot.index].to_vec();
            return Effect::Send(to, RaftMessage::Install { vote, snapshot, entries });
        }
        let previous = (self.term_at(next - 1), next - 1);
        let entries = self.log[next - 1..].to_vec();
        let commit = self.commit;
        Effect::Send(to, RaftMessage::Append { vote: self.vote, previous, entries, commit })
    }

    /// Up to where a follower has this leader's log, if that is known.
    pub(crate) fn matched(&self, node: NodeId) -> Option<Index> {
        match &self.role {
            Role::Leader { matched, .. } => matched.get(&node).copied(),
            Role::Follower | Role::Candidate(_) => None,
        }
    }

    /// Whether a follower has everything.
    pub(crate) fn has_all(&self, node: NodeId) -> bool {
        self.matched(node) == Some(self.log.len())
    }

    /// A write became durable.
    pub(crate) fn durable(&mut self, after: After) -> Vec<Effect> {
        self.under_way -= 1;
        let mut effects = vec![];
        match after {
            After::Ask(vote) => {
                let asks =
                    |role: &Role| matches!(role, Role::Candidate(tally) if tally.vote == vote);
                if self.vote == vote && asks(&self.role) {
                    self.request(vote, false, &mut effects);
                    self.count_votes(&mut effects);
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
        self.finish_change(effects);
    }

    /// Takes over somebody's vote.
    fn follow(&mut self, vote: Vote, after: After, effects: &mut Vec<Effect>) {
        (self.role, self.asking) = (Role::Follower, None);
        if self.vote != vote {
            self.save(vote, after, effects);
        } else if let After::Reply { to, message } = after {
            // It is on the disk: the core waited for that.
            effects.push(Effect::Send(to, message));
        }
    }

    /// A higher vote was seen in a reply.
    fn saw(&mut self, saved: Vote, effects: &mut Vec<Effect>) {
        if saved.term > self.vote.term {
            self.follow(saved, After::Nothing, effects);
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
                self.vote_answered(from, vote, granted, pre, saved, &mut effects);
            }
            RaftMessage::Append { vote, previous, entries, commit } => {
                self.append(from, vote, previous, entries, commit, &mut effects);
            }
            RaftMessage::Install { vote, snapshot, entries } => {
                self.install(from, vote, snapshot, entries, &mut effects);
            }
            RaftMessage::AppendReply { vote, saved, matched } => {
                if self.leads() && self.vote == vote {
                    // A committed vote names the next leader.
                    self.saw(saved, &mut effects);
                }
                self.matched_by(from, vote, matched, &mut effects);
            }
        }
        effects
    }

    fn matched_by(
        &mut self,
        from: NodeId,
        vote: Vote,
        matched: Option<Index>,
        effects: &mut Vec<Effect>,
    ) {
        let Role::Leader { next, matched: have, .. } = &mut self.role else { return };
        if self.vote != vote {
            return;
        }
        let next = next.entry(from).or_insert(1);
        if let Some(matched) = matched {
            let known = have.entry(from).or_default();
            *known = matched.max(*known);
            *next = (*known + 1).max(*next);
            self.advance(effects);
        } else {
            *next = have.get(&from).copied().unwrap_or_default() + 1;
            let next = *next;
            effects.push(self.batch(from, next));
        }
    }

    fn vote_answered(
        &mut self,
        from: NodeId,
        vote: Vote,
        granted: bool,
        pre: bool,
        saved: Vote,
        effects: &mut Vec<Effect>,
    ) {
        let tally = match (&mut self.role, &mut self.asking) {
            (_, Some(asking)) if pre => asking,
            (Role::Candidate(tally), _) if !pre => tally,
            _ => return,
        };
        if tally.vote != vote {
            return;
        }
        if !granted {
            // Never the whole vote: it could be this node's own, of a time of
            // which it forgot the log.
            let seen = Vote { committed: false, ..saved };
            self.saw(seen, effects);
            if pre && saved.committed && self.vote == seen && seen.node != self.me {
                // The one that it voted for leads.
                (self.role, self.asking) = (Role::Follower, None);
            }
            return;
        }
        tally.granted.insert(from);
        if pre {
            self.count_words(effects);
        } else {
            self.count_votes(effects);
        }
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
            (self.role, self.asking) = (Role::Follower, None);
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
            self.write(Write::Log { from: 0, entries }, After::Nothing, effects);
        }
        if index > self.commit {
            self.commit = index;
            effects.push(Effect::Installed(snapshot));
        }
        self.reply_when_written(from, message, effects);
    }

    fn truncate(&mut self, keep: Index, effects: &mut Vec<Effect>) {
        if keep < self.log.len() {
            self.log.truncate(keep);
            self.write(Write::Truncate(keep), After::Nothing, effects);
        }
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
            // Another leader's, never committed.
            self.truncate(at - 1, effects);
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
            self.truncate(keep, effects);
            self.log.extend(entries.iter().cloned());
            let after = After::Reply { to: from, message };
            self.write(Write::Log { from: keep, entries }, after, effects);
        } else {
            self.reply_when_written(from, message, effects);
        }
        self.commit = self.commit.max(commit.min(through));
    }
}

#[cfg(test)]
mod tests;
