//! When the table before a change goes.

use anyhow::Result;
use chaos_tests::{Cluster, Connections, Options, V4, wait_for};
use std::cell::RefCell;
use std::time::{Duration, Instant};
use vip_core::{IDLE_AFTER, RETIRE_AFTER_MS};

/// The guard looks every 10 s, and the log takes a moment.
const LATE: Duration = Duration::from_secs(30);

/// While somebody goes by it, it stays; once nobody does, it goes before its limit.
#[test]
#[ignore = "takes four minutes: cargo test -p chaos-tests --test retiring -- --ignored"]
fn a_table_before_goes_once_nobody_goes_by_it() -> Result<()> {
    let mut cluster = Cluster::formed(&Options::default())?;
    let _servers = V4.front(&mut cluster)?;
    let n1 = cluster.host("n1");
    let connections = RefCell::new(Connections::open(&cluster.lab, "client", V4.target(), 20)?);
    let begun = Instant::now();
    n1.ctl_ok(&["real", "drain", "front", "10.77.0.11"])?;
    let is_settling = || -> Result<bool> {
        Ok(!n1.ctl_json(&["vs", "show", "front"])?["settling_since_ms"].is_null())
    };
    assert!(is_settling()?);
    let speak_until = IDLE_AFTER / 2;
    wait_for("connections spoke for a while", IDLE_AFTER, || {
        assert_eq!(connections.borrow_mut().lost(), 0);
        (begun.elapsed() >= speak_until).then_some(())
    })?;
    assert!(connections.borrow_mut().end_those_of("r1") > 0);
    let ended = Instant::now();
    wait_for("it retires", IDLE_AFTER + LATE, || (!is_settling().ok()?).then_some(()))?;
    let (silent, all) = (ended.elapsed(), begun.elapsed());
    println!("it retired {silent:?} after the last word, {all:?} after the change");
    assert!(silent + LATE / 3 >= IDLE_AFTER, "{silent:?}: somebody had spoken");
    assert!(all < Duration::from_millis(RETIRE_AFTER_MS), "{all:?}: that is its limit");
    assert_eq!(connections.borrow_mut().lost(), 0);
    Ok(())
}

/// However much is said by it: what speaks stays where it is, by what is remembered.
#[test]
#[ignore = "takes six minutes: cargo test -p chaos-tests --test retiring -- --ignored"]
fn a_table_before_goes_at_its_limit_while_somebody_goes_by_it() -> Result<()> {
    let mut cluster = Cluster::formed(&Options::default())?;
    let _servers = V4.front(&mut cluster)?;
    let n1 = cluster.host("n1");
    let mut connections = Connections::open(&cluster.lab, "client", V4.target(), 20)?;
    let begun = Instant::now();
    n1.ctl_ok(&["real", "drain", "front", "10.77.0.11"])?;
    let limit = Duration::from_millis(RETIRE_AFTER_MS);
    wait_for("it retires", limit + LATE, || {
        assert_eq!(connections.lost(), 0);
        let shown = n1.ctl_json(&["vs", "show", "front"]).ok()?;
        shown["settling_since_ms"].is_null().then_some(())
    })?;
    let all = begun.elapsed();
    println!("it retired {all:?} after the change");
    assert!(all + LATE / 30 >= limit, "{all:?}: somebody spoke all the while");
    assert_eq!(connections.lost(), 0);
    Ok(())
}
