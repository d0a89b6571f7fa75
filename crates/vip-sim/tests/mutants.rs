//! Each rule of the safety algorithm, switched off, shows within the seeds of
//! an ordinary run, or of one that attacks the fact that the rule is about. A
//! rule that nobody misses would be untested, or none.

use std::collections::BTreeMap;
use vip_sim::{Mutant, Options, Scheme, run_many};

const SEEDS: u64 = 20_000;

/// The scheme that is made for a rule; the others show in any trouble.
fn attack(mutant: Mutant) -> Option<Scheme> {
    match mutant {
        Mutant::PromisedBeforeDurable => Some(Scheme::PromiseBeforeDisk),
        Mutant::RacedVoteKept => Some(Scheme::VoteRaced),
        Mutant::OlderPromisedMeanwhile => Some(Scheme::VoteStalled),
        Mutant::TransferUnbound => Some(Scheme::HandOverStalled),
        Mutant::BoundCandidacy => Some(Scheme::LeftAlone),
        Mutant::EarlierSession | Mutant::StaleEpoch => Some(Scheme::MixedSessions),
        Mutant::LeaseForgotten => Some(Scheme::Overtaken),
        Mutant::LeaseKeptOverMembership => Some(Scheme::ExchangedVoters),
        _ => None,
    }
}

#[test]
fn every_broken_rule_is_noticed() {
    let mut first = BTreeMap::new();
    for mutant in Mutant::all() {
        let (mutant, only) = (*mutant, attack(*mutant));
        let options = Options { mutant: Some(mutant), only, ..Default::default() };
        let summary = run_many(0..SEEDS, options);
        first.insert(mutant, summary.failed.into_iter().next());
    }
    for (mutant, report) in &first {
        match report.as_ref().and_then(|r| Some((r.seed, r.violation.as_ref()?))) {
            Some((seed, violation)) => println!("{mutant:?}: seed {seed}: {violation}"),
            None => println!("{mutant:?}: not noticed"),
        }
    }
    let missed: Vec<_> = first.iter().filter(|(_, r)| r.is_none()).map(|(m, _)| m).collect();
    assert!(missed.is_empty(), "{missed:?}");
}
