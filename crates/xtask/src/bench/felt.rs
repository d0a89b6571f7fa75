//! What the leases of a cluster and its VIP feel of something that goes on, beside a time in
//! which nothing does.

use super::case::VIP;
use super::idle::NODES;
use super::log::{longest, watched};
use anyhow::{Result, ensure};
use chaos_tests::{Cluster, Probe};
use serde_json::{Value, json};
use std::time::Duration;

const WITHOUT: &str = "lease threads without, ms a second";
const WITH: &str = "lease threads with, ms a second";
const SILENT_WITHOUT: &str = "longest silence without, ms";
const SILENT_WITH: &str = "longest silence with, ms";
const SAME: &str = "same leader, term, holder and epoch";

/// Lets `quiet` pass, then has `act` go on.
pub(super) fn felt<T>(
    cluster: &Cluster,
    quiet: Duration,
    act: impl FnOnce() -> Result<T>,
) -> Result<(T, Value)> {
    let standing = || -> Result<_> {
        let status = cluster.host("n1").ctl_json(&["status"])?;
        Ok((status["leader"].clone(), status["term"].clone(), cluster.status("n1")?.vips))
    };
    let before = standing()?;
    let probe = Probe::start(&cluster.lab, VIP)?;
    let ((), idle) = watched(cluster, || {
        std::thread::sleep(quiet);
        Ok(())
    })?;
    let without = probe.finish()?;
    let probe = Probe::start(&cluster.lab, VIP)?;
    let (done, busy) = watched(cluster, act)?;
    let with = probe.finish()?;
    ensure!(without.replies.len() > 1 && with.replies.len() > 1, "the VIP did not answer");
    let found = json!({
        WITHOUT: idle,
        WITH: busy,
        SILENT_WITHOUT: longest(&without),
        SILENT_WITH: longest(&with),
        SAME: standing()? == before,
    });
    Ok((done, found))
}

/// For the README: the rest of a sentence.
pub(super) fn told(found: &Value) -> String {
    let threads = |key: &str| {
        let of = |node: &str| format!("{:.1}", found[key][node].as_f64().unwrap_or(f64::NAN));
        NODES.map(of).join(", ")
    };
    let ms = |key: &str| found[key].as_f64().unwrap_or(f64::NAN);
    format!(
        "the lease threads took {} ms a second meanwhile, without it {}; the VIP was silent for \
         {:.0} ms at most, without it {:.0}; the same leader, holder, term and epoch: {}",
        threads(WITH),
        threads(WITHOUT),
        ms(SILENT_WITH),
        ms(SILENT_WITHOUT),
        found[SAME]
    )
}
