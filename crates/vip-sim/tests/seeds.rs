//! With all rules on, nothing goes wrong; and the worlds are worth looking at.

use vip_sim::{Options, run, run_many};

const SEEDS: u64 = 20_000;

#[test]
fn every_rule_holds_in_every_world() {
    let summary = run_many(0..SEEDS, Options::default());
    assert!(summary.failed.is_empty(), "{:#?}", summary.failed);
    // An empty world is a safe one.
    let stats = summary.stats;
    assert!(stats.elections > 2 * SEEDS, "{stats:?}");
    assert!(stats.moves > 5 * SEEDS, "{stats:?}");
    assert!(stats.opened > 3 * SEEDS, "{stats:?}");
    assert!(stats.expired > SEEDS / 5, "{stats:?}");
    println!("{}", summary.coverage);
    // A pair of kinds that never meets is a blind spot.
    let (rarest, worlds) = summary.coverage.pairs()[0];
    assert!(worlds > SEEDS / 500, "{rarest:?} met in {worlds} worlds of {SEEDS}");
}

#[test]
fn a_seed_makes_the_same_world_again() {
    for seed in 0..20 {
        assert_eq!(run(seed, Options::default()), run(seed, Options::default()));
    }
}

/// The rules of the world itself can fail: a gate opened without a right to it
/// is seen in nearly every world, with all rules of the algorithm on.
#[test]
fn an_injected_double_answer_fails_the_run() {
    let options = Options { double_answer: true, ..Default::default() };
    // Where clocks are slewed perhaps nobody answers whom to answer beside.
    let held = (0..).map(|seed| run(seed, options)).filter(|report| !report.slewed).take(100);
    let seen = held
        .filter(|report| report.violation.as_ref().is_some_and(|v| v.rule == "one_answering_node"));
    let seen = seen.count();
    assert!(seen >= 95, "only {seen} of 100");
}
