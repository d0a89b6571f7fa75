//! Nodes of the model, each with its queue and its disk, as the simulator's
//! agents have them.

use super::schedule::Step;
use super::{Question, Seen};
use crate::disk::{Disk, Write, Written};
use crate::raft::{After, Effect, Payload, Raft, RaftMessage};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use vip_core::{Actor, Command, NodeId, NodeOp, Vote};

enum Task {
    Message(NodeId, RaftMessage),
    Flushed(After),
    Elect { pre: bool },
    Propose,
    Voters(BTreeSet<NodeId>),
    Transfer,
    TransferredBy(Vote),
    Heartbeat,
}

struct Node {
    raft: Raft,
    disk: Disk,
    tasks: VecDeque<Task>,
    effects: VecDeque<Effect>,
    /// Writes that a stalled disk holds back.
    held: VecDeque<(Written, After)>,
    saving: bool,
    stalled: bool,
    /// Something came while it was stalled. When openraft gets to it, it may
    /// begin a lease; and in which order several take effect is not said.
    busy: bool,
    /// A leader's message came since it was started: openraft knows only then
    /// that its log is durable.
    heard: bool,
    run: u32,
}

type Link = (NodeId, NodeId);

pub(super) struct ModelNodes {
    nodes: BTreeMap<NodeId, Node>,
    voters: BTreeSet<NodeId>,
    /// With the run of whoever asks.
    questions: BTreeMap<Link, VecDeque<(u32, RaftMessage)>>,
    entries: BTreeMap<Link, VecDeque<RaftMessage>>,
    /// Answers arrive at once, but on this link.
    mute: Option<Link>,
    /// Who answered a leader since openraft's leases ended: without a quorum it
    /// takes no proposal.
    acknowledged: BTreeSet<Link>,
}

/// A node that finds this on its disk.
fn started(id: NodeId, all: &BTreeSet<NodeId>, voters: &BTreeSet<NodeId>, disk: Disk) -> Node {
    let peers = all.iter().copied().filter(|other| *other != id).collect();
    let mut raft = Raft::new(id, peers, voters.clone(), disk.vote, disk.log.clone());
    raft.demote();
    Node {
        raft,
        disk,
        tasks: VecDeque::new(),
        effects: VecDeque::new(),
        held: VecDeque::new(),
        saving: false,
        stalled: false,
        busy: false,
        heard: false,
        run: 0,
    }
}

impl ModelNodes {
    pub(super) fn new(all: &BTreeSet<NodeId>, voters: &BTreeSet<NodeId>) -> Self {
        let nodes = all.iter().map(|id| (*id, started(*id, all, voters, Disk::default())));
        Self {
            nodes: nodes.collect(),
            voters: voters.clone(),
            questions: BTreeMap::new(),
            entries: BTreeMap::new(),
            mute: None,
            acknowledged: BTreeSet::new(),
        }
    }

    pub(super) fn ids(&self) -> Vec<NodeId> {
        self.nodes.keys().copied().collect()
    }

    fn raft(&self, id: NodeId) -> &Raft {
        &self.nodes[&id].raft
    }

    fn node(&mut self, id: NodeId) -> &mut Node {
        self.nodes.get_mut(&id).expect("a node")
    }

    pub(super) fn leads(&self, id: NodeId) -> bool {
        self.raft(id).leads() && !self.nodes[&id].saving
    }

    pub(super) fn is_stalled(&self, id: NodeId) -> bool {
        self.nodes[&id].stalled
    }

    /// A leader that is a quorum by itself has a lease of openraft's for ever.
    pub(super) fn is_enough(&self, id: NodeId) -> bool {
        self.raft(id).leads() && self.raft(id).is_quorum(&BTreeSet::from([id]))
    }

    /// Of a configuration that counts. That it is one of none, openraft may learn
    /// a message later.
    pub(super) fn may_elect(&self, id: NodeId) -> bool {
        !self.is_busy(id) && self.raft(id).view().voters.contains(id)
    }

    pub(super) fn is_busy(&self, id: NodeId) -> bool {
        self.nodes[&id].busy
    }

    pub(super) fn questions(&self) -> Vec<Link> {
        let some = self.questions.iter().filter(|(_, waiting)| !waiting.is_empty());
        some.map(|(link, _)| *link).collect()
    }

    /// The follower lacks one entry at most: openraft sends the next ones when
    /// that was answered.
    pub(super) fn is_one_behind(&self, leader: NodeId, follower: NodeId) -> bool {
        let raft = self.raft(leader);
        raft.matched(follower).is_some_and(|at| at + 1 >= raft.log.len())
    }

    pub(super) fn unfinished(&self, leader: NodeId) -> Option<BTreeSet<NodeId>> {
        self.raft(leader).unfinished_change()
    }

    /// openraft's leader heard from a quorum.
    pub(super) fn may_propose(&self, leader: NodeId) -> bool {
        let answered = |id: &NodeId| *id == leader || self.acknowledged.contains(&(*id, leader));
        self.raft(leader).is_quorum(&self.nodes.keys().copied().filter(answered).collect())
    }

    /// Everybody who is to vote has all that is committed: vipd waits for that.
    pub(super) fn may_change(&self, leader: NodeId, voters: &BTreeSet<NodeId>) -> bool {
        let raft = self.raft(leader);
        if !self.may_propose(leader) {
            return false;
        }
        let caught_up = |id: &NodeId| raft.matched(*id).is_some_and(|at| at >= raft.commit);
        let own = raft.log.get(raft.commit.wrapping_sub(1)).map(|entry| entry.term);
        own == Some(raft.vote.term) && voters.iter().all(|id| *id == leader || caught_up(id))
    }

    /// What else of its own is under way then is not said.
    pub(super) fn may_replicate(&self, leader: NodeId) -> bool {
        !self.raft(leader).is_transferring()
    }

    pub(super) fn may_transfer(&self, leader: NodeId, to: NodeId) -> bool {
        let stalled = self.is_stalled(leader) || self.is_stalled(to);
        let ready = !stalled && self.nodes[&to].heard;
        // openraft tells only voters.
        let ready = ready && self.raft(leader).effective().iter().any(|set| set.contains(&to));
        ready && self.raft(leader).has_all(to) && self.raft(to).vote == self.raft(leader).vote
    }

    /// How far anybody knows of.
    pub(super) fn committed(&self) -> usize {
        self.nodes.values().map(|node| node.raft.commit).max().unwrap_or_default()
    }

    pub(super) fn seen(&self, id: NodeId) -> Seen {
        let raft = self.raft(id);
        Seen {
            vote: raft.vote,
            log: raft.log.iter().map(|entry| entry.term).collect(),
            committed: raft.commit,
            leads: raft.leads(),
            effective: raft.effective(),
            voters: raft.view().voters.0.into_iter().collect(),
        }
    }

    /// Takes the step. Returns the question that was delivered, if one was.
    pub(super) fn take(&mut self, step: &Step) -> Option<Question> {
        if step.ends_leases() {
            self.acknowledged.clear();
            self.nodes.values_mut().for_each(|node| node.raft.forget_change());
        }
        match step.clone() {
            Step::Elect { node, pre } => {
                self.held_up(node);
                self.enqueue(node, Task::Elect { pre });
            }
            Step::Ask { from, to, answered } => {
                let (run, message) = self.questions.get_mut(&(from, to))?.pop_front()?;
                // A killed process hears no answer.
                let answered = answered && run == self.node(from).run;
                let RaftMessage::RequestVote { vote, last, pre } = message else { return None };
                self.deliver(from, to, message, answered);
                return Some(Question { vote, last, pre });
            }
            Step::Replicate { from, to, answered } => self.replicate(from, to, answered),
            Step::Propose(leader) => self.enqueue(leader, Task::Propose),
            Step::Voters(leader, voters) => self.enqueue(leader, Task::Voters(voters)),
            Step::Finish(leader) => {
                let voters = self.unfinished(leader)?;
                self.enqueue(leader, Task::Voters(voters));
            }
            Step::Transfer { from, to } => {
                let vote = self.raft(from).vote;
                self.enqueue(from, Task::Transfer);
                self.enqueue(to, Task::TransferredBy(vote));
            }
            Step::Restart(id) => self.restart(id),
            Step::Stall(id) => self.node(id).stalled = true,
            Step::Release(id) => self.release(id),
            Step::Lose { from, to } => {
                self.questions.remove(&(from, to));
                self.entries.remove(&(from, to));
            }
        }
        None
    }

    fn replicate(&mut self, from: NodeId, to: NodeId, answered: bool) {
        self.enqueue(from, Task::Heartbeat);
        let vote = self.raft(from).vote;
        self.node(to).heard = true;
        if answered && !self.is_stalled(to) {
            self.acknowledged.insert((to, from));
        }
        while let Some(message) = self.entries.get_mut(&(from, to)).and_then(VecDeque::pop_front) {
            if matches!(&message, RaftMessage::Append { vote: of, .. } if *of == vote) {
                self.deliver(from, to, message, answered);
            }
        }
    }

    fn deliver(&mut self, from: NodeId, to: NodeId, message: RaftMessage, answered: bool) {
        self.held_up(to);
        self.mute = (!answered).then_some((to, from));
        self.enqueue(to, Task::Message(from, message));
        self.mute = None;
    }

    /// Something comes; if it is stalled, nothing else does until it is not.
    fn held_up(&mut self, id: NodeId) {
        let node = self.node(id);
        node.busy |= node.stalled;
    }

    fn restart(&mut self, id: NodeId) {
        let (all, voters) = (self.nodes.keys().copied().collect(), self.voters.clone());
        let node = self.node(id);
        let mut found = Disk::default();
        (found.vote, found.log) = (node.disk.vote, node.disk.log.clone());
        let run = node.run + 1;
        *node = Node { run, ..started(id, &all, &voters, found) };
    }

    fn release(&mut self, id: NodeId) {
        (self.node(id).stalled, self.node(id).busy) = (false, false);
        while let Some((written, after)) = self.node(id).held.pop_front() {
            self.written(id, written, after);
        }
    }

    fn written(&mut self, id: NodeId, written: Written, after: After) {
        let node = self.node(id);
        node.disk.complete(written);
        if written.is_waited_for() {
            node.saving = false;
            for effect in node.raft.durable(after).into_iter().rev() {
                node.effects.push_front(effect);
            }
        } else {
            node.tasks.push_back(Task::Flushed(after));
        }
        self.turn(id);
    }

    fn enqueue(&mut self, id: NodeId, task: Task) {
        self.node(id).tasks.push_back(task);
        self.turn(id);
    }

    fn turn(&mut self, id: NodeId) {
        while !self.node(id).saving {
            if let Some(effect) = self.node(id).effects.pop_front() {
                self.perform(id, effect);
            } else if let Some(task) = self.node(id).tasks.pop_front() {
                let effects = self.take_up(id, task);
                self.node(id).effects.extend(effects);
            } else {
                break;
            }
        }
    }

    fn take_up(&mut self, id: NodeId, task: Task) -> Vec<Effect> {
        let raft = &mut self.node(id).raft;
        match task {
            Task::Message(from, message) => return raft.receive(from, message),
            Task::Flushed(after) => return raft.durable(after),
            Task::Elect { pre } => return raft.elect(pre),
            Task::Propose => {
                let (actor, op) =
                    (Actor("test".into()), NodeOp::Drain { node: id, drained: true }.into());
                let command = Command { time_ms: 0, actor, term: None, op };
                return raft.propose(Payload::Command(Box::new(command))).1;
            }
            Task::Voters(voters) => return raft.change_voters(voters),
            Task::Transfer => {
                raft.transfer();
            }
            Task::TransferredBy(vote) if raft.vote == vote => return raft.elect(false),
            Task::TransferredBy(_) => {}
            Task::Heartbeat => return raft.heartbeat(),
        }
        vec![]
    }

    fn perform(&mut self, id: NodeId, effect: Effect) {
        match effect {
            Effect::Saving(_) | Effect::Installed(_) => {}
            Effect::Send(to, message) => self.send(id, to, message),
            Effect::Write(write, after) => self.write(id, write, after),
        }
    }

    fn write(&mut self, id: NodeId, write: Write, after: After) {
        let node = self.node(id);
        let written = write.sort();
        node.disk.issue(write);
        node.saving = written.is_waited_for();
        if node.stalled || !node.held.is_empty() {
            node.held.push_back((written, after));
        } else {
            self.written(id, written, after);
        }
    }

    fn send(&mut self, from: NodeId, to: NodeId, message: RaftMessage) {
        match message {
            RaftMessage::RequestVote { .. } => {
                let run = self.node(from).run;
                self.questions.entry((from, to)).or_default().push_back((run, message));
            }
            RaftMessage::Append { .. } | RaftMessage::Install { .. } => {
                self.entries.entry((from, to)).or_default().push_back(message);
            }
            RaftMessage::VoteReply { .. } | RaftMessage::AppendReply { .. } => {
                if self.mute != Some((from, to)) {
                    self.enqueue(to, Task::Message(from, message));
                }
            }
        }
    }
}
