//! `cargo xtask chaos`.

use crate::packages::{CC, IP, NFT, TCPDUMP, install};
use crate::shell::{become_root, run as call};
use anyhow::Result;
use chaos_tests::{Plan, run_at_random};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub(crate) fn run(minutes: u64, seed: Option<u64>, profile: String, strangers: bool) -> Result<()> {
    become_root()?;
    install(&[CC, IP, NFT, TCPDUMP])?;
    // The binaries beside this very program are the ones that are tested.
    call("cargo", &["build", "--locked", "-p", "vipd", "-p", "vipctl"])?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
    let seed = seed.unwrap_or(now.as_secs());
    println!("seed {seed}, {minutes} minutes, profile {profile}");
    let plan = Plan { seed, lasting: Duration::from_secs(minutes * 60), profile, strangers };
    let summary = run_at_random(&plan, |round| println!("{round}"))?;
    let load = std::fs::read_to_string("/proc/loadavg")?;
    println!("seed {seed}, {minutes} minutes, load at the end {}\n{summary}", load.trim());
    Ok(())
}
