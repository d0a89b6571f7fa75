//! A sample of the places at which a process can be killed while it changes its
//! data directory; `cargo xtask crashes` takes every one.

use anyhow::Result;
use chaos_tests::{Work, crash};

fn sample(work: Work, first: u32, step: u32) -> Result<()> {
    let crashed = crash(work, first, step)?;
    println!("{crashed}");
    assert!(crashed.kills > 2, "{crashed}");
    Ok(())
}

#[test]
fn a_kill_in_the_middle_of_init_leaves_what_init_can_go_on_with() -> Result<()> {
    sample(Work::Init, 3, 7)
}

#[test]
fn a_kill_in_the_middle_of_a_join_leaves_a_node_that_starts() -> Result<()> {
    sample(Work::Join, 4, 9)
}

#[test]
fn a_kill_in_the_middle_of_a_leave_leaves_nothing_in_between() -> Result<()> {
    sample(Work::Leave, 1, 5)
}

#[test]
fn a_kill_in_the_middle_of_a_rotation_is_gone_on_from() -> Result<()> {
    sample(Work::Rotate, 4, 9)?;
    sample(Work::Renew, 4, 9)
}

#[test]
fn a_kill_in_the_middle_of_a_snapshot_loses_nothing() -> Result<()> {
    sample(Work::Snapshot, 5, 19)
}
