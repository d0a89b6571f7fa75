//! A short random run; `cargo xtask chaos --minutes N` is the long one.

use anyhow::Result;
use chaos_tests::{Plan, run_at_random};
use std::time::Duration;

/// The same faults each time, so that a failure is not a matter of luck.
const SEED: u64 = 20_261_121;

#[test]
fn faults_at_random_break_nothing() -> Result<()> {
    let lasting = Duration::from_secs(40);
    let plan = Plan { seed: SEED, lasting, profile: "lan".into(), strangers: false };
    let summary = run_at_random(&plan, |round| println!("{round}"))?;
    println!("{summary}");
    assert!(summary.rounds > 1 && summary.takeovers > 0 && summary.commands > 0, "{summary}");
    Ok(())
}
