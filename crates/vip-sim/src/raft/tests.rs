//! The model beside openraft itself: the same schedule of elections, messages,
//! writes, crashes and changes of voters; after each step both must have the
//! same votes, logs, commits and voters. What the model allows and openraft does
//! not, or the other way round, is a fault that the simulator cannot see.
//!
//! ```text
//!  seed ──> steps ──┬──> model nodes ────┐
//!                   └──> openraft nodes ─┴──> the same?
//! ```
//!
//! openraft's own leases are over before each election: promises are vip-core's.
//! Snapshots are left out.
//! Entries of an earlier leadership that come late are left out: which of them
//! are under way is openraft's own affair, as it sends one batch after another.

mod model_nodes;
mod openraft_nodes;
mod schedule;

use model_nodes::ModelNodes;
use openraft_nodes::OpenraftNodes;
use schedule::{Step, next_step};
use std::collections::{BTreeMap, BTreeSet};
use vip_core::{NodeId, Term, Vote};

/// What a node has come to.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    vote: Vote,
    log: Vec<Term>,
    committed: usize,
    leads: bool,
    effective: Vec<BTreeSet<NodeId>>,
    /// Those of the effective and of the committed configuration.
    voters: BTreeSet<BTreeSet<NodeId>>,
}

impl Seen {
    /// A node that committed nothing of its own term may know more or less of
    /// what is committed, as messages come: openraft takes the word of an earlier
    /// leader, and tells some a message later. Of the voters it then counts
    /// those of both configurations.
    fn know_as(&mut self, is: &Self, committed: usize) {
        let own = self.committed.checked_sub(1).and_then(|at| self.log.get(at));
        let knows = self.leads && own == Some(&self.vote.term);
        if !knows && is.committed != self.committed && is.committed <= committed {
            self.committed = is.committed;
            self.voters.clone_from(&is.voters);
        }
    }
}

/// A question for a vote on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Question {
    vote: Vote,
    last: (Term, usize),
    pre: bool,
}

const SEEDS: u64 = 2000;
const STEPS: usize = 400;

/// What a schedule came to, so that an empty one is no proof.
#[derive(Debug, Default)]
struct Met {
    leaders: usize,
    cut_logs: usize,
    changes: usize,
    taken_over: usize,
    restarts: usize,
    stalls: usize,
    transfers: usize,
}

async fn compare(seed: u64, met: &mut Met) {
    let mut rng = fastrand::Rng::with_seed(seed);
    let count = rng.u64(3..=5);
    let all: BTreeSet<NodeId> = (1..=count).map(NodeId).collect();
    let voters = rng.u64(2..=count);
    let voters: BTreeSet<NodeId> = (1..=voters).map(NodeId).collect();
    let mut model = ModelNodes::new(&all, &voters);
    let mut real = OpenraftNodes::new(&all, &voters).await;
    let mut done = vec![];
    let mut before: BTreeMap<NodeId, Seen> = BTreeMap::new();
    for _ in 0..STEPS {
        let Some(step) = next_step(&mut rng, &model) else { continue };
        done.push(format!("{step:?}"));
        let asked = model.take(&step);
        let really = real.take(&step).await;
        assert_eq!(asked, really, "seed {seed}: the question, after {done:#?}");
        for id in all.iter().filter(|id| !model.is_stalled(**id)) {
            let (mut expected, is) = (model.seen(*id), real.seen(*id));
            expected.know_as(&is, model.committed());
            assert_eq!(expected, is, "seed {seed}: node {id}: model, openraft; after {done:#?}");
            if let Some(old) = before.insert(*id, is.clone()) {
                met.leaders += usize::from(is.leads && !old.leads);
                met.cut_logs += usize::from(is.log.len() < old.log.len());
                met.changes += usize::from(is.voters != old.voters);
            }
        }
        match step {
            Step::Restart(_) => met.restarts += 1,
            Step::Stall(_) => met.stalls += 1,
            Step::Transfer { .. } => met.transfers += 1,
            Step::Finish(_) => met.taken_over += 1,
            _ => {}
        }
    }
    real.end().await;
}

#[test]
fn the_model_does_what_openraft_does() {
    let mut met = Met::default();
    for seed in 0..SEEDS {
        // Time stands still while anybody has something to do.
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        runtime.expect("a runtime").block_on(compare(seed, &mut met));
    }
    println!("{met:?}");
    let seeds = usize::try_from(SEEDS).expect("small");
    assert!(met.leaders > 2 * seeds && met.changes > 2 * seeds, "{met:?}");
    assert!(met.stalls > seeds && met.restarts > seeds, "{met:?}");
    assert!(met.transfers > seeds / 10 && met.taken_over > seeds / 50, "{met:?}");
    assert!(met.cut_logs > seeds / 100, "{met:?}");
}
